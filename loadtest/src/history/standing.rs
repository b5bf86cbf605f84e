//! Folds what the clients say of the logs into who is a recipient of which chat, from where to where.
//!
//! Invariants: who a removed user's sessions were is judged once everything before the removal is known, since a client
//! that is ahead of the others must not end a session again that had ended before; when two clients differ, both are
//! recorded, so that the check finds it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sealcast::protocol::ids::{ChatId, SessionId, UserId};

use super::record::Record;
use super::recorder::Removal;

/// What an entry says of recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// Nothing.
    Nothing,
    /// A session of a user is a recipient from now on.
    In(UserId, SessionId),
    /// A session is one no longer.
    Out(SessionId),
    /// No session of this user is one any longer.
    UserOut(UserId),
}

/// What is said about one session in one chat.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    member: Option<u64>,
    removed: Option<u64>,
    highest: u64,
    received: u64,
}

#[derive(Debug, Default)]
struct Chat {
    sessions: BTreeMap<SessionId, Standing>,
    /// Every entry up to here was given to somebody, but for those before the first that anybody was given.
    known: u64,
    /// Entries beyond that.
    beyond: BTreeSet<u64>,
    /// Removals of users; those up to `known` are done.
    outs: BTreeMap<u64, UserId>,
}

/// Who is where.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    chats: BTreeMap<ChatId, Chat>,
    users: HashMap<UserId, BTreeSet<SessionId>>,
}

impl Standings {
    /// An entry that a session was given; tells what it makes known.
    pub(crate) fn given(&mut self, s: SessionId, c: ChatId, seq: u64, fact: Fact, is_message: bool) -> Vec<Record> {
        let mut records = Vec::new();
        let chat = self.chats.entry(c).or_default();
        let standing = chat.sessions.entry(s).or_default();
        standing.highest = standing.highest.max(seq);
        standing.received += u64::from(is_message);
        match fact {
            Fact::Nothing => {}
            Fact::In(user_id, session_id) => {
                self.users.entry(user_id).or_default().insert(session_id);
                let known = &mut chat.sessions.entry(session_id).or_default().member;
                if *known != Some(seq) {
                    known.get_or_insert(seq);
                    records.push(Record::Member { s: session_id, c, seq });
                }
            }
            Fact::Out(session_id) => records.extend(chat.end(session_id, c, seq)),
            Fact::UserOut(user_id) => match chat.outs.insert(seq, user_id) {
                Some(other) if other != user_id => chat.end_all(self.users.get(&user_id), c, seq, &mut records),
                _ => {}
            },
        }
        chat.learn(seq, &self.users, c, &mut records);
        records
    }

    /// Whether an entry is of the time before a session became a recipient.
    pub(crate) fn is_older(&self, s: SessionId, c: ChatId, seq: u64) -> bool {
        let standing = self.chats.get(&c).and_then(|chat| chat.sessions.get(&s));
        standing.and_then(|standing| standing.member).is_some_and(|member| seq < member)
    }

    /// Sessions that are members of a chat now, with the highest seq that each was given.
    pub(crate) fn members(&self, chat_id: ChatId) -> BTreeMap<SessionId, u64> {
        let sessions = self.chats.get(&chat_id).into_iter().flat_map(|chat| &chat.sessions);
        let members = sessions.filter(|(_, standing)| standing.member.is_some() && standing.removed.is_none());
        members.map(|(session_id, standing)| (*session_id, standing.highest)).collect()
    }

    /// Who was removed, from which chat, after which seq.
    pub(crate) fn removals(&self) -> Vec<Removal> {
        let mut removals = Vec::new();
        for (chat_id, chat) in &self.chats {
            for (session_id, standing) in &chat.sessions {
                if let (Some(member), Some(seq)) = (standing.member, standing.removed) {
                    let (chat_id, session_id, received) = (*chat_id, *session_id, standing.received);
                    removals.push(Removal { chat_id, session_id, member, seq, received });
                }
            }
        }
        removals.sort_by_key(|removal| (removal.chat_id, removal.seq, removal.session_id));
        removals
    }

    /// Chats that have members.
    pub(crate) fn chats(&self) -> BTreeSet<ChatId> {
        self.chats.keys().copied().collect()
    }
}

impl Chat {
    fn learn(&mut self, seq: u64, users: &HashMap<UserId, BTreeSet<SessionId>>, c: ChatId, records: &mut Vec<Record>) {
        if self.known == 0 {
            self.known = seq.saturating_sub(1);
        }
        if seq <= self.known {
            return;
        }
        self.beyond.insert(seq);
        while self.beyond.remove(&(self.known + 1)) {
            self.known += 1;
            if let Some(user_id) = self.outs.get(&self.known).copied() {
                let seq = self.known;
                self.end_all(users.get(&user_id), c, seq, records);
            }
        }
    }

