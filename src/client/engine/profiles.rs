//! Saves this user's profile, hands its key on, and reads the profiles of others.
//!
//! Invariant: P1 the key is wrapped to no session that this client did not find itself: in a chat's log that it folded,
//! or in its user's own chain. What the server lists only says whom to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::call::expect_reply;
use super::chains;
use super::copies::{self, Errand};
use super::state::{Shared, State};
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::client::failure::VerificationFailure;
use crate::client::user_profile::{Judged, Known, Noted, judge};
use crate::crypto::Secret;
use crate::crypto::user_profile::{self, PlainProfile, ProfilePlace};
use crate::protocol::binary::ExchangeKey;
use crate::protocol::error::ErrorCode;
use crate::protocol::frame::{
    FetchProfile, ProfileChanged, ProfileKeyRequested, Reply, Request, RequestProfileKey, SetProfile, ShownProfile,
    UploadProfileKeys,
};
use crate::protocol::ids::{InfoKeyId, Revision, SessionId, UserId};
use crate::protocol::limits::{
    PROFILE_DESCRIPTION_BYTES_MAX, PROFILE_EMAIL_BYTES_MAX, PROFILE_KEY_WRAPS_MAX, PROFILE_NAME_BYTES_MAX,
};
use crate::protocol::profile::{OwnKeyWrap, ProfileKeyWrap};

/// How often a save is made again because others were faster or somebody has lost access.
const TRIES_MAX: u32 = 8;

/// Bytes that sealing adds: nonce and tag.
const SEAL_BYTES: usize = 12 + 16;

/// Users of whose profiles something is kept, at most.
const NOTED_MAX: usize = 10_000;

/// What a save changes; what is none stays as it is, and an empty text takes it away.
#[derive(Clone, Copy, Default)]
pub(crate) struct ProfileChange<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) email: Option<&'a str>,
    pub(crate) description: Option<&'a str>,
}

impl ProfileChange<'_> {
    const fn has_all(&self) -> bool {
        self.name.is_some() && self.email.is_some() && self.description.is_some()
    }

    fn of(&self, before: PlainProfile) -> PlainProfile {
        let text =
            |new: Option<&str>, old: Option<String>| new.map(str::to_owned).or(old).filter(|text| !text.is_empty());
        PlainProfile {
            name: text(self.name, before.name),
            email: text(self.email, before.email),
            description: text(self.description, before.description),
        }
    }
}

/// Why a profile is saved.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    Change(ProfileChange<'a>),
    /// The session that saved last was revoked: what it said is said again by one that was not.
    Renewal,
}

/// What the server shows, and what is thought of it.
struct Looked {
    shown: ShownProfile,
    judged: Result<Judged, VerificationFailure>,
}

/// A user's profile; none if there is none to read.
pub(crate) async fn show(shared: &Shared, user_id: UserId) -> Result<Option<PlainProfile>, ClientError> {
    let looked = look(shared, user_id).await?;
    match looked.judged? {
        Judged::Nothing => Ok(None),
        Judged::Waits { .. } => Err(ClientError::ProfileKeyAwaited),
        Judged::Open { plain, .. } => Ok(Some(plain)),
    }
}

/// Saves this user's profile.
pub(crate) async fn set(shared: &Shared, change: ProfileChange<'_>) -> Result<(), ClientError> {
    let limits = [
        (change.name, PROFILE_NAME_BYTES_MAX),
        (change.email, PROFILE_EMAIL_BYTES_MAX),
        (change.description, PROFILE_DESCRIPTION_BYTES_MAX),
    ];
    // The limits are of the ciphertexts.
    for (text, limit) in limits.map(|(text, limit)| (text, limit - SEAL_BYTES)) {
        if text.is_some_and(|text| text.len() > limit) {
            return Err(ClientError::TooLarge { limit });
        }
    }
    save(shared, Purpose::Change(change)).await
}

