//! Brings a connection up to date from the store, chat by chat, as fast as it takes what it is given.
//!
//! One reader for each connection. A chat is live again when the connection stands in it and then a look at the store
//! has shown all that is newer: in this order, so that no entry is missed.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::chat::messages::{Subscribe, Subscribed};
use super::connection::{Connection, Lagging};
use super::directory::Subscriber;
use crate::protocol::frame::{ChatGone, Direction, Nothing, Page, ServerFrame};
use crate::protocol::ids::{ChatId, Seq};
use crate::protocol::limits::PAGE_ENTRIES_MAX;
use crate::store::Failure;
use crate::store::chats::ChatPosition;
use crate::store::members::Requester;
use crate::telemetry::metrics::Metrics;

/// How long a reader waits when the store does not answer.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Reads for a connection until it is closed. Ends with it.
pub async fn run(broker: Broker, connection: Arc<Connection>, who: Requester) {
    loop {
        connection.wake.notified().await;
        while let Some(lagging) = connection.next_lagging() {
            if connection.outbox.is_closed() {
                return;
            }
            // Apart, so that a connection at rest does not keep room for it.
            Box::pin(read_chat(&broker, &connection, who, lagging)).await;
            connection.live.owe();
        }
        if connection.outbox.is_closed() {
            return;
        }
        say_live(&connection);
    }
}

/// Says that nothing lags, if that is owed and may be said.
fn say_live(connection: &Connection) {
    if connection.live.take() {
        connection.push_reply(&ServerFrame::Live(Nothing {}));
    }
}

/// Brings one chat up to date, or moves its place on.
async fn read_chat(broker: &Broker, connection: &Arc<Connection>, who: Requester, lagging: Lagging) {
    let Lagging { chat_id, after, has_more, .. } = lagging;
    let _reading = connection.reading.lock().await;
    connection.outbox.drained().await;
    // While the store is known to have more, it is read, whatever the actor knows by now: a page may show what a later entry
    // has purged, and `live`, which says that everything up to now was pushed, must not come between the two.
    let subscribed = match has_more {
        true => Subscribed::Behind,
        false => subscribe(broker, connection, chat_id, after).await,
    };
    match subscribed {
        Subscribed::Live => return connection.caught_up(lagging),
        Subscribed::Again => return,
        Subscribed::Waiting | Subscribed::Behind | Subscribed::Stranger => {}
    }
    let stands = broker.directory.waits(chat_id, connection, after);
    match read_page(broker, connection, who, chat_id, after).await {
        Ok(page) => match take(connection, &broker.metrics, lagging, subscribed, page) {
            Taken::In | Taken::Forgotten => {}
            // It stood there all along, so what was committed after the look would have taken it out of the room.
            Taken::All { up_to } if stands && broker.directory.move_on(chat_id, connection, after, up_to) => {
                connection.caught_up(lagging);
            }
            Taken::All { .. } => {}
            Taken::Left => broker.refresh_chat(chat_id),
        },
        Err(Failure::Refused(_)) => {
            if lose(connection, lagging) {
                broker.directory.unsubscribe(chat_id, connection);
            }
        }
        Err(_) => tokio::time::sleep(STORE_PAUSE).await,
    }
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// The chat is where the page ends; live when it is empty, unless the store was known to have more.
    In,
    /// The same, and it had no more when it was asked.
    All {
        /// Where the page ends.
        up_to: Seq,
    },
    /// The chat is where it was: its actor must look at the store first.
    Left,
    /// It was said meanwhile that the chat is gone, and nothing of it may come after that word.
    Forgotten,
}

/// Takes a page in that was read after the connection had come to stand in the chat like this.
fn take(connection: &Connection, metrics: &Metrics, lagging: Lagging, subscribed: Subscribed, page: Page) -> Taken {
    // The store knows the session, and the chat's actor does not yet: it came by another broker on the same database.
    if subscribed == Subscribed::Stranger {
        return Taken::Left;
    }
    if page.entries.is_empty() && !lagging.has_more {
        connection.caught_up(lagging);
        return Taken::In;
    }
    if !connection.advance(lagging, page.up_to, page.more) {
        return Taken::Forgotten;
    }
    if page.entries.is_empty() {
        return Taken::In;
    }
    metrics.catch_up_pages.inc();
    let taken = if page.more { Taken::In } else { Taken::All { up_to: page.up_to } };
    connection.push_reply(&ServerFrame::Page(page));
    taken
}

/// Forgets a chat that the store refused, and says so; not if its user has come into it anew since the store was asked.
fn lose(connection: &Connection, lagging: Lagging) -> bool {
    let is_lost = connection.forget_lagging(lagging);
    if is_lost {
        say_gone(connection, lagging.chat_id);
    }
    is_lost
}

