//! Copies of sender keys beside the messages, by the bare protocol: handed on, asked for, refused.

use sealcast::protocol::binary::WrappedKey;
use sealcast::protocol::canonical::sha256;
use sealcast::protocol::error::{ErrorCode, MissingReason};
use sealcast::protocol::frame::{
    self, FurtherCopy, KeyRequested, Keys, Nothing, Reply, Request, RequestKeys, SendOk, ServerFrame, UploadCopies,
};
use sealcast::protocol::ids::{ChatId, KeyId, SessionId};
use sealcast::protocol::limits::{COPIES_PER_FRAME_MAX, KEY_REQUESTS_MAX, KEYS_PER_REQUEST_MAX, REFUSALS_PER_HOUR_MAX};

use super::messages::Pair;
use super::support::broker::Settings;
use super::support::chat::{SenderKey, View, copy_for, submit, view};
use super::support::database::Database;
use super::support::device::{Device, Socket};
use super::support::link::sessions;

fn further(key_id: KeyId, session_id: SessionId) -> FurtherCopy {
    FurtherCopy { key_id, session_id, key: copy_for(session_id).key }
}

async fn upload(socket: &mut Socket, chat_id: ChatId, copies: Vec<FurtherCopy>) -> Result<(), frame::Error> {
    let reply = socket.request(Request::UploadCopies(UploadCopies { chat_id, copies })).await?;
    assert_eq!(reply, Reply::Done(Nothing {}));
    Ok(())
}

async fn ask(socket: &mut Socket, chat_id: ChatId, key_ids: Vec<KeyId>) -> Result<(), frame::Error> {
    let reply = socket.request(Request::RequestKeys(RequestKeys { chat_id, key_ids })).await?;
    assert_eq!(reply, Reply::Done(Nothing {}));
    Ok(())
}

/// The copy that a session has of a key.
async fn copy_of(socket: &mut Socket, chat_id: ChatId, key_id: KeyId) -> Option<WrappedKey> {
    let reply = socket.request(Request::Keys(Keys { chat_id, key_ids: vec![key_id] })).await.unwrap();
    let Reply::Keys(list) = reply else { panic!("{reply:?}") };
    list.keys.into_iter().find(|key| key.announcement.announcement.key_id == key_id).and_then(|key| key.key)
}

/// Refuses the copy that a session has.
async fn refuse(device: &Device, socket: &mut Socket, chat_id: ChatId, key_id: KeyId) -> Result<(), frame::Error> {
    let copy = copy_of(socket, chat_id, key_id).await.expect("a copy to refuse");
    let refusal = device.refusal_of(chat_id, key_id, sha256(copy.as_ref()));
    let reply = socket.request(Request::RefuseCopy(refusal)).await?;
    assert_eq!(reply, Reply::Done(Nothing {}));
    Ok(())
}

async fn requested(socket: &mut Socket) -> KeyRequested {
    socket
        .push_that(|push| match push {
            ServerFrame::KeyRequested(requested) => Some(requested.clone()),
            _ => None,
        })
        .await
}

impl SenderKey {
    fn id(&self) -> KeyId {
        self.announcement.announcement.key_id
    }
}

/// A pair in which Ada has sent one message under a key.
async fn said(pair: &mut Pair) -> (View, SenderKey) {
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"said");
    submit(&mut pair.ada_socket, message).await.unwrap();
    (view(&mut pair.ada_socket, pair.chat_id).await, key)
}

/// The next message under a key, by what its sender sees now, with copies for those for whom they are asked.
async fn go_on(pair: &mut Pair, key: &mut SenderKey, add: &[SessionId]) -> Result<SendOk, frame::Error> {
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut message = pair.ada.seal(&now, key, b"goes on");
    message.add_copies = add.iter().map(|session_id| copy_for(*session_id)).collect();
    let sent = submit(&mut pair.ada_socket, message).await;
    key.counter -= u64::from(sent.is_err());
    sent
}

fn refused_copy_of(error: &frame::Error, session_id: SessionId) {
    assert_eq!(error.code, ErrorCode::CopiesMissing);
    let details = error.details.as_ref().unwrap();
    assert_eq!((&details.missing[..], details.reason), (&[session_id][..], Some(MissingReason::Refused)));
}

