//! L15, as far as a minute shows it: what people use while they are there is given back when they have gone.
//!
//! Hours of it, with faults, are the load test's.

use futures_util::future::join_all;
use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{Cursor, Request, Resume};
use sealcast::protocol::ids::Seq;
use tokio_tungstenite::tungstenite::Message;

use super::super::super::support::broker::Broker;
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::{eventually, trials};
use super::crowd;
use super::crowd::{Person, Writer};

/// People in one chat.
const MEMBERS: usize = 5;

/// Rounds after which what is kept on purpose (connections to the database, buffers) is there.
const WARM_UP: usize = 3;

/// What must come back to zero when everybody has gone.
const GAUGES: [&str; 4] =
    ["sealcast_connections{", "sealcast_messages_in_flight", "sealcast_queue_depth", "sealcast_chats_loaded"];

/// Whether the broker holds any connection of this round still, in whatever state: those to its public port.
fn lingers(broker: &Broker) -> bool {
    let port: u16 = broker.address().rsplit(':').next().unwrap().parse().unwrap();
    let local = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut states = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == local).then(|| words.nth(1).map(str::to_owned)).flatten()
    });
    // Listening, and waiting in the kernel alone, are no open connections.
    states.any(|state| state != "0A" && state != "06")
}

fn descriptors(broker: &Broker) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", broker.pid())).unwrap().count()
}

async fn is_at_rest(broker: &Broker) -> bool {
    for gauge in GAUGES {
        if broker.metric(gauge, "").await != 0.0 {
            return false;
        }
    }
    true
}

/// One comes back, catches up, and says something.
async fn talk(broker: &Broker, writer: Writer, encoding: Encoding, seq: Seq) -> (Person, Seq) {
    let socket = writer.device.connect_with(broker, encoding).await;
    let mut person = Person { writer, socket };
    let cursors = vec![Cursor { chat_id: person.writer.chat_id, seq }];
    person.socket.request(Request::Resume(Resume { cursors })).await.unwrap();
    let (_, seq) = person.say().await;
    (person, seq)
}

/// A socket whose login is refused.
async fn refused(broker: &Broker) -> Socket {
    let mut socket = Socket::open(broker, Encoding::Json).await;
    let nobody = Device::unregistered("nobody", 60);
    assert!(socket.request(nobody.login(&socket.hello)).await.is_err());
    socket
}

/// Everybody comes, talks, and goes: some in good order, some by vanishing; so do some who were not let in.
async fn round(broker: &Broker, writers: Vec<(Writer, Seq)>, number: usize) -> Vec<(Writer, Seq)> {
    let encoding = Encoding::ALL[number % Encoding::ALL.len()];
    let talking = writers.into_iter().map(|(writer, seq)| talk(broker, writer, encoding, seq));
    let people = join_all(talking).await;
    let strangers = join_all((0..10).map(|_| Socket::open(broker, encoding))).await;
    let refused = join_all((0..10).map(|_| refused(broker))).await;
    let mut gone = Vec::new();
    for (index, (mut person, seq)) in people.into_iter().enumerate() {
        if index % 2 == 0 {
            person.socket.send_raw(Message::Close(None)).await;
            person.socket.close_code().await;
        }
        gone.push((person.writer, seq));
    }
    drop((strangers, refused));
    gone
}

#[tokio::test]
async fn l15_what_people_used_is_given_back_when_they_have_gone() {
    let database = Database::create().await;
    // The pool of connections is full after the first rounds, whatever the machine's pace.
    let settings = crowd::settings(&database)
        .with("chat.idle_s", 1)
        .with("database.connections_max", 2)
        .with("limits.catch_up_readers", 2);
    let broker = Broker::start_with(settings).await;
    #[cfg(feature = "fail-points")]
    broker.break_at("chat::idle_ms", "return(50)").await;
    let people = crowd::gather(&broker, "person", trials(20, 200), MEMBERS).await;
    let mut writers: Vec<_> = people.into_iter().map(|person| (person.writer, Seq::default())).collect();
    let (mut at_first, mut last) = ((0, 0), (0, 0));
    for number in 0..trials(WARM_UP + 5, 200) {
        writers = round(&broker, writers, number).await;
        eventually("all has been given back", async || is_at_rest(&broker).await).await;
        // Sockets are let go a moment after their connections have ended, the one by which this is asked too.
        eventually("descriptors are level", async || {
            last = (descriptors(&broker), broker.rss_mib());
            number <= WARM_UP || last.0 <= at_first.0
        })
        .await;
        if number == WARM_UP {
            eventually("lingering sockets are let go", async || {
                at_first = (descriptors(&broker), broker.rss_mib());
                !lingers(&broker)
            })
            .await;
        }
    }
    assert!(last.1 <= at_first.1 + at_first.1 / 4 + 8, "{} MiB, {} MiB after the first rounds", last.1, at_first.1);
    let (writer, seq) = writers.swap_remove(0);
    talk(&broker, writer, Encoding::Json, seq).await;
}
