//! Histories with one thing wrong, and the count that it shows in.

use sealcast::protocol::ids::MessageId;

use super::*;
use crate::history::record::Record;

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
        let found: Vec<_> =
            verdict.counts().into_iter().chain(verdict.further_counts()).filter(|(_, count)| *count > 0).collect();
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
    assert_eq!(run.findings(), [("duplicated", 1), ("two_answers", 1)]);
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
fn what_a_session_reads_of_the_time_before_it_has_no_order() {
    let mut run = Run::good();
    let (one, other) = (run.position(1, 6), run.position(1, 7));
    run.records.swap(one, other);
    assert_eq!(run.findings(), [("out_of_order", 1)]);
    let s = run.s[1];
    for record in &mut run.records {
        if let Record::Member { s: whose, seq, .. } = record
            && *whose == s
        {
            *seq = 7;
        }
    }
    assert_eq!(run.findings(), []);
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
    assert_eq!(run.findings(), [("duplicated", 1), ("two_answers", 1)]);
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
    run.records.push(Record::Err { t: 900.0, s, c, m: Name { revision: 2, ..m }, code: "unknown_message".to_owned() });
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

#[test]
fn two_acknowledgements_at_two_places_are_two_answers() {
    let mut run = Run::good();
    let (s, c, m) = (run.s[0], run.c, run.m[0]);
    run.records.push(Record::Ok { t: 900.0, s, c, m, seq: 5 });
    assert_eq!(run.findings(), []);
    run.records.push(Record::Ok { t: 900.0, s, c, m, seq: 6 });
    assert_eq!(run.findings(), [("duplicated", 1), ("two_answers", 1)]);
}

#[test]
fn a_chat_that_nobody_read_to_its_end_is_unfinished() {
    let mut run = Run::good();
    run.records.retain(|record| !matches!(record, Record::Final { .. }));
    assert_eq!(run.findings(), [("unfinished", 3)]);
}

#[test]
fn every_damage_that_is_planted_is_caught_by_its_own_count() {
    let run = Run::good();
    for trial in plant::self_test(&run.records) {
        assert!(trial.is_caught(), "{trial:?}");
    }
    assert!(plant::self_test(&[]).iter().all(|trial| !trial.is_caught()));
}

#[test]
fn planted_damage_of_one_kind_shows_in_no_foreign_count() {
    use plant::Damage;
    let run = Run::good();
    let shows = |damage: Damage| {
        let verdict = check(&damage.planted(&run.records).unwrap());
        let counts = verdict.counts().into_iter().chain(verdict.further_counts());
        counts.filter(|(_, count)| *count > 0).map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(shows(Damage::Lost), ["lost", "gaps"], "a message that is missing is a gap as well");
    for damage in [
        Damage::Duplicated,
        Damage::OutOfOrder,
        Damage::Overtaken,
        Damage::Gap,
        Damage::Disagreement,
        Damage::Undecryptable,
        Damage::GivenAfterRemoval,
        Damage::OpenedAfterRemoval,
        Damage::RefusedYetStored,
        Damage::Unfinished,
    ] {
        assert_eq!(shows(damage), [damage.count()], "{damage:?}");
    }
}
