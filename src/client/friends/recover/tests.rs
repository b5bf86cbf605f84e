use super::*;
use crate::crypto::friends::{Sharer, open_share, share};
use crate::crypto::{IdentitySecret, SessionSecrets, UserSecret};
use crate::protocol::binary::Blob;
use crate::protocol::friends::{SignedShareSet, WrappedShare};
use crate::protocol::ids::{SessionId, Timestamp, UserKeyId};
use crate::protocol::strongbox::{PublicUserKey, user_key_bytes};

struct Friend {
    key: PublicUserKey,
    secret: UserSecret,
    username: Username,
}

struct Scene {
    request_id: RecoveryRequestId,
    request: RequestSecret,
    code: RecoveryCode,
    identity_key: IdentityKey,
    friends: Vec<Friend>,
    set: SignedShareSet,
    shares: Vec<WrappedShare>,
}

fn friend(number: usize) -> Friend {
    let (identity, secret, user_id, key_id) =
        (IdentitySecret::generate(), UserSecret::generate(), UserId::generate(), UserKeyId::generate());
    let public_key = secret.public_key();
    let signature = identity.sign(&user_key_bytes(user_id, key_id, &public_key));
    let username = Username::parse(&format!("friend{number}")).unwrap();
    Friend { key: PublicUserKey { user_id, key_id, public_key, signature }, secret, username }
}

fn shared(code: &RecoveryCode, needed: u32, friends: &[Friend]) -> (SignedShareSet, Vec<WrappedShare>, IdentityKey) {
    let (identity, session) = (IdentitySecret::generate(), SessionSecrets::generate());
    let keys: Vec<PublicUserKey> = friends.iter().map(|friend| friend.key).collect();
    let by = Sharer { user_id: UserId::generate(), identity: &identity, session: (SessionId::generate(), &session) };
    let (set, shares) = share(code, needed, &keys, by, Timestamp::saturating(1)).unwrap();
    (set, shares, identity.public_key())
}

fn scene(needed: u32, count: usize) -> Scene {
    let (code, friends) = (RecoveryCode::generate(), (0..count).map(friend).collect::<Vec<_>>());
    let (set, shares, identity_key) = shared(&code, needed, &friends);
    let (request_id, request) = (RecoveryRequestId::generate(), RequestSecret::generate());
    Scene { request_id, request, code, identity_key, friends, set, shares }
}

impl Scene {
    fn given(&self, at: usize) -> Given {
        let friend = &self.friends[at];
        let share = open_share(&self.set.set, friend.key.user_id, &self.shares[at].key, &friend.secret).unwrap();
        let number = u32::try_from(at + 1).unwrap();
        Given { number, share, set: self.set.clone(), identity_key: self.identity_key }
    }

    fn release(&self, at: usize, given: &Given) -> Release {
        let friend = &self.friends[at];
        let sealed = given.seal(self.request_id, &self.request.public_key(), friend.key.user_id).unwrap();
        let set_id = given.set.set.set_id;
        Release { user_id: friend.key.user_id, username: friend.username.clone(), set_id, sealed }
    }

    fn good(&self, at: usize) -> Release {
        self.release(at, &self.given(at))
    }

    fn judge(&self, releases: &[Release]) -> Progress {
        judge(self.request_id, &self.request, releases)
    }

    fn complete(&self, releases: &[Release]) -> Gathered {
        match self.judge(releases) {
            Progress::Complete(gathered) => {
                assert_eq!((&gathered.code, gathered.identity_key), (&self.code, self.identity_key));
                gathered
            }
            waiting => panic!("{waiting:?}"),
        }
    }

    fn waiting(&self, releases: &[Release]) -> (usize, Option<u32>, Vec<String>) {
        match self.judge(releases) {
            Progress::Waiting { good, needed, bad } => (good, needed, names(&bad)),
            complete => panic!("{complete:?}"),
        }
    }
}

fn names(bad: &[Bad]) -> Vec<String> {
    bad.iter().map(|bad| bad.username.to_string()).collect()
}

#[test]
fn fewer_than_are_needed_are_waited_for() {
    let scene = scene(3, 5);
    assert_eq!(scene.waiting(&[]), (0, None, vec![]));
    assert_eq!(scene.waiting(&[scene.good(4), scene.good(0)]), (2, Some(3), vec![]));
    // The same one again is no second one.
    assert_eq!(scene.waiting(&[scene.good(4), scene.good(4), scene.good(4)]), (1, Some(3), vec![]));
    assert!(scene.complete(&[scene.good(4), scene.good(0), scene.good(2)]).bad.is_empty());
}

#[test]
fn what_is_no_share_is_named_and_the_others_recover() {
    let scene = scene(2, 4);
    let garbage = Release { sealed: Blob::from(vec![7; 400]), ..scene.good(0) };
    let other = Given { share: crate::crypto::Secret::generate(), ..scene.given(0) };
    let another = scene.release(0, &scene.given(1));
    let mut weakened = scene.given(0);
    weakened.set.set.needed = 1;
    for bad in [garbage, scene.release(0, &other), another, scene.release(0, &weakened)] {
        assert_eq!(scene.waiting(&[bad.clone(), scene.good(1)]), (1, Some(2), vec!["friend0".to_owned()]));
        let gathered = scene.complete(&[bad, scene.good(1), scene.good(3)]);
        assert_eq!(names(&gathered.bad), ["friend0"]);
        assert_eq!(gathered.from.len(), 2);
    }
}

#[test]
fn a_set_that_a_friend_made_up_is_never_mixed_with_the_real_one() {
    let scene = scene(3, 4);
    let made_up = shared(&RecoveryCode::generate(), 3, &scene.friends);
    let lie = |at: usize| {
        let friend = &scene.friends[at];
        let share = open_share(&made_up.0.set, friend.key.user_id, &made_up.1[at].key, &friend.secret).unwrap();
        let number = u32::try_from(at + 1).unwrap();
        scene.release(at, &Given { number, share, set: made_up.0.clone(), identity_key: made_up.2 })
    };
    assert_eq!(scene.waiting(&[lie(0), scene.good(1), scene.good(2)]).0, 2);
    let gathered = scene.complete(&[lie(0), scene.good(1), scene.good(2), scene.good(3)]);
    assert_eq!(names(&gathered.bad), ["friend0"]);
}

#[test]
fn a_share_for_another_request_is_none_for_this() {
    let (scene, other) = (scene(2, 2), scene(2, 2));
    let replayed = scene.good(0);
    let judged = judge(RecoveryRequestId::generate(), &scene.request, &[replayed.clone(), scene.good(1)]);
    assert!(matches!(judged, Progress::Waiting { good: 0, .. }), "{judged:?}");
    let judged = judge(scene.request_id, &other.request, &[replayed, scene.good(1)]);
    assert!(matches!(judged, Progress::Waiting { good: 0, .. }), "{judged:?}");
}
