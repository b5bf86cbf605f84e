//! Keeps the hashes of the newest entries of a log, to compare with what others say they saw.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::protocol::binary::Hash;
use crate::protocol::envelope::Seen;
use crate::protocol::ids::Seq;

/// Hashes kept: a sender who saw less than so many entries ago is compared.
const HASHES_MAX: usize = 4_096;

/// The newest hashes of a log, without gaps; never empty.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Recent {
    head: Seen,
    /// The hashes up to and with the head's.
    hashes: VecDeque<Hash>,
}

impl Recent {
    pub(crate) fn begin(head: Seen) -> Self {
        Self { head, hashes: VecDeque::from([head.log_hash]) }
    }

    pub(crate) const fn head(&self) -> Seen {
        self.head
    }

    /// Takes the hash of the next entry.
    pub(crate) fn push(&mut self, log_hash: Hash) {
        self.head = Seen { seq: self.head.seq.next(), log_hash };
        if self.hashes.len() == HASHES_MAX {
            self.hashes.pop_front();
        }
        self.hashes.push_back(log_hash);
    }

    /// The hash at a place, while it is kept.
    pub(crate) fn get(&self, seq: Seq) -> Option<Hash> {
        let back = usize::try_from(self.head.seq.get().checked_sub(seq.get())?).ok()?;
        let index = self.hashes.len().checked_sub(1)?.checked_sub(back)?;
        self.hashes.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_hashes_are_found_by_their_seq() {
        let hash = |number: u64| Hash(crate::protocol::canonical::sha256(&number.to_be_bytes()).0);
        let mut recent = Recent::begin(Seen { seq: Seq::saturating(10), log_hash: hash(10) });
        assert_eq!(recent.get(Seq::saturating(9)), None);
        for number in 11..=10 + HASHES_MAX as u64 {
            recent.push(hash(number));
        }
        assert_eq!(recent.head().seq, Seq::saturating(10 + HASHES_MAX as u64));
        assert_eq!(recent.get(Seq::saturating(10)), None);
        assert_eq!(recent.get(Seq::saturating(11)), Some(hash(11)));
        assert_eq!(recent.get(recent.head().seq), Some(recent.head().log_hash));
        assert_eq!(recent.get(recent.head().seq.next()), None);
    }
}
