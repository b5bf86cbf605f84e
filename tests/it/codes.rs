//! Every error code that the broker gives, seen from outside: the code with its details, nothing changed, and a good
//! request that works afterwards on the same socket.

use sealcast::protocol::binary::{Blob, ExchangeKey, Hash, IdentityKey, SigningKey, WrappedKey};
use sealcast::protocol::envelope::MessageKind;
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    self, AdvanceCursor, ApproveSession, Cursor, Direction, Events, History, Keys, LookupUser, Nothing, Reply, Request,
    Resume, RevokeSession, StageCopies,
};
use sealcast::protocol::ids::{AttachmentId, ChatId, Counter, InfoKeyId, KeyId, Revision, Seq, SessionId};
use sealcast::protocol::keys::InfoKeyWrap;
use sealcast::protocol::membership::Change;
use sealcast::protocol::username::Username;

use super::messages::Pair;
use super::support::broker::{Broker, Settings};
use super::support::chat::{change_membership, copy_for, submit, view};
use super::support::database::Database;
use super::support::device::{Device, Socket, sign};
use super::support::link::sessions;

/// Where each code is seen.
const COVERED: &[(ErrorCode, &str)] = &[
    (ErrorCode::Unauthenticated, "sessions::a5_before_the_login_nothing_is_done"),
    (ErrorCode::SessionExpired, "sessions::a6_what_became_of_a_session_is_told_to_its_signer_alone"),
    (ErrorCode::SessionRevoked, "sessions::a6_what_became_of_a_session_is_told_to_its_signer_alone"),
    (ErrorCode::AccountSuspended, "operator::who_is_suspended_neither_logs_in_nor_sends_and_stays_a_recipient"),
    (ErrorCode::RegistrationClosed, "operator::nobody_registers_where_registration_is_closed"),
    (ErrorCode::InvitationNeeded, "operator::an_invitation_is_used_as_often_as_it_says_and_no_more"),
    (ErrorCode::InvitationInvalid, "operator::an_invitation_is_used_as_often_as_it_says_and_no_more"),
    (ErrorCode::SessionPending, "sessions::a_pending_session_may_do_next_to_nothing"),
    (ErrorCode::Malformed, "codes::malformed_contents_of_messages"),
    (ErrorCode::UnknownFrame, "wire::w4_bad_frames_get_their_code_and_their_number"),
    (ErrorCode::TooLarge, "limits::sizes_of_messages_and_copies"),
    (ErrorCode::RateLimited, "limits::requests_of_one_connection"),
    (ErrorCode::LimitReached, "limits::chats_of_a_user_and_members_of_a_chat"),
    (ErrorCode::StorageUnavailable, "codes::storage_unavailable_while_the_database_does_not_answer"),
    (ErrorCode::BadSignature, "codes::bad_signatures_of_every_kind"),
    (ErrorCode::BadCertificate, "codes::bad_certificates_at_registration_and_approval"),
    (ErrorCode::UsernameTaken, "codes::usernames_over_http"),
    (ErrorCode::UsernameInvalid, "codes::usernames_over_http"),
    (ErrorCode::UnknownUser, "codes::unknown_users"),
    (ErrorCode::UnknownSession, "codes::unknown_sessions"),
    (ErrorCode::UnknownChat, "codes::z1_a_stranger_gets_unknown_chat_to_every_request"),
    (ErrorCode::UnknownKey, "codes::keys_of_others_old_keys_and_no_keys"),
    (ErrorCode::UnknownMessage, "revisions::who_may_not_change_a_message_is_told_that_there_is_none"),
    (ErrorCode::UnknownSecret, "secrets::requests::p10_what_is_no_revision_of_a_secret_is_refused_and_changes_nothing"),
    (ErrorCode::EditConflict, "revisions::of_two_devices_that_edit_at_once_one_is_told_of_the_other"),
    (ErrorCode::CannotWrite, "membership::z3_z4_z5_rights_are_enforced"),
    (ErrorCode::CannotManage, "membership::z3_z4_z5_rights_are_enforced"),
    (ErrorCode::NotOwner, "membership::z3_z4_z5_rights_are_enforced"),
    (ErrorCode::OwnerMustTransfer, "membership::z3_z4_z5_rights_are_enforced"),
    (ErrorCode::NotAllowedToAdd, "accounts::who_may_add_a_user_is_the_users_own_setting"),
    (ErrorCode::NotKeyHolder, "copies::who_may_not_hand_on_is_refused_and_nothing_is_stored"),
    (ErrorCode::KeyInUse, "backups::requests::p10_backups_that_are_not_in_order_are_refused_and_nothing_is_stored"),
    (ErrorCode::HistoryNotAllowed, "copies::a_newcomer_gets_no_key_from_before_their_time_except_from_its_sender"),
    (ErrorCode::AlreadyMember, "membership::z3_z4_z5_rights_are_enforced"),
    (ErrorCode::NotMember, "membership::z3_z4_z5_rights_are_enforced"),
    (ErrorCode::CopiesMissing, "codes::details_of_copies_and_rosters"),
    (ErrorCode::RecipientsChanged, "codes::details_of_copies_and_rosters"),
    (ErrorCode::RosterChanged, "codes::details_of_copies_and_rosters"),
    (ErrorCode::KeyStale, "messages::p5_after_a_removal_no_older_key_is_accepted"),
    (ErrorCode::KeySpent, "limits::the_life_of_a_sender_key"),
    (ErrorCode::KeyExists, "codes::keys_of_others_old_keys_and_no_keys"),
    (
        ErrorCode::GroupKeyDue,
        "generations::made::p8_the_first_user_key_of_a_chat_makes_a_generation_due_before_the_next_message_and_keys_stay",
    ),
    (
        ErrorCode::GroupKeyExists,
        "generations::made::of_two_who_make_a_generation_at_once_one_is_first_and_a_repeat_gets_the_first_answer",
    ),
    (
        ErrorCode::WithdrawalMissing,
        "generations::withdrawn::p5_with_a_session_that_knew_the_sealed_halves_the_user_key_is_withdrawn_until_there_is_another",
    ),
    (ErrorCode::InfoKeyStale, "info::what_must_not_be_saved_is_refused_and_changes_nothing"),
    (ErrorCode::CounterGap, "codes::counters"),
    (ErrorCode::IdReused, "codes::ids_that_are_taken"),
    (ErrorCode::EventConflict, "sessions::a_wrong_place_in_the_chain_is_a_conflict"),
    (
        ErrorCode::LoginFailed,
        "passwords::alike::wrong_passwords_unknown_users_and_users_without_one_are_answered_alike",
    ),
    (ErrorCode::StrongboxChanged, "passwords::change::a_password_or_a_set_of_keys_that_is_not_current_is_refused"),
    (ErrorCode::UserKeyStale, "friends::inputs::shares_that_are_none_are_refused_and_change_nothing"),
    (ErrorCode::NoShare, "friends::inputs::a_stranger_gives_and_gets_nothing"),
    (ErrorCode::UnknownRecoveryRequest, "friends::inputs::a_stranger_gives_and_gets_nothing"),
    (ErrorCode::IdentityNeeded, "friends::inputs::a_session_alone_cancels_once"),
    (ErrorCode::AheadOfLog, "codes::ahead_of_the_log"),
    (ErrorCode::UnsupportedVersion, "versions::p12_a_client_of_another_version_is_told_which_one_the_server_speaks"),
    (ErrorCode::Internal, "codes::internal_when_a_stored_value_cannot_be_read"),
];

