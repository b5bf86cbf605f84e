//! Where a connection stands in its chats, and what of that survives words that come meanwhile.

use super::*;
use crate::broker::outbox::OutboxLimits;
use crate::broker::outbox_budget::OutboxBudget;
use crate::protocol::ids::{SessionId, UserId};

fn connection() -> Arc<Connection> {
    Connection::new(Encoding::Json, Outbox::new(OutboxLimits { frames_max: 4, bytes_max: 100, reserve_bytes: 50 }))
}

fn lagging(connection: &Connection) -> Option<(ChatId, u64)> {
    connection.next_lagging().map(|lagging| (lagging.chat_id, lagging.after.get()))
}

#[test]
fn p3_a_chat_that_lags_keeps_its_place_until_its_reader_moves_it() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    assert_eq!(lagging(&connection), None);
    connection.lag(chat_id, Seq::saturating(5));
    connection.lag(chat_id, Seq::saturating(9));
    assert_eq!(lagging(&connection), Some((chat_id, 5)));
    let read = connection.next_lagging().unwrap();
    assert!(connection.advance(read, Seq::saturating(7), false));
    assert_eq!(lagging(&connection), Some((chat_id, 7)));
    connection.caught_up(connection.next_lagging().unwrap());
    assert_eq!(lagging(&connection), None);
    assert_eq!(connection.chats(), [chat_id]);
}

#[test]
fn p3_a_word_that_it_lags_which_comes_while_it_is_read_for_is_not_lost() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    for times in 1..4 {
        connection.lag(chat_id, Seq::saturating(5));
        let read = connection.next_lagging().unwrap();
        connection.lag(chat_id, Seq::saturating(5));
        connection.caught_up(read);
        assert_eq!(lagging(&connection), Some((chat_id, 5)));
        let again = connection.next_lagging().unwrap();
        connection.caught_up(again);
        assert_eq!(lagging(&connection), None);
        connection.forget(chat_id);
        for _ in 0..times {
            connection.lag(chat_id, Seq::saturating(5));
        }
    }
}

#[test]
fn p3_who_stands_in_a_chat_is_live_unless_it_was_said_to_lag() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    assert!(!connection.is_in(chat_id));
    assert!(!connection.stand(chat_id) && connection.stand(chat_id));
    assert!(connection.is_in(chat_id));
    connection.lag(chat_id, Seq::saturating(3));
    connection.stood(chat_id);
    assert_eq!(lagging(&connection), Some((chat_id, 3)));
    connection.stand(chat_id);
    connection.stood(chat_id);
    assert_eq!(lagging(&connection), None);
    // Live, and then behind: from where it was told.
    connection.lag(chat_id, Seq::saturating(8));
    assert_eq!(lagging(&connection), Some((chat_id, 8)));
    connection.forget(chat_id);
    assert!(!connection.is_in(chat_id) && lagging(&connection).is_none());
    // Of a chat that it is not in, neither word makes it one.
    connection.stood(chat_id);
    assert!(!connection.is_in(chat_id));
}

#[test]
fn what_the_store_is_known_to_have_is_read_until_it_has_no_more() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    let has_more = |connection: &Connection| connection.next_lagging().unwrap().has_more;
    connection.lag(chat_id, Seq::saturating(5));
    assert!(!has_more(&connection));
    connection.lag_behind(chat_id, Seq::saturating(9), Seq::saturating(10));
    assert_eq!((lagging(&connection), has_more(&connection)), (Some((chat_id, 5)), true));
    connection.lag(chat_id, Seq::saturating(9));
    assert!(has_more(&connection));
    for more in [true, false] {
        let read = connection.next_lagging().unwrap();
        assert!(connection.advance(read, Seq::saturating(7), more));
        assert_eq!(has_more(&connection), more);
    }
    connection.caught_up(connection.next_lagging().unwrap());
    connection.lag_behind(chat_id, Seq::saturating(9), Seq::saturating(9));
    assert!(!has_more(&connection));
}

#[test]
fn p3_what_was_read_of_a_chat_that_was_forgotten_meanwhile_is_not_shown() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    connection.lag(chat_id, Seq::saturating(5));
    let read = connection.next_lagging().unwrap();
    connection.forget(chat_id);
    assert!(!connection.advance(read, Seq::saturating(7), false));
    assert!(!connection.is_in(chat_id) && lagging(&connection).is_none());
    // Nor if it was joined anew: it is read from there.
    connection.welcome(chat_id, Seq::saturating(9));
    assert!(!connection.advance(read, Seq::saturating(7), false));
    assert_eq!(lagging(&connection), Some((chat_id, 9)));
}

#[test]
fn p3_a_word_that_it_lags_which_comes_after_it_was_live_in_between_is_not_lost() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    connection.lag(chat_id, Seq::saturating(5));
    let read = connection.next_lagging().unwrap();
    // The session resumes once more while it is read for, is found live, and its outbox is full a moment later.
    connection.stand(chat_id);
    connection.stood(chat_id);
    connection.lag(chat_id, Seq::saturating(8));
    connection.caught_up(read);
    assert_eq!(lagging(&connection), Some((chat_id, 8)));
    assert!(!connection.forget_lagging(read) && !connection.advance(read, Seq::saturating(7), false));
    assert_eq!(lagging(&connection), Some((chat_id, 8)));
}

