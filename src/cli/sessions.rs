//! The commands about sessions, which are the devices of this account.

use std::time::Duration;

use serde_json::json;

use super::args::{SessionCommand, SessionRef};
use super::error::CliError;
use super::paint::Ink;
use super::passwords::unlock;
use super::print::{Printer, escape, time};
use super::qr::{Shown, read_code};
use crate::client::{Client, OwnSessions};

/// Runs one of them; linking is not among them, since it has no account yet.
pub(super) async fn session(printer: &Printer, client: &Client, command: &SessionCommand) -> Result<(), CliError> {
    client.live().await?;
    match command {
        SessionCommand::Link { .. } => Ok(()),
        SessionCommand::Approve { code, qr, session_ttl, password_stdin } => {
            let username = client.username();
            let code = read_code(code, username.as_str())?;
            let text = code.to_text();
            let shown = Shown { username: username.as_str(), code: &text };
            if !printer.is_json()
                && let Some(lines) = shown.drawn(*qr, printer.paint)
            {
                printer.drawing(&lines)?;
                printer.remark(&format!("{text}: the other device shows the same"));
            }
            let _unlocked = unlock(printer, client, *password_stdin).await?;
            let id = client.approve_session(&code, session_ttl.map(Duration::from_secs)).await?;
            Ok(printer.line(&id.to_string(), &json!({ "session_id": id }))?)
        }
        SessionCommand::Revoke { id } => {
            client.revoke_session(*id).await?;
            Ok(printer.line(&id.to_string(), &json!({ "session_id": id, "state": "revoked" }))?)
        }
        SessionCommand::Label { id, label } => {
            let id = match id {
                SessionRef::This => client.session_id(),
                SessionRef::Id(id) => *id,
            };
            client.set_label(id, label).await?;
            let object = json!({ "session_id": id, "label": label });
            Ok(printer.line(&format!("{id}\t{}", escape(label)), &object)?)
        }
        SessionCommand::List => list(printer, client).await,
        SessionCommand::Pending => pending(printer, &client.sessions().await?),
    }
}

async fn list(printer: &Printer, client: &Client) -> Result<(), CliError> {
    let listed = client.sessions().await?;
    let paint = printer.paint;
    for session in &listed.sessions {
        let certificate = &session.certificate.certificate;
        let (id, expires) = (certificate.session_id, time(certificate.expired_at));
        let state = json!(session.state);
        let seen = session.last_seen_at.map(time);
        let is_this = id == client.session_id();
        let this = if is_this { format!("\t{}", paint.on(Ink::Me, "this")) } else { String::new() };
        let plain = format!(
            "{id}\t{}\t{}\t{}\t{}{this}",
            state.as_str().unwrap_or_default(),
            paint.on(Ink::Dim, &expires),
            paint.on(Ink::Dim, seen.as_deref().unwrap_or("never")),
            paint.on(Ink::Strong, &session.label.as_deref().map(escape).unwrap_or_default()),
        );
        let object = json!({
            "session_id": id, "state": state, "expired_at": expires, "last_seen_at": seen, "this": is_this,
            "label": session.label,
        });
        printer.line(&plain, &object)?;
    }
    pending(printer, &listed)
}

fn pending(printer: &Printer, listed: &OwnSessions) -> Result<(), CliError> {
    let paint = printer.paint;
    for pending in &listed.pending {
        let (id, asked) = (pending.session_id, time(pending.created_at));
        let object = json!({ "session_id": id, "state": "pending", "created_at": asked });
        let state = paint.on(Ink::Hint, "pending");
        printer.line(&format!("{id}\t{state}\t{}", paint.on(Ink::Dim, &asked)), &object)?;
    }
    Ok(())
}
