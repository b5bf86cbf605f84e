//! What the fold of a log comes to, entry by entry, and what it refuses.

use ed25519_dalek::Signer;

use super::super::binary::{IdentityKey, Signature};
use super::super::certificate::{Certificate, Revocation, chain_start};
use super::super::envelope::Seen;
use super::super::ids::ChangeNo;
use super::super::log::log_start;
use super::super::membership::{Actor, MembershipChange, Target, chain_start as membership_start};
use super::*;

/// A user with one session.
struct User {
    user_id: UserId,
    identity: ed25519_dalek::SigningKey,
    signing: ed25519_dalek::SigningKey,
    certificate: SignedCertificate,
}

impl User {
    fn new(seed: u8) -> Self {
        let user_id = UserId::generate();
        let identity = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
        let signing = ed25519_dalek::SigningKey::from_bytes(&[seed + 100; 32]);
        let mut point = [0; 32];
        point[0] = 9;
        let certificate = Certificate {
            user_id,
            place: Place::saturating(1),
            previous: chain_start(user_id),
            session_id: SessionId::generate(),
            public_key: ExchangeKey(point),
            signing_public_key: SigningKey(signing.verifying_key().to_bytes()),
            created_at: Timestamp::saturating(1_000),
            expired_at: Timestamp::saturating(2_000),
        };
        let signature = Signature(identity.sign(&certificate.signed_bytes()).to_bytes());
        Self { user_id, identity, signing, certificate: SignedCertificate { certificate, signature } }
    }

    fn renewed(&self, place: u64) -> SignedCertificate {
        let mut certificate = self.certificate.certificate.clone();
        certificate.place = Place::saturating(place);
        certificate.expired_at = Timestamp::saturating(9_000);
        let signature = Signature(self.identity.sign(&certificate.signed_bytes()).to_bytes());
        SignedCertificate { certificate, signature }
    }

    fn session_id(&self) -> SessionId {
        self.certificate.certificate.session_id
    }

    fn target(&self) -> Target {
        Target { user_id: self.user_id, identity_key: IdentityKey(self.identity.verifying_key().to_bytes()) }
    }

    fn sign(&self, chat_id: ChatId, change: MembershipChange) -> SignedChange {
        let signature = Signature(self.signing.sign(&change.signed_bytes(chat_id)).to_bytes());
        SignedChange { change, signature }
    }

    fn change(&self, fold: &ChatFold, change: Change, target: &Self) -> EntryBody {
        let Target { user_id, identity_key } = self.target();
        let change = MembershipChange {
            n: fold.membership().head.next(),
            previous: fold.membership().hash,
            seen: Seen { seq: Seq::saturating(1), log_hash: log_start(fold.chat_id()) },
            actor: Actor { user_id, session_id: self.session_id(), identity_key },
            change,
            target: target.target(),
        };
        EntryBody::Membership(self.sign(fold.chat_id(), change))
    }
}

fn seq(value: u64) -> Seq {
    Seq::saturating(value)
}

const NOW: Timestamp = Timestamp::saturating(1_500);
const LATER: Timestamp = Timestamp::saturating(2_500);

/// A chat of ada's with bob in it.
fn chat() -> (ChatFold, User, User) {
    let (ada, bob, chat_id) = (User::new(1), User::new(2), ChatId::generate());
    let Target { user_id, identity_key } = ada.target();
    let create = MembershipChange {
        n: ChangeNo::saturating(1),
        previous: membership_start(chat_id),
        seen: Seen { seq: Seq::default(), log_hash: log_start(chat_id) },
        actor: Actor { user_id, session_id: ada.session_id(), identity_key },
        change: Change::Create,
        target: ada.target(),
    };
    let mut fold = ChatFold::begin(chat_id, &EntryBody::Membership(ada.sign(chat_id, create))).unwrap();
    fold.apply(seq(2), NOW, &EntryBody::SessionIn(ada.certificate.clone())).unwrap();
    let add = Change::Add { can_write: true, can_manage: false, roster_hash: fold.roster_hash(), epoch: fold.epoch() };
    let added = ada.change(&fold, add, &bob);
    fold.apply(seq(3), NOW, &added).unwrap();
    fold.apply(seq(4), NOW, &EntryBody::SessionIn(bob.certificate.clone())).unwrap();
    (fold, ada, bob)
}

