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
