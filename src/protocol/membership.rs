//! The membership state machine, the same for the server and for every client.
//!
//! Lives here: signed membership changes, their chain, and who may make which.
//! Invariants: M1 changes are numbered 1, 2, 3 … and each names the hash of the one before. M2 the owner is a
//! member who may write and manage. M3 a user's identity key does not change while they are a member.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::binary::{Hash, IdentityKey, Signature};
use super::canonical::{Canonical, label};
use super::envelope::Seen;
use super::ids::{ChangeNo, ChatId, Epoch, Seq, SessionId, UserId};

/// Who makes a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The user.
    pub user_id: UserId,
    /// The session that signs.
    pub session_id: SessionId,
    /// The user's identity key.
    pub identity_key: IdentityKey,
}

/// Whom a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The user.
    pub user_id: UserId,
    /// The user's identity key, as the actor knows it.
    pub identity_key: IdentityKey,
}

/// What newcomers of a chat may read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryPolicy {
    /// What comes after their joining.
    #[default]
    FromJoin,
    /// Also what was before, back to where this policy began.
    Shared,
}

impl HistoryPolicy {
    /// The word that is signed and stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FromJoin => "from_join",
            Self::Shared => "shared",
        }
    }
}

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
pub enum Change {
    /// The chat begins; the actor is its owner and the target.
    Create,
    /// The target becomes a member.
    Add {
        /// May send messages.
        can_write: bool,
        /// May add and remove members.
        can_manage: bool,
        /// The hash of the recipients at the place that `seen` names: the newcomer's anchor.
        roster_hash: Hash,
        /// The epoch at that place.
        epoch: Epoch,
    },
    /// The target is no longer a member, by a manager's will.
    Remove,
    /// The actor, who is the target, is no longer a member.
    Leave,
    /// The target's rights become these. Managers are equals: one may take another's rights, as they may remove
    /// them, and their own; the owner's stay as they are (M2).
    SetRights {
        /// May send messages.
        can_write: bool,
        /// May add and remove members, and change their rights.
        can_manage: bool,
    },
    /// The target becomes the owner, who may write and manage; the actor stays a member with the rights they have.
    Transfer,
    /// All sender keys become stale, by a manager's will. The target is the actor.
    Rekey,
    /// Newcomers may read more, or less, from now on; all sender keys become stale. The target is the actor.
    SetHistory {
        /// What newcomers may read.
        policy: HistoryPolicy,
    },
    /// The chat ends.
    Delete,
}

impl Change {
    /// The word that is signed.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Add { .. } => "add",
            Self::Remove => "remove",
            Self::Leave => "leave",
            Self::SetRights { .. } => "set_rights",
            Self::Transfer => "transfer",
            Self::Rekey => "rekey",
            Self::SetHistory { .. } => "set_history",
            Self::Delete => "delete",
        }
    }
}

/// One change of a chat's membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipChange {
    /// Its number among the chat's membership changes.
    pub n: ChangeNo,
    /// The hash of the change before; [`chain_start`] at number 1.
    pub previous: Hash,
    /// The newest entry of the log that the actor had seen.
    pub seen: Seen,
    /// Who makes it.
    pub actor: Actor,
    /// What changes.
    pub change: Change,
    /// Whom it is about.
    pub target: Target,
}

