//! Checks a history against the promises: what was lost, doubled, disordered, missing, unreadable or leaked.
//!
//! Pure: it sees records and nothing else, and their order matters only where it says so (the entries given to
//! one session in one chat are in the order given). A session is a recipient of an entry when `member` is below
//! and `removed`, if there is one, not below its seq. An edit or deletion is a message of its own here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sealcast::protocol::ids::{ChatId, SessionId};

use crate::history::{Name, Record};

/// Findings kept in words, at most.
const EXAMPLES_MAX: usize = 20;

/// What a history shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Messages that were acknowledged.
    pub(crate) acked: u64,
    /// Messages given to sessions, opened and verified; the sender's own session counts as one.
    pub(crate) delivered: u64,
    /// Acknowledged messages that are not in the log as every session sees it that was a recipient.
    pub(crate) lost: u64,
    /// Messages at more than one seq, and entries given to a session again.
    pub(crate) duplicated: u64,
    /// Entries given after a later one, and messages that stand before one that was acknowledged before they began.
    pub(crate) out_of_order: u64,
    /// Entries of a recipient's stretch of the log that it was not given.
    pub(crate) gaps: u64,
    /// Entries that a recipient could not open or verify.
    pub(crate) undecryptable: u64,
    /// Entries that a session was given, or could open, after its removal.
    pub(crate) read_after_removal: u64,
    /// Facts on which two sessions differ.
    pub(crate) disagreements: u64,
    /// Messages that were refused for good and are in the log.
    pub(crate) refused_yet_stored: u64,
    /// Sessions that are members at the end and did not read to it.
    pub(crate) unfinished: u64,
    /// Entries that a removed session tried to open.
    pub(crate) peeks: u64,
    /// The first findings in words.
    pub(crate) examples: Vec<String>,
}

impl Verdict {
    /// The six counts by their names.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 6] {
        [
            ("lost", self.lost),
            ("duplicated", self.duplicated),
            ("out_of_order", self.out_of_order),
            ("gaps", self.gaps),
            ("undecryptable", self.undecryptable),
            ("read_after_removal", self.read_after_removal),
        ]
    }

    /// Whether nothing at all is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        let rest = self.disagreements + self.refused_yet_stored + self.unfinished;
        rest == 0 && self.counts().iter().all(|(_, count)| *count == 0)
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

/// An entry as it was given to a session.
#[derive(Debug, Clone, Copy)]
struct Given {
    seq: u64,
    message: Option<Name>,
    is_open: bool,
}

/// One session's view of one chat.
#[derive(Debug, Default)]
struct View {
    member: Option<u64>,
    removed: Option<u64>,
    last: Option<u64>,
    given: Vec<Given>,
    peeks: Vec<(u64, bool)>,
}

impl View {
    fn is_recipient(&self, seq: u64) -> bool {
        self.member.is_some_and(|member| member < seq) && self.removed.is_none_or(|removed| seq <= removed)
    }

    fn highest(&self) -> u64 {
        self.given.iter().map(|given| given.seq).max().unwrap_or(0)
    }
}

/// One message's fate.
#[derive(Debug, Default)]
struct Fate {
    sent: Option<f64>,
    acked: Option<(f64, u64)>,
    is_refused: bool,
    places: BTreeSet<u64>,
}

/// Everything about one chat.
#[derive(Debug, Default)]
struct Chat {
    views: BTreeMap<SessionId, View>,
    fates: HashMap<Name, Fate>,
}

/// Checks a history.
pub(crate) fn check<'a>(records: impl IntoIterator<Item = &'a Record>) -> Verdict {
    let mut verdict = Verdict::default();
    let mut chats: BTreeMap<ChatId, Chat> = BTreeMap::new();
    for record in records {
        gather(&mut chats, record, &mut verdict);
    }
    for (chat_id, chat) in &chats {
        check_views(*chat_id, chat, &mut verdict);
        check_agreement(*chat_id, chat, &mut verdict);
        check_fates(*chat_id, chat, &mut verdict);
        check_real_time(*chat_id, chat, &mut verdict);
    }
    verdict
}

