//! Copies that go ahead of their message in parts: bounded, kept for a minute, worth nothing until the message
//! names the hash of the whole list.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::protocol::binary::Hash;
use crate::protocol::error::{ErrorCode, Refusal};
use crate::protocol::frame::StageCopies;
use crate::protocol::ids::{KeyId, SessionId};
use crate::protocol::keys::{KeyCopy, staged_hash};
use crate::protocol::limits::{COPIES_PER_FRAME_MAX, STAGED_KEPT_S, STAGED_PARTS_MAX};

/// The lists of one chat, one for each session at most.
#[derive(Debug, Default)]
pub struct Staging(HashMap<SessionId, Staged>);

#[derive(Debug)]
struct Staged {
    key_id: KeyId,
    parts: u32,
    received: BTreeMap<u32, Vec<KeyCopy>>,
    since: Instant,
}

impl Staging {
    /// Takes a part in. A part of another key, or of another number of parts, begins anew.
    ///
    /// `recipients` bounds the whole list: with one frame more than the chat has now, for it may have shrunk
    /// since the list was made.
    ///
    /// # Errors
    /// `too_large` or `malformed`; then nothing is kept of it.
    pub fn put(
        &mut self,
        session_id: SessionId,
        part: StageCopies,
        recipients: usize,
        now: Instant,
    ) -> Result<(), Refusal> {
        if part.parts > STAGED_PARTS_MAX {
            let message = "the list has too many parts";
            return Err(Refusal::limit(ErrorCode::TooLarge, message, u64::from(STAGED_PARTS_MAX)));
        }
        if part.copies.len() > COPIES_PER_FRAME_MAX {
            let message = "too many copies in one frame";
            return Err(Refusal::limit(ErrorCode::TooLarge, message, COPIES_PER_FRAME_MAX as u64));
        }
        if part.part >= part.parts {
            return Err(Refusal::new(ErrorCode::Malformed, "the part is not one of the parts"));
        }
        self.forget_old(now);
        let others = self.0.get(&session_id).filter(|staged| staged.is_of(&part)).map_or(0, |staged| {
            staged.received.iter().filter(|(at, _)| **at != part.part).map(|(_, copies)| copies.len()).sum()
        });
        let limit = recipients.saturating_add(COPIES_PER_FRAME_MAX);
        if part.copies.len().saturating_add(others) > limit {
            let message = "the list has more copies than the chat has recipients";
            return Err(Refusal::limit(ErrorCode::TooLarge, message, u64::try_from(limit).unwrap_or(u64::MAX)));
        }
        let fresh = Staged { key_id: part.key_id, parts: part.parts, received: BTreeMap::new(), since: now };
        let staged = match self.0.get_mut(&session_id) {
            Some(staged) if staged.is_of(&part) => staged,
            _ => self.0.entry(session_id).insert_entry(fresh).into_mut(),
        };
        staged.received.insert(part.part, part.copies);
        Ok(())
    }

    /// The whole list of a key, if all parts are there and have the hash.
    #[must_use]
    pub fn get(&self, session_id: SessionId, key_id: KeyId, hash: &Hash, now: Instant) -> Option<Vec<KeyCopy>> {
        let staged = self.0.get(&session_id).filter(|staged| staged.key_id == key_id && !staged.is_old(now))?;
        if u32::try_from(staged.received.len()) != Ok(staged.parts) {
            return None;
        }
        let copies: Vec<KeyCopy> = staged.received.values().flatten().cloned().collect();
        (staged_hash(copies.iter()) == *hash).then_some(copies)
    }

    /// Forgets a session's list: its message was accepted.
    pub fn remove(&mut self, session_id: SessionId) {
        self.0.remove(&session_id);
    }

    /// Forgets what is too old.
    pub fn forget_old(&mut self, now: Instant) {
        self.0.retain(|_, staged| !staged.is_old(now));
    }
}