fn expiry(user: &User) -> EntryBody {
    EntryBody::SessionOut(SessionOut::Expired { user_id: user.user_id, session_id: user.session_id() })
}

#[test]
fn f1_ghosts_and_forgeries_change_nothing() {
    let (fold, ada, bob) = chat();
    let eve = User::new(3);
    let mut foreign = bob.renewed(2);
    foreign.certificate.user_id = ada.user_id;
    let forged = [
        (EntryBody::SessionIn(eve.certificate.clone()), FoldError::GhostMember),
        (EntryBody::SessionIn(foreign), FoldError::Certificate),
        (EntryBody::SessionIn(bob.certificate.clone()), FoldError::AlreadyIn),
        (eve.change(&fold, Change::Remove, &bob), FoldError::GhostSession),
        (expiry(&bob), FoldError::NotExpired),
        (bob.change(&fold, Change::Remove, &ada), FoldError::Membership(MembershipError::CannotManage)),
    ];
    for (body, error) in forged {
        let mut copy = fold.clone();
        assert_eq!(copy.apply(seq(5), NOW, &body).unwrap_err(), error);
        assert_eq!(copy, fold);
    }
}

#[test]
fn f2_whatever_takes_a_recipient_away_raises_the_epoch() {
    let (fold, ada, bob) = chat();
    let mut removed = fold.clone();
    let remove = ada.change(&fold, Change::Remove, &bob);
    removed.apply(seq(5), NOW, &remove).unwrap();
    let mut expired = fold.clone();
    expired.apply(seq(5), LATER, &expiry(&bob)).unwrap();
    for after in [removed, expired] {
        assert_eq!(after.epoch(), fold.epoch().next());
        assert!(!after.recipients().contains_key(&bob.session_id()));
        assert_ne!(after.roster_hash(), fold.roster_hash());
    }
}

#[test]
fn a_session_that_expired_returns_with_a_newer_certificate_alone() {
    let (mut fold, _, bob) = chat();
    fold.apply(seq(5), LATER, &expiry(&bob)).unwrap();
    let old = EntryBody::SessionIn(bob.certificate.clone());
    assert_eq!(fold.apply(seq(6), LATER, &old).unwrap_err(), FoldError::Over);
    assert_eq!(fold.apply(seq(6), NOW, &old).unwrap_err(), FoldError::Over, "whatever time the server claims");
    let same_place = EntryBody::SessionIn(bob.renewed(1));
    assert_eq!(fold.apply(seq(6), LATER, &same_place).unwrap_err(), FoldError::Over);
    fold.apply(seq(6), LATER, &EntryBody::SessionIn(bob.renewed(2))).unwrap();
    assert!(fold.recipients().contains_key(&bob.session_id()));
}

#[test]
fn a_session_that_is_in_is_renewed_over_another_key_and_never_goes_back() {
    let (mut fold, _, bob) = chat();
    let renewal = |place: u64, change: &dyn Fn(&mut Certificate)| {
        let mut signed = bob.renewed(place);
        signed.certificate.public_key = ExchangeKey([4; 32]);
        change(&mut signed.certificate);
        signed.signature = Signature(bob.identity.sign(&signed.certificate.signed_bytes()).to_bytes());
        EntryBody::SessionIn(signed)
    };
    let before = fold.clone();
    let another_signer = SigningKey(ed25519_dalek::SigningKey::from_bytes(&[77; 32]).verifying_key().to_bytes());
    for (at, body, error) in [
        (NOW, renewal(1, &|_| {}), FoldError::AlreadyIn),
        (NOW, renewal(2, &|certificate| certificate.signing_public_key = another_signer), FoldError::KeysChanged),
        (LATER, renewal(2, &|_| {}), FoldError::Over),
    ] {
        assert_eq!(fold.apply(seq(5), at, &body).unwrap_err(), error);
        assert_eq!(fold, before);
    }
    fold.apply(seq(5), NOW, &renewal(2, &|_| {})).unwrap();
    assert_eq!(fold.recipients()[&bob.session_id()].public_key, ExchangeKey([4; 32]));
    assert_eq!((fold.epoch(), fold.roster_version()), (before.epoch(), seq(5)), "nobody has lost access");
    assert_ne!(fold.roster_hash(), before.roster_hash());
    let back = EntryBody::SessionIn(bob.certificate.clone());
    assert_eq!(fold.apply(seq(6), NOW, &back).unwrap_err(), FoldError::AlreadyIn);
}

