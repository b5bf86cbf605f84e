//! Tests of which signals are heard, and under which key they go.

use super::fake::{FakeChat, FakeSession, LIMITS, NOW};
use super::signals::{Dropped, HEARD_MAX};
use super::state::Chat;
use crate::client::failure::VerificationFailure;
use crate::client::signal::Signal;
use crate::crypto::signal as cipher;
use crate::protocol::binary::Blob;
use crate::protocol::ids::{KeyId, Timestamp, UserId};
use crate::protocol::limits::{SIGNAL_AGE_MAX_S, SIGNAL_BYTES_MAX};
use crate::protocol::membership::Change;
use crate::protocol::signal::SignalEnvelope;

const AGE_MAX_MICROS: u64 = SIGNAL_AGE_MAX_S * 1_000_000;

/// A chat of Ann and Bob in which Ann has sent one message, and Bob has taken it.
struct Heard {
    log: FakeChat,
    ann: FakeSession,
    ann_chat: Chat,
    bob: FakeSession,
    bob_chat: Chat,
}

impl Heard {
    fn new() -> Self {
        let (ann, bob) = (FakeSession::new(), FakeSession::new());
        let mut log = FakeChat::create(&ann);
        log.add(&ann, &bob);
        let (mut ann_chat, mut bob_chat) = (log.of(&ann), log.of(&bob));
        log.send(&mut ann_chat, &ann, "one");
        log.feed(&mut ann_chat, &ann);
        log.feed(&mut bob_chat, &bob);
        Self { log, ann, ann_chat, bob, bob_chat }
    }

    fn signal(&self) -> SignalEnvelope {
        self.signal_at(NOW)
    }

    fn signal_at(&self, now: Timestamp) -> SignalEnvelope {
        self.ann_chat.seal_signal(Signal::Typing, &self.ann.me, &LIMITS, now).unwrap().unwrap()
    }

    fn resign(&self, signal: &mut SignalEnvelope) {
        signal.signature = self.ann.me.secrets.sign(&signal.signed_bytes(self.log.chat_id));
    }

    fn hear(&mut self, signal: &SignalEnvelope) -> Result<Signal, Dropped> {
        self.bob_chat.hear(signal, &self.bob.me, NOW)
    }
}

#[test]
fn a_signal_is_heard_once() {
    let mut chat = Heard::new();
    let signal = chat.signal();
    assert_eq!(chat.hear(&signal), Ok(Signal::Typing));
    assert_eq!(chat.hear(&signal), Err(Dropped::Repeat));
    let another = chat.signal();
    assert_eq!(chat.hear(&another), Ok(Signal::Typing));
    assert_eq!(chat.ann_chat.hear(&another, &chat.ann.me, NOW), Err(Dropped::Sender), "one's own");
}

#[test]
fn a_signal_of_another_time_is_not_heard() {
    let mut chat = Heard::new();
    for (micros, expected) in [
        (NOW.get() - AGE_MAX_MICROS, Ok(Signal::Typing)),
        (NOW.get() - AGE_MAX_MICROS - 1, Err(Dropped::Age)),
        (NOW.get() + AGE_MAX_MICROS, Ok(Signal::Typing)),
        (NOW.get() + AGE_MAX_MICROS + 1, Err(Dropped::Age)),
    ] {
        let signal = chat.signal_at(Timestamp::saturating(micros));
        assert_eq!(chat.hear(&signal), expected, "{micros}");
    }
}

#[test]
fn a_signal_that_was_touched_is_not_heard() {
    let mut chat = Heard::new();
    let mut moved = chat.signal();
    moved.created_at = moved.created_at.plus_micros(1);
    assert_eq!(chat.hear(&moved), Err(Dropped::Signature));
    let mut renamed = chat.signal();
    renamed.signal_id = cipher::fresh_id();
    chat.resign(&mut renamed);
    assert_eq!(chat.hear(&renamed), Err(Dropped::Undecryptable));
    let mut claimed = chat.signal();
    claimed.sender_id = UserId::generate();
    chat.resign(&mut claimed);
    assert_eq!(chat.hear(&claimed), Err(Dropped::Sender));
    let mut other_key = chat.signal();
    other_key.key_id = KeyId::generate();
    chat.resign(&mut other_key);
    assert_eq!(chat.hear(&other_key), Err(Dropped::Key(VerificationFailure::NoCopy)));
    let mut large = chat.signal();
    large.data = Blob::from(vec![0; SIGNAL_BYTES_MAX + 1]);
    chat.resign(&mut large);
    assert_eq!(chat.hear(&large), Err(Dropped::TooLarge));
    let stranger = FakeSession::new();
    let mut strange = chat.signal();
    (strange.sender_id, strange.sender_session_id) = (stranger.me.user_id, stranger.me.session_id);
    strange.signature = stranger.me.secrets.sign(&strange.signed_bytes(chat.log.chat_id));
    assert_eq!(chat.hear(&strange), Err(Dropped::Sender));
    let good = chat.signal();
    assert_eq!(chat.hear(&good), Ok(Signal::Typing));
}

