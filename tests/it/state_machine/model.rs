//! The model: chats as logs, members and rights in plain maps, and what the broker must answer to each step.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;
use sealcast::protocol::error::ErrorCode;

/// Users of one case: the last of them register on the way.
const USERS: usize = 4;
const CHATS: usize = 3;

/// Rekeys of a chat within one hour.
const REKEYS: usize = 5;

/// One step. Users, chats and messages are named by their numbers in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Register,
    Create {
        by: usize,
    },
    Add {
        chat: usize,
        by: usize,
        target: usize,
        can_write: bool,
        can_manage: bool,
    },
    Remove {
        chat: usize,
        by: usize,
        target: usize,
    },
    Leave {
        chat: usize,
        by: usize,
    },
    SetRights {
        chat: usize,
        by: usize,
        target: usize,
        can_write: bool,
        can_manage: bool,
    },
    Transfer {
        chat: usize,
        by: usize,
        target: usize,
    },
    Rekey {
        chat: usize,
        by: usize,
    },
    Send {
        chat: usize,
        by: usize,
    },
    /// The very same bytes once more.
    Repeat {
        chat: usize,
        message: usize,
    },
    /// The id of a message that is there, with other bytes.
    Reuse {
        chat: usize,
        by: usize,
        message: usize,
    },
    Edit {
        chat: usize,
        by: usize,
        message: usize,
        skips: bool,
    },
    Delete {
        chat: usize,
        by: usize,
        message: usize,
    },
    Read {
        chat: usize,
        by: usize,
    },
    Reconnect {
        user: usize,
    },
    /// A user's session gets a later certificate over the same keys.
    Renew {
        user: usize,
    },
    Kill,
    /// Somebody whose session lives for a moment is added, and the owner writes after its end.
    Guest {
        chat: usize,
    },
}

/// What the broker must say to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// It is in the log, at this place.
    At(u64),
    /// It was in the log before, at this place.
    Again(u64),
    Refused(ErrorCode),
    /// Everything from this place on.
    From(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub can_write: bool,
    pub can_manage: bool,
    pub joined: u64,
}

/// An entry as far as the model tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Membership(&'static str, usize),
    SessionIn(usize),
    Message {
        message: usize,
        revision: u64,
    },
    /// Somebody who is no user of the model was added, came in and expired; or had expired before.
    Guest,
}

#[derive(Debug, Clone, Copy)]
pub struct Message {
    pub sender: usize,
    pub first_seq: u64,
    /// The place of the newest revision.
    pub seq: u64,
    pub revision: u64,
    pub is_deleted: bool,
}

#[derive(Debug, Clone)]
pub struct Chat {
    pub owner: usize,
    pub members: BTreeMap<usize, Member>,
    pub log: Vec<Entry>,
    pub messages: Vec<Message>,
    rekeys: usize,
    has_guest: bool,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub users: usize,
    pub chats: Vec<Chat>,
    /// What the last step must be answered with.
    pub answer: Answer,
}

impl Chat {
    fn put(&mut self, entry: Entry) -> u64 {
        self.log.push(entry);
        self.log.len() as u64
    }

    /// Judges as the membership state machine does: the actor's rights first.
    fn manager(&self, by: usize) -> Result<(), ErrorCode> {
        let member = self.members.get(&by).ok_or(ErrorCode::UnknownChat)?;
        if member.can_manage { Ok(()) } else { Err(ErrorCode::CannotManage) }
    }

    fn target(&self, target: usize) -> Result<(), ErrorCode> {
        if self.members.contains_key(&target) { Ok(()) } else { Err(ErrorCode::NotMember) }
    }

    fn change(&mut self, step: Step) -> Result<u64, ErrorCode> {
        match step {
            Step::Add { by, target, can_write, can_manage, .. } => {
                self.manager(by)?;
                if self.members.contains_key(&target) {
                    return Err(ErrorCode::AlreadyMember);
                }
                let joined = self.put(Entry::Membership("add", target));
                self.members.insert(target, Member { can_write, can_manage, joined });
                self.put(Entry::SessionIn(target));
                Ok(joined)
            }
            Step::Remove { by, target, .. } => {
                let member = self.members.get(&by).ok_or(ErrorCode::UnknownChat)?;
                if by == target {
                    return Err(ErrorCode::Malformed);
                }
                if !member.can_manage {
                    return Err(ErrorCode::CannotManage);
                }
                self.target(target)?;
                if target == self.owner {
                    return Err(ErrorCode::NotOwner);
                }
                self.members.remove(&target);
                Ok(self.put(Entry::Membership("remove", target)))
            }
            Step::Leave { by, .. } => {
                self.members.get(&by).ok_or(ErrorCode::UnknownChat)?;
                if by == self.owner {
                    return Err(ErrorCode::OwnerMustTransfer);
                }
                self.members.remove(&by);
                Ok(self.put(Entry::Membership("leave", by)))
            }
            Step::SetRights { by, target, can_write, can_manage, .. } => {
                self.manager(by)?;
                if target == self.owner {
                    return Err(ErrorCode::NotOwner);
                }
                self.target(target)?;
                let Some(member) = self.members.get_mut(&target) else { return Err(ErrorCode::NotMember) };
                if (member.can_write, member.can_manage) == (can_write, can_manage) {
                    return Err(ErrorCode::Malformed);
                }
                (member.can_write, member.can_manage) = (can_write, can_manage);
                Ok(self.put(Entry::Membership("set_rights", target)))
            }
            Step::Transfer { by, target, .. } => {
                self.members.get(&by).ok_or(ErrorCode::UnknownChat)?;
                if by == target {
                    return Err(ErrorCode::Malformed);
                }
                if by != self.owner {
                    return Err(ErrorCode::NotOwner);
                }
                self.target(target)?;
                if let Some(member) = self.members.get_mut(&target) {
                    (member.can_write, member.can_manage) = (true, true);
                }
                self.owner = target;
                Ok(self.put(Entry::Membership("transfer", target)))
            }
            Step::Rekey { by, .. } => {
                self.manager(by)?;
                self.rekeys += 1;
                Ok(self.put(Entry::Membership("rekey", by)))
            }
            _ => Err(ErrorCode::Internal),
        }
    }