#[test]
fn a_session_that_came_back_is_renewed_over_another_key_as_any_other() {
    let (mut fold, ada, bob) = chat();
    let over = |key: u8, place: u64| {
        let mut signed = bob.renewed(place);
        signed.certificate.public_key = ExchangeKey([key; 32]);
        signed.signature = Signature(bob.identity.sign(&signed.certificate.signed_bytes()).to_bytes());
        EntryBody::SessionIn(signed)
    };
    fold.apply(seq(5), LATER, &expiry(&bob)).unwrap();
    let mut out = fold.clone();
    fold.apply(seq(6), LATER, &EntryBody::SessionIn(bob.renewed(2))).unwrap();
    fold.apply(seq(7), LATER, &over(4, 3)).unwrap();
    assert_eq!(fold.recipients()[&bob.session_id()].public_key, ExchangeKey([4; 32]));
    // It goes out again, and what it had at first is the past.
    let again = Timestamp::saturating(9_000);
    let late = |key: u8, place: u64| {
        let EntryBody::SessionIn(mut signed) = over(key, place) else { panic!() };
        signed.certificate.expired_at = Timestamp::saturating(19_000);
        signed.signature = Signature(bob.identity.sign(&signed.certificate.signed_bytes()).to_bytes());
        EntryBody::SessionIn(signed)
    };
    fold.apply(seq(8), again, &expiry(&bob)).unwrap();
    assert_eq!(fold.apply(seq(9), again, &late(5, 4)).unwrap_err(), FoldError::KeysChanged);
    fold.apply(seq(9), again, &late(4, 4)).unwrap();

    // Whoever is removed meanwhile and added again comes with whatever keys they have then.
    let remove = ada.change(&out, Change::Remove, &bob);
    out.apply(seq(6), LATER, &remove).unwrap();
    let add = ada.change(&out, add_here(&out), &bob);
    out.apply(seq(7), LATER, &add).unwrap();
    assert_eq!(
        out.apply(seq(8), LATER, &over(4, 1)).unwrap_err(),
        FoldError::Over,
        "but not with an older certificate"
    );
    out.apply(seq(8), LATER, &over(4, 3)).unwrap();
}

#[test]
fn a_fold_of_before_knows_keys_of_sessions_that_went_out_without_their_users() {
    let (exchange, signing) = (ExchangeKey([4; 32]), SigningKey([5; 32]));
    let before = rmp_serde::to_vec_named(&(exchange, signing)).unwrap();
    assert_eq!(rmp_serde::from_slice::<Former>(&before).unwrap(), Former(exchange, signing, None));
    let now = Former(exchange, signing, Some(UserId::generate()));
    assert_eq!(rmp_serde::from_slice::<Former>(&rmp_serde::to_vec_named(&now).unwrap()).unwrap(), now);
}

