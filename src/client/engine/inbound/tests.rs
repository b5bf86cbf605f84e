//! Of entries that come: what begins a chat, and what was read before one was gone.

use super::*;
use crate::client::account::{NewAccount, fresh};
use crate::client::keyring::Account;
use crate::protocol::account::ServerInfo;
use crate::protocol::binary::Hash;
use crate::protocol::ids::Timestamp;
use crate::protocol::log::{EntryBody, SessionOut};
use crate::protocol::username::Username;

fn account() -> Account {
    let new = NewAccount { server: "http://127.0.0.1:1".to_owned(), username: "ada".to_owned(), ttl: None };
    let info = ServerInfo {
        server_name: "home".to_owned(),
        server_version: String::new(),
        subprotocols: Vec::new(),
        time: Timestamp::default(),
    };
    fresh(&new, Username::parse("ada").unwrap(), info)
}

/// What comes of an entry in the midst of a chat that is not known, and whether the inbox goes on.
fn events_of(inbox: Inbox) -> (Vec<Event>, bool) {
    let mut state = State::new(account(), std::collections::HashMap::new());
    let (chat_id, me) = (ChatId::generate(), state.account.me.clone());
    let body = EntryBody::SessionOut(SessionOut::Expired { user_id: me.user_id, session_id: me.session_id });
    let entry = LogEntry { seq: Seq::saturating(7), created_at: Timestamp::default(), log_hash: Hash([0; 32]), body };
    state.inboxes.insert(chat_id, inbox);
    state.inboxes.entry(chat_id).or_default().put([entry]);
    let mut events = Vec::new();
    assert_eq!(state.drain(chat_id, &mut events), None);
    let inbox = &state.inboxes[&chat_id];
    (events, inbox.queue.is_empty() && !inbox.is_ignored)
}

#[test]
fn what_was_read_of_a_chat_before_it_was_gone_and_comes_after_is_passed_over() {
    let (events, goes_on) = events_of(Inbox::gone());
    assert!(events.is_empty() && goes_on, "{events:?}");
}

#[test]
fn a_chat_that_does_not_begin_with_ones_own_joining_is_an_alarm() {
    let (events, goes_on) = events_of(Inbox::default());
    let is_alarm = matches!(&events[..], [Event::Alarm(alarm)] if alarm.failure == VerificationFailure::NotJoined);
    assert!(is_alarm && !goes_on, "{events:?}");
}