#[tokio::test]
async fn p4_a_holder_covers_a_key_and_its_sender_need_not() {
    let mut pair = Pair::start().await;
    let (_, mut key) = said(&mut pair).await;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    let refused = go_on(&mut pair, &mut key, &[]).await.unwrap_err();
    assert_eq!(refused.details.unwrap().missing, [tablet.session_id]);
    // The chat is loaded and believes that a copy is missing.
    let copy = further(key.id(), tablet.session_id);
    upload(&mut pair.bob_socket, pair.chat_id, vec![copy.clone()]).await.unwrap();
    let pushed = tablet_socket
        .push_that(|push| match push {
            ServerFrame::Key(push) if push.key.announcement == key.announcement => Some(push.key.key),
            _ => None,
        })
        .await;
    assert_eq!(pushed, Some(copy.key));
    go_on(&mut pair, &mut key, &[]).await.expect("the holder's copy covers the key");

    // Never overwritten, and the answer is the same.
    upload(&mut pair.bob_socket, pair.chat_id, vec![further(key.id(), tablet.session_id)]).await.unwrap();
    assert_eq!(copy_of(&mut tablet_socket, pair.chat_id, key.id()).await, Some(copy.key));
    // What is stored counts, not what is remembered.
    pair.broker.kill_and_restart().await;
    pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
    go_on(&mut pair, &mut key, &[]).await.unwrap();
}

#[tokio::test]
async fn who_may_not_hand_on_is_refused_and_nothing_is_stored() {
    let mut pair = Pair::start().await;
    let (_, key) = said(&mut pair).await;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eve_socket = eve.connect_live(&pair.broker).await;
    let chat_id = pair.chat_id;
    let before = pair.database.count("SELECT count(*) FROM vault_chat_sender_keys").await;

    let for_tablet = || vec![further(key.id(), tablet.session_id)];
    let refused = upload(&mut tablet_socket, chat_id, for_tablet()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotKeyHolder, "a session that has no copy itself");
    let refused = upload(&mut eve_socket, chat_id, for_tablet()).await.unwrap_err();
    assert_eq!((refused.code, refused.details), (ErrorCode::UnknownChat, None));
    let unknown = vec![further(KeyId::generate(), tablet.session_id), for_tablet().remove(0)];
    let refused = upload(&mut pair.bob_socket, chat_id, unknown).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownKey);
    let for_eve = vec![for_tablet().remove(0), further(key.id(), eve.session_id)];
    let refused = upload(&mut pair.bob_socket, chat_id, for_eve).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RecipientsChanged);
    assert_eq!(refused.details.unwrap().extra, [eve.session_id]);
    let twice = vec![for_tablet().remove(0), for_tablet().remove(0)];
    assert_eq!(upload(&mut pair.bob_socket, chat_id, twice).await.unwrap_err().code, ErrorCode::Malformed);
    let many = (0..=COPIES_PER_FRAME_MAX).map(|_| further(key.id(), SessionId::generate())).collect();
    let refused = upload(&mut pair.bob_socket, chat_id, many).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert_eq!(refused.details.unwrap().limit, Some(COPIES_PER_FRAME_MAX as u64));

    for (socket, key_ids, code) in [
        (&mut eve_socket, vec![key.id()], ErrorCode::UnknownChat),
        (&mut tablet_socket, vec![key.id(), KeyId::generate()], ErrorCode::UnknownKey),
        (&mut pair.bob_socket, (0..=KEYS_PER_REQUEST_MAX).map(|_| KeyId::generate()).collect(), ErrorCode::TooLarge),
    ] {
        assert_eq!(ask(socket, chat_id, key_ids).await.unwrap_err().code, code);
    }
    assert_eq!(pair.database.count("SELECT count(*) FROM vault_chat_sender_keys").await, before);
    assert_eq!(pair.database.count("SELECT count(*) FROM key_requests").await, 0);
    upload(&mut pair.bob_socket, chat_id, for_tablet()).await.unwrap();
}