#[test]
fn a_session_that_was_revoked_never_returns() {
    let (mut fold, _, bob) = chat();
    let revocation = Revocation {
        user_id: bob.user_id,
        place: Place::saturating(2),
        previous: bob.certificate.chain_hash(),
        session_id: bob.session_id(),
        revoker: Revoker::Identity,
        created_at: NOW,
    };
    let signature = Signature(bob.identity.sign(&revocation.signed_bytes()).to_bytes());
    let revoked = EntryBody::SessionOut(SessionOut::Revoked(SignedRevocation { revocation, signature }));
    fold.apply(seq(5), NOW, &revoked).unwrap();
    for place in [1, 2, 3] {
        let back = EntryBody::SessionIn(bob.renewed(place));
        assert_eq!(fold.apply(seq(6), NOW, &back).unwrap_err(), FoldError::Over);
    }
}

/// A fold after one change by ada.
fn after(fold: &ChatFold, ada: &User, change: Change, target: &User) -> ChatFold {
    let mut after = fold.clone();
    after.apply(seq(5), NOW, &ada.change(fold, change, target)).unwrap();
    after
}

fn add_here(fold: &ChatFold) -> Change {
    Change::Add { can_write: true, can_manage: false, roster_hash: fold.roster_hash(), epoch: fold.epoch() }
}

#[test]
fn f2_each_change_does_to_epoch_and_roster_what_its_effect_says() {
    let (fold, ada, bob) = chat();
    let eve = User::new(3);
    let shared = Change::SetHistory { policy: HistoryPolicy::Shared };
    let open = after(&fold, &ada, shared.clone(), &ada);
    let cases = [
        (&fold, add_here(&fold), &eve, true, true),
        (&open, add_here(&open), &eve, true, false),
        (&fold, Change::Remove, &bob, true, true),
        (&fold, Change::SetRights { can_write: false, can_manage: true }, &bob, false, false),
        (&fold, Change::Transfer, &bob, false, false),
        (&fold, Change::Rekey, &ada, false, true),
        (&fold, shared, &ada, false, true),
        (&open, Change::SetHistory { policy: HistoryPolicy::FromJoin }, &ada, false, true),
    ];
    for (before, change, target, changes_roster, raises_epoch) in cases {
        let what = format!("{change:?}");
        let body = ada.change(before, change.clone(), target);
        let history = before.membership().history();
        let effect = Effect::of(&body, &Before { history, maker: None, has_user_key: false });
        // Whoever comes or goes needs another group key.
        assert_eq!(effect, Effect { changes_roster, raises_epoch, outdates_generation: changes_roster }, "{what}");
        let after = after(before, &ada, change, target);
        let epoch = if raises_epoch { before.epoch().next() } else { before.epoch() };
        let version = if changes_roster { seq(5) } else { before.roster_version() };
        assert_eq!((after.epoch(), after.roster_version()), (epoch, version), "{what}");
    }
}

fn deletion(user: &User, signer: &User) -> EntryBody {
    let deletion = crate::protocol::certificate::Deletion {
        user_id: user.user_id,
        place: Place::saturating(2),
        previous: user.certificate.chain_hash(),
        created_at: NOW,
    };
    let signature = Signature(signer.identity.sign(&deletion.signed_bytes()).to_bytes());
    EntryBody::AccountDeleted(SignedDeletion { deletion, signature })
}

#[test]
fn an_account_that_ends_takes_its_sessions_along_and_leaves_its_chat_to_the_heir() {
    let (fold, ada, bob) = chat();
    let mut after = fold.clone();
    after.apply(seq(5), NOW, &deletion(&ada, &ada)).unwrap();
    assert_eq!((after.epoch(), after.roster_version()), (fold.epoch().next(), seq(5)));
    assert!(!after.recipients().contains_key(&ada.session_id()));
    assert_eq!(after.membership().owner_id, bob.user_id);
    assert!(after.membership().members[&bob.user_id].can_manage);
    // It cannot come back by a certificate, nor end twice.
    let back = EntryBody::SessionIn(ada.renewed(3));
    assert_eq!(after.apply(seq(6), NOW, &back).unwrap_err(), FoldError::GhostMember);
    assert_eq!(after.apply(seq(6), NOW, &deletion(&ada, &ada)).unwrap_err(), FoldError::GhostMember);
    let mut forged = fold.clone();
    assert_eq!(forged.apply(seq(5), NOW, &deletion(&ada, &bob)).unwrap_err(), FoldError::Signature);
    assert_eq!(forged, fold);
}

