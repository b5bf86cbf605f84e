//! A chat in which everything happens that may: what it leaves in the database is what a verification must find good.

use std::collections::BTreeMap;
use std::fmt::Display;

use sealcast::protocol::binary::{Blob, Signature};
use sealcast::protocol::canonical::sha256;
use sealcast::protocol::frame::{
    AdvanceCursor, CreateChat, FurtherCopy, Keys, Reply, Request, RequestKeys, UploadCopies,
};
use sealcast::protocol::ids::{ChatId, GenerationNo, InfoKeyId, KeyId, Seq, SessionId};
use sealcast::protocol::keys::{InfoKeyWrap, SealedName};
use sealcast::protocol::log::EntryBody;
use sealcast::protocol::membership::HistoryPolicy;

use super::super::support::broker::Broker;
use super::super::support::chat::{SenderKey, copy_for, events, submit, view};
use super::super::support::database::Database;
use super::super::support::device::{Device, Socket, sign};
use super::super::support::eventually;
use super::super::support::generations::change;
use super::super::support::halves::Halves;

/// What came of it. Names stand for ids, seqs and keys of it.
pub struct Scene {
    pub broker: Broker,
    pub ada: Device,
    pub ada_socket: Socket,
    pub chat_id: ChatId,
    names: BTreeMap<&'static str, String>,
    // Dropped last: the broker's connections go first.
    pub database: Database,
}

/// Entries that receivers refuse: one by its signature, one by what its maker says they have seen.
pub const REFUSED: [(&str, u64); 2] = [("signature", 1), ("fork", 1)];

