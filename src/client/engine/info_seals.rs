//! Opens info keys that were sealed to recovery keys, so that a password alone shows what chats are called.
//!
//! Invariants: T1 a seal is taken from a session that is in the chat, or from one of this very user that was not revoked:
//! together with a server, whoever has left could show a name of their own. T2 what is bad is named, and stops nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chains;
use super::copies;
use super::state::{Shared, State};
use crate::client::chat::info::OpenedSeal;
use crate::client::chat::state::Chat;
use crate::client::event::Event;
use crate::client::failure::VerificationFailure;
use crate::crypto::group_key::GroupKey;
use crate::crypto::info_seal;
use crate::protocol::binary::SigningKey;
use crate::protocol::ids::{ChatId, GenerationNo};
use crate::protocol::info_seal::InfoKeySeal;
use crate::protocol::user_chain::UserChain;

/// Opens the seals of a chat's info key with the group keys that are open: what the chat is called can be read then, if
/// it could not, and is compared if it could.
pub(super) async fn open(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    keys: &BTreeMap<GenerationNo, GroupKey>,
    seals: &[InfoKeySeal],
) {
    if seals.is_empty() {
        return;
    }
    let (own, has_strangers) = {
        let state = shared.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return };
        let recipients = chat.log.fold().recipients();
        let is_stranger = |seal: &InfoKeySeal| !recipients.contains_key(&seal.sealed_by_session_id);
        (state.account.me.user_id, seals.iter().any(is_stranger))
    };
    if has_strangers && let Err(error) = chains::read_now(shared, own).await {
        tracing::debug!(%error, "own chain is not read now");
    }
    {
        let mut state = shared.lock();
        let State { chats, chains, .. } = &mut *state;
        let Some(chat) = chats.get_mut(&chat_id) else { return };
        let mut events = Vec::new();
        let mut opened = Vec::new();
        for seal in seals.iter().rev() {
            let Some(key) = keys.get(&seal.generation) else { continue };
            match open_one(chat, chains.get(own), key, seal) {
                Ok(seal) => opened.extend(seal),
                Err(failure) => events.push(Event::alarm_in(chat_id, None, failure)),
            }
        }
        if chat.info.is_closed() {
            chat.offer_seals(opened);
        }
        events.extend(state.judge_info(chat_id));
        shared.publish(events);
    }
    shared.notify_moved();
    copies::start(shared);
}

/// None for one by a session that has left, which is no lie of anybody's, and for a key that is known and is the same.
fn open_one(
    chat: &Chat,
    own_chain: Option<&UserChain>,
    key: &GroupKey,
    seal: &InfoKeySeal,
) -> Result<Option<OpenedSeal>, VerificationFailure> {
    let (chat_id, sealed_by) = (chat.log.fold().chat_id(), seal.sealed_by_session_id);
    let bad = VerificationFailure::InfoKeySeal(sealed_by);
    let Some(signing_key) = signing_key(chat, own_chain, seal) else {
        return if chat.log.signing_key_ever(sealed_by).is_some() { Ok(None) } else { Err(bad) };
    };
    if !seal.verifies(chat_id, &signing_key) {
        return Err(bad);
    }
    let secret = info_seal::open(seal, chat_id, &key.recovery()).map_err(|_| bad)?;
    match chat.info_keys.get(&seal.key_id) {
        Some(known) if *known == secret => Ok(None),
        Some(_) => Err(bad),
        None => Ok(Some(OpenedSeal { key_id: seal.key_id, secret, sealed_by })),
    }
}

/// What a session signs with from which a seal is taken (T1).
fn signing_key(chat: &Chat, own_chain: Option<&UserChain>, seal: &InfoKeySeal) -> Option<SigningKey> {
    let sealed_by = seal.sealed_by_session_id;
    if let Some(recipient) = chat.log.fold().recipients().get(&sealed_by) {
        return Some(recipient.signing_public_key);
    }
    let session = own_chain?.sessions().get(&sealed_by)?;
    session.revoked_at.is_none().then_some(session.signing_public_key)
}
