//! The server as attacker: people who were put into a chat behind its members' backs. No client wraps a key for them, and
//! each says so.

use std::time::{Duration, SystemTime};

use sealcast::client::{Client, SendError, VerificationFailure};
use sealcast::protocol::binary::Hash;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::fold::FoldError;
use sealcast::protocol::ids::{ChatId, Epoch, Seq, SessionId};
use sealcast::protocol::log::{EntryBody, next_entry};
use sealcast::protocol::membership::Change;

use super::super::super::support::broker::Broker;
use super::super::super::support::chat::view;
use super::super::super::support::clients::{alarm, message, register};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, now};
use super::super::super::support::library::caught_up;

/// How the ghost gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ghost {
    /// A session of Bob's that he never certified, in the tables alone.
    Session,
    /// The same with an entry in the log, whose hashes are right.
    SessionInLog,
    /// A member whom nobody added, in the tables alone.
    Member,
    /// The same with a change in the log that Ada is said to have signed.
    MemberInLog,
}

impl Ghost {
    const ALL: [Self; 4] = [Self::Session, Self::SessionInLog, Self::Member, Self::MemberInLog];

    /// What the entry in the log is refused for.
    const fn refused(self) -> Option<VerificationFailure> {
        match self {
            Self::SessionInLog => Some(VerificationFailure::Fold(FoldError::Certificate)),
            Self::MemberInLog => Some(VerificationFailure::Fold(FoldError::Signature)),
            Self::Session | Self::Member => None,
        }
    }
}

struct Scene {
    broker: Broker,
    ada: Client,
    bob: Client,
    mallory: Device,
    chat_id: ChatId,
    database: Database,
}

impl Scene {
    async fn start() -> Self {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let (ada, bob) = (register(&broker, "ada").await, register(&broker, "bob").await);
        let chat_id = ada.create_chat("among us").await.unwrap();
        let added = ada.add_member(chat_id, "bob", true, false).await.unwrap();
        caught_up(&bob, chat_id, added).await;
        ada.send(chat_id, "before").await.unwrap();
        let mallory = Device::register(&broker, "mallory").await;
        Self { broker, ada, bob, mallory, chat_id, database }
    }

    async fn sql(&self, sql: &str) {
        self.database.client().await.batch_execute(sql).await.unwrap();
    }

    /// Puts the ghost in; gives its session.
    async fn let_in(&self, ghost: Ghost) -> SessionId {
        // The copies are counted anew, and the ghost's is missing.
        self.sql("UPDATE sender_keys SET covered_version = NULL").await;
        match ghost {
            Ghost::Session | Ghost::SessionInLog => self.session(ghost == Ghost::SessionInLog).await,
            Ghost::Member | Ghost::MemberInLog => self.member(ghost == Ghost::MemberInLog).await,
        }
    }

    async fn session(&self, in_log: bool) -> SessionId {
        let bob = self.bob.user_id();
        let (identity, first) = (self.mallory.identity.clone(), &self.mallory.certificate.certificate);
        let ghost = Device::certified(bob, "bob", identity, first.place.next(), Hash([1; 32]), 86_400_000_000);
        let certificate = &ghost.certificate.certificate;
        let body = Encoding::MessagePack.encode(&ghost.certificate).unwrap().to_vec();
        let insert = "INSERT INTO user_sessions (id, user_id, expired_at, public_key, signing_public_key, certificate, state) \
             VALUES ($1, $2, clock_timestamp() + interval '1 day', $3, $4, $5, 'live')";
        let (public, signing) = (certificate.public_key.as_ref(), certificate.signing_public_key.as_ref());
        let client = self.database.client().await;
        client.execute(insert, &[&ghost.session_id.0, &bob.0, &public, &signing, &body]).await.unwrap();
        if in_log {
            self.write(EntryBody::SessionIn(ghost.certificate.clone())).await;
        }
        ghost.session_id
    }

    async fn member(&self, in_log: bool) -> SessionId {
        if in_log {
            // The server knows the log; Mallory is let in for a moment to sign at its end.
            let observer = self.observe().await;
            self.write(EntryBody::Membership(observer)).await;
        }
        let joined = "INSERT INTO user_in_chat (chat_id, user_id, can_write, can_manage, joined_seq, readable_from) \
             VALUES ($1, $2, true, true, 1, 1)";
        self.database.client().await.execute(joined, &[&self.chat_id.0, &self.mallory.user_id.0]).await.unwrap();
        self.mallory.session_id
    }

