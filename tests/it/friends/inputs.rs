//! Bad input about recovery by friends: a typed error, nothing changed, and a good request that works afterwards.

use sealcast::crypto::recovery_code::RecoveryCode;
use sealcast::crypto::strongbox::Opened;
use sealcast::crypto::{IdentitySecret, Secret};
use sealcast::protocol::account::{ACCOUNTS_PATH, Registered};
use sealcast::protocol::binary::{Blob, ExchangeKey, Signature, WrappedKey};
use sealcast::protocol::error::ErrorCode;
use sealcast::protocol::frame::{
    self, CancelRecoveryRequest, FetchShare, FetchUserKeys, Nothing, ReleaseShare, Reply, Request, SetShares, Share,
};
use sealcast::protocol::friends::{
    AskFriends, FetchReleases, FriendsAsked, RECOVERY_RELEASES_PATH, RECOVERY_REQUESTS_PATH, Releases,
};
use sealcast::protocol::ids::{RecoveryRequestId, ShareSetId, UserId, UserKeyId};
use sealcast::protocol::limits::{RELEASE_BYTES_MAX, SHARES_MAX};

use super::super::codes::contents;
use super::super::passwords::{post, sealing};
use super::super::support::broker::{Broker, Settings};
use super::super::support::database::Database;
use super::super::support::device::{Device, Socket, sign};
use super::super::support::link::sessions;

/// A user with a password by the bare protocol.
struct Person {
    device: Device,
    socket: Socket,
    key_id: UserKeyId,
    recovery: RecoveryCode,
}

impl Person {
    async fn new(broker: &Broker, name: &str) -> Self {
        let device = Device::unregistered(name, 86_400);
        let mut packed = vec![0xc4, 32];
        packed.extend_from_slice(&device.identity.to_bytes());
        let identity: IdentitySecret = rmp_serde::from_slice(&packed).unwrap();
        let mut opened = Opened::first(identity, Secret::generate());
        let recovery = RecoveryCode::generate();
        opened.recovery = Some((recovery.keys().public_key(), recovery.keys().signing_public_key()));
        let sealing = sealing(broker, name, "correct horse").await;
        let mut registration = device.registration();
        registration.strongbox = Some(opened.seal(device.user_id, 1, &sealing).unwrap());
        let _: Registered = post(broker, ACCOUNTS_PATH, &registration).await.unwrap();
        let socket = device.connect_live(broker).await;
        Self { key_id: opened.active, device, socket, recovery }
    }

    fn holder(&self) -> (UserId, UserKeyId) {
        (self.device.user_id, self.key_id)
    }

    /// A set of shares that the server takes, for these friends.
    fn shares(&self, friends: &[(UserId, UserKeyId)]) -> SetShares {
        let keys = self.recovery.keys();
        self.device.shares_of((keys.public_key(), keys.signing_public_key()), friends)
    }

    async fn set(&mut self, shares: SetShares) -> Result<Reply, frame::Error> {
        self.socket.request(Request::SetShares(Box::new(shares))).await
    }

    async fn share(&mut self, user_id: UserId) -> Result<Share, frame::Error> {
        match self.socket.request(Request::FetchShare(FetchShare { user_id })).await? {
            Reply::Share(share) => Ok(*share),
            other => panic!("{other:?}"),
        }
    }

    async fn release(&mut self, release: ReleaseShare) -> Result<Reply, frame::Error> {
        self.socket.request(Request::ReleaseShare(Box::new(release))).await
    }

    async fn cancel(
        &mut self,
        request_id: RecoveryRequestId,
        signature: Option<Signature>,
    ) -> Result<Reply, frame::Error> {
        self.socket.request(Request::CancelRecoveryRequest(CancelRecoveryRequest { request_id, signature })).await
    }

    async fn listed(&mut self) -> Vec<frame::RecoveryRequest> {
        match self.socket.request(Request::ListRecoveryRequests(Nothing {})).await.unwrap() {
            Reply::RecoveryRequests(requests) => requests.requests,
            other => panic!("{other:?}"),
        }
    }
}

