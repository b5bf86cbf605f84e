//! Who lies about recovery by friends: the server, a friend, a thief of a device, a stranger.

use sealcast::client::{FriendsError, Progress};
use sealcast::crypto::friends::RequestSecret;
use sealcast::crypto::strongbox::Opened;
use sealcast::crypto::{Secret, UserSecret};
use sealcast::protocol::friends::{AskFriends, FriendsAsked, RECOVERY_REQUESTS_PATH, SignedShareSet};
use sealcast::protocol::ids::{RecoveryRequestId, UserKeyId};

use super::super::passwords::{open, password, post, replace, sealing};
use super::super::support::within;
use super::{Scene, approve, ask, bytes_of_code, password_of, reason, share};

#[tokio::test]
async fn a_key_that_the_server_puts_in_the_place_of_the_requests_own_has_another_code() {
    let scene = Scene::new().await;
    let recovery = ask(&scene.broker, "ann").await;
    let own: String = scene
        .database
        .client()
        .await
        .query_one("SELECT encode(public_key, 'hex') FROM recovery_requests", &[])
        .await
        .unwrap()
        .get(0);
    let foreign = RequestSecret::generate().public_key();
    let hex: String = foreign.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    scene.execute(&format!("UPDATE recovery_requests SET public_key = '\\x{hex}'")).await;
    assert_eq!(reason(approve(&scene.bob, &recovery).await), FriendsError::WrongCode);
    assert_eq!(scene.database.count("SELECT count(*) FROM recovery_releases").await, 0);
    // The request of another name, told to the friends of this one.
    scene.execute("UPDATE users SET username = 'anna' WHERE username = 'ann'").await;
    scene.execute(&format!("UPDATE recovery_requests SET public_key = '\\x{own}'")).await;
    assert_eq!(reason(approve(&scene.bob, &recovery).await), FriendsError::WrongCode);
    scene.execute("UPDATE users SET username = 'ann' WHERE username = 'anna'").await;
    approve(&scene.bob, &recovery).await.unwrap();
}

#[tokio::test]
async fn a_request_that_is_shown_as_about_somebody_else_is_refused() {
    let scene = Scene::new().await;
    // Dave has shared with Bob and Carol too; the server shows them his name above Ann's account.
    let recovery = ask(&scene.broker, "ann").await;
    // Whom a client knows by name, it goes on knowing.
    scene.bob.members(scene.chat_id).await.unwrap();
    scene.execute("UPDATE users SET username = 'swap' WHERE username = 'dave'").await;
    share_of_dave(&scene).await;
    scene
        .execute(&format!(
            "UPDATE recovery_requests SET user_id = '{}' WHERE id = '{}'",
            scene.dave.user_id(),
            recovery.request_id()
        ))
        .await;
    scene.execute("UPDATE users SET username = 'ann2' WHERE username = 'ann'").await;
    scene.execute("UPDATE users SET username = 'ann' WHERE username = 'swap'").await;
    assert_eq!(reason(approve(&scene.bob, &recovery).await), FriendsError::OtherUser);
}

/// A copy of Ann's rows of shares as Dave's, so that Bob holds one of each.
async fn share_of_dave(scene: &Scene) {
    let client = scene.database.client().await;
    let statement = format!(
        "INSERT INTO vault_backup_session_keys (kind, backed_up_user_id, holder_user_id, holder_key_id, key, share_number, \
             wrapped_by_session_id, signature) \
         SELECT 'share', '{}', holder_user_id, holder_key_id, key, share_number, wrapped_by_session_id, signature \
         FROM vault_backup_session_keys WHERE kind = 'share' AND holder_user_id = '{}'",
        scene.dave.user_id(),
        scene.bob.user_id()
    );
    assert_eq!(client.execute(&statement, &[]).await.unwrap(), 1);
}

#[tokio::test]
async fn garbage_of_a_friend_is_named_and_the_others_are_enough() {
    let scene = Scene::new().await;
    let recovery = ask(&scene.broker, "ann").await;
    approve(&scene.bob, &recovery).await.unwrap();
    let bob = scene.bob.user_id();
    scene
        .execute(&format!(
            "UPDATE recovery_releases SET sealed = decode(repeat('07', 600), 'hex') WHERE user_id = '{bob}'"
        ))
        .await;
    approve(&scene.carol, &recovery).await.unwrap();
    let Progress::Waiting { good: 1, needed: Some(2), bad } = recovery.look().await.unwrap() else {
        panic!("one of two")
    };
    assert_eq!(bad.iter().map(|bad| bad.username.as_str()).collect::<Vec<_>>(), ["bob"]);
    approve(&scene.dave, &recovery).await.unwrap();
    assert_eq!(scene.recovers(recovery).await, ["bob"]);
}

