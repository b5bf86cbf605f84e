//! Tests of what a client concludes from users' chains beside the logs of chats.

use std::collections::BTreeSet;

use super::fake::{FakeChat, FakeSession, NOW};
use crate::client::chains::{Chains, Claim, Difference, Expected, compare, proven};
use crate::client::failure::VerificationFailure;
use crate::protocol::certificate::{Revocation, Revoker, SignedRevocation, UserEvent};
use crate::protocol::frame::Chain;
use crate::protocol::ids::{ChatId, Place, UserId};
use crate::protocol::user_chain::UserChain;

fn certificate(session: &FakeSession) -> UserEvent {
    UserEvent::Certificate(session.certificate.clone())
}

/// The revocation of a session by another, next in a chain.
fn revocation(chain: &UserChain, by: &FakeSession, session: &FakeSession) -> UserEvent {
    let revocation = Revocation {
        user_id: by.me.user_id,
        place: chain.place().next(),
        previous: chain.hash(),
        session_id: session.me.session_id,
        revoker: Revoker::Session(by.me.session_id),
        created_at: NOW,
    };
    let signature = by.me.secrets.sign(&revocation.signed_bytes());
    UserEvent::Revocation(SignedRevocation { revocation, signature })
}

fn part(user_id: UserId, events: &[UserEvent]) -> Chain {
    Chain { user_id, events: events.to_vec(), more: false }
}

fn expected(chains: &Chains, session: &FakeSession) -> Expected {
    let known = chains.get(session.me.user_id).map(|chain| (chain.place(), chain.hash()));
    chains.expected(session.me.user_id, known)
}

/// Ann's chain with two sessions, and one who has followed it.
fn followed() -> (FakeSession, FakeSession, Vec<UserEvent>, Chains) {
    let ann = FakeSession::new();
    let tablet = ann.sibling();
    let events = vec![certificate(&ann), certificate(&tablet)];
    let mut chains = Chains::default();
    let wanted = expected(&chains, &ann);
    assert_eq!(chains.take(ann.me.identity_key, &wanted, &part(ann.me.user_id, &events)), Ok(false));
    (ann, tablet, events, chains)
}

#[test]
fn p7_a_chain_goes_on_and_never_shrinks_nor_changes() {
    let (ann, tablet, events, mut chains) = followed();
    let user_id = ann.me.user_id;
    let rewritten = Err(VerificationFailure::ChainRewritten(user_id));
    let wanted = expected(&chains, &ann);
    assert_eq!(wanted.after, Place::saturating(1), "the newest known entry is to be shown again");
    let mut take = |events: &[UserEvent]| chains.take(ann.me.identity_key, &wanted, &part(user_id, events));
    assert_eq!(take(&[]), rewritten, "shorter");
    assert_eq!(take(&events[..1]), rewritten, "another entry in its place");
    let other = ann.sibling();
    assert_eq!(take(&[certificate(&other)]), rewritten, "signed, at the same place, and not the same");
    assert_eq!(take(&events[1..]), Ok(false), "no news");
    let mut chain = UserChain::new(user_id, ann.me.identity_key);
    for event in &events {
        chain.take(event).unwrap();
    }
    let revoked = revocation(&chain, &ann, &tablet);
    assert_eq!(take(&[events[1].clone(), revoked.clone()]), Ok(false));
    // What follows on something else is another chain; what is badly signed is none.
    let mut foreign = revoked.clone();
    if let UserEvent::Revocation(signed) = &mut foreign {
        signed.revocation.place = Place::saturating(4);
    }
    let wanted = expected(&chains, &ann);
    assert_eq!(chains.take(ann.me.identity_key, &wanted, &part(user_id, &[revoked.clone(), foreign])), rewritten);
    let mut forged = revoked.clone();
    if let UserEvent::Revocation(signed) = &mut forged {
        signed.revocation.place = Place::saturating(4);
        signed.revocation.previous = revoked.chain_hash();
    }
    let invalid = Err(VerificationFailure::ChainInvalid(user_id));
    assert_eq!(chains.take(ann.me.identity_key, &wanted, &part(user_id, &[revoked, forged])), invalid);
    assert_eq!(chains.get(user_id).map(UserChain::place), Some(Place::saturating(3)));
}

