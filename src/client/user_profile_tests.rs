//! What a client takes of what a server shows of a user's profile, honest or not.

use super::failure::VerificationFailure;
use super::keyring::Me;
use super::user_profile::{Judged, Known, Noted, OwnKey, judge};
use crate::client::error::UNSIGNED;
use crate::crypto::user_profile::{PlainProfile, ProfilePlace, seal, seal_to_own, wrap_key};
use crate::crypto::{IdentitySecret, Secret, SessionSecrets, UserSecret};
use crate::protocol::certificate::{Certificate, Revocation, Revoker, SignedCertificate, SignedRevocation, UserEvent};
use crate::protocol::frame::ShownProfile;
use crate::protocol::ids::{InfoKeyId, Revision, SessionId, Timestamp, UserId, UserKeyId};
use crate::protocol::profile::{ProfileKeyWrap, SignedProfile};
use crate::protocol::user_chain::UserChain;

/// A user with their chain.
struct Person {
    user_id: UserId,
    identity: IdentitySecret,
    chain: UserChain,
}

impl Person {
    fn new() -> Self {
        let (user_id, identity) = (UserId::generate(), IdentitySecret::generate());
        let chain = UserChain::new(user_id, identity.public_key());
        Self { user_id, identity, chain }
    }

    fn session(&mut self) -> Me {
        let me = Me {
            user_id: self.user_id,
            session_id: SessionId::generate(),
            identity_key: self.identity.public_key(),
            secrets: SessionSecrets::generate(),
            next: None,
            older: Vec::new(),
        };
        let certificate = Certificate {
            user_id: self.user_id,
            place: self.chain.place().next(),
            previous: self.chain.hash(),
            session_id: me.session_id,
            public_key: me.secrets.public_key(),
            signing_public_key: me.secrets.signing_public_key(),
            created_at: Timestamp::saturating(1),
            expired_at: Timestamp::saturating(1_000_000),
        };
        let mut signed = SignedCertificate { certificate, signature: UNSIGNED };
        signed.signature = self.identity.sign(&signed.certificate.signed_bytes());
        self.chain.take(&UserEvent::Certificate(signed)).unwrap();
        me
    }

    fn revoke(&mut self, session: &Me) {
        let revocation = Revocation {
            user_id: self.user_id,
            place: self.chain.place().next(),
            previous: self.chain.hash(),
            session_id: session.session_id,
            revoker: Revoker::Identity,
            created_at: Timestamp::saturating(2),
        };
        let signature = self.identity.sign(&revocation.signed_bytes());
        self.chain.take(&UserEvent::Revocation(SignedRevocation { revocation, signature })).unwrap();
    }
}

/// Ada with two devices, whose profile Bob reads.
struct Scene {
    ada: Person,
    phone: Me,
    tablet: Me,
    bob: Me,
    key: (InfoKeyId, Secret),
    noted: Option<Noted>,
}

impl Scene {
    fn new() -> Self {
        let (mut ada, mut bob) = (Person::new(), Person::new());
        let (phone, tablet, bob) = (ada.session(), ada.session(), bob.session());
        Self { ada, phone, tablet, bob, key: (InfoKeyId::generate(), Secret::generate()), noted: None }
    }

    fn saved(&self, by: &Me, revision: u64, name: &str) -> SignedProfile {
        let revision = Revision::saturating(revision);
        let place = ProfilePlace { user_id: self.ada.user_id, revision, key_id: self.key.0 };
        let plain = PlainProfile { name: Some(name.to_owned()), email: Some("a@b".to_owned()), description: None };
        seal(&self.key.1, place, &plain, (by.session_id, &by.secrets)).unwrap()
    }

    fn wrap(&self, by: &Me, to: &Me) -> ProfileKeyWrap {
        let (by, to) = ((by.session_id, &by.secrets), (to.session_id, &to.secrets.public_key()));
        wrap_key(&self.key.1, (self.ada.user_id, self.key.0), by, to).unwrap()
    }

