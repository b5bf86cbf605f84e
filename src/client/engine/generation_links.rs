//! Links between generations of a group key: made for newcomers under a shared history, and followed by them.
//!
//! Invariants: N1 a link is made between generations alone that this client's own fold has in one stretch of shared
//! history: whatever the server asks for, nobody is given a group key from before it. N2 what a link opens is good if it
//! gives the recovery key that the log shows for that generation, whoever made the link.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::coverage;
use super::group_keys;
use super::recover::{is_own_key_ours, open_group_keys};
use super::state::{Shared, State};
use crate::client::chat::state::Chat;
use crate::client::error::ClientError;
use crate::client::event::{Alarm, Event};
use crate::client::failure::VerificationFailure;
use crate::crypto::generation_link;
use crate::crypto::group_key::GroupKey;
use crate::crypto::strongbox::Opened;
use crate::protocol::frame::{Request, UploadLinks};
use crate::protocol::generation_link::GenerationLink;
use crate::protocol::group_key::RecoveryKey;
use crate::protocol::ids::{ChatId, GenerationNo};
use crate::protocol::limits::LINKS_PER_REQUEST_MAX;

type Keys = BTreeMap<GenerationNo, GroupKey>;

/// Makes another generation due, as a shared history has begun, if the current one is from before it: newcomers could not
/// be given that.
pub(crate) async fn begin_stretch(shared: &Shared, chat_id: ChatId) -> Result<(), ClientError> {
    let from_before = {
        let state = shared.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return Ok(()) };
        let current = chat.log.fold().recovery_key().map(|recovery| recovery.generation);
        current.filter(|number| !shareable(chat).contains(number))
    };
    match from_before {
        Some(number) => group_keys::refuse(shared, chat_id, number).await,
        None => Ok(()),
    }
}

/// Generations whose group keys newcomers may be given (N1).
fn shareable(chat: &Chat) -> BTreeSet<GenerationNo> {
    let since = chat.log.fold().membership().shared_since;
    since.map_or_else(BTreeSet::new, |since| chat.log.generations().after(since).collect())
}

/// Whether a chat has generations that are to be linked.
pub(super) fn has_links(chat: &Chat) -> bool {
    shareable(chat).len() > 1
}

/// Makes what links are missing in every chat, with what was opened for another purpose.
pub(crate) async fn tend(shared: &Arc<Shared>, opened: &Opened) {
    let chat_ids: Vec<ChatId> = {
        let state = shared.lock();
        state.chats.iter().filter(|(_, chat)| has_links(chat)).map(|(chat_id, _)| *chat_id).collect()
    };
    for chat_id in chat_ids {
        let tending = async {
            let is_ours = is_own_key_ours(shared, chat_id, opened)?;
            open_group_keys(shared, chat_id, opened, is_ours, true).await
        };
        if let Err(error) = tending.await {
            tracing::debug!(%error, "generations are not linked now");
        }
    }
}

/// Opens what is before the generations that are open, link by link, and makes the links that are missing between those.
pub(super) async fn follow(shared: &Shared, chat_id: ChatId, keys: &mut Keys) -> Result<(), ClientError> {
    let (is_closed, wanted) = {
        let state = shared.lock();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        (has_closed(&state, chat, keys), wanted(chat, keys))
    };
    if !is_closed && wanted.is_empty() {
        return Ok(());
    }
    let links = coverage::links(shared, chat_id).await?;
    let made = {
        let state = shared.lock();
        let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
        let mut events = Vec::new();
        for link in links.iter().rev() {
            let Some(key) = keys.get(&link.generation) else { continue };
            match open_one(chat, key, link) {
                Ok(before) => drop(keys.insert(link.before(), before)),
                Err(failure) => events.push(Event::Alarm(Alarm {
                    chat_id: Some(chat_id),
                    seq: None,
                    session_id: Some(link.linked_by_session_id),
                    failure,
                })),
            }
        }
        shared.publish(events);
        let known: BTreeSet<GenerationNo> = links.iter().map(|link| link.generation).collect();
        let missing = wanted.into_iter().filter(|number| !known.contains(number));
        make(&state, chat, keys, missing)
    };
    for links in made.chunks(LINKS_PER_REQUEST_MAX).map(<[_]>::to_vec) {
        let made = shared.call(Request::UploadLinks(UploadLinks { chat_id, links })).await?;
        if let Err(refused) = made {
            tracing::debug!(code = %refused.code, "generations are not linked now");
        }
    }
    Ok(())
}

/// Whether a generation that this user may read is before one that is open, and is not.
fn has_closed(state: &State, chat: &Chat, keys: &Keys) -> bool {
    let member = chat.log.fold().membership().members.get(&state.account.me.user_id);
    let Some(readable_from) = member.map(|member| member.readable_from) else { return false };
    keys.keys().any(|number| {
        let before = before(*number);
        let is_readable = chat.log.generations().get(before).is_some_and(|made| made.seq >= readable_from);
        is_readable && !keys.contains_key(&before)
    })
}

/// Generations that are open and are to be linked to the one before, which is open too.
fn wanted(chat: &Chat, keys: &Keys) -> Vec<GenerationNo> {
    let shareable = shareable(chat);
    let is_wanted = |number: &GenerationNo| {
        let before = before(*number);
        shareable.contains(&before) && keys.contains_key(&before) && keys.contains_key(number)
    };
    shareable.iter().copied().filter(is_wanted).collect()
}

fn make(state: &State, chat: &Chat, keys: &Keys, missing: impl Iterator<Item = GenerationNo>) -> Vec<GenerationLink> {
    let (me, chat_id) = (&state.account.me, chat.log.fold().chat_id());
    let make = |generation: GenerationNo| {
        let public_key = chat.log.generations().get(generation)?.public_key;
        let next = RecoveryKey { generation, public_key };
        // The fold takes no unsound recovery key, so this does not fail.
        generation_link::seal(keys.get(&before(generation))?, chat_id, &next, (me.session_id, &me.secrets)).ok()
    };
    missing.filter_map(make).collect()
}

/// Opens a link, and compares what it gives with the log (N2).
fn open_one(chat: &Chat, key: &GroupKey, link: &GenerationLink) -> Result<GroupKey, VerificationFailure> {
    let chat_id = chat.log.fold().chat_id();
    let bad = VerificationFailure::GenerationLink(link.generation);
    let signing_key = chat.log.signing_key_ever(link.linked_by_session_id).ok_or(bad)?;
    if !link.verifies(chat_id, &signing_key) {
        return Err(bad);
    }
    let before = generation_link::open(link, chat_id, &key.recovery()).map_err(|_| bad)?;
    let made = chat.log.generations().get(link.before()).ok_or(bad)?;
    if before.recovery().public_key() == made.public_key { Ok(before) } else { Err(bad) }
}

const fn before(number: GenerationNo) -> GenerationNo {
    GenerationNo::saturating(number.get().saturating_sub(1))
}