/// Codes that no request is answered with now.
const NOT_GIVEN: &[(ErrorCode, &str)] = &[];

#[test]
fn every_code_is_covered_or_not_given() {
    let sources = [
        ("accounts", include_str!("accounts.rs")),
        ("attacks", include_str!("attacks.rs")),
        ("backups::requests", include_str!("backups/requests.rs")),
        ("codes", include_str!("codes.rs")),
        ("copies", include_str!("copies.rs")),
        ("friends::inputs", include_str!("friends/inputs.rs")),
        ("generations::made", include_str!("generations/made.rs")),
        ("generations::withdrawn", include_str!("generations/withdrawn.rs")),
        ("info", include_str!("info.rs")),
        ("limits", include_str!("limits.rs")),
        ("membership", include_str!("membership.rs")),
        ("messages", include_str!("messages.rs")),
        ("operator", include_str!("operator.rs")),
        ("passwords::alike", include_str!("passwords/alike.rs")),
        ("passwords::change", include_str!("passwords/change.rs")),
        ("revisions", include_str!("revisions.rs")),
        ("secrets::requests", include_str!("secrets/requests.rs")),
        ("sessions", include_str!("sessions.rs")),
        ("versions", include_str!("versions.rs")),
        ("wire", include_str!("wire.rs")),
    ];
    for code in ErrorCode::ALL {
        let covered = COVERED.iter().filter(|(other, _)| other == code).count();
        let reserved = NOT_GIVEN.iter().filter(|(other, _)| other == code).count();
        assert_eq!(covered + reserved, 1, "{code} must be covered, or explained, once");
    }
    for (code, test) in COVERED {
        let (module, name) = test.rsplit_once("::").unwrap();
        let (_, source) = sources.iter().find(|(other, _)| *other == module).expect("a module");
        assert!(source.contains(&format!("async fn {name}()")), "{code}: there is no {test}");
        assert!(source.contains(&format!("ErrorCode::{code:?}")), "{code} is not named in {module}");
    }
}

/// Everything in a database that a refused request might have touched.
pub async fn contents(database: &Database) -> Vec<(String, String)> {
    let client = database.client().await;
    let tables =
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'refinery%' ORDER BY 1";
    let mut contents = Vec::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        // When a session was last seen is noted beside what requests do.
        let statement = format!(
            "SELECT coalesce(md5(string_agg(t, ',' ORDER BY t)), '') FROM (SELECT (to_jsonb({table}) - 'last_seen_at')::text AS t \
             FROM {table}) rows"
        );
        contents.push((table, client.query_one(&statement, &[]).await.unwrap().get(0)));
    }
    contents
}

/// The code of a refusal, after a look that nothing has changed and that the next message is taken.
async fn refused(pair: &mut Pair, request: Request) -> frame::Error {
    let before = contents(&pair.database).await;
    let name = request.name();
    let error = pair.ada_socket.request(request).await.expect_err(name);
    assert_eq!(error.retryable, error.code.is_retryable(), "{name}");
    assert_eq!(contents(&pair.database).await, before, "{name}: {} changed something", error.code);
    error
}

async fn good(pair: &mut Pair) {
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "good").await.unwrap();
}

