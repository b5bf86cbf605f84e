//! The commands about what users say of themselves.

use serde_json::json;

use super::args::ProfileCommand;
use super::error::CliError;
use super::paint::Ink;
use super::print::{Printer, escape};
use crate::client::{Client, PlainProfile};

/// Runs one of them.
pub(super) async fn profile(printer: &Printer, client: &Client, command: &ProfileCommand) -> Result<(), CliError> {
    client.live().await?;
    match command {
        ProfileCommand::Set { name, email, description } => {
            client.set_profile(name.as_deref(), email.as_deref(), description.as_deref()).await?;
            show(printer, client, client.username().as_str()).await
        }
        ProfileCommand::Show { username } => {
            let own = client.username();
            show(printer, client, username.as_deref().unwrap_or(own.as_str())).await
        }
    }
}

async fn show(printer: &Printer, client: &Client, username: &str) -> Result<(), CliError> {
    let (user_id, profile) = client.profile_of(username).await?;
    let says_nothing = profile.is_none();
    let PlainProfile { name, email, description } = profile.unwrap_or_default();
    let text = |part: &Option<String>| part.as_deref().map(escape).unwrap_or_default();
    let mut plain = format!("{username}\t{}\t{}", printer.paint.on(Ink::Strong, &text(&name)), text(&email));
    if says_nothing {
        plain.push('\t');
        plain.push_str(&printer.paint.on(Ink::Dim, "says nothing of themselves"));
    }
    let object = json!({
        "user_id": user_id, "username": username, "name": name, "email": email, "description": description,
    });
    printer.line(&plain, &object)?;
    if let Some(description) = &description
        && !printer.is_json()
    {
        printer.line(&escape(description), &json!({}))?;
    }
    Ok(())
}
