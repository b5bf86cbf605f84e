//! The commands about this account: who may add it, whom it blocks, and its end.

use std::io;

use serde_json::json;

use super::args::AccountCommand;
use super::error::CliError;
use super::passwords::unlock;
use super::print::{Printer, Report};
use crate::client::Client;
use crate::protocol::frame::AddPolicy;

/// Runs one of them.
pub(super) async fn account(printer: &Printer, client: &Client, command: &AccountCommand) -> Result<(), CliError> {
    match command {
        AccountCommand::WhoMayAdd { who } => {
            client.live().await?;
            let policy = match who {
                None => client.settings().await?.add_policy,
                Some(who) => {
                    let policy = (*who).into();
                    client.set_add_policy(policy).await?;
                    policy
                }
            };
            let plain = match policy {
                AddPolicy::Everyone => "everyone: whoever is not blocked may add you to chats",
                AddPolicy::SharedChat => "shared-chat: who shares a chat with you may add you to others",
                AddPolicy::Nobody => "nobody: nobody may add you to chats",
            };
            Ok(printer.line(plain, &json!({ "add_policy": policy }))?)
        }
        AccountCommand::Delete { yes, password_stdin } => {
            let username = client.username();
            if !yes {
                confirm(printer, username.as_str()).await?;
            }
            client.live().await?;
            let _unlocked = unlock(printer, client, *password_stdin).await?;
            client.delete_account().await?;
            let plain = format!("{username} is no more");
            Ok(printer.line(&plain, &json!({ "username": username, "deleted": true }))?)
        }
    }
}

/// Asks for the username as a line of input.
async fn confirm(printer: &Printer, username: &str) -> Result<(), CliError> {
    printer.remark(&format!(
        "This ends {username} for good: all devices, all that only they can read. Type the username to go on:"
    ));
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: a read that waits must not hold up the end.
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = tell.send(io::stdin().read_line(&mut line).map(|_| line));
    });
    let line = told.await.map_err(|_| CliError::Unconfirmed)??;
    if line.trim() == username { Ok(()) } else { Err(CliError::Unconfirmed) }
}

/// Blocks a user.
pub(super) async fn block(client: &Client, username: &str) -> Result<Report, CliError> {
    client.live().await?;
    client.block(username).await?;
    let plain = format!("{username} is blocked");
    Ok(Report { plain, object: json!({ "username": username, "blocked": true }) })
}

/// Blocks a user no longer.
pub(super) async fn unblock(client: &Client, username: &str) -> Result<Report, CliError> {
    client.live().await?;
    client.unblock(username).await?;
    let plain = format!("{username} is not blocked");
    Ok(Report { plain, object: json!({ "username": username, "blocked": false }) })
}

/// Lists whom this user has blocked.
pub(super) async fn blocks(client: &Client) -> Result<Vec<Report>, CliError> {
    client.live().await?;
    let blocked = client.settings().await?.blocked;
    let report = |user: crate::protocol::frame::MemberName| Report {
        plain: format!("{}\t{}", user.user_id, user.username),
        object: json!({ "user_id": user.user_id, "username": user.username }),
    };
    Ok(blocked.into_iter().map(report).collect())
}
