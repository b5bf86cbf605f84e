//! Wrapped keys: Z6 for whom, Z7 instead of which, Z8 in whose name.

use std::collections::BTreeMap;

use sealcast::protocol::binary::{Hash, WrappedKey};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    self, ChangeMembership, FurtherCopy, Request, RevokeSession, Send, StageCopies, UploadCopies,
};
use sealcast::protocol::ids::{ChatId, Epoch, KeyId, SessionId};
use sealcast::protocol::keys::staged_hash;
use sealcast::protocol::membership::Change;

use super::super::super::codes::{contents, info_key_wrap};
use super::super::super::messages::Pair;
use super::super::super::support::chat::{SenderKey, View, copy_for, submit, view};
use super::super::super::support::database::Database;
use super::super::super::support::device::{Device, Socket, sign};
use super::super::super::support::eventually;
use super::super::super::support::link::sessions;

/// Sends what must be refused, and looks by SQL that nothing has changed.
async fn refused(database: &Database, socket: &mut Socket, request: Request) -> frame::Error {
    let before = contents(database).await;
    let what = format!("{request:?}");
    let error = socket.request(request).await.expect_err(&what);
    assert_eq!(contents(database).await, before, "{what}: {} changed something", error.code);
    error
}

fn id_of(key: &SenderKey) -> KeyId {
    key.announcement.announcement.key_id
}

/// A message under a key that is there, with one copy more.
fn adding(device: &Device, now: &View, key: &SenderKey, session_id: SessionId) -> Send {
    let mut send = device.seal(now, &mut key.clone(), b"for one more");
    send.add_copies = vec![copy_for(session_id)];
    send
}

