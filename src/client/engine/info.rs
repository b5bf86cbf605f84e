//! Saves what chats are called, hands their info keys on, and takes what the server shows of both.

use std::sync::Arc;

use super::copies::{self, Errand};
use super::group_keys;
use super::members;
use super::state::{Shared, State};
use crate::client::chat::state::Chat;
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::keyring::Me;
use crate::crypto::info::{self, InfoPlace, PlainInfo};
use crate::crypto::{Secret, info_seal, wrap};
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{
    ChatInfo, ChatInfoChanged, InfoKeyRequested, Request, RequestInfoKey, SetChatInfo, UploadInfoKeys,
};
use crate::protocol::ids::{ChatId, InfoKeyId, SessionId};
use crate::protocol::info::SignedInfo;
use crate::protocol::info_seal::InfoKeySeal;
use crate::protocol::keys::InfoKeyWrap;
use crate::protocol::limits::{DESCRIPTION_BYTES_MAX, INFO_KEY_WRAPS_PER_CHAT_MAX, NAME_BYTES_MAX};

/// How often a save is made again because others were faster.
const TRIES_MAX: u32 = 8;

/// Bytes that sealing adds: nonce and tag.
const SEAL_BYTES: usize = 12 + 16;

/// Chats that are shown before they are folded, at most.
const EARLY_MAX: usize = 1_000;

/// What a save changes; what is none stays as it is, and an empty text takes it away.
#[derive(Clone, Copy)]
pub(crate) struct InfoChange<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) description: Option<&'a str>,
}

/// Saves a chat's name, description or both.
pub(crate) async fn set(shared: &Arc<Shared>, chat_id: ChatId, change: InfoChange<'_>) -> Result<(), ClientError> {
    let limits = [(change.name, NAME_BYTES_MAX), (change.description, DESCRIPTION_BYTES_MAX)];
    for (text, limit) in limits.map(|(text, limit)| (text, limit - SEAL_BYTES)) {
        if text.is_some_and(|text| text.len() > limit) {
            return Err(ClientError::TooLarge { limit });
        }
    }
    // One's own saves never race one another.
    let turn = shared.turn_to_change(chat_id);
    let _turn = turn.lock().await;
    shared.known(chat_id).await?;
    let is_known = shared.lock().chats.get(&chat_id).is_some_and(|chat| chat.info.is_readable);
    if !is_known {
        look(shared, chat_id).await?;
    }
    for _ in 0..TRIES_MAX {
        // What is saved is for those too who have nothing but a password.
        if let Err(error) = group_keys::make_if_due(shared, chat_id).await {
            tracing::debug!(%error, "no group key is made now");
        }
        let (request, secret) = {
            let state = shared.lock();
            let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
            make(chat, &state.account.me, change)?
        };
        let signed = request.info.clone();
        match shared.call(Request::SetChatInfo(Box::new(request))).await? {
            Ok(_) => {
                saved(shared, chat_id, signed, secret);
                return Ok(());
            }
            Err(refused) => match refused.code {
                ErrorCode::InfoKeyStale => {
                    let seq = refused.details.seq.unwrap_or_default();
                    shared.folded(chat_id, seq).await?;
                    if let Some(chat) = shared.lock().chats.get_mut(&chat_id) {
                        // A loss from before this log began is the server's word, and costs a new key.
                        chat.info.lost_seq = chat.info.lost_seq.max(seq);
                    }
                }
                ErrorCode::RecipientsChanged => {
                    shared.folded(chat_id, refused.details.seq.unwrap_or_default()).await?;
                }
                ErrorCode::EditConflict => look(shared, chat_id).await?,
                ErrorCode::UnknownChat => return Err(ClientError::UnknownChat),
                _ => return Err(refused.into()),
            },
        }
    }
    Err(ClientError::Conflict)
}

/// Looks what the chat is called now, and waits until that can be judged.
async fn look(shared: &Arc<Shared>, chat_id: ChatId) -> Result<(), ClientError> {
    let listed = members::list(shared).await?;
    if let Some(info) = listed.chats.iter().find(|info| info.chat_id == chat_id) {
        shared.folded(chat_id, info.last_seq).await?;
    }
    Ok(())
}