impl MembershipChange {
    /// The signed bytes: chat, n, previous, seen seq, seen log hash, actor's user, session and identity key,
    /// change, `can_write`, `can_manage` (0 unless `add` or `set_rights`), roster hash and epoch (empty and 0 unless
    /// `add`), history policy (empty unless `set_history`), target's user and identity key.
    #[must_use]
    pub fn signed_bytes(&self, chat_id: ChatId) -> Vec<u8> {
        let (can_write, can_manage) = match &self.change {
            Change::Add { can_write, can_manage, .. } | Change::SetRights { can_write, can_manage } => {
                (*can_write, *can_manage)
            }
            _ => (false, false),
        };
        let (roster_hash, epoch): (&[u8], u64) = match &self.change {
            Change::Add { roster_hash, epoch, .. } => (roster_hash.as_ref(), epoch.get()),
            _ => (&[], 0),
        };
        let history = match &self.change {
            Change::SetHistory { policy } => policy.as_str(),
            _ => "",
        };
        Canonical::new(label::MEMBERSHIP)
            .id(chat_id.0)
            .u64(self.n.get())
            .bytes(self.previous.as_ref())
            .u64(self.seen.seq.get())
            .bytes(self.seen.log_hash.as_ref())
            .id(self.actor.user_id.0)
            .id(self.actor.session_id.0)
            .bytes(self.actor.identity_key.as_ref())
            .text(self.change.as_str())
            .bool(can_write)
            .bool(can_manage)
            .bytes(roster_hash)
            .u64(epoch)
            .text(history)
            .id(self.target.user_id.0)
            .bytes(self.target.identity_key.as_ref())
            .finish()
    }
}

/// A membership change with its session's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedChange {
    /// What is signed.
    pub change: MembershipChange,
    /// The acting session's signature over [`MembershipChange::signed_bytes`].
    pub signature: Signature,
}

impl SignedChange {
    /// The hash that the next change signs.
    #[must_use]
    pub fn chain_hash(&self, chat_id: ChatId) -> Hash {
        Canonical::new(label::MEMBERSHIP_EVENT)
            .bytes(&self.change.signed_bytes(chat_id))
            .bytes(self.signature.as_ref())
            .hash()
    }
}

/// The hash before the first membership change: SHA-256 over label and chat.
#[must_use]
pub fn chain_start(chat_id: ChatId) -> Hash {
    Canonical::new(label::MEMBERSHIP_CHAIN).id(chat_id.0).hash()
}

/// A user in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The user's identity key, as signed by whoever added them.
    pub identity_key: IdentityKey,
    /// May send messages.
    pub can_write: bool,
    /// May add and remove members.
    pub can_manage: bool,
    /// The seq of the entry that made them a member.
    pub joined_seq: Seq,
    /// The seq from which on they may read: that of their joining, or under a shared history where that began.
    pub readable_from: Seq,
}

/// Who is in a chat and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The number of the newest change.
    pub head: ChangeNo,
    /// Its hash.
    pub hash: Hash,
    /// The owner.
    pub owner_id: UserId,
    /// The members.
    pub members: BTreeMap<UserId, Member>,
    /// Where a shared history began; none while newcomers read from their joining on.
    pub shared_since: Option<Seq>,
}

impl Membership {
    /// Begins a chat's membership by its first change.
    ///
    /// # Errors
    /// [`MembershipError::Malformed`] unless it is a `create` at number 1 by its own target, and
    /// [`MembershipError::Conflict`] unless it starts the chain.
    pub fn create(chat_id: ChatId, first: &SignedChange) -> Result<Self, MembershipError> {
        let change = &first.change;
        let is_own =
            change.actor.user_id == change.target.user_id && change.actor.identity_key == change.target.identity_key;
        if change.change != Change::Create || !is_own {
            return Err(MembershipError::Malformed);
        }
        if change.n.get() != 1 || change.previous != chain_start(chat_id) || change.seen.seq != Seq::default() {
            return Err(MembershipError::Conflict);
        }
        let owner = Member {
            identity_key: change.actor.identity_key,
            can_write: true,
            can_manage: true,
            joined_seq: Seq::saturating(1),
            readable_from: Seq::saturating(1),
        };
        Ok(Self {
            head: change.n,
            hash: first.chain_hash(chat_id),
            owner_id: change.actor.user_id,
            members: BTreeMap::from([(change.actor.user_id, owner)]),
            shared_since: None,
        })
    }

