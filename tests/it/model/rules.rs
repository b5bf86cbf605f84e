//! The rules that the model may be told to forget, to see that it would notice.

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
    /// A session whose time has run out goes out of a log before it comes in by its new certificate.
    ExpiredGoesOutFirst,
    /// An addition names the roster and the epoch that are current at its commit.
    AdditionIsAnchored,
    /// After a removal the next generation is due.
    RemovalOutdates,
    /// After an addition the next generation is due.
    AdditionOutdates,
    /// After a member's first user key the next generation is due.
    FirstKeyOutdates,
    /// After a member's user key was replaced the next generation is due.
    AnotherKeyOutdates,
    /// After a member's user key was withdrawn the next generation is due.
    WithdrawalOutdates,
    /// After the session has gone that made the newest generation, the next is due.
    MakerOutdates,
    /// A user key that is replaced or withdrawn raises the epoch.
    UserKeyRaisesEpoch,
    /// A generation is for the newest membership change and the members' user keys of its commit.
    GenerationIsJudged,
    /// A generation's wraps are for the user keys that it names.
    WrapsAreCounted,
    /// The key of a message is archived to the generation that receives, as actor and commit count.
    ArchiveIsCounted,
    /// While a generation is due no message is accepted.
    GenerationComesFirst,
    /// A user key that is replaced locks its user's row, and reads the user's chats after that.
    UserKeyLocksUser,
    /// With a session that knows what the password protects its user's key is withdrawn.
    RevocationWithdraws,
    /// A withdrawn user key never returns.
    WithdrawnStaysOut,
}

impl Rule {
    /// Among which steps, besides messages, the rule is looked for: so it takes seconds.
    pub fn scope(self) -> Scope {
        let nothing = Scope::default();
        let keys = Scope { keys: true, ..nothing };
        match self {
            Self::CommitCountsCopies => Scope { copies: true, ..nothing },
            Self::ExpiryIsJudged => Scope { additions: true, expiry: true, ..nothing },
            Self::ExpiryRaisesEpoch => Scope { expiry: true, ..nothing },
            Self::AdditionRaisesEpoch => Scope { additions: true, ..nothing },
            Self::KeyCarriesItsEpoch | Self::RemovalRaisesEpoch => Scope { removals: true, ..nothing },
            Self::RevocationRaisesEpoch => Scope { sessions: true, copies: true, ..nothing },
            Self::ExpiredGoesOutFirst => Scope { sessions: true, expiry: true, ..nothing },
            Self::ComingInIsLogged | Self::RevokedStaysOut => Scope { sessions: true, ..nothing },
            Self::CommitLooksAgain
            | Self::RevocationLocksUser
            | Self::AdditionReadsAfterLock
            | Self::UsersAreLockedFirst
            | Self::AdditionIsAnchored => Scope { additions: true, removals: true, sessions: true, ..nothing },
            Self::RemovalOutdates => Scope { removals: true, ..keys },
            Self::AdditionOutdates | Self::UserKeyLocksUser => Scope { additions: true, ..keys },
            Self::FirstKeyOutdates
            | Self::AnotherKeyOutdates
            | Self::WithdrawalOutdates
            | Self::MakerOutdates
            | Self::UserKeyRaisesEpoch
            | Self::GenerationIsJudged
            | Self::WrapsAreCounted
            | Self::ArchiveIsCounted
            | Self::GenerationComesFirst
            | Self::RevocationWithdraws
            | Self::WithdrawnStaysOut => keys,
        }
    }
}

/// Which steps are explored besides messages.
#[derive(Debug, Clone, Copy, Default)]
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
    /// Some have user keys; those are set, replaced, and withdrawn with sessions that are revoked; generations are made
    /// and refused.
    pub keys: bool,
}

impl Scope {
    /// Everything where nobody has a user key.
    pub const SESSIONS: Self =
        Self { additions: true, removals: true, sessions: true, expiry: true, copies: true, keys: false };
    /// Members, user keys and generations.
    pub const GENERATIONS: Self =
        Self { additions: true, removals: true, sessions: false, expiry: false, copies: false, keys: true };
}
