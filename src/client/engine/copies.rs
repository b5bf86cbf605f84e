//! Hands copies of sender keys on, asks for them, and refuses bad ones: in the background, one thing after another.
//!
//! Invariant: D1 a key is handed to nobody who may not read every message that it is known to have been used for,
//! whatever the server asks for.

use std::collections::VecDeque;
use std::sync::Arc;

use super::backups;
use super::call::spawn;
use super::info;
use super::profiles;
use super::state::{Shared, State};
use crate::client::chat::received_keys::HeldKey;
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::crypto::wrap;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{
    CopyRefused, FurtherCopy, InfoKeyRequested, KeyRequested, ProfileKeyRequested, RefuseCopy, Request, RequestKeys,
    UploadCopies,
};
use crate::protocol::ids::{ChatId, KeyId, SessionId, UserId};
use crate::protocol::keys::{CopyRefusal, SignedRefusal};
use crate::protocol::limits::{COPIES_PER_FRAME_MAX, KEYS_PER_REQUEST_MAX};
use crate::protocol::membership::HistoryPolicy;
use crate::protocol::verify::Verifier;

/// Errands that wait, at most: what is beyond is done by others, or asked for again.
const ERRANDS_MAX: usize = 10_000;

/// Something that is to be done about copies.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Another session of this user has come into a chat: it gets the current keys.
    Welcome { chat_id: ChatId, session_id: SessionId },
    /// Another session of this user is live: it gets the keys of older ones.
    BackUp { session_id: SessionId },
    /// This session was handed keys of older ones.
    TakeBackups,
    /// A session lacks keys.
    HandOn { chat_id: ChatId, session_id: SessionId, key_ids: Vec<KeyId> },
    /// This session lacks keys.
    Ask { chat_id: ChatId, key_ids: Vec<KeyId> },
    /// Sessions lack a chat's info key.
    WrapInfo(InfoKeyRequested),
    /// This session's wrap of a chat's info key is of no use.
    AskInfoKey { chat_id: ChatId },
    /// Sessions lack this user's own info key.
    WrapProfile(ProfileKeyRequested),
    /// This user's own profile is another one.
    KeepProfile,
    /// This session's copy is bad.
    Refuse { chat_id: ChatId, refusal: CopyRefusal },
}

/// Errands in order.
#[derive(Debug, Default)]
pub(crate) struct Errands {
    waiting: VecDeque<Errand>,
    is_running: bool,
}

impl Errands {
    pub(crate) fn push(&mut self, errand: Errand) {
        if self.waiting.len() < ERRANDS_MAX {
            self.waiting.push_back(errand);
        }
    }
}

/// Begins to run errands, unless that is under way or there are none.
pub(crate) fn start(shared: &Arc<Shared>) {
    {
        let mut state = shared.lock();
        if state.errands.is_running || state.errands.waiting.is_empty() {
            return;
        }
        state.errands.is_running = true;
    }
    let task_shared = Arc::clone(shared);
    spawn(shared, async move {
        loop {
            // What the fold does not know yet is known once everything has come.
            let is_live = task_shared.live().await.is_ok();
            let errand = {
                let mut state = task_shared.lock();
                let errand = state.errands.waiting.pop_front().filter(|_| is_live);
                state.errands.is_running = errand.is_some();
                errand
            };
            let Some(errand) = errand else { return };
            if let Err(error) = run(&task_shared, errand).await {
                tracing::debug!(%error, "copies are not handed on, asked for or refused now");
            }
        }
    });
}

/// Somebody lacks keys that this session may hand on.
pub(crate) fn on_key_requested(shared: &Arc<Shared>, requested: KeyRequested) {
    let KeyRequested { chat_id, session_id, key_ids } = requested;
    shared.lock().errands.push(Errand::HandOn { chat_id, session_id, key_ids });
    start(shared);
}

