//! A removal against messages at the same instant, by both brokers: nothing that comes after the removal is under a key
//! that the removed one held.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{self, Changed, Send, ServerFrame};
use sealcast::protocol::ids::{ChatId, KeyId, Seq};
use sealcast::protocol::log::{EntryBody, LogEntry};
use sealcast::protocol::membership::{Change, SignedChange};

use super::super::super::support::broker::Broker;
use super::super::super::support::chat::{SenderKey, View, change_membership, submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket};
use super::super::super::support::trials;
use super::{follow, unbounded};

/// Chats in which races are run side by side.
const CHATS: usize = 4;

/// Messages that each sender sends one after the other, unless one is refused before.
const MESSAGES: usize = 4;

/// What came of the races.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    races: usize,
    /// Races in which the removal fell between messages: some were accepted before it, some refused after it.
    close: usize,
    /// Races in which an accepted message is the entry right before the removal.
    touching: usize,
    before: usize,
    stale: usize,
    late: usize,
    again: usize,
    /// Messages after the removal under a key of which the removed one had a copy.
    opened: usize,
    /// Entries that the removed one was handed while it was a member.
    received: usize,
    /// Entries that it was handed though they came after the removal.
    handed: usize,
}

impl Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            races: self.races + other.races,
            close: self.close + other.close,
            touching: self.touching + other.touching,
            before: self.before + other.before,
            stale: self.stale + other.stale,
            late: self.late + other.late,
            again: self.again + other.again,
            opened: self.opened + other.opened,
            received: self.received + other.received,
            handed: self.handed + other.handed,
        }
    }
}

struct Sender {
    device: Device,
    socket: Socket,
}

/// What became of one sender's messages.
struct Sent {
    accepted: Vec<Seq>,
    refused: Option<(Send, frame::Error)>,
}

impl Sender {
    /// Sends one after the other until one is refused.
    async fn send(&mut self, messages: Vec<Send>) -> Sent {
        let mut sent = Sent { accepted: Vec::new(), refused: None };
        for message in messages {
            match self.insist(&message).await {
                Ok(seq) => sent.accepted.push(seq),
                Err(error) => {
                    sent.refused = Some((message, error));
                    break;
                }
            }
        }
        sent
    }