/// Ada with friends in a chat, and Eve, who is a stranger.
struct Scene {
    broker: Broker,
    ada: Person,
    bob: Person,
    cyd: Person,
    eve: Person,
    database: Database,
}

impl Scene {
    async fn new() -> Self {
        let database = Database::create().await;
        let broker = Broker::start(&database).await;
        let mut ada = Person::new(&broker, "ada").await;
        let (bob, cyd) = (Person::new(&broker, "bob").await, Person::new(&broker, "cyd").await);
        let eve = Person::new(&broker, "eve").await;
        let chat_id = ada.device.create_chat(&mut ada.socket).await;
        for friend in [&bob, &cyd] {
            ada.device.add(&mut ada.socket, chat_id, &friend.device).await.unwrap();
        }
        Self { broker, ada, bob, cyd, eve, database }
    }

    fn friends(&self) -> [(UserId, UserKeyId); 2] {
        [self.bob.holder(), self.cyd.holder()]
    }

    async fn shared(&mut self) -> ShareSetId {
        let shares = self.ada.shares(&self.friends());
        let set_id = shares.set.set.set_id;
        self.ada.set(shares).await.unwrap();
        set_id
    }

    async fn asked(&self) -> RecoveryRequestId {
        let request_id = RecoveryRequestId::generate();
        let request = AskFriends { request_id, username: "ada".to_owned(), public_key: sound() };
        let _: FriendsAsked = post(&self.broker, RECOVERY_REQUESTS_PATH, &request).await.unwrap();
        request_id
    }
}

fn sound() -> ExchangeKey {
    let mut key = [0; 32];
    key[0] = 9;
    ExchangeKey(key)
}