#[test]
fn p4_an_addition_names_the_roster_and_the_epoch_that_its_maker_folded() {
    let (fold, ada, _) = chat();
    let eve = User::new(3);
    let add = |roster_hash, epoch| Change::Add { can_write: true, can_manage: false, roster_hash, epoch };
    for change in [add(Hash([8; 32]), fold.epoch()), add(fold.roster_hash(), fold.epoch().next())] {
        let mut copy = fold.clone();
        let body = ada.change(&fold, change, &eve);
        assert_eq!(copy.apply(seq(5), NOW, &body).unwrap_err(), FoldError::Anchor);
        assert_eq!(copy, fold);
    }
    after(&fold, &ada, add(fold.roster_hash(), fold.epoch()), &eve);
}

#[test]
fn f1_a_change_is_its_actors_sessions_own() {
    let (fold, ada, bob) = chat();
    let refused = |body: &EntryBody| {
        let mut copy = fold.clone();
        let error = copy.apply(seq(5), NOW, body).unwrap_err();
        assert_eq!(copy, fold);
        error
    };
    // Bob signs in Ada's name: with his session, and with hers.
    let EntryBody::Membership(of_ada) = ada.change(&fold, Change::Rekey, &ada) else { panic!("a change") };
    let mut with_his = of_ada.change.clone();
    with_his.actor.session_id = bob.session_id();
    let with_his = EntryBody::Membership(bob.sign(fold.chat_id(), with_his));
    assert_eq!(refused(&with_his), FoldError::GhostSession);
    let with_hers = EntryBody::Membership(bob.sign(fold.chat_id(), of_ada.change));
    assert_eq!(refused(&with_hers), FoldError::Signature);
}

#[test]
fn f1_the_first_session_is_the_one_that_signed_the_founding() {
    let (ada, chat_id) = (User::new(1), ChatId::generate());
    let Target { user_id, identity_key } = ada.target();
    let create = MembershipChange {
        n: ChangeNo::saturating(1),
        previous: membership_start(chat_id),
        seen: Seen { seq: Seq::default(), log_hash: log_start(chat_id) },
        actor: Actor { user_id, session_id: ada.session_id(), identity_key },
        change: Change::Create,
        target: ada.target(),
    };
    let fold = ChatFold::begin(chat_id, &EntryBody::Membership(ada.sign(chat_id, create.clone()))).unwrap();
    assert_eq!((fold.epoch(), fold.roster_version()), (Epoch::saturating(1), seq(1)));
    assert!(fold.recipients().is_empty());
    let certified = |change: fn(&mut Certificate)| {
        let mut certificate = ada.certificate.certificate.clone();
        change(&mut certificate);
        let signature = Signature(ada.identity.sign(&certificate.signed_bytes()).to_bytes());
        EntryBody::SessionIn(SignedCertificate { certificate, signature })
    };
    // Another session of hers with the same signing key, and the same session with another one.
    let another_session = certified(|certificate| certificate.session_id = SessionId::generate());
    let another_key = certified(|certificate| {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[77; 32]);
        certificate.signing_public_key = SigningKey(signing.verifying_key().to_bytes());
    });
    for body in [another_session, another_key] {
        let mut copy = fold.clone();
        assert_eq!(copy.apply(seq(2), NOW, &body).unwrap_err(), FoldError::Signature);
        assert_eq!(copy, fold);
    }
    let mut founded = fold;
    founded.apply(seq(2), NOW, &EntryBody::SessionIn(ada.certificate.clone())).unwrap();
    assert!(founded.recipients().contains_key(&ada.session_id()));
    assert_eq!((founded.epoch(), founded.roster_version()), (Epoch::saturating(1), seq(2)));
}

