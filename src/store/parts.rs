//! Parts of a batch: what the database refuses is found by committing halves.
//!
//! Invariants: H1 both halves together are the part. H2 items of one chat leave in order, and together unless there is
//! but one chat. Pure: no I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::batch::Item;
use super::judgement::Verdict;
use crate::protocol::ids::ChatId;

/// Enters what was found of a part.
pub(super) fn put(verdicts: &mut [Verdict], part: &[usize], found: Vec<Verdict>) {
    for (index, verdict) in part.iter().zip(found) {
        if let Some(place) = verdicts.get_mut(*index) {
            *place = verdict;
        }
    }
}

/// Two halves of a part, each in order, the items of one chat together unless there is but one; none of one item.
pub(super) fn halves(items: &[Arc<Item>], part: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    if part.len() < 2 {
        return None;
    }
    let chat_of = |index: &usize| items.get(*index).map(|item| item.chat_id);
    let chats: BTreeSet<Option<ChatId>> = part.iter().map(chat_of).collect();
    if chats.len() < 2 {
        let (first, second) = part.split_at(part.len() / 2);
        return Some((first.to_vec(), second.to_vec()));
    }
    let in_first: BTreeSet<Option<ChatId>> = chats.iter().take(chats.len() / 2).copied().collect();
    Some(part.iter().partition(|index| in_first.contains(&chat_of(index))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::binary::Hash;
    use crate::protocol::ids::{Counter, Epoch, Seq, SessionId};

    fn item(chat_id: ChatId) -> Arc<Item> {
        Arc::new(Item {
            chat_id,
            previous: Seq::default(),
            previous_hash: Hash([0; 32]),
            epoch: Epoch::default(),
            roster_version: Seq::default(),
            key_id: None,
            counter: Counter::default(),
            sender_session_id: SessionId::generate(),
            entry: None,
            new_key: None,
            copies: Vec::new(),
            archive: None,
        })
    }

    #[test]
    fn a_part_is_halved_until_each_item_stands_alone_and_chats_stay_together_and_in_order() {
        let chats: Vec<ChatId> = (0..5).map(|_| ChatId::generate()).collect();
        let items: Vec<Arc<Item>> = (0..23).map(|index| item(chats[index * index % 5])).collect();
        let mut parts: Vec<Vec<usize>> = vec![(0..items.len()).collect()];
        let mut alone = Vec::new();
        while let Some(part) = parts.pop() {
            assert!(part.is_sorted());
            match halves(&items, &part) {
                None => alone.extend(part),
                Some((first, second)) => {
                    assert!(!first.is_empty() && !second.is_empty());
                    assert_eq!(first.len() + second.len(), part.len());
                    let of = |part: &[usize]| part.iter().map(|index| items[*index].chat_id).collect::<BTreeSet<_>>();
                    assert!(of(&first).is_disjoint(&of(&second)) || of(&part).len() == 1);
                    parts.extend([second, first]);
                }
            }
        }
        for chat_id in chats {
            let order: Vec<usize> = alone.iter().copied().filter(|index| items[*index].chat_id == chat_id).collect();
            assert!(order.is_sorted());
        }
        alone.sort_unstable();
        assert_eq!(alone, (0..items.len()).collect::<Vec<_>>());
    }
}
