//! Membership: chats made and ended, members added and removed, rights, ownership, history. The rules are the
//! protocol's state machine, run inside the transaction on what the locked rows say.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::Store;
use super::change_limits::check_change_limit;
use super::error::Failure;
use super::group_keys::show_user_key;
use super::head::{self, ChatHead, lock_user};
use super::rows::{bigint, fixed, get, id, number, system_time, unpack};
use super::sessions::require_live;
use super::settings::check_may_add;
use super::transaction::Transaction;
use super::users::{SessionLimits, certificate_of};
use crate::protocol::certificate::SignedCertificate;
use crate::protocol::error::{ErrorCode, ErrorDetails, Refusal};
use crate::protocol::frame::{ChangeMembership, Changed, CreateChat, DeleteChat};
use crate::protocol::ids::{ChatId, Epoch, SessionId, UserId};
use crate::protocol::keys::{InfoKeyWrap, SealedName};
use crate::protocol::limits::{INFO_KEY_WRAPS_MAX, NAME_BYTES_MAX};
use crate::protocol::log::{EntryBody, log_start};
use crate::protocol::membership::{Change, Member, Membership, MembershipChange, MembershipError, SignedChange};
use crate::protocol::verify::Verifier;

/// Who asks, as the login proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requester {
    /// The user.
    pub user_id: UserId,
    /// The session.
    pub session_id: SessionId,
}

impl Store {
    /// Makes a chat. The same request again gets the same answer.
    ///
    /// # Errors
    /// A refusal by the membership rules, `too_large`, `limit_reached`, or [`StoreError`](super::StoreError).
    pub async fn create_chat(
        &self,
        who: Requester,
        request: &CreateChat,
        limits: &SessionLimits,
    ) -> Result<Changed, Failure> {
        check_name(request.name.as_ref())?;
        let chat_id = request.chat_id;
        let result = self.write("create_chat", async |tx| {
            let Some(user) = lock_user(tx, who.user_id).await? else { return Err(unknown_chat().into()) };
            let signing_key = require_live(tx, who.user_id, who.session_id).await?;
            let first = &request.change;
            check_actor(who, &first.change)?;
            if !signing_key.verifies(&first.change.signed_bytes(chat_id), &first.signature) {
                return Err(bad_signature().into());
            }
            if first.change.actor.identity_key != user.identity_key {
                return Err(identity_changed().into());
            }
            if let Some(head) = ChatHead::lock(tx, chat_id).await? {
                return repeat_of(tx, head.chat_id, first)
                    .await?
                    .ok_or_else(|| Refusal::new(ErrorCode::IdReused, "the chat id is taken").into());
            }
            let membership = Membership::create(chat_id, first).map_err(|error| refusal_of(error, None))?;
            check_chat_count(tx, who.user_id, limits).await?;
            check_no_expiry_due(tx, who.user_id).await?;
            let mut head = ChatHead::new(chat_id, who.user_id, log_start(chat_id), user.now);
            let seq = head.append(EntryBody::Membership(first.clone()));
            insert_chat(tx, &head, request.name.as_ref()).await?;
            for (user_id, member) in &membership.members {
                insert_member(tx, chat_id, *user_id, member).await?;
            }
            // The founding session comes first: its certificate lets readers check the first signature.
            let mut sessions = live_certificates(tx, who.user_id).await?;
            sessions.sort_by_key(|signed| signed.certificate.session_id != who.session_id);
            for signed in sessions {
                head.append(EntryBody::SessionIn(signed));
            }
            let mut heads = [head];
            show_user_key(tx, &mut heads, who.user_id).await?;
            head::write_back(tx, &heads).await?;
            insert_info_keys(tx, chat_id, who, who.user_id, &request.info_keys).await?;
            Ok(Changed { seq, duplicate: false })
        });
        match result.await {
            Err(Failure::Store(error)) if error.is_unique_violation() => {
                Err(Refusal::new(ErrorCode::IdReused, "the chat id is taken").into())
            }
            result => result,
        }
    }