impl Scene {
    /// Puts ids, seqs and keys where a statement has their names in braces.
    pub fn fill(&self, sql: &str) -> String {
        let mut filled = sql.to_owned();
        for (name, value) in &self.names {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        assert!(!filled.contains('{'), "a name that is none: {filled}");
        filled
    }

    fn name(&mut self, name: &'static str, value: impl Display) {
        self.names.insert(name, value.to_string());
    }

    fn name_device(&mut self, [user, session]: [&'static str; 2], device: &Device) {
        self.name(user, device.user_id);
        self.name(session, device.session_id);
    }

    pub async fn play() -> Self {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let ada = Device::register(&broker, "ada").await;
        let mut ada_socket = ada.connect_live(&broker).await;
        let chat_id = named_chat(&ada, &mut ada_socket).await;
        let mut scene = Self { broker, ada, ada_socket, chat_id, names: BTreeMap::new(), database };
        scene.name("chat", chat_id);
        let bob = Device::register(&scene.broker, "bob").await;
        let mut bob_socket = bob.connect_live(&scene.broker).await;
        let adas = scene.ada.clone_device();
        scene.name_device(["ada", "ada_s"], &adas);
        scene.name_device(["bob", "bob_s"], &bob);
        let added = adas.add(&mut scene.ada_socket, chat_id, &bob).await.unwrap();
        scene.name("bob_added", added.seq);
        let key = scene.talk(&bob, &mut bob_socket).await;
        scene.devices(&bob, &mut bob_socket, key).await;
        scene.guests().await;
        scene.shared_history(&mut bob_socket).await;
        scene.last_words(&bob, &mut bob_socket).await;
        scene
    }

    /// Messages, edits, deletions by their sender and by a manager.
    async fn talk(&mut self, bob: &Device, bob_socket: &mut Socket) -> SenderKey {
        let (ada, chat_id) = (self.ada.clone_device(), self.chat_id);
        let now = view(&mut self.ada_socket, chat_id).await;
        let mut key = ada.sender_key(&now, chat_id);
        self.name("key_a", key.named());
        let mut ids = Vec::new();
        for (name, text) in [("kept", "one"), ("edited", "two"), ("deleted", "three")] {
            let message = ada.seal(&now, &mut key, text.as_bytes());
            ids.push(message.envelope.message_id);
            let sent = submit(&mut self.ada_socket, message).await.unwrap();
            self.name(name, sent.seq);
        }
        for (revision, name) in [(1, "edit_1"), (2, "edit_2")] {
            let edit = ada.edit(&now, &mut key, ids[1], revision, b"another two");
            let sent = submit(&mut self.ada_socket, edit).await.unwrap();
            self.name(name, sent.seq);
        }
        let deletion = ada.deletion(&now, chat_id, ids[2], 1);
        let sent = submit(&mut self.ada_socket, deletion).await.unwrap();
        self.name("deletion", sent.seq);
        let now = view(bob_socket, chat_id).await;
        let mut bobs = bob.sender_key(&now, chat_id);
        self.name("key_b", bobs.named());
        let said = bob.seal(&now, &mut bobs, b"to be taken away");
        let message_id = said.envelope.message_id;
        submit(bob_socket, said).await.unwrap();
        let kept = bob.seal(&now, &mut bobs, b"to be kept");
        self.name("bobs_id", kept.envelope.message_id);
        let sent = submit(bob_socket, kept).await.unwrap();
        self.name("bobs", sent.seq);
        let now = view(&mut self.ada_socket, chat_id).await;
        let deletion = ada.deletion(&now, chat_id, message_id, 1);
        let sent = submit(&mut self.ada_socket, deletion).await.unwrap();
        self.name("bobs_deletion", sent.seq);
        key
    }

    /// A further device that comes and is revoked, and somebody whose only device expires.
    async fn devices(&mut self, bob: &Device, bob_socket: &mut Socket, mut key: SenderKey) {
        let (ada, chat_id) = (self.ada.clone_device(), self.chat_id);
        let tablet = bob.linked(&self.broker, bob_socket).await;
        self.name("tablet_s", tablet.session_id);
        let now = view(&mut self.ada_socket, chat_id).await;
        let mut next = ada.seal(&now, &mut key, b"for the tablet too");
        next.add_copies.push(copy_for(tablet.session_id));
        submit(&mut self.ada_socket, next).await.unwrap();
        let dora = Device::register_for(&self.broker, "dora", 1_500_000).await;
        self.name_device(["dora", "dora_s"], &dora);
        ada.add_with(&mut self.ada_socket, chat_id, &dora, false, false).await.unwrap();
        let said = ada.say(&mut self.ada_socket, chat_id, "to who may not write").await.unwrap();
        self.name("to_dora", said.seq);
        bob.revoke(bob_socket, tablet.session_id).await.unwrap();
        let mut expiry = None;
        eventually("an expiry that is written down", async || {
            let entries = events(&mut self.ada_socket, chat_id).await;
            expiry = entries.iter().rfind(|entry| is_out(&entry.body, dora.session_id)).map(|entry| entry.seq);
            expiry.is_some()
        })
        .await;
        self.name("expiry", expiry.unwrap());
    }

    /// Who is added and removed, and who ends their account.
    async fn guests(&mut self) {
        let (ada, chat_id) = (self.ada.clone_device(), self.chat_id);
        let carol = Device::register(&self.broker, "carol").await;
        let mut socket = carol.connect_live(&self.broker).await;
        self.name_device(["carol", "carol_s"], &carol);
        ada.add(&mut self.ada_socket, chat_id, &carol).await.unwrap();
        carol.say(&mut socket, chat_id, "hello and goodbye").await.unwrap();
        ada.remove(&mut self.ada_socket, chat_id, &carol).await.unwrap();
        let dan = Device::register(&self.broker, "dan").await;
        let mut socket = dan.connect_live(&self.broker).await;
        self.name_device(["dan", "dan_s"], &dan);
        ada.add(&mut self.ada_socket, chat_id, &dan).await.unwrap();
        dan.say(&mut socket, chat_id, "the last of me").await.unwrap();
        dan.delete_account(&mut socket).await.unwrap();
    }

    /// A newcomer who may read what was before, is handed a key, refuses the copy, and gets another.
    async fn shared_history(&mut self, bob_socket: &mut Socket) {
        let (ada, chat_id) = (self.ada.clone_device(), self.chat_id);
        let shared = ada.set_history(&mut self.ada_socket, chat_id, HistoryPolicy::Shared).await.unwrap();
        self.name("shared", shared.seq);
        let now = view(&mut self.ada_socket, chat_id).await;
        let mut key = ada.sender_key(&now, chat_id);
        let before = ada.seal(&now, &mut key, b"before the newcomer");
        submit(&mut self.ada_socket, before).await.unwrap();
        let erin = Device::register(&self.broker, "erin").await;
        self.name_device(["erin", "erin_s"], &erin);
        ada.add(&mut self.ada_socket, chat_id, &erin).await.unwrap();
        let mut socket = erin.connect_live(&self.broker).await;
        socket.request(Request::RequestKeys(RequestKeys { chat_id, key_ids: vec![key.named()] })).await.unwrap();
        let copy = FurtherCopy { key_id: key.named(), session_id: erin.session_id, key: copy_for(erin.session_id).key };
        bob_socket.request(Request::UploadCopies(UploadCopies { chat_id, copies: vec![copy] })).await.unwrap();
        refuse(&erin, &mut socket, chat_id, key.named()).await;
        let now = view(&mut self.ada_socket, chat_id).await;
        let mut after = ada.seal(&now, &mut key, b"after the newcomer");
        after.add_copies.push(copy_for(erin.session_id));
        submit(&mut self.ada_socket, after).await.unwrap();
        ada.rekey(&mut self.ada_socket, chat_id).await.unwrap();
    }

    /// A password that comes, and a group key that is made, refused, and made anew.
    async fn generations(&self, bob: &Device, bob_socket: &mut Socket) {
        let chat_id = self.chat_id;
        let mut halves = Halves::none();
        halves.renew(&self.broker, &self.ada).await;
        halves.renew(&self.broker, &self.ada).await;
        let now = view(bob_socket, chat_id).await;
        bob.make_generation(bob_socket, &now, chat_id).await.unwrap();
        let refusal = bob.generation_refusal(chat_id, GenerationNo::saturating(1));
        change(bob_socket, Request::RefuseGeneration(refusal)).await.unwrap();
        let now = view(bob_socket, chat_id).await;
        bob.make_generation(bob_socket, &now, chat_id).await.unwrap();
    }

    /// What is said under the last epoch, well and badly.
    async fn last_words(&mut self, bob: &Device, bob_socket: &mut Socket) {
        let (ada, chat_id) = (self.ada.clone_device(), self.chat_id);
        self.generations(bob, bob_socket).await;
        let changed = ada.set_rights(&mut self.ada_socket, chat_id, bob, (true, true)).await.unwrap();
        self.name("last_change", changed.seq);
        let now = view(&mut self.ada_socket, chat_id).await;
        let mut key = ada.sender_key(&now, chat_id);
        self.name("key_f", key.named());
        for _ in 0..2 {
            let message = ada.seal(&now, &mut key, b"under a key that is replaced");
            submit(&mut self.ada_socket, message).await.unwrap();
        }
        let mut bobs = bob.sender_key(&now, chat_id);
        self.name("key_g", bobs.named());
        let good = bob.seal(&now, &mut bobs, b"good");
        submit(bob_socket, good).await.unwrap();
        let mut forged = bob.seal(&now, &mut bobs, b"that nobody believes");
        forged.envelope.signature = Signature([9; 64]);
        submit(bob_socket, forged).await.unwrap();
        let mut forked = bob.seal(&now, &mut bobs, b"from another world");
        forked.envelope.seen.log_hash = sha256(b"another world");
        bob.sign_envelope(&mut forked);
        submit(bob_socket, forked).await.unwrap();
        let mut key = ada.sender_key(&now, chat_id);
        self.name("key_h", key.named());
        let last = ada.seal(&now, &mut key, b"the last");
        let sent = submit(&mut self.ada_socket, last).await.unwrap();
        self.name("last", sent.seq);
        bob_socket.request(Request::AdvanceCursor(AdvanceCursor { chat_id, seq: sent.seq })).await.unwrap();
    }
}

impl SenderKey {
    fn named(&self) -> KeyId {
        self.announcement.announcement.key_id
    }
}

impl Device {
    fn clone_device(&self) -> Self {
        Self {
            user_id: self.user_id,
            username: self.username.clone(),
            session_id: self.session_id,
            identity: self.identity.clone(),
            signing: self.signing.clone(),
            exchange: self.exchange,
            certificate: self.certificate.clone(),
        }
    }
}

fn is_out(body: &EntryBody, session_id: SessionId) -> bool {
    matches!(body, EntryBody::SessionOut(out) if out.session_id() == session_id)
}

/// A chat with a name, whose info key is wrapped to its founder.
async fn named_chat(ada: &Device, socket: &mut Socket) -> ChatId {
    let (chat_id, key_id) = (ChatId::generate(), InfoKeyId::generate());
    let mut wrap = InfoKeyWrap {
        session_id: ada.session_id,
        key_id,
        key: copy_for(ada.session_id).key,
        wrapped_by_session_id: ada.session_id,
        signature: Signature([0; 64]),
    };
    wrap.signature = sign(&ada.signing, &wrap.signed_bytes(chat_id));
    let name = Some(SealedName { key_id, data: Blob::from(vec![7; 40]) });
    let request = CreateChat { name, info_keys: vec![wrap], ..ada.creation(chat_id) };
    let reply = socket.request(Request::CreateChat(request)).await.unwrap();
    assert!(matches!(reply, Reply::Changed(changed) if changed.seq == Seq::saturating(1)));
    chat_id
}

/// Refuses the copy that a session has.
async fn refuse(device: &Device, socket: &mut Socket, chat_id: ChatId, key_id: KeyId) {
    let reply = socket.request(Request::Keys(Keys { chat_id, key_ids: vec![key_id] })).await.unwrap();
    let Reply::Keys(list) = reply else { panic!("{reply:?}") };
    let copy = list.keys.into_iter().find_map(|key| key.key).expect("a copy to refuse");
    let refusal = device.refusal_of(chat_id, key_id, sha256(copy.as_ref()));
    socket.request(Request::RefuseCopy(refusal)).await.unwrap();
}
