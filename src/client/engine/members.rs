//! Changes chats and their members. Each change is judged by the fold first, signed for its place, and made
//! again for the next place when somebody else was faster.

use std::sync::Arc;
use std::time::Duration;

use super::call::expect_reply;
use super::copies;
use super::devices;
use super::generation_links;
use super::group_keys;
use super::state::{Shared, State};
use crate::client::chat::state::Chat;
use crate::client::error::{ClientError, UNSIGNED};
use crate::client::event::Event;
use crate::client::failure::VerificationFailure;
use crate::client::net::wire::Refused;
use crate::crypto::{Secret, name, wrap};
use crate::protocol::envelope::Seen;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{
    ChangeMembership, Chats, CreateChat, DeleteChat, ListMembers, LookupUser, Nothing, Reply, Request, SessionState,
    UserInfo,
};
use crate::protocol::ids::{ChangeNo, ChatId, InfoKeyId, Seq};
use crate::protocol::keys::InfoKeyWrap;
use crate::protocol::limits::{INFO_KEY_WRAPS_MAX, NAME_BYTES_MAX};
use crate::protocol::log::log_start;
use crate::protocol::membership::{
    Change, HistoryPolicy, MembershipChange, MembershipError, SignedChange, Target, chain_start,
};
use crate::protocol::username::Username;

/// How often a change is made again because others were faster.
const TRIES_MAX: u32 = 8;

/// How long one's own change may take to come back in the log.
const OWN_ENTRY_WAIT: Duration = Duration::from_secs(10);

/// Bytes that sealing adds to a name: nonce and tag.
const SEAL_BYTES: usize = 12 + 16;

/// Finds a user and checks what the server shows: certificates, and the identity that is pinned.
pub(crate) async fn lookup(shared: &Shared, username: &Username) -> Result<UserInfo, ClientError> {
    let request = Request::LookupUser(LookupUser { username: username.clone() });
    let user = expect_reply!(shared.call(request).await??, User)?;
    let bad = user
        .sessions
        .iter()
        .find(|signed| signed.certificate.user_id != user.user_id || signed.verify(&user.identity_key).is_err());
    let failure = if user.username != *username {
        Some(VerificationFailure::IdentityChanged(user.user_id))
    } else {
        bad.map(|signed| VerificationFailure::Certificate(signed.certificate.session_id))
    };
    let pinned = match failure {
        Some(failure) => Err(failure),
        None => {
            let mut state = shared.lock();
            let pinned = state.account.pin(user.user_id, &user.identity_key, Some(username));
            state.is_account_dirty |= matches!(pinned, Ok(true));
            pinned.map(|_| ())
        }
    };
    if let Err(failure) = pinned {
        shared.alarm(None, None, failure);
        return Err(ClientError::Verification(failure));
    }
    Ok(user)
}

/// Learns the names of a chat's members and pins each to the identity key that the chat's log gives.
pub(crate) async fn learn_names(shared: &Shared, chat_id: ChatId) -> Result<(), ClientError> {
    let named = expect_reply!(shared.call(Request::ListMembers(ListMembers { chat_id })).await??, Members)?;
    let mut failures = Vec::new();
    {
        let mut state = shared.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return Ok(()) };
        let members = &chat.log.fold().membership().members;
        let known = |user_id| members.get(&user_id).map(|member| member.identity_key);
        let keys: Vec<_> = named.members.iter().map(|member| known(member.user_id)).collect();
        for (member, key) in named.members.iter().zip(keys) {
            let Some(key) = key else { continue };
            match state.account.pin(member.user_id, &key, Some(&member.username)) {
                Ok(is_new) => state.is_account_dirty |= is_new,
                Err(failure) => failures.push(failure),
            }
        }
    }
    for failure in failures {
        shared.alarm(Some(chat_id), None, failure);
    }
    Ok(())
}

