//! What a chat is called, on a device that has nothing but the password, with nobody else online.

use sealcast::client::{Client, Event, VerificationFailure};
use sealcast::crypto::info::{InfoPlace, PlainInfo};
use sealcast::crypto::{Secret, SessionSecrets, info, info_seal};
use sealcast::protocol::binary::ExchangeKey;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{Request, UploadInfoKeys};
use sealcast::protocol::group_key::RecoveryKey;
use sealcast::protocol::ids::{GenerationNo, InfoKeyId, Revision, Seq};
use sealcast::protocol::info_seal::InfoKeySeal;

use super::super::passwords::{self, password};
use super::super::support::chat::view;
use super::super::support::clients::event;
use super::super::support::device::{Device, Socket};
use super::super::support::eventually;
use super::{PASSWORD, Two, say};

/// Seals of a chat's current info key to the current generation.
const CURRENT: &str = "SELECT count(*) FROM info_key_seals s JOIN chats c ON c.id = s.chat_id \
    AND s.key_id = c.info_key_id AND s.generation = c.group_key_generation AND NOT c.generation_outdated";

/// What a client shows of the chat.
async fn shown(client: &Client, two: &Two) -> (Option<String>, Option<String>) {
    let listed = client.list_chats().await.unwrap();
    let chat = listed.into_iter().find(|chat| chat.chat_id == two.chat_id).expect("the chat is listed");
    (chat.title, chat.description)
}

async fn is_sealed(two: &Two) {
    eventually("a seal for the newest generation", async || two.database.count(CURRENT).await == 1).await;
}

#[tokio::test]
async fn p8_the_password_alone_shows_what_a_chat_is_called_with_nobody_online() {
    let two = Two::start().await;
    // Bob has no user key, and makes the group key; whoever holds the info key seals it to that by itself.
    say(&two.bob, two.chat_id, &["hello"]).await;
    is_sealed(&two).await;
    two.lose_ada().await;
    two.bob.close().await.unwrap();
    let ada = two.ada_again().await;
    assert_eq!(shown(&ada, &two).await, (Some("history".to_owned()), None));
    assert_eq!(two.all(&ada).await, ["hello"]);
    // It counts as one that holds the key, and is not waited for any more.
    let lacking = "SELECT count(*) FROM info_key_requests";
    eventually("nobody lacks the key", async || {
        let own = format!("SELECT count(*) FROM vault_chat_info_keys WHERE session_id = '{}'", ada.session_id());
        two.database.count(lacking).await == 0 && two.database.count(&own).await == 1
    })
    .await;

    // What is saved is sealed in the transaction that saves it; the group key that is due is made for it.
    let carol = passwords::register(&two.broker, "carol", "battery staple").await;
    ada.add_member(two.chat_id, "carol", true, false).await.unwrap();
    two.same(&carol).await;
    ada.set_chat_info(two.chat_id, Some("With Carol"), Some("All three.")).await.unwrap();
    is_sealed(&two).await;
    ada.remove_member(two.chat_id, "carol").await.unwrap();
    ada.set_chat_info(two.chat_id, Some("Without Carol"), None).await.unwrap();
    assert_eq!(two.database.count(CURRENT).await, 1);
    // Carol has the group key of before, and nothing of what is saved now is sealed to that.
    let for_carol = "SELECT count(*) FROM info_key_seals s JOIN group_keys k ON k.group_id = s.chat_id \
        AND k.generation = s.generation JOIN users u ON u.id = k.user_id WHERE u.username = 'carol'";
    assert_eq!(two.database.count(for_carol).await, 0);
    assert_eq!(two.database.count("SELECT count(*) FROM info_key_seals").await, 1, "the older ones are gone");
    ada.close().await.unwrap();
    let again = two.ada_again().await;
    assert_eq!(shown(&again, &two).await, (Some("Without Carol".to_owned()), Some("All three.".to_owned())));
    // Carol's new device is shown nothing.
    carol.close().await.unwrap();
    let carol = passwords::log_in(&two.broker, "carol", "battery staple").await.unwrap();
    carol.recovered().await.unwrap();
    assert!(carol.list_chats().await.unwrap().is_empty());
}

