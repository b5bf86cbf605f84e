use ed25519_dalek::Signer;

use super::finding::{Kind, Place, Promise, Refused};
use super::log::LogCheck;
use super::print;
use super::report::Report;
use super::user::UserCheck;
use crate::protocol::binary::{ExchangeKey, Hash, IdentityKey, Signature, SigningKey};
use crate::protocol::certificate::{Certificate, SignedCertificate, UserEvent, chain_start};
use crate::protocol::envelope::{Envelope, MessageKind, Seen};
use crate::protocol::fold::ChatFold;
use crate::protocol::frame::SessionState;
use crate::protocol::ids::{
    ChangeNo, ChatId, Counter, Epoch, KeyId, MessageId, Place as ChainPlace, Revision, Seq, SessionId, Timestamp,
    UserId,
};
use crate::protocol::keys::{Announcement, SignedAnnouncement};
use crate::protocol::log::{EntryBody, log_start, next_entry};
use crate::protocol::membership::{
    Actor, Change, MembershipChange, SignedChange, Target, chain_start as changes_start,
};
use crate::store::inspect::{
    ChainRow, ChatRow, CopyRow, EventFacts, KeyRow, LogRow, MessageFacts, RefusalRow, RowFacts, StoredKeyRow,
};

/// A user with one session, alone in a chat, and what they write there.
struct Writer {
    chat_id: ChatId,
    user_id: UserId,
    session_id: SessionId,
    key_id: KeyId,
    identity: ed25519_dalek::SigningKey,
    signing: ed25519_dalek::SigningKey,
    fold: Option<ChatFold>,
    rows: Vec<LogRow>,
    counter: u64,
}

fn signature(key: &ed25519_dalek::SigningKey, bytes: &[u8]) -> Signature {
    Signature(key.sign(bytes).to_bytes())
}

fn base_point() -> ExchangeKey {
    let mut base = [0; 32];
    base[0] = 9;
    ExchangeKey(base)
}

impl Writer {
    fn new() -> Self {
        let [identity, signing] = [1, 2].map(|seed| ed25519_dalek::SigningKey::from_bytes(&[seed; 32]));
        let mut writer = Self {
            chat_id: ChatId::generate(),
            user_id: UserId::generate(),
            session_id: SessionId::generate(),
            key_id: KeyId::generate(),
            identity,
            signing,
            fold: None,
            rows: Vec::new(),
            counter: 0,
        };
        let change = writer.creation();
        writer.event("membership", Some((1, "create")), EntryBody::Membership(change));
        let certificate = writer.certificate();
        writer.event("session_in", None, EntryBody::SessionIn(certificate));
        writer
    }

    fn identity_key(&self) -> IdentityKey {
        IdentityKey(self.identity.verifying_key().to_bytes())
    }

    fn creation(&self) -> SignedChange {
        let (user_id, identity_key) = (self.user_id, self.identity_key());
        let change = MembershipChange {
            n: ChangeNo::saturating(1),
            previous: changes_start(self.chat_id),
            seen: Seen { seq: Seq::default(), log_hash: log_start(self.chat_id) },
            actor: Actor { user_id, session_id: self.session_id, identity_key },
            change: Change::Create,
            target: Target { user_id, identity_key },
        };
        let signature = signature(&self.signing, &change.signed_bytes(self.chat_id));
        SignedChange { change, signature }
    }

    fn certificate(&self) -> SignedCertificate {
        let certificate = Certificate {
            user_id: self.user_id,
            place: ChainPlace::saturating(1),
            previous: chain_start(self.user_id),
            session_id: self.session_id,
            public_key: base_point(),
            signing_public_key: SigningKey(self.signing.verifying_key().to_bytes()),
            created_at: Timestamp::saturating(1),
            expired_at: Timestamp::saturating(1_000_000),
        };
        let signature = signature(&self.identity, &certificate.signed_bytes());
        SignedCertificate { certificate, signature }
    }

