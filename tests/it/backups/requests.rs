//! What the broker takes, keeps and shows of backups, by the bare protocol.

use sealcast::protocol::backup::SessionKeyBackup;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{ApproveSession, Keys, Reply, Request, ServerFrame};
use sealcast::protocol::ids::{KeyId, Place, SessionId, UserId};
use sealcast::protocol::limits::BACKUPS_MAX;
use sealcast::protocol::log::EntryBody;

use crate::codes::contents;
use crate::messages::Pair;
use crate::support::backup::{fetch, upload};
use crate::support::chat::{events, submit, view};
use crate::support::device::{Device, Socket, exchange_key, secret_key};
use crate::support::link::sessions;

/// Bob's phone approves a tablet, gives up its key and hands it on.
async fn approve_with_backup(pair: &mut Pair, tablet: &mut Device) -> Result<Reply, sealcast::protocol::frame::Error> {
    let approval = approval(pair, tablet).await;
    let renewed = approval.renewal.clone().unwrap();
    let reply = pair.bob_socket.request(Request::ApproveSession(approval)).await?;
    pair.bob.certificate = renewed;
    Ok(reply)
}

async fn approval(pair: &mut Pair, tablet: &mut Device) -> ApproveSession {
    let chain = sessions(&mut pair.bob_socket).await;
    tablet.certify_at(chain.place.next(), chain.hash);
    let (renewal, _) = pair.bob.replacement(chain.place.next().next(), tablet.certificate.chain_hash());
    let backup = pair.bob.backup(pair.bob.own_key(), tablet.session_id);
    ApproveSession { renewal: Some(renewal), backups: vec![backup], ..tablet.approval() }
}

async fn linked_with_backup(pair: &mut Pair) -> (Device, Socket) {
    let mut tablet = pair.bob.pending(&pair.broker).await;
    approve_with_backup(pair, &mut tablet).await.unwrap();
    let socket = tablet.connect_live(&pair.broker).await;
    (tablet, socket)
}

/// A message of Ada's under a new key.
async fn said(pair: &mut Pair) -> KeyId {
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    submit(&mut pair.ada_socket, pair.ada.seal(&now, &mut key, b"hello")).await.unwrap();
    key.announcement.announcement.key_id
}

async fn backed_up(socket: &mut Socket, pair: &Pair, key_id: KeyId) -> Vec<SessionId> {
    let request = Request::Keys(Keys { chat_id: pair.chat_id, key_ids: vec![key_id] });
    let Reply::Keys(list) = socket.request(request).await.unwrap() else { panic!() };
    assert_eq!(list.keys[0].key, None);
    list.keys[0].backed_up.iter().map(|copy| copy.session_id).collect()
}

#[tokio::test]
async fn p8_what_was_made_for_an_older_session_is_shown_to_who_holds_its_key_and_to_nobody_else() {
    let mut pair = Pair::start().await;
    let key_id = said(&mut pair).await;
    let (tablet, mut tablet_socket) = linked_with_backup(&mut pair).await;
    let phone = pair.bob.session_id;
    assert_eq!(backed_up(&mut tablet_socket, &pair, key_id).await, [phone]);
    // Another session of the same user that was handed nothing, and another user.
    let other = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut other_socket = other.connect_live(&pair.broker).await;
    assert_eq!(backed_up(&mut other_socket, &pair, key_id).await, []);
    assert_eq!(fetch(&mut other_socket).await, []);
    let cyd = Device::register(&pair.broker, "cyd").await;
    let mut cyd_socket = cyd.connect_live(&pair.broker).await;
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &cyd).await.unwrap();
    assert_eq!(backed_up(&mut cyd_socket, &pair, key_id).await, []);

    // P5: who is removed gets nothing, and who comes back nothing from before, though the copies were still there.
    let outside = pair.database.client().await;
    outside.batch_execute("CREATE TABLE kept AS SELECT * FROM vault_chat_sender_keys").await.unwrap();
    pair.ada.remove(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    let keys = Request::Keys(Keys { chat_id: pair.chat_id, key_ids: vec![key_id] });
    assert_eq!(tablet_socket.request(keys).await.unwrap_err().code, ErrorCode::UnknownChat);
    pair.ada.add(&mut pair.ada_socket, pair.chat_id, &pair.bob).await.unwrap();
    let phones = format!("INSERT INTO vault_chat_sender_keys SELECT * FROM kept WHERE session_id = '{phone}'");
    assert_eq!(outside.execute(&phones, &[]).await.unwrap(), 1);
    assert_eq!(backed_up(&mut tablet_socket, &pair, key_id).await, []);
    assert_eq!(fetch(&mut tablet_socket).await.len(), 1, "{}", tablet.session_id);
}

