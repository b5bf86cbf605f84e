//! Checks a history against the promises: what was lost, doubled, disordered, missing, unreadable or leaked.
//!
//! Lives here: gathering a history by chat; `views` judges what each session was given, `fates` what became of each
//! message, `plant` damages a good history to see it found. Pure: it sees records and nothing else, and their order
//! matters only where it says so (the entries given to one session in one chat are in the order given). A session is a
//! recipient of an entry when `member` is below and `removed`, if there is one, not below its seq. An edit or deletion
//! is a message of its own here.

mod fates;
pub(crate) mod plant;
#[cfg(test)]
mod tests;
pub(crate) mod verdict;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sealcast::protocol::ids::{ChatId, SessionId};

use self::fates::{check_agreement, check_fates, check_real_time};
use self::verdict::Verdict;
use self::views::check_views;
use crate::history::record::{Name, Record};

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
    /// Every place that an acknowledgement named.
    answers: BTreeSet<u64>,
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
            fate.answers.insert(*seq);
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