/// What a save sends, and the key it is sealed under.
fn make(chat: &Chat, me: &Me, change: InfoChange<'_>) -> Result<(SetChatInfo, Secret), ClientError> {
    let fold = chat.log.fold();
    let chat_id = fold.chat_id();
    let has_all = change.name.is_some() && change.description.is_some();
    // What cannot be read cannot be sealed again: to save the rest would be to lose it.
    let is_new_chat = chat.info.key_id.is_none();
    if !has_all && !is_new_chat && !chat.info.is_readable {
        return Err(ClientError::NotReady);
    }
    let text = |new: Option<&str>, old: &Option<String>| {
        new.map(str::to_owned).or_else(|| old.clone()).filter(|text| !text.is_empty())
    };
    let plain = PlainInfo {
        name: text(change.name, &chat.title),
        description: text(change.description, &chat.info.description),
    };
    let known = chat.info.key_id.filter(|_| !chat.info.is_key_stale());
    let known = known.and_then(|key_id| chat.info_keys.get(&key_id).map(|secret| (key_id, secret.clone())));
    let (key_id, key_seq, secret, info_keys, seal) = match known {
        Some((key_id, secret)) => (key_id, chat.info.key_seq, secret, Vec::new(), None),
        None => {
            let (key_id, secret) = (InfoKeyId::generate(), Secret::generate());
            let others = fold.recipients().keys().copied().filter(|session_id| *session_id != me.session_id);
            let sessions = std::iter::once(me.session_id).chain(others);
            let wraps = wraps(chat, me, (key_id, &secret), sessions);
            let seal = seal(chat, me, (key_id, &secret));
            (key_id, chat.log.head().seq, secret, wraps, seal)
        }
    };
    let place = InfoPlace { chat_id, revision: chat.info.revision.next(), key_id, key_seq };
    let info = info::seal(&secret, place, &plain, (me.session_id, &me.secrets))?;
    Ok((SetChatInfo { chat_id, info, info_keys, seal }, secret))
}

/// Seals an info key to the recovery key that this client's own fold gives, if one is current.
fn seal(chat: &Chat, me: &Me, (key_id, secret): (InfoKeyId, &Secret)) -> Option<InfoKeySeal> {
    let fold = chat.log.fold();
    let recovery = fold.recovery_key()?;
    // The fold takes no unsound recovery key, so this does not fail.
    info_seal::seal(secret, fold.chat_id(), key_id, &recovery, (me.session_id, &me.secrets)).ok()
}

/// Wraps an info key to sessions that are recipients of the chat by this client's own fold; nobody else gets it (P7).
fn wraps(
    chat: &Chat,
    me: &Me,
    (key_id, secret): (InfoKeyId, &Secret),
    sessions: impl Iterator<Item = SessionId>,
) -> Vec<InfoKeyWrap> {
    let fold = chat.log.fold();
    let wrap = |session_id: SessionId| {
        let to = (session_id, &fold.recipients().get(&session_id)?.public_key);
        // The fold takes no session with an unsound key, so this does not fail.
        wrap::info_key(secret, fold.chat_id(), key_id, (me.session_id, &me.secrets), to).ok()
    };
    sessions.filter_map(wrap).take(INFO_KEY_WRAPS_PER_CHAT_MAX).collect()
}

/// Takes what this session saved as the server would show it.
fn saved(shared: &Arc<Shared>, chat_id: ChatId, signed: SignedInfo, secret: Secret) {
    let events = {
        let mut state = shared.lock();
        let Some(chat) = state.chats.get_mut(&chat_id) else { return };
        if signed.info.revision < chat.info.revision {
            return;
        }
        chat.info_keys.insert(signed.info.key_id, secret);
        let last_seq = chat.log.head().seq;
        chat.show_info(ChatInfoChanged { chat_id, last_seq, name: None, info: Some(signed), info_key: None });
        state.judge_info(chat_id)
    };
    shared.publish(events);
    shared.notify_moved();
}

