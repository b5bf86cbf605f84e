//! Newcomers under a shared history who have nothing but the password, with nobody online.

use std::sync::Arc;

use sealcast::client::{Client, Event, MemoryStorage, Openness, PendingLink, VerificationFailure};
use sealcast::protocol::frame::{Request, UploadLinks};
use sealcast::protocol::ids::GenerationNo;
use sealcast::protocol::membership::HistoryPolicy;

use super::super::passwords::{self, log_in, new_account, password};
use super::super::support::clients::{config, event, read_all, texts};
use super::super::support::device::Device;
use super::super::support::within;
use super::{PASSWORD, Two, say};

const CAROLS: &str = "battery staple";
const LINKS: &str = "SELECT count(*) FROM generation_links";

/// A shared history that did not begin with the chat, and carol and dave who came into it one after the other.
struct Shared {
    two: Two,
    carol: Client,
    dave: Client,
    /// Where it began.
    since: u64,
}

const SAID: [&str; 4] = ["one", "with carol", "with carol again", "with dave"];

impl Shared {
    async fn start() -> Self {
        let two = Two::start().await;
        say(&two.bob, two.chat_id, &["before it was shared"]).await;
        two.same(&two.ada).await;
        let since = two.ada.set_history(two.chat_id, HistoryPolicy::Shared).await.unwrap().get();
        two.same(&two.bob).await;
        say(&two.bob, two.chat_id, &SAID[..1]).await;
        let carol = Self::newcomer(&two, "carol").await;
        say(&two.bob, two.chat_id, &SAID[1..2]).await;
        two.same(&carol).await;
        say(&carol, two.chat_id, &SAID[2..3]).await;
        let dave = Self::newcomer(&two, "dave").await;
        say(&two.bob, two.chat_id, &SAID[3..]).await;
        for client in [&two.ada, &carol, &dave] {
            two.same(client).await;
        }
        Self { two, carol, dave, since }
    }

    async fn newcomer(two: &Two, name: &str) -> Client {
        let newcomer = passwords::register(&two.broker, name, CAROLS).await;
        // What was said before is under keys that nobody goes on with, so they are archived to no later generation.
        two.ada.rekey(two.chat_id).await.unwrap();
        two.ada.add_member(two.chat_id, name, true, false).await.unwrap();
        two.same(&newcomer).await;
        two.same(&two.bob).await;
        newcomer
    }

    /// Every device is lost or away.
    async fn nobody(&self) {
        for client in [&self.two.ada, &self.two.bob, &self.carol, &self.dave] {
            client.close().await.unwrap();
        }
    }

    /// Somebody on a device that has nothing but the password.
    async fn again(&self, name: &str) -> Client {
        let client = log_in(&self.two.broker, name, CAROLS).await.unwrap();
        within("the recovery", client.recovered()).await.expect("it has come to its end");
        self.two.same(&client).await;
        client
    }

    /// What a client reads, and what of the log it can open.
    async fn read(&self, client: &Client) -> (Vec<String>, Vec<(u64, Openness)>) {
        let page = read_all(client, self.two.chat_id, 200).await;
        assert!(page.alarms.is_empty(), "{:?}", page.alarms);
        let coverage = client.coverage(self.two.chat_id).await.unwrap();
        (texts(&page), coverage.ranges.iter().map(|range| (range.from.get(), range.openness)).collect())
    }
}

#[tokio::test]
async fn p8_a_newcomer_by_password_alone_reads_from_where_the_shared_history_began_and_not_before() {
    let shared = Shared::start().await;
    let two = &shared.two;
    let generations = "SELECT group_key_generation FROM chats";
    assert_eq!(
        two.database.count(generations).await,
        4,
        "of before it was shared, from then on, and for each newcomer"
    );
    assert_eq!(two.database.count(LINKS).await, 0, "nobody has opened a user key");
    // Whoever opens a user key next has them all, and links those of the shared history.
    two.ada.recover_history(&password(PASSWORD)).await.unwrap();
    let linked = "SELECT count(*) FROM generation_links WHERE generation IN (3, 4)";
    assert_eq!((two.database.count(linked).await, two.database.count(LINKS).await), (2, 2));
    // An approved device that nobody handed keys knows what to hope for.
    let linking = PendingLink::begin(config(), new_account(&two.broker, "dave"), Arc::new(MemoryStorage::default()));
    let linking = linking.await.unwrap();
    let unlocked = shared.dave.unlock(&password(CAROLS)).await.unwrap();
    shared.dave.approve_session(&linking.code().parse().unwrap(), None).await.unwrap();
    two.keep_backups_back().await;
    drop(unlocked);
    shared.nobody().await;
    let laptop = within("a linked device", linking.wait()).await.unwrap();
    within("a live device", laptop.live()).await.unwrap();
    two.same(&laptop).await;
    let page = read_all(&laptop, two.chat_id, 200).await;
    assert!(page.locked > 0 && page.locked_messages.iter().all(|message| message.why == Openness::NoCopyYet));
    let coverage = laptop.coverage(two.chat_id).await.unwrap();
    assert_eq!(coverage.recoverable, page.locked, "all of it is archived to what links lead to");
    laptop.close().await.unwrap();

    // No device is asked for anything from here on: the copies that they could hand on are not there either.
    let client = two.database.client().await;
    client.batch_execute("DELETE FROM vault_chat_sender_keys").await.unwrap();
    for name in ["carol", "dave"] {
        let again = shared.again(name).await;
        let (said, ranges) = shared.read(&again).await;
        assert_eq!(said, SAID, "{name}");
        assert_eq!(ranges, [(1, Openness::BeforeJoin), (shared.since, Openness::Open)], "{name}");
        again.close().await.unwrap();
    }
    // Who has been there from the beginning reads all.
    let ada = two.ada_again().await;
    let (said, ranges) = shared.read(&ada).await;
    assert_eq!((said.len(), ranges), (SAID.len() + 1, vec![(1, Openness::Open)]));
}