/// Makes a chat and waits until it has come back in the log.
pub(crate) async fn create(shared: &Arc<Shared>, title: &str) -> Result<ChatId, ClientError> {
    let limit = NAME_BYTES_MAX - SEAL_BYTES;
    if title.len() > limit {
        return Err(ClientError::TooLarge { limit });
    }
    let sessions = devices::list(shared).await?.sessions;
    let live = sessions.iter().filter(|session| session.state == SessionState::Live);
    let certificates: Vec<_> = live.map(|session| &session.certificate).collect();
    let (chat_id, key_id, secret) = (ChatId::generate(), InfoKeyId::generate(), Secret::generate());
    let request = {
        let state = shared.lock();
        let me = &state.account.me;
        let mut info_keys = Vec::with_capacity(certificates.len());
        for signed in certificates.iter().take(INFO_KEY_WRAPS_MAX) {
            let to = (signed.certificate.session_id, &signed.certificate.public_key);
            info_keys.push(wrap::info_key(&secret, chat_id, key_id, (me.session_id, &me.secrets), to)?);
        }
        let change = MembershipChange {
            n: ChangeNo::saturating(1),
            previous: chain_start(chat_id),
            seen: Seen { seq: Seq::default(), log_hash: log_start(chat_id) },
            actor: me.actor(),
            change: Change::Create,
            target: Target { user_id: me.user_id, identity_key: me.identity_key },
        };
        let mut change = SignedChange { change, signature: UNSIGNED };
        change.signature = me.secrets.sign(&change.change.signed_bytes(chat_id));
        let name = Some(name::seal(&secret, chat_id, key_id, title)?);
        Request::CreateChat(CreateChat { chat_id, change, name, info_keys })
    };
    expect_reply!(shared.call(request).await??, Changed)?;
    loop {
        let begun = shared.wait_until(OWN_ENTRY_WAIT, |state| {
            let session_id = state.account.me.session_id;
            let chat = state.chats.get_mut(&chat_id)?;
            chat.log.fold().recipients().get(&session_id)?;
            chat.info_keys.insert(key_id, secret.clone());
            chat.title = Some(title.to_owned());
            (chat.info.key_id, chat.info.is_readable) = (Some(key_id), true);
            state.dirty_chats.insert(chat_id);
            Some(())
        });
        if begun.await.map_err(ClientError::Closed)?.is_some() {
            return Ok(chat_id);
        }
        shared.reconnect();
    }
}

/// Adds a user to a chat.
pub(crate) async fn add(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    username: &Username,
    (can_write, can_manage): (bool, bool),
) -> Result<Seq, ClientError> {
    shared.known(chat_id).await?;
    let user = lookup(shared, username).await?;
    let has_title = shared.lock().chats.get(&chat_id).is_some_and(|chat| chat.title.is_some());
    if !has_title {
        list(shared).await?;
    }
    let target = Target { user_id: user.user_id, identity_key: user.identity_key };
    let seq = change(
        shared,
        chat_id,
        target,
        |chat| {
            let (roster_hash, epoch) = (chat.log.roster_hash(), chat.log.fold().epoch());
            Change::Add { can_write, can_manage, roster_hash, epoch }
        },
        |state| info_keys(state, chat_id, &user),
    );
    let seq = seq.await?;
    shared.folded(chat_id, seq).await?;
    copies::share_history(shared, chat_id, user.user_id).await;
    Ok(seq)
}

/// Removes a member.
pub(crate) async fn remove(shared: &Arc<Shared>, chat_id: ChatId, username: &Username) -> Result<Seq, ClientError> {
    let seq = change_of_member(shared, chat_id, username, Change::Remove).await?;
    if let Err(error) = group_keys::make_if_due(shared, chat_id).await {
        // Whoever sends next makes it.
        tracing::debug!(%error, "group key is not made now");
    }
    Ok(seq)
}

/// Changes what a member may do.
pub(crate) async fn set_rights(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    username: &Username,
    (can_write, can_manage): (bool, bool),
) -> Result<Seq, ClientError> {
    let change = Change::SetRights { can_write, can_manage };
    change_of_member(shared, chat_id, username, change).await
}

