//! The rules that the model may be told to forget, to see that it would notice.
//!
//! Rules of group-key generations (P8) get their place here with the code that keeps them.

/// A rule of docs/architecture.md and of the protocol. Where the real code keeps it, it is dropped by lying to that code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The commit judges place, epoch and roster version by the locked row again.
    CommitLooksAgain,
    /// The commit counts the copies of a key that the store does not know to be covered.
    CommitCountsCopies,
    /// Load, commit and additions look for expiries that are due.
    ExpiryIsJudged,
    /// A key's epoch is the one that its maker signed, not one stamped at upload.
    KeyCarriesItsEpoch,
    /// A removal raises the epoch.
    RemovalRaisesEpoch,
    /// A revocation raises the epoch.
    RevocationRaisesEpoch,
    /// An expiry raises the epoch.
    ExpiryRaisesEpoch,
    /// An addition raises the epoch where newcomers read from their joining on.
    AdditionRaisesEpoch,
    /// A revocation locks its user's row, and reads the user's chats after that.
    RevocationLocksUser,
    /// An addition reads the newcomer's sessions after it has locked the newcomer's row.
    AdditionReadsAfterLock,
    /// Users' rows are locked before chats' rows.
    UsersAreLockedFirst,
    /// A session that comes in is an entry in each of its user's chats, in the same transaction.
    ComingInIsLogged,
    /// A revoked session never returns.
    RevokedStaysOut,
    /// An addition names the roster and the epoch that are current at its commit.
    AdditionIsAnchored,
}

impl Rule {
    pub const ALL: [Self; 14] = [
        Self::CommitLooksAgain,
        Self::CommitCountsCopies,
        Self::ExpiryIsJudged,
        Self::KeyCarriesItsEpoch,
        Self::RemovalRaisesEpoch,
        Self::RevocationRaisesEpoch,
        Self::ExpiryRaisesEpoch,
        Self::AdditionRaisesEpoch,
        Self::RevocationLocksUser,
        Self::AdditionReadsAfterLock,
        Self::UsersAreLockedFirst,
        Self::ComingInIsLogged,
        Self::RevokedStaysOut,
        Self::AdditionIsAnchored,
    ];

    /// Dropped by both ends, whose fold is one code: then the log's fold has the epoch of the dropped rule too.
    pub const fn is_of_the_fold(self) -> bool {
        matches!(
            self,
            Self::RemovalRaisesEpoch
                | Self::RevocationRaisesEpoch
                | Self::ExpiryRaisesEpoch
                | Self::AdditionRaisesEpoch
        )
    }
}
