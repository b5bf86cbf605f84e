//! Damages a good history in one way, to see that the check finds it, and under which count.
//!
//! Pure. Invariant: each kind of damage shows in a count of its own, whatever else it shows in.

use std::collections::{HashMap, HashSet};

use clap::ValueEnum;
use sealcast::protocol::ids::{ChatId, MessageId, SessionId};

use super::check;
use super::verdict::Verdict;
use crate::history::record::{Name, Record};

/// A way to damage a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Damage {
    /// A recipient was never given an acknowledged message.
    Lost,
    /// A session was given an entry again.
    Duplicated,
    /// A message stands at two places of the log.
    TwoPlaces,
    /// A session was given two entries the wrong way round.
    OutOfOrder,
    /// A message was sent after another was acknowledged, and stands before it.
    Overtaken,
    /// A recipient was never given an entry that is no message.
    Gap,
    /// Two sessions were given different entries at one place.
    Disagreement,
    /// A recipient could not open a message.
    Undecryptable,
    /// A removed session was given what came after its removal.
    GivenAfterRemoval,
    /// A removed session opened what came after its removal.
    OpenedAfterRemoval,
    /// A message was refused for good and is in the log.
    RefusedYetStored,
    /// A message was acknowledged twice, at two places.
    TwoAnswers,
    /// A member never read to the end.
    Unfinished,
}

impl Damage {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The count in which it must show.
    pub(crate) const fn count(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated | Self::TwoPlaces => "duplicated",
            Self::OutOfOrder | Self::Overtaken => "out_of_order",
            Self::Gap => "gaps",
            Self::Disagreement => "disagreements",
            Self::Undecryptable => "undecryptable",
            Self::GivenAfterRemoval | Self::OpenedAfterRemoval => "read_after_removal",
            Self::RefusedYetStored => "refused_yet_stored",
            Self::TwoAnswers => "two_answers",
            Self::Unfinished => "unfinished",
        }
    }

    /// The history with this damage; none if it has no place for it.
    pub(crate) fn planted(self, history: &[Record]) -> Option<Vec<Record>> {
        let facts = Facts::of(history);
        let mut records = history.to_vec();
        match self {
            Self::Lost => {
                records.remove(middle(history, |record| facts.is_due(record) && facts.is_acknowledged(record))?);
            }
            Self::Duplicated => {
                let again = history.get(middle(history, |record| facts.is_due(record))?)?.clone();
                records.push(again);
            }
            Self::TwoPlaces => {
                let at = middle(history, |record| facts.is_due(record) && facts.is_acknowledged(record))?;
                if let Some(Record::Recv { seq, .. }) = records.get_mut(at) {
                    *seq += 1;
                }
            }
            Self::OutOfOrder => {
                let one = middle(history, |record| facts.is_due(record))?;
                let Some(Record::Recv { s, c, .. }) = history.get(one) else { return None };
                let follows =
                    |record: &&Record| matches!(record, Record::Recv { s: by, c: at, .. } if by == s && at == c);
                let other = one + 1 + history.iter().skip(one + 1).position(|record| follows(&record))?;
                records.swap(one, other);
            }
            Self::Overtaken => overtake(&mut records)?,
            Self::Gap => {
                let is_plain = |record: &Record| matches!(record, Record::Recv { m: None, .. });
                records.remove(middle(history, |record| facts.is_due(record) && is_plain(record))?);
            }
            Self::Disagreement => {
                let is_plain = |record: &Record| matches!(record, Record::Recv { m: None, .. });
                let at = middle(history, |record| facts.is_due(record) && is_plain(record))?;
                if let Some(Record::Recv { m, .. }) = records.get_mut(at) {
                    *m = Some(Name::first(MessageId::generate()));
                }
            }
            Self::Undecryptable => {
                let at = middle(history, |record| facts.is_due(record) && facts.is_acknowledged(record))?;
                if let Some(Record::Recv { m, open, .. }) = records.get_mut(at) {
                    (*m, *open) = (None, false);
                }
            }
            Self::GivenAfterRemoval => {
                let (s, given) = facts.after_removal(history)?;
                let Record::Recv { t, c, m, seq, open, .. } = given.clone() else { return None };
                records.push(Record::Recv { t, s, c, m, seq, open });
            }
            Self::OpenedAfterRemoval => {
                let (s, given) = facts.after_removal(history)?;
                let Record::Recv { c, seq, .. } = *given else { return None };
                records.push(Record::Peek { s, c, seq, open: true });
            }
            Self::RefusedYetStored => {
                let at = middle(history, |record| matches!(record, Record::Ok { .. }))?;
                let Some(Record::Ok { t, s, c, m, .. }) = history.get(at) else { return None };
                records.push(Record::Err { t: *t, s: *s, c: *c, m: *m, code: "cannot_write".to_owned() });
            }
            Self::TwoAnswers => {
                let at = middle(history, |record| matches!(record, Record::Ok { .. }))?;
                let Some(Record::Ok { t, s, c, m, seq }) = history.get(at) else { return None };
                records.push(Record::Ok { t: *t, s: *s, c: *c, m: *m, seq: seq + 1 });
            }
            Self::Unfinished => {
                records.remove(middle(history, |record| matches!(record, Record::Final { .. }))?);
            }
        }
        Some(records)
    }
}