#[tokio::test]
async fn malformed_contents_of_messages() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let breaks: [fn(&mut frame::Send); 9] = [
        |send| send.envelope.kind = MessageKind::Edit,
        |send| send.envelope.kind = MessageKind::Delete,
        |send| send.envelope.revision = Revision::saturating(1),
        |send| send.envelope.purged = Some(Hash([1; 32])),
        |send| send.envelope.attachments = vec![AttachmentId::generate()],
        |send| send.envelope.key_id = None,
        |send| send.envelope.data = None,
        |send| {
            let twice = send.new_key.as_ref().unwrap().copies[0].clone();
            send.new_key.as_mut().unwrap().copies.push(twice);
        },
        |send| send.new_key.as_mut().unwrap().staged = Some(Hash([0; 32])),
    ];
    for (index, spoil) in breaks.iter().enumerate() {
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        let mut message = pair.ada.seal(&now, &mut key, b"spoilt");
        spoil(&mut message);
        pair.ada.sign_envelope(&mut message);
        let error = refused(&mut pair, Request::Send(Box::new(message))).await;
        assert_eq!((error.code, error.details), (ErrorCode::Malformed, None), "break {index}");
    }
    for change in [Change::Create, Change::Delete, Change::Remove] {
        let malformed = pair.ada.change_from(&now, pair.chat_id, change.clone(), &pair.ada);
        let request = frame::ChangeMembership { chat_id: pair.chat_id, change: malformed, info_keys: Vec::new() };
        let error = refused(&mut pair, Request::ChangeMembership(request)).await;
        assert_eq!(error.code, ErrorCode::Malformed, "{change:?}");
    }
    let change = pair.ada.change_from(&now, pair.chat_id, Change::Leave, &pair.bob);
    let request = frame::ChangeMembership { chat_id: pair.chat_id, change, info_keys: Vec::new() };
    assert_eq!(refused(&mut pair, Request::ChangeMembership(request)).await.code, ErrorCode::Malformed);
    let part = StageCopies { chat_id: pair.chat_id, key_id: KeyId::generate(), part: 1, parts: 1, copies: Vec::new() };
    assert_eq!(refused(&mut pair, Request::StageCopies(part)).await.code, ErrorCode::Malformed);
    good(&mut pair).await;
}

#[tokio::test]
async fn storage_unavailable_while_the_database_does_not_answer() {
    let database = Database::create().await;
    let settings = Settings::on(&database).with("database.deadline_s", 1);
    let mut pair = Pair::start_on(database, settings).await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"held");
    let carol = Device::unregistered("carol", 1_000);
    let registration = serde_json::to_string(&carol.registration()).unwrap();
    let held = pair.database.client().await;
    held.batch_execute("BEGIN; LOCK TABLE chats, users, user_sessions, user_in_chat IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let creation = pair.ada.creation(ChatId::generate());
    let requests = [
        Request::Send(Box::new(message.clone())),
        Request::CreateChat(creation.clone()),
        Request::ListChats(Nothing {}),
        Request::ListSessions(Nothing {}),
        Request::LookupUser(LookupUser { username: Username::parse("bob").unwrap() }),
        Request::History(History { chat_id: pair.chat_id, direction: Direction::After, seq: Seq::default(), limit: 1 }),
    ];
    let mut open = Vec::new();
    for request in requests {
        open.push((request.name(), pair.ada_socket.send(request).await));
    }
    for (name, id) in open {
        let error = pair.ada_socket.answer(id).await.expect_err(name);
        assert_eq!((error.code, error.retryable), (ErrorCode::StorageUnavailable, true), "{name}");
    }
    let (status, body) = pair.broker.request("POST", "/v1/accounts", &registration).await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("\"storage_unavailable\""));
    // A login that the database does not answer may be tried again.
    let mut socket = Socket::open(&pair.broker, sealcast::protocol::codec::Encoding::Json).await;
    let error = socket.request(pair.ada.login(&socket.hello)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StorageUnavailable);
    assert_eq!(socket.close_code().await, Some(1013));
    // Reads need the locks too, so what has changed is looked at afterwards.
    held.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen, now.seen);
    assert_eq!(submit(&mut pair.ada_socket, message).await.unwrap().seq, now.seen.seq.next());
    assert!(pair.ada_socket.request(Request::CreateChat(creation)).await.is_ok());
    assert_eq!(pair.broker.request("POST", "/v1/accounts", &registration).await.0, 200);
}

#[tokio::test]
async fn internal_when_a_stored_value_cannot_be_read() {
    let mut pair = Pair::start().await;
    let corrupt = "UPDATE chat_events SET body = '\\x00' WHERE seq = 1";
    pair.database.client().await.batch_execute(corrupt).await.unwrap();
    let events = Events { chat_id: pair.chat_id, after: Seq::default(), before: Seq::saturating(u64::MAX) };
    let error = refused(&mut pair, Request::Events(events)).await;
    assert_eq!((error.code, error.retryable), (ErrorCode::Internal, true));
    assert!(pair.ada_socket.request(Request::ListChats(Nothing {})).await.is_ok());
}

