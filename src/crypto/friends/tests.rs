use std::collections::BTreeSet;

use super::*;
use crate::protocol::ids::UserKeyId;
use crate::protocol::strongbox::user_key_bytes;
use crate::protocol::verify::Verifier;

struct Friend {
    user_id: UserId,
    secret: UserSecret,
    public: PublicUserKey,
}

fn friend() -> Friend {
    let (identity, secret, user_id, key_id) =
        (IdentitySecret::generate(), UserSecret::generate(), UserId::generate(), UserKeyId::generate());
    let public_key = secret.public_key();
    let signature = identity.sign(&user_key_bytes(user_id, key_id, &public_key));
    let public = PublicUserKey { user_id, key_id, public_key, signature };
    assert!(public.verifies(&identity.public_key()));
    assert!(!public.verifies(&IdentitySecret::generate().public_key()));
    Friend { user_id, secret, public }
}

struct Scene {
    code: RecoveryCode,
    identity: IdentitySecret,
    session: (SessionId, SessionSecrets),
    friends: Vec<Friend>,
    set: SignedShareSet,
    shares: Vec<WrappedShare>,
}

fn scene(needed: u32, count: usize) -> Scene {
    let (code, identity) = (RecoveryCode::generate(), IdentitySecret::generate());
    let session = (SessionId::generate(), SessionSecrets::generate());
    let friends: Vec<Friend> = (0..count).map(|_| friend()).collect();
    let keys: Vec<PublicUserKey> = friends.iter().map(|friend| friend.public).collect();
    let by = Sharer { user_id: UserId::generate(), identity: &identity, session: (session.0, &session.1) };
    let (set, shares) = share(&code, needed, &keys, by, Timestamp::saturating(1)).unwrap();
    Scene { code, identity, session, friends, set, shares }
}

impl Scene {
    fn opened(&self, at: usize) -> Secret {
        open_share(&self.set.set, self.friends[at].user_id, &self.shares[at].key, &self.friends[at].secret).unwrap()
    }

    fn combined(&self, which: &[usize]) -> Result<RecoveryCode, OpenError> {
        let opened: Vec<(u32, Secret)> =
            which.iter().map(|at| (u32::try_from(at + 1).unwrap(), self.opened(*at))).collect();
        let shares: Vec<(u32, &Secret)> = opened.iter().map(|(number, share)| (*number, share)).collect();
        combine(&self.set.set, &shares)
    }
}

#[test]
fn as_many_as_are_needed_recover_and_fewer_do_not() {
    let scene = scene(3, 5);
    assert_eq!(scene.set.verify(&scene.identity.public_key()), Ok(()));
    for one in 0..5 {
        assert_eq!(scene.combined(&[one]), Err(OpenError));
        for other in (0..5).filter(|other| *other != one) {
            assert_eq!(scene.combined(&[one, other]), Err(OpenError));
            for third in (0..5).filter(|third| ![one, other].contains(third)) {
                assert_eq!(scene.combined(&[one, other, third]).as_ref(), Ok(&scene.code));
            }
        }
    }
    assert_eq!(scene.combined(&[0, 1, 1]), Err(OpenError));
    assert_eq!(scene.combined(&[4, 3, 2, 1, 0]).as_ref(), Ok(&scene.code), "more than are needed do no harm");
}

#[test]
fn the_largest_set_recovers() {
    let scene = scene(16, 16);
    let all: Vec<usize> = (0..16).collect();
    assert_eq!(scene.combined(&all).as_ref(), Ok(&scene.code));
    assert_eq!(scene.combined(&all[..15]), Err(OpenError));
}

#[test]
fn numbers_that_make_no_set_are_refused() {
    let code = RecoveryCode::generate();
    for (needed, count) in [(0, 3), (1, 3), (4, 3), (2, 0), (u32::MAX, 3), (2, 256)] {
        assert!(split(&code, needed, count).is_err(), "{needed} of {count}");
    }
}

/// A share says nothing: each byte of it takes every value, zero and the secret's own byte too, for one and the same
/// secret. A library that draws no coefficient of zero never gives a first share that equals the secret.
#[test]
fn one_share_of_a_secret_takes_every_value_about_as_often() {
    let code = RecoveryCode::of(Secret::new([0x5a; 32]));
    let mut counts = [0_u32; 256];
    for _ in 0..400 {
        let shares = split(&code, 2, 2).unwrap();
        for byte in shares[0].expose() {
            counts[usize::from(*byte)] += 1;
        }
    }
    // 12,800 draws: 50 of each value, and with fair dice none is ever seen fewer than 10 or more than 110 times.
    assert!(counts.iter().all(|count| (10..110).contains(count)), "{counts:?}");
}

#[test]
fn the_same_code_is_never_shared_in_the_same_way_twice() {
    let code = RecoveryCode::generate();
    let seen: BTreeSet<[u8; 32]> = (0..20).map(|_| *split(&code, 2, 3).unwrap()[0].expose()).collect();
    assert_eq!(seen.len(), 20);
}

