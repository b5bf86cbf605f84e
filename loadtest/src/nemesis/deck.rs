//! Deals what comes next, from a deck that is shuffled anew whenever it is used up: chance decides the order, and
//! nothing is left out for long.
//!
//! Pure.

use crate::rng::Rng;

/// Things in the order in which they come.
#[derive(Debug)]
pub(crate) struct Deck<T> {
    cards: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    /// So many of each.
    pub(crate) fn of(shares: &[(T, usize)]) -> Self {
        let cards = shares.iter().flat_map(|(card, count)| std::iter::repeat_n(*card, *count)).collect();
        Self { cards, left: Vec::new() }
    }

    /// The next one; none only from a deck of nothing.
    pub(crate) fn deal(&mut self, rng: &mut Rng) -> Option<T> {
        if self.left.is_empty() {
            self.left.clone_from(&self.cards);
        }
        let place = rng.below(self.left.len());
        (place < self.left.len()).then(|| self.left.swap_remove(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_every_card_and_a_seed_has_its_order() {
        let deal = |seed| {
            let (mut deck, mut rng) = (Deck::of(&[('a', 2), ('b', 1), ('c', 1)]), Rng::new(seed));
            (0..12).filter_map(|_| deck.deal(&mut rng)).collect::<Vec<char>>()
        };
        for round in deal(7).chunks(4) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, ['a', 'a', 'b', 'c']);
        }
        assert_eq!(deal(7), deal(7));
        assert!((0..20).any(|seed| deal(seed) != deal(7)));
        assert_eq!(Deck::<char>::of(&[]).deal(&mut Rng::new(1)), None);
    }
}