fn gather(chats: &mut BTreeMap<ChatId, Chat>, record: &Record, verdict: &mut Verdict) {
    let fate = |chats: &mut BTreeMap<ChatId, Chat>, c: ChatId, m: Name, change: &mut dyn FnMut(&mut Fate)| {
        change(chats.entry(c).or_default().fates.entry(m).or_default());
    };
    match record {
        Record::Send { t, c, m, .. } => fate(chats, *c, *m, &mut |fate| {
            fate.sent = Some(fate.sent.map_or(*t, |sent| sent.min(*t)));
        }),
        Record::Ok { t, c, m, seq, .. } => fate(chats, *c, *m, &mut |fate| {
            fate.places.insert(*seq);
            if fate.acked.is_none_or(|(first, _)| *t < first) {
                fate.acked = Some((*t, *seq));
            }
        }),
        Record::Err { c, m, .. } => fate(chats, *c, *m, &mut |fate| fate.is_refused = true),
        Record::Recv { s, c, m, seq, open, .. } => {
            if let Some(m) = m {
                fate(chats, *c, *m, &mut |fate| {
                    fate.places.insert(*seq);
                });
            }
            let given = Given { seq: *seq, message: *m, is_open: *open };
            view(chats, *c, *s).given.push(given);
        }
        Record::Member { s, c, seq } => settle(&mut view(chats, *c, *s).member, *seq, *c, verdict),
        Record::Removed { s, c, seq } => settle(&mut view(chats, *c, *s).removed, *seq, *c, verdict),
        Record::Final { s, c, seq } => settle(&mut view(chats, *c, *s).last, *seq, *c, verdict),
        Record::Peek { s, c, seq, open } => view(chats, *c, *s).peeks.push((*seq, *open)),
        Record::Fault { .. } => {}
    }
}

fn view(chats: &mut BTreeMap<ChatId, Chat>, chat_id: ChatId, session_id: SessionId) -> &mut View {
    chats.entry(chat_id).or_default().views.entry(session_id).or_default()
}

/// Takes a fact that must be the same whenever it is said.
fn settle(fact: &mut Option<u64>, seq: u64, chat_id: ChatId, verdict: &mut Verdict) {
    if let Some(known) = *fact
        && known != seq
    {
        verdict.disagreements += 1;
        verdict.note(|| format!("chat {chat_id}: one fact about a member stands at seq {known} and at {seq}"));
    }
    fact.get_or_insert(seq);
}

/// What one session was given: order, repeats, readability, removal, gaps.
fn check_views(chat_id: ChatId, chat: &Chat, verdict: &mut Verdict) {
    let head = head(chat);
    for (session_id, view) in &chat.views {
        let place = |seq: u64| format!("chat {chat_id}, session {session_id}, seq {seq}");
        let (mut seen, mut highest) = (HashSet::new(), 0);
        for given in &view.given {
            let seq = given.seq;
            if given.is_open && given.message.is_some() {
                verdict.delivered += 1;
            }
            if !seen.insert(seq) {
                verdict.duplicated += 1;
                verdict.note(|| format!("{}: given again", place(seq)));
            } else if seq < highest {
                verdict.out_of_order += 1;
                verdict.note(|| format!("{}: given after seq {highest}", place(seq)));
            }
            highest = highest.max(seq);
            if !given.is_open && view.is_recipient(seq) {
                verdict.undecryptable += 1;
                verdict.note(|| format!("{}: does not open", place(seq)));
            }
            if view.removed.is_some_and(|removed| seq > removed) {
                verdict.read_after_removal += 1;
                verdict.note(|| format!("{}: given after the removal", place(seq)));
            }
        }
        for (seq, is_open) in &view.peeks {
            verdict.peeks += 1;
            if *is_open && view.removed.is_some_and(|removed| *seq > removed) {
                verdict.read_after_removal += 1;
                verdict.note(|| format!("{}: opened after the removal", place(*seq)));
            }
        }
        if view.removed.is_none() && view.member.is_some() && view.last.is_none() {
            verdict.unfinished += 1;
            verdict.note(|| format!("{}: a member did not read to the end", place(highest)));
        }
        let Some(begin) = view.member.or_else(|| view.given.iter().map(|given| given.seq).min()) else { continue };
        for seq in begin + 1..=obliged_to(view, head) {
            if !seen.contains(&seq) {
                verdict.gaps += 1;
                verdict.note(|| format!("{}: missing", place(seq)));
            }
        }
    }
}