    /// Judges a change against this state; signatures are judged elsewhere.
    ///
    /// # Errors
    /// [`MembershipError`] says which rule is broken. The actor's rights come first, so that a stranger learns
    /// nothing of the chat's state.
    pub fn check(&self, change: &MembershipChange) -> Result<(), MembershipError> {
        let Some(actor) = self.members.get(&change.actor.user_id) else {
            return Err(MembershipError::NotMember);
        };
        if actor.identity_key != change.actor.identity_key {
            return Err(MembershipError::IdentityChanged);
        }
        if change.n != self.head.next() || change.previous != self.hash {
            return Err(MembershipError::Conflict);
        }
        let target = self.members.get(&change.target.user_id);
        if target.is_some_and(|member| member.identity_key != change.target.identity_key) {
            return Err(MembershipError::IdentityChanged);
        }
        let is_own = change.actor.user_id == change.target.user_id;
        let is_owner = change.actor.user_id == self.owner_id;
        match &change.change {
            Change::Create => Err(MembershipError::Malformed),
            Change::Add { .. } if !actor.can_manage => Err(MembershipError::CannotManage),
            Change::Add { .. } if target.is_some() => Err(MembershipError::AlreadyMember),
            Change::Add { .. } => Ok(()),
            Change::Remove if is_own => Err(MembershipError::Malformed),
            Change::Remove if !actor.can_manage => Err(MembershipError::CannotManage),
            Change::Remove if target.is_none() => Err(MembershipError::TargetNotMember),
            Change::Remove if change.target.user_id == self.owner_id => Err(MembershipError::NotOwner),
            Change::Remove => Ok(()),
            Change::Leave if !is_own => Err(MembershipError::Malformed),
            Change::Leave if is_owner => Err(MembershipError::OwnerMustTransfer),
            Change::Leave => Ok(()),
            Change::SetRights { .. } if !actor.can_manage => Err(MembershipError::CannotManage),
            Change::SetRights { .. } if change.target.user_id == self.owner_id => Err(MembershipError::NotOwner),
            Change::SetRights { can_write, can_manage } => match target {
                None => Err(MembershipError::TargetNotMember),
                Some(target) if (target.can_write, target.can_manage) == (*can_write, *can_manage) => {
                    Err(MembershipError::Unchanged)
                }
                Some(_) => Ok(()),
            },
            Change::Transfer if is_own => Err(MembershipError::Malformed),
            Change::Transfer if !is_owner => Err(MembershipError::NotOwner),
            Change::Transfer if target.is_none() => Err(MembershipError::TargetNotMember),
            Change::Transfer => Ok(()),
            Change::Rekey | Change::SetHistory { .. } if !is_own => Err(MembershipError::Malformed),
            Change::Rekey | Change::SetHistory { .. } if !actor.can_manage => Err(MembershipError::CannotManage),
            Change::SetHistory { policy } if *policy == self.history() => Err(MembershipError::Unchanged),
            Change::Rekey | Change::SetHistory { .. } => Ok(()),
            Change::Delete if !is_own => Err(MembershipError::Malformed),
            Change::Delete if !is_owner => Err(MembershipError::NotOwner),
            Change::Delete => Ok(()),
        }
    }

    /// Judges a change and makes it.
    ///
    /// # Errors
    /// As [`Membership::check`]; then nothing has changed.
    pub fn apply(&mut self, chat_id: ChatId, seq: Seq, signed: &SignedChange) -> Result<(), MembershipError> {
        let change = &signed.change;
        self.check(change)?;
        match &change.change {
            Change::Add { can_write, can_manage, .. } => {
                let member = Member {
                    identity_key: change.target.identity_key,
                    can_write: *can_write,
                    can_manage: *can_manage,
                    joined_seq: seq,
                    readable_from: self.shared_since.unwrap_or(seq),
                };
                self.members.insert(change.target.user_id, member);
            }
            Change::Remove | Change::Leave => {
                self.members.remove(&change.target.user_id);
            }
            Change::SetRights { can_write, can_manage } => {
                if let Some(member) = self.members.get_mut(&change.target.user_id) {
                    member.can_write = *can_write;
                    member.can_manage = *can_manage;
                }
            }
            Change::Transfer => self.pass_to(change.target.user_id),
            Change::SetHistory { policy } => {
                self.shared_since = (*policy == HistoryPolicy::Shared).then_some(seq);
            }
            Change::Create | Change::Rekey | Change::Delete => {}
        }
        self.head = change.n;
        self.hash = signed.chain_hash(chat_id);
        Ok(())
    }