    fn append(&mut self, body: EntryBody, facts: RowFacts) {
        let last = self.rows.last().map_or((Seq::default(), log_start(self.chat_id)), |row| (row.seq, row.log_hash));
        let at = Timestamp::saturating(100 + last.0.get());
        let entry = next_entry(self.chat_id, last.0, &last.1, at, body);
        match &mut self.fold {
            Some(fold) => fold.apply(entry.seq, entry.created_at, &entry.body).unwrap(),
            None => self.fold = Some(ChatFold::begin(self.chat_id, &entry.body).unwrap()),
        }
        let (seq, created_at, log_hash) = (entry.seq, entry.created_at, entry.log_hash);
        self.rows.push(LogRow { seq, created_at, log_hash, body: Some(entry.body), seen_there: None, facts });
    }

    fn event(&mut self, kind: &str, change: Option<(i64, &str)>, body: EntryBody) {
        let chained = match &body {
            EntryBody::SessionIn(signed) => Some(signed.chain_hash()),
            _ => None,
        };
        let facts = EventFacts {
            kind: kind.to_owned(),
            change_no: change.map(|(number, _)| number),
            change: change.map(|(_, word)| word.to_owned()),
            chained,
            is_removed: false,
        };
        self.append(body, RowFacts::Event(facts));
    }

    fn say(&mut self, seen: u64) {
        self.counter += 1;
        let mut envelope = Envelope {
            kind: MessageKind::Message,
            message_id: MessageId::generate(),
            revision: Revision::default(),
            sender_id: self.user_id,
            sender_session_id: self.session_id,
            key_id: Some(self.key_id),
            counter: Counter::saturating(self.counter),
            roster_hash: self.fold.as_ref().unwrap().roster_hash(),
            seen: Seen { seq: Seq::saturating(seen), log_hash: Hash([0; 32]) },
            attachments: Vec::new(),
            data: None,
            purged: Some(Hash([4; 32])),
            signature: Signature([0; 64]),
        };
        envelope.signature = signature(&self.signing, &envelope.signed_bytes(self.chat_id));
        let facts = MessageFacts { has_data: true, is_its_hash: true, is_superseded: false, before: None, first: None };
        self.append(EntryBody::Message(envelope), RowFacts::Message(facts));
    }

    fn key(&self) -> StoredKeyRow {
        let announcement = Announcement {
            key_id: self.key_id,
            session_id: self.session_id,
            epoch: Epoch::saturating(1),
            commitment: Hash([5; 32]),
            previous: None,
        };
        let signature = signature(&self.signing, &announcement.signed_bytes(self.chat_id));
        StoredKeyRow {
            key: KeyRow {
                key_id: self.key_id,
                session_id: self.session_id,
                epoch: Epoch::saturating(1),
                last_counter: Counter::saturating(self.counter),
                first_seq: (self.counter > 0).then(|| Seq::saturating(3)),
                messages_with_data: self.counter,
            },
            commitment: Hash([5; 32]),
            announcement: Some(SignedAnnouncement { announcement, signature }),
            covered_version: Some(Seq::saturating(2)),
            is_replaced: false,
            is_first_there: (self.counter > 0).then_some(true),
            archived: None,
            copies: vec![CopyRow {
                session_id: self.session_id,
                user_id: self.user_id,
                state: SessionState::Live,
                sender_session_id: self.session_id,
            }],
            refusals: Vec::new(),
        }
    }

    fn chat(&self) -> ChatRow {
        let (fold, last) = (self.fold.as_ref().unwrap(), self.rows.last().unwrap());
        ChatRow {
            owner_id: self.user_id,
            last_seq: last.seq,
            log_hash: last.log_hash,
            epoch: fold.epoch(),
            roster_version: fold.roster_version(),
            roster_hash: fold.roster_hash(),
            is_shared: false,
            shared_since: None,
            change_no: fold.membership().head,
            change_hash: fold.membership().hash,
            generation: None,
            is_outdated: false,
            next_expiry: Some(Timestamp::saturating(1_000_000)),
        }
    }