    /// Sends again as long as that may help, as an honest client does with the same bytes.
    async fn insist(&mut self, message: &Send) -> Result<Seq, frame::Error> {
        loop {
            match submit(&mut self.socket, message.clone()).await {
                Ok(sent) => return Ok(sent.seq),
                Err(error) if matches!(error.code, ErrorCode::StorageUnavailable | ErrorCode::RateLimited) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A chat in which somebody is removed again and again.
struct Race {
    chat_id: ChatId,
    view: View,
    /// One device on each broker: it removes and adds.
    owner: [Sender; 2],
    /// Two on each broker.
    senders: Vec<Sender>,
    /// Who is removed, with a device on each broker.
    victim: [Sender; 2],
    /// The entries that the victim may be handed: from its addition to its removal.
    terms: Vec<(Seq, Seq)>,
    tally: Tally,
}

impl Race {
    async fn start(nodes: &[Broker; 2], number: usize) -> Self {
        let mut owner = two_devices(nodes, &format!("owner-{number}")).await;
        let victim = two_devices(nodes, &format!("victim-{number}")).await;
        let chat_id = owner[0].device.create_chat(&mut owner[0].socket).await;
        let mut senders = Vec::new();
        for index in 0..4 {
            let broker = &nodes[index % 2];
            let device = Device::register(broker, &format!("sender-{number}-{index}")).await;
            let [first, _] = &mut owner;
            first.device.add(&mut first.socket, chat_id, &device).await.unwrap();
            let socket = device.connect_live(broker).await;
            senders.push(Sender { device, socket });
        }
        let view = view(&mut owner[0].socket, chat_id).await;
        Self { chat_id, view, owner, senders, victim, terms: Vec::new(), tally: Tally::default() }
    }

    async fn run(&mut self, races: usize) -> Tally {
        for race in 0..races {
            self.add_victim(race).await;
            self.race(race).await;
        }
        self.tally
    }

    async fn add_victim(&mut self, race: usize) {
        let owner = &mut self.owner[race / 2 % 2];
        let add = Change::Add {
            can_write: true,
            can_manage: false,
            roster_hash: self.view.fold.roster_hash(),
            epoch: self.view.fold.epoch(),
        };
        let change = owner.device.change_from(&self.view, self.chat_id, add, &self.victim[0].device);
        let added = insist_on_change(&mut owner.socket, self.chat_id, change).await;
        self.terms.push((added.seq, added.seq));
        follow(&mut self.view, &mut owner.socket, self.chat_id).await;
    }

    async fn race(&mut self, race: usize) {
        let mut keys: Vec<SenderKey> =
            self.senders.iter().map(|sender| sender.device.sender_key(&self.view, self.chat_id)).collect();
        let held: HashSet<KeyId> = keys.iter().map(|key| key.announcement.announcement.key_id).collect();
        // Half of the keys are in use when the removal comes, half come up with the racing messages.
        for (sender, key) in self.senders.iter_mut().zip(&mut keys).filter(|_| race % 2 == 0) {
            let first = sender.device.seal(&self.view, key, b"before the race");
            sender.insist(&first).await.unwrap();
        }
        let messages: Vec<Vec<Send>> = self
            .senders
            .iter()
            .zip(&mut keys)
            .map(|(sender, key)| (0..MESSAGES).map(|_| sender.device.seal(&self.view, key, b"racing")).collect())
            .collect();
        let Self { senders, owner, victim, view, chat_id, .. } = self;
        let remover = &mut owner[race % 2];
        let removal = remover.device.change_from(view, *chat_id, Change::Remove, &victim[0].device);
        let wait = Duration::from_micros(u64::from(random(12_000)));
        let sending = join_all(senders.iter_mut().zip(messages).map(|(sender, messages)| sender.send(messages)));
        let removing = async {
            tokio::time::sleep(wait).await;
            insist_on_change(&mut remover.socket, *chat_id, removal).await
        };
        let (sent, removed) = tokio::join!(sending, removing);
        self.terms.last_mut().unwrap().1 = removed.seq;
        self.judge(&sent, removed.seq);
        self.send_late(sent, &mut keys, removed.seq).await;
        self.send_again(removed.seq).await;
        self.read_what_came().await;
        let entries = follow(&mut self.view, &mut self.owner[0].socket, self.chat_id).await;
        let opened = opened(&entries, removed.seq, &held);
        assert_eq!(
            opened, 0,
            "race {race}: {opened} messages after the removal {} are open to the removed",
            removed.seq
        );
        self.tally.opened += opened;
        self.tally.races += 1;
    }

    /// Every message was accepted before the removal, or refused for it.
    fn judge(&mut self, sent: &[Sent], removed: Seq) {
        let accepted: Vec<Seq> = sent.iter().flat_map(|sent| sent.accepted.iter().copied()).collect();
        let refused: Vec<&frame::Error> =
            sent.iter().filter_map(|sent| sent.refused.as_ref().map(|(_, error)| error)).collect();
        assert!(accepted.iter().all(|seq| *seq < removed), "accepted after the removal {removed}: {accepted:?}");
        for error in &refused {
            assert_eq!(error.code, ErrorCode::KeyStale, "{error:?}");
        }
        self.tally.before += accepted.len();
        self.tally.stale += refused.len();
        self.tally.close += usize::from(!accepted.is_empty() && !refused.is_empty());
        self.tally.touching += usize::from(accepted.iter().any(|seq| seq.next() == removed));
    }

    /// The removal is acknowledged: what was refused is refused again, and so is one more under each old key.
    async fn send_late(&mut self, sent: Vec<Sent>, keys: &mut [SenderKey], removed: Seq) {
        let view = &self.view;
        let late = self.senders.iter_mut().zip(keys).zip(sent).map(|((sender, key), sent)| async move {
            let message = match sent.refused {
                Some((message, _)) => message,
                None => sender.device.seal(view, key, b"late"),
            };
            sender.insist(&message).await
        });
        for result in join_all(late).await {
            match result {
                Ok(seq) => panic!("accepted at {seq} though the removal at {removed} was acknowledged"),
                Err(error) => assert_eq!(error.code, ErrorCode::KeyStale, "{error:?}"),
            }
            self.tally.late += 1;
        }
    }

    /// Everybody makes a new key, and goes on.
    async fn send_again(&mut self, removed: Seq) {
        follow(&mut self.view, &mut self.owner[0].socket, self.chat_id).await;
        let view = &self.view;
        let chat_id = self.chat_id;
        let again = self.senders.iter_mut().map(|sender| async move {
            let mut key = sender.device.sender_key(view, chat_id);
            let message = sender.device.seal(view, &mut key, b"among us");
            sender.insist(&message).await
        });
        for result in join_all(again).await {
            assert!(result.unwrap() > removed);
            self.tally.again += 1;
        }
    }

    /// Reads what the victim was handed, which would lag else and be handed nothing.
    async fn read_what_came(&mut self) {
        let Self { victim, terms, tally, chat_id, .. } = self;
        for device in victim {
            for seq in device.socket.pushes_so_far().await.iter().flat_map(|push| entries_of(push, *chat_id)) {
                if terms.iter().rev().any(|(first, last)| (*first..=*last).contains(&seq)) {
                    tally.received += 1;
                } else {
                    tally.handed += 1;
                }
            }
        }
    }
}

/// A user with one device on each broker.
async fn two_devices(nodes: &[Broker; 2], name: &str) -> [Sender; 2] {
    let device = Device::register(&nodes[0], name).await;
    let mut socket = device.connect_live(&nodes[0]).await;
    let other = device.linked(&nodes[1], &mut socket).await;
    let other_socket = other.connect_live(&nodes[1]).await;
    [Sender { device, socket }, Sender { device: other, socket: other_socket }]
}

async fn insist_on_change(socket: &mut Socket, chat_id: ChatId, change: SignedChange) -> Changed {
    loop {
        match change_membership(socket, chat_id, change.clone()).await {
            Ok(changed) => return changed,
            Err(error) => assert_eq!(error.code, ErrorCode::StorageUnavailable, "{error:?}"),
        }
    }
}

/// Messages after the removal under keys of which the removed one had a copy.
fn opened(entries: &[LogEntry], removed: Seq, held: &HashSet<KeyId>) -> usize {
    let is_open = |entry: &&LogEntry| match &entry.body {
        EntryBody::Message(envelope) => envelope.key_id.is_some_and(|key_id| held.contains(&key_id)),
        _ => false,
    };
    entries.iter().filter(|entry| entry.seq > removed).filter(is_open).count()
}

/// The entries of a push.
fn entries_of(push: &ServerFrame, of: ChatId) -> Vec<Seq> {
    match push {
        ServerFrame::Entry(push) if push.chat_id == of => vec![push.entry.seq],
        ServerFrame::Page(page) if page.chat_id == of => page.entries.iter().map(|entry| entry.seq).collect(),
        _ => Vec::new(),
    }
}

fn random(below: u32) -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).unwrap();
    u32::from_le_bytes(bytes) % below
}

#[tokio::test]
async fn k6_after_an_acknowledged_removal_nothing_is_accepted_under_a_key_that_the_removed_one_held() {
    let races = trials(200, 10_000);
    let database = Database::create().await;
    let settings = unbounded(&database);
    let nodes = [Broker::start_with(settings.clone()).await, Broker::start_with(settings).await];
    let mut chats = Vec::new();
    for number in 0..CHATS {
        chats.push(Race::start(&nodes, number).await);
    }
    let tallies = join_all(chats.iter_mut().map(|chat| chat.run(races.div_ceil(CHATS)))).await;
    let tally = tallies.into_iter().fold(Tally::default(), Tally::plus);
    report(&tally);
    assert!(tally.races >= races, "{tally:?}");
    assert!(tally.close * 4 >= tally.races, "too few removals fell between messages: {tally:?}");
    assert!(tally.touching * 10 >= tally.races, "too few removals came right behind a message: {tally:?}");
    assert!(
        tally.received > tally.races && tally.before > 0 && tally.stale > 0 && tally.again >= tally.races,
        "{tally:?}"
    );
    assert_eq!((tally.opened, tally.handed), (0, 0), "{tally:?}");
}

#[expect(clippy::print_stdout, reason = "a run of all trials is judged by how close they were")]
fn report(tally: &Tally) {
    println!(
        "removals against messages: {} races, {} close ({} right behind a message); {} messages before, {} refused \
         (key_stale), {} refused after the answer, {} sent again; of what came later opened by the removed: {}, handed to them: {} (before: {})",
        tally.races,
        tally.close,
        tally.touching,
        tally.before,
        tally.stale,
        tally.late,
        tally.again,
        tally.opened,
        tally.handed,
        tally.received,
    );
}