    fn send(&mut self, by: usize) -> Result<u64, ErrorCode> {
        let member = self.members.get(&by).ok_or(ErrorCode::UnknownChat)?;
        if !member.can_write {
            return Err(ErrorCode::CannotWrite);
        }
        let message = self.messages.len();
        let seq = self.put(Entry::Message { message, revision: 0 });
        self.messages.push(Message { sender: by, first_seq: seq, seq, revision: 0, is_deleted: false });
        Ok(seq)
    }

    fn revise(&mut self, by: usize, message: usize, is_deletion: bool, skips: bool) -> Result<u64, ErrorCode> {
        let member = *self.members.get(&by).ok_or(ErrorCode::UnknownChat)?;
        if !member.can_write && !is_deletion {
            return Err(ErrorCode::CannotWrite);
        }
        let found = self.messages[message];
        let is_visible = found.first_seq >= member.joined && !found.is_deleted;
        if !is_visible || (found.sender != by && !(is_deletion && member.can_manage)) {
            return Err(ErrorCode::UnknownMessage);
        }
        if skips {
            return Err(ErrorCode::EditConflict);
        }
        let revision = found.revision + 1;
        let seq = self.put(Entry::Message { message, revision });
        self.messages[message] = Message { seq, revision, is_deleted: is_deletion, ..found };
        Ok(seq)
    }
}