    /// Judges rows and a key.
    fn judge(&self, rows: &[LogRow], key: &StoredKeyRow) -> Report {
        let (mut check, mut report) = (LogCheck::new(self.chat_id), Report::new(10));
        check.learn(vec![key.key.clone()]);
        for row in rows {
            check.take(row, &mut report);
        }
        check.check_chat(&self.chat(), &mut report);
        check.check_key(&self.chat(), key, &mut report);
        report
    }

    /// The kinds that are found once the key was changed.
    fn of_key(&self, change: impl FnOnce(&mut StoredKeyRow)) -> Vec<Kind> {
        let mut key = self.key();
        change(&mut key);
        self.judge(&self.rows, &key).violations().keys().copied().collect()
    }
}

fn talk() -> Writer {
    let mut writer = Writer::new();
    for seen in [2, 3, 4] {
        writer.say(seen);
    }
    writer
}

#[test]
fn p3_a_good_log_is_good_and_a_gap_or_double_is_named_once() {
    let writer = talk();
    let good = writer.judge(&writer.rows, &writer.key());
    assert!(good.is_good(), "{:?}", good.listed());
    assert_eq!((good.counts.entries, good.counts.messages, good.counts.current_keys), (5, 3, 1));
    let mut gap = writer.rows.clone();
    gap.remove(3);
    let report = writer.judge(&gap, &writer.key());
    let found: Vec<Kind> = report.violations().keys().copied().collect();
    assert_eq!(found, [Kind::SeqGap, Kind::CounterGap, Kind::DataCount]);
    let mut double = writer.rows.clone();
    double.insert(4, writer.rows[3].clone());
    let report = writer.judge(&double, &writer.key());
    assert_eq!(
        report.violations().iter().map(|(kind, count)| (*kind, *count)).collect::<Vec<_>>(),
        [(Kind::SeqDouble, 1)]
    );
}

#[test]
fn p3_a_log_without_an_entry_is_not_founded() {
    let writer = talk();
    let mut chat = writer.chat();
    (chat.last_seq, chat.log_hash) = (Seq::default(), log_start(writer.chat_id));
    let (check, mut report) = (LogCheck::new(writer.chat_id), Report::new(10));
    check.check_chat(&chat, &mut report);
    assert_eq!(report.violations().keys().copied().collect::<Vec<_>>(), [Kind::NotFounded]);
}

#[test]
fn p4_who_must_have_a_copy_and_who_may_lack_one() {
    let writer = talk();
    let lacks = |change: fn(&mut StoredKeyRow)| {
        writer.of_key(|key| {
            key.copies.clear();
            change(key);
        })
    };
    let missing = [Kind::CopyMissing];
    assert_eq!(lacks(|_| {}), missing, "the row says that all are covered");
    assert_eq!(lacks(|key| key.covered_version = None), missing, "there when the key was used");
    assert_eq!(lacks(|key| (key.covered_version, key.is_replaced) = (None, true)), missing, "there is data to read");
    let refused = |session_id| RefusalRow { session_id, has_effect: true, signed: None };
    let mut key = writer.key();
    (key.covered_version, key.refusals) = (None, vec![refused(writer.session_id)]);
    key.copies.clear();
    let report = writer.judge(&writer.rows, &key);
    let found: Vec<Kind> = report.violations().keys().copied().collect();
    assert_eq!(found, [Kind::CopyRefusal], "voided by a refusal, though that is not signed");
    assert_eq!(report.counts.incomplete_keys, 1);
    // A key that nothing was sent under yet waits for copies.
    let fresh = Writer::new();
    let waits = |key: &mut StoredKeyRow| {
        key.copies.clear();
        key.covered_version = None;
    };
    assert!(fresh.of_key(waits).is_empty());
    assert_eq!(fresh.of_key(|key| key.copies.clear()), missing);
}