    /// What newcomers may read.
    #[must_use]
    pub const fn history(&self) -> HistoryPolicy {
        match self.shared_since {
            Some(_) => HistoryPolicy::Shared,
            None => HistoryPolicy::FromJoin,
        }
    }

    /// Takes out a member whose account has ended; what they owned passes to their heir.
    ///
    /// # Errors
    /// [`MembershipError::NotMember`]; then nothing has changed.
    pub fn delete_account(&mut self, user_id: UserId) -> Result<(), MembershipError> {
        if self.members.remove(&user_id).is_none() {
            return Err(MembershipError::NotMember);
        }
        if self.owner_id == user_id
            && let Some(heir) = self.heir()
        {
            self.pass_to(heir);
        }
        Ok(())
    }

    /// Who owns the chat when its owner's account ends, among those who stay: the manager who joined first, else
    /// the member who joined first. None if nobody stays: then the chat ends.
    #[must_use]
    pub fn heir(&self) -> Option<UserId> {
        let others = self.members.iter().filter(|(user_id, _)| **user_id != self.owner_id);
        others.min_by_key(|(_, member)| (!member.can_manage, member.joined_seq)).map(|(user_id, _)| *user_id)
    }

    /// Makes a member the owner, who may write and manage (M2).
    fn pass_to(&mut self, user_id: UserId) {
        if let Some(member) = self.members.get_mut(&user_id) {
            member.can_write = true;
            member.can_manage = true;
            self.owner_id = user_id;
        }
    }
}

/// Why a membership change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The actor is not a member: answered as for a chat that is not there.
    #[error("the actor is not a member")]
    NotMember,
    /// A change that no honest maker signs.
    #[error("actor, target and change do not fit")]
    Malformed,
    /// Another change came first.
    #[error("number or previous hash is not the next")]
    Conflict,
    /// An identity key differs from the one the chat knows.
    #[error("an identity key is not the one the chat knows")]
    IdentityChanged,
    /// The actor may not manage.
    #[error("the actor may not manage members")]
    CannotManage,
    /// Only the owner may do this, or it may not be done to the owner.
    #[error("only the owner may do this, and nobody to the owner")]
    NotOwner,
    /// The owner leaves only after a transfer.
    #[error("the owner must transfer the chat first")]
    OwnerMustTransfer,
    /// The target is a member already.
    #[error("the target is a member already")]
    AlreadyMember,
    /// The target is not a member.
    #[error("the target is not a member")]
    TargetNotMember,
    /// The chat is so already.
    #[error("nothing would change")]
    Unchanged,
}

#[cfg(test)]
mod tests {
    use super::MembershipError as E;
    use super::*;

    const OWNER: usize = 0;
    const MANAGER: usize = 1;
    const MUTE_MANAGER: usize = 2;
    const WRITER: usize = 3;
    const READER: usize = 4;
    const STRANGER: usize = 5;

    fn identity(person: usize) -> IdentityKey {
        IdentityKey([u8::try_from(person).unwrap() + 1; 32])
    }

    /// A chat of five, who joined in this order, at seqs 1, 3, 5, 7 and 9; and somebody outside.
    struct Chat {
        chat_id: ChatId,
        users: Vec<UserId>,
        membership: Membership,
        next_seq: u64,
    }