/// The server shows what a chat is called.
pub(crate) fn on_chat_info(shared: &Arc<Shared>, shown: ChatInfoChanged) {
    let events = {
        let mut state = shared.lock();
        let chat_id = shown.chat_id;
        state.show_info(shown);
        state.judge_info(chat_id)
    };
    shared.publish(events);
    shared.notify_moved();
    copies::start(shared);
}

/// Sessions lack an info key that this session may hand on.
pub(crate) fn on_info_key_requested(shared: &Arc<Shared>, requested: InfoKeyRequested) {
    shared.lock().errands.push(Errand::WrapInfo(requested));
    copies::start(shared);
}

/// Wraps the info key to those of the named sessions that the log knows, and seals it to the named generation's recovery
/// key if the log says that it is the current one.
pub(crate) async fn hand_on(shared: &Shared, requested: InfoKeyRequested) -> Result<(), ClientError> {
    let InfoKeyRequested { chat_id, last_seq, key_id, session_ids, generation } = requested;
    shared.folded(chat_id, last_seq).await?;
    let (mut info_keys, mut seal) = {
        let state = shared.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return Ok(()) };
        let Some(secret) = chat.info_keys.get(&key_id) else { return Ok(()) };
        let me = &state.account.me;
        let seal = seal(chat, me, (key_id, secret)).filter(|seal| Some(seal.generation) == generation);
        (wraps(chat, me, (key_id, secret), session_ids.into_iter()), seal)
    };
    while !info_keys.is_empty() || seal.is_some() {
        let request = UploadInfoKeys { chat_id, info_keys: info_keys.clone(), seal: seal.clone() };
        let Err(refused) = shared.call(Request::UploadInfoKeys(request)).await? else { return Ok(()) };
        let before = info_keys.len();
        info_keys.retain(|wrap| !refused.details.extra.contains(&wrap.session_id));
        // If it is no session that is too many it is the generation: the next one is asked for by itself.
        let has_changed = info_keys.len() < before || seal.take().is_some();
        if refused.code != ErrorCode::RecipientsChanged || !has_changed {
            return Err(refused.into());
        }
    }
    Ok(())
}

/// Asks for another wrap of a chat's info key.
pub(crate) async fn ask(shared: &Shared, chat_id: ChatId) -> Result<(), ClientError> {
    shared.call(Request::RequestInfoKey(RequestInfoKey { chat_id })).await??;
    Ok(())
}

impl State {
    /// Takes note of what the server shows of a chat, known or about to be.
    pub(crate) fn show_info(&mut self, shown: ChatInfoChanged) {
        match self.chats.get_mut(&shown.chat_id) {
            Some(chat) => chat.show_info(shown),
            None if self.early_infos.len() < EARLY_MAX => {
                self.early_infos.insert(shown.chat_id, shown);
            }
            None => {}
        }
    }

    /// Takes note of a chat that is listed, and of what it is called.
    pub(crate) fn show_listed(&mut self, listed: &ChatInfo) {
        let ChatInfo { chat_id, last_seq, name, info, info_key, .. } = listed.clone();
        self.show_info(ChatInfoChanged { chat_id, last_seq, name, info, info_key });
    }

    /// Judges what was shown of a chat, if its log has come so far.
    pub(crate) fn judge_info(&mut self, chat_id: ChatId) -> Vec<Event> {
        let Self { chats, account, errands, dirty_chats, .. } = self;
        let Some(chat) = chats.get_mut(&chat_id) else { return Vec::new() };
        let judged = chat.judge_info(&account.me);
        if judged.must_ask {
            errands.push(Errand::AskInfoKey { chat_id });
        }
        if let Some(key_id) = judged.recovered {
            let (last_seq, session_ids) = (chat.log.head().seq, vec![account.me.session_id]);
            let own = InfoKeyRequested { chat_id, last_seq, key_id, session_ids, generation: None };
            errands.push(Errand::WrapInfo(own));
        }
        if judged.is_news {
            dirty_chats.insert(chat_id);
        }
        let mut events = Vec::new();
        events.extend(judged.has_changed.then_some(Event::InfoChanged { chat_id }));
        events.extend(judged.failure.map(|failure| Event::alarm_in(chat_id, None, failure)));
        events
    }
}
