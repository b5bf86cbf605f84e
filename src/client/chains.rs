//! Other users' chains, and one's own: followed, compared with what chats say, never believed to shrink.
//!
//! Pure: no clock, no I/O. What is kept over restarts is the newest place and hash of each chain (in the account); the
//! chains themselves are read again.
//! Invariants: H1 a chain that was seen up to a place is never accepted without it. H2 a session is accused only by
//! what two looks at its user's chain agree on, with the chat's log read in between.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::failure::VerificationFailure;
use crate::protocol::binary::{Hash, IdentityKey};
use crate::protocol::certificate::UserEvent;
use crate::protocol::fold::ChatFold;
use crate::protocol::frame::Chain;
use crate::protocol::ids::{ChatId, Place, SessionId, Timestamp, UserId};
use crate::protocol::user_chain::UserChain;

/// Entries of chains that chats have shown and that are not compared yet, at most. What is beyond is still compared
/// by its session and place when the user's turn comes.
const CLAIMS_MAX: usize = 20_000;

/// An entry of a user's chain as a chat's log shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) hash: Hash,
    pub(crate) session_id: SessionId,
    pub(crate) chat_id: ChatId,
}

/// What a server's answer about a chain must contain: taken before it is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    head: Option<(Place, Hash)>,
    claims: BTreeMap<Place, Claim>,
    /// Entries after this place are asked for: the newest known one is to be shown again.
    pub(crate) after: Place,
}

impl Expected {
    /// The same of the part that begins at another place.
    pub(crate) fn from(self, after: Place) -> Self {
        Self { after, ..self }
    }
}

/// How a chat's recipients differ from their user's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    /// A recipient whose certificate the chain does not have.
    NotInChain(SessionId),
    /// A recipient that the chain has revoked.
    Revoked(SessionId),
    /// A live session that is no recipient.
    Missing(SessionId),
}

impl Difference {
    pub(crate) const fn failure(self) -> VerificationFailure {
        match self {
            Self::NotInChain(session_id) => VerificationFailure::NotInChain(session_id),
            Self::Revoked(session_id) => VerificationFailure::WithheldRevocation(session_id),
            Self::Missing(session_id) => VerificationFailure::OwnSessionMissing(session_id),
        }
    }
}

/// The chains that a client follows.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    followed: BTreeMap<UserId, UserChain>,
    claims: BTreeMap<UserId, BTreeMap<Place, Claim>>,
    claims_count: usize,
    /// Whose turn was last.
    turn: Option<UserId>,
    /// What was said of a chat: an alarm is given once.
    accused: BTreeSet<(ChatId, Difference)>,
}

impl Chains {
    /// What is known of a user's chain.
    pub(crate) fn get(&self, user_id: UserId) -> Option<&UserChain> {
        self.followed.get(&user_id)
    }

    /// Whether chats have shown entries that were not compared with their users' chains.
    pub(crate) fn has_claims(&self) -> bool {
        !self.claims.is_empty()
    }

    /// Takes note of an entry that a chat's log shows.
    ///
    /// # Errors
    /// It is another one than the chain has at that place, or than another chat showed.
    pub(crate) fn claim(&mut self, user_id: UserId, place: Place, claim: Claim) -> Result<(), VerificationFailure> {
        let known = self.followed.get(&user_id).and_then(|chain| chain.hash_at(place));
        if let Some(known) = known {
            return if known == claim.hash { Ok(()) } else { Err(VerificationFailure::NotInChain(claim.session_id)) };
        }
        let is_full = self.claims_count >= CLAIMS_MAX;
        let claims = self.claims.entry(user_id).or_default();
        match claims.get(&place) {
            Some(other) if other.hash != claim.hash => return Err(VerificationFailure::NotInChain(claim.session_id)),
            Some(_) => {}
            None if is_full => {}
            None => {
                claims.insert(place, claim);
                self.claims_count += 1;
            }
        }
        Ok(())
    }

    /// Whose chains are looked at next: those of whom there are claims, one's own, then the others in turn.
    pub(crate) fn next_users(&mut self, own: UserId, users: &BTreeSet<UserId>, max: usize) -> BTreeSet<UserId> {
        let mut next: BTreeSet<UserId> =
            self.claims.keys().copied().filter(|user_id| users.contains(user_id)).collect();
        next.insert(own);
        let turn = self.turn;
        let (before, after): (Vec<UserId>, Vec<UserId>) =
            users.iter().copied().partition(|user_id| turn.is_some_and(|turn| *user_id <= turn));
        for user_id in after.into_iter().chain(before) {
            if next.len() >= max {
                break;
            }
            if next.insert(user_id) {
                self.turn = Some(user_id);
            }
        }
        // Claims about users who are in no chat any more are nobody's concern.
        self.claims.retain(|user_id, _| users.contains(user_id) || *user_id == own);
        self.claims_count = self.claims.values().map(BTreeMap::len).sum();
        next
    }

    /// What the next answer about a user's chain must contain.
    pub(crate) fn expected(&self, user_id: UserId, head: Option<(Place, Hash)>) -> Expected {
        let place = self.followed.get(&user_id).map_or(Place::default(), UserChain::place);
        Expected {
            head,
            claims: self.claims.get(&user_id).cloned().unwrap_or_default(),
            after: Place::saturating(place.get().saturating_sub(1)),
        }
    }

