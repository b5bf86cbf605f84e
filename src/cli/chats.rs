//! The commands about chats and their members.

use serde_json::json;

use super::args::ChatCommand;
use super::error::CliError;
use super::paint::Ink;
use super::print::{Printer, Report, escape};
use crate::client::Client;
use crate::protocol::ids::ChatId;

/// Runs one of them.
pub(super) async fn chat(printer: &Printer, client: &Client, command: &ChatCommand) -> Result<(), CliError> {
    client.live().await?;
    let (plain, object) = match command {
        ChatCommand::List => return list(printer, client).await,
        ChatCommand::Show { chat } => return show(printer, client, *chat).await,
        ChatCommand::Create { title } => {
            let chat = client.create_chat(title).await?;
            (chat.to_string(), json!({ "chat_id": chat }))
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
            "unread": chat.unread,
        });
        printer.line(&plain, &object)?;
    }
    Ok(())
}

async fn show(printer: &Printer, client: &Client, chat: ChatId) -> Result<(), CliError> {
    let members = client.members(chat).await?;
    let listed = client.list_chats().await?;
    let title = listed.into_iter().find(|listed| listed.chat_id == chat).and_then(|listed| listed.title);
    let shown = title.as_deref().map(escape).unwrap_or_default();
    let plain = format!("{chat}\t{}", printer.paint.on(Ink::Strong, &shown));
    printer.line(&plain, &json!({ "chat_id": chat, "title": title }))?;
    for member in &members {
        printer.report(&Report::member_columns(member, client.user_id(), printer.paint))?;
    }
    Ok(())
}
