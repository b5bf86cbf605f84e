//! Tells steps in plain words.

use std::fmt;

use super::generations::Making;
use super::people::{Chat, session_name, user_name, user_of};
use super::sending::Sending;
use super::transactions::Request;
use super::world::{Step, World};

/// A step and the world before it.
pub struct Told<'a>(pub &'a World, pub Step);

impl Told<'_> {
    fn place(&self, chat: Chat, view: usize) -> String {
        let views = &self.0.store.chats[chat].views;
        let seq = views[view].seq.get();
        if view + 1 == views.len() { format!("as of entry {seq}") } else { format!("late, as of entry {seq}") }
    }

    fn chat(&self, chat: Chat) -> String {
        if self.0.store.chats.len() == 1 { "the chat".to_owned() } else { format!("chat {chat}") }
    }

    fn sending(&self, sending: Sending) -> String {
        let Sending { chat, session, made, as_of, archives } = sending;
        let is_stored = self.0.store.chats[chat].keys.contains_key(&sending.key());
        let key = if is_stored { "its key" } else { "a new key" };
        let wrapped = if made == as_of { String::new() } else { format!(", wrapped {}", self.place(chat, as_of)) };
        let archived = match self.0.store.chats[chat].views[as_of].generation() {
            Some(number) if archives => format!(", archived to generation {number}"),
            Some(_) => ", not archived".to_owned(),
            None => String::new(),
        };
        let (name, place, chat) = (session_name(session), self.place(chat, made), self.chat(chat));
        format!("{name} sends a message to {chat} under {key}, made {place}{wrapped}{archived}; the actor accepts")
    }

    fn making(&self, making: Making) -> String {
        let Making { chat, session, stated, wrapped } = making;
        let others = if stated == wrapped {
            String::new()
        } else {
            format!(", but wraps it for the user keys of entry {}", self.0.store.chats[chat].views[wrapped].seq)
        };
        let (name, place, chat) = (session_name(session), self.place(chat, stated), self.chat(chat));
        format!("{name} makes the generation of {chat} that is due ({place}){others}")
    }

    fn request(&self, request: Request) -> String {
        match request {
            Request::Add { chat, actor, target, view } => format!(
                "{} adds {} to {} ({})",
                session_name(actor),
                user_name(target),
                self.chat(chat),
                self.place(chat, view)
            ),
            Request::Remove { chat, actor, target, view } => format!(
                "{} removes {} from {} ({})",
                session_name(actor),
                user_name(target),
                self.chat(chat),
                self.place(chat, view)
            ),
            Request::Leave { chat, actor, view } => {
                format!("{} leaves {} ({})", user_name(user_of(actor)), self.chat(chat), self.place(chat, view))
            }
            Request::Revoke { session, withdraws } => {
                let key = if withdraws { ", and withdraws the user key" } else { "" };
                format!("{} revokes {}{key}", user_name(user_of(session)), session_name(session))
            }
            Request::ReplaceUserKey { user } => {
                let has_one = self.0.store.user_keys[user].newest > 0;
                format!("{} gets {} user key", user_name(user), if has_one { "another" } else { "the first" })
            }
            Request::Expire { user } => format!("the expiries of {} are written down", user_name(user)),
            Request::Certify { session } => format!("{} is certified, or anew", session_name(session)),
        }
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Step::Submit(sending, has_heard) => {
                let heard = if has_heard { "the actor hears that the log has moved; " } else { "" };
                write!(f, "{heard}{}", self.sending(sending))
            }
            Step::Write(chat) => write!(f, "the writer commits what waits in {}", self.chat(chat)),
            Step::Begin(request) => write!(f, "begins: {}", self.request(request)),
            Step::Finish(request) => write!(f, "ends: {}", self.request(request)),
            Step::RunOut(session) => write!(f, "the time of {} runs out", session_name(session)),
            Step::RefuseCopy(_, key, session) => {
                write!(f, "{} refuses its copy of the key of {}", session_name(session), session_name(key.0))
            }
            Step::Make(making) => f.write_str(&self.making(making)),
            Step::RefuseGeneration(chat, session) => {
                write!(f, "{} refuses the generation of {}", session_name(session), self.chat(chat))
            }
            Step::Sweep => f.write_str("copies of revoked sessions are swept away"),
        }
    }
}