#[tokio::test]
async fn a_share_given_to_one_request_or_by_one_friend_is_none_for_another() {
    let scene = Scene::new().await;
    let (first, second) = (ask(&scene.broker, "ann").await, ask(&scene.broker, "ann").await);
    approve(&scene.bob, &first).await.unwrap();
    approve(&scene.carol, &second).await.unwrap();
    scene
        .execute(&format!(
            "INSERT INTO recovery_releases (request_id, user_id, set_id, session_id, sealed, signature) \
             SELECT '{}', user_id, set_id, session_id, sealed, signature FROM recovery_releases WHERE request_id = '{}'",
            second.request_id(),
            first.request_id()
        ))
        .await;
    // Dave's place has Carol's share.
    scene
        .execute(&format!(
            "INSERT INTO recovery_releases (request_id, user_id, set_id, session_id, sealed, signature) \
             SELECT request_id, '{}', set_id, session_id, sealed, signature FROM recovery_releases \
             WHERE request_id = '{}' AND user_id = '{}'",
            scene.dave.user_id(),
            second.request_id(),
            scene.carol.user_id()
        ))
        .await;
    let Progress::Waiting { good: 1, needed: Some(2), mut bad } = second.look().await.unwrap() else {
        panic!("one of two")
    };
    bad.sort_by(|one, other| one.username.cmp(&other.username));
    assert_eq!(bad.iter().map(|bad| bad.username.as_str()).collect::<Vec<_>>(), ["bob", "dave"]);
    approve(&scene.bob, &second).await.unwrap();
    assert_eq!(scene.recovers(second).await, ["dave"]);
}

#[tokio::test]
async fn a_wrap_that_the_server_swaps_is_found_out_by_the_friend() {
    let scene = Scene::new().await;
    let recovery = ask(&scene.broker, "ann").await;
    let carol = scene.carol.user_id();
    let flipped = "set_byte(key, 40, (get_byte(key, 40) + 1) % 256)";
    for key in [
        flipped.to_owned(),
        format!("(SELECT key FROM vault_backup_session_keys WHERE holder_user_id = '{}')", scene.dave.user_id()),
    ] {
        scene
            .execute(&format!("UPDATE vault_backup_session_keys SET key = {key} WHERE holder_user_id = '{carol}'"))
            .await;
        assert_eq!(reason(approve(&scene.carol, &recovery).await), FriendsError::BadShare);
    }
    // Neither does it help to swap the set with it: its user's identity key signed it.
    let client = scene.database.client().await;
    let body: Vec<u8> = client.query_one("SELECT body FROM share_sets", &[]).await.unwrap().get(0);
    let mut set: SignedShareSet = rmp_serde::from_slice(&body).unwrap();
    set.set.needed = 3;
    let body = rmp_serde::to_vec_named(&set).unwrap();
    assert_eq!(client.execute("UPDATE share_sets SET body = $1", &[&body]).await.unwrap(), 1);
    assert_eq!(reason(approve(&scene.bob, &recovery).await), FriendsError::BadShare);
    assert_eq!(scene.database.count("SELECT count(*) FROM recovery_releases").await, 0);
}

