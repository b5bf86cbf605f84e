//! What chats are called: who can read it, who finds out by themselves, and what a server cannot forge.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealcast::client::{Client, Event, MemoryStorage, VerificationFailure};
use sealcast::crypto::{Secret, SessionSecrets, info, wrap};
use sealcast::protocol::binary::{Blob, Signature};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    ChatInfoChanged, Nothing, Reply, Request, RequestInfoKey, ServerFrame, SetChatInfo, UploadInfoKeys,
};
use sealcast::protocol::ids::{ChatId, InfoKeyId, Revision, Seq, SessionId};
use sealcast::protocol::info::{SealedInfo, SignedInfo};
use sealcast::protocol::limits::{DESCRIPTION_BYTES_MAX, INFO_KEY_WRAPS_PER_CHAT_MAX, NAME_BYTES_MAX};

use super::codes::contents;
use super::messages::Pair;
use super::support::broker::Broker;
use super::support::chat::view;
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::library::{ann_and_bob, caught_up, config, event_that, link, register};
use super::support::{eventually, within};

async fn started() -> (Database, Broker) {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    (database, broker)
}

/// What a client shows as a chat's title and description.
async fn shown(client: &Client, chat_id: ChatId) -> (Option<String>, Option<String>) {
    let listed = client.list_chats().await.unwrap();
    let chat = listed.into_iter().find(|chat| chat.chat_id == chat_id).expect("the chat is listed");
    (chat.title, chat.description)
}

async fn shows(client: &Client, chat_id: ChatId, title: &str) {
    eventually("the title", async || shown(client, chat_id).await.0.as_deref() == Some(title)).await;
}

fn secrets(device: &Device) -> SessionSecrets {
    let halves = serde_json::json!({"exchange": device.exchange, "signing": device.signing.to_bytes()});
    serde_json::from_value(halves).unwrap()
}

/// What a device without a client of ours was ever given of a chat's keys.
struct Held {
    device: Device,
    keys: BTreeMap<InfoKeyId, Secret>,
}

impl Held {
    fn new(device: Device) -> Self {
        Self { device, keys: BTreeMap::new() }
    }

    /// Opens what is pushed; gives the title, if it can be opened.
    fn take(&mut self, shown: &ChatInfoChanged) -> Option<String> {
        if let Some(wrapped) = &shown.info_key {
            let me = (self.device.session_id, &secrets(&self.device));
            if let Ok(secret) = wrap::open_info_key(wrapped, shown.chat_id, me) {
                self.keys.insert(wrapped.key_id, secret);
            }
        }
        let signed = shown.info.as_ref()?;
        let secret = self.keys.get(&signed.info.key_id)?;
        info::open(secret, shown.chat_id, &signed.info).ok()?.name
    }

    async fn hears(&mut self, socket: &mut Socket, title: &str) {
        socket
            .push_that(|frame| match frame {
                ServerFrame::ChatInfo(shown) => (self.take(shown).as_deref() == Some(title)).then_some(()),
                _ => None,
            })
            .await;
    }

    /// Tries all keys, and the wraps to this session that the server has, on what the server stores.
    async fn can_read(&self, database: &Database, chat_id: ChatId) -> bool {
        let client = database.client().await;
        let statement = "SELECT name, info_key_id, info_revision FROM chats WHERE id = $1";
        let row = client.query_one(statement, &[&chat_id.0]).await.unwrap();
        let mut sealed = SealedInfo {
            revision: Revision::saturating(row.get::<_, i64>(2) as u64),
            key_id: InfoKeyId(row.get(1)),
            key_seq: Seq::default(),
            session_id: self.device.session_id,
            name: Some(Blob::from(row.get::<_, Vec<u8>>(0))),
            description: None,
        };
        let wraps = "SELECT count(*) FROM vault_chat_info_keys WHERE chat_id = $1 AND session_id = $2";
        let wraps: i64 = client.query_one(wraps, &[&chat_id.0, &self.device.session_id.0]).await.unwrap().get(0);
        let current = sealed.key_id;
        wraps > 0
            || self.keys.iter().any(|(key_id, secret)| {
                [*key_id, current].into_iter().any(|key_id| {
                    sealed.key_id = key_id;
                    info::open(secret, chat_id, &sealed).is_ok()
                })
            })
    }
}

