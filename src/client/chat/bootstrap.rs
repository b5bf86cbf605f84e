//! Folds the entries before the place at which a session's own log begins.

use std::collections::BTreeMap;

use super::generations::{Folded, Generations};
use crate::client::failure::VerificationFailure;
use crate::protocol::binary::{Hash, SigningKey};
use crate::protocol::fold::ChatFold;
use crate::protocol::frame::{Events, Page};
use crate::protocol::ids::{ChangeNo, ChatId, Seq, SessionId};
use crate::protocol::log::EntryBody;

/// The fold of a log's entries that are not messages, page by page.
///
/// Nothing here is believed by itself: membership changes form a chain of their own, and whoever uses the fold
/// compares roster hash and epoch with a signed anchor, which shows whether an entry was withheld.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    chat_id: ChatId,
    fold: Option<ChatFold>,
    generations: Generations,
    signers: BTreeMap<SessionId, SigningKey>,
    after: Seq,
    before: Seq,
    is_done: bool,
    /// A membership change that was known before and is not met yet.
    known: Option<(ChangeNo, Hash)>,
}

impl Bootstrap {
    /// Folds the entries below `before`.
    pub(crate) fn new(chat_id: ChatId, before: Seq) -> Self {
        let is_done = before.get() <= 1;
        Self {
            chat_id,
            fold: None,
            generations: Generations::default(),
            signers: BTreeMap::new(),
            after: Seq::default(),
            before,
            is_done,
            known: None,
        }
    }

    /// The same of a chat that was known before: the fold must come by the newest membership change of that time.
    pub(crate) fn returning(chat_id: ChatId, before: Seq, change_no: ChangeNo, hash: Hash) -> Self {
        Self { known: Some((change_no, hash)), ..Self::new(chat_id, before) }
    }

    /// The next page to ask for; none when all are folded.
    pub(crate) fn next(&self) -> Option<Events> {
        (!self.is_done).then_some(Events { chat_id: self.chat_id, after: self.after, before: self.before })
    }

    /// Takes a page. An entry that does not verify changes nothing, as for everybody in the chat.
    ///
    /// # Errors
    /// The log does not begin with a creation, is another than was known before, or the page is not what was asked for.
    pub(crate) fn take(&mut self, page: &Page) -> Result<(), VerificationFailure> {
        for entry in &page.entries {
            if entry.seq <= self.after || entry.seq >= self.before || matches!(entry.body, EntryBody::Message(_)) {
                return Err(VerificationFailure::Gap { expected: self.after.next(), found: entry.seq });
            }
            self.after = entry.seq;
            match &mut self.fold {
                Some(fold) => match (fold.apply(entry.seq, entry.created_at, &entry.body), &entry.body) {
                    (Ok(()), EntryBody::Generation(signed)) => self.generations.note(entry.seq, &signed.generation),
                    (Ok(()), EntryBody::SessionIn(signed)) => {
                        let certificate = &signed.certificate;
                        self.signers.insert(certificate.session_id, certificate.signing_public_key);
                    }
                    (Ok(()), _) => {}
                    (Err(error), _) => {
                        tracing::warn!(chat.id = %self.chat_id, seq = %entry.seq, %error, "entry does not verify");
                    }
                },
                None => {
                    let fold = ChatFold::begin(self.chat_id, &entry.body).map_err(VerificationFailure::Fold)?;
                    self.fold = Some(fold);
                }
            }
            let membership = self.fold.as_ref().map(ChatFold::membership);
            if let (Some((change_no, hash)), Some(membership)) = (self.known, membership)
                && membership.head == change_no
            {
                if membership.hash != hash {
                    return Err(VerificationFailure::Fork { seq: entry.seq });
                }
                self.known = None;
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
    ///
    /// # Errors
    /// There was nothing to fold, or less than was known before.
    pub(crate) fn finish(self) -> Result<Folded, VerificationFailure> {
        if self.known.is_some() {
            return Err(VerificationFailure::Rollback { seq: self.after });
        }
        let fold = self.fold.ok_or(VerificationFailure::NotJoined)?;
        Ok(Folded { fold, generations: self.generations, signers: self.signers })
    }
}