#[tokio::test]
async fn shares_that_are_none_are_refused_and_change_nothing() {
    let mut scene = Scene::new().await;
    let friends = scene.friends();
    let good = scene.ada.shares(&friends);
    let resigned = |scene: &Scene, change: fn(&mut sealcast::protocol::friends::ShareSet)| {
        let mut set = good.set.set.clone();
        change(&mut set);
        let keys: Vec<WrappedKey> = good.shares.iter().map(|share| share.key).collect();
        scene.ada.device.signed_shares(set, &keys)
    };
    let many: Vec<_> = (0..=SHARES_MAX).map(|_| (UserId::generate(), UserKeyId::generate())).collect();
    let unsigned = |change: fn(&mut SetShares)| {
        let mut shares = good.clone();
        change(&mut shares);
        shares
    };
    let eve = scene.eve.holder();
    let stale = (scene.bob.device.user_id, UserKeyId::generate());
    let cases = vec![
        (ErrorCode::TooLarge, scene.ada.shares(&many)),
        (ErrorCode::Malformed, resigned(&scene, |set| set.needed = 1)),
        (ErrorCode::Malformed, resigned(&scene, |set| set.needed = 3)),
        (ErrorCode::Malformed, resigned(&scene, |set| set.needed = u32::MAX)),
        (ErrorCode::Malformed, resigned(&scene, |set| set.holders[1] = set.holders[0])),
        (ErrorCode::Malformed, resigned(&scene, |set| set.holders[1].user_id = set.user_id)),
        (ErrorCode::Malformed, resigned(&scene, |set| set.recovery_key = ExchangeKey([0; 32]))),
        (ErrorCode::Malformed, resigned(&scene, |set| set.holders[0].wrap_hash.0[0] ^= 1)),
        (ErrorCode::Malformed, unsigned(|shares| shares.shares.truncate(1))),
        (ErrorCode::Malformed, unsigned(|shares| shares.shares[0].key.0[9] ^= 1)),
        (ErrorCode::BadSignature, resigned(&scene, |set| set.user_id = UserId::generate())),
        (ErrorCode::BadSignature, unsigned(|shares| shares.set.signature.0[9] ^= 1)),
        (ErrorCode::BadSignature, unsigned(|shares| shares.shares[1].signature.0[9] ^= 1)),
        (ErrorCode::BadSignature, unsigned(|shares| shares.set.set.created_at = Default::default())),
        (ErrorCode::StrongboxChanged, resigned(&scene, |set| set.recovery_key = sound())),
        (ErrorCode::UnknownUser, scene.ada.shares(&[friends[0], eve])),
        (ErrorCode::UnknownUser, scene.ada.shares(&[friends[0], (UserId::generate(), UserKeyId::generate())])),
        (ErrorCode::UserKeyStale, scene.ada.shares(&[stale, friends[1]])),
    ];
    for (at, (code, shares)) in cases.into_iter().enumerate() {
        let before = contents(&scene.database).await;
        let refused = scene.ada.set(shares).await.expect_err("it must be refused");
        assert_eq!(refused.code, code, "case {at}: {}", refused.message);
        assert_eq!(contents(&scene.database).await, before, "case {at}");
        let user_id = refused.details.and_then(|details| details.user_id);
        assert_eq!(user_id.is_some(), matches!(code, ErrorCode::UserKeyStale | ErrorCode::UnknownUser), "case {at}");
    }
    scene.ada.set(good.clone()).await.unwrap();
    scene.ada.set(good.clone()).await.unwrap();
    let own = scene.ada.share(scene.ada.device.user_id).await.unwrap();
    assert_eq!((&own.set, own.key, own.present.len()), (&good.set, None, 2));
    let held = scene.cyd.share(scene.ada.device.user_id).await.unwrap();
    assert_eq!((held.set, held.key), (good.set, Some(good.shares[1].key)));
    // One set at a time; a thief of a session who has neither password nor code can spoil none.
    let newer = scene.ada.shares(&friends);
    scene.ada.set(newer.clone()).await.unwrap();
    assert_eq!(scene.bob.share(scene.ada.device.user_id).await.unwrap().set, newer.set);
    assert_eq!(scene.database.count("SELECT count(*) FROM vault_backup_session_keys").await, 2);
    // Whom a friend has blocked gives them no share.
    let block = frame::SetBlock { user_id: scene.ada.device.user_id, blocked: true };
    scene.bob.socket.request(Request::SetBlock(block)).await.unwrap();
    let blocked = scene.ada.shares(&friends);
    assert_eq!(scene.ada.set(blocked).await.unwrap_err().code, ErrorCode::UnknownUser);
}

#[tokio::test]
async fn p5_a_user_key_that_was_withdrawn_gets_no_share() {
    let mut scene = Scene::new().await;
    let friends = scene.friends();
    let bob = &mut scene.bob;
    let lost = bob.device.linked(&scene.broker, &mut bob.socket).await;
    let chain = sessions(&mut bob.socket).await;
    let revocation = bob.device.revocation(&chain, lost.session_id);
    let withdrawal = Some(bob.device.withdrawal(bob.key_id));
    bob.socket.request(Request::RevokeSession(frame::RevokeSession { revocation, withdrawal })).await.unwrap();

    let user_ids = friends.map(|(user_id, _)| user_id).to_vec();
    let fetch = Request::FetchUserKeys(FetchUserKeys { user_ids });
    let Reply::UserKeys(found) = scene.ada.socket.request(fetch).await.unwrap() else { panic!() };
    let found: Vec<_> = found.keys.iter().map(|key| (key.user_id, key.key_id)).collect();
    assert_eq!(found, [scene.cyd.holder()]);
    let refused = scene.ada.set(scene.ada.shares(&friends)).await.unwrap_err();
    let details = refused.details.unwrap();
    assert_eq!((refused.code, details.user_id), (ErrorCode::UserKeyStale, Some(scene.bob.device.user_id)));
}

