//! The commands about chats and their members.

use serde_json::json;

use super::args::ChatCommand;
use super::error::CliError;
use super::paint::Ink;
use super::passwords::Key;
use super::print::{Printer, Report, escape};
use crate::client::{Client, Openness, Recovered};
use crate::protocol::ids::ChatId;

/// Runs one of them.
pub(super) async fn chat(printer: &Printer, client: &Client, command: &ChatCommand) -> Result<(), CliError> {
    client.live().await?;
    let (plain, object) = match command {
        ChatCommand::List => return list(printer, client).await,
        ChatCommand::Show { chat } => return show(printer, client, *chat).await,
        ChatCommand::Coverage { chat } => return coverage(printer, client, *chat).await,
        ChatCommand::Recover { password_stdin, recovery_code } => {
            if client.holds_identity() {
                return Err(CliError::NoPassword);
            }
            let recovered = match Key::ask(printer, *password_stdin, *recovery_code).await? {
                Key::Password(password) => client.recover_history(&password).await?,
                Key::Code(code) => client.recover_history_by_code(&code).await?,
            };
            (recovered_line(recovered), recovered_object(recovered))
        }
        ChatCommand::Create { title } => {
            let chat = client.create_chat(title).await?;
            (chat.to_string(), json!({ "chat_id": chat }))
        }
        ChatCommand::Rename { chat, title } => {
            client.set_chat_info(*chat, Some(title), None).await?;
            (chat.to_string(), json!({ "chat_id": chat, "title": title }))
        }
        ChatCommand::Describe { chat, text } => {
            client.set_chat_info(*chat, None, Some(text)).await?;
            (chat.to_string(), json!({ "chat_id": chat, "description": text }))
        }
        ChatCommand::Add { chat, username, read_only, manager } => {
            let seq = client.add_member(*chat, username, !read_only, *manager).await?;
            (format!("{chat} {seq}"), json!({ "chat_id": chat, "seq": seq }))
        }
        ChatCommand::Remove { chat, username } => {
            let seq = client.remove_member(*chat, username).await?;
            (format!("{chat} {seq}"), json!({ "chat_id": chat, "seq": seq }))
        }
        ChatCommand::Rights { chat, username, read_only, manager } => {
            let seq = client.set_rights(*chat, username, !read_only, *manager).await?;
            (format!("{chat} {seq}"), json!({ "chat_id": chat, "seq": seq }))
        }
        ChatCommand::Transfer { chat, username } => {
            let seq = client.transfer(*chat, username).await?;
            (format!("{chat} {seq}"), json!({ "chat_id": chat, "seq": seq }))
        }
        ChatCommand::Rekey { chat } => {
            let seq = client.rekey(*chat).await?;
            (format!("{chat} {seq}"), json!({ "chat_id": chat, "seq": seq }))
        }
        ChatCommand::History { chat, newcomers } => {
            let seq = client.set_history(*chat, (*newcomers).into()).await?;
            (format!("{chat} {seq}"), json!({ "chat_id": chat, "seq": seq }))
        }
        ChatCommand::Leave { chat } => {
            client.leave_chat(*chat).await?;
            (chat.to_string(), json!({ "chat_id": chat, "left": true }))
        }
        ChatCommand::Delete { chat } => {
            client.delete_chat(*chat).await?;
            (chat.to_string(), json!({ "chat_id": chat, "deleted": true }))
        }
    };
    Ok(printer.line(&plain, &object)?)
}

async fn list(printer: &Printer, client: &Client) -> Result<(), CliError> {
    for chat in client.list_chats().await? {
        let title = chat.title.as_deref().map(escape).unwrap_or_default();
        let dim = |text: &str| printer.paint.on(Ink::Dim, text);
        let (ink, unread) = match chat.unread {
            0 => (Ink::Plain, String::new()),
            unread => (Ink::Strong, format!("\t{}", printer.paint.on(Ink::Hint, &format!("{unread} unread")))),
        };
        let plain = format!(
            "{}\t{}\t{}{unread}",
            chat.chat_id,
            dim(&chat.last_seq.to_string()),
            printer.paint.on(ink, &title),
        );
        let object = json!({
            "chat_id": chat.chat_id, "last_seq": chat.last_seq, "joined_seq": chat.joined_seq, "title": chat.title,
            "unread": chat.unread, "description": chat.description, "is_readable": chat.is_info_readable,
        });
        printer.line(&plain, &object)?;
    }
    Ok(())
}

/// What came of a recovery, for people.
pub(super) fn recovered_line(recovered: Recovered) -> String {
    let opened = match recovered.keys {
        0 => "nothing more could be opened".to_owned(),
        1 => "1 key of what was said before is open".to_owned(),
        keys => format!("{keys} keys of what was said before are open"),
    };
    match recovered.locked_keys {
        0 => opened,
        locked => format!("{opened}; {locked} are not: `chat coverage` says why"),
    }
}

/// The same for programs.
pub(super) fn recovered_object(recovered: Recovered) -> serde_json::Value {
    json!({ "keys": recovered.keys, "locked_keys": recovered.locked_keys })
}

async fn coverage(printer: &Printer, client: &Client, chat: ChatId) -> Result<(), CliError> {
    let coverage = client.coverage(chat).await?;
    for range in &coverage.ranges {
        let ink = match range.openness {
            Openness::Open | Openness::Purged => Ink::Plain,
            Openness::BeforeJoin | Openness::NoCopyYet => Ink::Dim,
            _ => Ink::Bad,
        };
        let plain = format!("{}\t{}\t{}", range.from, range.to, printer.paint.on(ink, range.openness.as_str()));
        let object = json!({ "from": range.from, "to": range.to, "openness": range.openness.as_str() });
        printer.line(&plain, &object)?;
    }
    if coverage.recoverable > 0 {
        printer
            .remark(&format!("note: `chat recover` opens up to {} messages with the password", coverage.recoverable));
    }
    Ok(())
}

async fn show(printer: &Printer, client: &Client, chat: ChatId) -> Result<(), CliError> {
    let members = client.members(chat).await?;
    let listed = client.list_chats().await?;
    let listed = listed.into_iter().find(|listed| listed.chat_id == chat);
    let is_readable = listed.as_ref().is_none_or(|listed| listed.is_info_readable);
    let (title, description) = listed.map(|listed| (listed.title, listed.description)).unwrap_or_default();
    let shown = title.as_deref().map(escape).unwrap_or_default();
    let mut plain = format!("{chat}\t{}", printer.paint.on(Ink::Strong, &shown));
    if !is_readable {
        plain.push('\t');
        plain.push_str(
            &printer.paint.on(Ink::Dim, "the newest title cannot be read yet: it waits for a member's device"),
        );
    }
    let object = json!({ "chat_id": chat, "title": title, "description": description, "is_readable": is_readable });
    printer.line(&plain, &object)?;
    if let Some(description) = &description
        && !printer.is_json()
    {
        printer.line(&escape(description), &json!({}))?;
    }
    for member in &members {
        printer.report(&Report::member_columns(member, client.user_id(), printer.paint))?;
    }
    Ok(())
}