#[tokio::test]
async fn bad_signatures_of_every_kind() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let breaks: [fn(&mut frame::Send, &Pair); 5] = [
        |send, pair| send.envelope.sender_id = pair.bob.user_id,
        |send, pair| send.envelope.sender_session_id = pair.bob.session_id,
        |send, _| send.new_key.as_mut().unwrap().announcement.signature.0[0] ^= 1,
        |send, _| send.new_key.as_mut().unwrap().announcement.announcement.key_id = KeyId::generate(),
        |send, pair| send.new_key.as_mut().unwrap().announcement.announcement.session_id = pair.bob.session_id,
    ];
    for (index, spoil) in breaks.iter().enumerate() {
        let mut key = pair.ada.sender_key(&now, pair.chat_id);
        let mut message = pair.ada.seal(&now, &mut key, b"spoilt");
        spoil(&mut message, &pair);
        let error = refused(&mut pair, Request::Send(Box::new(message))).await;
        assert_eq!(error.code, ErrorCode::BadSignature, "break {index}");
    }
    // An announcement of the same key for another chat.
    let elsewhere = pair.ada.create_chat(&mut pair.ada_socket).await;
    let mut key = pair.ada.sender_key(&now, elsewhere);
    let mut message = pair.ada.seal(&now, &mut key, b"moved");
    message.chat_id = pair.chat_id;
    assert_eq!(refused(&mut pair, Request::Send(Box::new(message))).await.code, ErrorCode::BadSignature);
    // Another's change, and one's own with another identity key or another session.
    let carol = Device::register(&pair.broker, "carol").await;
    let mut stolen = pair.ada.change_from(&now, pair.chat_id, Change::Remove, &pair.bob);
    stolen.change.actor.session_id = pair.bob.session_id;
    let mut renamed = pair.ada.change_from(&now, pair.chat_id, Change::Remove, &pair.bob).change;
    renamed.actor.identity_key = carol.identity_key();
    let mut mistaken = pair.ada.change_from(&now, pair.chat_id, Change::Remove, &pair.bob).change;
    mistaken.target.identity_key = carol.identity_key();
    let renamed = pair.ada.sign_change(pair.chat_id, renamed);
    let mistaken = pair.ada.sign_change(pair.chat_id, mistaken);
    for change in [stolen, renamed, mistaken] {
        let request = frame::ChangeMembership { chat_id: pair.chat_id, change, info_keys: Vec::new() };
        let error = refused(&mut pair, Request::ChangeMembership(request)).await;
        assert_eq!(error.code, ErrorCode::BadSignature);
    }
    // A creation that somebody else signed, and a wrap of an info key.
    let creation = pair.bob.creation(ChatId::generate());
    assert_eq!(refused(&mut pair, Request::CreateChat(creation)).await.code, ErrorCode::BadSignature);
    for wrapped_by in [pair.ada.session_id, pair.bob.session_id] {
        let mut creation = pair.ada.creation(ChatId::generate());
        let mut wrap = info_key_wrap(&pair.ada, creation.chat_id, pair.ada.session_id);
        wrap.wrapped_by_session_id = wrapped_by;
        wrap.signature.0[0] ^= u8::from(wrapped_by == pair.ada.session_id);
        creation.info_keys = vec![wrap];
        assert_eq!(refused(&mut pair, Request::CreateChat(creation)).await.code, ErrorCode::BadSignature);
    }
    // A revocation that does not verify.
    let chain = sessions(&mut pair.ada_socket).await;
    let mut revocation = pair.ada.revocation(&chain, pair.ada.session_id);
    revocation.signature.0[0] ^= 1;
    let request = Request::RevokeSession(RevokeSession { revocation, withdrawal: None });
    assert_eq!(refused(&mut pair, request).await.code, ErrorCode::BadSignature);
    good(&mut pair).await;
}

/// A wrap that only looks like one, signed for real.
pub fn info_key_wrap(device: &Device, chat_id: ChatId, session_id: SessionId) -> InfoKeyWrap {
    let mut wrap = InfoKeyWrap {
        session_id,
        key_id: InfoKeyId::generate(),
        key: WrappedKey([5; 80]),
        wrapped_by_session_id: device.session_id,
        signature: sealcast::protocol::binary::Signature([0; 64]),
    };
    wrap.signature = sign(&device.signing, &wrap.signed_bytes(chat_id));
    wrap
}

#[tokio::test]
async fn bad_certificates_at_registration_and_approval() {
    let mut pair = Pair::start().await;
    let before = contents(&pair.database).await;
    let breaks: [fn(&mut Device); 9] = [
        |device| device.certificate.signature.0[0] ^= 1,
        |device| device.certificate.certificate.public_key = ExchangeKey([0; 32]),
        |device| device.certificate.certificate.signing_public_key = SigningKey([0xff; 32]),
        |device| device.certificate.certificate.place = device.certificate.certificate.place.next(),
        |device| device.certificate.certificate.previous = Hash([0; 32]),
        |device| device.certificate.certificate.expired_at = device.certificate.certificate.created_at,
        |device| device.certificate.certificate.session_id = SessionId::generate(),
        |device| device.certificate.certificate.user_id = sealcast::protocol::ids::UserId::generate(),
        |device| device.identity = super::support::device::secret_key(),
    ];
    for (index, spoil) in breaks.iter().enumerate() {
        let mut device = Device::unregistered("carol", 1_000);
        spoil(&mut device);
        if !matches!(index, 0 | 6 | 8) {
            device.sign_certificate();
        }
        let (status, body) = register(&pair.broker, &device).await;
        assert_eq!(status, 400, "break {index}: {body}");
        assert!(body.contains("\"bad_certificate\""), "break {index}: {body}");
    }
    let mut weak = Device::unregistered("carol", 1_000).registration();
    weak.identity_key = IdentityKey([0; 32]);
    let (_, body) = pair.broker.request("POST", "/v1/accounts", &serde_json::to_string(&weak).unwrap()).await;
    assert!(body.contains("\"bad_certificate\""), "{body}");
    let mut past = Device::unregistered("carol", 1_000);
    past.certificate.certificate.created_at = sealcast::protocol::ids::Timestamp::saturating(1);
    past.certificate.certificate.expired_at = sealcast::protocol::ids::Timestamp::saturating(2);
    past.sign_certificate();
    let (_, body) = register(&pair.broker, &past).await;
    assert!(body.contains("\"bad_certificate\"") && body.contains("34560000"), "{body}");
    let mut unsound = pair.ada.sibling();
    unsound.certificate.certificate.public_key = ExchangeKey([0; 32]);
    let (status, body) = unsound.ask_to_link(&pair.broker).await;
    assert!(status == 400 && body.contains("\"bad_certificate\""), "{body}");
    assert_eq!(contents(&pair.database).await, before);

    // A8: the approving session certifies other keys than were asked for, or signs with another identity.
    let mut pending = pair.ada.pending(&pair.broker).await;
    let chain = sessions(&mut pair.ada_socket).await;
    pending.certify_at(chain.place.next(), chain.hash);
    let other = pair.ada.sibling().certificate.certificate;
    let breaks: [fn(&mut Device, &sealcast::protocol::certificate::Certificate); 4] = [
        |device, other| device.certificate.certificate.public_key = other.public_key,
        |device, other| device.certificate.certificate.signing_public_key = other.signing_public_key,
        |device, _| device.identity = super::support::device::secret_key(),
        |device, _| device.certificate.certificate.user_id = sealcast::protocol::ids::UserId::generate(),
    ];
    for (index, spoil) in breaks.iter().enumerate() {
        let mut spoilt = pending.clone();
        spoil(&mut spoilt, &other);
        spoilt.sign_certificate();
        let error = refused(&mut pair, Request::ApproveSession(spoilt.approval())).await;
        assert_eq!(error.code, ErrorCode::BadCertificate, "break {index}");
    }
    assert!(pair.ada_socket.request(Request::ApproveSession(pending.approval())).await.is_ok());
    good(&mut pair).await;
}