#[tokio::test]
async fn a_stranger_gives_and_gets_nothing() {
    let mut scene = Scene::new().await;
    let set_id = scene.shared().await;
    let request_id = scene.asked().await;
    let ada = scene.ada.device.user_id;
    assert_eq!(scene.eve.share(ada).await.unwrap_err().code, ErrorCode::NoShare);
    assert_eq!(scene.eve.share(scene.eve.device.user_id).await.unwrap_err().code, ErrorCode::NoShare);
    assert_eq!(scene.eve.listed().await, []);
    let before = contents(&scene.database).await;
    for (person, release) in [
        (&mut scene.eve, None),
        (&mut scene.ada, None),
        (&mut scene.bob, Some((RecoveryRequestId::generate(), set_id))),
    ] {
        let (request_id, set_id) = release.unwrap_or((request_id, set_id));
        let release = person.device.released(request_id, set_id);
        assert_eq!(person.release(release).await.unwrap_err().code, ErrorCode::UnknownRecoveryRequest);
    }
    let elsewhere = scene.bob.device.released(request_id, ShareSetId::generate());
    assert_eq!(scene.bob.release(elsewhere).await.unwrap_err().code, ErrorCode::NoShare);
    let mut foreign = scene.bob.device.released(request_id, set_id);
    foreign.signature = scene.cyd.device.released(request_id, set_id).signature;
    assert_eq!(scene.bob.release(foreign).await.unwrap_err().code, ErrorCode::BadSignature);
    let large = Blob::from(vec![7; RELEASE_BYTES_MAX + 1]);
    let large = ReleaseShare { sealed: large, ..scene.bob.device.released(request_id, set_id) };
    assert_eq!(scene.bob.release(large).await.unwrap_err().code, ErrorCode::TooLarge);
    for person in [&mut scene.eve, &mut scene.bob] {
        let signature = Some(sign(
            &person.device.identity,
            &sealcast::protocol::friends::cancel_bytes(person.device.user_id, request_id),
        ));
        for signature in [None, signature] {
            let refused = person.cancel(request_id, signature).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::UnknownRecoveryRequest);
        }
    }
    let too_many = FetchUserKeys { user_ids: vec![ada; SHARES_MAX + 1] };
    let refused = scene.eve.socket.request(Request::FetchUserKeys(too_many)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooLarge);
    assert_eq!(contents(&scene.database).await, before);
    // A friend's is taken, once and again.
    for _ in 0..2 {
        let release = scene.bob.device.released(request_id, set_id);
        scene.bob.release(release).await.unwrap();
    }
    assert_eq!(scene.ada.listed().await[0].released_by, [scene.bob.device.user_id]);
    let given: Releases = post(&scene.broker, RECOVERY_RELEASES_PATH, &FetchReleases { request_id }).await.unwrap();
    assert_eq!(given.releases.len(), 1);
    let user_keys = Request::FetchUserKeys(FetchUserKeys { user_ids: vec![ada, UserId::generate()] });
    let Reply::UserKeys(found) = scene.eve.socket.request(user_keys).await.unwrap() else { panic!("no keys") };
    assert!(found.keys.len() == 1 && found.keys[0].verifies(&scene.ada.device.identity_key()));
}

#[tokio::test]
async fn a_session_alone_cancels_once() {
    let mut scene = Scene::new().await;
    let set_id = scene.shared().await;
    let [one, two, three] = [scene.asked().await, scene.asked().await, scene.asked().await];
    let wrong = scene.bob.device.cancellation(one).signature;
    assert_eq!(scene.ada.cancel(one, wrong).await.unwrap_err().code, ErrorCode::BadSignature);
    scene.ada.cancel(one, None).await.unwrap();
    scene.ada.cancel(one, None).await.unwrap();
    // Nothing is given any more to what was cancelled, whatever a friend's client thinks.
    let late = scene.bob.device.released(one, set_id);
    assert_eq!(scene.bob.release(late).await.unwrap_err().code, ErrorCode::UnknownRecoveryRequest);
    assert_eq!(scene.ada.cancel(two, None).await.unwrap_err().code, ErrorCode::IdentityNeeded);
    let signature = scene.ada.device.cancellation(three).signature;
    assert_eq!(scene.ada.cancel(two, signature).await.unwrap_err().code, ErrorCode::BadSignature);
    let signature = scene.ada.device.cancellation(two).signature;
    scene.ada.cancel(two, signature).await.unwrap();
    assert_eq!(scene.ada.cancel(three, None).await.unwrap_err().code, ErrorCode::IdentityNeeded);
    assert_eq!(scene.bob.listed().await.len(), 1);
    // A month later a session alone will do again.
    let later = "UPDATE users SET recovery_cancelled_at = recovery_cancelled_at - interval '30 days' \
         WHERE recovery_cancelled_at IS NOT NULL";
    assert_eq!(scene.database.client().await.execute(later, &[]).await.unwrap(), 1);
    scene.ada.cancel(three, None).await.unwrap();
    assert_eq!(scene.bob.listed().await, []);
}