#[test]
fn p3_who_is_in_a_chat_anew_while_it_is_read_for_is_not_forgotten() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    connection.lag(chat_id, Seq::saturating(5));
    let read = connection.next_lagging().unwrap();
    connection.welcome(chat_id, Seq::saturating(8));
    assert!(!connection.forget_lagging(read));
    let again = connection.next_lagging().unwrap();
    assert!(connection.forget_lagging(again) && !connection.is_in(chat_id));
    // What was told after it was forgotten stays.
    connection.welcome(chat_id, Seq::saturating(9));
    assert_eq!(lagging(&connection), Some((chat_id, 9)));
    connection.caught_up(connection.next_lagging().unwrap());
    assert!(!connection.forget_lagging(again) && connection.is_in(chat_id), "it is live");
    connection.forget(chat_id);
    assert!(connection.forget_lagging(again), "whoever forgot it said nothing");
}

#[test]
fn who_it_is_is_said_once_and_every_connection_has_its_own_number() {
    let (one, other) = (connection(), connection());
    assert_ne!(one.id, other.id);
    let who = Requester { user_id: UserId::generate(), session_id: SessionId::generate() };
    assert_eq!(one.who(), None);
    one.log_in(who);
    one.log_in(Requester { session_id: SessionId::generate(), ..who });
    assert_eq!(one.who(), Some(who));
}

#[test]
fn a_connection_that_takes_not_even_answers_is_closed() {
    let connection = connection();
    let answer = ServerFrame::Bye(Bye { retry_after_ms: 1 });
    let bytes = connection.frame(&answer).wire_bytes();
    for _ in 0..150 / bytes {
        connection.push_reply(&answer);
    }
    assert!(!connection.outbox.is_closed());
    connection.push_reply(&answer);
    assert!(connection.outbox.is_closed());
    let leaving = self::connection();
    leaving.say_bye(7);
    assert!(leaving.outbox.is_closed());
    assert_eq!(leaving.outbox.frames(), 1, "the word, ahead of the close frame");
}

#[test]
fn p3_who_is_added_anew_reads_from_there_unless_it_reads_the_chat_by_now() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    connection.welcome(chat_id, Seq::saturating(4));
    assert_eq!(lagging(&connection), Some((chat_id, 4)));
    connection.welcome(chat_id, Seq::saturating(7));
    assert_eq!(lagging(&connection), Some((chat_id, 4)), "its reader alone moves it");
    // One that stands there may have been looked at before it was added: it is told.
    connection.stand(chat_id);
    connection.welcome(chat_id, Seq::saturating(7));
    assert_eq!(lagging(&connection), Some((chat_id, 7)));
    connection.stood(chat_id);
    assert_eq!(lagging(&connection), Some((chat_id, 7)));
    // One that is live is handed what is new.
    connection.stand(chat_id);
    connection.stood(chat_id);
    connection.welcome(chat_id, Seq::saturating(9));
    assert_eq!(lagging(&connection), None);
}

#[test]
fn p3_a_chat_is_forgotten_unless_it_was_said_to_be_there_meanwhile() {
    let (connection, chat_id) = (connection(), ChatId::generate());
    assert!(connection.forget_standing(chat_id), "it is not in it");
    connection.stand(chat_id);
    assert!(connection.forget_standing(chat_id) && !connection.is_in(chat_id));
    connection.stand(chat_id);
    connection.lag(chat_id, Seq::saturating(3));
    assert!(!connection.forget_standing(chat_id));
    assert_eq!(lagging(&connection), Some((chat_id, 3)));
    connection.caught_up(connection.next_lagging().unwrap());
    assert!(!connection.forget_standing(chat_id) && connection.is_in(chat_id));
}

#[test]
fn p3_a_chat_that_could_not_be_judged_goes_on_where_it_was_before() {
    let (connection, chat_id, after) = (connection(), ChatId::generate(), Seq::saturating(3));
    let was_in = connection.stand(chat_id);
    assert!(connection.give_up_standing(chat_id, was_in, after));
    assert!(!connection.is_in(chat_id) && lagging(&connection).is_none());
    let was_in = connection.stand(chat_id);
    connection.welcome(chat_id, Seq::saturating(7));
    assert!(!connection.give_up_standing(chat_id, was_in, after));
    assert_eq!(lagging(&connection), Some((chat_id, 7)), "its user came into it meanwhile");
    let was_in = connection.stand(chat_id);
    assert!(!connection.give_up_standing(chat_id, was_in, after));
    assert_eq!(lagging(&connection), Some((chat_id, 3)));
}

#[test]
fn p9_a_page_is_small_while_what_waits_for_all_is_as_much_as_may_be() {
    let budget = OutboxBudget::new(1);
    let limits = OutboxLimits { frames_max: 4, bytes_max: 100, reserve_bytes: 50 };
    let (reader, other) = (Outbox::within(limits, &budget), Outbox::within(limits, &budget));
    let connection = Connection::new(Encoding::Json, reader);
    assert_eq!(connection.page_bytes(), PAGE_BYTES_MAX);
    other.try_push(&ReadyFrame::text(b"x")).unwrap();
    assert_eq!(connection.page_bytes(), 32_768);
    drop(other);
    assert_eq!(connection.page_bytes(), PAGE_BYTES_MAX);
}
