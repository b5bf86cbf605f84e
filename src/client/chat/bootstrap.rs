//! Folds the entries before the place at which a session's own log begins.

use crate::client::failure::VerificationFailure;
use crate::protocol::fold::ChatFold;
use crate::protocol::frame::{Events, Page};
use crate::protocol::ids::{ChatId, Seq};
use crate::protocol::log::EntryBody;

/// The fold of a log's entries that are not messages, page by page.
///
/// Nothing here is believed by itself: membership changes form a chain of their own, and whoever uses the fold
/// compares roster hash and epoch with a signed anchor, which shows whether an entry was withheld.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    chat_id: ChatId,
    fold: Option<ChatFold>,
    after: Seq,
    before: Seq,
    is_done: bool,
}

impl Bootstrap {
    /// Folds the entries below `before`.
    pub(crate) fn new(chat_id: ChatId, before: Seq) -> Self {
        let is_done = before.get() <= 1;
        Self { chat_id, fold: None, after: Seq::default(), before, is_done }
    }

    /// The next page to ask for; none when all are folded.
    pub(crate) fn next(&self) -> Option<Events> {
        (!self.is_done).then_some(Events { chat_id: self.chat_id, after: self.after, before: self.before })
    }

    /// Takes a page. An entry that does not verify changes nothing, as for everybody in the chat.
    ///
    /// # Errors
    /// The log does not begin with a creation, or the page is not what was asked for.
    pub(crate) fn take(&mut self, page: &Page) -> Result<(), VerificationFailure> {
        for entry in &page.entries {
            if entry.seq <= self.after || entry.seq >= self.before || matches!(entry.body, EntryBody::Message(_)) {
                return Err(VerificationFailure::Gap { expected: self.after.next(), found: entry.seq });
            }
            self.after = entry.seq;
            match &mut self.fold {
                Some(fold) => {
                    if let Err(error) = fold.apply(entry.seq, entry.created_at, &entry.body) {
                        tracing::warn!(chat.id = %self.chat_id, seq = %entry.seq, %error, "entry does not verify");
                    }
                }
                None => {
                    let fold = ChatFold::begin(self.chat_id, &entry.body).map_err(VerificationFailure::Fold)?;
                    self.fold = Some(fold);
                }
            }
        }
        let has_moved = page.up_to > self.after;
        if has_moved {
            self.after = page.up_to;
        }
        self.is_done = !page.more || self.after.next() >= self.before || (page.entries.is_empty() && !has_moved);
        Ok(())
    }

    /// The fold of all pages.
    pub(crate) fn finish(self) -> Result<ChatFold, VerificationFailure> {
        self.fold.ok_or(VerificationFailure::NotJoined)
    }
}
