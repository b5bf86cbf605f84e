//! What the broker takes of secrets, and what it refuses.

use std::collections::BTreeSet;

use sealcast::protocol::binary::{Blob, Hash};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    self, ConfirmSecret, FetchSecret, FetchSecretLog, ListSecrets, Reply, Request, SecretLog, ServerFrame, SetSecret,
};
use sealcast::protocol::group_secret::{SecretAction, SecretWrite, SignedSecretDeletion};
use sealcast::protocol::ids::{ChatId, GenerationNo, Revision, SecretId, SecretLogNo, Seq};
use sealcast::protocol::limits::{
    SECRET_LOG_MAX, SECRET_NAME_BYTES_MAX, SECRET_VALUE_BYTES_MAX, SECRET_WRITES_PER_MINUTE_MAX, SECRETS_MAX,
    SECRETS_PER_REQUEST_MAX,
};

use crate::codes::contents;
use crate::generations::pair_with_password;
use crate::messages::Pair;
use crate::support::chat::view;
use crate::support::device::{Device, Socket};
use crate::support::generations::{NO_HASH, NO_SIGNATURE};
use crate::support::halves::Halves;
use crate::support::secrets::{fetch_secret, list_secrets, set};

const FIRST: GenerationNo = GenerationNo::saturating(1);

/// Ada and Bob in a chat whose first generation is current.
async fn pair() -> (Pair, Halves) {
    let (mut pair, halves) = pair_with_password().await;
    make_generation(&mut pair).await;
    (pair, halves)
}

/// Makes the generation that is due.
async fn make_generation(pair: &mut Pair) {
    let now = view(&mut pair.ada_socket, pair.chat_id).await;
    pair.ada.make_generation(&mut pair.ada_socket, &now, pair.chat_id).await.unwrap();
}

async fn done(socket: &mut Socket, request: Request) -> Result<(), frame::Error> {
    match socket.request(request).await? {
        Reply::Done(_) => Ok(()),
        other => panic!("{other:?}"),
    }
}