#[tokio::test]
async fn a_session_may_lack_so_many_keys_at_once_and_no_more() {
    let mut pair = Pair::start().await;
    let (_, key) = said(&mut pair).await;
    // Keys like the one that was used, which their sender alone holds: asked for by nobody who has them.
    let client = pair.database.client().await;
    let keys = "INSERT INTO sender_keys (chat_id, key_id, sender_session_id, epoch, commitment, announcement, \
             last_counter, messages_with_data, first_seq, created_at) \
         SELECT chat_id, gen_random_uuid(), sender_session_id, epoch, commitment, announcement, 1, 1, first_seq, created_at \
         FROM sender_keys, generate_series(0, $2) WHERE key_id = $1 RETURNING key_id";
    let many = i32::try_from(KEY_REQUESTS_MAX).unwrap();
    let rows = client.query(keys, &[&key.id().0, &many]).await.unwrap();
    let key_ids: Vec<KeyId> = rows.iter().map(|row| KeyId(row.get(0))).collect();
    let copies = "INSERT INTO vault_chat_sender_keys \
             (chat_id, sender_key_id, session_id, sender_session_id, key, uploaded_by_session_id) \
         SELECT k.chat_id, k.key_id, k.sender_session_id, k.sender_session_id, $1, k.sender_session_id FROM sender_keys k \
         WHERE NOT EXISTS (SELECT 1 FROM vault_chat_sender_keys v WHERE v.sender_key_id = k.key_id)";
    client.execute(copies, &[&copy_for(pair.ada.session_id).key.as_ref()]).await.unwrap();

    let (last, allowed) = key_ids.split_last().unwrap();
    for part in allowed.chunks(KEYS_PER_REQUEST_MAX) {
        ask(&mut pair.bob_socket, pair.chat_id, part.to_vec()).await.unwrap();
    }
    let refused = ask(&mut pair.bob_socket, pair.chat_id, vec![*last]).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::LimitReached);
    assert_eq!(refused.details.unwrap().limit, Some(KEY_REQUESTS_MAX));
    let noted = pair.database.count("SELECT count(*) FROM key_requests").await;
    assert_eq!(noted, i64::from(many), "what was refused left nothing behind");
    // What is asked for again counts once.
    ask(&mut pair.bob_socket, pair.chat_id, vec![allowed[0]]).await.unwrap();
}

#[tokio::test]
async fn a_newcomer_gets_no_key_from_before_their_time_except_from_its_sender() {
    let mut pair = Pair::start().await;
    let (_, key) = said(&mut pair).await;
    let carol = Device::register(&pair.broker, "carol").await;
    let mut carol_socket = carol.connect_live(&pair.broker).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &carol).await.unwrap();
    let for_carol = vec![further(key.id(), carol.session_id)];
    let refused = upload(&mut pair.bob_socket, pair.chat_id, for_carol.clone()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::HistoryNotAllowed);
    assert_eq!(refused.details.unwrap().user_id, Some(carol.user_id));
    let refused = ask(&mut carol_socket, pair.chat_id, vec![key.id()]).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::HistoryNotAllowed);
    assert_eq!(copy_of(&mut carol_socket, pair.chat_id, key.id()).await, None);

    // A key that was used after the joining may be handed on by whoever holds it.
    let (_, later) = said(&mut pair).await;
    let phone = carol.linked(&pair.broker, &mut carol_socket).await;
    upload(&mut pair.bob_socket, pair.chat_id, vec![further(later.id(), phone.session_id)]).await.unwrap();
    // What one wrote oneself one may show to whom one likes.
    upload(&mut pair.ada_socket, pair.chat_id, for_carol).await.unwrap();
}