    impl Chat {
        fn new() -> Self {
            let (chat_id, mut users) = (ChatId::generate(), (0..6).map(|_| UserId::generate()).collect::<Vec<_>>());
            // Whoever joins later has the lower id, so that no rule may lean on the order of ids.
            users.sort_unstable_by(|one, other| other.cmp(one));
            let first = Self::signed_by(&users, None, OWNER, Change::Create, OWNER, chat_id);
            let membership = Membership::create(chat_id, &first).unwrap();
            let mut chat = Self { chat_id, users, membership, next_seq: 3 };
            for (person, can_write, can_manage) in
                [(MANAGER, true, true), (MUTE_MANAGER, false, true), (WRITER, true, false), (READER, false, false)]
            {
                chat.make(OWNER, add(can_write, can_manage), person).unwrap();
            }
            chat
        }

        fn signed_by(
            users: &[UserId],
            after: Option<&Membership>,
            actor: usize,
            change: Change,
            target: usize,
            chat_id: ChatId,
        ) -> SignedChange {
            let actor_id = users[actor];
            let session_id = SessionId::generate();
            let change = MembershipChange {
                n: after.map_or(ChangeNo::saturating(1), |membership| membership.head.next()),
                previous: after.map_or_else(|| chain_start(chat_id), |membership| membership.hash),
                seen: Seen { seq: Seq::default(), log_hash: Hash([0; 32]) },
                actor: Actor { user_id: actor_id, session_id, identity_key: identity(actor) },
                change,
                target: Target { user_id: users[target], identity_key: identity(target) },
            };
            SignedChange { change, signature: Signature([0; 64]) }
        }

        fn signed(&self, actor: usize, change: Change, target: usize) -> SignedChange {
            Self::signed_by(&self.users, Some(&self.membership), actor, change, target, self.chat_id)
        }

        fn judge(&self, actor: usize, change: Change, target: usize) -> Result<(), E> {
            self.membership.check(&self.signed(actor, change, target).change)
        }

        fn make(&mut self, actor: usize, change: Change, target: usize) -> Result<Seq, E> {
            let (signed, seq) = (self.signed(actor, change, target), Seq::saturating(self.next_seq));
            let before = self.membership.clone();
            let made = self.membership.apply(self.chat_id, seq, &signed);
            if made.is_err() {
                assert_eq!(self.membership, before, "a refusal changes nothing");
            } else {
                self.next_seq += 2;
            }
            made.map(|()| seq)
        }

        fn member(&self, person: usize) -> Member {
            self.membership.members[&self.users[person]]
        }
    }

    fn add(can_write: bool, can_manage: bool) -> Change {
        Change::Add { can_write, can_manage, roster_hash: Hash([0; 32]), epoch: Epoch::default() }
    }

    fn rights(can_write: bool, can_manage: bool) -> Change {
        Change::SetRights { can_write, can_manage }
    }

    fn history(policy: HistoryPolicy) -> Change {
        Change::SetHistory { policy }
    }