    /// What Bob takes of it; the name, if it is open.
    fn show(
        &mut self,
        profile: &SignedProfile,
        key: Option<&ProfileKeyWrap>,
    ) -> Result<Option<String>, VerificationFailure> {
        let user_id = self.ada.user_id;
        let shown = ShownProfile { user_id, profile: Some(profile.clone()), key: key.cloned(), user_key: None };
        let known = Known { me: &self.bob, chain: &self.ada.chain, noted: self.noted.as_ref(), own_key: None };
        match judge(user_id, &shown, known)? {
            Judged::Open { noted, plain } => {
                self.noted = Some(noted);
                Ok(plain.name)
            }
            Judged::Waits { noted, .. } => {
                self.noted = Some(noted);
                Ok(None)
            }
            Judged::Nothing => panic!("there is one"),
        }
    }
}

#[test]
fn p7_a_profile_is_taken_once_and_never_an_older_or_another_one_of_its_revision() {
    let mut scene = Scene::new();
    let user_id = scene.ada.user_id;
    let wrap = scene.wrap(&scene.phone, &scene.bob);
    let [first, second] = [(1, "one"), (2, "two")].map(|(revision, name)| scene.saved(&scene.phone, revision, name));
    assert_eq!(scene.show(&first, Some(&wrap)), Ok(Some("one".to_owned())));
    assert_eq!(scene.show(&second, None), Ok(Some("two".to_owned())), "the key is kept");
    assert_eq!(scene.show(&first, Some(&wrap)), Err(VerificationFailure::ProfileRollback(user_id)));
    let other = scene.saved(&scene.tablet, 2, "another two");
    let mut altered = scene.saved(&scene.phone, 3, "three");
    altered.profile.name = second.profile.name.clone();
    let mut swapped = scene.saved(&scene.phone, 3, "three");
    std::mem::swap(&mut swapped.profile.name, &mut swapped.profile.email);
    let mut forged = scene.saved(&scene.phone, 3, "three");
    forged.signature.0[5] ^= 1;
    let mut in_the_name = scene.saved(&scene.bob, 3, "by Bob as the phone");
    in_the_name.profile.session_id = scene.phone.session_id;
    let by_bob = scene.saved(&scene.bob, 3, "by Bob");
    for lie in [other, altered, swapped, forged, in_the_name, by_bob] {
        assert_eq!(scene.show(&lie, Some(&wrap)), Err(VerificationFailure::Profile(user_id)));
        assert_eq!(scene.noted.as_ref().unwrap().revision.get(), 2);
    }
    assert_eq!(scene.show(&scene.saved(&scene.tablet, 3, "three"), None), Ok(Some("three".to_owned())));
}

#[test]
fn p7_a_wrap_is_taken_from_a_live_session_of_the_user_alone() {
    let mut scene = Scene::new();
    let saved = scene.saved(&scene.phone, 1, "one");
    let mut altered = scene.wrap(&scene.phone, &scene.bob);
    altered.key.0[40] ^= 1;
    let mut claimed = scene.wrap(&scene.tablet, &scene.bob);
    claimed.wrapped_by_session_id = scene.phone.session_id;
    let for_another = scene.wrap(&scene.phone, &scene.tablet);
    for wrap in [altered, claimed, for_another] {
        let failure = VerificationFailure::ProfileKey(scene.phone.session_id);
        assert_eq!(scene.show(&saved, Some(&wrap)), Err(failure));
    }
    let by_another_user = scene.wrap(&scene.bob, &scene.bob);
    let failure = VerificationFailure::ProfileKey(scene.bob.session_id);
    assert_eq!(scene.show(&saved, Some(&by_another_user)), Err(failure));
    assert!(scene.noted.is_none(), "nothing of it was taken");
    // A key that is not the profile's opens nothing.
    let other = Scene { key: (scene.key.0, Secret::generate()), ..Scene::new() };
    let by_phone = (scene.phone.session_id, &scene.phone.secrets);
    let to_bob = (scene.bob.session_id, &scene.bob.secrets.public_key());
    let wrong = wrap_key(&other.key.1, (scene.ada.user_id, scene.key.0), by_phone, to_bob).unwrap();
    assert_eq!(scene.show(&saved, Some(&wrong)), Err(VerificationFailure::Profile(scene.ada.user_id)));
    let good = scene.wrap(&scene.tablet, &scene.bob);
    assert_eq!(scene.show(&saved, None), Ok(None), "it waits for its key");
    assert_eq!(scene.show(&saved, Some(&good)), Ok(Some("one".to_owned())));
}