async fn register(broker: &Broker, device: &Device) -> (u16, String) {
    broker.request("POST", "/v1/accounts", &serde_json::to_string(&device.registration()).unwrap()).await
}

#[tokio::test]
async fn usernames_over_http() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = Device::register(&broker, "Ada.L").await;
    let before = contents(&database).await;
    for name in ["ada.l", "ADA.L", "Ada.L"] {
        let (status, body) = register(&broker, &Device::unregistered(name, 1_000)).await;
        assert_eq!(status, 409, "{body}");
        assert!(body.contains("\"username_taken\""), "{:?}: {body}", ErrorCode::UsernameTaken);
    }
    // One's own identity under another name, and another's session.
    let mut renamed = ada.registration();
    renamed.username = "another".to_owned();
    let (status, body) = broker.request("POST", "/v1/accounts", &serde_json::to_string(&renamed).unwrap()).await;
    assert!(status == 409 && body.contains("\"username_taken\""), "{body}");
    for name in ["", "ab", "a b c", "admin", "s.e.a.l.cast", "-ada", "ada-", "\u{430}da", "ada\u{0}b", "..", "ada/x"] {
        let (status, body) = register(&broker, &Device::unregistered(name, 1_000)).await;
        assert_eq!(status, 400, "{name:?}: {body}");
        assert!(body.contains("\"username_invalid\""), "{:?}: {body}", ErrorCode::UsernameInvalid);
    }
    assert_eq!(contents(&database).await, before);
    // The same request again gets the same answer.
    assert_eq!(register(&broker, &ada).await, register(&broker, &ada).await);
    assert_eq!(register(&broker, &ada).await.0, 200);
    assert_eq!(contents(&database).await, before);
}

#[tokio::test]
async fn unknown_users() {
    let mut pair = Pair::start().await;
    let username = Username::parse("nobody-here").unwrap();
    let error = refused(&mut pair, Request::LookupUser(LookupUser { username })).await;
    assert_eq!((error.code, error.details), (ErrorCode::UnknownUser, None));
    for name in ["nobody-here", "x", "%00", "..%2F..%2Fetc"] {
        let (status, body) = pair.broker.request("GET", &format!("/v1/users/{name}"), "").await;
        assert_eq!(status, 404, "{name}: {body}");
        assert!(body.contains("\"unknown_user\""), "{name}: {body}");
    }
    let (status, body) = Device::unregistered("ghost", 1_000).ask_to_link(&pair.broker).await;
    assert!(status == 404 && body.contains("\"unknown_user\""), "{body}");
    // A member to be is named by id and identity key.
    let carol = Device::register(&pair.broker, "carol").await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let add = Change::Add {
        can_write: true,
        can_manage: false,
        roster_hash: now.fold.roster_hash(),
        epoch: now.fold.epoch(),
    };
    let mut change = pair.ada.change_from(&now, pair.chat_id, add, &carol).change;
    change.target.identity_key = pair.bob.identity_key();
    let change = pair.ada.sign_change(pair.chat_id, change);
    let request = frame::ChangeMembership { chat_id: pair.chat_id, change, info_keys: Vec::new() };
    assert_eq!(refused(&mut pair, Request::ChangeMembership(request)).await.code, ErrorCode::UnknownUser);
    let lookup = LookupUser { username: Username::parse("CAROL").unwrap() };
    let Reply::User(found) = pair.ada_socket.request(Request::LookupUser(lookup)).await.unwrap() else { panic!() };
    assert_eq!((found.user_id, found.sessions), (carol.user_id, vec![carol.certificate.clone()]));
    good(&mut pair).await;
}