#[tokio::test]
async fn what_is_lacking_is_asked_of_who_is_there_and_of_who_comes() {
    let mut pair = Pair::start().await;
    let (_, key) = said(&mut pair).await;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    ask(&mut tablet_socket, pair.chat_id, vec![key.id()]).await.unwrap();
    let expected = KeyRequested { chat_id: pair.chat_id, session_id: tablet.session_id, key_ids: vec![key.id()] };
    assert_eq!(requested(&mut pair.ada_socket).await, expected, "whose key it is");
    assert_eq!(requested(&mut pair.bob_socket).await, expected, "who holds a copy");
    assert_eq!(pair.database.count("SELECT count(*) FROM key_requests").await, 1);

    pair.broker.kill_and_restart().await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    let mut bob_socket = pair.bob.connect_live(&pair.broker).await;
    assert_eq!(requested(&mut bob_socket).await, expected, "who comes later");
    upload(&mut bob_socket, pair.chat_id, vec![further(key.id(), tablet.session_id)]).await.unwrap();
    tablet_socket.push_that(|push| matches!(push, ServerFrame::Key(_)).then_some(())).await;
    assert_eq!(pair.database.count("SELECT count(*) FROM key_requests").await, 0);
    let told = tablet_socket.pushes_so_far().await;
    assert!(!told.iter().any(|push| matches!(push, ServerFrame::KeyRequested(_))), "one does not ask oneself");
    // Nothing is lacking any more, so nobody is asked.
    ask(&mut tablet_socket, pair.chat_id, vec![key.id()]).await.unwrap();
    assert_eq!(pair.database.count("SELECT count(*) FROM key_requests").await, 0);
}

#[tokio::test]
async fn p4_a_bad_copy_is_mended_once_and_then_counts_as_present() {
    let mut pair = Pair::start().await;
    let (_, mut key) = said(&mut pair).await;
    let (chat_id, bob) = (pair.chat_id, pair.bob.session_id);
    pair.bob_socket.pushes_so_far().await;

    let forged = pair.ada.refusal_of(chat_id, key.id(), sha256(b"any"));
    let refused = pair.bob_socket.request(Request::RefuseCopy(forged)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::BadSignature);
    let other = pair.bob.copy_refusal(chat_id, key.id());
    let refused = pair.bob_socket.request(Request::RefuseCopy(other)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownKey, "another copy than the one that is stored");

    let first = copy_of(&mut pair.bob_socket, chat_id, key.id()).await.unwrap();
    refuse(&pair.bob, &mut pair.bob_socket, chat_id, key.id()).await.unwrap();
    for socket in [&mut pair.ada_socket, &mut pair.bob_socket] {
        let told = socket
            .push_that(|push| match push {
                ServerFrame::CopyRefused(told) => Some(told.clone()),
                _ => None,
            })
            .await;
        assert_eq!((told.sender_session_id, told.uploaded_by_session_id), (pair.ada.session_id, pair.ada.session_id));
        assert_eq!((told.refusal.refusal.session_id, told.refusal.refusal.copy_hash), (bob, sha256(first.as_ref())));
    }
    assert_eq!(copy_of(&mut pair.bob_socket, chat_id, key.id()).await, None, "the copy is void");
    // The same word again changes nothing and is no error.
    let again = pair.bob.refusal_of(chat_id, key.id(), sha256(first.as_ref()));
    pair.bob_socket.request(Request::RefuseCopy(again)).await.unwrap();

    refused_copy_of(&go_on(&mut pair, &mut key, &[]).await.unwrap_err(), bob);
    let sent = go_on(&mut pair, &mut key, &[bob]).await.unwrap();
    assert_eq!(sent.refused, []);

    refuse(&pair.bob, &mut pair.bob_socket, chat_id, key.id()).await.unwrap();
    let sent = go_on(&mut pair, &mut key, &[]).await.expect("a second refusal stops nobody");
    assert_eq!(sent.refused, [bob]);
    // The same when the chat is loaded anew.
    pair.broker.kill_and_restart().await;
    pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
    pair.bob_socket = pair.bob.connect_live(&pair.broker).await;
    assert_eq!(go_on(&mut pair, &mut key, &[]).await.unwrap().refused, [bob]);
    refuse(&pair.bob, &mut pair.bob_socket, chat_id, key.id()).await.unwrap();
    assert_eq!(go_on(&mut pair, &mut key, &[]).await.unwrap().refused, [bob]);
}