#[test]
fn p5_a_session_is_revoked_by_its_users_identity_or_another_session_of_theirs_and_nobody_else() {
    let (mut fold, ada, bob) = chat();
    let mut laptop = User { user_id: bob.user_id, identity: bob.identity.clone(), ..User::new(2) };
    laptop.signing = ed25519_dalek::SigningKey::from_bytes(&[55; 32]);
    laptop.certificate.certificate.user_id = bob.user_id;
    laptop.certificate.certificate.signing_public_key = SigningKey(laptop.signing.verifying_key().to_bytes());
    laptop.certificate = laptop.renewed(2);
    fold.apply(seq(5), NOW, &EntryBody::SessionIn(laptop.certificate.clone())).unwrap();
    let revoked = |by: Revoker, signing: &ed25519_dalek::SigningKey| {
        let revocation = Revocation {
            user_id: bob.user_id,
            place: Place::saturating(3),
            previous: laptop.certificate.chain_hash(),
            session_id: bob.session_id(),
            revoker: by,
            created_at: NOW,
        };
        let signature = Signature(signing.sign(&revocation.signed_bytes()).to_bytes());
        EntryBody::SessionOut(SessionOut::Revoked(SignedRevocation { revocation, signature }))
    };
    let (identity, session) = (Revoker::Identity, Revoker::Session);
    let forged = [
        revoked(identity, &ada.identity),
        revoked(session(ada.session_id()), &ada.signing),
        revoked(session(laptop.session_id()), &ada.signing),
        revoked(session(SessionId::generate()), &laptop.signing),
    ];
    for body in forged {
        let mut copy = fold.clone();
        assert_eq!(copy.apply(seq(6), NOW, &body).unwrap_err(), FoldError::Signature);
        assert_eq!(copy, fold);
    }
    for body in [revoked(identity, &bob.identity), revoked(session(laptop.session_id()), &laptop.signing)] {
        let mut after = fold.clone();
        after.apply(seq(6), NOW, &body).unwrap();
        assert_eq!((after.epoch(), after.roster_version()), (fold.epoch().next(), seq(6)));
        assert!(!after.recipients().contains_key(&bob.session_id()));
        assert!(after.recipients().contains_key(&laptop.session_id()));
        assert_eq!(after.apply(seq(7), NOW, &body).unwrap_err(), FoldError::NotIn, "once");
    }
}

#[test]
fn p5_a_certificate_serves_up_to_its_end_and_not_at_it() {
    let (fold, _, bob) = chat();
    let end = bob.certificate.certificate.expired_at;
    let just_before = Timestamp::saturating(end.get() - 1);
    let mut copy = fold.clone();
    assert_eq!(copy.apply(seq(5), just_before, &expiry(&bob)).unwrap_err(), FoldError::NotExpired);
    copy.apply(seq(5), end, &expiry(&bob)).unwrap();
    let mut renewed = bob.renewed(2);
    renewed.certificate.expired_at = end;
    renewed.signature = Signature(bob.identity.sign(&renewed.certificate.signed_bytes()).to_bytes());
    let back = EntryBody::SessionIn(renewed);
    assert_eq!(copy.apply(seq(6), end, &back).unwrap_err(), FoldError::Over);
    copy.apply(seq(6), just_before, &back).unwrap();
    // An expiry of somebody else's session in one's own name is none.
    let mut in_another_name = fold.clone();
    let (user_id, session_id) = (UserId::generate(), bob.session_id());
    let body = EntryBody::SessionOut(SessionOut::Expired { user_id, session_id });
    assert_eq!(in_another_name.apply(seq(5), end, &body).unwrap_err(), FoldError::NotIn);
    assert_eq!(in_another_name, fold);
}

