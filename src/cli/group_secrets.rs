//! The commands about a chat's secrets.

use std::io::{self, IsTerminal, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use zeroize::Zeroizing;

use super::args::{SecretCommand, Unlocking};
use super::error::CliError;
use super::paint::Ink;
use super::passwords::Key;
use super::print::{Printer, escape, time};
use super::secrets::Source;
use crate::client::{Client, OpenSecrets, SecretState, SecretSummary};
use crate::protocol::ids::{ChatId, SecretId, UserId};
use crate::protocol::limits::SECRET_VALUE_BYTES_MAX;

/// Runs one of them.
pub(super) async fn secret(printer: &Printer, client: &Client, command: &SecretCommand) -> Result<(), CliError> {
    if client.holds_identity() && !matches!(command, SecretCommand::Log { .. }) {
        return Err(CliError::NoPasswordForSecrets);
    }
    match command {
        SecretCommand::List { chat, unlocking } => list(printer, client, *chat, *unlocking).await,
        SecretCommand::Get { chat, name, unlocking } => {
            let secrets = open(printer, client, *chat, *unlocking).await?;
            let (name, value) = secrets.read(find(&secrets, name).await?).await?;
            show(printer, &name, &value)
        }
        SecretCommand::Set { chat, name, unlocking } => {
            let key = Key::ask(printer, unlocking.password_stdin, unlocking.recovery_code).await?;
            let value = value(printer, unlocking.password_stdin).await?;
            let mut secrets = open_by(client, *chat, &key).await?;
            let secret_id = secrets.write(name, &value).await?;
            Ok(printer.line(&secret_id.to_string(), &json!({ "secret_id": secret_id, "name": name }))?)
        }
        SecretCommand::Log { chat } => log(printer, client, *chat).await,
        SecretCommand::Delete { chat, name, unlocking } => {
            let secrets = open(printer, client, *chat, *unlocking).await?;
            let secret_id = find(&secrets, name).await?;
            secrets.delete(secret_id).await?;
            Ok(printer.line(&secret_id.to_string(), &json!({ "secret_id": secret_id, "deleted": true }))?)
        }
    }
}

async fn open(printer: &Printer, client: &Client, chat: ChatId, unlocking: Unlocking) -> Result<OpenSecrets, CliError> {
    let key = Key::ask(printer, unlocking.password_stdin, unlocking.recovery_code).await?;
    open_by(client, chat, &key).await
}

async fn open_by(client: &Client, chat: ChatId, key: &Key) -> Result<OpenSecrets, CliError> {
    client.live().await?;
    Ok(match key {
        Key::Password(password) => client.open_secrets(chat, password).await?,
        Key::Code(code) => client.open_secrets_by_code(chat, code).await?,
    })
}

/// A secret by its name, or by its id: one that cannot be opened has no name that could be told.
async fn find(secrets: &OpenSecrets, name: &str) -> Result<SecretId, CliError> {
    match name.parse() {
        Ok(secret_id) => Ok(secret_id),
        Err(_) => Ok(secrets.find(name).await?),
    }
}

async fn list(printer: &Printer, client: &Client, chat: ChatId, unlocking: Unlocking) -> Result<(), CliError> {
    let secrets = open(printer, client, chat, unlocking).await?;
    client.members(chat).await?;
    for secret in secrets.list().await? {
        let dim = |text: &str| printer.paint.on(Ink::Dim, text);
        let name = match &secret.state {
            SecretState::Open(name) => printer.paint.on(Ink::Strong, &escape(name)),
            _ => dim("?"),
        };
        let (state, openers) = state_of(client, &secret);
        let writer = name_of(client, secret.writer_id);
        let plain = format!(
            "{}\t{name}\t{}\t{writer}\t{state}",
            dim(&secret.secret_id.to_string()),
            dim(&time(secret.changed_at)),
        );
        let object = json!({
            "secret_id": secret.secret_id,
            "name": if let SecretState::Open(name) = &secret.state { Some(name) } else { None },
            "state": word_of(&secret.state),
            "openers": openers,
            "revision": secret.revision,
            "generation": secret.generation,
            "writer_id": secret.writer_id,
            "writer": writer,
            "changed_at": time(secret.changed_at),
            "known_to_former": secret.is_known_to_former,
        });
        printer.line(&plain, &object)?;
    }
    Ok(())
}

const fn word_of(state: &SecretState) -> &'static str {
    match state {
        SecretState::Open(_) => "open",
        SecretState::Waits { .. } => "waits",
        SecretState::Lost => "lost",
        SecretState::Bad(_) => "bad",
    }
}

