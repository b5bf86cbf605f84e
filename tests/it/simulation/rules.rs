//! The rules that a simulated world may be told to forget, to see that it would notice.

/// A rule of the broker. Where the real code keeps it, it is dropped by lying to that code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The commit judges by the database: place, epoch and roster version are those of the locked row.
    CommitLooksAgain,
    /// The commit counts the copies of a key that the store does not know to be covered.
    CommitCountsCopies,
    /// A key's epoch is the one that its maker signed, not one stamped at upload.
    KeyCarriesItsEpoch,
    /// An expiry raises the epoch in its own transaction.
    ExpiryRaisesEpoch,
    /// A removal raises the epoch.
    RemovalRaisesEpoch,
    /// Load and commit look for expiries that are due.
    ExpiryIsJudged,
    /// An outcome that is not known is no refusal: the database is asked.
    UnknownIsAsked,
    /// What is taken back is judged anew in the order in which it came.
    RequeueKeepsOrder,
    /// A sender is told `ok` after the commit.
    AnswerAfterCommit,
    /// Entries are handed out after the commit.
    DeliverAfterCommit,
    /// A refusal is given only after a look whether the very same message is in the log.
    RepeatsAreLookedUp,
    /// What is refused keeps its place until it is known whether the refusal stands.
    RefusalsKeepOrder,
    /// A look at the store from before its user came back does not take a chat from a connection.
    ReturnsAreKept,
    /// A chat that is loaded welcomes who came into it by the transaction of a process that died.
    UnseenAreWelcomed,
    /// A chat is loaded under its row's lock, so that a transaction that was given up on has ended before.
    LoadLocks,
    /// The writer locks the rows of its chats.
    CommitLocks,
    /// What was committed while a chat did not know it is shown to who listens.
    LoadShowsNews,
    /// Who asks where it stands while a change of members is under way is told when that is refused.
    AskingIsAnswered,
}

impl Rule {
    pub const ALL: [Self; 18] = [
        Self::CommitLooksAgain,
        Self::CommitCountsCopies,
        Self::KeyCarriesItsEpoch,
        Self::ExpiryRaisesEpoch,
        Self::RemovalRaisesEpoch,
        Self::ExpiryIsJudged,
        Self::UnknownIsAsked,
        Self::RequeueKeepsOrder,
        Self::AnswerAfterCommit,
        Self::DeliverAfterCommit,
        Self::RepeatsAreLookedUp,
        Self::RefusalsKeepOrder,
        Self::ReturnsAreKept,
        Self::UnseenAreWelcomed,
        Self::LoadLocks,
        Self::CommitLocks,
        Self::LoadShowsNews,
        Self::AskingIsAnswered,
    ];
}