fn answer(result: Result<u64, ErrorCode>) -> Answer {
    match result {
        Ok(seq) => Answer::At(seq),
        Err(code) => Answer::Refused(code),
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { users: 3, chats: Vec::new(), answer: Answer::Done }).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let user = 0..state.users;
        if state.chats.is_empty() {
            return user.prop_map(|by| Step::Create { by }).boxed();
        }
        let chat = 0..state.chats.len();
        // Most of what is tried is by members of the chat; the rest is what must be refused.
        let members: Vec<Vec<usize>> = state.chats.iter().map(|chat| chat.members.keys().copied().collect()).collect();
        let users = state.users;
        let acting =
            (chat.clone(), any::<prop::sample::Index>(), 0..10_usize).prop_map(move |(chat, index, stranger)| {
                let by =
                    if stranger == 0 { index.index(users) } else { members[chat][index.index(members[chat].len())] };
                (chat, by)
            });
        let owners: Vec<usize> = state.chats.iter().map(|chat| chat.owner).collect();
        let managing = (chat.clone(), user.clone(), 0..3_usize)
            .prop_map(move |(chat, by, other)| (chat, if other == 0 { by } else { owners[chat] }));
        let counts: Vec<usize> = state.chats.iter().map(|chat| chat.messages.len()).collect();
        let senders: Vec<Vec<usize>> =
            state.chats.iter().map(|chat| chat.messages.iter().map(|message| message.sender).collect()).collect();
        let with_message = (acting.clone(), any::<prop::sample::Index>(), any::<bool>()).prop_map(
            move |((chat, by), index, is_own)| {
                let message = if counts[chat] == 0 { 0 } else { index.index(counts[chat]) };
                let sender = senders[chat].get(message).copied().filter(|_| is_own);
                (chat, sender.unwrap_or(by), message)
            },
        );
        let rights = any::<(bool, bool)>();
        prop_oneof![
            1 => Just(Step::Register),
            1 => user.clone().prop_map(|by| Step::Create { by }),
            4 => (managing.clone(), user.clone(), rights).prop_map(|((chat, by), target, (write, manage))| {
                Step::Add { chat, by, target, can_write: write || manage, can_manage: manage }
            }),
            2 => (managing.clone(), user.clone()).prop_map(|((chat, by), target)| Step::Remove { chat, by, target }),
            1 => acting.clone().prop_map(|(chat, by)| Step::Leave { chat, by }),
            2 => (managing.clone(), user.clone(), rights).prop_map(|((chat, by), target, (can_write, can_manage))| {
                Step::SetRights { chat, by, target, can_write, can_manage }
            }),
            1 => (managing.clone(), user.clone()).prop_map(|((chat, by), target)| Step::Transfer { chat, by, target }),
            1 => managing.prop_map(|(chat, by)| Step::Rekey { chat, by }),
            10 => acting.clone().prop_map(|(chat, by)| Step::Send { chat, by }),
            3 => with_message.clone().prop_map(|(chat, _, message)| Step::Repeat { chat, message }),
            2 => with_message.clone().prop_map(|(chat, by, message)| Step::Reuse { chat, by, message }),
            4 => (with_message.clone(), 0..4_usize).prop_map(|((chat, by, message), skips)| {
                Step::Edit { chat, by, message, skips: skips == 0 }
            }),
            2 => with_message.prop_map(|(chat, by, message)| Step::Delete { chat, by, message }),
            2 => acting.prop_map(|(chat, by)| Step::Read { chat, by }),
            2 => user.clone().prop_map(|user| Step::Reconnect { user }),
            1 => user.prop_map(|user| Step::Renew { user }),
            1 => Just(Step::Kill),
            1 => chat.prop_map(|chat| Step::Guest { chat }),
        ]
        .boxed()
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        let is_user = |user: usize| user < state.users;
        let has = |chat: usize| chat < state.chats.len();
        let has_message = |chat: usize, message: usize| has(chat) && message < state.chats[chat].messages.len();
        match *step {
            Step::Register => state.users < USERS,
            Step::Create { by } => is_user(by) && state.chats.len() < CHATS,
            Step::Add { chat, by, target, .. }
            | Step::Remove { chat, by, target }
            | Step::SetRights { chat, by, target, .. }
            | Step::Transfer { chat, by, target } => has(chat) && is_user(by) && is_user(target),
            Step::Rekey { chat, by } => has(chat) && is_user(by) && state.chats[chat].rekeys < REKEYS,
            Step::Leave { chat, by } | Step::Send { chat, by } | Step::Read { chat, by } => has(chat) && is_user(by),
            Step::Repeat { chat, message } => has_message(chat, message),
            Step::Reuse { chat, by, message }
            | Step::Edit { chat, by, message, .. }
            | Step::Delete { chat, by, message } => has_message(chat, message) && is_user(by),
            Step::Reconnect { user } | Step::Renew { user } => is_user(user),
            Step::Kill => true,
            // Seconds go by until a guest has expired: one in a case.
            Step::Guest { chat } => has(chat) && !state.chats.iter().any(|chat| chat.has_guest),
        }
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        state.answer = match *step {
            Step::Register => {
                state.users += 1;
                Answer::Done
            }
            Step::Create { by } => {
                let member = Member { can_write: true, can_manage: true, joined: 1 };
                state.chats.push(Chat {
                    owner: by,
                    members: BTreeMap::from([(by, member)]),
                    log: vec![Entry::Membership("create", by), Entry::SessionIn(by)],
                    messages: Vec::new(),
                    rekeys: 0,
                    has_guest: false,
                });
                Answer::At(1)
            }
            Step::Add { chat, .. }
            | Step::Remove { chat, .. }
            | Step::Leave { chat, .. }
            | Step::SetRights { chat, .. }
            | Step::Transfer { chat, .. }
            | Step::Rekey { chat, .. } => answer(state.chats[chat].change(*step)),
            Step::Send { chat, by } => answer(state.chats[chat].send(by)),
            // Who has left may have sent before and lost the answer.
            Step::Repeat { chat, message } => Answer::Again(state.chats[chat].messages[message].seq),
            Step::Reuse { chat, by, message } => {
                let chat = &state.chats[chat];
                let is_own = chat.messages[message].sender == by;
                let is_stranger = !chat.members.contains_key(&by) && !is_own;
                Answer::Refused(if is_stranger { ErrorCode::UnknownChat } else { ErrorCode::IdReused })
            }
            Step::Edit { chat, by, message, skips } => answer(state.chats[chat].revise(by, message, false, skips)),
            Step::Delete { chat, by, message } => answer(state.chats[chat].revise(by, message, true, false)),
            Step::Read { chat, by } => match state.chats[chat].members.get(&by) {
                Some(member) => Answer::From(member.joined),
                None => Answer::Refused(ErrorCode::UnknownChat),
            },
            Step::Reconnect { .. } | Step::Kill => Answer::Done,
            Step::Renew { user } => {
                // It was in, and is: whoever has copies for it sends on under the same keys.
                for chat in state.chats.iter_mut().filter(|chat| chat.members.contains_key(&user)) {
                    chat.put(Entry::SessionIn(user));
                }
                Answer::Done
            }
            Step::Guest { chat } => {
                let chat = &mut state.chats[chat];
                chat.has_guest = true;
                // Its add, its session in, its session out.
                for _ in 0..3 {
                    chat.put(Entry::Guest);
                }
                answer(chat.send(chat.owner))
            }
        };
        state
    }
}