/// A copy was refused. Only what its session signed is passed on.
pub(crate) fn on_copy_refused(shared: &Shared, refused: &CopyRefused) {
    let chat_id = refused.chat_id;
    let refusal = &refused.refusal.refusal;
    let bytes = refusal.signed_bytes(chat_id);
    let is_signed = {
        let state = shared.lock();
        let key = state.chats.get(&chat_id).and_then(|chat| chat.log.signing_key(refusal.session_id));
        key.is_some_and(|key| key.verifies(&bytes, &refused.refusal.signature))
    };
    if !is_signed {
        return tracing::warn!(chat.id = %chat_id, "refusal of a copy does not verify");
    }
    shared.publish(vec![Event::CopyRefused {
        chat_id,
        key_id: refusal.key_id,
        refused_by: refusal.session_id,
        sender_session_id: refused.sender_session_id,
        uploaded_by: refused.uploaded_by_session_id,
        reason: refusal.reason,
    }]);
}

/// Hands a newcomer who may read what was before the keys to it, as far as this session has them.
pub(crate) async fn share_history(shared: &Shared, chat_id: ChatId, user_id: UserId) {
    let copies = {
        let mut state = shared.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return };
        if chat.log.fold().membership().history() != HistoryPolicy::Shared {
            return;
        }
        let recipients = chat.log.fold().recipients().iter();
        let sessions: Vec<SessionId> = recipients
            .filter(|(_, recipient)| recipient.user_id == user_id)
            .map(|(session_id, _)| *session_id)
            .collect();
        let keys = state.all_held(chat_id);
        sessions.into_iter().flat_map(|session_id| state.wraps(chat_id, session_id, &keys)).collect()
    };
    if let Err(error) = upload(shared, chat_id, copies).await {
        // The newcomer asks for what it lacks.
        tracing::debug!(%error, "history is not handed on now");
    }
}

async fn run(shared: &Arc<Shared>, errand: Errand) -> Result<(), ClientError> {
    match errand {
        Errand::Welcome { chat_id, session_id } => {
            let copies = {
                let mut state = shared.lock();
                let Some(chat) = state.chats.get(&chat_id) else { return Ok(()) };
                let epoch = chat.log.fold().epoch();
                let mut keys = state.all_held(chat_id);
                keys.retain(|key| key.epoch == epoch);
                state.wraps(chat_id, session_id, &keys)
            };
            upload(shared, chat_id, copies).await
        }
        Errand::HandOn { chat_id, session_id, key_ids } => {
            let copies = {
                let mut state = shared.lock();
                let State { chats, account, .. } = &mut *state;
                let Some(chat) = chats.get_mut(&chat_id) else { return Ok(()) };
                let held = |key_id| chat.keys.held(chat_id, key_id, &account.me);
                let keys: Vec<HeldKey> = key_ids.into_iter().filter_map(held).collect();
                state.wraps(chat_id, session_id, &keys)
            };
            upload(shared, chat_id, copies).await
        }
        Errand::BackUp { session_id } => backups::hand_on(shared, session_id).await,
        Errand::TakeBackups => backups::take_now(shared).await,
        Errand::WrapInfo(requested) => info::hand_on(shared, requested).await,
        Errand::AskInfoKey { chat_id } => info::ask(shared, chat_id).await,
        Errand::WrapProfile(requested) => profiles::hand_on(shared, requested).await,
        Errand::KeepProfile => profiles::keep(shared).await,
        Errand::Ask { chat_id, key_ids } => ask(shared, chat_id, &key_ids).await,
        Errand::Refuse { chat_id, refusal } => {
            let signature = shared.lock().account.me.secrets.sign(&refusal.signed_bytes(chat_id));
            let refusal = SignedRefusal { refusal, signature };
            let answer = shared.call(Request::RefuseCopy(RefuseCopy { chat_id, refusal })).await?;
            if answer.is_ok() {
                // The sender is asked at its next message; whoever else holds the key may be faster.
                shared.lock().lack(chat_id, [refusal.refusal.key_id]);
            }
            Ok(())
        }
    }
}