#[test]
fn p7_what_was_known_before_a_restart_is_asked_for_again() {
    let (ann, _, events, chains) = followed();
    let user_id = ann.me.user_id;
    let head = chains.get(user_id).map(|chain| (chain.place(), chain.hash()));
    let mut fresh = Chains::default();
    let wanted = fresh.expected(user_id, head);
    let rewritten = Err(VerificationFailure::ChainRewritten(user_id));
    assert_eq!(fresh.take(ann.me.identity_key, &wanted, &part(user_id, &events[..1])), rewritten);
    let other = [events[0].clone(), certificate(&ann.sibling())];
    assert_eq!(fresh.take(ann.me.identity_key, &wanted, &part(user_id, &other)), rewritten);
    assert_eq!(fresh.take(ann.me.identity_key, &wanted, &part(user_id, &events)), Ok(false));
}

#[test]
fn p7_a_certificate_that_a_chat_shows_must_be_in_the_chain() {
    let (ann, tablet, _, mut chains) = followed();
    let chat_id = ChatId::generate();
    let claim = |session: &FakeSession| Claim {
        hash: session.certificate.chain_hash(),
        session_id: session.me.session_id,
        chat_id,
    };
    let (user_id, second) = (ann.me.user_id, Place::saturating(2));
    assert_eq!(chains.claim(user_id, second, claim(&tablet)), Ok(()));
    let other = ann.sibling();
    let accused = VerificationFailure::NotInChain(other.me.session_id);
    assert_eq!(chains.claim(user_id, second, claim(&other)), Err(accused));
    // Beyond what is known it waits for the next look.
    assert_eq!(chains.claim(user_id, second.next(), claim(&other)), Ok(()));
    assert!(chains.has_claims());
    let wanted = expected(&chains, &ann);
    let newest = part(user_id, &[certificate(&tablet)]);
    assert_eq!(chains.take(ann.me.identity_key, &wanted, &newest), Ok(false));
    assert_eq!(chains.settle(user_id, &wanted), [(chat_id, accused)]);
    assert!(!chains.has_claims());
}

#[test]
fn p7_recipients_are_compared_with_their_chain() {
    let (ann, tablet, events, chains) = followed();
    let bob = FakeSession::new();
    let mut log = FakeChat::create(&ann);
    log.add(&ann, &bob);
    let own = ann.me.user_id;
    let chain_of = |user_id| chains.get(user_id);
    let of_ann =
        |log: &FakeChat, own| compare(log.fold(), own, NOW, chain_of).remove(&ann.me.user_id).unwrap_or_default();
    let missing = Difference::Missing(tablet.me.session_id);
    assert_eq!(of_ann(&log, own), BTreeSet::from([missing]));
    assert_eq!(of_ann(&log, bob.me.user_id), BTreeSet::new(), "only of one's own");
    log.session_in(&tablet);
    assert_eq!(of_ann(&log, own), BTreeSet::new());
    let stray = ann.sibling();
    log.session_in(&stray);
    let not_in_chain = Difference::NotInChain(stray.me.session_id);
    assert_eq!(of_ann(&log, own), BTreeSet::from([not_in_chain]));

    let mut chain = UserChain::new(own, ann.me.identity_key);
    for event in &events {
        chain.take(event).unwrap();
    }
    let before = chain.clone();
    chain.take(&revocation(&chain, &ann, &tablet)).unwrap();
    let revoked = Difference::Revoked(tablet.me.session_id);
    let second = compare(log.fold(), own, NOW, |user_id| (user_id == own).then_some(&chain)).remove(&own).unwrap();
    assert_eq!(second, BTreeSet::from([not_in_chain, revoked]));
    // A revocation that came after the log was read proves nothing; one that was there before does.
    assert_eq!(proven(&second, Some(&before)), [not_in_chain]);
    assert_eq!(proven(&second, Some(&chain)), [not_in_chain, revoked]);
    assert_eq!(proven(&BTreeSet::from([missing]), Some(&chain)), [], "it was revoked before");
}