    /// Makes any membership change but the chat's first and last. The same request again gets the same answer.
    ///
    /// # Errors
    /// A refusal by the membership rules, [`Failure::ExpiryDue`], or [`StoreError`](super::StoreError).
    pub async fn change_membership(
        &self,
        who: Requester,
        request: &ChangeMembership,
        limits: &SessionLimits,
        members_max: u64,
    ) -> Result<Changed, Failure> {
        let (chat_id, signed) = (request.chat_id, &request.change);
        let change = &signed.change;
        let is_add = matches!(change.change, Change::Add { .. });
        if matches!(change.change, Change::Create | Change::Delete) || (!is_add && !request.info_keys.is_empty()) {
            return Err(refusal_of(MembershipError::Malformed, None).into());
        }
        self.write("change_membership", async |tx| {
            if !is_member(tx, who, chat_id).await? {
                // Who has left may have asked to, and lost the answer.
                let repeat = repeat_of(tx, chat_id, signed).await?.filter(|_| change.actor.user_id == who.user_id);
                return repeat.ok_or_else(|| unknown_chat().into());
            }
            let target = lock_user(tx, change.target.user_id).await?;
            let Some(mut head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            if let Some(repeat) = repeat_of(tx, chat_id, signed).await?
                && change.actor.user_id == who.user_id
            {
                return Ok(repeat);
            }
            let mut membership = membership(tx, &head).await?;
            if !membership.members.contains_key(&who.user_id) {
                return Err(unknown_chat().into());
            }
            let signing_key = require_live(tx, who.user_id, who.session_id).await?;
            check_actor(who, change)?;
            if change.seen.seq > head.last_seq {
                let details = ErrorDetails { seq: Some(head.last_seq), ..ErrorDetails::default() };
                return Err(Refusal::with(ErrorCode::AheadOfLog, "the log is not that long", details).into());
            }
            if !signing_key.verifies(&change.signed_bytes(chat_id), &signed.signature) {
                return Err(bad_signature().into());
            }
            let seq = head.last_seq.next();
            membership.apply(chat_id, seq, signed).map_err(|error| refusal_of(error, Some(&head)))?;
            if head.expiry_due {
                return Err(Failure::ExpiryDue);
            }
            check_change_limit(tx, chat_id, &change.change).await?;
            if let Change::Add { roster_hash, epoch, .. } = &change.change {
                check_anchor(&head, *roster_hash == head.roster_hash, *epoch)?;
                let known = target.as_ref().map(|target| target.identity_key);
                if known != Some(change.target.identity_key) {
                    return Err(Refusal::new(ErrorCode::UnknownUser, "no user of that id and identity key").into());
                }
                check_may_add(tx, who.user_id, change.target.user_id).await?;
                check_chat_count(tx, change.target.user_id, limits).await?;
                check_no_expiry_due(tx, change.target.user_id).await?;
                if membership.members.len() as u64 > members_max {
                    return Err(Refusal::limit(ErrorCode::LimitReached, "the chat is full", members_max).into());
                }
            }
            head.append(EntryBody::Membership(signed.clone()));
            head.owner_id = membership.owner_id;
            head.shared_since = membership.shared_since;
            match membership.members.get(&change.target.user_id) {
                Some(member) if is_add => {
                    insert_member(tx, chat_id, change.target.user_id, member).await?;
                    for certificate in live_certificates(tx, change.target.user_id).await? {
                        head.append(EntryBody::SessionIn(certificate));
                    }
                }
                Some(member) => update_rights(tx, &[(chat_id, change.target.user_id, *member)]).await?,
                None => delete_member(tx, chat_id, change.target.user_id).await?,
            }
            let mut heads = [head];
            if is_add {
                show_user_key(tx, &mut heads, change.target.user_id).await?;
            }
            head::write_back(tx, &heads).await?;
            if !request.info_keys.is_empty() {
                insert_info_keys(tx, chat_id, who, change.target.user_id, &request.info_keys).await?;
            }
            Ok(Changed { seq, duplicate: false })
        })
        .await
    }

    /// Ends a chat: everything of it goes. Owner only. Gives the sessions that were its recipients.
    ///
    /// # Errors
    /// A refusal by the membership rules, or [`StoreError`](super::StoreError).
    pub async fn delete_chat(&self, who: Requester, request: &DeleteChat) -> Result<Vec<SessionId>, Failure> {
        let (chat_id, change) = (request.chat_id, &request.change.change);
        if change.change != Change::Delete {
            return Err(refusal_of(MembershipError::Malformed, None).into());
        }
        self.write_slowly("delete_chat", async |tx| {
            turn_away(tx, who, chat_id).await?;
            let Some(head) = ChatHead::lock(tx, chat_id).await? else { return Err(unknown_chat().into()) };
            let membership = membership(tx, &head).await?;
            if !membership.members.contains_key(&who.user_id) {
                return Err(unknown_chat().into());
            }
            let signing_key = require_live(tx, who.user_id, who.session_id).await?;
            check_actor(who, change)?;
            if !signing_key.verifies(&change.signed_bytes(chat_id), &request.change.signature) {
                return Err(bad_signature().into());
            }
            membership.check(change).map_err(|error| refusal_of(error, Some(&head)))?;
            let recipients = recipients(tx, chat_id).await?;
            tx.execute("DELETE FROM chats WHERE id = $1", &[&chat_id.0]).await?;
            Ok(recipients)
        })
        .await
    }
}

/// What a stranger is told of any chat.
#[must_use]
pub fn unknown_chat() -> Refusal {
    Refusal::new(ErrorCode::UnknownChat, "no such chat, or not yours")
}

fn bad_signature() -> Refusal {
    Refusal::new(ErrorCode::BadSignature, "the change's signature does not verify")
}

fn identity_changed() -> Refusal {
    Refusal::new(ErrorCode::BadSignature, "an identity key is not the user's")
}

fn refusal_of(error: MembershipError, head: Option<&ChatHead>) -> Refusal {
    match error {
        MembershipError::NotMember => unknown_chat(),
        MembershipError::Malformed => Refusal::new(ErrorCode::Malformed, "actor, target and change do not fit"),
        MembershipError::IdentityChanged => identity_changed(),
        MembershipError::CannotManage => Refusal::new(ErrorCode::CannotManage, "may not manage members"),
        MembershipError::NotOwner => Refusal::new(ErrorCode::NotOwner, "only the owner may, and nobody to the owner"),
        MembershipError::OwnerMustTransfer => {
            Refusal::new(ErrorCode::OwnerMustTransfer, "the owner must transfer the chat first")
        }
        MembershipError::AlreadyMember => Refusal::new(ErrorCode::AlreadyMember, "the user is a member already"),
        MembershipError::Unchanged => Refusal::new(ErrorCode::Malformed, "nothing would change"),
        MembershipError::TargetNotMember => Refusal::new(ErrorCode::NotMember, "the user is not a member"),
        MembershipError::Conflict => {
            let details = head.map(|head| ErrorDetails {
                n: Some(head.change_no),
                hash: Some(head.change_hash),
                seq: Some(head.last_seq),
                ..ErrorDetails::default()
            });
            Refusal::with(ErrorCode::EventConflict, "another change came first", details.unwrap_or_default())
        }
    }
}

fn check_actor(who: Requester, change: &MembershipChange) -> Result<(), Refusal> {
    if change.actor.user_id == who.user_id && change.actor.session_id == who.session_id {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::BadSignature, "the actor is not the session that is logged in"))
}