/// Asks for keys in parts. Those that this session may not have are found by halves.
async fn ask(shared: &Shared, chat_id: ChatId, key_ids: &[KeyId]) -> Result<(), ClientError> {
    let mut parts: Vec<&[KeyId]> = key_ids.chunks(KEYS_PER_REQUEST_MAX).collect();
    while let Some(part) = parts.pop() {
        let request = RequestKeys { chat_id, key_ids: part.to_vec() };
        let Err(refused) = shared.call(Request::RequestKeys(request)).await? else { continue };
        match refused.code {
            ErrorCode::HistoryNotAllowed | ErrorCode::UnknownKey if part.len() > 1 => {
                parts.extend(<[_; 2]>::from(part.split_at(part.len() / 2)));
            }
            ErrorCode::HistoryNotAllowed | ErrorCode::UnknownKey => {
                tracing::debug!(code = %refused.code, "key is not to be had");
            }
            _ => return Err(refused.into()),
        }
    }
    Ok(())
}

/// Uploads copies in parts. What the server does not let this session hand on is left out.
pub(super) async fn upload(shared: &Shared, chat_id: ChatId, copies: Vec<FurtherCopy>) -> Result<(), ClientError> {
    let mut parts: Vec<Vec<FurtherCopy>> = copies.chunks(COPIES_PER_FRAME_MAX).map(<[_]>::to_vec).collect();
    while let Some(mut part) = parts.pop() {
        let request = UploadCopies { chat_id, copies: part.clone() };
        let Err(refused) = shared.call(Request::UploadCopies(request)).await? else { continue };
        match refused.code {
            // The server knows of uses from before this session's time: what may be handed on is found by halves.
            ErrorCode::HistoryNotAllowed | ErrorCode::NotKeyHolder | ErrorCode::UnknownKey if part.len() > 1 => {
                parts.push(part.split_off(part.len() / 2));
                parts.push(part);
            }
            ErrorCode::HistoryNotAllowed | ErrorCode::NotKeyHolder | ErrorCode::UnknownKey => {}
            ErrorCode::RecipientsChanged => {
                let before = part.len();
                part.retain(|copy| !refused.details.extra.contains(&copy.session_id));
                if !part.is_empty() && part.len() < before {
                    parts.push(part);
                }
            }
            _ => return Err(refused.into()),
        }
    }
    Ok(())
}

impl State {
    /// Every key of a chat that this session can open.
    pub(super) fn all_held(&mut self, chat_id: ChatId) -> Vec<HeldKey> {
        let Self { chats, account, .. } = self;
        chats.get_mut(&chat_id).map_or_else(Vec::new, |chat| chat.keys.all_held(chat_id, &account.me))
    }

    /// Wraps keys to a recipient of a chat, of those that were used only for what its user may read (D1).
    pub(super) fn wraps(&self, chat_id: ChatId, session_id: SessionId, keys: &[HeldKey]) -> Vec<FurtherCopy> {
        let Some(chat) = self.chats.get(&chat_id) else { return Vec::new() };
        let fold = chat.log.fold();
        let Some(recipient) = fold.recipients().get(&session_id) else { return Vec::new() };
        let Some(member) = fold.membership().members.get(&recipient.user_id) else { return Vec::new() };
        let may_read = |key: &&HeldKey| key.first_seq.is_some_and(|first_seq| first_seq >= member.readable_from);
        let wrap = |key: &HeldKey| {
            // The fold takes no session with an unsound key, so this does not fail.
            let to = (session_id, &recipient.public_key);
            let copy = wrap::sender_key(&key.secret, chat_id, key.key_id, key.sender, to).ok()?;
            Some(FurtherCopy { key_id: key.key_id, session_id, key: copy.key })
        };
        keys.iter().filter(may_read).filter_map(wrap).collect()
    }
}