async fn save(shared: &Shared, purpose: Purpose<'_>) -> Result<(), ClientError> {
    // One's own saves never race one another.
    let _turn = shared.profile_turn.lock().await;
    let own = shared.lock().account.me.user_id;
    let (mut must_renew, mut refused) = (false, BTreeSet::new());
    for _ in 0..TRIES_MAX {
        let looked = look(shared, own).await?;
        let Some(plain) = shared.lock().next_profile(&looked, purpose)? else { return Ok(()) };
        if looked.shown.profile.is_none() {
            chains::read_now(shared, own).await?;
        }
        let (request, secret) = shared.lock().make_profile(&looked, &plain, must_renew, &refused)?;
        let signed = request.profile.clone();
        let Err(error) = shared.call(Request::SetProfile(Box::new(request))).await? else {
            let key = Some((signed.profile.key_id, secret));
            let noted = Noted { revision: signed.profile.revision, signature: signed.signature, key };
            shared.lock().note_profile(own, noted);
            return Ok(());
        };
        match error.code {
            ErrorCode::InfoKeyStale => must_renew = true,
            // Whoever is no reader any more, or is blocked: left out, whatever the logs say that were read so far.
            ErrorCode::RecipientsChanged => refused.extend(error.details.extra.iter().copied()),
            ErrorCode::EditConflict => {}
            _ => return Err(error.into()),
        }
    }
    Err(ClientError::Conflict)
}

/// Fetches a profile and judges it by its user's chain, which is read after it.
async fn look(shared: &Shared, user_id: UserId) -> Result<Looked, ClientError> {
    let noted = || shared.lock().account.profiles.get(&user_id).map(|noted| noted.revision);
    let (shown, judged) = loop {
        let before = noted();
        let request = Request::FetchProfile(FetchProfile { user_id });
        let shown = match shared.call(request).await? {
            Ok(reply) => *expect_reply!(reply, Profile)?,
            Err(refused) if refused.code == ErrorCode::UnknownUser => return Err(ClientError::NoSharedChat),
            Err(refused) => return Err(refused.into()),
        };
        if shown.profile.is_some() {
            chains::read_now(shared, user_id).await?;
        }
        let judged = shared.lock().judge_profile(user_id, &shown);
        // A newer one was saved or seen here while this one was on its way: the server did not go back.
        if !matches!(judged, Err(VerificationFailure::ProfileRollback(_))) || noted() == before {
            break (shown, judged);
        }
    };
    let must_ask = match &judged {
        Ok(Judged::Waits { must_ask, .. }) => *must_ask,
        Ok(_) => false,
        Err(failure) => {
            shared.alarm(None, None, *failure);
            matches!(failure, VerificationFailure::ProfileKey(_))
        }
    };
    if must_ask {
        let asked = shared.call(Request::RequestProfileKey(RequestProfileKey { user_id })).await?;
        if let Err(refused) = asked {
            tracing::debug!(code = %refused.code, "another wrap of an info key is not asked for");
        }
    }
    Ok(Looked { shown, judged })
}

/// A profile was saved, or its key has come.
pub(crate) fn on_changed(shared: &Arc<Shared>, changed: ProfileChanged) {
    let ProfileChanged { user_id, revision } = changed;
    let is_news = {
        let mut state = shared.lock();
        if user_id == state.account.me.user_id {
            state.errands.push(Errand::KeepProfile);
        }
        let noted = state.account.profiles.get(&user_id);
        noted.is_none_or(|noted| noted.revision < revision || noted.key.is_none())
    };
    if is_news {
        shared.publish(vec![Event::ProfileChanged { user_id }]);
    }
    copies::start(shared);
}

/// Sessions lack this user's info key.
pub(crate) fn on_key_requested(shared: &Arc<Shared>, requested: ProfileKeyRequested) {
    shared.lock().errands.push(Errand::WrapProfile(requested));
    copies::start(shared);
}

/// Learns this user's own profile, so that this session can hand its key on and change it, and says it again if the
/// session that saved it was revoked.
pub(crate) async fn keep(shared: &Shared) -> Result<(), ClientError> {
    let own = shared.lock().account.me.user_id;
    let looked = look(shared, own).await?;
    let Judged::Open { noted, .. } = looked.judged? else { return Ok(()) };
    let Some(profile) = looked.shown.profile.map(|signed| signed.profile) else { return Ok(()) };
    let is_of_revoked = shared.lock().chains.get(own).is_some_and(|chain| chain.is_revoked(profile.session_id));
    if is_of_revoked {
        return save(shared, Purpose::Renewal).await;
    }
    // The key was opened with the password: from now on the server knows that this session has it, and asks for it.
    if looked.shown.key.is_none()
        && let Some((key_id, _)) = noted.key
    {
        let session_ids = vec![shared.lock().account.me.session_id];
        return hand_on(shared, ProfileKeyRequested { key_id, session_ids, chats: Vec::new() }).await;
    }
    Ok(())
}

