//! Archives: who reads them, and when they go.

use sealcast::protocol::error::{ErrorCode, MissingReason};
use sealcast::protocol::frame::{ArchivedKey, FetchArchives, Reply, Request, Send};
use sealcast::protocol::ids::{ChatId, GenerationNo, KeyId};
use sealcast::protocol::limits::ARCHIVES_PER_REQUEST_MAX;

use super::super::support::chat::{submit, view};
use super::super::support::device::{Device, Socket};
use super::super::support::generations::archive;
use super::super::support::rights::listed;
use super::pair_with_password;

async fn archives(socket: &mut Socket, chat_id: ChatId, key_ids: Vec<KeyId>) -> Vec<ArchivedKey> {
    let request = Request::FetchArchives(FetchArchives { chat_id, key_ids });
    let Reply::Archives(found) = socket.request(request).await.unwrap() else { panic!() };
    found.keys
}

#[tokio::test]
async fn p8_members_read_archives_of_what_they_may_read_and_they_go_with_the_data() {
    let (mut pair, _halves) = pair_with_password().await;
    let chat_id = pair.chat_id;
    let now = view(&mut pair.bob_socket, chat_id).await;
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    let now = view(&mut pair.bob_socket, chat_id).await;
    let mut key = pair.bob.sender_key(&now, chat_id);
    let key_id = key.announcement.announcement.key_id;
    let sealed = archive(GenerationNo::saturating(1));
    let message = Send { archive: Some(sealed.clone()), ..pair.bob.seal(&now, &mut key, b"text") };
    let message_id = message.envelope.message_id;
    submit(&mut pair.bob_socket, message).await.unwrap();

    let found = archives(&mut pair.ada_socket, chat_id, vec![key_id, KeyId::generate()]).await;
    let [found] = &found[..] else { panic!("{found:?}") };
    assert_eq!(found.announcement, key.announcement);
    assert_eq!((&found.archives[..], found.has_holder), (&[sealed][..], true));

    let eve = Device::register(&pair.broker, "eve").await;
    let mut eves = eve.connect_live(&pair.broker).await;
    let request = Request::FetchArchives(FetchArchives { chat_id, key_ids: vec![key_id] });
    assert_eq!(eves.request(request).await.unwrap_err().code, ErrorCode::UnknownChat);
    pair.ada.add(&mut pair.ada_socket, chat_id, &eve).await.unwrap();
    assert!(listed(&mut eves, chat_id).await.unwrap().readable_from > now.seen.seq);
    assert!(archives(&mut eves, chat_id, vec![key_id]).await.is_empty(), "it is from before her time");
    let request =
        Request::FetchArchives(FetchArchives { chat_id, key_ids: vec![key_id; ARCHIVES_PER_REQUEST_MAX + 1] });
    assert_eq!(pair.ada_socket.request(request).await.unwrap_err().code, ErrorCode::TooLarge);

    // The key is stale since eve came; with the last of its data its archive goes (P13).
    let now = view(&mut pair.bob_socket, chat_id).await;
    let deletion = pair.bob.deletion(&now, chat_id, message_id, 1);
    submit(&mut pair.bob_socket, deletion).await.unwrap();
    let found = archives(&mut pair.ada_socket, chat_id, vec![key_id]).await;
    assert!(found[0].archives.is_empty());
}

#[tokio::test]
async fn p8_the_commit_itself_counts_the_archive() {
    let (mut pair, _) = pair_with_password().await;
    let chat_id = pair.chat_id;
    let now = view(&mut pair.bob_socket, chat_id).await;
    pair.bob.make_generation(&mut pair.bob_socket, &now, chat_id).await.unwrap();
    let now = view(&mut pair.bob_socket, chat_id).await;
    let mut key = pair.bob.sender_key(&now, chat_id);
    submit(&mut pair.bob_socket, pair.bob.seal(&now, &mut key, b"one")).await.unwrap();
    // Behind the actor's back the archive goes, as another node's work might make it.
    let outside = pair.database.client().await;
    let lose = "DELETE FROM sender_key_archives; UPDATE sender_keys SET covered_version = NULL";
    outside.batch_execute(lose).await.unwrap();
    let second = pair.bob.seal(&now, &mut key, b"two");
    let refused = submit(&mut pair.bob_socket, second).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::CopiesMissing);
    assert_eq!(refused.details.unwrap().reason, Some(MissingReason::Recovery));
    assert_eq!(pair.database.count("SELECT count(*) FROM chat_messages").await, 1);
}