fn check_anchor(head: &ChatHead, roster_is_current: bool, epoch: Epoch) -> Result<(), Refusal> {
    if roster_is_current && epoch == head.epoch {
        return Ok(());
    }
    let details = ErrorDetails { seq: Some(head.last_seq), epoch: Some(head.epoch), ..ErrorDetails::default() };
    Err(Refusal::with(ErrorCode::RosterChanged, "roster hash or epoch is not the current one", details))
}

fn check_name(name: Option<&SealedName>) -> Result<(), Refusal> {
    if name.is_some_and(|name| name.data.len() > NAME_BYTES_MAX) {
        return Err(Refusal::limit(ErrorCode::TooLarge, "the name is too long", NAME_BYTES_MAX as u64));
    }
    Ok(())
}

/// A session whose time has run out must not come into a chat: its user's expiries are written down first.
async fn check_no_expiry_due(tx: &Transaction<'_>, user_id: UserId) -> Result<(), Failure> {
    let statement =
        "SELECT 1 FROM user_sessions WHERE user_id = $1 AND state = 'live' AND expired_at <= clock_timestamp() LIMIT 1";
    match tx.query_opt(statement, &[&user_id.0]).await? {
        Some(_) => Err(Failure::ExpiryDue),
        None => Ok(()),
    }
}

async fn check_chat_count(tx: &Transaction<'_>, user_id: UserId, limits: &SessionLimits) -> Result<(), Failure> {
    let statement = "SELECT count(*) AS count FROM user_in_chat WHERE user_id = $1";
    let count: i64 = get(&tx.query_one(statement, &[&user_id.0]).await?, "count")?;
    if count.unsigned_abs() >= limits.chats_max {
        return Err(Refusal::limit(ErrorCode::LimitReached, "the user is in too many chats", limits.chats_max).into());
    }
    Ok(())
}

