//! Turns two identity keys into a number that two people compare.

use crate::protocol::binary::IdentityKey;
use crate::protocol::canonical::Canonical;
use crate::protocol::ids::UserId;

const GROUPS: usize = 6;

/// The number of two users: 12 groups of five digits, the same for both of them.
///
/// Each half is 30 digits of SHA-256 over label, user and identity key: about 99 bits, so that another key of
/// the same half is out of reach; the halves stand in ascending order.
#[must_use]
pub fn safety_number(one: (UserId, &IdentityKey), other: (UserId, &IdentityKey)) -> String {
    let mut halves = [half(one.0, one.1), half(other.0, other.1)];
    halves.sort();
    halves.join(" ")
}

fn half(user_id: UserId, identity_key: &IdentityKey) -> String {
    let hash = Canonical::new("sealcast/safety-number").id(user_id.0).bytes(identity_key.as_ref()).hash();
    let groups: Vec<String> = hash
        .as_ref()
        .chunks_exact(5)
        .take(GROUPS)
        .map(|chunk| {
            let number = chunk.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            format!("{:05}", number % 100_000)
        })
        .collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_number_and_another_key_changes_it() {
        let (ann, bob) = (UserId::generate(), UserId::generate());
        let number = safety_number((ann, &IdentityKey([1; 32])), (bob, &IdentityKey([2; 32])));
        assert_eq!(number.split(' ').count(), 12);
        assert_eq!(number, safety_number((bob, &IdentityKey([2; 32])), (ann, &IdentityKey([1; 32]))));
        assert_ne!(number, safety_number((ann, &IdentityKey([1; 32])), (bob, &IdentityKey([3; 32]))));
    }
}