#[tokio::test]
async fn p5_a_session_that_hands_its_key_on_receives_with_another_from_the_same_moment_on() {
    let mut pair = Pair::start().await;
    let before = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&before, pair.chat_id);
    submit(&mut pair.ada_socket, pair.ada.seal(&before, &mut key, b"one")).await.unwrap();
    let old = pair.bob.own_key();
    let (tablet, mut tablet_socket) = linked_with_backup(&mut pair).await;

    let log = events(&mut pair.ada_socket, pair.chat_id).await;
    let came: Vec<SessionId> = log
        .iter()
        .rev()
        .take(2)
        .map(|entry| match &entry.body {
            EntryBody::SessionIn(signed) => signed.certificate.session_id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(came, [pair.bob.session_id, tablet.session_id], "the newest first");
    let after = view(&mut pair.ada_socket, pair.chat_id).await;
    assert_eq!(after.fold.epoch(), before.fold.epoch(), "nobody has lost access");
    assert_eq!(after.fold.recipients()[&pair.bob.session_id].public_key, pair.bob.own_key().1);
    assert_ne!(pair.bob.own_key(), old);
    // Who encrypts to the key before is refused, until they have read of the other.
    let late = submit(&mut pair.ada_socket, pair.ada.seal(&before, &mut key, b"two")).await.unwrap_err();
    assert!(matches!(late.code, ErrorCode::CopiesMissing | ErrorCode::RosterChanged), "{late:?}");
    said(&mut pair).await;
    // The tablet was handed what it is said to have been handed, and whoever it hands it on to as well.
    let handed = fetch(&mut tablet_socket).await;
    assert_eq!(handed.len(), 1);
    assert_eq!((handed[0].backed_up_session_id, handed[0].backed_up_public_key), old);
    let laptop = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let mut laptop_socket = laptop.connect_live(&pair.broker).await;
    let on = tablet.backup(old, laptop.session_id);
    assert!(!upload(&mut tablet_socket, laptop.session_id, vec![on.clone()]).await.unwrap().held_before);
    laptop_socket.push_that(|push| matches!(push, ServerFrame::BackupsReady(_)).then_some(())).await;
    assert_eq!(fetch(&mut laptop_socket).await, std::slice::from_ref(&on));
    // Again: what is there stays.
    let mut again = tablet.backup(old, laptop.session_id);
    again.key.0[0] ^= 1;
    tablet.sign_backup(&mut again);
    assert!(upload(&mut tablet_socket, laptop.session_id, vec![again]).await.unwrap().held_before);
    assert_eq!(fetch(&mut laptop_socket).await, [on]);

    // Revoked, a session is shown nothing more, and its rows say only that it was handed something.
    pair.bob.revoke(&mut pair.bob_socket, tablet.session_id).await.unwrap();
    let rows = |key: &str| {
        format!(
            "SELECT count(*) FROM vault_backup_session_keys WHERE session_id = '{}' AND key IS {key}",
            tablet.session_id
        )
    };
    assert_eq!(pair.database.count(&rows("NULL")).await, 1);
    assert_eq!(pair.database.count(&rows("NOT NULL")).await, 0);
    let in_use = "SELECT count(*) FROM vault_backup_session_keys b JOIN user_sessions s ON s.id = b.backed_up_session_id \
         AND s.state = 'live' AND s.public_key = b.backed_up_public_key";
    assert_eq!(pair.database.count(in_use).await, 0);
}

#[tokio::test]
async fn p10_backups_that_are_not_in_order_are_refused_and_nothing_is_stored() {
    let mut pair = Pair::start().await;
    let old = pair.bob.own_key();
    let (tablet, mut tablet_socket) = linked_with_backup(&mut pair).await;
    let laptop = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    let revoked = pair.bob.linked(&pair.broker, &mut pair.bob_socket).await;
    pair.bob.revoke(&mut pair.bob_socket, revoked.session_id).await.unwrap();
    let pending = pair.bob.pending(&pair.broker).await;
    let (bob, to) = (pair.bob.clone(), laptop.session_id);
    let with = |change: &dyn Fn(&mut SessionKeyBackup)| {
        let mut backup = bob.backup(old, to);
        change(&mut backup);
        bob.sign_backup(&mut backup);
        vec![backup]
    };
    let mut unsigned = bob.backup(old, to);
    unsigned.key.0[3] ^= 1;
    let mut by_a_stranger = bob.backup(old, to);
    pair.ada.sign_backup(&mut by_a_stranger);
    let many: Vec<_> = (0..=BACKUPS_MAX).map(|_| bob.backup((old.0, exchange_key().1), to)).collect();
    let cases = [
        ("altered", to, vec![unsigned], ErrorCode::BadSignature),
        ("signed by a stranger", to, vec![by_a_stranger], ErrorCode::BadSignature),
        ("wrapped by another", to, with(&|it| it.wrapped_by_session_id = tablet.session_id), ErrorCode::Malformed),
        ("of another user", to, with(&|it| it.backed_up_user_id = UserId::generate()), ErrorCode::Malformed),
        ("for another than named", to, with(&|it| it.session_id = tablet.session_id), ErrorCode::Malformed),
        ("of itself", to, with(&|it| it.backed_up_session_id = to), ErrorCode::Malformed),
        ("twice", to, [with(&|_| {}), with(&|_| {})].concat(), ErrorCode::Malformed),
        ("too many", to, many, ErrorCode::TooLarge),
        ("for a stranger", pair.ada.session_id, vec![bob.backup(old, pair.ada.session_id)], ErrorCode::UnknownSession),
        ("for nobody", SessionId::generate(), vec![], ErrorCode::UnknownSession),
        ("for the revoked", revoked.session_id, vec![bob.backup(old, revoked.session_id)], ErrorCode::UnknownSession),
        ("for who waits", pending.session_id, vec![bob.backup(old, pending.session_id)], ErrorCode::UnknownSession),
        ("a stranger's key", to, with(&|it| it.backed_up_session_id = pair.ada.session_id), ErrorCode::UnknownSession),
        ("a swapped key", to, with(&|it| it.backed_up_public_key = tablet.own_key().1), ErrorCode::UnknownSession),
        ("what it receives with", to, vec![bob.backup(bob.own_key(), to)], ErrorCode::KeyInUse),
        ("what another receives with", to, vec![bob.backup(tablet.own_key(), to)], ErrorCode::KeyInUse),
        ("what it was not handed", to, vec![bob.backup(revoked.own_key(), to)], ErrorCode::NotKeyHolder),
    ];
    let before = contents(&pair.database).await;
    for (about, session_id, backups, code) in cases {
        let refused = upload(&mut pair.bob_socket, session_id, backups).await.unwrap_err();
        assert_eq!(refused.code, code, "{about}: {}", refused.message);
        assert_eq!(contents(&pair.database).await, before, "{about}");
    }
    // Another session of the user's has no part in it, before it was handed the key itself.
    let mut laptop_socket = laptop.connect_live(&pair.broker).await;
    let other = laptop.backup(old, tablet.session_id);
    let refused = upload(&mut laptop_socket, tablet.session_id, vec![other.clone()]).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotKeyHolder);
    upload(&mut tablet_socket, to, vec![tablet.backup(old, to)]).await.unwrap();
    assert!(upload(&mut laptop_socket, tablet.session_id, vec![other]).await.unwrap().held_before);

    // So many and no more.
    let client = pair.database.client().await;
    let fill = format!(
        "INSERT INTO vault_backup_session_keys (kind, session_id, backed_up_session_id, backed_up_user_id, \
             backed_up_public_key, key, wrapped_by_session_id, signature) \
         SELECT 'full', '{to}', '{}', '{}', sha256(n::text::bytea), decode(repeat('00', 80), 'hex'), '{}', \
             decode(repeat('00', 64), 'hex') FROM generate_series(2, {BACKUPS_MAX}) n",
        old.0, bob.user_id, bob.session_id
    );
    client.batch_execute(&fill).await.unwrap();
    let given_up = pair.bob.own_key();
    let mut last = pair.bob.pending(&pair.broker).await;
    approve_with_backup(&mut pair, &mut last).await.unwrap();
    let refused = upload(&mut pair.bob_socket, to, vec![pair.bob.backup(given_up, to)]).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::LimitReached);
    assert_eq!(refused.details.unwrap().limit, Some(BACKUPS_MAX as u64));
}