/// Makes a member the owner.
pub(crate) async fn transfer(shared: &Arc<Shared>, chat_id: ChatId, username: &Username) -> Result<Seq, ClientError> {
    change_of_member(shared, chat_id, username, Change::Transfer).await
}

/// Makes all sender keys stale.
pub(crate) async fn rekey(shared: &Arc<Shared>, chat_id: ChatId) -> Result<Seq, ClientError> {
    let target = own_target(shared);
    change_and_fold(shared, chat_id, target, Change::Rekey).await
}

/// Says what newcomers may read.
pub(crate) async fn set_history(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    policy: HistoryPolicy,
) -> Result<Seq, ClientError> {
    let target = own_target(shared);
    let seq = change_and_fold(shared, chat_id, target, Change::SetHistory { policy }).await?;
    if policy == HistoryPolicy::Shared
        && let Err(error) = generation_links::begin_stretch(shared, chat_id).await
    {
        // What is said until there is another generation newcomers get from members who are online.
        tracing::debug!(%error, "the group key from before the shared history is not refused now");
    }
    Ok(seq)
}

/// Leaves a chat.
pub(crate) async fn leave(shared: &Arc<Shared>, chat_id: ChatId) -> Result<(), ClientError> {
    let target = own_target(shared);
    change(shared, chat_id, target, |_| Change::Leave, |_| Ok(Vec::new())).await?;
    gone(shared, chat_id, Event::Removed { chat_id }).await
}

/// Ends a chat.
pub(crate) async fn delete(shared: &Arc<Shared>, chat_id: ChatId) -> Result<(), ClientError> {
    let target = own_target(shared);
    change(shared, chat_id, target, |_| Change::Delete, |_| Ok(Vec::new())).await?;
    gone(shared, chat_id, Event::ChatDeleted { chat_id }).await
}

/// Lists one's chats and learns their titles.
pub(crate) async fn list(shared: &Arc<Shared>) -> Result<Chats, ClientError> {
    let chats = expect_reply!(shared.call(Request::ListChats(Nothing {})).await??, Chats)?;
    let events = shared.lock().learn_titles(&chats);
    shared.publish(events);
    copies::start(shared);
    Ok(chats)
}

impl State {
    /// Takes note of the titles of the chats that are listed.
    pub(crate) fn learn_titles(&mut self, chats: &Chats) -> Vec<Event> {
        let mut events = Vec::new();
        for info in &chats.chats {
            self.show_listed(info);
            events.extend(self.judge_info(info.chat_id));
        }
        events
    }
}

fn own_target(shared: &Shared) -> Target {
    let state = shared.lock();
    Target { user_id: state.account.me.user_id, identity_key: state.account.me.identity_key }
}

/// The entry of one's own going is the last that comes; if it does not come, the chat is gone all the same.
async fn gone(shared: &Shared, chat_id: ChatId, event: Event) -> Result<(), ClientError> {
    let waited = shared.wait_until(Duration::from_secs(2), |state| (!state.chats.contains_key(&chat_id)).then_some(()));
    if waited.await.map_err(ClientError::Closed)?.is_none() {
        let mut events = shared.lock().forget(chat_id);
        events.push(event);
        shared.publish(events);
        shared.notify_moved();
    }
    Ok(())
}

async fn change_of_member(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    username: &Username,
    change: Change,
) -> Result<Seq, ClientError> {
    shared.known(chat_id).await?;
    let user = lookup(shared, username).await?;
    let target = Target { user_id: user.user_id, identity_key: user.identity_key };
    change_and_fold(shared, chat_id, target, change).await
}

/// Makes a change that brings no keys, and waits until the log shows it.
async fn change_and_fold(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    target: Target,
    wanted: Change,
) -> Result<Seq, ClientError> {
    let seq = change(shared, chat_id, target, |_| wanted.clone(), |_| Ok(Vec::new())).await?;
    shared.folded(chat_id, seq).await?;
    Ok(seq)
}