/// The answer to a change that is in the log already, byte for byte.
async fn repeat_of(tx: &Transaction<'_>, chat_id: ChatId, signed: &SignedChange) -> Result<Option<Changed>, Failure> {
    let statement = "SELECT seq, body FROM chat_events WHERE chat_id = $1 AND change_no = $2";
    let Some(row) = tx.query_opt(statement, &[&chat_id.0, &bigint(signed.change.n)]).await? else {
        return Ok(None);
    };
    let stored: EntryBody = unpack(get(&row, "body")?, "chat_events.body")?;
    let is_same = matches!(&stored, EntryBody::Membership(stored) if stored == signed);
    Ok(is_same.then_some(Changed { seq: number(&row, "seq")?, duplicate: true }))
}

/// Turns strangers away before anything is locked: they hold up nobody. Under the lock it is asked again.
///
/// # Errors
/// `unknown_chat`, or [`Failure::Store`].
pub(super) async fn turn_away(tx: &Transaction<'_>, who: Requester, chat_id: ChatId) -> Result<(), Failure> {
    if is_member(tx, who, chat_id).await? { Ok(()) } else { Err(unknown_chat().into()) }
}

async fn is_member(tx: &Transaction<'_>, who: Requester, chat_id: ChatId) -> Result<bool, Failure> {
    let statement = "SELECT 1 FROM user_in_chat WHERE chat_id = $1 AND user_id = $2";
    Ok(tx.query_opt(statement, &[&chat_id.0, &who.user_id.0]).await?.is_some())
}

/// The members of a chat as the state machine sees them.
pub(super) async fn membership(tx: &Transaction<'_>, head: &ChatHead) -> Result<Membership, Failure> {
    let statement = "SELECT m.user_id, m.can_write, m.can_manage, m.joined_seq, m.readable_from, u.identity_public_key \
         FROM user_in_chat m JOIN users u ON u.id = m.user_id WHERE m.chat_id = $1";
    let mut members = BTreeMap::new();
    for row in tx.query(statement, &[&head.chat_id.0]).await? {
        let member = Member {
            identity_key: fixed(&row, "identity_public_key")?,
            can_write: get(&row, "can_write")?,
            can_manage: get(&row, "can_manage")?,
            joined_seq: number(&row, "joined_seq")?,
            readable_from: number(&row, "readable_from")?,
        };
        members.insert(id(&row, "user_id", UserId)?, member);
    }
    Ok(Membership {
        head: head.change_no,
        hash: head.change_hash,
        owner_id: head.owner_id,
        members,
        shared_since: head.shared_since,
    })
}

async fn recipients(tx: &Transaction<'_>, chat_id: ChatId) -> Result<Vec<SessionId>, Failure> {
    let statement = "SELECT s.id FROM user_in_chat m JOIN user_sessions s ON s.user_id = m.user_id AND s.state = 'live' \
         WHERE m.chat_id = $1";
    let found = tx.query(statement, &[&chat_id.0]).await?;
    Ok(found.iter().map(|row| id(row, "id", SessionId)).collect::<Result<_, _>>()?)
}

async fn live_certificates(tx: &Transaction<'_>, user_id: UserId) -> Result<Vec<SignedCertificate>, Failure> {
    let statement = "SELECT certificate FROM user_sessions WHERE user_id = $1 AND state = 'live' ORDER BY id";
    let mut certificates = Vec::new();
    for row in tx.query(statement, &[&user_id.0]).await? {
        certificates.push(certificate_of(get(&row, "certificate")?)?);
    }
    Ok(certificates)
}

async fn insert_chat(tx: &Transaction<'_>, head: &ChatHead, name: Option<&SealedName>) -> Result<(), Failure> {
    let statement = "INSERT INTO chats (id, owner_id, name, info_key_id, last_seq, log_hash, epoch, roster_version, roster_hash, \
         change_no, change_hash, created_at) VALUES ($1, $2, $3, $4, 0, $5, $6, 0, $7, $8, $9, $10)";
    let name_data = name.map(|name| name.data.as_ref());
    let key_id = name.map(|name| name.key_id.0);
    tx.execute(
        statement,
        &[
            &head.chat_id.0,
            &head.owner_id.0,
            &name_data,
            &key_id,
            &head.log_hash.as_ref(),
            &bigint(head.epoch),
            &head.roster_hash.as_ref(),
            &bigint(head.change_no),
            &head.change_hash.as_ref(),
            &system_time(head.now),
        ],
    )
    .await?;
    Ok(())
}