#[tokio::test]
async fn unknown_sessions() {
    let mut pair = Pair::start().await;
    let mut own = pair.ada.linked(&pair.broker, &mut pair.ada_socket).await;
    let chain = sessions(&mut pair.ada_socket).await;
    // Of nobody, of another user, live already with another certificate: none of them waits for approval.
    own.certify_at(chain.place.next(), chain.hash);
    let mut bobs = pair.bob.pending(&pair.broker).await;
    bobs.identity = pair.ada.identity.clone();
    bobs.certificate.certificate.user_id = pair.ada.user_id;
    bobs.certify_at(chain.place.next(), chain.hash);
    for device in [pair.ada.sibling(), own, bobs.clone()] {
        let error = refused(&mut pair, Request::ApproveSession(device.approval())).await;
        assert_eq!((error.code, error.details), (ErrorCode::UnknownSession, None));
    }
    for session_id in [SessionId::generate(), pair.bob.session_id, bobs.session_id] {
        let revocation = pair.ada.revocation(&chain, session_id);
        let error = refused(&mut pair, Request::RevokeSession(RevokeSession { revocation, withdrawal: None })).await;
        assert_eq!((error.code, error.details), (ErrorCode::UnknownSession, None));
    }
    let mut revocation = pair.ada.revocation(&chain, pair.ada.session_id).revocation;
    revocation.user_id = pair.bob.user_id;
    let revocation = pair.ada.sign_revocation(revocation);
    let request = Request::RevokeSession(RevokeSession { revocation, withdrawal: None });
    assert_eq!(refused(&mut pair, request).await.code, ErrorCode::UnknownSession);
    assert_eq!(refused(&mut pair, Request::FetchHandover(Nothing {})).await.code, ErrorCode::UnknownSession);
    // A session id that is taken, by oneself or by another.
    for taken in [pair.ada.session_id, pair.bob.session_id, bobs.session_id] {
        let mut sibling = pair.ada.sibling();
        sibling.session_id = taken;
        let (status, body) = sibling.ask_to_link(&pair.broker).await;
        assert!(status == 404 && body.contains("\"unknown_session\""), "{body}");
    }
    good(&mut pair).await;
}

#[tokio::test]
async fn z1_a_stranger_gets_unknown_chat_to_every_request() {
    let mut pair = Pair::start().await;
    let eve = Device::register(&pair.broker, "eve").await;
    let mut socket = eve.connect_live(&pair.broker).await;
    let theirs = view(&mut pair.ada_socket, pair.chat_id).await;
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "ours").await.unwrap();
    let own = eve.create_chat(&mut socket).await;
    let before = contents(&pair.database).await;
    for chat_id in [pair.chat_id, ChatId::generate()] {
        let mut key = eve.sender_key(&theirs, chat_id);
        let seq = Seq::default();
        let requests = [
            Request::Send(Box::new(eve.seal(&theirs, &mut key, b"let me in"))),
            Request::ChangeMembership(frame::ChangeMembership {
                chat_id,
                change: eve.change_from(&theirs, chat_id, Change::Remove, &pair.bob),
                info_keys: Vec::new(),
            }),
            Request::DeleteChat(frame::DeleteChat {
                chat_id,
                change: eve.change_from(&theirs, chat_id, Change::Delete, &eve),
            }),
            Request::StageCopies(StageCopies {
                chat_id,
                key_id: KeyId::generate(),
                part: 0,
                parts: 1,
                copies: vec![copy_for(eve.session_id)],
            }),
            Request::History(History { chat_id, direction: Direction::After, seq, limit: 10 }),
            Request::History(History { chat_id, direction: Direction::Before, seq: seq.next(), limit: 10 }),
            Request::Events(Events { chat_id, after: seq, before: Seq::saturating(u64::MAX) }),
            Request::Keys(Keys { chat_id, key_ids: vec![KeyId::generate()] }),
            Request::AdvanceCursor(AdvanceCursor { chat_id, seq }),
            Request::Signal(eve.signal(chat_id, KeyId::generate())),
            Request::ListDeliveries(frame::ListDeliveries { chat_id }),
            Request::RequestKeys(frame::RequestKeys { chat_id, key_ids: vec![KeyId::generate()] }),
            Request::UploadCopies(frame::UploadCopies { chat_id, copies: Vec::new() }),
            Request::RefuseCopy(eve.copy_refusal(chat_id, KeyId::generate())),
        ];
        for request in requests {
            let name = request.name();
            let error = socket.request(request).await.expect_err(name);
            assert_eq!((error.code, error.details), (ErrorCode::UnknownChat, None), "{name}");
        }
        // A cursor of a chat that is not one's own brings nothing of it.
        let cursors = vec![Cursor { chat_id, seq }];
        socket.request(Request::Resume(Resume { cursors })).await.unwrap();
    }
    assert_eq!(contents(&pair.database).await, before);
    pair.ada.say(&mut pair.ada_socket, pair.chat_id, "ours too").await.unwrap();
    eve.say(&mut socket, own, "good").await.unwrap();
    let mut gone = 0;
    for push in socket.pushes_so_far().await {
        match push {
            // The same for a chat of others and for one that is not: `resume` named both.
            frame::ServerFrame::ChatGone(_) => gone += 1,
            push => assert!(!format!("{push:?}").contains(&pair.chat_id.to_string()), "{push:?}"),
        }
    }
    assert_eq!(gone, 2);
}