#[tokio::test]
async fn p5_links_give_nothing_to_who_was_removed_and_cross_no_time_of_joining_alone() {
    let shared = Shared::start().await;
    let two = &shared.two;
    two.ada.recover_history(&password(PASSWORD)).await.unwrap();
    assert_eq!(two.database.count(LINKS).await, 2);
    two.ada.remove_member(two.chat_id, "carol").await.unwrap();
    two.same(&two.bob).await;
    say(&two.bob, two.chat_id, &["without carol"]).await;
    // From now on newcomers read from their joining, and nothing is linked for them.
    two.ada.set_history(two.chat_id, HistoryPolicy::FromJoin).await.unwrap();
    let erin = Shared::newcomer(two, "erin").await;
    say(&two.bob, two.chat_id, &["with erin"]).await;
    two.same(&two.ada).await;
    two.ada.recover_history(&password(PASSWORD)).await.unwrap();
    assert_eq!(two.database.count(LINKS).await, 2, "none for what is not shared");
    // As if on another day, for changes of the policy are few.
    two.database.client().await.batch_execute("UPDATE chat_events SET change = NULL").await.unwrap();
    // Shared again: frank reads from here on, not what was shared before.
    two.ada.set_history(two.chat_id, HistoryPolicy::Shared).await.unwrap();
    two.same(&two.bob).await;
    say(&two.bob, two.chat_id, &["shared again"]).await;
    let frank = Shared::newcomer(two, "frank").await;
    say(&two.bob, two.chat_id, &["with frank"]).await;
    two.same(&two.ada).await;
    two.ada.recover_history(&password(PASSWORD)).await.unwrap();
    assert_eq!(two.database.count(LINKS).await, 3, "between the two of the second time");
    erin.close().await.unwrap();
    frank.close().await.unwrap();
    shared.nobody().await;
    let client = two.database.client().await;
    client.batch_execute("DELETE FROM vault_chat_sender_keys").await.unwrap();
    for (name, expected) in
        [("erin", &["with erin", "shared again", "with frank"][..]), ("frank", &["shared again", "with frank"][..])]
    {
        let again = shared.again(name).await;
        let (said, ranges) = shared.read(&again).await;
        assert_eq!(said, expected, "{name}");
        assert_eq!(ranges.len(), 2, "{name}: {ranges:?}");
        again.close().await.unwrap();
    }
    let carol = log_in(&two.broker, "carol", CAROLS).await.unwrap();
    carol.recovered().await.unwrap();
    assert!(carol.list_chats().await.unwrap().is_empty());
}

#[tokio::test]
async fn p7_a_link_to_another_key_is_named_and_not_used_and_hides_nothing_else() {
    let shared = Shared::start().await;
    let two = &shared.two;
    let eve = Device::register(&two.broker, "eve").await;
    let mut socket = eve.connect_live(&two.broker).await;
    two.ada.add_member(two.chat_id, "eve", true, false).await.unwrap();
    two.same(&two.bob).await;
    let links = vec![eve.generation_link(two.chat_id, 3)];
    socket.request(Request::UploadLinks(UploadLinks { chat_id: two.chat_id, links })).await.unwrap();
    two.same(&two.ada).await;
    two.ada.recover_history(&password(PASSWORD)).await.unwrap();
    assert_eq!(two.database.count(LINKS).await, 2, "the first one stays");
    shared.nobody().await;
    let client = two.database.client().await;
    client.batch_execute("DELETE FROM vault_chat_sender_keys").await.unwrap();
    let dave = log_in(&two.broker, "dave", CAROLS).await.unwrap();
    within("the recovery", dave.recovered()).await.unwrap();
    let mut events = dave.events();
    dave.recover_history(&password(CAROLS)).await.unwrap();
    let failure = VerificationFailure::GenerationLink(GenerationNo::saturating(3));
    let by = event("the alarm", &mut events, |event| match event {
        Event::Alarm(alarm) if alarm.failure == failure => Some(alarm.session_id),
        _ => None,
    });
    assert_eq!(by.await, Some(eve.session_id));
    two.same(&dave).await;
    let page = read_all(&dave, two.chat_id, 200).await;
    assert_eq!(texts(&page), SAID[1..], "what the good link leads to opens");
    assert_eq!(page.locked, 1);
}
