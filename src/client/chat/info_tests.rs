//! What a client takes of what a server shows, honest or not.

use super::fake::{FakeChat, FakeSession};
use super::info::InfoJudged;
use super::state::Chat;
use crate::client::failure::VerificationFailure;
use crate::crypto::info::{InfoPlace, PlainInfo, seal};
use crate::crypto::{Secret, wrap};
use crate::protocol::frame::ChatInfoChanged;
use crate::protocol::ids::{InfoKeyId, Revision, Seq};
use crate::protocol::info::SignedInfo;
use crate::protocol::keys::InfoKeyWrap;
use crate::protocol::membership::Change;

/// An info key, and when it was made.
struct Key {
    id: InfoKeyId,
    secret: Secret,
    seq: Seq,
}

impl Key {
    fn new(log: &FakeChat) -> Self {
        Self { id: InfoKeyId::generate(), secret: Secret::generate(), seq: log.head().seq }
    }

    fn to(&self, log: &FakeChat, from: &FakeSession, to: &FakeSession) -> InfoKeyWrap {
        let to = (to.me.session_id, &to.me.secrets.public_key());
        wrap::info_key(&self.secret, log.chat_id, self.id, (from.me.session_id, &from.me.secrets), to).unwrap()
    }

    fn named(&self, log: &FakeChat, by: &FakeSession, revision: u64, name: &str) -> SignedInfo {
        let revision = Revision::saturating(revision);
        let place = InfoPlace { chat_id: log.chat_id, revision, key_id: self.id, key_seq: self.seq };
        let plain = PlainInfo { name: Some(name.to_owned()), description: None };
        seal(&self.secret, place, &plain, (by.me.session_id, &by.me.secrets)).unwrap()
    }
}

/// Ada's chat with Bob and Cyd, as Bob has it.
struct Scene {
    ada: FakeSession,
    bob: FakeSession,
    cyd: FakeSession,
    log: FakeChat,
    chat: Chat,
}

impl Scene {
    fn new() -> Self {
        let [ada, bob, cyd] = [(); 3].map(|()| FakeSession::new());
        let mut log = FakeChat::create(&ada);
        log.add(&ada, &bob);
        log.add(&ada, &cyd);
        let chat = log.of(&bob);
        Self { ada, bob, cyd, log, chat }
    }

    fn show(&mut self, info: Option<&SignedInfo>, info_key: Option<&InfoKeyWrap>) -> InfoJudged {
        let (chat_id, last_seq) = (self.log.chat_id, self.log.head().seq);
        let shown = ChatInfoChanged { chat_id, last_seq, name: None, info: info.cloned(), info_key: info_key.cloned() };
        self.chat.show_info(shown);
        self.chat.judge_info(&self.bob.me)
    }

    fn title(&self) -> Option<&str> {
        self.chat.title.as_deref()
    }

    fn read(&mut self) {
        self.log.feed(&mut self.chat, &self.bob);
    }
}

#[test]
fn p7_a_name_is_taken_once_and_never_an_older_or_another_one_of_its_revision() {
    let mut scene = Scene::new();
    let key = Key::new(&scene.log);
    let wrap = key.to(&scene.log, &scene.ada, &scene.bob);
    let [first, second] = [(1, "one"), (2, "two")].map(|(n, name)| key.named(&scene.log, &scene.ada, n, name));
    let judged = scene.show(Some(&first), Some(&wrap));
    assert!(judged.has_changed && judged.failure.is_none(), "{judged:?}");
    assert_eq!(scene.title(), Some("one"));
    assert!(scene.show(Some(&second), None).has_changed);
    let old = scene.show(Some(&first), None);
    assert!(!old.has_changed && old.failure.is_none(), "an answer that was overtaken is no lie: {old:?}");
    let other = key.named(&scene.log, &scene.ada, 2, "another two");
    let moved = Key { id: key.id, secret: key.secret.clone(), seq: key.seq.next() };
    let moved = moved.named(&scene.log, &scene.ada, 3, "as if made later");
    let mut unsigned = key.named(&scene.log, &scene.ada, 3, "three");
    unsigned.signature.0[5] ^= 1;
    let stranger = key.named(&scene.log, &FakeSession::new(), 3, "by nobody");
    for lie in [other, moved, unsigned, stranger] {
        assert_eq!(scene.show(Some(&lie), None).failure, Some(VerificationFailure::Info));
        assert_eq!((scene.title(), scene.chat.info.revision.get()), (Some("two"), 2));
    }
    let good = key.named(&scene.log, &scene.ada, 3, "three");
    assert!(scene.show(Some(&good), None).failure.is_none());
    assert_eq!(scene.title(), Some("three"));
}

