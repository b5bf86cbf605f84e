//! The commands about friends who together can recover an account.

use std::sync::Arc;

use serde_json::json;

use super::args::FriendsCommand;
use super::error::CliError;
use super::paint::Ink;
use super::passwords::unlock;
use super::print::{Printer, time};
use super::secrets::Source;
use crate::client::{
    Client, ClientConfig, ClientError, FriendRecovery, FriendsError, KnownRequest, NewAccount, Storage,
};
use crate::crypto::friends::RequestCode;
use crate::crypto::recovery_code::RecoveryCode;
use crate::protocol::ids::RecoveryRequestId;

/// Runs one of them; to recover is not among them, since it has no account yet.
pub(super) async fn friends(printer: &Printer, client: &Client, command: &FriendsCommand) -> Result<(), CliError> {
    match command {
        FriendsCommand::Recover { .. } => Ok(()),
        FriendsCommand::Share { of, usernames, password_stdin, recovery_code } => {
            let code = share_by(printer, client, *of, usernames, (*password_stdin, *recovery_code)).await?;
            let shared = client.share_recovery_code(&code, *of, usernames).await?;
            let names: Vec<&str> = shared.friends.iter().map(|name| name.as_str()).collect();
            let plain = format!("any {of} of {} can recover this account together", names.join(", "));
            printer.remark(&plain);
            let object = json!({ "set_id": shared.set_id, "needed": of, "friends": names });
            if printer.is_json() { Ok(printer.line(&plain, &object)?) } else { Ok(()) }
        }
        FriendsCommand::List => list(printer, client).await,
        FriendsCommand::Requests => {
            client.live().await?;
            for request in client.recovery_requests().await? {
                show(printer, &request)?;
            }
            Ok(())
        }
        FriendsCommand::Approve { request, code, password_stdin } => {
            let code: RequestCode = code.parse()?;
            client.live().await?;
            // Nobody is asked for a password for nothing.
            client.may_approve_recovery(*request, code).await?;
            let password = Source::of(*password_stdin).password(printer, "Password of your own account").await?;
            client.approve_recovery(*request, code, &password).await?;
            let plain = format!("{request}: your share is given");
            Ok(printer.line(&plain, &json!({ "request_id": request, "released": true }))?)
        }
        FriendsCommand::Cancel { requests, password_stdin } => {
            client.live().await?;
            cancel(printer, client, requests, *password_stdin).await
        }
    }
}

/// The recovery code that is split: the one that is typed, or a new one, which is printed.
async fn share_by(
    printer: &Printer,
    client: &Client,
    needed: u32,
    usernames: &[String],
    (is_stdin, is_code): (bool, bool),
) -> Result<RecoveryCode, CliError> {
    if client.holds_identity() {
        return Err(CliError::NoPassword);
    }
    client.live().await?;
    // Before a code is asked for, and the one before ended.
    client.check_friends(needed, usernames).await?;
    let source = Source::of(is_stdin);
    if is_code {
        return Ok(source.line(printer, "Recovery code").await?.parse()?);
    }
    let password = source.password(printer, "Password").await?;
    let code = client.make_recovery_code(&password).await?;
    let text = code.to_text();
    printer.remark("This is your new recovery code, shown once; the one before is good for nothing any more.");
    printer.line(&text, &json!({ "recovery_code": *text }))?;
    Ok(code)
}

async fn list(printer: &Printer, client: &Client) -> Result<(), CliError> {
    client.live().await?;
    let Some(shares) = client.shares().await? else {
        return Err(ClientError::from(FriendsError::NothingShared).into());
    };
    let needed = shares.needed;
    for (user_id, username, is_present) in shares.friends {
        let name = username.as_ref().map_or("?", |name| name.as_str());
        let state = if is_present { "holds a share" } else { "is no more, and their share with them" };
        let plain =
            format!("{}\t{name}\t{state}; {needed} are needed", printer.paint.on(Ink::Dim, &user_id.to_string()));
        let object = json!({ "user_id": user_id, "username": name, "present": is_present, "needed": needed });
        printer.line(&plain, &object)?;
    }
    Ok(())
}

fn show(printer: &Printer, request: &KnownRequest) -> Result<(), CliError> {
    let id = request.request_id;
    let what = match &request.held {
        None => "this is about your own account: if it is not you, cancel it now".to_owned(),
        Some(held) if held.is_released => "you have given your share".to_owned(),
        Some(held) if held.left.is_zero() => "you can approve it with the code that they tell you".to_owned(),
        Some(held) => format!("you can approve it in {} min", held.left.as_secs().div_ceil(60)),
    };
    let asked = time(request.created_at);
    let plain = format!(
        "{id}\t{}\t{}\t{}\t{what}",
        request.username,
        printer.paint.on(Ink::Dim, &asked),
        printer.paint.on(Ink::Dim, &format!("{} helped", request.released)),
    );
    let object = json!({
        "request_id": id, "user_id": request.user_id, "username": request.username, "own": request.is_own,
        "created_at": asked, "expires_at": time(request.expires_at), "released": request.released,
        "left_s": request.held.map(|held| held.left.as_secs()),
        "released_by_you": request.held.is_some_and(|held| held.is_released),
    });
    Ok(printer.line(&plain, &object)?)
}

async fn cancel(
    printer: &Printer,
    client: &Client,
    requests: &[RecoveryRequestId],
    is_stdin: bool,
) -> Result<(), CliError> {
    let mut unlocked = None;
    for request in requests {
        match client.cancel_recovery(*request).await {
            Err(ClientError::NoIdentityKey) if unlocked.is_none() => {
                unlocked = unlock(printer, client, is_stdin).await?;
                client.cancel_recovery(*request).await?;
            }
            cancelled => cancelled?,
        }
        printer.line(&format!("{request}: cancelled"), &json!({ "request_id": request, "cancelled": true }))?;
    }
    Ok(())
}

/// Recovers an account with the help of friends.
pub(super) async fn recover(
    printer: &Printer,
    config: ClientConfig,
    account: NewAccount,
    storage: Arc<dyn Storage>,
    is_stdin: bool,
) -> Result<Client, CliError> {
    let source = Source::of(is_stdin);
    let mut recovery = FriendRecovery::begin(config, account, storage).await?;
    if recovery.is_reset() {
        printer.remark("The new password was set before; this device is to log in with it.");
        let password = source.password(printer, "New password").await?;
        return Ok(recovery.log_in(&password).await?);
    }
    let (request_id, code) = (recovery.request_id(), recovery.code().to_text());
    printer.remark(
        "Call your friends and tell them this code. A day after their devices have seen the request, each of them can \
         `friends approve` it. You may end this command meanwhile, and go on with the same profile.",
    );
    printer.line(&format!("{request_id} {code}"), &json!({ "request_id": request_id, "code": code }))?;
    let gathered = recovery.wait().await?;
    for bad in &gathered.bad {
        printer.complain(&format!("what {} gave is no share of this account's code", bad.username));
    }
    let from: Vec<&str> = gathered.from.iter().map(|name| name.as_str()).collect();
    printer.remark(&format!("The shares of {} are enough.", from.join(", ")));
    let password = source.new_password(printer, "New password").await?;
    let code = recovery.reset(&gathered, &password).await?.to_text();
    printer.remark("This is your new recovery code, shown once. What your friends hold is good for nothing any more:");
    printer.line(&code, &json!({ "recovery_code": *code }))?;
    printer.remark("`friends share` it anew when you are ready.");
    Ok(recovery.log_in(&password).await?)
}