#[tokio::test]
async fn a_request_that_is_replayed_is_the_same_and_takes_no_other_key() {
    let scene = Scene::new().await;
    let request = AskFriends {
        request_id: RecoveryRequestId::generate(),
        username: "ann".to_owned(),
        public_key: RequestSecret::generate().public_key(),
    };
    let other = AskFriends { public_key: RequestSecret::generate().public_key(), ..request.clone() };
    let nobodys =
        AskFriends { username: "nobody".to_owned(), request_id: RecoveryRequestId::generate(), ..request.clone() };
    for request in [&request, &request, &other, &nobodys, &nobodys] {
        let asked: FriendsAsked = post(&scene.broker, RECOVERY_REQUESTS_PATH, request).await.unwrap();
        assert_eq!(asked, FriendsAsked { kept_s: 7 * 86_400 });
    }
    let client = scene.database.client().await;
    let key: Vec<u8> = client.query_one("SELECT public_key FROM recovery_requests", &[]).await.unwrap().get(0);
    assert_eq!(key, request.public_key.as_ref());
    assert_eq!(scene.bob.recovery_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn requests_of_one_name_are_bounded_and_those_that_friends_helped_stay() {
    let scene = Scene::with(|settings| settings.with("password.tries_per_hour", 1_000)).await;
    let first = ask(&scene.broker, "ann").await;
    approve(&scene.bob, &first).await.unwrap();
    for _ in 0..12 {
        ask(&scene.broker, "ann").await;
    }
    assert_eq!(scene.database.count("SELECT count(*) FROM recovery_requests").await, 8);
    approve(&scene.carol, &first).await.unwrap();
    assert!(matches!(first.look().await.unwrap(), Progress::Complete(_)));
    // What is over is over for everybody.
    let over = "UPDATE recovery_requests SET expires_at = clock_timestamp()";
    assert_eq!(scene.database.client().await.execute(over, &[]).await.unwrap(), 8);
    assert_eq!(scene.bob.recovery_requests().await.unwrap(), []);
    assert_eq!(reason(approve(&scene.bob, &first).await), FriendsError::UnknownRequest);
    assert!(matches!(first.look().await.unwrap(), Progress::Waiting { good: 0, .. }));
}

#[tokio::test]
async fn a_friend_with_a_new_user_key_opens_what_was_wrapped_to_the_old_one() {
    let scene = Scene::new().await;
    let (logged_in, mut opened): (_, Opened) = open(&scene.broker, "bob", &password_of("bob")).await;
    let old = opened.active;
    opened.active = UserKeyId::generate();
    opened.user_keys.insert(opened.active, UserSecret::generate());
    let sealing = sealing(&scene.broker, "bob", &password_of("bob")).await;
    let upload = opened.seal(logged_in.user_id, logged_in.strongbox.version + 1, &sealing).unwrap();
    replace(&scene.broker, logged_in.user_id, upload).await.unwrap();
    let held = format!("SELECT count(*) FROM vault_backup_session_keys WHERE holder_key_id = '{old}'");
    assert_eq!(scene.database.count(&held).await, 1);
    let recovery = ask(&scene.broker, "ann").await;
    approve(&scene.bob, &recovery).await.unwrap();
    approve(&scene.carol, &recovery).await.unwrap();
    assert_eq!(scene.recovers(recovery).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_new_recovery_code_ends_the_shares_and_a_new_password_does_not() {
    let scene = Scene::new().await;
    let recovery = ask(&scene.broker, "ann").await;
    approve(&scene.bob, &recovery).await.unwrap();
    let (old, new) = (password(&password_of("ann")), password("another correct horse"));
    scene.ann.change_password(Some(&old), &new).await.unwrap();
    assert!(scene.ann.shares().await.unwrap().is_some());
    approve(&scene.carol, &recovery).await.unwrap();
    let Progress::Complete(gathered) = recovery.look().await.unwrap() else { panic!("two of two") };
    scene.ann.make_recovery_code(&new).await.unwrap();
    assert_eq!(scene.ann.shares().await.unwrap(), None);
    assert_eq!(scene.bob.recovery_requests().await.unwrap(), []);
    assert_eq!(reason(approve(&scene.dave, &recovery).await), FriendsError::UnknownRequest);
    let mut recovery = recovery;
    let late = within("a refusal", recovery.reset(&gathered, &password("a brand new horse"))).await;
    assert!(matches!(late, Err(sealcast::client::ClientError::LoginFailed)), "{late:?}");
}

#[tokio::test]
async fn a_friend_whose_account_ends_takes_the_share_along() {
    let scene = Scene::new().await;
    let unlocked = scene.dave.unlock(&password(&password_of("dave"))).await.unwrap();
    scene.dave.delete_account().await.unwrap();
    drop(unlocked);
    let shares = scene.ann.shares().await.unwrap().unwrap();
    assert_eq!(shares.friends.iter().map(|(.., is_present)| *is_present).collect::<Vec<_>>(), [true, true, false]);
    let recovery = ask(&scene.broker, "ann").await;
    approve(&scene.bob, &recovery).await.unwrap();
    approve(&scene.carol, &recovery).await.unwrap();
    assert_eq!(scene.recovers(recovery).await, Vec::<String>::new());
}

#[tokio::test]
async fn p6_neither_the_code_nor_a_share_is_in_the_database() {
    let scene = Scene::new().await;
    let code = share(&scene.ann, 2, &["bob", "carol", "dave"]).await;
    let recovery = ask(&scene.broker, "ann").await;
    approve(&scene.bob, &recovery).await.unwrap();
    approve(&scene.carol, &recovery).await.unwrap();
    let Progress::Complete(gathered) = recovery.look().await.unwrap() else { panic!("two of two") };
    let kept = format!("{gathered:?} {recovery:?} {:?}", Secret::generate());
    let text = code.to_text();
    let secret: String = bytes_of_code(&text)[..32].iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!kept.contains(text.as_str()) && kept.contains("recovery code"), "{kept}");
    let client = scene.database.client().await;
    for table in
        ["share_sets", "vault_backup_session_keys", "recovery_requests", "recovery_releases", "users", "user_keys"]
    {
        for row in client.query(&format!("SELECT to_jsonb({table})::text FROM {table}"), &[]).await.unwrap() {
            let row: String = row.get(0);
            assert!(!row.contains(&secret), "{table}");
        }
    }
}