/// Says that a chat, which is forgotten by now, is not this session's any more: the entry that took it out comes only to
/// who is live in the chat, and a reader of the log is a stranger by now.
pub fn say_gone(connection: &Connection, chat_id: ChatId) {
    connection.push_reply(&ServerFrame::ChatGone(ChatGone { chat_id }));
}

async fn read_page(
    broker: &Broker,
    connection: &Connection,
    who: Requester,
    chat_id: ChatId,
    after: Seq,
) -> Result<Page, Failure> {
    let _permit = broker.readers.acquire().await;
    broker.store.page(who, chat_id, Direction::After, after, PAGE_ENTRIES_MAX, connection.page_bytes()).await
}

/// What becomes of a chat of its user's when a session resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The session says that it has more than there is.
    Ahead,
    /// It is handed what is new from now on.
    Live,
    /// It reads what comes after this seq.
    Behind(Seq),
    /// This connection resumed the chat before, and goes on where it is.
    AsBefore,
}

/// Judges a chat by what the store says of it, which was asked after the connection stood in it.
///
/// `asked`: the cursor that the session named, and what standing there came to. `is_in`: whether the connection was
/// in the chat before.
#[must_use]
pub fn judge(asked: Option<(Seq, Subscribed)>, position: &ChatPosition, is_in: bool) -> Standing {
    // What was before its user's joining is not the session's to read.
    let floor = Seq::saturating(position.joined_seq.get().saturating_sub(1));
    match asked {
        Some((seq, _)) if seq > position.last_seq => Standing::Ahead,
        Some((seq, Subscribed::Live | Subscribed::Waiting)) if seq == position.last_seq => Standing::Live,
        Some((seq, _)) => Standing::Behind(seq.max(floor)),
        None if is_in => Standing::AsBefore,
        None => Standing::Behind(floor),
    }
}

