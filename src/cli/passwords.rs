//! The commands about passwords and recovery codes.

use serde_json::json;

use super::args::PasswordCommand;
use super::error::CliError;
use super::print::Printer;
use super::secrets::Source;
use crate::client::{Client, Unlocked};
use crate::crypto::opaque::Password;
use crate::crypto::recovery_code::RecoveryCode;

/// By what a user comes in.
#[derive(Debug)]
pub(super) enum Key {
    Password(Password),
    Code(RecoveryCode),
}

impl Key {
    /// Takes a password or a recovery code.
    pub(super) async fn ask(printer: &Printer, is_stdin: bool, is_code: bool) -> Result<Self, CliError> {
        let source = Source::of(is_stdin);
        if is_code {
            return Ok(Self::Code(source.line(printer, "Recovery code").await?.parse()?));
        }
        Ok(Self::Password(source.password(printer, "Password").await?))
    }
}

/// The password of a new account; none if nobody gives one.
pub(super) async fn first_password(printer: &Printer, is_stdin: bool) -> Result<Option<Password>, CliError> {
    let source = Source::of(is_stdin);
    match source {
        Source::Nowhere => Ok(None),
        Source::Stdin => source.password(printer, "").await.map(Some),
        Source::Terminal => {
            let first = source.line(printer, "Password, or nothing for an account without one").await?;
            if first.is_empty() {
                return Ok(None);
            }
            if *source.line(printer, "The same again").await? != *first {
                return Err(CliError::NotTheSame);
            }
            Ok(Some(Password::new(first.to_string())?))
        }
    }
}

/// Opens the identity key for one operation, if a password protects it.
pub(super) async fn unlock(printer: &Printer, client: &Client, is_stdin: bool) -> Result<Option<Unlocked>, CliError> {
    if client.holds_identity() {
        return Ok(None);
    }
    let password = Source::of(is_stdin).password(printer, "Password").await?;
    Ok(Some(client.unlock(&password).await?))
}

/// Replaces the password.
pub(super) async fn change(printer: &Printer, client: &Client, command: &PasswordCommand) -> Result<(), CliError> {
    let PasswordCommand::Change { password_stdin, recovery_code } = command;
    let source = Source::of(*password_stdin);
    if *recovery_code {
        let code: RecoveryCode = source.line(printer, "Recovery code").await?.parse()?;
        let new = source.new_password(printer, "New password").await?;
        client.reset_password(&code, &new).await?;
    } else {
        let old = match client.holds_identity() {
            true => None,
            false => Some(source.password(printer, "Old password").await?),
        };
        let new = source.new_password(printer, "New password").await?;
        client.change_password(old.as_ref(), &new).await?;
    }
    let username = client.username();
    let plain = format!("the password of {username} is changed");
    Ok(printer.line(&plain, &json!({ "username": username, "password": "changed" }))?)
}

/// Makes a recovery code and prints it.
pub(super) async fn recovery_code(printer: &Printer, client: &Client, is_stdin: bool) -> Result<(), CliError> {
    if client.holds_identity() {
        return Err(CliError::NoPassword);
    }
    let password = Source::of(is_stdin).password(printer, "Password").await?;
    let code = client.make_recovery_code(&password).await?.to_text();
    printer.remark("This is shown once. Keep it on paper: whoever has it has the account.");
    Ok(printer.line(&code, &json!({ "recovery_code": *code }))?)
}