#[test]
fn p7_a_wrap_is_taken_of_a_present_recipient_alone() {
    let mut scene = Scene::new();
    let key = Key::new(&scene.log);
    let info = key.named(&scene.log, &scene.ada, 1, "one");
    let ghost = FakeSession::new();
    let mut swapped = key.to(&scene.log, &scene.ada, &scene.bob);
    swapped.key.0[40] ^= 1;
    let mut claimed = key.to(&scene.log, &scene.cyd, &scene.bob);
    claimed.wrapped_by_session_id = scene.ada.me.session_id;
    // By whoever can make one, in the name of another.
    let to = (scene.bob.me.session_id, &scene.bob.me.secrets.public_key());
    let in_the_name = (scene.ada.me.session_id, &ghost.me.secrets);
    let forged = wrap::info_key(&key.secret, scene.log.chat_id, key.id, in_the_name, to).unwrap();
    let for_cyd = key.to(&scene.log, &scene.ada, &scene.cyd);
    for (wrap, maker) in [
        (key.to(&scene.log, &ghost, &scene.bob), &ghost),
        (swapped, &scene.ada),
        (forged, &scene.ada),
        (claimed, &scene.ada),
        (for_cyd, &scene.ada),
    ] {
        let maker = maker.me.session_id;
        let shown = ChatInfoChanged {
            chat_id: scene.log.chat_id,
            last_seq: scene.log.head().seq,
            name: None,
            info: Some(info.clone()),
            info_key: Some(wrap),
        };
        scene.chat.show_info(shown.clone());
        let judged = scene.chat.judge_info(&scene.bob.me);
        assert_eq!((judged.failure, judged.must_ask), (Some(VerificationFailure::InfoKey(maker)), true));
        assert!(scene.title().is_none() && !scene.chat.info.is_readable);
        scene.chat.show_info(shown);
        assert!(!scene.chat.judge_info(&scene.bob.me).must_ask, "asked once for each");
    }
    let good = key.to(&scene.log, &scene.cyd, &scene.bob);
    assert!(scene.show(Some(&info), Some(&good)).failure.is_none());
    assert_eq!(scene.title(), Some("one"));
}

#[test]
fn p5_who_has_left_brings_no_key_and_the_next_save_needs_another() {
    let mut scene = Scene::new();
    let key = Key::new(&scene.log);
    let wrap = key.to(&scene.log, &scene.ada, &scene.bob);
    let first = key.named(&scene.log, &scene.ada, 1, "one");
    scene.show(Some(&first), Some(&wrap));
    assert!(!scene.chat.info.is_key_stale());
    scene.log.change(&scene.ada, Change::Remove, &scene.cyd);
    scene.read();
    assert!(scene.chat.info.is_key_stale(), "Cyd could open it");
    let renewed = Key::new(&scene.log);
    let second = renewed.named(&scene.log, &scene.ada, 2, "without Cyd");
    let wrap = renewed.to(&scene.log, &scene.ada, &scene.bob);
    scene.show(Some(&second), Some(&wrap));
    assert_eq!((scene.title(), scene.chat.info.is_key_stale()), (Some("without Cyd"), false));
    assert!(!scene.chat.info_keys.contains_key(&key.id), "the current key alone is kept");
    // Cyd, together with the server: a name under the old key, with a wrap of it that Cyd makes.
    let late = key.named(&scene.log, &scene.cyd, 3, "Cyd was here");
    let by_cyd = key.to(&scene.log, &scene.cyd, &scene.bob);
    let judged = scene.show(Some(&late), Some(&by_cyd));
    assert!(judged.must_ask && !judged.has_changed, "{judged:?}");
    assert_eq!(scene.title(), Some("without Cyd"));
}

#[test]
fn p3_what_the_server_shows_waits_for_the_log() {
    let mut scene = Scene::new();
    let dan = FakeSession::new();
    scene.log.add(&scene.ada, &dan);
    let key = Key::new(&scene.log);
    let wrap = key.to(&scene.log, &dan, &scene.bob);
    let info = key.named(&scene.log, &dan, 1, "Dan's");
    let judged = scene.show(Some(&info), Some(&wrap));
    assert!(!judged.is_news && judged.failure.is_none(), "Dan is not known yet: {judged:?}");
    scene.read();
    assert!(scene.chat.judge_info(&scene.bob.me).has_changed);
    assert_eq!(scene.title(), Some("Dan's"));
}