/// Stands a connection in a chat at the newest entry that it has been handed.
pub async fn subscribe(broker: &Broker, connection: &Arc<Connection>, chat_id: ChatId, position: Seq) -> Subscribed {
    let subscriber = Subscriber { connection: Arc::clone(connection), position };
    match broker.directory.wait(chat_id, subscriber.clone()) {
        None => Subscribed::Waiting,
        // An actor that went away meanwhile is asked again at the next turn of the reader.
        Some(chat) => chat.send(Subscribe { subscriber }).await.unwrap_or(Subscribed::Again),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::outbox::{Outbox, OutboxLimits};
    use crate::protocol::binary::Hash;
    use crate::protocol::codec::Encoding;
    use crate::protocol::ids::{SessionId, Timestamp, UserId};
    use crate::protocol::log::{EntryBody, LogEntry, SessionOut};

    fn connection() -> Arc<Connection> {
        let limits = OutboxLimits { frames_max: 4, bytes_max: 1000, reserve_bytes: 0 };
        Connection::new(Encoding::Json, Outbox::new(limits))
    }

    fn entry(seq: Seq) -> LogEntry {
        let (user_id, session_id) = (UserId::generate(), SessionId::generate());
        let body = EntryBody::SessionOut(SessionOut::Expired { user_id, session_id });
        LogEntry { seq, created_at: Timestamp::default(), log_hash: Hash([0; 32]), body }
    }

    #[test]
    fn p9_a_reader_at_rest_takes_little_room() {
        fn bytes<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        assert!(bytes(run) <= 256, "{} bytes for each connection", bytes(run));
    }

    /// Whether one frame waits for a connection, as long as this one.
    fn is_told(connection: &Connection, frame: &ServerFrame) -> bool {
        (connection.outbox.frames(), connection.outbox.bytes()) == (1, connection.frame(frame).wire_bytes())
    }

    #[test]
    fn p3_who_loses_a_chat_is_told_so_unless_they_came_into_it_anew() {
        let (connection, chat_id) = (connection(), ChatId::generate());
        connection.lag(chat_id, Seq::saturating(3));
        let lagging = connection.next_lagging().unwrap();
        connection.welcome(chat_id, Seq::saturating(7));
        assert!(!lose(&connection, lagging));
        assert_eq!((connection.is_in(chat_id), connection.outbox.frames()), (true, 0));
        assert!(lose(&connection, connection.next_lagging().unwrap()));
        assert!(!connection.is_in(chat_id) && is_told(&connection, &ServerFrame::ChatGone(ChatGone { chat_id })));
    }

    #[test]
    fn p3_a_chat_is_live_only_when_the_store_has_nothing_newer_and_its_actor_knows_the_session() {
        use Subscribed::{Again, Behind, Live, Stranger, Waiting};
        let metrics = Metrics::new().unwrap();
        let (chat_id, after, up_to) = (ChatId::generate(), Seq::saturating(3), Seq::saturating(4));
        let page = |entries| Page { chat_id, after, up_to, more: false, entries, keys: Vec::new() };
        let (nothing, something) = (page(Vec::new()), page(vec![entry(up_to)]));
        let after_taking = |subscribed, page: &Page| {
            let connection = connection();
            connection.lag(chat_id, after);
            let lagging = connection.next_lagging().unwrap();
            let taken = take(&connection, &metrics, lagging, subscribed, page.clone());
            (taken, connection.next_lagging().map(|lagging| lagging.after), connection)
        };
        for subscribed in [Waiting, Behind, Live, Again] {
            let (taken, place, connection) = after_taking(subscribed, &something);
            assert_eq!((taken, place), (Taken::All { up_to }, Some(up_to)), "it goes on behind the page");
            assert!(is_told(&connection, &ServerFrame::Page(something.clone())));
            let (taken, place, _) = after_taking(subscribed, &Page { more: true, ..something.clone() });
            assert_eq!((taken, place), (Taken::In, Some(up_to)));
            let (taken, place, connection) = after_taking(subscribed, &nothing);
            assert_eq!((taken, place, connection.outbox.frames()), (Taken::In, None, 0));
            assert!(connection.is_in(chat_id));
        }
        // While the store is known to have more, a look that finds nothing does not make it live: it has to stand first.
        let connection = connection();
        connection.lag_behind(chat_id, after, up_to);
        let lagging = connection.next_lagging().unwrap();
        let taken = take(&connection, &metrics, lagging, Behind, Page { up_to: after, ..nothing.clone() });
        let place = connection.next_lagging().unwrap();
        assert_eq!((taken, place.after, place.has_more, connection.outbox.frames()), (Taken::In, after, false, 0));
        for page in [&something, &nothing] {
            let (taken, place, connection) = after_taking(Stranger, page);
            assert_eq!((taken, place, connection.outbox.frames()), (Taken::Left, Some(after), 0));
        }
        assert_eq!(metrics.catch_up_pages.get(), 8);
    }

    #[test]
    fn p3_a_page_of_a_chat_that_was_said_to_be_gone_meanwhile_is_not_shown() {
        let (connection, chat_id, after) = (connection(), ChatId::generate(), Seq::saturating(3));
        connection.lag(chat_id, after);
        let lagging = connection.next_lagging().unwrap();
        connection.forget(chat_id);
        let (up_to, entries) = (after.next(), vec![entry(after.next())]);
        let page = Page { chat_id, after, up_to, more: false, entries, keys: Vec::new() };
        let taken = take(&connection, &Metrics::new().unwrap(), lagging, Subscribed::Behind, page);
        assert_eq!((taken, connection.outbox.frames()), (Taken::Forgotten, 0));
        assert!(!connection.is_in(chat_id));
    }

    #[test]
    fn p3_live_is_said_when_it_is_owed_and_then_once() {
        let connection = connection();
        say_live(&connection);
        assert_eq!(connection.outbox.frames(), 0);
        connection.live.begin_resume(&connection.wake).succeed();
        say_live(&connection);
        say_live(&connection);
        assert!(is_told(&connection, &ServerFrame::Live(Nothing {})));
    }

    #[test]
    fn p3_nobody_is_live_behind_the_log_nor_reads_what_was_before_they_joined() {
        let position =
            ChatPosition { chat_id: ChatId::generate(), joined_seq: Seq::saturating(5), last_seq: Seq::saturating(9) };
        let at = |seq, subscribed| judge(Some((Seq::saturating(seq), subscribed)), &position, false);
        let behind = |seq| Standing::Behind(Seq::saturating(seq));
        use Subscribed::{Again, Behind, Live, Stranger, Waiting};
        for subscribed in [Live, Waiting, Behind, Stranger, Again] {
            assert_eq!(at(10, subscribed), Standing::Ahead, "{subscribed:?}");
        }
        // The chat is loaded, and says that it knows of nothing newer: the store's word counts all the same, so that nobody is
        // told to have all while an entry is on its way to them.
        assert_eq!([at(9, Live), at(8, Live), at(4, Live)], [Standing::Live, behind(8), behind(4)]);
        assert_eq!([at(3, Live), at(0, Live)], [behind(4), behind(4)]);
        // It is not loaded: the store's word counts.
        assert_eq!([at(9, Waiting), at(8, Waiting), at(2, Waiting)], [Standing::Live, behind(8), behind(4)]);
        for subscribed in [Behind, Stranger, Again] {
            assert_eq!([at(9, subscribed), at(1, subscribed)], [behind(9), behind(4)], "{subscribed:?}");
        }
        // Without a cursor everything since the joining is new, unless this connection is in the chat.
        assert_eq!(judge(None, &position, false), behind(4));
        assert_eq!(judge(None, &position, true), Standing::AsBefore);
    }
}