impl Staged {
    fn is_of(&self, part: &StageCopies) -> bool {
        self.key_id == part.key_id && self.parts == part.parts
    }

    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > Duration::from_secs(STAGED_KEPT_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::binary::WrappedKey;
    use crate::protocol::ids::ChatId;

    fn part(key_id: KeyId, part: u32, parts: u32, copies: usize) -> StageCopies {
        let copies =
            (0..copies).map(|_| KeyCopy { session_id: SessionId::generate(), key: WrappedKey([7; 80]) }).collect();
        StageCopies { chat_id: ChatId::generate(), key_id, part, parts, copies }
    }

    #[test]
    fn parts_in_any_order_make_the_list_and_only_its_hash_opens_it() {
        let (mut staging, session_id, key_id, now) =
            (Staging::default(), SessionId::generate(), KeyId::generate(), Instant::now());
        let (first, second) = (part(key_id, 0, 2, 3), part(key_id, 1, 2, 2));
        let all: Vec<KeyCopy> = first.copies.iter().chain(&second.copies).cloned().collect();
        let hash = staged_hash(all.iter());
        staging.put(session_id, second, 5, now).unwrap();
        assert_eq!(staging.get(session_id, key_id, &hash, now), None);
        staging.put(session_id, first, 5, now).unwrap();
        assert_eq!(staging.get(session_id, key_id, &hash, now), Some(all));
        assert_eq!(staging.get(session_id, key_id, &Hash([0; 32]), now), None);
        assert_eq!(staging.get(SessionId::generate(), key_id, &hash, now), None);
        let later = now + Duration::from_secs(STAGED_KEPT_S + 1);
        assert_eq!(staging.get(session_id, key_id, &hash, later), None);
    }

    #[test]
    fn bounds_are_kept() {
        let (mut staging, session_id, key_id, now) =
            (Staging::default(), SessionId::generate(), KeyId::generate(), Instant::now());
        let code = |result: Result<(), Refusal>| result.unwrap_err().code;
        let mut put = |part| staging.put(session_id, part, 1, now);
        assert_eq!(code(put(part(key_id, 0, STAGED_PARTS_MAX + 1, 1))), ErrorCode::TooLarge);
        assert_eq!(code(put(part(key_id, 0, 1, COPIES_PER_FRAME_MAX + 1))), ErrorCode::TooLarge);
        assert_eq!(code(put(part(key_id, 1, 1, 1))), ErrorCode::Malformed);
        assert!(put(part(key_id, 0, STAGED_PARTS_MAX, COPIES_PER_FRAME_MAX)).is_ok());
        assert!(put(part(key_id, 1, STAGED_PARTS_MAX, 1)).is_ok());
        assert_eq!(code(put(part(key_id, 2, STAGED_PARTS_MAX, 1))), ErrorCode::TooLarge);
        assert!(put(part(key_id, 1, STAGED_PARTS_MAX, 1)).is_ok(), "the same part again");
        assert!(put(part(KeyId::generate(), 2, STAGED_PARTS_MAX, COPIES_PER_FRAME_MAX)).is_ok(), "another list");
    }

    #[test]
    fn p4_a_part_of_another_key_or_of_another_number_of_parts_begins_anew() {
        let (mut staging, session_id, now) = (Staging::default(), SessionId::generate(), Instant::now());
        let (older, newer) = (KeyId::generate(), KeyId::generate());
        for (key_id, parts) in [(newer, 2), (older, 3)] {
            let begun = part(older, 0, 2, 3);
            let whole: Vec<StageCopies> = (0..parts).map(|at| part(key_id, at, parts, 2)).collect();
            let copies: Vec<KeyCopy> = whole.iter().flat_map(|part| part.copies.clone()).collect();
            let hash = staged_hash(copies.iter());
            staging.put(session_id, begun, 9, now).unwrap();
            for part in whole.iter().rev() {
                staging.put(session_id, part.clone(), 9, now).unwrap();
            }
            assert_eq!(staging.get(session_id, key_id, &hash, now), Some(copies), "{parts}");
            let another = if key_id == newer { older } else { newer };
            assert_eq!(staging.get(session_id, another, &hash, now), None);
        }
    }

    #[test]
    fn a_list_is_kept_for_its_time_and_until_its_message_is_accepted() {
        let (mut staging, key_id, now) = (Staging::default(), KeyId::generate(), Instant::now());
        let (sent, idle) = (SessionId::generate(), SessionId::generate());
        let list = part(key_id, 0, 1, 2);
        let hash = staged_hash(list.copies.iter());
        for session_id in [sent, idle] {
            staging.put(session_id, list.clone(), 2, now).unwrap();
        }
        staging.remove(sent);
        assert_eq!(staging.get(sent, key_id, &hash, now), None);
        let last = now + Duration::from_secs(STAGED_KEPT_S);
        staging.forget_old(last);
        assert_eq!(staging.get(idle, key_id, &hash, last), Some(list.copies));
        // Whoever puts something in clears away what is too old of others.
        let late = last + Duration::from_nanos(1);
        staging.put(sent, part(key_id, 0, 1, 1), 2, late).unwrap();
        assert_eq!(staging.0.len(), 1);
        staging.forget_old(late + Duration::from_secs(STAGED_KEPT_S + 1));
        assert!(staging.0.is_empty());
    }
}