#[test]
fn a_share_opens_for_its_friend_in_its_set_alone() {
    let (scene, other) = (scene(2, 3), scene(2, 3));
    let set = &scene.set.set;
    let (one, two) = (&scene.friends[0], &scene.friends[1]);
    let wrapped = scene.shares[0].key;
    assert!(open_share(set, one.user_id, &wrapped, &one.secret).is_ok());
    assert_eq!(open_share(set, one.user_id, &wrapped, &two.secret), Err(OpenError));
    assert_eq!(open_share(set, two.user_id, &wrapped, &one.secret), Err(OpenError));
    assert_eq!(open_share(set, one.user_id, &scene.shares[1].key, &two.secret), Err(OpenError));
    assert_eq!(open_share(&other.set.set, one.user_id, &wrapped, &one.secret), Err(OpenError));
    let changes: [fn(&mut ShareSet); 5] = [
        |set| set.needed = 3,
        |set| set.set_id = ShareSetId::generate(),
        |set| set.user_id = UserId::generate(),
        |set| set.holders.truncate(2),
        |set| set.holders[0].commitment.0[0] ^= 1,
    ];
    for change in changes {
        let mut changed = set.clone();
        change(&mut changed);
        assert_eq!(open_share(&changed, one.user_id, &wrapped, &one.secret), Err(OpenError));
    }
    for bit in 0..WrappedKey::LENGTH * 8 {
        let mut flipped = wrapped;
        flipped.0[bit / 8] ^= 1 << (bit % 8);
        let mut set = set.clone();
        set.holders[0].wrap_hash = sha256(flipped.as_ref());
        assert_eq!(open_share(&set, one.user_id, &flipped, &one.secret), Err(OpenError), "bit {bit}");
    }
}

#[test]
fn each_wrap_is_signed_by_the_session_that_made_it() {
    let scene = scene(2, 3);
    let key = scene.session.1.signing_public_key();
    for (number, share) in (1..).zip(&scene.shares) {
        let bytes = share_wrap_bytes(&scene.set.set, number, scene.session.0, &share.key).unwrap();
        assert!(key.verifies(&bytes, &share.signature));
        let elsewhere = share_wrap_bytes(&scene.set.set, number % 3 + 1, scene.session.0, &share.key).unwrap();
        assert!(!key.verifies(&elsewhere, &share.signature));
    }
    assert!(share_wrap_bytes(&scene.set.set, 4, scene.session.0, &scene.shares[0].key).is_none());
}

#[test]
fn what_is_given_opens_for_its_request_alone() {
    let scene = scene(2, 2);
    let (request, request_id, friend) =
        (RequestSecret::generate(), RecoveryRequestId::generate(), scene.friends[0].user_id);
    let identity_key = scene.identity.public_key();
    let given = Given { number: 1, share: scene.opened(0), set: scene.set.clone(), identity_key };
    let set_id = scene.set.set.set_id;
    let sealed = given.seal(request_id, &request.public_key(), friend).unwrap();
    assert!(sealed.len() < crate::protocol::limits::RELEASE_BYTES_MAX);
    assert_eq!(request.open(request_id, set_id, friend, &sealed), Ok(given.clone()));
    assert_eq!(RequestSecret::generate().open(request_id, set_id, friend, &sealed), Err(OpenError));
    assert_eq!(request.open(RecoveryRequestId::generate(), set_id, friend, &sealed), Err(OpenError));
    assert_eq!(request.open(request_id, ShareSetId::generate(), friend, &sealed), Err(OpenError));
    assert_eq!(request.open(request_id, set_id, scene.friends[1].user_id, &sealed), Err(OpenError));
    assert_eq!(request.open(request_id, set_id, friend, &Blob::from(vec![7; 300])), Err(OpenError));

    assert!(given.is_of(friend));
    assert!(!given.is_of(scene.friends[1].user_id), "another's share is found out");
    let garbage = Given { share: Secret::generate(), ..given.clone() };
    assert!(!garbage.is_of(friend));
    let renumbered = Given { number: 2, ..given.clone() };
    assert!(!renumbered.is_of(friend));
    let mut unsigned = given;
    unsigned.set.set.needed = 1;
    assert!(!unsigned.is_of(friend));
}

#[test]
fn the_largest_set_fits_in_what_is_given() {
    let scene = scene(16, 16);
    let identity_key = scene.identity.public_key();
    let given = Given { number: 1, share: scene.opened(0), set: scene.set.clone(), identity_key };
    let key = RequestSecret::generate().public_key();
    let sealed = given.seal(RecoveryRequestId::generate(), &key, scene.friends[0].user_id).unwrap();
    assert!(sealed.len() <= crate::protocol::limits::RELEASE_BYTES_MAX, "{}", sealed.len());
}

#[test]
fn the_code_of_a_request_is_read_as_people_type_it() {
    let code = RequestCode::of([0xa5; 15]);
    let text = code.to_text();
    assert_eq!((text.len(), text.parse()), (29, Ok(code)));
    assert_eq!(text.to_lowercase().replace('-', " ").parse(), Ok(code));
    assert_eq!("".parse::<RequestCode>(), Err(RequestCodeInvalid));
}