#[test]
fn p5_a_revoked_session_brings_no_key_and_says_nothing_new() {
    let mut scene = Scene::new();
    let (saved, wrap) = (scene.saved(&scene.tablet, 1, "one"), scene.wrap(&scene.tablet, &scene.bob));
    assert_eq!(scene.show(&saved, Some(&wrap)), Ok(Some("one".to_owned())));
    let tablet = scene.tablet.clone();
    scene.ada.revoke(&tablet);
    assert_eq!(scene.show(&saved, None), Ok(Some("one".to_owned())), "what was taken before stays");
    let late = scene.saved(&scene.tablet, 2, "by a thief");
    let failure = VerificationFailure::ProfileOfRevoked(scene.tablet.session_id);
    assert_eq!(scene.show(&late, Some(&wrap)), Err(failure));
    // To who never saw it, it may be of before or after.
    let noted = scene.noted.take();
    assert_eq!(scene.show(&saved, Some(&wrap)), Err(failure));
    scene.noted = noted;
    let renewed = Scene { key: (InfoKeyId::generate(), Secret::generate()), ..scene };
    let mut scene = renewed;
    let by_phone = scene.saved(&scene.phone, 2, "one");
    let by_tablet = scene.wrap(&scene.tablet, &scene.bob);
    let user_id = scene.ada.user_id;
    let shown = ShownProfile { user_id, profile: Some(by_phone.clone()), key: Some(by_tablet), user_key: None };
    let known = Known { me: &scene.bob, chain: &scene.ada.chain, noted: scene.noted.as_ref(), own_key: None };
    let judged = judge(user_id, &shown, known).unwrap();
    assert!(matches!(judged, Judged::Waits { must_ask: true, .. }), "{judged:?}");
    let wrap = scene.wrap(&scene.phone, &scene.bob);
    assert_eq!(scene.show(&by_phone, Some(&wrap)), Ok(Some("one".to_owned())));
}

#[test]
fn p7_a_key_that_a_login_opened_is_taken_if_a_live_session_of_ones_own_sealed_it() {
    let mut scene = Scene::new();
    let saved = scene.saved(&scene.phone, 1, "one");
    let fresh = scene.ada.session();
    let (user_id, user_key) = (scene.ada.user_id, (UserKeyId::generate(), UserSecret::generate()));
    let sealed = |by: &Me| {
        let to = (user_key.0, &user_key.1.public_key());
        let by = (by.session_id, &by.secrets);
        let wrap = seal_to_own(&scene.key.1, (user_id, scene.key.0), by, to).unwrap();
        OwnKey { wrap, secret: scene.key.1.clone() }
    };
    let shown = ShownProfile { user_id, profile: Some(saved), key: None, user_key: None };
    let judge_by = |chain: &UserChain, own_key: &OwnKey| {
        judge(user_id, &shown, Known { me: &fresh, chain, noted: None, own_key: Some(own_key) })
    };
    let good = judge_by(&scene.ada.chain, &sealed(&scene.phone));
    assert!(matches!(good, Ok(Judged::Open { .. })), "{good:?}");
    let by_server = sealed(&scene.bob);
    let failure = VerificationFailure::ProfileKey(scene.bob.session_id);
    assert_eq!(judge_by(&scene.ada.chain, &by_server), Err(failure));
}