async fn change(
    shared: &Arc<Shared>,
    chat_id: ChatId,
    target: Target,
    make: impl Fn(&mut Chat) -> Change,
    info_keys: impl Fn(&State) -> Result<Vec<InfoKeyWrap>, ClientError>,
) -> Result<Seq, ClientError> {
    // This client's own changes never race one another: each would lose to the one before, and be made again.
    let turn = shared.turn_to_change(chat_id);
    let _turn = turn.lock().await;
    for _ in 0..TRIES_MAX {
        shared.known(chat_id).await?;
        let request = {
            let mut state = shared.lock();
            let info_keys = info_keys(&state)?;
            let State { chats, account, .. } = &mut *state;
            let chat = chats.get_mut(&chat_id).ok_or(ClientError::UnknownChat)?;
            let change = make(chat);
            let membership = chat.log.fold().membership();
            let change = MembershipChange {
                n: membership.head.next(),
                previous: membership.hash,
                seen: chat.log.head(),
                actor: account.me.actor(),
                change,
                target,
            };
            membership.check(&change).map_err(refusal)?;
            let is_deletion = change.change == Change::Delete;
            let signature = account.me.secrets.sign(&change.signed_bytes(chat_id));
            let change = SignedChange { change, signature };
            if is_deletion {
                Request::DeleteChat(DeleteChat { chat_id, change })
            } else {
                Request::ChangeMembership(ChangeMembership { chat_id, change, info_keys })
            }
        };
        match shared.call(request).await? {
            Ok(reply) => return Ok(expect_reply!(reply, Changed)?.seq),
            Err(refused) => wait_for_others(shared, chat_id, refused).await?,
        }
    }
    Err(ClientError::Conflict)
}

/// After a lost race: waits until the log shows who won.
async fn wait_for_others(shared: &Shared, chat_id: ChatId, refused: Box<Refused>) -> Result<(), ClientError> {
    if !matches!(refused.code, ErrorCode::EventConflict | ErrorCode::RosterChanged) {
        return Err(match refused.code {
            ErrorCode::AlreadyMember => ClientError::AlreadyMember,
            ErrorCode::NotMember => ClientError::NotMember,
            ErrorCode::UnknownChat => ClientError::UnknownChat,
            _ => refused.into(),
        });
    }
    let (seq, n) = (refused.details.seq.unwrap_or_default(), refused.details.n.unwrap_or_default());
    let caught_up = shared.wait_until(OWN_ENTRY_WAIT, |state| match state.chats.get(&chat_id) {
        Some(chat) => (chat.log.head().seq >= seq && chat.log.fold().membership().head >= n).then_some(()),
        None => Some(()),
    });
    if caught_up.await.map_err(ClientError::Closed)?.is_none() {
        shared.reconnect();
    }
    Ok(())
}

fn refusal(error: MembershipError) -> ClientError {
    let code = match error {
        MembershipError::NotMember => return ClientError::UnknownChat,
        MembershipError::AlreadyMember => return ClientError::AlreadyMember,
        MembershipError::TargetNotMember => return ClientError::NotMember,
        MembershipError::Unchanged => return ClientError::Unchanged,
        MembershipError::CannotManage => ErrorCode::CannotManage,
        MembershipError::NotOwner => ErrorCode::NotOwner,
        MembershipError::OwnerMustTransfer => ErrorCode::OwnerMustTransfer,
        _ => ErrorCode::Malformed,
    };
    ClientError::Refused { code, message: error.to_string() }
}

/// The chat's info keys for a newcomer's sessions.
fn info_keys(state: &State, chat_id: ChatId, user: &UserInfo) -> Result<Vec<InfoKeyWrap>, ClientError> {
    let me = &state.account.me;
    let chat = state.chats.get(&chat_id).ok_or(ClientError::UnknownChat)?;
    let mut wraps = Vec::new();
    for (key_id, secret) in &chat.info_keys {
        for signed in &user.sessions {
            let to = (signed.certificate.session_id, &signed.certificate.public_key);
            wraps.push(wrap::info_key(secret, chat_id, *key_id, (me.session_id, &me.secrets), to)?);
        }
    }
    wraps.truncate(INFO_KEY_WRAPS_MAX);
    Ok(wraps)
}