    /// Takes a part of a user's chain. Returns whether there is more.
    ///
    /// # Errors
    /// It does not verify, is another chain than before, or is shorter (H1); then what was known stays.
    pub(crate) fn take(
        &mut self,
        identity_key: IdentityKey,
        expected: &Expected,
        part: &Chain,
    ) -> Result<bool, VerificationFailure> {
        let user_id = part.user_id;
        let mut chain = match self.followed.get(&user_id) {
            Some(chain) if chain.identity_key() == identity_key => chain.clone(),
            _ => UserChain::new(user_id, identity_key),
        };
        let rewritten = VerificationFailure::ChainRewritten(user_id);
        let known_place = chain.place();
        if part.events.is_empty() && part.more {
            // It did not fit beside others, and is asked for again.
            return Ok(true);
        }
        // The newest known entry is to be shown again.
        let begins_at = part.events.first().map(UserEvent::place);
        if known_place > Place::default() && begins_at != Some(expected.after.next()) {
            return Err(rewritten);
        }
        for event in &part.events {
            if event.place() <= known_place {
                if chain.hash_at(event.place()) != Some(event.chain_hash()) {
                    return Err(rewritten);
                }
                continue;
            }
            if event.place() == chain.place().next() && event.previous() != chain.hash() {
                return Err(rewritten);
            }
            chain.take(event).map_err(|_| VerificationFailure::ChainInvalid(user_id))?;
        }
        if let Some((place, hash)) = expected.head {
            match chain.hash_at(place) {
                Some(known) if known != hash => return Err(rewritten),
                None if !part.more && place > Place::default() => return Err(rewritten),
                _ => {}
            }
        }
        self.followed.insert(user_id, chain);
        Ok(part.more)
    }

    /// Compares what chats have shown with a chain that was read to its end, and forgets it. Gives what differs.
    pub(crate) fn settle(&mut self, user_id: UserId, expected: &Expected) -> Vec<(ChatId, VerificationFailure)> {
        let Some(chain) = self.followed.get(&user_id) else { return Vec::new() };
        let mut failures = Vec::new();
        for (place, claim) in &expected.claims {
            if chain.hash_at(*place) != Some(claim.hash) {
                failures.push((claim.chat_id, VerificationFailure::NotInChain(claim.session_id)));
            }
        }
        if let Some(claims) = self.claims.get_mut(&user_id) {
            claims.retain(|place, _| !expected.claims.contains_key(place));
            if claims.is_empty() {
                self.claims.remove(&user_id);
            }
        }
        self.claims_count = self.claims.values().map(BTreeMap::len).sum();
        failures
    }

    /// Notes an accusation; says whether it is the first of its kind.
    pub(crate) fn accuse(&mut self, chat_id: ChatId, difference: Difference) -> bool {
        self.accused.insert((chat_id, difference))
    }
}

/// Compares a chat's recipients with their users' chains, of those users whose chains are given. One's own live sessions
/// must be there as well.
///
/// By itself a difference proves nothing, for chain and log were not read at one moment.
pub(crate) fn compare<'a>(
    fold: &ChatFold,
    own: UserId,
    now: Timestamp,
    chain_of: impl Fn(UserId) -> Option<&'a UserChain>,
) -> BTreeMap<UserId, BTreeSet<Difference>> {
    let mut differences: BTreeMap<UserId, BTreeSet<Difference>> = BTreeMap::new();
    for (session_id, recipient) in fold.recipients() {
        let Some(chain) = chain_of(recipient.user_id) else { continue };
        let difference = match chain.sessions().get(session_id) {
            Some(_) if !chain.is_live(*session_id) => Difference::Revoked(*session_id),
            Some(session) => {
                let is_known = recipient.place <= session.certified_at
                    && recipient.public_key == session.public_key
                    && recipient.signing_public_key == session.signing_public_key;
                if is_known {
                    continue;
                }
                Difference::NotInChain(*session_id)
            }
            None => Difference::NotInChain(*session_id),
        };
        differences.entry(recipient.user_id).or_default().insert(difference);
    }
    if let Some(chain) = chain_of(own)
        && fold.membership().members.contains_key(&own)
    {
        for (session_id, session) in chain.sessions() {
            let is_missing =
                chain.is_live(*session_id) && session.expired_at > now && !fold.recipients().contains_key(session_id);
            if is_missing {
                differences.entry(own).or_default().insert(Difference::Missing(*session_id));
            }
        }
    }
    differences
}

/// What of a second comparison is proven, given the chain as it was before the log was read (H2): a revocation that
/// was there before, a live session that was live before, a certificate that is not there even now.
pub(crate) fn proven(second: &BTreeSet<Difference>, before: Option<&UserChain>) -> Vec<Difference> {
    let is_proven = |difference: &&Difference| match difference {
        Difference::NotInChain(_) => true,
        Difference::Revoked(session_id) => before.is_some_and(|chain| !chain.is_live(*session_id)),
        Difference::Missing(session_id) => before.is_some_and(|chain| chain.is_live(*session_id)),
    };
    second.iter().filter(is_proven).copied().collect()
}