    #[test]
    fn who_may_do_what_to_whom() {
        let chat = Chat::new();
        let shared = HistoryPolicy::Shared;
        let cases = [
            // Adding takes a manager, writing or not.
            (MANAGER, add(true, true), STRANGER, Ok(())),
            (MUTE_MANAGER, add(true, false), STRANGER, Ok(())),
            (WRITER, add(true, false), STRANGER, Err(E::CannotManage)),
            (MANAGER, add(true, false), READER, Err(E::AlreadyMember)),
            (MANAGER, add(true, false), MANAGER, Err(E::AlreadyMember)),
            // Managers are equals, and nobody takes out the owner.
            (MANAGER, Change::Remove, MUTE_MANAGER, Ok(())),
            (OWNER, Change::Remove, MANAGER, Ok(())),
            (MANAGER, Change::Remove, OWNER, Err(E::NotOwner)),
            (MANAGER, Change::Remove, STRANGER, Err(E::TargetNotMember)),
            (WRITER, Change::Remove, READER, Err(E::CannotManage)),
            (MANAGER, Change::Remove, MANAGER, Err(E::Malformed)),
            (WRITER, Change::Leave, WRITER, Ok(())),
            (READER, Change::Leave, READER, Ok(())),
            (OWNER, Change::Leave, OWNER, Err(E::OwnerMustTransfer)),
            (MANAGER, Change::Leave, WRITER, Err(E::Malformed)),
            // Rights: of anybody but the owner, one's own too, by any manager.
            (OWNER, rights(false, false), MANAGER, Ok(())),
            (MANAGER, rights(false, false), MUTE_MANAGER, Ok(())),
            (MANAGER, rights(true, false), MANAGER, Ok(())),
            (MUTE_MANAGER, rights(true, true), MUTE_MANAGER, Ok(())),
            (MANAGER, rights(true, true), WRITER, Ok(())),
            (MANAGER, rights(true, false), WRITER, Err(E::Unchanged)),
            (MANAGER, rights(true, false), OWNER, Err(E::NotOwner)),
            (OWNER, rights(true, false), OWNER, Err(E::NotOwner)),
            (MANAGER, rights(true, false), STRANGER, Err(E::TargetNotMember)),
            (WRITER, rights(true, true), WRITER, Err(E::CannotManage)),
            (READER, rights(false, false), WRITER, Err(E::CannotManage)),
            // The owner alone passes the chat on, to any member.
            (OWNER, Change::Transfer, READER, Ok(())),
            (OWNER, Change::Transfer, STRANGER, Err(E::TargetNotMember)),
            (OWNER, Change::Transfer, OWNER, Err(E::Malformed)),
            (MANAGER, Change::Transfer, MANAGER, Err(E::Malformed)),
            (MANAGER, Change::Transfer, WRITER, Err(E::NotOwner)),
            (OWNER, Change::Rekey, OWNER, Ok(())),
            (MUTE_MANAGER, Change::Rekey, MUTE_MANAGER, Ok(())),
            (WRITER, Change::Rekey, WRITER, Err(E::CannotManage)),
            (MANAGER, Change::Rekey, OWNER, Err(E::Malformed)),
            (MANAGER, history(shared), MANAGER, Ok(())),
            (WRITER, history(shared), WRITER, Err(E::CannotManage)),
            (MANAGER, history(HistoryPolicy::FromJoin), MANAGER, Err(E::Unchanged)),
            (MANAGER, history(shared), WRITER, Err(E::Malformed)),
            (OWNER, Change::Delete, OWNER, Ok(())),
            (MANAGER, Change::Delete, MANAGER, Err(E::NotOwner)),
            (OWNER, Change::Delete, MANAGER, Err(E::Malformed)),
            (OWNER, Change::Create, OWNER, Err(E::Malformed)),
        ];
        for (actor, change, target, expected) in cases {
            let judged = chat.judge(actor, change.clone(), target);
            assert_eq!(judged, expected, "{actor} {change:?} {target}");
        }
        for change in
            [add(true, true), Change::Remove, Change::Leave, rights(true, true), Change::Transfer, Change::Rekey]
        {
            assert_eq!(chat.judge(STRANGER, change, STRANGER), Err(E::NotMember));
        }
    }

    #[test]
    fn places_and_identities_come_before_rights() {
        let chat = Chat::new();
        let judge = |alter: fn(&mut MembershipChange)| {
            let mut change = chat.signed(WRITER, Change::Remove, READER).change;
            alter(&mut change);
            chat.membership.check(&change)
        };
        assert_eq!(judge(|change| change.n = change.n.next()), Err(E::Conflict));
        assert_eq!(judge(|change| change.previous = Hash([9; 32])), Err(E::Conflict));
        assert_eq!(judge(|change| change.actor.identity_key = identity(OWNER)), Err(E::IdentityChanged));
        assert_eq!(judge(|change| change.target.identity_key = identity(OWNER)), Err(E::IdentityChanged));
        assert_eq!(judge(|_| {}), Err(E::CannotManage));
    }