#[tokio::test]
async fn keys_of_others_old_keys_and_no_keys() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut bobs = pair.bob.sender_key(&now, pair.chat_id);
    let message = pair.bob.seal(&now, &mut bobs, b"bob's");
    submit(&mut pair.bob_socket, message).await.unwrap();
    let now = view(&mut pair.ada_socket, pair.chat_id).await;

    // Z8: under another session's key.
    let mut stolen = bobs.clone();
    let message = pair.ada.seal(&now, &mut stolen, b"under bob's key");
    let error = refused(&mut pair, Request::Send(Box::new(message))).await;
    assert_eq!((error.code, error.retryable), (ErrorCode::UnknownKey, true));
    // Under a key that nobody has announced.
    let mut unknown = pair.ada.sender_key(&now, pair.chat_id);
    unknown.sent = true;
    let message = pair.ada.seal(&now, &mut unknown, b"under no key");
    let error = refused(&mut pair, Request::Send(Box::new(message))).await;
    assert_eq!(error.code, ErrorCode::KeyStale);
    assert_eq!(error.details.unwrap().epoch, Some(now.fold.epoch()));
    // Announced under an id that is taken: by another, and by oneself with other bytes.
    let mut taken = pair.ada.sender_key(&now, pair.chat_id);
    taken.announcement.announcement.key_id = bobs.announcement.announcement.key_id;
    let bytes = taken.announcement.announcement.signed_bytes(pair.chat_id);
    taken.announcement.signature = sign(&pair.ada.signing, &bytes);
    let message = pair.ada.seal(&now, &mut taken, b"a taken id");
    let error = refused(&mut pair, Request::Send(Box::new(message))).await;
    assert_eq!((error.code, error.details), (ErrorCode::KeyExists, None));
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"mine");
    submit(&mut pair.ada_socket, message).await.unwrap();
    let mut other = pair.ada.sender_key(&now, pair.chat_id);
    other.announcement.announcement.key_id = key.announcement.announcement.key_id;
    let bytes = other.announcement.announcement.signed_bytes(pair.chat_id);
    other.announcement.signature = sign(&pair.ada.signing, &bytes);
    let message = pair.ada.seal(&now, &mut other, b"other bytes");
    assert_eq!(refused(&mut pair, Request::Send(Box::new(message))).await.code, ErrorCode::KeyExists);
    // The same key again in full is the same key; and Z7: its copies stay as they were first.
    let stored = "SELECT md5(string_agg(key::text, ',' ORDER BY session_id)) FROM vault_chat_sender_keys";
    let client = pair.database.client().await;
    let before: String = client.query_one(stored, &[]).await.unwrap().get(0);
    let mut again = key.clone();
    again.sent = false;
    again.copies = again.copies.iter().map(|copy| copy_for(copy.session_id)).collect();
    let message = pair.ada.seal(&now, &mut again, b"in full again");
    submit(&mut pair.ada_socket, message).await.unwrap();
    assert_eq!(client.query_one(stored, &[]).await.unwrap().get::<_, String>(0), before);
    // An older key of one's own in the same epoch has been replaced, before and after the chat is loaded again.
    let mut newer = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut newer, b"newer");
    submit(&mut pair.ada_socket, message).await.unwrap();
    let message = pair.ada.seal(&now, &mut again, b"older");
    let error = refused(&mut pair, Request::Send(Box::new(message.clone()))).await;
    assert_eq!(error.code, ErrorCode::KeyStale);
    pair.broker.kill_and_restart().await;
    pair.ada_socket = pair.ada.connect_live(&pair.broker).await;
    assert_eq!(refused(&mut pair, Request::Send(Box::new(message))).await.code, ErrorCode::KeyStale);
    // Announced for an epoch that has not come.
    let mut early = pair.ada.sender_key_for(now.fold.epoch().next(), pair.chat_id, &[]);
    let message = pair.ada.seal(&now, &mut early, b"early");
    let error = refused(&mut pair, Request::Send(Box::new(message))).await;
    assert_eq!(error.code, ErrorCode::KeyStale);
    good(&mut pair).await;
}

#[tokio::test]
async fn details_of_copies_and_rosters() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let at = Some(now.fold.roster_version());
    let epoch = Some(now.fold.epoch());

    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let stranger = SessionId::generate();
    key.copies.push(copy_for(stranger));
    let message = pair.ada.seal(&now, &mut key, b"one too many");
    let error = refused(&mut pair, Request::Send(Box::new(message))).await;
    let details = error.details.unwrap();
    assert_eq!(error.code, ErrorCode::RecipientsChanged);
    assert_eq!((details.seq, details.epoch, details.extra), (at, epoch, vec![stranger]));

    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let mut message = pair.ada.seal(&now, &mut key, b"another roster");
    message.envelope.roster_hash = Hash([9; 32]);
    pair.ada.sign_envelope(&mut message);
    let error = refused(&mut pair, Request::Send(Box::new(message))).await;
    let details = error.details.unwrap();
    assert_eq!((error.code, details.seq, details.epoch), (ErrorCode::RosterChanged, at, epoch));

    // The key itself and what copies came are stored: that alone may change.
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    key.copies.clear();
    let message = pair.ada.seal(&now, &mut key, b"no copies");
    let error = submit(&mut pair.ada_socket, message.clone()).await.unwrap_err();
    let details = error.details.unwrap();
    assert_eq!(error.code, ErrorCode::CopiesMissing);
    let recipients: Vec<SessionId> = now.fold.recipients().keys().copied().collect();
    assert_eq!((details.seq, details.epoch, details.missing), (at, epoch, recipients));
    assert_eq!(details.reason, Some(sealcast::protocol::error::MissingReason::NewSession));
    assert_eq!(view(&mut pair.ada_socket, pair.chat_id).await.seen, now.seen);
    let staged = "SELECT count(*) FROM sender_keys WHERE last_counter = 0";
    assert_eq!(pair.database.count(staged).await, 1);
    // One copy, then the other, then the message counts.
    for (left, session_id) in [(1, pair.ada.session_id), (0, pair.bob.session_id)] {
        let mut more = message.clone();
        more.new_key = None;
        more.add_copies = vec![copy_for(session_id)];
        match submit(&mut pair.ada_socket, more).await {
            Err(error) => assert_eq!(error.details.unwrap().missing.len(), left),
            Ok(sent) => assert_eq!((left, sent.seq), (0, now.seen.seq.next())),
        }
    }
    // Copies that went ahead and are not there: nothing is stored.
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    key.copies.clear();
    let mut message = pair.ada.seal(&now, &mut key, b"ahead");
    message.new_key.as_mut().unwrap().staged = Some(Hash([3; 32]));
    let error = refused(&mut pair, Request::Send(Box::new(message))).await;
    assert_eq!((error.code, error.details), (ErrorCode::UnknownKey, None));
    good(&mut pair).await;
}

