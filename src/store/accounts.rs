//! The end of an account: one transaction over everything that was its user's.
//!
//! What others need to verify the logs that the user wrote in stays: messages, certificates, announcements, and the
//! user's chain with the deletion as its last entry.

use std::collections::HashMap;

use uuid::Uuid;

use super::Store;
use super::error::{Failure, StoreError};
use super::head::{self, ChatHead, chats_of_user};
use super::members::{Requester, membership, update_rights};
use super::rows::{bigint, id, pack};
use super::sessions::{SessionsChanged, check_chain, locked, require_live};
use super::transaction::Transaction;
use crate::protocol::certificate::SignedDeletion;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::ids::{ChatId, SessionId, UserId};
use crate::protocol::log::EntryBody;
use crate::protocol::membership::Member;

impl Store {
    /// Ends the requester's account. Gives the chats whose logs say so or that ended, and the sessions that are gone.
    ///
    /// Chats that the user owned pass to their heirs by the rule of the membership state machine; those in which
    /// nobody else was are gone. The username is never given out again.
    ///
    /// # Errors
    /// `bad_signature`, `event_conflict`, or [`StoreError`]. There is no repeat: after the commit nobody can log in
    /// to ask again.
    pub async fn delete_account(&self, who: Requester, signed: &SignedDeletion) -> Result<SessionsChanged, Failure> {
        let user_id = who.user_id;
        self.write_slowly("delete_account", async |tx| {
            // Not the stronger lock that a deletion takes in the end: an heir whose own account is ending must not
            // hold up the chat that passes to them while they wait for its row.
            let user = locked(tx, user_id).await?;
            require_live(tx, user_id, who.session_id).await?;
            if signed.deletion.user_id != user_id || !signed.verifies(&user.identity_key) {
                return Err(Refusal::new(ErrorCode::BadSignature, "the deletion's signature does not verify").into());
            }
            check_chain(&user, signed.deletion.place, &signed.deletion.previous)?;
            let changed = leave_all(tx, user_id, &EntryBody::AccountDeleted(signed.clone())).await?;
            end_chain(tx, user_id, signed).await?;
            retire(tx, user_id).await?;
            Ok(changed)
        })
        .await
    }
}

/// Takes a user whose row is locked out of every chat, with an entry in each, and deletes the copies of their sessions.
pub(super) async fn leave_all(
    tx: &Transaction<'_>,
    user_id: UserId,
    entry: &EntryBody,
) -> Result<SessionsChanged, Failure> {
    let gone = sessions_of(tx, user_id).await?;
    // Before the chats are locked: there may be many copies, and their chats go on meanwhile. Those that come until the
    // lock go with their sessions.
    delete_copies(tx, &gone).await?;
    let heads = ChatHead::lock_all(tx, &chats_of_user(tx, user_id).await?).await?;
    let chats = heads.iter().map(|head| head.chat_id).collect();
    leave_chats(tx, heads, user_id, entry).await?;
    Ok(SessionsChanged { chats, gone })
}

/// Takes the user out of every chat, with an entry in each; a chat in which nobody is left ends.
async fn leave_chats(
    tx: &Transaction<'_>,
    mut heads: Vec<ChatHead>,
    user_id: UserId,
    entry: &EntryBody,
) -> Result<(), Failure> {
    let owned: Vec<&ChatHead> = heads.iter().filter(|head| head.owner_id == user_id).collect();
    let heirs = heirs(tx, &owned, user_id).await?;
    let is_ending = |head: &ChatHead| head.owner_id == user_id && !heirs.contains_key(&head.chat_id);
    let ending: Vec<Uuid> = heads.iter().filter(|head| is_ending(head)).map(|head| head.chat_id.0).collect();
    heads.retain(|head| !is_ending(head));
    if !ending.is_empty() {
        tx.execute("DELETE FROM chats WHERE id = ANY($1)", &[&ending]).await?;
    }
    tx.execute("DELETE FROM user_in_chat WHERE user_id = $1", &[&user_id.0]).await?;
    let heirs_rights: Vec<(ChatId, UserId, Member)> =
        heirs.iter().map(|(chat_id, (heir, member))| (*chat_id, *heir, *member)).collect();
    update_rights(tx, &heirs_rights).await?;
    for head in &mut heads {
        head.append(entry.clone());
        if let Some((heir, _)) = heirs.get(&head.chat_id) {
            head.owner_id = *heir;
        }
    }
    head::write_back(tx, &heads).await
}

/// To whom each chat of the user passes, with the rights that they have then; none for a chat without others.
async fn heirs(
    tx: &Transaction<'_>,
    owned: &[&ChatHead],
    user_id: UserId,
) -> Result<HashMap<ChatId, (UserId, Member)>, Failure> {
    let mut heirs = HashMap::new();
    // One chat at a time: the members of all of them together may be very many.
    for head in owned {
        let mut membership = membership(tx, head).await?;
        membership.delete_account(user_id).map_err(|_| StoreError::Corrupt { what: "user_in_chat" })?;
        let owner_id = membership.owner_id;
        if let Some(member) = membership.members.get(&owner_id) {
            heirs.insert(head.chat_id, (owner_id, *member));
        }
    }
    Ok(heirs)
}

async fn sessions_of(tx: &Transaction<'_>, user_id: UserId) -> Result<Vec<SessionId>, Failure> {
    let found = tx.query("SELECT id FROM user_sessions WHERE user_id = $1", &[&user_id.0]).await?;
    Ok(found.iter().map(|row| id(row, "id", SessionId)).collect::<Result<_, _>>()?)
}

async fn delete_copies(tx: &Transaction<'_>, sessions: &[SessionId]) -> Result<(), Failure> {
    let ids: Vec<Uuid> = sessions.iter().map(|session_id| session_id.0).collect();
    for table in ["vault_chat_sender_keys", "vault_chat_info_keys", "session_cursors"] {
        tx.execute(&format!("DELETE FROM {table} WHERE session_id = ANY($1)"), &[&ids]).await?;
    }
    Ok(())
}

/// Ends the chain with what its user signed.
async fn end_chain(tx: &Transaction<'_>, user_id: UserId, signed: &SignedDeletion) -> Result<(), Failure> {
    let insert = "INSERT INTO user_events (user_id, place, kind, body, hash) VALUES ($1, $2, 'deletion', $3, $4)";
    let body = pack(signed, "user_events.body")?;
    let place = bigint(signed.deletion.place);
    tx.execute(insert, &[&user_id.0, &place, &body, &signed.chain_hash().as_ref()]).await?;
    Ok(())
}

/// Keeps the name from ever being given out again, and deletes the user with all that hangs on it.
pub(super) async fn retire(tx: &Transaction<'_>, user_id: UserId) -> Result<(), Failure> {
    let retire = "INSERT INTO retired_usernames (username) SELECT username FROM users WHERE id = $1";
    tx.execute(retire, &[&user_id.0]).await?;
    tx.execute("DELETE FROM users WHERE id = $1", &[&user_id.0]).await?;
    Ok(())
}