#[tokio::test]
async fn a_sibling_replaces_what_was_refused_for_good() {
    let mut pair = Pair::start().await;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    let (_, mut key) = said(&mut pair).await;
    let (chat_id, bad) = (pair.chat_id, tablet.session_id);
    refuse(&tablet, &mut tablet_socket, chat_id, key.id()).await.unwrap();
    refused_copy_of(&go_on(&mut pair, &mut key, &[]).await.unwrap_err(), bad);
    go_on(&mut pair, &mut key, &[bad]).await.unwrap();
    refuse(&tablet, &mut tablet_socket, chat_id, key.id()).await.unwrap();
    assert_eq!(go_on(&mut pair, &mut key, &[]).await.unwrap().refused, [bad]);

    // Who refused a copy for good holds none, and may ask for another.
    let refused = upload(&mut tablet_socket, chat_id, vec![further(key.id(), pair.bob.session_id)]).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotKeyHolder);
    ask(&mut tablet_socket, chat_id, vec![key.id()]).await.unwrap();
    requested(&mut pair.bob_socket).await;
    // The sender's third try is no better than its second.
    upload(&mut pair.ada_socket, chat_id, vec![further(key.id(), bad)]).await.unwrap();
    assert_eq!(pair.database.count("SELECT count(*) FROM key_requests").await, 1, "that answers nothing");
    let good = further(key.id(), bad);
    upload(&mut pair.bob_socket, chat_id, vec![good.clone()]).await.unwrap();
    assert_eq!(copy_of(&mut tablet_socket, chat_id, key.id()).await, Some(good.key));
    assert_eq!(pair.database.count("SELECT count(*) FROM key_requests").await, 0);
    assert_eq!(go_on(&mut pair, &mut key, &[]).await.unwrap().refused, []);
}

#[tokio::test]
async fn anothers_bad_copy_never_counts_against_the_sender() {
    let mut pair = Pair::start().await;
    let (_, mut key) = said(&mut pair).await;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    let (chat_id, bad) = (pair.chat_id, tablet.session_id);
    for _ in 0..2 {
        upload(&mut pair.bob_socket, chat_id, vec![further(key.id(), bad)]).await.unwrap();
        go_on(&mut pair, &mut key, &[]).await.unwrap();
        refuse(&tablet, &mut tablet_socket, chat_id, key.id()).await.unwrap();
        let told = pair
            .ada_socket
            .push_that(|push| match push {
                ServerFrame::CopyRefused(told) => Some(told.clone()),
                _ => None,
            })
            .await;
        assert_eq!(told.uploaded_by_session_id, pair.bob.session_id, "who uploaded it is named");
        refused_copy_of(&go_on(&mut pair, &mut key, &[]).await.unwrap_err(), bad);
    }
    go_on(&mut pair, &mut key, &[bad]).await.unwrap();
    refuse(&tablet, &mut tablet_socket, chat_id, key.id()).await.unwrap();
    refused_copy_of(&go_on(&mut pair, &mut key, &[]).await.unwrap_err(), bad);
    assert_eq!(go_on(&mut pair, &mut key, &[bad]).await.unwrap().refused, []);
}

#[tokio::test]
async fn p4_a_liar_voids_ten_copies_an_hour_and_stops_nobody() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("limits.membership_changes_per_minute", 1_000);
    let mut pair = Pair::start_on(database, settings).await;
    let mut keys = Vec::new();
    for _ in 0..=REFUSALS_PER_HOUR_MAX {
        pair.chat_id = pair.ada.create_chat(&mut pair.ada_socket).await;
        pair.ada.add(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
        keys.push((pair.chat_id, said(&mut pair).await.1));
    }
    for (chat_id, key) in &keys {
        refuse(&pair.bob, &mut pair.bob_socket, *chat_id, key.id()).await.unwrap();
    }
    let bob = pair.bob.session_id;
    let count = keys.len();
    for (number, (chat_id, key)) in keys.iter_mut().enumerate() {
        pair.chat_id = *chat_id;
        let sent = go_on(&mut pair, key, &[]).await;
        if number + 1 < count {
            refused_copy_of(&sent.unwrap_err(), bob);
            go_on(&mut pair, key, &[bob]).await.expect("one more round, and it is sent");
        } else {
            assert_eq!(sent.expect("too many refusals are noted and void nothing").refused, []);
        }
    }
    assert_eq!(pair.database.count("SELECT count(*) FROM refused_copies WHERE NOT has_effect").await, 1);
    // Others are not concerned by what this session did.
    let phone = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    assert_eq!(sessions(&mut pair.bob_socket).await.sessions.len(), 2);
    assert!(phone.connect_live(&pair.broker).await.request(Request::Ping(Nothing {})).await.is_ok());
}