    #[test]
    fn m2_the_owner_writes_and_manages_whoever_it_is() {
        let mut chat = Chat::new();
        chat.make(OWNER, Change::Transfer, READER).unwrap();
        assert_eq!(chat.membership.owner_id, chat.users[READER]);
        assert!(chat.member(READER).can_write && chat.member(READER).can_manage);
        assert!(chat.member(OWNER).can_write && chat.member(OWNER).can_manage, "the rights they have");
        // Who owned it is a manager like others now.
        assert_eq!(chat.make(OWNER, Change::Transfer, WRITER), Err(E::NotOwner));
        chat.make(MANAGER, rights(false, false), OWNER).unwrap();
        assert_eq!(chat.make(OWNER, Change::Rekey, OWNER), Err(E::CannotManage));
        chat.make(OWNER, Change::Leave, OWNER).unwrap();
        assert_eq!(chat.make(READER, Change::Leave, READER), Err(E::OwnerMustTransfer));
    }

    #[test]
    fn the_heir_is_the_first_manager_else_the_first_member() {
        let mut chat = Chat::new();
        for (gone, heir) in [(OWNER, MANAGER), (MANAGER, MUTE_MANAGER), (MUTE_MANAGER, WRITER), (WRITER, READER)] {
            assert_eq!(chat.membership.heir(), Some(chat.users[heir]));
            let before = (chat.membership.head, chat.membership.hash);
            chat.membership.delete_account(chat.users[gone]).unwrap();
            assert_eq!(chat.membership.owner_id, chat.users[heir]);
            assert!(chat.member(heir).can_write && chat.member(heir).can_manage);
            assert_eq!((chat.membership.head, chat.membership.hash), before, "it is no membership change");
        }
        assert_eq!(chat.membership.heir(), None, "nobody stays: the chat ends");
        assert_eq!(chat.membership.delete_account(chat.users[STRANGER]), Err(E::NotMember));
    }

    #[test]
    fn an_account_that_owns_nothing_passes_nothing_on() {
        let mut chat = Chat::new();
        chat.membership.delete_account(chat.users[MANAGER]).unwrap();
        assert_eq!(chat.membership.owner_id, chat.users[OWNER]);
        assert!(!chat.member(MUTE_MANAGER).can_write);
    }

    #[test]
    fn newcomers_read_from_where_the_policy_says() {
        let mut chat = Chat::new();
        let shared_at = chat.make(MANAGER, history(HistoryPolicy::Shared), MANAGER).unwrap();
        let joined = chat.make(OWNER, add(true, false), STRANGER).unwrap();
        let newcomer = chat.member(STRANGER);
        assert_eq!((newcomer.readable_from, newcomer.joined_seq), (shared_at, joined));
        assert_eq!(chat.member(READER).readable_from, chat.member(READER).joined_seq, "who was there reads as before");
        chat.make(OWNER, Change::Remove, STRANGER).unwrap();
        chat.make(OWNER, history(HistoryPolicy::FromJoin), OWNER).unwrap();
        let again = chat.make(OWNER, add(true, false), STRANGER).unwrap();
        assert_eq!(chat.member(STRANGER).readable_from, again);
        // A shared history begins anew where it was begun last.
        chat.make(OWNER, Change::Remove, STRANGER).unwrap();
        let shared_again = chat.make(OWNER, history(HistoryPolicy::Shared), OWNER).unwrap();
        chat.make(OWNER, add(true, false), STRANGER).unwrap();
        assert_eq!(chat.member(STRANGER).readable_from, shared_again);
    }
}
