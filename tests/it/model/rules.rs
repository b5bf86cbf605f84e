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
    /// Among which steps, besides messages, the rule is looked for: so it takes seconds.
    pub const fn scope(self) -> Scope {
        let nothing = Scope { additions: false, removals: false, sessions: false, expiry: false, copies: false };
        match self {
            Self::CommitCountsCopies => Scope { copies: true, ..nothing },
            Self::ExpiryIsJudged => Scope { additions: true, expiry: true, ..nothing },
            Self::ExpiryRaisesEpoch => Scope { expiry: true, ..nothing },
            Self::AdditionRaisesEpoch => Scope { additions: true, ..nothing },
            Self::KeyCarriesItsEpoch | Self::RemovalRaisesEpoch => Scope { removals: true, ..nothing },
            Self::RevocationRaisesEpoch => Scope { sessions: true, copies: true, ..nothing },
            Self::ComingInIsLogged | Self::RevokedStaysOut => Scope { sessions: true, ..nothing },
            Self::CommitLooksAgain
            | Self::RevocationLocksUser
            | Self::AdditionReadsAfterLock
            | Self::UsersAreLockedFirst
            | Self::AdditionIsAnchored => Scope { additions: true, removals: true, sessions: true, ..nothing },
        }
    }
}

/// Which steps are explored besides messages.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Members are added.
    pub additions: bool,
    /// Members are removed, and leave.
    pub removals: bool,
    /// Sessions are certified and revoked.
    pub sessions: bool,
    /// Sessions' time runs out.
    pub expiry: bool,
    /// Copies are refused, or swept away.
    pub copies: bool,
}

impl Scope {
    pub const ALL: Self = Self { additions: true, removals: true, sessions: true, expiry: true, copies: true };
}