#[test]
fn p4_the_roster_hash_is_of_each_session_and_its_key() {
    let (fold, ada, bob) = chat();
    let key_of = |user: &User| (user.session_id(), user.certificate.certificate.public_key);
    let mut sessions = [key_of(&ada), key_of(&bob)];
    sessions.sort_by_key(|(session_id, _)| *session_id);
    let mut expected = Canonical::new("sealcast/roster").u64(2);
    for (session_id, public_key) in sessions {
        expected = expected.u64(0).id(session_id.0).bytes(&public_key.0);
    }
    assert_eq!(fold.roster_hash(), expected.hash());
    assert_eq!(fold.recipients().keys().copied().collect::<Vec<_>>(), sessions.map(|(session_id, _)| session_id));
}

#[test]
fn p7_a_session_is_renewed_by_the_same_signing_key_from_a_later_place_before_its_time_is_over() {
    let (fold, ada, bob) = chat();
    let mut after = fold.clone();
    after.apply(seq(5), NOW, &EntryBody::SessionIn(bob.renewed(2))).unwrap();
    let (old, new) = (&fold.recipients()[&bob.session_id()], &after.recipients()[&bob.session_id()]);
    assert_eq!((new.place, new.expired_at), (Place::saturating(2), Timestamp::saturating(9_000)));
    assert_eq!((new.public_key, new.signing_public_key), (old.public_key, old.signing_public_key));
    assert_eq!((after.epoch(), after.roster_hash()), (fold.epoch(), fold.roster_hash()));
    assert_eq!(after.roster_version(), seq(5));
    // What it ended by before is over.
    assert_eq!(after.apply(seq(6), LATER, &expiry(&bob)).unwrap_err(), FoldError::NotExpired);

    let with = |change: fn(&mut Certificate)| {
        let mut signed = bob.renewed(2);
        change(&mut signed.certificate);
        signed.signature = Signature(bob.identity.sign(&signed.certificate.signed_bytes()).to_bytes());
        EntryBody::SessionIn(signed)
    };
    let mut of_ada = ada.renewed(2);
    of_ada.certificate.session_id = bob.session_id();
    of_ada.signature = Signature(ada.identity.sign(&of_ada.certificate.signed_bytes()).to_bytes());
    let other_exchange: fn(&mut Certificate) = |certificate| certificate.public_key.0[0] = 16;
    let other_signing: fn(&mut Certificate) = |certificate| {
        let key = ed25519_dalek::SigningKey::from_bytes(&[77; 32]);
        certificate.signing_public_key = SigningKey(key.verifying_key().to_bytes());
    };
    let wrong = [
        (NOW, EntryBody::SessionIn(bob.renewed(1)), FoldError::AlreadyIn),
        (NOW, EntryBody::SessionIn(of_ada), FoldError::AlreadyIn),
        (NOW, with(other_signing), FoldError::KeysChanged),
        (NOW, with(|certificate| certificate.expired_at = NOW), FoldError::Over),
        (LATER, EntryBody::SessionIn(bob.renewed(2)), FoldError::Over),
    ];
    for (number, (at, body, error)) in wrong.into_iter().enumerate() {
        let mut copy = fold.clone();
        assert_eq!(copy.apply(seq(5), at, &body).unwrap_err(), error, "case {number}");
        assert_eq!(copy, fold, "case {number}");
    }

    // Ahead of its time it may bring another X25519 key, which is another recipient of the same id.
    let mut replaced = fold.clone();
    replaced.apply(seq(5), NOW, &with(other_exchange)).unwrap();
    assert_ne!(replaced.roster_hash(), fold.roster_hash());
    assert_eq!((replaced.epoch(), replaced.roster_version()), (fold.epoch(), seq(5)));

    // But it does not come back over other keys, once it has gone out.
    let mut out = fold;
    out.apply(seq(5), LATER, &expiry(&bob)).unwrap();
    for other in [other_exchange, other_signing] {
        let mut copy = out.clone();
        assert_eq!(copy.apply(seq(6), LATER, &with(other)).unwrap_err(), FoldError::KeysChanged);
        assert_eq!(copy, out);
    }
    out.apply(seq(6), LATER, &EntryBody::SessionIn(bob.renewed(2))).unwrap();
}
