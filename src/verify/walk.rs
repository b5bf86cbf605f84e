//! Walks through a database and has everything judged.
//!
//! Each chat and each user is read from a snapshot of its own: what is judged is of one moment, and on a database in
//! service no snapshot is older than the longest log takes, since what is dead must be kept for as long as one lives.

use super::finding::{Kind, Place};
use super::log::LogCheck;
use super::report::Report;
use super::user::UserCheck;
use crate::protocol::ids::{ChatId, Place as ChainPlace, Seq, UserId};
use crate::store::StoreError;
use crate::store::inspect::{Inspector, Snapshot};

/// Verifies a database; `limit` violations are listed at most.
///
/// # Errors
/// [`StoreError`] when the database cannot be read, or its schema is of another version.
///
/// # Cancel safety
/// Nothing is ever changed.
pub async fn verify(config: &tokio_postgres::Config, limit: usize) -> Result<Report, StoreError> {
    let mut report = Report::new(limit);
    let mut inspector = Inspector::connect(config).await?;
    let mut last = None;
    loop {
        let users = inspector.users_after(last).await?;
        for user_id in &users {
            let judged = verify_user(&inspector.snapshot().await?, *user_id, &mut report).await;
            unless_unreadable(judged, Place::user(*user_id), &mut report)?;
        }
        match users.last() {
            Some(user_id) => last = Some(*user_id),
            None => break,
        }
    }
    let mut last = None;
    loop {
        let chats = inspector.chats_after(last).await?;
        for chat_id in &chats {
            let judged = verify_chat(&inspector.snapshot().await?, *chat_id, &mut report).await;
            unless_unreadable(judged, Place::chat(*chat_id), &mut report)?;
        }
        tracing::debug!(chats = report.counts.chats, entries = report.counts.entries, "verified so far");
        match chats.last() {
            Some(chat_id) => last = Some(*chat_id),
            None => break,
        }
    }
    Ok(report)
}

/// A value that is none is a violation like others; what else belongs to the same chat or user is not looked at.
fn unless_unreadable(judged: Result<(), StoreError>, place: Place, report: &mut Report) -> Result<(), StoreError> {
    match judged {
        Err(StoreError::Corrupt { what }) => {
            report.violation(Kind::Unreadable, place, format_args!("a {what} that is none"), "a value of its form");
            Ok(())
        }
        judged => judged,
    }
}

async fn verify_user(snapshot: &Snapshot<'_>, user_id: UserId, report: &mut Report) -> Result<(), StoreError> {
    let row = snapshot.user(user_id).await?;
    let mut check = UserCheck::new(user_id, row.as_ref());
    let mut place = ChainPlace::default();
    loop {
        let page = snapshot.chain_page(user_id, place).await?;
        for row in &page.rows {
            check.take(row, report);
        }
        match page.next {
            Some(next) => place = next,
            None => break,
        }
    }
    if snapshot.is_removed(user_id).await? {
        check.note_removal();
    }
    let sessions = snapshot.sessions(user_id).await?;
    check.end(row.as_ref(), &sessions, snapshot.now().await?, report);
    Ok(())
}

async fn verify_chat(snapshot: &Snapshot<'_>, chat_id: ChatId, report: &mut Report) -> Result<(), StoreError> {
    // It may have ended since it was listed.
    let Some(chat) = snapshot.chat(chat_id).await? else { return Ok(()) };
    report.counts.chats += 1;
    let mut check = LogCheck::new(chat_id);
    let mut place = Seq::default();
    loop {
        let page = snapshot.log_page(chat_id, place).await?;
        check.learn(snapshot.keys(chat_id, &check.unknown_keys(&page.rows)).await?);
        for row in &page.rows {
            check.take(row, report);
        }
        match page.next {
            Some(next) => place = next,
            None => break,
        }
    }
    check.check_repeated(&snapshot.repeated_revisions(chat_id).await?, report);
    check.check_chat(&chat, report);
    check.check_members(&snapshot.members(chat_id).await?, report);
    check.check_recipients(&snapshot.recipients(chat_id).await?, report);
    if let Some(generation) = check.current_generation() {
        check.check_group_key(&snapshot.group_keys(chat_id, generation).await?, report);
    }
    let mut last = None;
    loop {
        let page = snapshot.key_page(chat_id, last).await?;
        for row in &page.keys {
            check.check_key(&chat, row, report);
        }
        match page.next {
            Some(next) => last = Some(next),
            None => break,
        }
    }
    for row in &snapshot.info_keys(chat_id).await? {
        check.check_info_key(row, report);
    }
    let (looked_at, misplaced) = snapshot.misplaced(chat_id, chat.last_seq).await?;
    check.check_misplaced(looked_at, &misplaced, report);
    Ok(())
}