/// The end of the chat's log, once somebody is said to have read it: the highest seq that anybody knows of.
fn head(chat: &Chat) -> Option<u64> {
    let last = chat.views.values().filter_map(|view| view.last).max()?;
    let given = chat.views.values().map(View::highest).max().unwrap_or(0);
    let acked = chat.fates.values().filter_map(|fate| fate.acked).map(|(_, seq)| seq).max().unwrap_or(0);
    Some(last.max(given).max(acked))
}

/// Up to where a session must have been given everything: to the chat's end if it is a member at the end, else as
/// far as it came. Who was removed while away need not be given what came between.
fn obliged_to(view: &View, head: Option<u64>) -> u64 {
    match (view.removed, head) {
        (Some(removed), _) => view.highest().min(removed),
        (None, Some(head)) if view.member.is_some() => head,
        (None, _) => view.highest(),
    }
}

/// Two sessions must be given the same message at the same seq.
fn check_agreement(chat_id: ChatId, chat: &Chat, verdict: &mut Verdict) {
    let mut log: HashMap<u64, Option<Name>> = HashMap::new();
    for (session_id, view) in &chat.views {
        for given in view.given.iter().filter(|given| given.is_open) {
            let first = *log.entry(given.seq).or_insert(given.message);
            if first != given.message {
                verdict.disagreements += 1;
                let seq = given.seq;
                verdict.note(|| format!("chat {chat_id}, seq {seq}: session {session_id} was given another entry"));
            }
        }
    }
}

/// What became of each message.
fn check_fates(chat_id: ChatId, chat: &Chat, verdict: &mut Verdict) {
    let head = head(chat);
    let logs: Vec<(&View, HashMap<u64, Given>)> =
        chat.views.values().map(|view| (view, view.given.iter().map(|given| (given.seq, *given)).collect())).collect();
    for (name, fate) in &chat.fates {
        let repeats = u64::try_from(fate.places.len().saturating_sub(1)).unwrap_or(u64::MAX);
        if repeats > 0 {
            verdict.duplicated += repeats;
            verdict.note(|| format!("chat {chat_id}: message {name} at {:?}", fate.places));
        }
        if fate.is_refused && !fate.places.is_empty() {
            verdict.refused_yet_stored += 1;
            verdict.note(|| format!("chat {chat_id}: message {name} was refused and is in the log"));
        }
        let Some((_, seq)) = fate.acked else { continue };
        verdict.acked += 1;
        let lacks = |(view, log): &&(&View, HashMap<u64, Given>)| {
            let is_due = view.is_recipient(seq) && seq <= obliged_to(view, head);
            // An entry that came and did not open is counted as that, not as lost.
            let is_there = log.get(&seq).is_some_and(|given| !given.is_open || given.message == Some(*name));
            is_due && !is_there
        };
        let lacking = logs.iter().filter(lacks).count();
        let is_nowhere = head.is_some() && !logs.iter().any(|(_, log)| log.contains_key(&seq));
        if lacking > 0 || is_nowhere {
            verdict.lost += 1;
            verdict.note(|| format!("chat {chat_id}, seq {seq}: message {name} is missing at {lacking} recipients"));
        }
    }
}