#[tokio::test]
async fn counters() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    for counter in [0, 2, u64::MAX] {
        let mut first = key.clone();
        let mut message = pair.ada.seal(&now, &mut first, b"first");
        message.envelope.counter = Counter::saturating(counter);
        pair.ada.sign_envelope(&mut message);
        let error = refused(&mut pair, Request::Send(Box::new(message))).await;
        assert_eq!(error.code, ErrorCode::CounterGap, "{counter}");
        assert_eq!(error.details.unwrap().counter, Some(Counter::saturating(1)));
    }
    let message = pair.ada.seal(&now, &mut key, b"first");
    submit(&mut pair.ada_socket, message).await.unwrap();
    for counter in [0, 1, 3] {
        key.counter = counter;
        let mut message = pair.ada.seal(&now, &mut key, b"second");
        message.envelope.counter = Counter::saturating(counter);
        pair.ada.sign_envelope(&mut message);
        let error = refused(&mut pair, Request::Send(Box::new(message))).await;
        assert_eq!(error.code, ErrorCode::CounterGap, "{counter}");
        assert_eq!(error.details.unwrap().counter, Some(Counter::saturating(2)));
    }
    key.counter = 1;
    let message = pair.ada.seal(&now, &mut key, b"second");
    submit(&mut pair.ada_socket, message).await.unwrap();
}

#[tokio::test]
async fn ids_that_are_taken() {
    let mut pair = Pair::start().await;
    // A chat's id: one's own and another's get the same answer.
    let theirs = pair.bob.create_chat(&mut pair.bob_socket).await;
    for chat_id in [pair.chat_id, theirs] {
        let creation = pair.ada.creation(chat_id);
        let mut other = creation.change.change.clone();
        other.seen.log_hash = Hash([1; 32]);
        let change = pair.ada.sign_change(chat_id, other);
        let request = frame::CreateChat { change, ..creation };
        let error = refused(&mut pair, Request::CreateChat(request)).await;
        assert_eq!((error.code, error.details), (ErrorCode::IdReused, None));
    }
    // A message's id, under a newer key.
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let message = pair.ada.seal(&now, &mut key, b"first");
    let first = submit(&mut pair.ada_socket, message.clone()).await.unwrap();
    let mut other = pair.ada.seal(&now, &mut key, b"other");
    other.envelope.message_id = message.envelope.message_id;
    pair.ada.sign_envelope(&mut other);
    let error = refused(&mut pair, Request::Send(Box::new(other))).await;
    assert_eq!(error.code, ErrorCode::IdReused);
    assert_eq!(error.details.unwrap().stored.unwrap().seq, first.seq);
    good(&mut pair).await;
}

#[tokio::test]
async fn ahead_of_the_log() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let (chat_id, last, beyond) = (pair.chat_id, now.seen.seq, now.seen.seq.next());
    let mut key = pair.ada.sender_key(&now, chat_id);
    let mut message = pair.ada.seal(&now, &mut key, b"from the future");
    message.envelope.seen.seq = beyond;
    pair.ada.sign_envelope(&mut message);
    let mut change = pair.ada.change_from(&now, chat_id, Change::Remove, &pair.bob).change;
    change.seen.seq = beyond;
    let change = pair.ada.sign_change(chat_id, change);
    let requests = [
        Request::Send(Box::new(message)),
        Request::ChangeMembership(frame::ChangeMembership { chat_id, change, info_keys: Vec::new() }),
        Request::AdvanceCursor(AdvanceCursor { chat_id, seq: beyond }),
        Request::Resume(Resume { cursors: vec![Cursor { chat_id, seq: beyond }] }),
    ];
    for request in requests {
        let name = request.name();
        let error = refused(&mut pair, request).await;
        assert_eq!(error.code, ErrorCode::AheadOfLog, "{name}");
        assert_eq!(error.details.unwrap().seq, Some(last), "{name}");
    }
    // At the end of the log, and never back.
    for seq in [last, Seq::saturating(1)] {
        pair.ada_socket.request(Request::AdvanceCursor(AdvanceCursor { chat_id, seq })).await.unwrap();
        let kept = "SELECT seq FROM session_cursors";
        assert_eq!(pair.database.count(kept).await as u64, last.get());
    }
    good(&mut pair).await;
}

#[tokio::test]
async fn a_refused_change_of_members_leaves_those_beside_it_alone() {
    let mut pair = Pair::start().await;
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    let mut key = pair.ada.sender_key(&now, pair.chat_id);
    let first = pair.ada.seal(&now, &mut key, b"before");
    let conflicting = pair.ada.change_from(&now, pair.chat_id, Change::Remove, &pair.ada);
    let second = pair.ada.seal(&now, &mut key, b"after");
    let first = pair.ada_socket.send(Request::Send(Box::new(first))).await;
    let refused = change_membership(&mut pair.bob_socket, pair.chat_id, conflicting).await.unwrap_err();
    let second = pair.ada_socket.send(Request::Send(Box::new(second))).await;
    assert_eq!(refused.code, ErrorCode::BadSignature);
    assert!(pair.ada_socket.answer(first).await.is_ok());
    assert!(pair.ada_socket.answer(second).await.is_ok());
    let approval = ApproveSession {
        certificate: pair.ada.certificate.clone(),
        handover: Blob::default(),
        renewal: None,
        backups: Vec::new(),
    };
    // The first certificate again is a repeat of what is so.
    assert!(pair.ada_socket.request(Request::ApproveSession(approval)).await.is_ok());
}
