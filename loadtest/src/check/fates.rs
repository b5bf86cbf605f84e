//! Judges what sessions were given together, and what became of each message.

use std::collections::HashMap;

use sealcast::protocol::ids::ChatId;

use super::verdict::Verdict;
use super::{Chat, Given, View, head, obliged_to};
use crate::history::record::Name;

/// Two sessions must be given the same message at the same seq.
pub(super) fn check_agreement(chat_id: ChatId, chat: &Chat, verdict: &mut Verdict) {
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
pub(super) fn check_fates(chat_id: ChatId, chat: &Chat, verdict: &mut Verdict) {
    let head = head(chat);
    let logs: Vec<(&View, HashMap<u64, Given>)> =
        chat.views.values().map(|view| (view, view.given.iter().map(|given| (given.seq, *given)).collect())).collect();
    for (name, fate) in &chat.fates {
        let repeats = u64::try_from(fate.places.len().saturating_sub(1)).unwrap_or(u64::MAX);
        if repeats > 0 {
            verdict.duplicated += repeats;
            verdict.note(|| format!("chat {chat_id}: message {name} at {:?}", fate.places));
        }
        let answers = u64::try_from(fate.answers.len().saturating_sub(1)).unwrap_or(u64::MAX);
        if answers > 0 {
            verdict.two_answers += answers;
            verdict.note(|| format!("chat {chat_id}: message {name} was acknowledged at {:?}", fate.answers));
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
pub(super) fn check_real_time(chat_id: ChatId, chat: &Chat, verdict: &mut Verdict) {
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