async fn insert_member(tx: &Transaction<'_>, chat_id: ChatId, user_id: UserId, member: &Member) -> Result<(), Failure> {
    let statement = "INSERT INTO user_in_chat (chat_id, user_id, can_write, can_manage, joined_seq, readable_from) \
         VALUES ($1, $2, $3, $4, $5, $6)";
    let (joined_seq, readable_from) = (bigint(member.joined_seq), bigint(member.readable_from));
    let rights = (&member.can_write, &member.can_manage);
    tx.execute(statement, &[&chat_id.0, &user_id.0, rights.0, rights.1, &joined_seq, &readable_from]).await?;
    Ok(())
}

/// Writes what members may do. Set-based.
pub(super) async fn update_rights(tx: &Transaction<'_>, members: &[(ChatId, UserId, Member)]) -> Result<(), Failure> {
    let chats: Vec<Uuid> = members.iter().map(|(chat_id, ..)| chat_id.0).collect();
    let users: Vec<Uuid> = members.iter().map(|(_, user_id, _)| user_id.0).collect();
    let can_write: Vec<bool> = members.iter().map(|(.., member)| member.can_write).collect();
    let can_manage: Vec<bool> = members.iter().map(|(.., member)| member.can_manage).collect();
    let statement = "UPDATE user_in_chat m SET can_write = new.can_write, can_manage = new.can_manage \
         FROM unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::boolean[]) \
             AS new (chat_id, user_id, can_write, can_manage) \
         WHERE m.chat_id = new.chat_id AND m.user_id = new.user_id";
    tx.execute(statement, &[&chats, &users, &can_write, &can_manage]).await?;
    Ok(())
}

/// Takes a user out of a chat, with what only a member may hold: the info key, cursors, copies.
async fn delete_member(tx: &Transaction<'_>, chat_id: ChatId, user_id: UserId) -> Result<(), Failure> {
    let of_user = "SELECT id FROM user_sessions WHERE user_id = $2";
    for statement in [
        "DELETE FROM user_in_chat WHERE chat_id = $1 AND user_id = $2".to_owned(),
        format!("DELETE FROM vault_chat_info_keys WHERE chat_id = $1 AND session_id IN ({of_user})"),
        format!("DELETE FROM info_key_requests WHERE chat_id = $1 AND session_id IN ({of_user})"),
        format!("DELETE FROM session_cursors WHERE chat_id = $1 AND session_id IN ({of_user})"),
        format!("DELETE FROM key_requests WHERE chat_id = $1 AND session_id IN ({of_user})"),
        format!("DELETE FROM vault_chat_sender_keys WHERE chat_id = $1 AND session_id IN ({of_user})"),
    ] {
        tx.execute(&statement, &[&chat_id.0, &user_id.0]).await?;
    }
    Ok(())
}

async fn insert_info_keys(
    tx: &Transaction<'_>,
    chat_id: ChatId,
    who: Requester,
    for_user: UserId,
    wraps: &[InfoKeyWrap],
) -> Result<(), Failure> {
    if wraps.len() > INFO_KEY_WRAPS_MAX {
        return Err(
            Refusal::limit(ErrorCode::TooLarge, "too many wraps of the info key", INFO_KEY_WRAPS_MAX as u64).into()
        );
    }
    let signing_key = require_live(tx, who.user_id, who.session_id).await?;
    let statement = "INSERT INTO vault_chat_info_keys (chat_id, key_id, session_id, key, wrapped_by_session_id, signature) \
         SELECT $1, $2, s.id, $4, $5, $6 FROM user_sessions s \
         WHERE s.id = $3 AND s.user_id = $7 AND s.state = 'live' ON CONFLICT DO NOTHING";
    for wrap in wraps {
        let is_own = wrap.wrapped_by_session_id == who.session_id
            && signing_key.verifies(&wrap.signed_bytes(chat_id), &wrap.signature);
        if !is_own {
            return Err(Refusal::new(ErrorCode::BadSignature, "a wrap of the info key does not verify").into());
        }
        // A session that went meanwhile gets none: a user has few sessions, so a statement for each will do.
        tx.execute(
            statement,
            &[
                &chat_id.0,
                &wrap.key_id.0,
                &wrap.session_id.0,
                &wrap.key.as_ref(),
                &who.session_id.0,
                &wrap.signature.as_ref(),
                &for_user.0,
            ],
        )
        .await?;
    }
    Ok(())
}