/// Wraps this user's info key to those of the named sessions that this client knows as readers (P1).
pub(crate) async fn hand_on(shared: &Shared, requested: ProfileKeyRequested) -> Result<(), ClientError> {
    let ProfileKeyRequested { key_id, session_ids, chats } = requested;
    for cursor in chats {
        match shared.known(cursor.chat_id).await {
            Ok(()) => {
                shared.folded(cursor.chat_id, cursor.seq).await?;
            }
            Err(ClientError::UnknownChat) => {}
            Err(error) => return Err(error),
        }
    }
    let own = shared.lock().account.me.user_id;
    let has_key = shared.lock().profile_key(key_id).is_some();
    if !has_key {
        look(shared, own).await?.judged?;
    }
    let knows_all = {
        let readers = shared.lock().profile_readers();
        session_ids.iter().all(|session_id| readers.contains_key(session_id))
    };
    if !knows_all {
        chains::read_now(shared, own).await?;
    }
    let mut keys = {
        let state = shared.lock();
        let Some(secret) = state.profile_key(key_id) else { return Ok(()) };
        let readers = state.profile_readers();
        let asked = session_ids.iter().filter_map(|session_id| Some((*session_id, *readers.get(session_id)?)));
        state.profile_wraps((key_id, &secret), asked)
    };
    while !keys.is_empty() {
        let request = UploadProfileKeys { keys: keys.clone() };
        let Err(refused) = shared.call(Request::UploadProfileKeys(request)).await? else { return Ok(()) };
        let before = keys.len();
        keys.retain(|wrap| !refused.details.extra.contains(&wrap.session_id));
        if refused.code != ErrorCode::RecipientsChanged || keys.len() == before {
            return Err(refused.into());
        }
    }
    Ok(())
}

impl State {
    /// Judges what the server shows of a profile, and keeps what is to be kept.
    fn judge_profile(&mut self, user_id: UserId, shown: &ShownProfile) -> Result<Judged, VerificationFailure> {
        if shown.user_id != user_id {
            return Err(VerificationFailure::Profile(user_id));
        }
        if shown.profile.is_none() {
            return Ok(Judged::Nothing);
        }
        let chain = self.chains.get(user_id).ok_or(VerificationFailure::Profile(user_id))?;
        let known = Known {
            me: &self.account.me,
            chain,
            noted: self.account.profiles.get(&user_id),
            own_key: self.account.own_key.as_ref(),
        };
        let judged = judge(user_id, shown, known)?;
        match &judged {
            Judged::Nothing => {}
            Judged::Waits { noted, .. } | Judged::Open { noted, .. } => self.note_profile(user_id, noted.clone()),
        }
        Ok(judged)
    }

    /// Notes how far a user's profile was seen; never an older one.
    fn note_profile(&mut self, user_id: UserId, noted: Noted) {
        let known = self.account.profiles.get(&user_id);
        if known.is_some_and(|known| known.revision > noted.revision || *known == noted) {
            return;
        }
        if user_id == self.account.me.user_id && noted.key.is_some() {
            self.account.own_key = None;
        }
        self.account.profiles.insert(user_id, noted);
        if self.account.profiles.len() > NOTED_MAX {
            let own = self.account.me.user_id;
            let oldest = self.account.profiles.keys().copied().find(|user_id| *user_id != own);
            oldest.map(|user_id| self.account.profiles.remove(&user_id));
        }
        self.is_account_dirty = true;
    }

    /// What is to be saved; none if there is no need any more.
    fn next_profile(&self, looked: &Looked, purpose: Purpose<'_>) -> Result<Option<PlainProfile>, ClientError> {
        let before = match &looked.judged {
            Ok(Judged::Nothing) => Some(PlainProfile::default()),
            Ok(Judged::Open { plain, .. }) => Some(plain.clone()),
            Ok(Judged::Waits { .. }) | Err(VerificationFailure::ProfileOfRevoked(_)) => None,
            Err(failure) => return Err(ClientError::Verification(*failure)),
        };
        match purpose {
            // What cannot be read cannot be sealed again: to save the rest would be to lose it.
            Purpose::Change(change) if before.is_some() || change.has_all() => {
                Ok(Some(change.of(before.unwrap_or_default())))
            }
            Purpose::Change(_) => match &looked.judged {
                Err(failure) => Err(ClientError::Verification(*failure)),
                Ok(_) => Err(ClientError::ProfileKeyAwaited),
            },
            Purpose::Renewal => {
                let own = self.account.me.user_id;
                let saved_by = looked.shown.profile.as_ref().map(|signed| signed.profile.session_id);
                let is_of_revoked = |session_id| self.chains.get(own).is_some_and(|chain| chain.is_revoked(session_id));
                Ok(before.filter(|_| saved_by.is_some_and(is_of_revoked)))
            }
        }
    }

