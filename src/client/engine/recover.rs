//! Opens what archives protect, with user keys that a password or a recovery code has opened for this one operation.
//!
//! Invariants: R1 nothing that is opened on the way to a sender key is kept. R2 a group key is good if it gives the
//! recovery key that its maker signed in the log; a sender key, if it is the one that its session announced. R3 what is
//! bad is named, and stops nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::call::expect_reply;
use super::coverage;
use super::generation_links;
use super::group_keys;
use super::info_seals;
use super::secrets;
use super::state::{Counts, Shared, State};
use crate::client::chat::state::Chat;
use crate::client::error::ClientError;
use crate::client::event::{Alarm, Event};
use crate::client::failure::VerificationFailure;
use crate::client::recovery::Recovered;
use crate::crypto::Secret;
use crate::crypto::group_key::{GroupKey, RecoverySecret};
use crate::crypto::strongbox::Opened;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{ArchivedKey, Direction, FetchArchives, History, OwnGroupKey, Reply, Request};
use crate::protocol::ids::{ChatId, GenerationNo, KeyId, SessionId, UserId};
use crate::protocol::info_seal::InfoKeySeal;
use crate::protocol::keys::commitment;
use crate::protocol::limits::{ARCHIVES_PER_REQUEST_MAX, PAGE_ENTRIES_MAX};

