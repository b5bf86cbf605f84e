//! Members who lie about group keys and archives: each is named, and nobody else is stopped.

use sealcast::client::{Client, Event, VerificationFailure};
use sealcast::crypto::group_key::GroupKey;
use sealcast::protocol::frame::{MakeGeneration, Request, Send};
use sealcast::protocol::group_key::{Generation, member_keys_hash, wraps_hash};
use sealcast::protocol::ids::{GenerationNo, SessionId};

use super::super::passwords::password;
use super::super::support::chat::{submit, view};
use super::super::support::clients::event;
use super::super::support::device::{Device, Socket, exchange_key};
use super::super::support::generations::{archive, change};
use super::super::support::within;
use super::{PASSWORD, Two, say};

/// Eve, who says what she likes, in the chat of ada and bob.
struct Lie {
    two: Two,
    eve: Device,
    socket: Socket,
}

impl Lie {
    async fn start() -> Self {
        let two = Two::start().await;
        let eve = Device::register(&two.broker, "eve").await;
        let socket = eve.connect_live(&two.broker).await;
        two.ada.add_member(two.chat_id, "eve", true, false).await.unwrap();
        two.same(&two.bob).await;
        Self { two, eve, socket }
    }

    /// What ada is told of when she opens her user key, and by whom it was done.
    async fn ada_finds(&self, failure: VerificationFailure) {
        let mut events = self.two.ada.events();
        self.two.ada.recover_history(&password(PASSWORD)).await.unwrap();
        let by = event("the alarm", &mut events, |event| match event {
            Event::Alarm(alarm) if alarm.failure == failure => Some(alarm.session_id),
            _ => None,
        });
        assert_eq!(by.await, Some(self.eve.session_id));
    }

    /// After a refusal whoever sends next makes another generation, and all goes on.
    async fn goes_on(&self, number: u64) {
        let Two { ada, bob, chat_id, .. } = &self.two;
        self.two.same(bob).await;
        let mut events = bob.events();
        say(bob, *chat_id, &["on we go"]).await;
        let made = event("the next generation", &mut events, |event| match event {
            Event::GroupKeyChanged { generation, session_id, is_refused: false, .. } => {
                Some((*generation, *session_id))
            }
            _ => None,
        });
        assert_eq!(made.await, (GenerationNo::saturating(number), bob.session_id()));
        say(ada, *chat_id, &["and on"]).await;
    }
}

#[tokio::test]
async fn p7_wraps_that_do_not_open_are_named_refused_and_made_again() {
    let mut lie = Lie::start().await;
    let chat_id = lie.two.chat_id;
    let now = view(&mut lie.socket, chat_id).await;
    lie.eve.make_generation(&mut lie.socket, &now, chat_id).await.unwrap();
    lie.two.same(&lie.two.ada).await;
    // Nobody sees it who does not open their user key; the chat goes on meanwhile.
    say(&lie.two.bob, chat_id, &["under the bad one"]).await;
    lie.two.same(&lie.two.ada).await;
    lie.ada_finds(VerificationFailure::GroupKeyWrap(GenerationNo::saturating(1))).await;
    lie.goes_on(2).await;
    let refused = "SELECT count(*) FROM refused_generations";
    assert_eq!(lie.two.database.count(refused).await, 1);
    // What goes on is archived to the good one: bob's key of before too.
    lie.two.ada.close().await.unwrap();
    lie.two.bob.close().await.unwrap();
    let ada = lie.two.ada_again().await;
    assert_eq!(lie.two.all(&ada).await, ["under the bad one", "on we go", "and on"]);
}

#[tokio::test]
async fn p7_a_recovery_key_that_is_not_the_group_keys_is_named_and_refused() {
    let mut lie = Lie::start().await;
    let chat_id = lie.two.chat_id;
    let now = view(&mut lie.socket, chat_id).await;
    let (key, number) = (GroupKey::generate(), now.fold.generation_due().unwrap());
    let wraps: Vec<_> =
        now.fold.member_keys().values().map(|member| key.wrap(chat_id, number, member).unwrap()).collect();
    let generation = Generation {
        number,
        session_id: lie.eve.session_id,
        change_no: now.fold.membership().head,
        member_keys_hash: member_keys_hash(now.fold.member_keys().values()),
        // Hers alone.
        public_key: exchange_key().1,
        wraps_hash: wraps_hash(&wraps),
    };
    let made: MakeGeneration = lie.eve.signed_generation(chat_id, generation, wraps);
    change(&mut lie.socket, Request::MakeGeneration(made)).await.unwrap();
    lie.two.same(&lie.two.ada).await;
    lie.ada_finds(VerificationFailure::RecoveryKey(number)).await;
    lie.goes_on(2).await;
}

#[tokio::test]
async fn p7_a_bad_archive_is_named_and_hides_its_own_messages_alone() {
    let mut lie = Lie::start().await;
    let chat_id = lie.two.chat_id;
    say(&lie.two.bob, chat_id, &["good"]).await;
    let now = view(&mut lie.socket, chat_id).await;
    let mut key = lie.eve.sender_key(&now, chat_id);
    let bad = archive(now.fold.recovery_key().unwrap().generation);
    let message = Send { archive: Some(bad), ..lie.eve.seal(&now, &mut key, b"bad") };
    submit(&mut lie.socket, message).await.unwrap();
    lie.two.same(&lie.two.bob).await;
    say(&lie.two.bob, chat_id, &["good too"]).await;
    lie.two.lose_ada().await;
    lie.two.bob.close().await.unwrap();
    let ada = lie.two.ada_again().await;
    lie.two.same(&ada).await;
    assert_eq!(named(&ada, lie.two.chat_id).await, (vec!["good".to_owned(), "good too".to_owned()], 1));
    let mut events = ada.events();
    let recovered = ada.recover_history(&password(PASSWORD)).await.unwrap();
    assert_eq!((recovered.keys, recovered.locked_keys), (0, 1));
    let by: Option<SessionId> = within(
        "the alarm",
        event("the alarm", &mut events, |event| match event {
            Event::Alarm(alarm) if alarm.failure == VerificationFailure::BadArchive => Some(alarm.session_id),
            _ => None,
        }),
    )
    .await;
    assert_eq!(by, Some(lie.eve.session_id));
}

/// What can be read, and how much is locked.
async fn named(client: &Client, chat_id: sealcast::protocol::ids::ChatId) -> (Vec<String>, u64) {
    let page = super::super::support::clients::read_all(client, chat_id, 50).await;
    (super::super::support::clients::texts(&page), page.locked)
}