#[test]
fn p4_nobody_else_has_a_copy() {
    let writer = talk();
    let extra = |state, is_member: bool, epoch: u64| {
        writer.of_key(|key| {
            let user_id = if is_member { writer.user_id } else { UserId::generate() };
            let (session_id, sender_session_id) = (SessionId::generate(), writer.session_id);
            key.copies.push(CopyRow { session_id, user_id, state, sender_session_id });
            key.key.epoch = Epoch::saturating(epoch);
        })
    };
    assert_eq!(extra(SessionState::Expired, true, 1), [Kind::CopyExtra]);
    assert_eq!(extra(SessionState::Expired, false, 1), [Kind::CopyExtra]);
    assert!(!extra(SessionState::Expired, true, 9).contains(&Kind::CopyExtra), "it was a recipient once");
    assert!(extra(SessionState::Expired, false, 9).contains(&Kind::CopyExtra));
    assert!(extra(SessionState::Pending, true, 9).contains(&Kind::CopyExtra));
}

#[test]
fn what_the_server_passes_on_is_refused_by_receivers_and_no_violation() {
    let mut writer = Writer::new();
    for seen in [3 - 1, 3, 2] {
        writer.say(seen);
    }
    let mut rows = writer.rows.clone();
    rows[3].seen_there = Some(Hash([8; 32]));
    let Some(EntryBody::Message(envelope)) = &mut rows[4].body else { panic!() };
    envelope.signature = Signature([7; 64]);
    let digest = rows[4].body.as_ref().unwrap().digest(writer.chat_id);
    rows[4].log_hash =
        crate::protocol::log::log_hash(writer.chat_id, &rows[3].log_hash, rows[4].seq, rows[4].created_at, &digest);
    writer.rows = rows.clone();
    let report = writer.judge(&rows, &writer.key());
    assert!(report.is_good(), "{:?}", report.listed());
    let refused: Vec<(Refused, u64)> =
        report.refused_counts().iter().map(|(reason, count)| (*reason, *count)).collect();
    assert_eq!(refused, [(Refused::Signature, 1), (Refused::Fork, 1), (Refused::SeenBack, 1)]);
}

#[test]
fn p7_the_chain_of_an_ended_account_is_followed_without_its_key() {
    let writer = Writer::new();
    let signed = writer.certificate();
    let row = |place: u64| ChainRow {
        place: ChainPlace::saturating(place),
        kind: "certificate".to_owned(),
        session_id: Some(writer.session_id),
        event: Some(UserEvent::Certificate(signed.clone())),
        hash: signed.chain_hash(),
    };
    let (mut check, mut report) = (UserCheck::new(writer.user_id, None), Report::new(10));
    check.take(&row(1), &mut report);
    assert!(report.is_good(), "{:?}", report.listed());
    check.end(None, &[], Timestamp::default(), &mut report);
    assert_eq!(report.violations().keys().copied().collect::<Vec<_>>(), [Kind::AccountEnd], "it did not end");
    check.take(&row(1), &mut report);
    assert!(report.violations().contains_key(&Kind::ChainEntry));
}

#[test]
fn every_kind_has_a_promise_that_is_shown_and_a_word_of_its_own() {
    let mut report = Report::new(3);
    for kind in Kind::ALL {
        report.violation(*kind, Place::user(UserId::generate()), "this", "that");
    }
    let shown: u64 = Promise::ALL.iter().map(|promise| report.violations_of(*promise)).sum();
    assert_eq!(shown, Kind::ALL.len() as u64);
    let words: std::collections::BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words.len(), Kind::ALL.len());
    let table = print::table(&report);
    assert!(table.ends_with(&format!("  and {} more\n", Kind::ALL.len() - 3)), "{table}");
    let json: serde_json::Value = serde_json::from_str(&print::json(&report).unwrap()).unwrap();
    assert_eq!(json["violations"].as_array().unwrap().len(), 3);
    assert_eq!(json["violation_count"], Kind::ALL.len());
    assert_eq!(json["is_good"], false);
}