#[test]
fn what_a_signal_says_may_be_unknown() {
    let mut chat = Heard::new();
    let mut signal = chat.signal();
    let chat_id = chat.log.chat_id;
    let place =
        cipher::Place { chat_id, signal_id: signal.signal_id, sender: signal.sender_session_id, key_id: signal.key_id };
    let key = chat.ann_chat.outbox.live_key(chat.ann_chat.log.fold(), &LIMITS, NOW).unwrap();
    signal.data = Blob::from(cipher::seal(&key.secret, &place, br#"{"type":"waving"}"#).unwrap());
    chat.resign(&mut signal);
    assert_eq!(chat.hear(&signal), Err(Dropped::Unknown));
}

#[test]
fn no_signal_goes_or_is_heard_under_a_key_of_other_recipients() {
    let mut chat = Heard::new();
    assert!(chat.bob_chat.seal_signal(Signal::Here, &chat.bob.me, &LIMITS, NOW).unwrap().is_none(), "no key yet");
    let before = chat.signal();
    // One more device of Bob's, without a copy yet: the epoch stays.
    let sibling = chat.bob.sibling();
    chat.log.session_in(&sibling);
    chat.log.feed(&mut chat.ann_chat, &chat.ann);
    assert!(
        chat.ann_chat.seal_signal(Signal::Here, &chat.ann.me, &LIMITS, NOW).unwrap().is_none(),
        "a copy is missing"
    );
    chat.log.send(&mut chat.ann_chat, &chat.ann, "two");
    chat.log.feed(&mut chat.ann_chat, &chat.ann);
    assert!(chat.ann_chat.seal_signal(Signal::Here, &chat.ann.me, &LIMITS, NOW).unwrap().is_some());
    // A removal: the older key is another epoch's.
    let carol = FakeSession::new();
    chat.log.add(&chat.ann, &carol);
    chat.log.change(&chat.ann, Change::Remove, &carol);
    chat.log.feed(&mut chat.ann_chat, &chat.ann);
    chat.log.feed(&mut chat.bob_chat, &chat.bob);
    assert!(chat.ann_chat.seal_signal(Signal::Here, &chat.ann.me, &LIMITS, NOW).unwrap().is_none(), "stale");
    assert!(matches!(chat.hear(&before), Err(Dropped::Key(VerificationFailure::KeyEpoch { .. }))));
    let age = LIMITS.age_max_micros;
    chat.log.send(&mut chat.ann_chat, &chat.ann, "three");
    chat.log.feed(&mut chat.ann_chat, &chat.ann);
    assert!(chat.ann_chat.seal_signal(Signal::Here, &chat.ann.me, &LIMITS, NOW).unwrap().is_some());
    let late = NOW.plus_micros(age);
    assert!(chat.ann_chat.seal_signal(Signal::Here, &chat.ann.me, &LIMITS, late).unwrap().is_none(), "too old");
}

#[test]
fn a_signal_uses_up_nothing_that_a_message_is_judged_by() {
    let mut chat = Heard::new();
    // Bob has the key of Ann's next epoch before any message under it.
    let carol = FakeSession::new();
    chat.log.add(&chat.ann, &carol);
    chat.log.change(&chat.ann, Change::Remove, &carol);
    chat.log.feed(&mut chat.ann_chat, &chat.ann);
    chat.log.feed(&mut chat.bob_chat, &chat.bob);
    chat.log.send(&mut chat.ann_chat, &chat.ann, "two");
    chat.log.offer_keys(&mut chat.bob_chat, &chat.bob);
    let signal = chat.signal();
    let before = rmp_serde::to_vec_named(&chat.bob_chat.keys).unwrap();
    assert_eq!(chat.hear(&signal), Ok(Signal::Typing));
    assert_eq!(rmp_serde::to_vec_named(&chat.bob_chat.keys).unwrap(), before, "the keys are as they were");
}

#[test]
fn the_memory_of_signals_is_bounded_and_empties_with_time() {
    let mut chat = Heard::new();
    for _ in 0..HEARD_MAX {
        let signal = chat.signal();
        assert_eq!(chat.hear(&signal), Ok(Signal::Typing));
    }
    let above = chat.signal();
    assert_eq!(chat.hear(&above), Err(Dropped::Repeat));
    let later = NOW.plus_micros(AGE_MAX_MICROS + 1);
    let signal = chat.signal_at(later);
    assert_eq!(chat.bob_chat.hear(&signal, &chat.bob.me, later), Ok(Signal::Typing));
}