    /// What a save sends, and the key it is sealed under.
    fn make_profile(
        &self,
        looked: &Looked,
        plain: &PlainProfile,
        must_renew: bool,
        refused: &BTreeSet<SessionId>,
    ) -> Result<(SetProfile, Secret), ClientError> {
        let me = &self.account.me;
        let own = me.user_id;
        let before = looked.shown.profile.as_ref().map(|signed| &signed.profile);
        let shown = before.map_or(Revision::default(), |profile| profile.revision);
        let noted = self.account.profiles.get(&own);
        let revision = noted.map_or(shown, |noted| shown.max(noted.revision)).next();
        let is_revoked = |session_id| self.chains.get(own).is_some_and(|chain| chain.is_revoked(session_id));
        let present = before.filter(|profile| !must_renew && !is_revoked(profile.session_id));
        let present = present.and_then(|profile| Some((profile.key_id, self.profile_key(profile.key_id)?)));
        let (key_id, secret, keys, own_key) = match present {
            Some((key_id, secret)) => (key_id, secret, Vec::new(), None),
            None => {
                let (key_id, secret) = (InfoKeyId::generate(), Secret::generate());
                let mut readers = self.profile_readers();
                readers.retain(|session_id, _| *session_id != me.session_id && !refused.contains(session_id));
                let to_me = (me.session_id, me.secrets.public_key());
                let keys = self.profile_wraps((key_id, &secret), std::iter::once(to_me).chain(readers));
                let own_key = self.own_wrap(&looked.shown, (key_id, &secret))?;
                (key_id, secret, keys, own_key)
            }
        };
        let place = ProfilePlace { user_id: own, revision, key_id };
        let profile = user_profile::seal(&secret, place, plain, (me.session_id, &me.secrets))?;
        Ok((SetProfile { profile, keys, own_key }, secret))
    }

    /// Seals a new info key to the user key that the server names, if this user's identity key signed it.
    fn own_wrap(
        &self,
        shown: &ShownProfile,
        (key_id, secret): (InfoKeyId, &Secret),
    ) -> Result<Option<OwnKeyWrap>, ClientError> {
        let me = &self.account.me;
        let Some(user_key) = &shown.user_key else { return Ok(None) };
        if !user_key.verifies(&me.identity_key) {
            return Err(ClientError::Verification(VerificationFailure::UserKey(me.user_id)));
        }
        let (by, to) = ((me.session_id, &me.secrets), (user_key.key_id, &user_key.public_key));
        Ok(Some(user_profile::seal_to_own(secret, (me.user_id, key_id), by, to)?))
    }

    fn profile_key(&self, key_id: InfoKeyId) -> Option<Secret> {
        let noted = self.account.profiles.get(&self.account.me.user_id)?;
        noted.key.as_ref().filter(|(known, _)| *known == key_id).map(|(_, secret)| secret.clone())
    }

    /// The sessions that may read this user's profile, as far as this client found them itself (P1): its own user's
    /// live ones by their chain, and the recipients of its chats by the logs, but those that their user's chain calls
    /// revoked.
    fn profile_readers(&self) -> BTreeMap<SessionId, ExchangeKey> {
        let (own, now) = (self.account.me.user_id, self.now());
        let mut readers = BTreeMap::new();
        if let Some(chain) = self.chains.get(own) {
            for (session_id, session) in chain.sessions() {
                if chain.is_live(*session_id) && session.expired_at > now {
                    readers.insert(*session_id, session.public_key);
                }
            }
        }
        for chat in self.chats.values() {
            for (session_id, recipient) in chat.log.fold().recipients() {
                let is_revoked = self.chains.get(recipient.user_id).is_some_and(|chain| chain.is_revoked(*session_id));
                if recipient.user_id != own && !is_revoked {
                    readers.insert(*session_id, recipient.public_key);
                }
            }
        }
        readers
    }

    fn profile_wraps(
        &self,
        (key_id, secret): (InfoKeyId, &Secret),
        readers: impl Iterator<Item = (SessionId, ExchangeKey)>,
    ) -> Vec<ProfileKeyWrap> {
        let me = &self.account.me;
        let wrap = |(session_id, public_key): (SessionId, ExchangeKey)| {
            let (by, to) = ((me.session_id, &me.secrets), (session_id, &public_key));
            // Neither fold nor chain takes a session with an unsound key, so this does not fail.
            user_profile::wrap_key(secret, (me.user_id, key_id), by, to).ok()
        };
        readers.filter_map(wrap).take(PROFILE_KEY_WRAPS_MAX).collect()
    }
}