/// What damage needs to know of a history.
struct Facts {
    members: HashMap<(SessionId, ChatId), u64>,
    removed: HashMap<(SessionId, ChatId), u64>,
    finals: HashSet<(SessionId, ChatId)>,
    acknowledged: HashSet<(ChatId, Name)>,
}

impl Facts {
    fn of(history: &[Record]) -> Self {
        let (mut members, mut removed) = (HashMap::new(), HashMap::new());
        let (mut finals, mut acknowledged) = (HashSet::new(), HashSet::new());
        for record in history {
            match record {
                Record::Member { s, c, seq } => {
                    members.insert((*s, *c), *seq);
                }
                Record::Removed { s, c, seq } => {
                    removed.insert((*s, *c), *seq);
                }
                Record::Final { s, c, .. } => {
                    finals.insert((*s, *c));
                }
                Record::Ok { c, m, .. } => {
                    acknowledged.insert((*c, *m));
                }
                _ => {}
            }
        }
        Self { members, removed, finals, acknowledged }
    }

    /// Whether it is an entry that a session had to be given, which read to the end.
    fn is_due(&self, record: &Record) -> bool {
        let Record::Recv { s, c, seq, .. } = record else { return false };
        self.finals.contains(&(*s, *c)) && self.members.get(&(*s, *c)).is_some_and(|member| member < seq)
    }

    fn is_acknowledged(&self, record: &Record) -> bool {
        matches!(record, Record::Recv { c, m: Some(m), .. } if self.acknowledged.contains(&(*c, *m)))
    }

    /// A removed session, and an entry that another was given after its removal.
    fn after_removal<'a>(&self, history: &'a [Record]) -> Option<(SessionId, &'a Record)> {
        history.iter().find_map(|record| {
            let Record::Recv { c, seq, .. } = record else { return None };
            let gone = self.removed.iter().find(|((_, chat_id), removed)| chat_id == c && *removed < seq);
            gone.map(|((session_id, _), _)| (*session_id, record))
        })
    }
}

/// The middle one of those that fit.
fn middle(history: &[Record], fits: impl Fn(&Record) -> bool) -> Option<usize> {
    let fitting: Vec<usize> = history.iter().enumerate().filter(|(_, record)| fits(record)).map(|(at, _)| at).collect();
    fitting.get(fitting.len() / 2).copied()
}

/// Moves the sending of a message behind the acknowledgement of one that stands after it.
fn overtake(records: &mut [Record]) -> Option<()> {
    let (mut first, mut pair) = (HashMap::new(), None);
    for record in records.iter() {
        if let Record::Ok { t, c, m, seq, .. } = record {
            let (early, place) = *first.entry(*c).or_insert((*m, *seq));
            if place < *seq && early != *m {
                pair = Some((*c, early, *t));
                break;
            }
        }
    }
    let (chat_id, message, late) = pair?;
    for record in records {
        if let Record::Send { t, c, m, .. } | Record::Ok { t, c, m, .. } = record
            && (*c, *m) == (chat_id, message)
        {
            *t = late + 1.0;
        }
    }
    Some(())
}

/// How one kind of damage fared.
#[derive(Debug)]
pub(crate) struct Trial {
    /// The damage.
    pub(crate) damage: Damage,
    /// By how much its count rose; none if the history has no place for it.
    pub(crate) found: Option<u64>,
}

impl Trial {
    /// Whether it was found where it must be.
    pub(crate) fn is_caught(&self) -> bool {
        self.found.is_some_and(|found| found > 0)
    }
}

/// Damages a history in every way, one at a time.
pub(crate) fn self_test(history: &[Record]) -> Vec<Trial> {
    let before = check(history);
    let mut trials = Vec::new();
    for damage in Damage::value_variants() {
        let rise = |after: &Verdict| count(after, *damage).saturating_sub(count(&before, *damage));
        let found = damage.planted(history).map(|damaged| rise(&check(&damaged)));
        trials.push(Trial { damage: *damage, found });
    }
    trials
}

fn count(verdict: &Verdict, damage: Damage) -> u64 {
    let counts = verdict.counts().into_iter().chain(verdict.further_counts());
    counts.filter(|(name, _)| *name == damage.count()).map(|(_, count)| count).sum()
}