#[tokio::test]
async fn p8_a_seal_by_ones_own_lost_device_serves_until_it_is_revoked() {
    let two = Two::start().await;
    say(&two.ada, two.chat_id, &["hello"]).await;
    two.ada.set_chat_info(two.chat_id, Some("Tea"), None).await.unwrap();
    is_sealed(&two).await;
    let phone = two.ada.session_id();
    two.lose_ada().await;
    two.bob.close().await.unwrap();
    let again = two.ada_again().await;
    assert_eq!(shown(&again, &two).await.0.as_deref(), Some("Tea"));
    // The phone had been given the sealed halves: the user key goes with it, and the group key.
    let unlocked = again.unlock(&password(PASSWORD)).await.unwrap();
    again.revoke_session(phone).await.unwrap();
    drop(unlocked);
    again.recover_history(&password(PASSWORD)).await.unwrap();
    two.same(&again).await;
    say(&again, two.chat_id, &["the phone is gone"]).await;
    is_sealed(&two).await;
    again.close().await.unwrap();
    let third = two.ada_again().await;
    assert_eq!(shown(&third, &two).await.0.as_deref(), Some("Tea"));
}

/// Ada on a device that has nothing but the password finds a bad seal, and all else opens.
async fn finds(two: &Two, by: sealcast::protocol::ids::SessionId, said: &[&str]) -> Client {
    let ada = two.ada_again().await;
    let mut events = ada.events();
    ada.recover_history(&password(PASSWORD)).await.unwrap();
    event("the alarm", &mut events, |event| match event {
        Event::Alarm(alarm) if alarm.failure == VerificationFailure::InfoKeySeal(by) => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(shown(&ada, two).await, (None, None));
    assert_eq!(two.all(&ada).await, said);
    ada
}

#[tokio::test]
async fn p7_a_seal_that_the_server_swaps_is_named_and_the_title_comes_from_who_is_honest() {
    let mut two = Two::start().await;
    let storage = std::sync::Arc::new(sealcast::client::MemoryStorage::default());
    let cyd =
        super::super::support::clients::register_in(&two.broker, "cyd", std::sync::Arc::clone(&storage) as _).await;
    two.ada.add_member(two.chat_id, "cyd", true, false).await.unwrap();
    two.same(&cyd).await;
    two.ada.close().await.unwrap();
    two.bob.close().await.unwrap();
    say(&cyd, two.chat_id, &["hello"]).await;
    is_sealed(&two).await;
    let by = cyd.session_id();
    cyd.close().await.unwrap();
    let client = two.database.client().await;
    let swap = "UPDATE info_key_seals SET key = set_byte(key, 40, get_byte(key, 40) # 1)";
    assert_eq!(client.execute(swap, &[]).await.unwrap(), 1);
    let ada = finds(&two, by, &["hello"]).await;
    let cyd = super::super::support::clients::open(storage).await;
    eventually("the title", async || shown(&ada, &two).await.0.as_deref() == Some("history")).await;
    cyd.close().await.unwrap();
    two.ada = ada;
}

/// Eve, who brings the first seal of the generation that is current.
async fn seals(two: &Two, eve: &Device, socket: &mut Socket, make: impl Fn(InfoKeyId, GenerationNo) -> InfoKeySeal) {
    let client = two.database.client().await;
    let row = client.query_one("SELECT info_key_id, group_key_generation FROM chats", &[]).await.unwrap();
    let (key_id, generation) = (InfoKeyId(row.get(0)), GenerationNo::saturating(row.get::<_, i64>(1).cast_unsigned()));
    client.execute("DELETE FROM info_key_seals", &[]).await.unwrap();
    let request = UploadInfoKeys { chat_id: two.chat_id, info_keys: Vec::new(), seal: Some(make(key_id, generation)) };
    socket.request(Request::UploadInfoKeys(request)).await.unwrap();
    let of_eve = format!("SELECT count(*) FROM info_key_seals WHERE sealed_by_session_id = '{}'", eve.session_id);
    assert_eq!(two.database.count(&of_eve).await, 1);
}

#[tokio::test]
async fn p7_a_member_who_seals_another_key_or_garbage_is_named_and_hides_no_more_than_the_title() {
    let two = Two::start().await;
    let eve = Device::register(&two.broker, "eve").await;
    let mut socket = eve.connect_live(&two.broker).await;
    two.ada.add_member(two.chat_id, "eve", true, false).await.unwrap();
    two.same(&two.bob).await;
    say(&two.bob, two.chat_id, &["hello"]).await;
    two.bob.set_chat_info(two.chat_id, Some("Tea"), None).await.unwrap();
    is_sealed(&two).await;
    two.lose_ada().await;
    two.bob.close().await.unwrap();
    let chat_id = two.chat_id;
    seals(&two, &eve, &mut socket, |key_id, generation| eve.info_key_seal(chat_id, key_id, generation)).await;
    finds(&two, eve.session_id, &["hello"]).await.close().await.unwrap();
    // One that opens, to another key than that of what was saved.
    let recovery = view(&mut socket, chat_id).await.fold.recovery_key().unwrap();
    let secrets = secrets(&eve);
    seals(&two, &eve, &mut socket, |key_id, _| {
        info_seal::seal(&Secret::generate(), chat_id, key_id, &recovery, (eve.session_id, &secrets)).unwrap()
    })
    .await;
    let ada = finds(&two, eve.session_id, &["hello"]).await;
    // Where the title is known already the two are compared, too.
    let with_wrap = "SELECT count(*) FROM info_key_seals";
    assert_eq!(two.database.count(with_wrap).await, 1);
    // Without eve there is another group key, and a seal for it by whoever holds the info key.
    let request = Request::UploadInfoKeys(UploadInfoKeys { chat_id, info_keys: Vec::new(), seal: None });
    socket.request(request.clone()).await.unwrap();
    ada.remove_member(chat_id, "eve").await.unwrap();
    assert_eq!(socket.request(request).await.unwrap_err().code, ErrorCode::UnknownChat);
    ada.set_chat_info(chat_id, Some("Coffee"), Some("Without eve.")).await.unwrap();
    ada.close().await.unwrap();
    let again = two.ada_again().await;
    assert_eq!(shown(&again, &two).await.0.as_deref(), Some("Coffee"));
}

#[tokio::test]
async fn p7_who_has_left_shows_no_title_of_theirs_on_a_new_device_even_together_with_the_server() {
    let two = Two::start().await;
    let eve = Device::register(&two.broker, "eve").await;
    let _socket = eve.connect_live(&two.broker).await;
    two.ada.add_member(two.chat_id, "eve", true, true).await.unwrap();
    two.same(&two.bob).await;
    two.ada.remove_member(two.chat_id, "eve").await.unwrap();
    two.ada.set_chat_info(two.chat_id, Some("Tea"), None).await.unwrap();
    is_sealed(&two).await;
    two.lose_ada().await;
    two.bob.close().await.unwrap();
    // Eve's name for it under a key of her own, which she seals to the group key of after her time: its public half is
    // no secret, and the server puts both where they are looked for.
    let client = two.database.client().await;
    let now = "SELECT info_revision, last_seq, group_key_generation, recovery_public_key FROM chats";
    let row = client.query_one(now, &[]).await.unwrap();
    let number = |column: usize| row.get::<_, i64>(column).cast_unsigned();
    let (secret, key_id) = (Secret::generate(), InfoKeyId::generate());
    let secrets = secrets(&eve);
    let by = (eve.session_id, &secrets);
    let (revision, key_seq) = (Revision::saturating(number(0) + 1), Seq::saturating(number(1)));
    let place = InfoPlace { chat_id: two.chat_id, revision, key_id, key_seq };
    let plain = PlainInfo { name: Some("Eve's".to_owned()), description: None };
    let named = info::seal(&secret, place, &plain, by).unwrap();
    let public_key = ExchangeKey::try_from(row.get::<_, Vec<u8>>(3).as_slice()).unwrap();
    let recovery = RecoveryKey { generation: GenerationNo::saturating(number(2)), public_key };
    let seal = info_seal::seal(&secret, two.chat_id, key_id, &recovery, by).unwrap();
    let name = named.info.name.as_ref().unwrap().as_ref();
    let signature = named.signature.as_ref();
    let statement = "UPDATE chats SET name = $1, info_key_id = $2, info_revision = info_revision + 1, \
        info_session_id = $3, info_signature = $4, info_key_seq = last_seq";
    client.execute(statement, &[&name, &key_id.0, &eve.session_id.0, &signature]).await.unwrap();
    let statement = "UPDATE info_key_seals SET key_id = $1, key = $2, sealed_by_session_id = $3, signature = $4";
    let (key, signature) = (seal.key.as_ref(), seal.signature.as_ref());
    client.execute(statement, &[&key_id.0, &key, &eve.session_id.0, &signature]).await.unwrap();
    let ada = two.ada_again().await;
    assert_eq!(shown(&ada, &two).await, (None, None));
}

fn secrets(device: &Device) -> SessionSecrets {
    let halves = serde_json::json!({"exchange": device.exchange, "signing": device.signing.to_bytes()});
    serde_json::from_value(halves).unwrap()
}