#[tokio::test]
async fn requests_are_answered_alike_and_counted_by_name_and_address() {
    let database = Database::create().await;
    let settings =
        Settings::on(&database).with("password.tries_per_hour", 2).with("password.tries_per_hour_address", 6);
    let broker = Broker::start_with(settings).await;
    let mut ada = Person::new(&broker, "ada").await;
    let (bob, cyd) = (Person::new(&broker, "bob").await, Person::new(&broker, "cyd").await);
    let chat_id = ada.device.create_chat(&mut ada.socket).await;
    for friend in [&bob, &cyd] {
        ada.device.add(&mut ada.socket, chat_id, &friend.device).await.unwrap();
    }
    ada.set(ada.shares(&[bob.holder(), cyd.holder()])).await.unwrap();
    let ask = async |name: &str| {
        let request =
            AskFriends { request_id: RecoveryRequestId::generate(), username: name.to_owned(), public_key: sound() };
        broker.request("POST", RECOVERY_REQUESTS_PATH, &serde_json::to_string(&request).unwrap()).await
    };
    let (known, unknown, without) = (ask("ada").await, ask("nobody").await, ask("bob").await);
    assert_eq!((known.0, &known), (200, &unknown));
    assert_eq!(known, without);
    for name in ["ada", "nobody"] {
        assert_eq!(ask(name).await.0, 200, "{name}");
        let (status, body) = ask(name).await;
        assert_eq!(status, 429, "{name} {body}");
        assert!(body.contains("rate_limited") && body.contains("retry_after_ms"), "{body}");
    }
    // Other names from the same address.
    assert_eq!(ask("cyd").await.0, 200);
    assert_eq!(ask("eve").await.0, 429);
    // Of a request that nobody knows nothing has come yet: it cannot be told from one that waits.
    let nobodys = FetchReleases { request_id: RecoveryRequestId::generate() };
    let given: Releases = post(&broker, RECOVERY_RELEASES_PATH, &nobodys).await.unwrap();
    assert_eq!(given, Releases { is_cancelled: false, releases: Vec::new() });
    let mut unsound = AskFriends {
        request_id: RecoveryRequestId::generate(),
        username: "ada".to_owned(),
        public_key: ExchangeKey([0; 32]),
    };
    let refused = post::<FriendsAsked>(&broker, RECOVERY_REQUESTS_PATH, &unsound).await.unwrap_err();
    assert_eq!((refused.0, refused.1.code), (400, ErrorCode::Malformed));
    unsound.username = "no name".to_owned();
    let refused = post::<FriendsAsked>(&broker, RECOVERY_REQUESTS_PATH, &unsound).await.unwrap_err();
    assert_eq!((refused.0, refused.1.code), (400, ErrorCode::UsernameInvalid));
    for path in [RECOVERY_REQUESTS_PATH, RECOVERY_RELEASES_PATH] {
        for body in ["", "{}", "[]", "{\"request_id\": 7}"] {
            let (status, answer) = broker.request("POST", path, body).await;
            assert!(status == 400 && answer.contains("malformed"), "{path} {body} {status} {answer}");
        }
    }
    let stranger = FetchReleases { request_id: RecoveryRequestId::generate() };
    let _: Releases = post(&broker, RECOVERY_RELEASES_PATH, &stranger).await.unwrap();
}
