//! P10: bad input to every endpoint of passwords gets a typed error and changes nothing.

use sealcast::crypto::opaque::{Login, NewPassword};
use sealcast::protocol::binary::{Blob, ExchangeKey, Hash, Signature, SigningKey, WrappedKey};
use sealcast::protocol::canonical::sha256;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::ids::UserId;
use sealcast::protocol::limits::{HTTP_BODY_BYTES_MAX, USER_KEYS_MAX};
use sealcast::protocol::password::{
    BeginLogin, BeginPassword, LOGINS_FINISH_PATH, LOGINS_PATH, PASSWORDS_PATH, RECOVERIES_FINISH_PATH,
    RECOVERIES_PATH, ReplaceStrongbox, STRONGBOXES_PATH,
};
use sealcast::protocol::strongbox::{Recovery, StrongboxUpload};

use super::super::codes;
use super::super::support::broker::{Broker, Settings};
use super::super::support::database::Database;
use super::{finish, open, password, post, register, replace, sealing};

/// Makes something wrong with a strongbox.
type Spoil = fn(&mut StrongboxUpload);

const PATHS: [&str; 6] =
    [PASSWORDS_PATH, LOGINS_PATH, LOGINS_FINISH_PATH, RECOVERIES_PATH, RECOVERIES_FINISH_PATH, STRONGBOXES_PATH];

/// What a refused request might have touched; counted tries go by themselves.
async fn contents(database: &Database) -> Vec<(String, String)> {
    let mut contents = codes::contents(database).await;
    contents.retain(|(table, _)| table != "password_tries");
    contents
}

async fn code_of(broker: &Broker, path: &str, body: &impl serde::Serialize) -> (u16, ErrorCode) {
    let (status, error) = post::<serde_json::Value>(broker, path, body).await.expect_err(path);
    assert_eq!(error.retryable, error.code.is_retryable());
    (status, error.code)
}

/// Points that are none, or that nobody may send: not canonical, negative, the identity.
fn bad_points() -> [[u8; 32]; 4] {
    let mut not_canonical = [0xff; 32];
    not_canonical[31] = 0x7f;
    let mut negative = [0; 32];
    negative[0] = 1;
    [[0xff; 32], not_canonical, negative, [0; 32]]
}

#[tokio::test]
async fn p10_bodies_that_are_none_are_refused_by_every_endpoint() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let before = contents(&database).await;
    for path in PATHS {
        for body in ["", "{}", "[]", "null", "{\"username\": 7, \"message\": \"\"}", "{\"username\": \"ada\""] {
            let (status, text) = broker.request("POST", path, body).await;
            assert!(status == 400 && text.contains("\"malformed\""), "{path} {body}: {status} {text}");
        }
        if path != RECOVERIES_PATH {
            let body = "{\"username\": \"ada\", \"message\": \"*\"}";
            let (status, text) = broker.request("POST", path, body).await;
            assert!(status == 400 && text.contains("\"malformed\""), "{path} {body}: {status} {text}");
        }
        let (status, text) = broker.request("POST", path, &"x".repeat(HTTP_BODY_BYTES_MAX + 1)).await;
        assert!(status == 413 && text.contains("\"too_large\""), "{path}: {status} {text}");
        let (status, _) = broker.request("GET", path, "").await;
        assert_eq!(status, 404, "{path}");
    }
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn p10_messages_of_opaque_that_are_none_are_refused() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("password.tries_per_hour", 1_000)).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let (_, request) = NewPassword::begin(&password("correct horse")).unwrap();
    let (_, ke1) = Login::begin(&password("correct horse")).unwrap();
    for username in ["", "ad", "a b c", &"a".repeat(33), "root"] {
        let begin = BeginPassword { username: username.to_owned(), message: request.clone() };
        assert_eq!(code_of(&broker, PASSWORDS_PATH, &begin).await, (400, ErrorCode::UsernameInvalid), "{username}");
        let begin = BeginLogin { username: username.to_owned(), message: ke1.clone() };
        assert_eq!(code_of(&broker, LOGINS_PATH, &begin).await, (400, ErrorCode::UsernameInvalid), "{username}");
    }
    let malformed = (400, ErrorCode::Malformed);
    for length in [0, 1, 31, 33, 64, 95, 97, 320] {
        let message = Blob::from(vec![9; length]);
        let begin = BeginPassword { username: "ada".to_owned(), message: message.clone() };
        assert_eq!(code_of(&broker, PASSWORDS_PATH, &begin).await, malformed, "{length}");
        let begin = BeginLogin { username: "ada".to_owned(), message };
        assert_eq!(code_of(&broker, LOGINS_PATH, &begin).await, malformed, "{length}");
    }
    for point in bad_points() {
        let begin = BeginPassword { username: "ada".to_owned(), message: Blob::from(point.to_vec()) };
        assert_eq!(code_of(&broker, PASSWORDS_PATH, &begin).await, malformed, "{point:?}");
        // Both points of KE1: the blinded element, and the key share behind the nonce.
        for at in [0, 64] {
            let mut message = ke1.as_ref().to_vec();
            message[at..at + 32].copy_from_slice(&point);
            for name in ["ada", "nobody"] {
                let begin = BeginLogin { username: name.to_owned(), message: Blob::from(message.clone()) };
                assert_eq!(code_of(&broker, LOGINS_PATH, &begin).await, malformed, "{name} {at} {point:?}");
            }
        }
    }
    for length in [0, 63, 65] {
        let (_, begun) = super::begin(&broker, "ada", "correct horse").await;
        let (status, error) = finish(&broker, &begun, Blob::from(vec![0; length]), None).await.unwrap_err();
        assert_eq!((status, error.code), malformed, "{length}");
    }
    open(&broker, "ada", "correct horse").await;
}