    /// A change that adds Mallory, with Ada as its actor and Mallory's signature.
    async fn observe(&self) -> sealcast::protocol::membership::SignedChange {
        let (chat_id, mallory) = (self.chat_id, self.mallory.user_id);
        let joined = "INSERT INTO user_in_chat (chat_id, user_id, can_write, can_manage, joined_seq, readable_from) \
             VALUES ($1, $2, true, true, 1, 1)";
        let client = self.database.client().await;
        client.execute(joined, &[&chat_id.0, &mallory.0]).await.unwrap();
        let mut socket = self.mallory.connect(&self.broker).await;
        let now = view(&mut socket, chat_id).await;
        self.sql(&format!("DELETE FROM user_in_chat WHERE user_id = '{mallory}'")).await;
        let add = Change::Add {
            can_write: true,
            can_manage: true,
            roster_hash: now.fold.roster_hash(),
            epoch: Epoch::saturating(now.fold.epoch().get()),
        };
        let mut change = self.mallory.change_from(&now, chat_id, add, &self.mallory).change;
        change.actor.user_id = self.ada.user_id();
        change.actor.session_id = self.ada.session_id();
        change.actor.identity_key = now.fold.membership().members[&self.ada.user_id()].identity_key;
        self.mallory.sign_change(chat_id, change)
    }

    /// Writes an entry at the end of the log, as the server that owns the tables can.
    async fn write(&self, body: EntryBody) {
        let client = self.database.client().await;
        let row = client.query_one("SELECT last_seq, log_hash FROM chats", &[]).await.unwrap();
        let (last, hash): (i64, Vec<u8>) = (row.get(0), row.get(1));
        let hash = Hash(hash.try_into().unwrap());
        let (kind, change_no, change) = match &body {
            EntryBody::Membership(signed) => ("membership", Some(signed.change.n.get() as i64), Some("add")),
            _ => ("session_in", None, None),
        };
        let entry = next_entry(self.chat_id, Seq::saturating(last as u64), &hash, now(), body);
        let created_at = SystemTime::UNIX_EPOCH + Duration::from_micros(entry.created_at.get());
        let packed = Encoding::MessagePack.encode(&entry.body).unwrap().to_vec();
        let insert = "INSERT INTO chat_events (chat_id, seq, kind, change_no, created_at, body, log_hash, change) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let (chat, seq, hash) = (&self.chat_id.0, &(last + 1), &entry.log_hash.as_ref());
        client.execute(insert, &[chat, seq, &kind, &change_no, &created_at, &packed, hash, &change]).await.unwrap();
        let update = "UPDATE chats SET last_seq = $1, roster_version = $1, log_hash = $2";
        client.execute(update, &[seq, hash]).await.unwrap();
    }
}

#[tokio::test]
async fn k13_no_client_wraps_a_key_for_a_ghost_and_each_says_so() {
    for ghost in Ghost::ALL {
        let mut scene = Scene::start().await;
        let (mut adas, mut bobs) = (scene.ada.events(), scene.bob.events());
        let session_id = scene.let_in(ghost).await;
        // The broker believes what the tables say.
        scene.broker.kill_and_restart().await;
        if let Some(refused) = ghost.refused() {
            alarm(&mut adas, refused).await;
            alarm(&mut bobs, refused).await;
        }
        for (client, events) in [(&scene.ada, &mut adas), (&scene.bob, &mut bobs)] {
            let sent = client.send(scene.chat_id, "not for ghosts").await;
            assert!(
                matches!(sent, Err(SendError::GhostRecipient { session_id: named }) if named == session_id),
                "{ghost:?}: {sent:?}"
            );
            alarm(events, VerificationFailure::GhostRecipient(session_id)).await;
        }
        let wrapped = format!("SELECT count(*) FROM vault_chat_sender_keys WHERE session_id = '{session_id}'");
        assert_eq!(scene.database.count(&wrapped).await, 0, "{ghost:?}");
        let messages = "SELECT count(*) FROM chat_messages";
        assert_eq!(scene.database.count(messages).await, 1, "{ghost:?}");

        // Without the ghost the chat goes on, whatever stays in the log.
        let sql = match ghost {
            Ghost::Session | Ghost::SessionInLog => format!("DELETE FROM user_sessions WHERE id = '{session_id}'"),
            Ghost::Member | Ghost::MemberInLog => {
                format!("DELETE FROM user_in_chat WHERE user_id = '{}'", scene.mallory.user_id)
            }
        };
        scene.sql(&sql).await;
        scene.broker.kill_and_restart().await;
        scene.ada.send(scene.chat_id, "good").await.unwrap();
        assert_eq!(message(&mut bobs, "good").await.sender_id, scene.ada.user_id());
    }
}