/// What is to be known of a secret, in words, and who can open it if nobody here can.
fn state_of(client: &Client, secret: &SecretSummary) -> (String, Vec<String>) {
    match &secret.state {
        SecretState::Open(_) if secret.is_known_to_former => {
            ("known to a former member: give it another value".to_owned(), Vec::new())
        }
        SecretState::Open(_) => (String::new(), Vec::new()),
        SecretState::Waits { openers } => {
            let openers: Vec<String> = openers.iter().map(|user| name_of(client, *user)).collect();
            (format!("waits for {} to open the chat's secrets", openers.join(" or ")), openers)
        }
        SecretState::Lost => ("lost: no member can open it any more".to_owned(), Vec::new()),
        SecretState::Bad(failure) => (format!("does not verify: {failure}"), Vec::new()),
    }
}

async fn log(printer: &Printer, client: &Client, chat: ChatId) -> Result<(), CliError> {
    client.live().await?;
    let entries = client.secret_log(chat).await?;
    client.members(chat).await?;
    for entry in entries {
        let (at, name, action) = (time(entry.created_at), name_of(client, entry.user_id), entry.action.as_str());
        let dim = |text: &str| printer.paint.on(Ink::Dim, text);
        let plain = format!("{}\t{name}\t{action}\t{}", dim(&at), dim(&entry.secret_id.to_string()));
        let object = json!({
            "number": entry.number, "created_at": at, "user_id": entry.user_id, "user": name,
            "session_id": entry.session_id, "action": action, "secret_id": entry.secret_id,
            "revision": entry.revision,
        });
        printer.line(&plain, &object)?;
    }
    Ok(())
}

fn name_of(client: &Client, user_id: UserId) -> String {
    client.name_of(user_id).map_or_else(|| user_id.to_string(), |name| name.to_string())
}

/// Writes a value: as it is into a file or a pipe, harmless on a terminal.
fn show(printer: &Printer, name: &str, value: &[u8]) -> Result<(), CliError> {
    let text = std::str::from_utf8(value).ok();
    if printer.is_json() {
        let object = json!({ "name": name, "value": text, "value_base64": STANDARD.encode(value) });
        return Ok(printer.line("", &object)?);
    }
    let mut output = io::stdout().lock();
    if output.is_terminal() {
        let shown = text.map_or_else(|| STANDARD.encode(value), escape);
        return Ok(writeln!(output, "{shown}")?);
    }
    output.write_all(value)?;
    if !value.ends_with(b"\n") {
        output.write_all(b"\n")?;
    }
    Ok(output.flush()?)
}

/// Takes a value: what is left of standard input, or a line that is typed.
async fn value(printer: &Printer, is_stdin: bool) -> Result<Zeroizing<Vec<u8>>, CliError> {
    if !is_stdin {
        let line = Source::of(false).line(printer, "Value").await?;
        return Ok(Zeroizing::new(line.as_bytes().to_vec()));
    }
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: a read that waits must not hold up the end.
    std::thread::spawn(move || {
        let _ = tell.send(read_rest());
    });
    Ok(told.await.map_err(|_| CliError::NobodyToAsk)??)
}

fn read_rest() -> io::Result<Zeroizing<Vec<u8>>> {
    // One byte above the limit is read, so that it is refused and not cut.
    let limit = SECRET_VALUE_BYTES_MAX.saturating_add(2);
    let mut value = Zeroizing::new(Vec::with_capacity(limit));
    io::stdin().lock().take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut value)?;
    if value.ends_with(b"\n") {
        value.pop();
    }
    Ok(value)
}