#[tokio::test]
async fn p10_strongboxes_that_are_none_are_refused_and_change_nothing() {
    let database = Database::create().await;
    let broker = Broker::start_with(Settings::on(&database).with("password.tries_per_hour", 1_000)).await;
    let _ada = register(&broker, "ada", "correct horse").await;
    let _eve = register(&broker, "eve", "correct horse").await;
    let (logged_in, opened) = open(&broker, "ada", "correct horse").await;
    let (_, eve) = open(&broker, "eve", "correct horse").await;
    let user_id = logged_in.user_id;
    let good = opened.seal(user_id, 2, &sealing(&broker, "ada", "brand new horse").await).unwrap();
    let before = contents(&database).await;
    let resign = |mut upload: StrongboxUpload| {
        upload.strongbox.record_hash = sha256(upload.record.as_ref());
        upload.strongbox.signature = opened.identity.sign(&upload.strongbox.signed_bytes(user_id));
        upload
    };
    // Signed as it should be, and not of the form.
    let malformed: Vec<(&str, Spoil)> = vec![
        ("a short record", |upload| upload.record = Blob::from(vec![1; 191])),
        ("a long record", |upload| upload.record = Blob::from(vec![1; 193])),
        ("a record without a point", |upload| {
            let mut record = upload.record.as_ref().to_vec();
            record[..32].fill(0xff);
            upload.record = Blob::from(record);
        }),
        ("version 0", |upload| upload.strongbox.version = 0),
        ("no memory", |upload| upload.strongbox.stretching.memory_kib = 0),
        ("all memory", |upload| upload.strongbox.stretching.memory_kib = u32::MAX),
        ("many passes", |upload| upload.strongbox.stretching.passes = 17),
        ("no lanes", |upload| upload.strongbox.stretching.lanes = 0),
        ("a long identity", |upload| upload.strongbox.sealed_identity = Blob::from(vec![0; 93])),
        ("no keys", |upload| upload.strongbox.user_keys.clear()),
        ("no active key", |upload| upload.strongbox.user_keys[0].is_active = false),
        ("the same key twice", |upload| {
            let mut twice = upload.strongbox.user_keys[0].clone();
            twice.is_active = false;
            upload.strongbox.user_keys.push(twice);
        }),
        ("a long key", |upload| upload.strongbox.user_keys[0].sealed = Blob::from(vec![0; 61])),
        ("an unsound key", |upload| upload.strongbox.user_keys[0].public_key = ExchangeKey([0; 32])),
        ("a key sealed to nobody", |upload| upload.strongbox.user_keys[0].recovery_sealed = Some(WrappedKey([0; 80]))),
        ("an unsound recovery code", |upload| {
            upload.strongbox.user_keys[0].recovery_sealed = Some(WrappedKey([0; 80]));
            upload.strongbox.recovery = Some(Recovery {
                public_key: ExchangeKey([0; 32]),
                login_key: SigningKey([0; 32]),
                signature: Signature([0; 64]),
                sealed_identity: Blob::from(vec![0; 112]),
            });
        }),
    ];
    for (what, spoil) in malformed {
        let mut upload = good.clone();
        spoil(&mut upload);
        let (status, error) = replace(&broker, user_id, resign(upload)).await.expect_err(what);
        assert_eq!((status, error.code), (400, ErrorCode::Malformed), "{what}");
    }
    let mut many = good.clone();
    many.strongbox.user_keys = vec![many.strongbox.user_keys[0].clone(); USER_KEYS_MAX + 1];
    let (status, error) = replace(&broker, user_id, resign(many)).await.unwrap_err();
    assert_eq!((status, error.code), (429, ErrorCode::LimitReached));
    assert_eq!(error.details.unwrap().limit, Some(USER_KEYS_MAX as u64));
    // Of the form, and not signed by whose it is.
    let unsigned: Vec<(&str, Spoil)> = vec![
        ("no signature", |upload| upload.strongbox.signature = Signature([0; 64])),
        ("another version", |upload| upload.strongbox.version = 3),
        ("another sealed half", |upload| upload.strongbox.user_keys[0].sealed = Blob::from(vec![0; 60])),
        ("a key that nobody signed", |upload| upload.strongbox.user_keys[0].signature = Signature([0; 64])),
    ];
    for (what, spoil) in unsigned {
        let mut upload = good.clone();
        spoil(&mut upload);
        let (status, error) = replace(&broker, user_id, upload).await.expect_err(what);
        assert_eq!((status, error.code), (400, ErrorCode::BadSignature), "{what}");
    }
    let mut inner = good.clone();
    inner.strongbox.user_keys[0].signature = Signature([0; 64]);
    assert_eq!(replace(&broker, user_id, resign(inner)).await.unwrap_err().1.code, ErrorCode::BadSignature);
    let theirs = eve.seal(user_id, 2, &sealing(&broker, "ada", "the horse of eve").await).unwrap();
    assert_eq!(replace(&broker, user_id, theirs).await.unwrap_err().1.code, ErrorCode::BadSignature);
    let mut other_record = good.clone();
    other_record.strongbox.record_hash = Hash([0; 32]);
    assert_eq!(replace(&broker, user_id, other_record).await.unwrap_err().1.code, ErrorCode::Malformed);
    let nobody = ReplaceStrongbox { user_id: UserId::generate(), upload: good.clone() };
    assert_eq!(code_of(&broker, STRONGBOXES_PATH, &nobody).await, (404, ErrorCode::UnknownUser));
    assert_eq!(contents(&database).await, before);
    assert_eq!(replace(&broker, user_id, good).await.unwrap(), 2);
    open(&broker, "ada", "brand new horse").await;
}

