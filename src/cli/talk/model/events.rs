//! What the client library tells, and what it changes in the model.

use super::{Effect, Link, Model};
use crate::cli::talk::transcript::Item;
use crate::client::{Alarm, Event, Signal};
use crate::protocol::ids::{Revision, Timestamp};
use crate::protocol::membership::Change;

impl Model {
    pub(super) fn alarm(&mut self, alarm: &Alarm) {
        let text = match alarm.seq {
            Some(seq) => format!("entry {seq}: {}", alarm.failure),
            None => alarm.failure.to_string(),
        };
        match alarm.seq {
            Some(seq) => self.transcript.push_at(seq, Item::Alarm(text.clone())),
            None => self.transcript.push(Item::Alarm(text.clone())),
        }
        let count = self.alarm.take().map_or(0, |(count, _)| count);
        self.alarm = Some((count + 1, text));
    }

    pub(super) fn event(&mut self, now: Timestamp, event: &Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Message(message) if message.chat_id == self.chat => {
                self.take(message, effects);
                self.presence.spoke(now, message.sender_id, message.sender_session_id);
                if self.is_scrolled() {
                    self.unseen += 1;
                }
            }
            Event::Edited { message, .. } if message.chat_id == self.chat => self.transcript.edit(message),
            Event::Deleted { deletion, .. } if deletion.chat_id == self.chat => self.transcript.delete(deletion),
            Event::Read { chat_id, user_id, read_seq, .. } if *chat_id == self.chat => {
                self.transcript.reads(*user_id, *read_seq);
                if *user_id == self.people.me() {
                    self.marked = self.marked.max(*read_seq);
                }
            }
            Event::Signal { chat_id, user_id, session_id, signal }
                if *chat_id == self.chat && *user_id != self.people.me() =>
            {
                let was_here = self.presence.here(now).contains(user_id);
                self.presence.heard(now, *user_id, *session_id, *signal);
                // Who has just come has not heard that this user is here.
                if !was_here && *signal != Signal::Away {
                    self.presence.forget_said();
                    self.attend(effects);
                }
            }
            Event::AccountDeleted { chat_id, seq, user_id, heir }
            | Event::AccountRemoved { chat_id, seq, user_id, heir }
                if *chat_id == self.chat =>
            {
                let name = self.people.name(*user_id);
                let passes = heir.map(|heir| format!("; {} owns this chat now", self.people.name(heir)));
                let passes = passes.unwrap_or_default();
                let text = match event {
                    Event::AccountRemoved { .. } => format!("forced by the server: {name}'s account is gone{passes}"),
                    _ => format!("{name} has ended their account{passes}"),
                };
                self.presence.left(*user_id);
                self.transcript.push_at(*seq, Item::Notice { at: now, text });
                effects.push(Effect::Members);
            }
            Event::Message(message) if message.sender_id != self.people.me() => self.elsewhere += 1,
            Event::MembershipChanged { chat_id, seq, actor, target, change } if *chat_id == self.chat => {
                if matches!(change, Change::Remove | Change::Leave) {
                    self.presence.left(*target);
                }
                let change = change.clone();
                self.transcript.push_at(*seq, Item::Change { at: now, actor: *actor, target: *target, change });
                effects.push(Effect::Members);
            }
            Event::SessionChanged { chat_id, seq, user_id, is_in, .. } if *chat_id == self.chat => {
                self.transcript.push_at(*seq, Item::Device { at: now, user_id: *user_id, is_in: *is_in });
            }
            Event::SendFailed { chat_id, revision, error, .. }
                if *chat_id == self.chat && *revision > Revision::default() =>
            {
                self.transcript.push(Item::Failure(format!("a message could not be changed: {error}")));
            }
            Event::Joined { chat_id } if *chat_id == self.chat => {
                self.link = Link::Live;
                effects.push(Effect::Members);
            }
            Event::InfoChanged { chat_id } if *chat_id == self.chat => effects.push(Effect::Title),
            Event::Removed { chat_id } if *chat_id == self.chat => {
                self.link = Link::Gone("you are not in this chat any more");
            }
            Event::ChatDeleted { chat_id } if *chat_id == self.chat => self.link = Link::Gone("this chat has ended"),
            Event::SendFailed { chat_id, message_id, error, .. } if *chat_id == self.chat => {
                self.transcript.failed(*message_id, error.to_string());
            }
            Event::SessionPending { .. } => self.transcript.push(Item::Notice {
                at: now,
                text: "a new device of yours asks to be let in: if you know of it, `session approve` its code"
                    .to_owned(),
            }),
            Event::PasswordNeeded { .. } => self.transcript.push(Item::Notice {
                at: now,
                text: "this session runs out soon: end this, and `login` with the account's password renews it"
                    .to_owned(),
            }),
            Event::RecoveryRequested { username, is_own, .. } => {
                let text = match is_own {
                    true => {
                        "somebody asks your friends to recover your account: if it is not you, `friends cancel` it \
                             now (see `friends requests`)"
                            .to_owned()
                    }
                    false => format!(
                        "somebody asks you to help {username} recover their account: call them, and see `friends requests`"
                    ),
                };
                self.transcript.push(Item::Notice { at: now, text });
            }
            Event::Live => self.live(),
            Event::Disconnected if matches!(self.link, Link::Live) => self.link = Link::Lost(now),
            Event::Alarm(alarm) if alarm.chat_id.is_none_or(|chat_id| chat_id == self.chat) => self.alarm(alarm),
            _ => {}
        }
    }

    pub(super) fn live(&mut self) {
        if matches!(self.link, Link::Lost(_)) {
            self.say("connected again, and caught up");
        }
        if !matches!(self.link, Link::Gone(_)) {
            self.link = Link::Live;
        }
    }
}
