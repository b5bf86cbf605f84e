//! The newest revision of each group secret that this device was shown: none may be older or other afterwards.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::protocol::binary::Hash;
use crate::protocol::ids::{Revision, SecretId};

/// Secrets that are remembered of one chat, at most; of the deleted ones the oldest go first.
const SEEN_MAX: usize = 4_096;

/// A revision, as far as it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) revision: Revision,
    pub(crate) hash: Hash,
    /// The secret was deleted with it.
    pub(crate) is_over: bool,
}

/// What was shown of a chat's secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SeenSecrets(BTreeMap<SecretId, Seen>);

/// A revision that is older than one that was shown, or another one in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RolledBack;

impl SeenSecrets {
    /// Takes note of a revision; says whether it is new.
    pub(crate) fn note(
        &mut self,
        secret_id: SecretId,
        shown: Seen,
        previous: Option<&Hash>,
    ) -> Result<bool, RolledBack> {
        if let Some(known) = self.0.get(&secret_id) {
            if *known == shown {
                return Ok(false);
            }
            let follows = shown.revision == known.revision.next() && previous == Some(&known.hash);
            let is_later = shown.revision > known.revision.next();
            if known.is_over || !(follows || is_later) {
                return Err(RolledBack);
            }
        }
        self.0.insert(secret_id, shown);
        while self.0.len() > SEEN_MAX
            && let Some(oldest) = self.0.iter().find(|(_, seen)| seen.is_over).map(|(secret_id, _)| *secret_id)
        {
            self.0.remove(&oldest);
        }
        Ok(true)
    }

    /// Secrets that were shown and are not in a whole list.
    pub(crate) fn withheld(&self, listed: &BTreeSet<SecretId>) -> Vec<SecretId> {
        let is_withheld = |(secret_id, seen): &(&SecretId, &Seen)| !seen.is_over && !listed.contains(secret_id);
        self.0.iter().filter(is_withheld).map(|(secret_id, _)| *secret_id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seen(revision: u64, hash: u8) -> Seen {
        Seen { revision: Revision::saturating(revision), hash: Hash([hash; 32]), is_over: false }
    }

    #[test]
    fn p7_a_secret_never_goes_back_and_never_has_two_of_one_revision() {
        let (mut secrets, id) = (SeenSecrets::default(), SecretId::generate());
        assert_eq!(secrets.note(id, seen(3, 3), None), Ok(true), "what is first seen is believed");
        assert_eq!(secrets.note(id, seen(3, 3), None), Ok(false));
        assert_eq!(secrets.note(id, seen(3, 9), None), Err(RolledBack));
        assert_eq!(secrets.note(id, seen(2, 2), None), Err(RolledBack));
        assert_eq!(secrets.note(id, seen(4, 4), Some(&Hash([9; 32]))), Err(RolledBack), "it does not follow");
        assert_eq!(secrets.note(id, seen(4, 4), Some(&Hash([3; 32]))), Ok(true));
        assert_eq!(secrets.note(id, seen(9, 9), Some(&Hash([8; 32]))), Ok(true), "what was between was not seen");
        let over = Seen { is_over: true, ..seen(10, 10) };
        assert_eq!(secrets.withheld(&BTreeSet::new()), [id]);
        assert_eq!(secrets.withheld(&BTreeSet::from([id])), []);
        assert_eq!(secrets.note(id, over, Some(&Hash([9; 32]))), Ok(true));
        assert_eq!(secrets.withheld(&BTreeSet::new()), []);
        assert_eq!(secrets.note(id, seen(11, 11), Some(&Hash([10; 32]))), Err(RolledBack), "it is over");
    }
}
