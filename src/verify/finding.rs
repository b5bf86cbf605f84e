//! Names everything that can be wrong in a database, the promise that it breaks, and the place where it was found.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::protocol::binary::Hash;
use crate::protocol::ids::{ChatId, KeyId, Seq, SessionId, UserId};

/// A promise as far as a database shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// P2.
    Once,
    /// P3.
    Ordered,
    /// P4.
    Decryptable,
    /// P5.
    ZeroWindow,
    /// P7.
    NoForging,
    /// P13.
    Deleted,
}

impl Promise {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Once, Self::Ordered, Self::Decryptable, Self::ZeroWindow, Self::NoForging, Self::Deleted];

    /// Its number.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Once => "P2",
            Self::Ordered => "P3",
            Self::Decryptable => "P4",
            Self::ZeroWindow => "P5",
            Self::NoForging => "P7",
            Self::Deleted => "P13",
        }
    }

    /// What it is about.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Once => "once: messages and their revisions",
            Self::Ordered => "ordered, gapless: places, times, hashes, counters",
            Self::Decryptable => "decryptable: recipients and copies",
            Self::ZeroWindow => "zero window: epochs, members, rights",
            Self::NoForging => "no forging: signatures, chains, certificates",
            Self::Deleted => "really deleted: data there or gone",
        }
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$item:meta])* $name:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type { $($(#[$item])* $name,)* }

        impl $type {
            /// The word by which it is shown.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

words! {
    /// What can be wrong.
    Kind {
        /// One revision of a message is there more than once.
        DuplicateRevision = "duplicate_revision",
        /// A revision without the one before it.
        RevisionGap = "revision_gap",
        /// A revision after the message's deletion.
        AfterDeletion = "after_deletion",
        /// A revision by somebody who may not make it.
        NotTheirs = "not_theirs",
        /// A message that is not of its kind's form.
        Shape = "shape",
        /// A log that does not begin with a creation.
        NotFounded = "not_founded",
        /// A seq is left out.
        SeqGap = "seq_gap",
        /// A seq is there twice.
        SeqDouble = "seq_double",
        /// An entry is older than the one before it.
        TimeBack = "time_back",
        /// An entry's hash does not follow.
        LogHash = "log_hash",
        /// The chat's row names another end of the log.
        Head = "head",
        /// A stored value cannot be read.
        Unreadable = "unreadable",
        /// Columns beside an entry's body say something else than it.
        EventColumns = "event_columns",
        /// A message has not the next counter of its key.
        CounterGap = "counter_gap",
        /// A key's row names another last counter.
        LastCounter = "last_counter",
        /// A key's row names another first message.
        FirstSeq = "first_seq",
        /// A message names as seen what comes after it.
        SeenAhead = "seen_ahead",
        /// A session's cursor is beyond the log, or a stranger's.
        Cursor = "cursor",
        /// A message was sealed for other recipients than those of its place.
        RosterHash = "roster_hash",
        /// The chat's row names another roster.
        Roster = "roster",
        /// The live sessions of members are not the recipients that the log gives.
        Recipients = "recipients",
        /// The key of a message is not there.
        KeyMissing = "key_missing",
        /// A recipient has no copy of a key.
        CopyMissing = "copy_missing",
        /// Somebody has a copy who should have none.
        CopyExtra = "copy_extra",
        /// A copy's row names another session as its sender.
        CopyColumns = "copy_columns",
        /// The chat's row names another generation, or says otherwise whether it is current.
        Generation = "generation",
        /// A member's row names another user key than the log shows.
        MemberKey = "member_key",
        /// The current group key is not wrapped to exactly the members' user keys.
        GroupKey = "group_key",
        /// A key is not archived to the recovery key.
        ArchiveMissing = "archive_missing",
        /// A message under a key of another epoch.
        KeyEpoch = "key_epoch",
        /// The chat's row names another epoch.
        Epoch = "epoch",
        /// A message by a session that was no recipient.
        GhostSender = "ghost_sender",
        /// A message by a member who might not write.
        CannotWrite = "cannot_write",
        /// The members are not those that the log gives.
        Members = "members",
        /// A member's rights are not those that the log gives.
        Rights = "rights",
        /// A member joined, or reads from, elsewhere than the log says.
        Joined = "joined",
        /// The owner is another.
        Owner = "owner",
        /// What newcomers may read is something else.
        History = "history",
        /// The chat's row names another newest membership change.
        ChangeHead = "change_head",
        /// The chat's row names another time at which a recipient expires.
        NextExpiry = "next_expiry",
        /// An entry of the log that is no message and does not verify.
        Entry = "entry",
        /// An edit or deletion whose signature does not verify.
        RevisionSignature = "revision_signature",
        /// What a key's session says of it does not verify, or differs from the columns.
        Announcement = "announcement",
        /// A message under another session's key.
        KeyOfAnother = "key_of_another",
        /// A wrap of an info key that does not verify, or for somebody who is no member.
        InfoKey = "info_key",
        /// A refusal of a copy that does not verify.
        CopyRefusal = "copy_refusal",
        /// A member's identity key is not the one that the log names.
        MemberIdentity = "member_identity",
        /// A certificate, revocation or deletion in a chat's log that is not in its user's chain, or an account's removal by
        /// the operator that is noted nowhere.
        NotInChain = "not_in_chain",
        /// An entry of a user's chain that does not follow or verify.
        ChainEntry = "chain_entry",
        /// The stored hash of an entry of a user's chain is another.
        ChainHash = "chain_hash",
        /// Columns beside an entry of a user's chain say something else than it.
        ChainColumns = "chain_columns",
        /// The user's row names another end of the chain.
        ChainHead = "chain_head",
        /// An account that ended and is there, or is gone and did not end.
        AccountEnd = "account_end",
        /// A session's row differs from its newest certificate.
        SessionColumns = "session_columns",
        /// A session's state is not what its user's chain says.
        SessionState = "session_state",
        /// A session of a user's chain that is not there.
        SessionMissing = "session_missing",
        /// Data is there that a later revision made superfluous.
        DataKept = "data_kept",
        /// Data of a newest revision is gone.
        DataMissing = "data_missing",
        /// Data has another hash than the signed one.
        DataHash = "data_hash",
        /// A key's row counts other messages with data.
        DataCount = "data_count",
    }
}

impl Kind {
    /// The promise that it breaks.
    #[must_use]
    pub const fn promise(self) -> Promise {
        use Kind as K;
        match self {
            K::DuplicateRevision | K::RevisionGap | K::AfterDeletion | K::NotTheirs | K::Shape => Promise::Once,
            K::NotFounded
            | K::SeqGap
            | K::SeqDouble
            | K::TimeBack
            | K::LogHash
            | K::Head
            | K::Unreadable
            | K::EventColumns
            | K::CounterGap
            | K::LastCounter
            | K::FirstSeq
            | K::SeenAhead
            | K::Cursor => Promise::Ordered,
            K::RosterHash
            | K::Roster
            | K::Recipients
            | K::KeyMissing
            | K::CopyMissing
            | K::CopyExtra
            | K::CopyColumns
            | K::Generation
            | K::MemberKey
            | K::GroupKey
            | K::ArchiveMissing => Promise::Decryptable,
            K::KeyEpoch
            | K::Epoch
            | K::GhostSender
            | K::CannotWrite
            | K::Members
            | K::Rights
            | K::Joined
            | K::Owner
            | K::History
            | K::ChangeHead
            | K::NextExpiry => Promise::ZeroWindow,
            K::Entry
            | K::RevisionSignature
            | K::Announcement
            | K::KeyOfAnother
            | K::InfoKey
            | K::CopyRefusal
            | K::MemberIdentity
            | K::NotInChain
            | K::ChainEntry
            | K::ChainHash
            | K::ChainColumns
            | K::ChainHead
            | K::AccountEnd
            | K::SessionColumns
            | K::SessionState
            | K::SessionMissing => Promise::NoForging,
            K::DataKept | K::DataMissing | K::DataHash | K::DataCount => Promise::Deleted,
        }
    }
}

words! {
    /// Why receivers refuse an entry that the server passed on as it came.
    Refused {
        /// The signature of a new message does not verify.
        Signature = "signature",
        /// Its maker says that they have seen another log.
        Fork = "fork",
        /// Its maker says that they have seen less than before.
        SeenBack = "seen_back",
    }
}

/// Where something was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The chat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_id: Option<ChatId>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The place in the chat's log, or in the user's chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

impl Place {
    /// A chat.
    #[must_use]
    pub fn chat(chat_id: ChatId) -> Self {
        Self { chat_id: Some(chat_id), ..Self::default() }
    }

    /// A user.
    #[must_use]
    pub fn user(user_id: UserId) -> Self {
        Self { user_id: Some(user_id), ..Self::default() }
    }

    /// There, at a place of the log or chain.
    #[must_use]
    pub fn at(self, seq: Seq) -> Self {
        Self { seq: Some(seq), ..self }
    }

    /// There, a key.
    #[must_use]
    pub fn key(self, key_id: KeyId) -> Self {
        Self { key_id: Some(key_id), ..self }
    }

    /// There, a session.
    #[must_use]
    pub fn session(self, session_id: SessionId) -> Self {
        Self { session_id: Some(session_id), ..self }
    }

    /// There, a member.
    #[must_use]
    pub fn member(self, user_id: UserId) -> Self {
        Self { user_id: Some(user_id), ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        let mut part = |name: &str, value: Option<&dyn fmt::Display>| {
            let Some(value) = value else { return Ok(()) };
            let written = write!(f, "{gap}{name}={value}");
            gap = " ";
            written
        };
        part("chat", self.chat_id.as_ref().map(|id| id as _))?;
        part("user", self.user_id.as_ref().map(|id| id as _))?;
        part("seq", self.seq.as_ref().map(|seq| seq as _))?;
        part("key", self.key_id.as_ref().map(|id| id as _))?;
        part("session", self.session_id.as_ref().map(|id| id as _))
    }
}

/// The beginning of a hash: enough to compare by eye.
#[derive(Debug, Clone, Copy)]
pub struct Short<'a>(pub &'a Hash);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Shows what may be missing.
#[derive(Debug, Clone, Copy)]
pub struct OrNone<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("none"),
        }
    }
}