#[tokio::test]
async fn z6_a_copy_for_a_session_outside_the_chat_is_refused_with_all_that_came_with_it() {
    let mut pair = Pair::start().await;
    let (chat_id, database) = (pair.chat_id, &pair.database);
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let message = pair.ada.seal(&now, &mut key, b"the key is there");
    submit(&mut pair.ada_socket, message).await.unwrap();
    // Who is outside: nobody, a stranger, one who was removed, a session that waits, was revoked, or ran out.
    let (eve, carol) = (Device::register(&pair.broker, "eve").await, Device::register(&pair.broker, "carol").await);
    let brief = Device::register_for(&pair.broker, "brief", 1_500_000).await;
    pair.ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    pair.ada.remove(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    let lost = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    pair.bob.revoke(&mut pair.bob_socket, lost.session_id).await.unwrap();
    let waiting = pair.bob.pending(&pair.broker).await;
    let over = format!("SELECT count(*) FROM user_sessions WHERE id = '{}' AND state = 'expired'", brief.session_id);
    eventually("the end of a session's time", async || database.count(&over).await == 1).await;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let message = pair.ada.seal(&now, &mut key, b"the key is there");
    submit(&mut pair.ada_socket, message).await.unwrap();
    // What the sweeps take of old keys they take now.
    let stale = format!(
        "SELECT count(*) FROM vault_chat_sender_keys WHERE session_id IN ('{}', '{}')",
        carol.session_id, lost.session_id
    );
    eventually("nothing is left of who went", async || database.count(&stale).await == 0).await;

    let outside = [
        SessionId::generate(),
        eve.session_id,
        carol.session_id,
        waiting.session_id,
        lost.session_id,
        brief.session_id,
    ];
    for stranger in outside {
        // With a new key, in the frame and ahead of it; with a key that is there; beside messages.
        let mut fresh = pair.ada.sender_key(&now, chat_id);
        fresh.copies.insert(1, copy_for(stranger));
        let in_frame = Request::Send(Box::new(pair.ada.seal(&now, &mut fresh, b"in the frame")));
        let mut ahead = pair.ada.sender_key(&now, chat_id);
        ahead.copies.push(copy_for(stranger));
        let copies = std::mem::take(&mut ahead.copies);
        let part = StageCopies { chat_id, key_id: id_of(&ahead), part: 0, parts: 1, copies: copies.clone() };
        pair.ada_socket.request(Request::StageCopies(part)).await.unwrap();
        let mut staged = pair.ada.seal(&now, &mut ahead, b"ahead of it");
        staged.new_key.as_mut().unwrap().staged = Some(staged_hash(copies.iter()));
        let further = |session_id| FurtherCopy { key_id: id_of(&key), session_id, key: copy_for(session_id).key };
        let copies = vec![further(pair.bob.session_id), further(stranger)];
        for request in [
            in_frame,
            Request::Send(Box::new(staged)),
            Request::Send(Box::new(adding(&pair.ada, &now, &key, stranger))),
            Request::UploadCopies(UploadCopies { chat_id, copies }),
        ] {
            let error = refused(database, &mut pair.ada_socket, request).await;
            assert_eq!(error.code, ErrorCode::RecipientsChanged);
            assert_eq!(error.details.unwrap().extra, [stranger]);
        }
    }
    let of_strangers = outside.map(|session_id| format!("'{session_id}'")).join(", ");
    let stored = format!("SELECT count(*) FROM vault_chat_sender_keys WHERE session_id IN ({of_strangers})");
    assert_eq!(database.count(&stored).await, 0);
    let message = pair.ada.seal(&now, &mut key, b"good");
    submit(&mut pair.ada_socket, message).await.unwrap();
}

/// Every wrapped key that is stored: chat, key and session, and the bytes with who wrapped them.
async fn vault(database: &Database) -> BTreeMap<String, String> {
    let rows = "SELECT concat_ws(' ', chat_id, sender_key_id, session_id), concat_ws(' ', key, uploaded_by_session_id) \
             FROM vault_chat_sender_keys \
         UNION ALL SELECT concat_ws(' ', chat_id, key_id, session_id), concat_ws(' ', key, wrapped_by_session_id, signature) \
             FROM vault_chat_info_keys";
    let rows = database.client().await.query(rows, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn z7_the_first_bytes_of_a_wrapped_key_stay_whoever_comes_again() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    let now = view(&mut pair.ada_socket, chat_id).await;
    let mut key = pair.ada.sender_key(&now, chat_id);
    let message = pair.ada.seal(&now, &mut key, b"first");
    submit(&mut pair.ada_socket, message).await.unwrap();
    let first = vault(&pair.database).await;
    assert_eq!(first.len(), 3);

    let for_all = || -> Vec<FurtherCopy> {
        let recipients = [pair.ada.session_id, pair.bob.session_id, tablet.session_id];
        recipients
            .map(|session_id| FurtherCopy { key_id: id_of(&key), session_id, key: copy_for(session_id).key })
            .to_vec()
    };
    // Whose key it is, a member who holds it, and the holder's own other device: each is told that it is done.
    for socket in [&mut pair.ada_socket, &mut pair.bob_socket, &mut tablet_socket] {
        let upload = Request::UploadCopies(UploadCopies { chat_id, copies: for_all() });
        socket.request(upload).await.unwrap();
        assert_eq!(vault(&pair.database).await, first);
    }
    // Announced again with other copies, and copies beside a message.
    let mut again = key.clone();
    again.sent = false;
    again.copies = again.copies.iter().map(|copy| copy_for(copy.session_id)).collect();
    let mut second = pair.ada.seal(&now, &mut again, b"in full again");
    second.add_copies = Vec::new();
    submit(&mut pair.ada_socket, second).await.unwrap();
    let mut third = pair.ada.seal(&now, &mut again, b"beside it");
    third.add_copies = again.copies.iter().map(|copy| copy_for(copy.session_id)).collect();
    let _ = submit(&mut pair.ada_socket, third).await;
    assert_eq!(vault(&pair.database).await, first);
    // Announced by another session under its id.
    let theirs = view(&mut pair.bob_socket, chat_id).await;
    let mut taken = pair.bob.sender_key(&theirs, chat_id);
    taken.announcement.announcement.key_id = id_of(&key);
    taken.announcement.signature = sign(&pair.bob.signing, &taken.announcement.announcement.signed_bytes(chat_id));
    let message = pair.bob.seal(&theirs, &mut taken, b"mine now");
    let error = refused(&pair.database, &mut pair.bob_socket, Request::Send(Box::new(message))).await;
    assert_eq!(error.code, ErrorCode::KeyExists);
    assert_eq!(vault(&pair.database).await, first);

    // The key of a chat's name: twice in one request, and when the chat is made again.
    let mut creation = pair.ada.creation(ChatId::generate());
    let wrap = info_key_wrap(&pair.ada, creation.chat_id, pair.ada.session_id);
    let mut other = wrap.clone();
    other.key = WrappedKey([6; 80]);
    other.signature = sign(&pair.ada.signing, &other.signed_bytes(creation.chat_id));
    creation.info_keys = vec![wrap.clone(), other.clone()];
    pair.ada_socket.request(Request::CreateChat(creation.clone())).await.unwrap();
    let stored = vault(&pair.database).await;
    creation.info_keys = vec![other];
    pair.ada_socket.request(Request::CreateChat(creation)).await.unwrap();
    assert_eq!(vault(&pair.database).await, stored);
    let kept = "SELECT key FROM vault_chat_info_keys";
    let row = pair.database.client().await.query_one(kept, &[]).await.unwrap();
    assert_eq!(row.get::<_, &[u8]>(0), wrap.key.as_ref());
    // A manager who adds somebody wraps for that one alone, not for who is there.
    let (bob, carol) = (pair.bob.session_id, Device::register(&pair.broker, "carol").await);
    let now = view(&mut pair.ada_socket, chat_id).await;
    let (roster_hash, epoch) = (now.fold.roster_hash(), now.fold.epoch());
    let add = Change::Add { can_write: true, can_manage: false, roster_hash, epoch };
    let change = pair.ada.change_from(&now, chat_id, add, &carol);
    let info_keys = [bob, carol.session_id].map(|session_id| info_key_wrap(&pair.ada, chat_id, session_id)).to_vec();
    let request = Request::ChangeMembership(ChangeMembership { chat_id, change, info_keys });
    pair.ada_socket.request(request).await.unwrap();
    let of = |session_id| format!("SELECT count(*) FROM vault_chat_info_keys WHERE session_id = '{session_id}'");
    assert_eq!(pair.database.count(&of(bob)).await, 0);
    assert_eq!(pair.database.count(&of(carol.session_id)).await, 1);
    pair.ada.say(&mut pair.ada_socket, chat_id, "good").await.unwrap();
}

/// Requests of `device` that bear the name of another session, signed as they stand by `device`.
fn in_the_name_of(
    device: &Device,
    named: &Device,
    chat_id: ChatId,
    now: &View,
    named_key: &SenderKey,
) -> Vec<(&'static str, Request)> {
    let mut requests = Vec::new();
    // A key that says it is the other's, under a message of one's own.
    let mut key = device.sender_key(now, chat_id);
    key.announcement.announcement.session_id = named.session_id;
    key.announcement.signature = sign(&device.signing, &key.announcement.announcement.signed_bytes(chat_id));
    requests.push(("key", Request::Send(Box::new(device.seal(now, &mut key, b"whose key")))));
    // The other's key as the other announced it.
    let mut stolen = named_key.clone();
    requests.push(("stolen key", Request::Send(Box::new(device.seal(now, &mut stolen, b"your key")))));
    let mut announced = named_key.clone();
    announced.sent = false;
    requests.push(("announced key", Request::Send(Box::new(device.seal(now, &mut announced, b"your key")))));
    // A message, its key and all, that says it is the other's.
    let mut key = device.sender_key(now, chat_id);
    key.announcement.announcement.session_id = named.session_id;
    key.announcement.signature = sign(&device.signing, &key.announcement.announcement.signed_bytes(chat_id));
    let mut message = device.seal(now, &mut key, b"not mine");
    (message.envelope.sender_id, message.envelope.sender_session_id) = (named.user_id, named.session_id);
    device.sign_envelope(&mut message);
    requests.push(("message", Request::Send(Box::new(message))));
    let mut signal = device.signal(chat_id, id_of(named_key));
    (signal.signal.sender_id, signal.signal.sender_session_id) = (named.user_id, named.session_id);
    signal.signal.signature = sign(&device.signing, &signal.signal.signed_bytes(chat_id));
    requests.push(("signal", Request::Signal(signal)));
    let mut refusal = device.refusal_of(chat_id, id_of(named_key), Hash([7; 32]));
    refusal.refusal.refusal.session_id = named.session_id;
    refusal.refusal.signature = sign(&device.signing, &refusal.refusal.refusal.signed_bytes(chat_id));
    requests.push(("refusal", Request::RefuseCopy(refusal)));
    let mut change = device.change_from(now, chat_id, Change::Leave, device).change;
    (change.actor.user_id, change.actor.session_id) = (named.user_id, named.session_id);
    change.actor.identity_key = named.identity_key();
    let change = device.sign_change(chat_id, change);
    requests.push(("change", Request::ChangeMembership(ChangeMembership { chat_id, change, info_keys: Vec::new() })));
    let mut creation = device.creation(ChatId::generate());
    let mut wrap = info_key_wrap(device, creation.chat_id, device.session_id);
    wrap.wrapped_by_session_id = named.session_id;
    wrap.signature = sign(&device.signing, &wrap.signed_bytes(creation.chat_id));
    creation.info_keys = vec![wrap];
    requests.push(("info key", Request::CreateChat(creation)));
    requests
}

#[tokio::test]
async fn z8_nothing_is_taken_in_the_name_of_another_session_not_even_of_ones_own() {
    let mut pair = Pair::start().await;
    let chat_id = pair.chat_id;
    let tablet = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut tablet_socket = tablet.connect_live(&pair.broker).await;
    let mut keys = BTreeMap::new();
    for (device, socket) in [(&pair.ada, &mut pair.ada_socket), (&tablet, &mut tablet_socket)] {
        let now = view(socket, chat_id).await;
        let mut key = device.sender_key(&now, chat_id);
        let message = device.seal(&now, &mut key, b"under my own key");
        submit(socket, message).await.unwrap();
        keys.insert(device.session_id, key);
    }
    let now = view(&mut pair.bob_socket, chat_id).await;
    for named in [&pair.ada, &tablet] {
        for (what, request) in in_the_name_of(&pair.bob, named, chat_id, &now, &keys[&named.session_id]) {
            let error = refused(&pair.database, &mut pair.bob_socket, request).await;
            let expected = if what == "stolen key" { ErrorCode::UnknownKey } else { ErrorCode::BadSignature };
            assert_eq!(error.code, expected, "{what} in the name of {}", named.username);
        }
    }
    // A revocation in the name of one's other device, by one's own key.
    let chain = sessions(&mut pair.bob_socket).await;
    let mut revocation = pair.bob.revocation(&chain, tablet.session_id).revocation;
    revocation.revoker = sealcast::protocol::certificate::Revoker::Session(tablet.session_id);
    let revocation = pair.bob.sign_revocation(revocation);
    let request = Request::RevokeSession(RevokeSession { revocation, withdrawal: None });
    let error = refused(&pair.database, &mut pair.bob_socket, request).await;
    assert_eq!(error.code, ErrorCode::BadSignature);
    // Nor does a key that is one's own serve in another chat or epoch than it was signed for.
    let other = pair.bob.create_chat(&mut pair.bob_socket).await;
    let elsewhere = view(&mut pair.bob_socket, other).await;
    let mut moved = pair.bob.sender_key(&elsewhere, other);
    moved.chat_id = chat_id;
    moved.copies = pair.bob.sender_key(&now, chat_id).copies;
    let message = pair.bob.seal(&now, &mut moved, b"moved");
    let error = refused(&pair.database, &mut pair.bob_socket, Request::Send(Box::new(message))).await;
    assert_eq!(error.code, ErrorCode::BadSignature);
    let mut older = pair.bob.sender_key(&now, chat_id);
    older.announcement.announcement.epoch = Epoch::saturating(1);
    let message = pair.bob.seal(&now, &mut older, b"of another epoch");
    let error = refused(&pair.database, &mut pair.bob_socket, Request::Send(Box::new(message))).await;
    assert_eq!(error.code, ErrorCode::BadSignature);
    pair.bob.say(&mut pair.bob_socket, chat_id, "good").await.unwrap();
}