#[tokio::test]
async fn p10_a_registration_with_a_bad_strongbox_makes_no_account() {
    use super::super::support::device::Device;
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let device = Device::unregistered("ada", 1_000);
    let identity: sealcast::crypto::IdentitySecret = {
        let packed = rmp_serde::to_vec(&sealcast::crypto::Secret::new(device.identity.to_bytes())).unwrap();
        rmp_serde::from_slice(&packed).unwrap()
    };
    let opened = sealcast::crypto::strongbox::Opened::first(identity, sealcast::crypto::Secret::generate());
    let sealing = sealing(&broker, "ada", "correct horse").await;
    let register =
        |strongbox| sealcast::protocol::account::Register { strongbox: Some(strongbox), ..device.registration() };
    let path = sealcast::protocol::account::ACCOUNTS_PATH;
    let second = opened.seal(device.user_id, 2, &sealing).unwrap();
    assert_eq!(code_of(&broker, path, &register(second)).await, (400, ErrorCode::Malformed));
    let good = opened.seal(device.user_id, 1, &sealing).unwrap();
    let mut unsigned = good.clone();
    unsigned.strongbox.signature = Signature([0; 64]);
    assert_eq!(code_of(&broker, path, &register(unsigned)).await, (400, ErrorCode::BadSignature));
    assert_eq!(database.count("SELECT count(*) FROM users").await, 0);
    for _ in 0..2 {
        let _: sealcast::protocol::account::Registered = post(&broker, path, &register(good.clone())).await.unwrap();
    }
    open(&broker, "ada", "correct horse").await;
}