#[tokio::test]
async fn a_title_reaches_those_who_may_read_it_and_nobody_who_lost_access() {
    let (database, broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let carol = Device::register(&broker, "carol").await;
    let eve = Held::new(Device::register(&broker, "eve").await);
    let mut carol_socket = carol.connect_live(&broker).await;
    let mut carol = Held::new(carol);
    ann.add_member(chat_id, "carol", true, false).await.unwrap();
    let mut events = bob.events();
    ann.set_chat_info(chat_id, Some("Tea at six"), Some("Bring a cup.")).await.unwrap();
    let changed = |event: &Event| matches!(event, Event::InfoChanged { .. }).then_some(());
    event_that("the new title", &mut events, changed).await;
    assert_eq!(shown(&bob, chat_id).await, (Some("Tea at six".into()), Some("Bring a cup.".into())));
    carol.hears(&mut carol_socket, "Tea at six").await;
    assert!(carol.can_read(&database, chat_id).await && !eve.can_read(&database, chat_id).await);
    // One alone is changed; the other stays. An empty text takes it away.
    ann.set_chat_info(chat_id, Some("Tea at seven"), None).await.unwrap();
    shows(&bob, chat_id, "Tea at seven").await;
    assert_eq!(shown(&bob, chat_id).await.1.as_deref(), Some("Bring a cup."));
    ann.set_chat_info(chat_id, None, Some("")).await.unwrap();
    eventually("no description", async || shown(&bob, chat_id).await.1.is_none()).await;
    carol.hears(&mut carol_socket, "Tea at seven").await;
    let key_of = "SELECT count(DISTINCT info_key_id) FROM chats WHERE info_key_id = '";
    let key = |held: &Held| held.keys.keys().next_back().copied().unwrap();
    let same_key = format!("{key_of}{}'", key(&carol));
    assert_eq!(database.count(&same_key).await, 1, "nobody was lost, so the key stays");

    // A removed member: the next save is under another key, which she has no wrap of.
    ann.remove_member(chat_id, "carol").await.unwrap();
    ann.set_chat_info(chat_id, Some("Without Carol"), None).await.unwrap();
    shows(&bob, chat_id, "Without Carol").await;
    assert_eq!(database.count(&same_key).await, 0);
    assert!(!carol.can_read(&database, chat_id).await);
    let pushed = carol_socket.pushes_so_far().await;
    let is_later = |shown: &ChatInfoChanged| shown.info.as_ref().is_some_and(|signed| signed.info.revision.get() > 3);
    assert!(!pushed.iter().any(|frame| matches!(frame, ServerFrame::ChatInfo(shown) if is_later(shown))), "{pushed:?}");

    // A revoked session: the same.
    let phone = link(&bob, &broker.public).await;
    shows(&phone, chat_id, "Without Carol").await;
    let key_before =
        "SELECT count(*) FROM chats c JOIN vault_chat_info_keys v ON v.chat_id = c.id AND v.key_id = c.info_key_id";
    eventually("a wrap for each session", async || database.count(key_before).await == 3).await;
    bob.revoke_session(phone.session_id()).await.unwrap();
    let seq = bob.head(chat_id).unwrap().seq;
    ann.set_chat_info(chat_id, Some("Without the phone"), None).await.unwrap();
    caught_up(&ann, chat_id, seq).await;
    shows(&bob, chat_id, "Without the phone").await;
    let of_phone = format!("{key_before} AND v.session_id = '{}'", phone.session_id());
    assert_eq!(database.count(&of_phone).await, 0);
    assert_eq!(database.count(key_before).await, 2);
    assert!(!carol.can_read(&database, chat_id).await && !eve.can_read(&database, chat_id).await);
}

#[tokio::test]
async fn a_new_device_gets_the_title_by_itself_also_from_a_holder_who_comes_later() {
    let (database, broker) = started().await;
    let storage = Arc::new(MemoryStorage::default());
    let account = sealcast::client::NewAccount { server: broker.public.clone(), username: "ann".into(), ttl: None };
    let ann = Client::register(config(), account, Arc::clone(&storage) as _).await.unwrap();
    let chat_id = ann.create_chat("Lunch").await.unwrap();
    let carol = Device::register(&broker, "carol").await;
    let mut carol_socket = carol.connect_live(&broker).await;
    ann.add_member(chat_id, "carol", true, false).await.unwrap();
    ann.set_chat_info(chat_id, Some("Tea"), None).await.unwrap();
    // The hand-over of a device that is not ours brings no key: the server finds the new one, and asks who is online.
    let tablet = carol.linked(&broker, &mut carol_socket).await;
    let mut tablet_socket = tablet.connect_live(&broker).await;
    Held::new(tablet).hears(&mut tablet_socket, "Tea").await;
    // Nobody who could open the key is online.
    ann.close().await.unwrap();
    let phone = carol.linked(&broker, &mut carol_socket).await;
    let mut phone_socket = phone.connect_live(&broker).await;
    let asked = format!("SELECT count(*) FROM info_key_requests WHERE session_id = '{}'", phone.session_id);
    eventually("what the phone lacks is noted", async || database.count(&asked).await == 1).await;
    let ann = Client::open(config(), storage).await.unwrap();
    Held::new(phone).hears(&mut phone_socket, "Tea").await;
    eventually("the note is gone", async || database.count(&asked).await == 0).await;
    ann.close().await.unwrap();
}

#[tokio::test]
async fn a_wrap_or_a_title_that_the_server_swaps_is_an_alarm_and_mended_by_who_is_honest() {
    let (database, broker) = started().await;
    let (ann, _, chat_id) = ann_and_bob(&broker.public).await;
    let storage = Arc::new(MemoryStorage::default());
    let account = sealcast::client::NewAccount { server: broker.public.clone(), username: "carol".into(), ttl: None };
    let carol = Client::register(config(), account, Arc::clone(&storage) as _).await.unwrap();
    within("carol to be live", carol.live()).await.unwrap();
    let seq = ann.add_member(chat_id, "carol", true, false).await.unwrap();
    caught_up(&carol, chat_id, seq).await;
    shows(&carol, chat_id, "Lunch").await;
    carol.close().await.unwrap();
    ann.remove_member(chat_id, "bob").await.unwrap();
    ann.set_chat_info(chat_id, Some("Tea"), None).await.unwrap();
    // What stands under the signature is another wrapped key; then a wrap of another session's.
    let swap = format!(
        "UPDATE vault_chat_info_keys SET key = set_byte(key, 40, get_byte(key, 40) # 1) WHERE session_id = '{}'",
        carol.session_id()
    );
    assert_eq!(database.client().await.execute(&swap, &[]).await.unwrap(), 1);
    let carol = Client::open(config(), Arc::clone(&storage) as _).await.unwrap();
    let mut events = carol.events();
    let alarm = event_that("an alarm", &mut events, |event| match event {
        Event::Alarm(alarm) => Some(alarm.failure),
        _ => None,
    });
    assert_eq!(alarm.await, VerificationFailure::InfoKey(ann.session_id()));
    // She asks again, and Ann wraps it again.
    shows(&carol, chat_id, "Tea").await;
    carol.close().await.unwrap();

    ann.set_chat_info(chat_id, Some("Coffee"), None).await.unwrap();
    let swap = "UPDATE chats SET name = set_byte(name, 20, get_byte(name, 20) # 1)";
    database.client().await.execute(swap, &[]).await.unwrap();
    let carol = Client::open(config(), storage).await.unwrap();
    let mut events = carol.events();
    let alarm = event_that("an alarm", &mut events, |event| match event {
        Event::Alarm(alarm) => Some(alarm.failure),
        _ => None,
    });
    assert_eq!(alarm.await, VerificationFailure::Info);
    let (title, _) = shown(&carol, chat_id).await;
    assert_eq!(title.as_deref(), Some("Tea"), "what is not signed is not shown");
}

#[tokio::test]
async fn two_who_save_at_once_and_a_broker_that_is_killed_lose_and_mix_nothing() {
    let (database, mut broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    ann.set_rights(chat_id, "bob", true, true).await.unwrap();
    let save = async |client: &Client, word: &str| {
        for round in 0..4 {
            let (title, description) = (format!("{word} {round}"), format!("of {word} {round}"));
            client.set_chat_info(chat_id, Some(&title), Some(&description)).await.unwrap();
        }
    };
    let kill = async {
        let saved = "SELECT info_revision FROM chats";
        eventually("some saves", async || database.count(saved).await >= 2).await;
        broker.kill_and_restart().await;
    };
    within("all saves", async { tokio::join!(save(&ann, "ann"), save(&bob, "bob"), kill) }).await;
    assert_eq!(database.count("SELECT info_revision FROM chats").await, 8, "each save is one revision");
    eventually("both to show the same", async || {
        let (of_ann, of_bob) = (shown(&ann, chat_id).await, shown(&bob, chat_id).await);
        let (Some(title), Some(description)) = (&of_ann.0, &of_ann.1) else { return false };
        assert_eq!(format!("of {title}"), *description, "the two were saved together");
        of_ann == of_bob
    })
    .await;
}

/// Sends what must be refused; nothing may have changed.
async fn refused(database: &Database, socket: &mut Socket, request: Request) -> sealcast::protocol::frame::Error {
    let before = contents(database).await;
    let error = socket.request(request).await.expect_err("a refusal");
    assert_eq!(contents(database).await, before, "{} changed something", error.code);
    error
}

#[tokio::test]
async fn what_must_not_be_saved_is_refused_and_changes_nothing() {
    let mut pair = Pair::start().await;
    let (chat_id, database) = (pair.chat_id, &pair.database);
    let (ada, bob, socket) = (&pair.ada, &pair.bob, &mut pair.ada_socket);
    let key_id = InfoKeyId::generate();
    let good = ada.named(chat_id, 1, key_id, b"a name of bytes that only look sealed");
    let set = |set: &SetChatInfo| Request::SetChatInfo(Box::new(set.clone()));
    let signed = |change: &dyn Fn(&mut SealedInfo)| {
        let mut info = good.info.info.clone();
        change(&mut info);
        SetChatInfo { info: ada.sign_info(chat_id, info), ..good.clone() }
    };
    let with = |info_keys| SetChatInfo { info_keys, ..good.clone() };
    let own = || ada.info_key_wrap(chat_id, key_id, ada.session_id);
    let unsigned = SignedInfo { signature: Signature([1; 64]), ..good.info.clone() };
    let mut bad_wrap = own();
    bad_wrap.key.0[3] ^= 1;
    let blob = |bytes: usize| Some(Blob::from(vec![1; bytes]));
    let many = || (0..=INFO_KEY_WRAPS_PER_CHAT_MAX).map(|_| own()).collect();
    let elsewhere = SessionId::generate();
    for (request, code) in [
        (SetChatInfo { info: unsigned, ..good.clone() }, ErrorCode::BadSignature),
        (signed(&|info| info.session_id = bob.session_id), ErrorCode::BadSignature),
        (signed(&|info| info.revision = Revision::saturating(2)), ErrorCode::EditConflict),
        (signed(&|info| info.revision = Revision::default()), ErrorCode::EditConflict),
        (signed(&|info| info.key_seq = Seq::saturating(1_000)), ErrorCode::Malformed),
        (signed(&|info| info.key_id = InfoKeyId::generate()), ErrorCode::Malformed),
        (signed(&|info| info.name = blob(NAME_BYTES_MAX + 1)), ErrorCode::TooLarge),
        (signed(&|info| info.description = blob(DESCRIPTION_BYTES_MAX + 1)), ErrorCode::TooLarge),
        (with(Vec::new()), ErrorCode::Malformed),
        (with(vec![ada.info_key_wrap(chat_id, key_id, bob.session_id)]), ErrorCode::Malformed),
        (with(vec![own(), own()]), ErrorCode::Malformed),
        (with(many()), ErrorCode::TooLarge),
        (with(vec![bad_wrap.clone()]), ErrorCode::BadSignature),
        (with(vec![own(), bob.info_key_wrap(chat_id, key_id, bob.session_id)]), ErrorCode::BadSignature),
        (with(vec![own(), ada.info_key_wrap(chat_id, key_id, elsewhere)]), ErrorCode::RecipientsChanged),
    ] {
        let error = refused(database, socket, set(&request)).await;
        assert_eq!(error.code, code, "{request:?}");
        if code == ErrorCode::RecipientsChanged {
            assert_eq!(error.details.unwrap().extra, [elsewhere]);
        }
    }
    let ask = Request::RequestInfoKey(RequestInfoKey { chat_id });
    assert_eq!(refused(database, socket, ask.clone()).await.code, ErrorCode::UnknownKey);
    // Who may not manage may not; the largest and the good are taken, and the good once.
    let by_bob = bob.named(chat_id, 1, key_id, b"bob's name for it");
    assert_eq!(refused(database, &mut pair.bob_socket, set(&by_bob)).await.code, ErrorCode::CannotManage);
    let largest = signed(&|info| (info.name, info.description) = (blob(NAME_BYTES_MAX), blob(DESCRIPTION_BYTES_MAX)));
    socket.request(set(&largest)).await.unwrap();
    // That Bob lacks the key is noted beside the answer.
    let noted = "SELECT count(*) FROM info_key_requests";
    eventually("the note that Bob lacks the key", async || database.count(noted).await == 1).await;
    let before = contents(database).await;
    socket.request(set(&largest)).await.unwrap();
    assert_eq!(contents(database).await, before, "the same request again changes nothing");
    let error = refused(database, socket, set(&good)).await;
    assert_eq!((error.code, error.details.unwrap().revision), (ErrorCode::EditConflict, Some(Revision::saturating(2))));
    // Under the current key: no wraps, and no other word on when it was made.
    let second = |change: &dyn Fn(&mut SetChatInfo)| {
        let mut set = ada.named(chat_id, 2, key_id, b"the second name");
        set.info_keys.clear();
        change(&mut set);
        set.info = ada.sign_info(chat_id, set.info.info);
        Request::SetChatInfo(Box::new(set))
    };
    let moved = second(&|set| set.info.info.key_seq = Seq::saturating(1));
    assert_eq!(refused(database, socket, moved).await.code, ErrorCode::Malformed);
    let with_wraps = second(&|set| set.info_keys = vec![own()]);
    assert_eq!(refused(database, socket, with_wraps).await.code, ErrorCode::Malformed);

    // Wraps by themselves: of the current key, signed by who brings them, for recipients.
    let upload = |info_keys| Request::UploadInfoKeys(UploadInfoKeys { chat_id, info_keys, seal: None });
    for (request, code) in [
        (upload(vec![ada.info_key_wrap(chat_id, InfoKeyId::generate(), bob.session_id)]), ErrorCode::UnknownKey),
        (upload(vec![bad_wrap]), ErrorCode::BadSignature),
        (upload(vec![own(), own()]), ErrorCode::Malformed),
        (upload(many()), ErrorCode::TooLarge),
        (upload(vec![ada.info_key_wrap(chat_id, key_id, elsewhere)]), ErrorCode::RecipientsChanged),
    ] {
        assert_eq!(refused(database, socket, request).await.code, code);
    }
    socket.request(upload(vec![ada.info_key_wrap(chat_id, key_id, bob.session_id)])).await.unwrap();
    let given = |frame: &ServerFrame| match frame {
        ServerFrame::ChatInfo(shown) => shown.info_key.clone(),
        _ => None,
    };
    let wrap = pair.bob_socket.push_that(given).await;
    assert_eq!((wrap.key_id, wrap.wrapped_by_session_id), (key_id, ada.session_id));
    let before = contents(database).await;
    socket.request(upload(vec![ada.info_key_wrap(chat_id, key_id, bob.session_id)])).await.unwrap();
    assert_eq!(contents(database).await, before, "a wrap that is there stays");

    // Somebody is lost: the current key is no use any more, nor one that was made before.
    let tablet = bob.linked(&pair.broker, &mut pair.bob_socket).await;
    bob.revoke(&mut pair.bob_socket, tablet.session_id).await.unwrap();
    let lost = view(socket, chat_id).await.seen.seq;
    let error = refused(database, socket, second(&|_| {})).await;
    assert_eq!((error.code, error.details.unwrap().seq), (ErrorCode::InfoKeyStale, Some(lost)));
    let mut renewed = ada.named(chat_id, 2, InfoKeyId::generate(), b"under another key");
    assert_eq!(refused(database, socket, set(&renewed)).await.code, ErrorCode::InfoKeyStale, "made too early");
    renewed.info.info.key_seq = lost;
    renewed.info = ada.sign_info(chat_id, renewed.info.info);
    socket.request(set(&renewed)).await.unwrap();
    let old = format!("SELECT count(*) FROM vault_chat_info_keys WHERE key_id = '{key_id}'");
    assert_eq!(database.count(&old).await, 0, "wraps of the old key are gone");
    // The wrap that one was given is given up, and asked for.
    socket.request(ask).await.unwrap();
    let Reply::Chats(listed) = socket.request(Request::ListChats(Nothing {})).await.unwrap() else { panic!() };
    assert!(listed.chats[0].info_key.is_none() && listed.chats[0].info.is_some());
}

#[tokio::test]
async fn who_saves_too_often_is_told_to_wait() {
    let database = Database::create().await;
    let settings = super::support::broker::Settings::on(&database).with("limits.membership_changes_per_minute", 3);
    let mut pair = Pair::start_on(database, settings).await;
    let key_id = InfoKeyId::generate();
    let mut last = None;
    for revision in 1..=4 {
        let mut set = pair.ada.named(pair.chat_id, revision, key_id, b"again and again");
        if revision > 1 {
            set.info_keys.clear();
        }
        last = pair.ada_socket.request(Request::SetChatInfo(Box::new(set))).await.err();
        if last.is_some() {
            break;
        }
    }
    assert_eq!(last.expect("a refusal").code, ErrorCode::RateLimited);
}

#[tokio::test]
async fn who_was_lost_while_a_save_was_under_way_cannot_read_it() {
    let (database, broker) = started().await;
    let (ann, bob, chat_id) = ann_and_bob(&broker.public).await;
    let carol = Device::register(&broker, "carol").await;
    let _socket = carol.connect_live(&broker).await;
    ann.set_rights(chat_id, "bob", true, true).await.unwrap();
    for round in 0..3 {
        ann.add_member(chat_id, "carol", true, false).await.unwrap();
        let title = format!("Round {round}");
        let saving = bob.set_chat_info(chat_id, Some(&title), None);
        let (removed, saved) = tokio::join!(ann.remove_member(chat_id, "carol"), saving);
        removed.unwrap();
        saved.unwrap();
        let wraps = format!("SELECT count(*) FROM vault_chat_info_keys WHERE session_id = '{}'", carol.session_id);
        assert_eq!(database.count(&wraps).await, 0);
        bob.set_chat_info(chat_id, None, Some(&title)).await.unwrap();
        let fresh = "SELECT count(*) FROM chats WHERE info_key_seq >= info_lost_seq AND info_lost_seq > 0";
        assert_eq!(database.count(fresh).await, 1, "the key was made after she was lost");
    }
    let other = register(&broker.public, "dora").await;
    assert!(other.list_chats().await.unwrap().is_empty());
}