/// Opens what can be opened of every chat.
pub(crate) async fn recover(shared: &Arc<Shared>, opened: &Opened) -> Result<Recovered, ClientError> {
    shared.live().await.map_err(ClientError::Closed)?;
    let chat_ids: Vec<ChatId> = shared.lock().chats.keys().copied().collect();
    let mut recovered = Recovered::default();
    for chat_id in chat_ids {
        match recover_chat(shared, chat_id, opened, &mut recovered).await {
            // This user has left it, or it has ended, meanwhile.
            Ok(()) => secrets::tend(shared, chat_id, opened).await,
            Err(ClientError::UnknownChat | ClientError::Refused { code: ErrorCode::UnknownChat, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    shared.keep().await?;
    Ok(recovered)
}

async fn recover_chat(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    opened: &Opened,
    recovered: &mut Recovered,
) -> Result<(), ClientError> {
    let is_ours = is_own_key_ours(shared, chat_id, opened)?;
    let locked = locked(shared, chat_id).await?;
    let is_closed = shared.lock().chats.get(&chat_id).is_some_and(|chat| chat.info.is_closed());
    let OpenGroupKeys { keys, seals } =
        open_group_keys(shared, chat_id, opened, is_ours, !locked.is_empty() || is_closed).await?;
    info_seals::open(shared, chat_id, &keys, &seals).await;
    let keys = keys.into_iter().map(|(number, key)| (number, key.recovery())).collect();
    let locked: Vec<KeyId> = locked.into_iter().collect();
    for part in locked.chunks(ARCHIVES_PER_REQUEST_MAX) {
        let request = Request::FetchArchives(FetchArchives { chat_id, key_ids: part.to_vec() });
        let archived = expect_reply!(shared.call(request).await??, Archives)?.keys;
        let mut secrets = Vec::new();
        for key in archived.iter().filter(|key| part.contains(&key.announcement.announcement.key_id)) {
            match open_archives(chat_id, key, &keys) {
                Opening::Opened(secret) => secrets.push((key.announcement.announcement.key_id, secret)),
                Opening::Bad(session_id) => {
                    shared.publish(vec![alarm_of(chat_id, Some(session_id), VerificationFailure::BadArchive)]);
                }
                Opening::None => {}
            }
        }
        let taken = shared.take_recovered(chat_id, &secrets);
        recovered.keys += taken;
        recovered.locked_keys += (part.len() as u64).saturating_sub(taken);
    }
    Ok(())
}

/// Whether the user key that a chat has of this user is open. One that is there and was not opened was not made by this
/// user, and is an alarm.
pub(super) fn is_own_key_ours(shared: &Shared, chat_id: ChatId, opened: &Opened) -> Result<bool, ClientError> {
    let own_key = {
        let state = shared.lock();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        chat.log.fold().member_keys().get(&state.account.me.user_id).map(|key| key.key_id)
    };
    let Some(key_id) = own_key else { return Ok(false) };
    let is_ours = opened.user_keys.contains_key(&key_id);
    if !is_ours {
        shared.alarm(Some(chat_id), None, VerificationFailure::OwnUserKey(key_id));
    }
    Ok(is_ours)
}

/// What came of a key's archives.
enum Opening {
    Opened(Secret),
    /// There are archives to group keys that are open, and none of them holds the key of this session.
    Bad(SessionId),
    None,
}

/// Tries each archive of a key until one opens to what was announced.
fn open_archives(chat_id: ChatId, key: &ArchivedKey, keys: &BTreeMap<GenerationNo, RecoverySecret>) -> Opening {
    let announcement = &key.announcement.announcement;
    let mut result = Opening::None;
    for archive in &key.archives {
        let Some(recovery) = keys.get(&archive.generation) else { continue };
        let secret = recovery.open_archive(archive, chat_id, announcement.key_id, announcement.session_id);
        match secret.ok().filter(|secret| commitment(secret.expose()) == announcement.commitment) {
            Some(secret) => return Opening::Opened(secret),
            None => result = Opening::Bad(announcement.session_id),
        }
    }
    result
}

/// Keys without which messages that this user may read cannot be opened here.
async fn locked(shared: &Shared, chat_id: ChatId) -> Result<BTreeSet<KeyId>, ClientError> {
    let (mut locked, readable_from, start) = {
        let state = shared.lock();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        let member = chat.log.fold().membership().members.get(&state.account.me.user_id);
        let member = member.ok_or(ClientError::UnknownChat)?;
        (chat.keys.locked().collect::<BTreeSet<KeyId>>(), member.readable_from, chat.log.start().seq)
    };
    // What is below the start of this session's own log it has never taken.
    let mut before = start.next();
    while before > readable_from {
        let request = History { chat_id, direction: Direction::Before, seq: before, limit: PAGE_ENTRIES_MAX };
        let page = expect_reply!(shared.call(Request::History(request)).await??, Page)?;
        {
            let state = shared.lock();
            let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
            let lacking =
                page.keys.iter().filter(|key| key.key.is_none()).map(|key| key.announcement.announcement.key_id);
            locked.extend(lacking.filter(|key_id| chat.keys.known(*key_id).is_none()));
        }
        if !page.more || page.after.next() >= before {
            break;
        }
        before = page.after.next();
    }
    Ok(locked)
}

/// What user keys open of a chat.
pub(super) struct OpenGroupKeys {
    pub(super) keys: BTreeMap<GenerationNo, GroupKey>,
    /// The chat's info key as it was sealed to the recovery keys of these, in order of the generation.
    pub(super) seals: Vec<InfoKeySeal>,
}

/// The group keys of a chat that user keys open, and links from there: all if they are needed, else the newest alone, to
/// check it.
pub(super) async fn open_group_keys(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    opened: &Opened,
    is_ours: bool,
    are_needed: bool,
) -> Result<OpenGroupKeys, ClientError> {
    let (current, are_needed) = {
        let state = shared.lock();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        let current = chat.log.fold().recovery_key().map(|recovery| recovery.generation);
        (current, are_needed || generation_links::has_links(chat))
    };
    let before_current = current.map(|number| GenerationNo::saturating(number.get().saturating_sub(1)));
    let after = match before_current {
        Some(before) if !are_needed => before,
        None if !are_needed => return Ok(OpenGroupKeys { keys: BTreeMap::new(), seals: Vec::new() }),
        _ => GenerationNo::default(),
    };
    let wraps = coverage::group_keys(shared, chat_id, after).await?;
    let mut keys = BTreeMap::new();
    let mut seals: Vec<InfoKeySeal> = wraps.iter().filter_map(|wrap| wrap.info_key.clone()).collect();
    // A generation may be wrapped to more than one user key of the same user.
    seals.dedup();
    let mut failures = Vec::new();
    {
        let state = shared.lock();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        let user_id = state.account.me.user_id;
        for wrap in &wraps {
            match open_wrap(chat, user_id, opened, wrap) {
                Some(Ok(key)) => drop(keys.insert(wrap.generation, key)),
                Some(Err(failure)) => failures.push((wrap.generation, failure)),
                None => {}
            }
        }
        if let Some(current) = current
            && is_ours
            && chat.log.fold().recovery_key().is_some_and(|recovery| recovery.generation == current)
            && !wraps.iter().any(|wrap| wrap.generation == current)
        {
            failures.push((current, VerificationFailure::GroupKeyWithheld(current)));
        }
        for (number, failure) in &failures {
            let maker = chat.log.generations().get(*number).map(|made| made.maker);
            shared.publish(vec![alarm_of(chat_id, maker, *failure)]);
        }
    }
    for (number, failure) in failures {
        let is_bad = !matches!(failure, VerificationFailure::GroupKeyWithheld(_));
        if is_bad
            && Some(number) == current
            && let Err(error) = group_keys::refuse(shared, chat_id, number).await
        {
            tracing::debug!(%error, "group key is not refused now");
        }
    }
    if are_needed {
        generation_links::follow(shared, chat_id, &mut keys).await?;
    }
    Ok(OpenGroupKeys { keys, seals })
}

/// Opens a wrap, and compares what it gives with the log (R2). None for one that no open user key is for, or of a
/// generation that the log does not have.
fn open_wrap(
    chat: &Chat,
    user_id: UserId,
    opened: &Opened,
    wrap: &OwnGroupKey,
) -> Option<Result<GroupKey, VerificationFailure>> {
    let secret = opened.user_keys.get(&wrap.key_id)?;
    let made = chat.log.generations().get(wrap.generation)?;
    let chat_id = chat.log.fold().chat_id();
    let Ok(key) = GroupKey::open(&wrap.key, chat_id, wrap.generation, (user_id, wrap.key_id, secret)) else {
        return Some(Err(VerificationFailure::GroupKeyWrap(wrap.generation)));
    };
    let is_announced = key.recovery().public_key() == made.public_key;
    Some(if is_announced { Ok(key) } else { Err(VerificationFailure::RecoveryKey(wrap.generation)) })
}

impl Shared {
    /// Takes sender keys that were opened, and opens the messages that waited for them. Gives how many were good.
    fn take_recovered(self: &Arc<Self>, chat_id: ChatId, secrets: &[(KeyId, Secret)]) -> u64 {
        let mut taken = 0;
        {
            let mut state = self.lock();
            let State { chats, dirty_chats, .. } = &mut *state;
            let Some(chat) = chats.get_mut(&chat_id) else { return 0 };
            let mut events = Vec::new();
            for (key_id, secret) in secrets {
                if chat.keys.give(*key_id, secret) {
                    taken += 1;
                    chat.asked.came(*key_id);
                    events.push(Event::KeyCame { chat_id, key_id: *key_id });
                }
            }
            dirty_chats.insert(chat_id);
            state.open_late(chat_id, &mut events);
            for event in &events {
                if matches!(event, Event::Message(_)) {
                    Counts::add(&self.counts.messages_received);
                }
            }
            // Under the lock: in order with the events of entries that come meanwhile.
            self.publish(events);
        }
        self.notify_moved();
        taken
    }
}

const fn alarm_of(chat_id: ChatId, session_id: Option<SessionId>, failure: VerificationFailure) -> Event {
    Event::Alarm(Alarm { chat_id: Some(chat_id), seq: None, session_id, failure })
}
