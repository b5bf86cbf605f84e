//! What a history shows.

/// Findings kept in words, at most.
const EXAMPLES_MAX: usize = 20;

/// What a history shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Messages that were acknowledged.
    pub(crate) acked: u64,
    /// Messages given to sessions, opened and verified; the sender's own session counts as one.
    pub(crate) delivered: u64,
    /// Acknowledged messages that are not in the log as every session sees it that was a recipient.
    pub(crate) lost: u64,
    /// Messages at more than one seq, and entries given to a session again.
    pub(crate) duplicated: u64,
    /// Entries given after a later one, and messages that stand before one that was acknowledged before they began.
    pub(crate) out_of_order: u64,
    /// Entries of a recipient's stretch of the log that it was not given.
    pub(crate) gaps: u64,
    /// Entries that a recipient could not open or verify.
    pub(crate) undecryptable: u64,
    /// Entries that a session was given, or could open, after its removal.
    pub(crate) read_after_removal: u64,
    /// Facts on which two sessions differ.
    pub(crate) disagreements: u64,
    /// Messages that were refused for good and are in the log.
    pub(crate) refused_yet_stored: u64,
    /// Acknowledgements of one message that name another place than the first.
    pub(crate) two_answers: u64,
    /// Sessions that are members at the end and did not read to it, and chats in which something was acknowledged and
    /// nobody did.
    pub(crate) unfinished: u64,
    /// Entries that a removed session tried to open.
    pub(crate) peeks: u64,
    /// The first findings in words.
    pub(crate) examples: Vec<String>,
}

impl Verdict {
    /// The six counts by their names.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("out_of_order", self.out_of_order),
            ("gaps", self.gaps),
            ("undecryptable", self.undecryptable),
            ("read_after_removal", self.read_after_removal),
        ]
    }

    /// Whether nothing at all is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.counts().iter().chain(&self.further_counts()).all(|(_, count)| *count == 0)
    }

    /// The counts of everything else that must not be, by their names.
    pub(crate) fn further_counts(&self) -> [(&'static str, u64); 4] {
        [
            ("disagreements", self.disagreements),
            ("refused_yet_stored", self.refused_yet_stored),
            ("two_answers", self.two_answers),
            ("unfinished", self.unfinished),
        ]
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}