async fn log(socket: &mut Socket, chat_id: ChatId, before: Option<SecretLogNo>) -> SecretLog {
    match socket.request(Request::FetchSecretLog(FetchSecretLog { chat_id, before })).await.unwrap() {
        Reply::SecretLog(log) => log,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn p2_a_secret_is_made_changed_and_ended_once_however_often_it_is_asked_for() {
    let (mut pair, _halves) = pair().await;
    let chat_id = pair.chat_id;
    let first = pair.ada.secret(chat_id, FIRST);
    let secret_id = first.secret.secret.secret_id;
    done(&mut pair.ada_socket, set(&first)).await.unwrap();
    let told = pair.bob_socket.push_that(|push| match push {
        ServerFrame::SecretChanged(changed) => Some(*changed),
        _ => None,
    });
    let told = told.await;
    assert_eq!((told.chat_id, told.secret_id, told.revision.get()), (chat_id, secret_id, 1));
    let second = pair.bob.next_secret(&first);
    done(&mut pair.bob_socket, set(&second)).await.unwrap();
    let before = contents(&pair.database).await;
    for request in [set(&first), set(&first)] {
        done(&mut pair.ada_socket, request).await.expect("it is done, and not undone");
    }
    assert_eq!(contents(&pair.database).await, before);

    let listed = list_secrets(&mut pair.ada_socket, chat_id, None).await;
    let shown: Vec<_> = listed.secrets.iter().map(|listed| (&listed.secret, listed.writer_id)).collect();
    assert_eq!(shown, [(&second.secret, pair.bob.user_id)]);
    assert!(listed.secrets[0].kept_generation.is_none() && !listed.more && listed.deleted.is_empty());
    assert_eq!((listed.openers[0].generation, &listed.openers[0].users[..]), (FIRST, &[pair.ada.user_id][..]));
    let fetched = fetch_secret(&mut pair.bob_socket, chat_id, secret_id).await;
    assert_eq!((&fetched.current.secret, &fetched.current.value), (&second.secret, &second.value));
    assert!(fetched.kept.is_none());

    // Ada may, for the chat is hers.
    let over = pair.ada.secret_deletion(&second);
    done(&mut pair.ada_socket, Request::DeleteSecret(over)).await.unwrap();
    let before = contents(&pair.database).await;
    done(&mut pair.ada_socket, Request::DeleteSecret(over)).await.expect("it is done");
    assert_eq!(contents(&pair.database).await, before);
    let listed = list_secrets(&mut pair.bob_socket, chat_id, None).await;
    assert_eq!((listed.secrets.len(), &listed.deleted[..]), (0, &[over.deletion][..]));
    let nothing = "SELECT count(*) FROM group_secrets WHERE value IS NOT NULL OR kept_value IS NOT NULL";
    assert_eq!(pair.database.count(nothing).await, 0);

    let entries = log(&mut pair.bob_socket, chat_id, None).await.entries;
    let deeds: Vec<_> = entries.iter().map(|entry| (entry.user_id, entry.action, entry.revision.get())).collect();
    let (ada, bob) = (pair.ada.user_id, pair.bob.user_id);
    use SecretAction::{Change, Create, Delete, Read};
    assert_eq!(deeds, [(ada, Delete, 3), (bob, Read, 2), (bob, Change, 2), (ada, Create, 1)]);
    assert!(entries.iter().all(|entry| entry.secret_id == secret_id));
}

#[tokio::test]
async fn p10_what_is_no_revision_of_a_secret_is_refused_and_changes_nothing() {
    let (mut pair, _halves) = pair().await;
    let chat_id = pair.chat_id;
    let ada = pair.ada.clone();
    let first = ada.secret(chat_id, FIRST);
    let secret_id = first.secret.secret.secret_id;
    done(&mut pair.ada_socket, set(&first)).await.unwrap();
    let next = ada.next_secret(&first);
    let signed = |change: &dyn Fn(&mut SetSecret)| {
        let mut changed = next.clone();
        change(&mut changed);
        set(&ada.sign_secret(changed))
    };
    let with_value =
        |length: usize| set(&ada.signed_secret(chat_id, next.secret.secret.clone(), vec![7; length].into()));
    let mut unsigned = next.clone();
    unsigned.secret.signature = NO_SIGNATURE;
    let over = |device: &Device, change: &dyn Fn(&mut SignedSecretDeletion)| {
        let mut deletion = device.secret_deletion(&first);
        change(&mut deletion.deletion);
        Request::DeleteSecret(deletion)
    };
    let unknown = SecretId::generate();
    use ErrorCode::{BadSignature, EditConflict, GroupKeyExists, Malformed, TooLarge};
    let confirm = |secret_id, revision| Request::ConfirmSecret(ConfirmSecret { chat_id, secret_id, revision });
    let cases: Vec<(&str, Request, ErrorCode)> = vec![
        ("a long name", signed(&|set| set.secret.secret.name = vec![7; SECRET_NAME_BYTES_MAX + 1].into()), TooLarge),
        ("a long value", with_value(SECRET_VALUE_BYTES_MAX + 1), TooLarge),
        ("no value", with_value(27), Malformed),
        ("no name", signed(&|set| set.secret.secret.name = vec![7; 27].into()), Malformed),
        ("another value", signed(&|set| set.value = Blob::from(vec![9; 60])), Malformed),
        ("no revision before", signed(&|set| set.secret.secret.previous = None), Malformed),
        ("a source", signed(&|set| set.secret.secret.source = Some(NO_HASH)), Malformed),
        ("revision 0", signed(&|set| set.secret.secret.revision = Revision::default()), Malformed),
        ("from the future", signed(&|set| set.secret.secret.changed_seq = Seq::saturating(999)), Malformed),
        ("no signature", set(&unsigned), BadSignature),
        ("another session", set(&pair.bob.next_secret(&first)), BadSignature),
        ("another generation", signed(&|set| set.secret.secret.generation = FIRST.next()), GroupKeyExists),
        ("no generation", signed(&|set| set.secret.secret.generation = GenerationNo::default()), GroupKeyExists),
        (
            "the same revision",
            signed(&|set| {
                set.secret.secret.revision = Revision::saturating(1);
                set.secret.secret.previous = None;
                set.secret.secret.changed_seq = Seq::saturating(2);
            }),
            EditConflict,
        ),
        ("a revision too far", signed(&|set| set.secret.secret.revision = Revision::saturating(3)), EditConflict),
        ("another before", signed(&|set| set.secret.secret.previous = Some(NO_HASH)), EditConflict),
        ("a second revision of none", signed(&|set| set.secret.secret.secret_id = unknown), EditConflict),
        ("sealed again for nothing", set(&ada.resealed(&first, FIRST, None)), Malformed),
        ("an end of none", over(&ada, &|it| it.deletion.secret_id = unknown), BadSignature),
        ("an end by another", over(&pair.bob, &|_| {}), BadSignature),
        (
            "an end of what was",
            {
                let mut deletion = ada.secret_deletion(&first);
                deletion.deletion.deletion.revision = Revision::saturating(3);
                let bytes = deletion.deletion.deletion.signed_bytes(chat_id);
                deletion.deletion.signature = crate::support::device::sign(&ada.signing, &bytes);
                Request::DeleteSecret(deletion)
            },
            EditConflict,
        ),
        (
            "an end of an unknown one",
            Request::DeleteSecret(ada.secret_deletion(&ada.secret(chat_id, FIRST))),
            ErrorCode::UnknownSecret,
        ),
        ("a look at none", Request::FetchSecret(FetchSecret { chat_id, secret_id: unknown }), ErrorCode::UnknownSecret),
        ("a word for none", confirm(unknown, Revision::saturating(1)), ErrorCode::UnknownSecret),
        ("a word for another revision", confirm(secret_id, Revision::saturating(2)), EditConflict),
    ];
    for (what, request, code) in cases {
        let before = contents(&pair.database).await;
        let refused = done(&mut pair.ada_socket, request).await.expect_err(what);
        assert_eq!(refused.code, code, "{what}: {}", refused.message);
        if code == EditConflict && what != "a second revision of none" {
            assert_eq!(refused.details.unwrap().revision, Some(Revision::saturating(2)), "{what}");
        }
        assert_eq!(contents(&pair.database).await, before, "{what} changed something");
    }
    done(&mut pair.ada_socket, set(&next)).await.expect("a good one works");

    // Ended is ended.
    done(&mut pair.ada_socket, Request::DeleteSecret(ada.secret_deletion(&next))).await.unwrap();
    for request in [
        set(&ada.next_secret(&next)),
        Request::FetchSecret(FetchSecret { chat_id, secret_id }),
        Request::DeleteSecret(ada.secret_deletion(&ada.next_secret(&next))),
        confirm(secret_id, Revision::saturating(3)),
    ] {
        let name = request.name();
        assert_eq!(done(&mut pair.ada_socket, request).await.unwrap_err().code, ErrorCode::UnknownSecret, "{name}");
    }
}

#[tokio::test]
async fn z3_who_may_not_write_reads_and_seals_again_and_strangers_and_the_removed_get_nothing() {
    let (mut pair, _halves) = pair().await;
    let chat_id = pair.chat_id;
    let (ada, bob) = (pair.ada.clone(), pair.bob.clone());
    let first = ada.secret(chat_id, FIRST);
    let secret_id = first.secret.secret.secret_id;
    done(&mut pair.ada_socket, set(&first)).await.unwrap();
    // Not a manager, and not the writer.
    let over = Request::DeleteSecret(bob.secret_deletion(&first));
    assert_eq!(done(&mut pair.bob_socket, over).await.unwrap_err().code, ErrorCode::CannotManage);
    ada.set_rights(&mut pair.ada_socket, chat_id, &bob, (false, false)).await.unwrap();
    for request in [set(&bob.secret(chat_id, FIRST)), set(&bob.next_secret(&first))] {
        assert_eq!(done(&mut pair.bob_socket, request).await.unwrap_err().code, ErrorCode::CannotWrite);
    }
    assert_eq!(fetch_secret(&mut pair.bob_socket, chat_id, secret_id).await.current.secret, first.secret);

    // After a removal the next generation is due, and nothing is written under the old one.
    let carol = Device::register(&pair.broker, "carol").await;
    let mut carols = carol.connect_live(&pair.broker).await;
    ada.add(&mut pair.ada_socket, chat_id, &carol).await.unwrap();
    let due = done(&mut pair.ada_socket, set(&ada.next_secret(&first))).await.unwrap_err();
    assert_eq!((due.code, due.details.unwrap().generation), (ErrorCode::GroupKeyDue, Some(FIRST.next())));
    make_generation(&mut pair).await;
    let stale = done(&mut pair.ada_socket, set(&ada.next_secret(&first))).await.unwrap_err();
    assert_eq!(stale.code, ErrorCode::GroupKeyExists);

    // Sealed again by who may only read; what it was made of is kept, and the oldest of it.
    let source = Some(first.secret.hash(chat_id));
    let wrong = bob.resealed(&first, FIRST.next(), Some(Hash([9; 32])));
    assert_eq!(done(&mut pair.bob_socket, set(&wrong)).await.unwrap_err().code, ErrorCode::Malformed);
    let mut later = bob.resealed(&first, FIRST.next(), None);
    later.secret.secret.changed_seq = Seq::saturating(2);
    let refused = done(&mut pair.bob_socket, set(&bob.sign_secret(later))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Malformed, "it was not set then");
    let second = bob.resealed(&first, FIRST.next(), None);
    done(&mut pair.bob_socket, set(&second)).await.unwrap();
    let own = ConfirmSecret { chat_id, secret_id, revision: Revision::saturating(2) };
    let refused = done(&mut pair.bob_socket, Request::ConfirmSecret(own)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Malformed, "nobody vouches for oneself");
    let third = ada.resealed(&second, FIRST.next(), None);
    let refused = done(&mut pair.ada_socket, set(&third)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Malformed, "it is made of what is kept");
    let third = ada.resealed(&second, FIRST.next(), source);
    done(&mut pair.ada_socket, set(&third)).await.unwrap();
    let fetched = fetch_secret(&mut pair.bob_socket, chat_id, secret_id).await;
    assert_eq!(
        (&fetched.current.secret, fetched.kept.map(|kept| kept.secret)),
        (&third.secret, Some(first.secret.clone()))
    );
    assert_eq!(fetched.current.secret.secret.write, SecretWrite::Reseal);
    let listed = list_secrets(&mut carols, chat_id, None).await;
    assert_eq!((listed.secrets[0].kept_generation, listed.secrets[0].writer_id), (Some(FIRST), ada.user_id));
    let confirm = ConfirmSecret { chat_id, secret_id, revision: Revision::saturating(3) };
    for _ in 0..2 {
        done(&mut pair.bob_socket, Request::ConfirmSecret(confirm)).await.expect("also a second time");
    }
    assert!(fetch_secret(&mut carols, chat_id, secret_id).await.kept.is_none());

    // Strangers, and who was one of them.
    let eve = Device::register(&pair.broker, "eve").await;
    let mut eves = eve.connect_live(&pair.broker).await;
    let removed = ada.remove(&mut pair.ada_socket, chat_id, &bob).await.unwrap();
    let before = contents(&pair.database).await;
    let more = [
        Request::FetchSecret(FetchSecret { chat_id, secret_id }),
        Request::ConfirmSecret(confirm),
        Request::ListSecrets(ListSecrets { chat_id, after: None }),
    ];
    for (device, socket) in [(&eve, &mut eves), (&bob, &mut pair.bob_socket)] {
        for request in device.every_secret_request(chat_id).into_iter().chain(more.clone()) {
            let name = request.name();
            let refused = socket.request(request).await.expect_err(name);
            assert_eq!(refused.code, ErrorCode::UnknownChat, "{name} {}", device.username);
        }
    }
    assert_eq!(contents(&pair.database).await, before);
    assert_eq!(list_secrets(&mut carols, chat_id, None).await.removal_seq, removed.seq);
    make_generation(&mut pair).await;
    pair.ada.say(&mut pair.ada_socket, chat_id, "good").await.map(|_| ()).or_else(archive_is_missing).unwrap();
}

/// Who speaks the bare protocol here archives no keys.
fn archive_is_missing(error: frame::Error) -> Result<(), frame::Error> {
    if error.code == ErrorCode::CopiesMissing { Ok(()) } else { Err(error) }
}

#[tokio::test]
async fn p10_secrets_of_a_chat_their_writes_in_a_minute_and_the_log_of_them_are_bounded_and_paged() {
    let (mut pair, _halves) = pair().await;
    let chat_id = pair.chat_id;
    let ada = pair.ada.clone();
    let first = ada.secret(chat_id, FIRST);
    done(&mut pair.ada_socket, set(&first)).await.unwrap();
    // So many are there already.
    let more = format!(
        "INSERT INTO group_secrets SELECT chat_id, gen_random_uuid(), revision, hash, signed, generation, value, \
             changed_seq, writer_id, changed_at, sealed_by FROM group_secrets, generate_series(2, {})",
        SECRETS_MAX - 1
    );
    pair.database.client().await.batch_execute(&more).await.unwrap();
    let last = ada.secret(chat_id, FIRST);
    done(&mut pair.ada_socket, set(&last)).await.expect("up to the limit");
    let refused = done(&mut pair.ada_socket, set(&ada.secret(chat_id, FIRST))).await.unwrap_err();
    assert_eq!((refused.code, refused.details.unwrap().limit), (ErrorCode::LimitReached, Some(SECRETS_MAX)));
    done(&mut pair.ada_socket, set(&ada.next_secret(&first))).await.expect("what is there may be changed");
    let mut page = list_secrets(&mut pair.bob_socket, chat_id, None).await;
    let (mut pages, mut counted) = (1, page.secrets.len());
    assert_eq!(counted, SECRETS_PER_REQUEST_MAX as usize);
    let server = pair.database.client().await;
    while page.more {
        // The ids in the rows are other than the signed ones, which are the same here.
        let offset = i64::try_from(counted - 1).unwrap();
        let after = server.query_one("SELECT id FROM group_secrets ORDER BY id OFFSET $1 LIMIT 1", &[&offset]).await;
        page = list_secrets(&mut pair.bob_socket, chat_id, Some(SecretId(after.unwrap().get(0)))).await;
        (pages, counted) = (pages + 1, counted + page.secrets.len());
    }
    assert_eq!((pages, counted), (4, SECRETS_MAX as usize));

    // Three writes are made; the rest of the minute's are used up, and the next minute brings others.
    let mut newest = ada.next_secret(&first);
    for _ in 3..SECRET_WRITES_PER_MINUTE_MAX {
        newest = ada.next_secret(&newest);
        done(&mut pair.ada_socket, set(&newest)).await.unwrap();
    }
    let next = ada.next_secret(&newest);
    let refused = done(&mut pair.ada_socket, set(&next)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(refused.details.unwrap().retry_after_ms.is_some_and(|wait| wait > 0));
    done(&mut pair.bob_socket, set(&pair.bob.next_secret(&newest))).await.expect("others may");
    server.batch_execute("UPDATE group_secret_audit SET created_at = created_at - interval '1 minute'").await.unwrap();
    done(&mut pair.ada_socket, set(&ada.next_secret(&pair.bob.next_secret(&newest)))).await.expect("a minute later");

    // The newest entries of the log are kept, and read in pages.
    let reads = format!(
        "INSERT INTO group_secret_audit (chat_id, secret_id, user_id, session_id, action, revision) SELECT '{}', '{}', \
             '{}', '{}', 'read', 1 FROM generate_series(1, {SECRET_LOG_MAX})",
        chat_id.0, first.secret.secret.secret_id.0, ada.user_id.0, ada.session_id.0
    );
    server.batch_execute(&reads).await.unwrap();
    fetch_secret(&mut pair.bob_socket, chat_id, last.secret.secret.secret_id).await;
    let (mut before, mut numbers) = (None, BTreeSet::new());
    loop {
        let page = log(&mut pair.ada_socket, chat_id, before).await;
        numbers.extend(page.entries.iter().map(|entry| entry.number));
        before = page.entries.last().map(|entry| entry.number);
        if !page.more {
            break;
        }
    }
    assert_eq!(numbers.len() as u64, SECRET_LOG_MAX);
    assert_eq!(log(&mut pair.ada_socket, chat_id, None).await.entries[0].user_id, pair.bob.user_id);
}