/// A message that was acknowledged before another was sent stands before it.
fn check_real_time(chat_id: ChatId, chat: &Chat, verdict: &mut Verdict) {
    let mut acked: Vec<(f64, u64)> = chat.fates.values().filter_map(|fate| fate.acked).collect();
    let mut sent: Vec<(f64, u64, Name)> =
        chat.fates.iter().filter_map(|(name, fate)| Some((fate.sent?, *fate.places.first()?, *name))).collect();
    acked.sort_by(|one, other| one.0.total_cmp(&other.0));
    sent.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut acked, mut highest) = (acked.into_iter().peekable(), 0);
    for (at, seq, name) in sent {
        while let Some((_, before)) = acked.next_if(|(t, _)| *t < at) {
            highest = highest.max(before);
        }
        if seq < highest {
            verdict.out_of_order += 1;
            verdict.note(|| {
                format!("chat {chat_id}: message {name} at {seq} was sent after seq {highest} was acknowledged")
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use sealcast::protocol::ids::MessageId;

    use super::*;

    /// A chat of three sessions and the history of a good run of it.
    struct Run {
        c: ChatId,
        s: [SessionId; 3],
        m: Vec<Name>,
        records: Vec<Record>,
    }

    /// Seven messages, of which the third is an edit of the first and the sixth a deletion of the second.
    fn run_of_names() -> Vec<Name> {
        let mut names: Vec<Name> = (0..7).map(|_| Name::first(MessageId::generate())).collect();
        names[2] = Name { revision: 1, ..names[0] };
        names[5] = Name { revision: 1, ..names[1] };
        names
    }

    impl Run {
        /// Entries 1 to 4 make the chat and its recipients, 5 to 9 are messages, 10 removes the last session,
        /// 11 and 12 are messages that it must not read.
        fn good() -> Self {
            let s = [SessionId::generate(), SessionId::generate(), SessionId::generate()];
            let mut run = Self { c: ChatId::generate(), s, m: run_of_names(), records: Vec::new() };
            let c = run.c;
            for (index, s) in s.into_iter().enumerate() {
                run.records.push(Record::Member { s, c, seq: 2 + index as u64 });
            }
            for (seq, t) in (3..=12).zip(1..) {
                let (t, m) = (f64::from(t) * 10.0, run.message_at(seq));
                let sender = s[usize::try_from(seq).unwrap() % 2];
                if let Some(m) = m {
                    run.records.push(Record::Send { t, s: sender, c, m });
                    run.records.push(Record::Ok { t: t + 3.0, s: sender, c, m, seq });
                }
                for (index, s) in s.into_iter().enumerate() {
                    let is_recipient = seq > 2 + index as u64 && (index < 2 || seq <= 10);
                    if is_recipient {
                        run.records.push(Record::Recv { t: t + 2.0, s, c, m, seq, open: true });
                    }
                }
            }
            run.records.push(Record::Removed { s: s[2], c, seq: 10 });
            for s in [s[0], s[1]] {
                run.records.push(Record::Final { s, c, seq: 12 });
            }
            for seq in [11, 12] {
                run.records.push(Record::Peek { s: s[2], c, seq, open: false });
            }
            run
        }

        fn message_at(&self, seq: u64) -> Option<Name> {
            match seq {
                5..=9 => Some(self.m[usize::try_from(seq).unwrap() - 5]),
                11 | 12 => Some(self.m[usize::try_from(seq).unwrap() - 6]),
                _ => None,
            }
        }

        fn recv(&self, session: usize, seq: u64) -> Record {
            Record::Recv { t: 1_000.0, s: self.s[session], c: self.c, m: self.message_at(seq), seq, open: true }
        }

        fn position(&self, session: usize, seq: u64) -> usize {
            let s = self.s[session];
            self.records
                .iter()
                .position(|record| matches!(record, Record::Recv { s: by, seq: at, .. } if *by == s && *at == seq))
                .unwrap()
        }

        fn verdict(&self) -> Verdict {
            check(&self.records)
        }

        /// The counts that are not 0.
        fn findings(&self) -> Vec<(&'static str, u64)> {
            let verdict = self.verdict();
            let more = [
                ("disagreements", verdict.disagreements),
                ("refused_yet_stored", verdict.refused_yet_stored),
                ("unfinished", verdict.unfinished),
            ];
            let found: Vec<_> = verdict.counts().into_iter().chain(more).filter(|(_, count)| *count > 0).collect();
            assert_eq!(verdict.is_clean(), found.is_empty());
            assert_eq!(verdict.examples.is_empty(), found.is_empty());
            found
        }
    }

    #[test]
    fn a_good_run_is_clean_and_counted() {
        let run = Run::good();
        assert_eq!(run.findings(), []);
        let verdict = run.verdict();
        assert_eq!((verdict.acked, verdict.delivered, verdict.peeks), (7, 5 * 3 + 2 * 2, 2));
    }

    #[test]
    fn an_acknowledged_message_that_a_recipient_lacks_is_lost_and_a_gap() {
        let mut run = Run::good();
        let at = run.position(1, 7);
        run.records.remove(at);
        assert_eq!(run.findings(), [("lost", 1), ("gaps", 1)]);
    }

    #[test]
    fn an_acknowledged_message_that_nobody_was_given_is_lost() {
        let mut run = Run::good();
        run.records.retain(|record| !matches!(record, Record::Recv { seq: 12, .. }));
        assert_eq!(run.findings(), [("lost", 1), ("gaps", 2)]);
        // Not even when those who read to the end say that the end was before it.
        for record in &mut run.records {
            if let Record::Final { seq, .. } = record {
                *seq = 11;
            }
        }
        assert_eq!(run.findings(), [("lost", 1), ("gaps", 2)]);
    }

    #[test]
    fn an_acknowledged_message_whose_place_another_took_is_lost() {
        let mut run = Run::good();
        let other = Name::first(MessageId::generate());
        for record in &mut run.records {
            if let Record::Recv { seq: 7, m, .. } = record {
                *m = Some(other);
            }
        }
        assert_eq!(run.findings(), [("lost", 1)]);
    }

    #[test]
    fn an_entry_that_is_no_message_may_not_be_missing_either() {
        let mut run = Run::good();
        let at = run.position(1, 10);
        run.records.remove(at);
        assert_eq!(run.findings(), [("gaps", 1)]);
    }

    #[test]
    fn a_removed_session_need_not_be_given_the_end_but_no_hole() {
        let mut run = Run::good();
        for seq in [9, 10] {
            let at = run.position(2, seq);
            run.records.remove(at);
        }
        assert_eq!(run.findings(), []);
        let at = run.position(2, 6);
        run.records.remove(at);
        assert_eq!(run.findings(), [("lost", 1), ("gaps", 1)]);
    }

    #[test]
    fn one_message_at_two_places_is_duplicated() {
        let mut run = Run::good();
        let (s, c, m) = (run.s[0], run.c, run.m[0]);
        run.records.push(Record::Ok { t: 900.0, s, c, m, seq: 6 });
        assert_eq!(run.findings(), [("duplicated", 1)]);
    }

    #[test]
    fn an_entry_given_again_is_duplicated() {
        let mut run = Run::good();
        run.records.push(run.recv(0, 12));
        run.records.push(run.recv(0, 4));
        assert_eq!(run.findings(), [("duplicated", 2)]);
    }

    #[test]
    fn entries_given_the_wrong_way_round_are_out_of_order() {
        let mut run = Run::good();
        let (one, other) = (run.position(0, 6), run.position(0, 7));
        run.records.swap(one, other);
        assert_eq!(run.findings(), [("out_of_order", 1)]);
    }

    #[test]
    fn a_message_before_one_that_was_acknowledged_earlier_is_out_of_order() {
        let mut run = Run::good();
        let (late, m) = (900.0, run.m[1]);
        for record in &mut run.records {
            match record {
                Record::Send { t, m: sent, .. } if *sent == m => *t = late,
                Record::Ok { t, m: sent, .. } if *sent == m => *t = late + 1.0,
                _ => {}
            }
        }
        assert_eq!(run.findings(), [("out_of_order", 1)]);
    }

    #[test]
    fn an_entry_that_a_recipient_cannot_open_is_undecryptable() {
        let mut run = Run::good();
        let at = run.position(2, 8);
        let mut damaged = run.recv(2, 8);
        if let Record::Recv { open, m, .. } = &mut damaged {
            (*open, *m) = (false, None);
        }
        run.records[at] = damaged;
        assert_eq!(run.findings(), [("undecryptable", 1)]);
    }

    #[test]
    fn what_a_removed_session_is_given_or_opens_is_read_after_removal() {
        let mut run = Run::good();
        run.records.push(run.recv(2, 11));
        assert_eq!(run.findings(), [("read_after_removal", 1)]);
        let (s, c) = (run.s[2], run.c);
        run.records.push(Record::Peek { s, c, seq: 12, open: true });
        assert_eq!(run.findings(), [("read_after_removal", 2)]);
        // What was sent before the removal may be opened.
        run.records.push(Record::Peek { s, c, seq: 9, open: true });
        assert_eq!(run.findings(), [("read_after_removal", 2)]);
    }

    #[test]
    fn sessions_that_were_given_different_entries_disagree() {
        let mut run = Run::good();
        let at = run.position(1, 10);
        let mut other = run.recv(1, 10);
        if let Record::Recv { m, .. } = &mut other {
            *m = Some(Name::first(MessageId::generate()));
        }
        run.records[at] = other;
        assert_eq!(run.findings(), [("disagreements", 1)]);
        let (s, c) = (run.s[2], run.c);
        run.records.push(Record::Removed { s, c, seq: 11 });
        assert_eq!(run.findings(), [("disagreements", 2)]);
    }

    #[test]
    fn a_message_that_was_refused_and_stored_is_found() {
        let mut run = Run::good();
        let (s, c, m) = (run.s[0], run.c, run.m[6]);
        run.records.push(Record::Err { t: 900.0, s, c, m, code: "cannot_write".to_owned() });
        assert_eq!(run.findings(), [("refused_yet_stored", 1)]);
    }

    #[test]
    fn a_member_without_an_end_is_unfinished() {
        let mut run = Run::good();
        let s = run.s[1];
        run.records.retain(|record| !matches!(record, Record::Final { s: by, .. } if *by == s));
        assert_eq!(run.findings(), [("unfinished", 1)]);
    }

    #[test]
    fn an_unanswered_message_may_be_there_once_or_not_at_all() {
        let mut run = Run::good();
        let m = run.m[3];
        run.records.retain(|record| !matches!(record, Record::Ok { m: acked, .. } if *acked == m));
        let (s, c) = (run.s[0], run.c);
        run.records.push(Record::Send { t: 900.0, s, c, m: Name::first(MessageId::generate()) });
        assert_eq!(run.findings(), []);
        assert_eq!(run.verdict().acked, 6);
    }

    #[test]
    fn an_acknowledged_edit_that_a_recipient_lacks_is_lost_and_a_gap() {
        let mut run = Run::good();
        assert_eq!(run.message_at(7).unwrap().revision, 1);
        let at = run.position(0, 7);
        run.records.remove(at);
        assert_eq!(run.findings(), [("lost", 1), ("gaps", 1)]);
    }

    #[test]
    fn an_acknowledged_deletion_whose_place_another_revision_took_is_lost() {
        let mut run = Run::good();
        let deletion = run.message_at(11).unwrap();
        for record in &mut run.records {
            if let Record::Recv { seq: 11, m, .. } = record {
                *m = Some(Name { revision: 2, ..deletion });
            }
        }
        assert_eq!(run.findings(), [("lost", 1)]);
    }

    #[test]
    fn one_edit_at_two_places_is_duplicated_and_its_message_is_not() {
        let mut run = Run::good();
        let (s, c, m) = (run.s[0], run.c, run.message_at(7).unwrap());
        run.records.push(Record::Ok { t: 900.0, s, c, m, seq: 8 });
        assert_eq!(run.findings(), [("duplicated", 1)]);
    }

    #[test]
    fn a_deletion_before_a_message_that_was_acknowledged_earlier_is_out_of_order() {
        let mut run = Run::good();
        let deletion = run.message_at(11);
        for record in &mut run.records {
            match record {
                Record::Send { t, m, .. } if Some(*m) == deletion => *t = 900.0,
                Record::Ok { t, m, .. } if Some(*m) == deletion => *t = 901.0,
                _ => {}
            }
        }
        assert_eq!(run.findings(), [("out_of_order", 1)]);
    }

    #[test]
    fn an_edit_that_was_refused_and_stored_is_found() {
        let mut run = Run::good();
        let (s, c, m) = (run.s[0], run.c, run.message_at(7).unwrap());
        run.records.push(Record::Err {
            t: 900.0,
            s,
            c,
            m: Name { revision: 2, ..m },
            code: "unknown_message".to_owned(),
        });
        assert_eq!(run.findings(), []);
        run.records.push(Record::Err { t: 900.0, s, c, m, code: "unknown_message".to_owned() });
        assert_eq!(run.findings(), [("refused_yet_stored", 1)]);
    }

    #[test]
    fn an_edit_that_a_removed_session_opens_is_read_after_removal() {
        let mut run = Run::good();
        run.records.push(run.recv(2, 11));
        assert_eq!(run.findings(), [("read_after_removal", 1)]);
    }
}