#[tokio::test]
async fn p10_a_renewal_that_is_not_in_order_is_refused_with_its_approval() {
    let mut pair = Pair::start().await;
    let first = pair.bob.own_key();
    linked_with_backup(&mut pair).await;
    let mut phone = pair.bob.pending(&pair.broker).await;
    let good = approval(&mut pair, &mut phone).await;
    let bob = pair.bob.clone();
    let renewal = |change: &dyn Fn(&mut Device)| {
        let mut session = bob.clone();
        session.certificate = good.renewal.clone().unwrap();
        change(&mut session);
        session.sign_certificate();
        ApproveSession { renewal: Some(session.certificate), ..good.clone() }
    };
    let cases = [
        (
            "its key of before",
            renewal(&|it| it.certificate.certificate.public_key = first.1),
            ErrorCode::BadCertificate,
        ),
        (
            "its key of now",
            renewal(&|it| it.certificate.certificate.public_key = bob.own_key().1),
            ErrorCode::BadCertificate,
        ),
        (
            "another signing key",
            renewal(&|it| {
                let key = secret_key().verifying_key().to_bytes();
                it.certificate.certificate.signing_public_key = sealcast::protocol::binary::SigningKey(key);
            }),
            ErrorCode::BadCertificate,
        ),
        (
            "another session",
            renewal(&|it| it.certificate.certificate.session_id = SessionId::generate()),
            ErrorCode::BadCertificate,
        ),
        ("another identity", renewal(&|it| it.identity = secret_key()), ErrorCode::BadCertificate),
        (
            "another place",
            renewal(&|it| it.certificate.certificate.place = Place::saturating(9)),
            ErrorCode::EventConflict,
        ),
        ("no renewal", ApproveSession { renewal: None, ..good.clone() }, ErrorCode::KeyInUse),
    ];
    let before = contents(&pair.database).await;
    for (about, request, code) in cases {
        let refused = pair.bob_socket.request(Request::ApproveSession(request)).await.unwrap_err();
        assert_eq!(refused.code, code, "{about}: {}", refused.message);
        assert_eq!(contents(&pair.database).await, before, "{about}");
    }
    pair.bob_socket.request(Request::ApproveSession(good.clone())).await.unwrap();
    let after = contents(&pair.database).await;
    pair.bob_socket.request(Request::ApproveSession(good)).await.expect("the same again is the same");
    assert_eq!(contents(&pair.database).await, after);
    said(&mut pair).await;
}
