//! Judges what each session was given by itself.
//!
//! A session is owed nothing of the time before it became a recipient: what it may read of that opens as its keys come.

use std::collections::HashSet;

use sealcast::protocol::ids::ChatId;

use super::verdict::Verdict;
use super::{Chat, head, obliged_to};

/// What one session was given: order, repeats, readability, removal, gaps.
pub(super) fn check_views(chat_id: ChatId, chat: &Chat, verdict: &mut Verdict) {
    let head = head(chat);
    let is_used = chat.fates.values().any(|fate| fate.acked.is_some());
    if is_used && head.is_none() {
        verdict.unfinished += 1;
        verdict.note(|| format!("chat {chat_id}: nobody read it to its end"));
    }
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
            } else if seq < highest && view.member.is_none_or(|member| member < seq) {
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