    fn end_all(&mut self, sessions: Option<&BTreeSet<SessionId>>, c: ChatId, seq: u64, records: &mut Vec<Record>) {
        for session_id in sessions.into_iter().flatten() {
            let is_in = self.sessions.get(session_id).is_some_and(|standing| {
                standing.member.is_some_and(|member| member < seq) && standing.removed.is_none()
            });
            if is_in {
                records.extend(self.end(*session_id, c, seq));
            }
        }
    }

    fn end(&mut self, s: SessionId, c: ChatId, seq: u64) -> Option<Record> {
        let standing = self.sessions.entry(s).or_default();
        if standing.member.is_none() || standing.removed == Some(seq) {
            return None;
        }
        standing.removed.get_or_insert(seq);
        Some(Record::Removed { s, c, seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (ChatId, UserId, [SessionId; 3]) {
        let s = [SessionId::generate(), SessionId::generate(), SessionId::generate()];
        (ChatId::generate(), UserId::generate(), s)
    }

    #[test]
    fn a_removal_of_a_user_waits_for_what_was_before_it() {
        let (c, user, [owner, guest, late]) = ids();
        let mut standings = Standings::default();
        let member = |s, seq| Record::Member { s, c, seq };
        assert_eq!(standings.given(owner, c, 2, Fact::In(UserId::generate(), owner), false), [member(owner, 2)]);
        assert_eq!(standings.given(owner, c, 3, Fact::In(user, guest), false), [member(guest, 3)]);
        // Somebody who joined at 5 is ahead of the owner, who has yet to be told that the guest ended at 4.
        assert_eq!(standings.given(late, c, 5, Fact::In(UserId::generate(), late), false), [member(late, 5)]);
        assert_eq!(standings.given(late, c, 6, Fact::UserOut(user), false), []);
        assert!(standings.members(c).contains_key(&guest));
        let ended = Record::Removed { s: guest, c, seq: 4 };
        assert_eq!(standings.given(owner, c, 4, Fact::Out(guest), false), [ended]);
        assert_eq!(standings.given(owner, c, 6, Fact::UserOut(user), false), []);
        assert_eq!(standings.removals().iter().map(|removal| removal.seq).collect::<Vec<_>>(), [4]);
        assert_eq!(standings.members(c).into_keys().collect::<BTreeSet<_>>(), BTreeSet::from([owner, late]));
    }

    #[test]
    fn a_removal_of_a_user_ends_all_of_their_sessions_once() {
        let (c, user, [owner, one, other]) = ids();
        let mut standings = Standings::default();
        let _ = standings.given(owner, c, 2, Fact::In(UserId::generate(), owner), false);
        let _ = standings.given(owner, c, 3, Fact::In(user, one), false);
        let _ = standings.given(owner, c, 4, Fact::In(user, other), false);
        let mut removed = standings.given(owner, c, 5, Fact::UserOut(user), false);
        removed.sort_by_key(|record| format!("{record:?}"));
        assert_eq!(removed.len(), 2);
        assert_eq!(standings.given(one, c, 5, Fact::UserOut(user), false), []);
    }

    #[test]
    fn what_was_before_a_session_is_older() {
        let (c, user, [owner, linked, _]) = ids();
        let mut standings = Standings::default();
        let _ = standings.given(owner, c, 2, Fact::In(user, owner), false);
        assert!(!standings.is_older(linked, c, 4));
        let _ = standings.given(owner, c, 5, Fact::In(user, linked), false);
        assert_eq!([4, 5, 6].map(|seq| standings.is_older(linked, c, seq)), [true, false, false]);
        assert!(!standings.is_older(owner, c, 4));
    }

    #[test]
    fn two_clients_that_differ_are_both_recorded() {
        let (c, user, [owner, one, other]) = ids();
        let mut standings = Standings::default();
        let _ = standings.given(owner, c, 2, Fact::In(UserId::generate(), owner), false);
        let _ = standings.given(owner, c, 3, Fact::In(user, one), false);
        assert_eq!(standings.given(other, c, 4, Fact::In(user, one), false), [Record::Member { s: one, c, seq: 4 }]);
        assert_eq!(standings.given(owner, c, 5, Fact::Out(one), false), [Record::Removed { s: one, c, seq: 5 }]);
        assert_eq!(standings.given(other, c, 6, Fact::Out(one), false), [Record::Removed { s: one, c, seq: 6 }]);
    }
}
