//! Runs one command: opens the profile, catches up, acts, keeps the state, and says how it ended.

use std::cell::Cell;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::account::{account, block, blocks, unblock};
use super::args::{ClientArgs, Command, FriendsCommand, SessionCommand};
use super::chats::{chat, recovered_line, recovered_object};
use super::error::CliError;
use super::friends::{friends, recover};
use super::group_secrets::secret;
use super::messages::{Wait, edited, find, id_of, reaction_to, reply_to};
use super::passwords::{Key, change, first_password, recovery_code};
use super::print::{Printer, time};
use super::profile::profile;
use super::qr::Shown;
use super::read::{What, read};
use super::safety;
use super::sessions::session;
use super::talk::{Wishes, talk};
use super::words;
use crate::client::{
    Body, Client, ClientConfig, ClientError, Connector, Event, EventStream, NewAccount, PendingLink, Profile,
    Recovered, Storage, StorageError,
};
use crate::crypto::opaque::Password;
use crate::protocol::codec::Encoding;
use crate::protocol::ids::{ChatId, MessageId, SessionId};

/// The variable that holds a passphrase.
const PASSPHRASE_VARIABLE: &str = "SEALCAST_PASSPHRASE";

/// The variable that holds a filter of log lines, like `sealcast=debug`.
const LOG_VARIABLE: &str = "SEALCAST_LOG";

/// Kept of a command's time for its end.
const RESERVE: Duration = Duration::from_secs(1);

/// How long another command may keep the profile, unless --timeout says less.
const PROFILE_WAIT: Duration = Duration::from_secs(30);

/// For a command without a limit: far away.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Runs a command of the terminal client; a failure is one line of standard error and exit code 1.
///
/// # Cancel safety
/// What was kept is kept; what was on its way may have happened.
pub async fn run(args: ClientArgs) -> ExitCode {
    show_log();
    let runner = Runner::new(args);
    match Box::pin(runner.run()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            runner.printer.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error if asked to; a command is quiet otherwise.
fn show_log() {
    let Ok(filter) = std::env::var(LOG_VARIABLE) else { return };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Whoever embeds this may log already.
    let _ = subscriber.try_init();
}

struct Runner {
    args: ClientArgs,
    printer: Printer,
    limit: Option<Duration>,
    deadline: Instant,
    is_sealed: Cell<bool>,
}

impl Runner {
    fn new(args: ClientArgs) -> Self {
        let printer = Printer::new(args.json, args.color);
        let limit = args.limit();
        let usable = limit.map_or(FAR, |limit| limit - RESERVE.min(limit / 4));
        Self { printer, limit, deadline: Instant::now() + usable, is_sealed: Cell::new(false), args }
    }

    async fn run(&self) -> Result<(), CliError> {
        match &self.args.command {
            Command::Register { account, password_stdin, invitation } => {
                let password = first_password(&self.printer, *password_stdin).await?;
                self.register(account.account(), password, invitation.as_deref()).await
            }
            Command::Login { account, password_stdin, recovery_code, replace } => {
                let key = Key::ask(&self.printer, *password_stdin, *recovery_code).await?;
                self.log_in(account.account(), key, *replace).await
            }
            Command::Password { command } => {
                let client = self.open().await?;
                self.finish(&client, change(&self.printer, &client, command)).await
            }
            Command::RecoveryCode { password_stdin } => {
                let client = self.open().await?;
                self.finish(&client, recovery_code(&self.printer, &client, *password_stdin)).await
            }
            Command::Friends { command: FriendsCommand::Recover { account, password_stdin } } => {
                self.recover(account.account(), *password_stdin).await
            }
            Command::Friends { command } => {
                let client = self.open().await?;
                self.finish(&client, friends(&self.printer, &client, command)).await
            }
            Command::Session { command: SessionCommand::Link { server, username, qr } } => {
                self.link(server, username, *qr).await
            }
            Command::Session { command } => {
                let client = self.open().await?;
                self.finish(&client, session(&self.printer, &client, command)).await
            }
            Command::Chat { command } => {
                let client = self.open().await?;
                self.finish(&client, chat(&self.printer, &client, command)).await
            }
            Command::Send { chat, text, id } => {
                let client = self.open().await?;
                let message_id = id.unwrap_or_else(MessageId::generate);
                let result = self.wait(&client, *chat).send(message_id, &Body::text(text)).await;
                self.end(&client).await;
                result
            }
            Command::Reply { chat, message, text } => {
                let client = self.open().await?;
                let wait = self.wait(&client, *chat);
                let result = async {
                    let found = wait.first(find(&client, *chat, *message)).await?;
                    wait.send(MessageId::generate(), &reply_to(found, text)).await
                };
                let result = result.await;
                self.end(&client).await;
                result
            }
            Command::React { chat, message, emoji } => {
                let client = self.open().await?;
                let wait = self.wait(&client, *chat);
                let result = async {
                    let to = wait.first(id_of(&client, *chat, *message)).await?;
                    wait.send(MessageId::generate(), &reaction_to(to, emoji)).await
                };
                let result = result.await;
                self.end(&client).await;
                result
            }
            Command::Edit { chat, message, text } => {
                let client = self.open().await?;
                let wait = self.wait(&client, *chat);
                let result = async {
                    let found = wait.first(find(&client, *chat, *message)).await?;
                    let body = edited(found, text);
                    wait.outcome(found.message_id, client.edit_body(*chat, found.message_id, &body)).await
                };
                let result = result.await;
                self.end(&client).await;
                result
            }
            Command::Delete { chat, message } => {
                let client = self.open().await?;
                let wait = self.wait(&client, *chat);
                let result = async {
                    let message_id = wait.first(id_of(&client, *chat, *message)).await?;
                    wait.outcome(message_id, client.delete_message(*chat, message_id)).await
                };
                let result = result.await;
                self.end(&client).await;
                result
            }
            Command::Block { username } => {
                let client = self.open().await?;
                self.finish(&client, async { Ok(self.printer.report(&block(&client, username).await?)?) }).await
            }
            Command::Unblock { username } => {
                let client = self.open().await?;
                self.finish(&client, async { Ok(self.printer.report(&unblock(&client, username).await?)?) }).await
            }
            Command::Blocks => {
                let client = self.open().await?;
                let listing = async {
                    for report in blocks(&client).await? {
                        self.printer.report(&report)?;
                    }
                    Ok(())
                };
                self.finish(&client, listing).await
            }
            Command::Profile { command } => {
                let client = self.open().await?;
                self.finish(&client, profile(&self.printer, &client, command)).await
            }
            Command::Account { command } => {
                let client = self.open().await?;
                self.finish(&client, account(&self.printer, &client, command)).await
            }
            Command::Secret { command } => {
                let client = self.open().await?;
                self.finish(&client, secret(&self.printer, &client, command)).await
            }
            Command::Read { chat, since, follow, mark } => {
                let client = self.open().await?;
                let what = What { chat: *chat, since: *since, is_followed: *follow, is_marked: *mark };
                self.finish(&client, read(&self.printer, &client, what)).await
            }
            Command::Talk { chat, last, lines, receipts } => {
                let client = self.open().await?;
                let wishes = Wishes { last: *last, is_lines: *lines, receipts: *receipts };
                let talking = Box::pin(talk(&client, *chat, wishes, &self.printer));
                let result = self.finish(&client, talking).await;
                self.remind(&client, *chat);
                result
            }
            Command::SafetyNumber { username } => {
                let client = self.open().await?;
                let showing = async {
                    for report in safety::report(&client, username, self.printer.paint).await? {
                        self.printer.report(&report)?;
                    }
                    Ok(())
                };
                self.finish(&client, showing).await
            }
        }
    }

    /// Runs the body of a command within its time, and keeps the state whatever came of it.
    async fn finish(&self, client: &Client, body: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
        let mut events = client.events();
        let result = match timeout_at(self.deadline, body).await {
            Ok(result) => result,
            Err(_) => Err(CliError::Timeout { limit: self.limit.unwrap_or(FAR), failure: client.last_failure() }),
        };
        self.end(client).await;
        self.warn(&mut events, result.is_ok()).await;
        result
    }

    /// Says what did not verify while the command ran; and if it went well, that the password will be needed.
    async fn warn(&self, events: &mut EventStream, is_well: bool) {
        // The client has closed, so the stream comes to its end.
        while let Ok(Some(event)) = events.next().await {
            match &*event {
                Event::Alarm(alarm) => self.printer.complain(&words::of_alarm(alarm)),
                Event::PasswordNeeded { expired_at } if is_well => self.printer.remark(&format!(
                    "note: this session runs out at {}; `login` with the account's password renews it",
                    time(*expired_at),
                )),
                Event::RecoveryRequested { request_id, is_own: true, .. } if self.is_to_be_told() => {
                    self.printer.complain(&format!(
                        "somebody asks your friends to recover this account: if it is not you, \
                         `friends cancel {request_id}`"
                    ));
                }
                Event::Closed(_) => return,
                _ => {}
            }
        }
    }

    /// Says that messages are left that are not sent.
    fn remind(&self, client: &Client, chat: ChatId) {
        let left = match client.waiting(chat) {
            0 => return,
            1 => "1 message is not sent yet; it is kept, and goes".to_owned(),
            count => format!("{count} messages are not sent yet; they are kept, and go"),
        };
        self.printer.remark(&format!("note: {left} out with the next command that connects"));
    }

    async fn end(&self, client: &Client) {
        if let Ok(Err(error)) = tokio::time::timeout(RESERVE, client.close()).await {
            tracing::error!(%error, "state cannot be kept");
        }
    }

    fn config(&self) -> Result<ClientConfig, CliError> {
        let mut config = ClientConfig::new(Connector::new(self.args.ca.as_deref())?);
        if self.args.wire_json {
            config.encoding = Encoding::Json;
        }
        #[cfg(feature = "fail-points")]
        if let Some(seconds) = self.args.recovery_window {
            config.recovery_window = Duration::from_secs(seconds);
        }
        Ok(config)
    }

    fn passphrase(&self) -> Result<Option<Zeroizing<Vec<u8>>>, CliError> {
        if let Some(path) = &self.args.passphrase_file {
            let read = std::fs::read(path).map_err(|source| CliError::Passphrase { path: path.clone(), source })?;
            let mut phrase = Zeroizing::new(read);
            while matches!(phrase.last(), Some(b'\n' | b'\r')) {
                phrase.pop();
            }
            return Ok(Some(phrase));
        }
        let variable = std::env::var_os(PASSPHRASE_VARIABLE).filter(|phrase| !phrase.is_empty());
        Ok(variable.map(|phrase| Zeroizing::new(phrase.into_encoded_bytes())))
    }

    async fn profile(&self, may_create: bool) -> Result<Arc<dyn Storage>, CliError> {
        let passphrase = self.passphrase()?;
        let folder = self.args.profile.clone();
        // A command that waits for ever for somebody does not wait so for its profile.
        let wait = self.deadline.saturating_duration_since(Instant::now()).min(PROFILE_WAIT);
        let opened = tokio::task::spawn_blocking(move || open_profile(&folder, passphrase, wait, may_create)).await;
        let profile = opened.map_err(|error| ClientError::Profile(Box::new(error)))??;
        self.is_sealed.set(profile.is_sealed());
        Ok(Arc::new(profile))
    }

    /// Says once, when a profile has come to hold an account, how its keys are kept.
    fn note_protection(&self) {
        if !self.is_sealed.get() {
            self.printer.remark(&format!(
                "note: the keys in {} are kept unencrypted, readable by you alone; {PASSPHRASE_VARIABLE} would seal them",
                self.args.profile.display(),
            ));
        }
    }

    async fn open(&self) -> Result<Client, CliError> {
        let storage = self.profile(false).await?;
        Ok(Client::open(self.config()?, storage).await?)
    }

    async fn log_in(&self, account: NewAccount, key: Key, replaced: Option<SessionId>) -> Result<(), CliError> {
        let storage = self.profile(true).await?;
        let config = self.config()?;
        let logging_in = async {
            match &key {
                Key::Password(password) => Client::log_in_instead(config, account, password, replaced, storage).await,
                Key::Code(code) => Client::recover_instead(config, account, code, replaced, storage).await,
            }
        };
        let client = timeout_at(self.deadline, logging_in).await.map_err(|_| self.timeout(None))??;
        self.note_protection();
        let (user_id, name, session_id) = (client.user_id(), client.username(), client.session_id());
        let body = async {
            let recovered = self.history_opened(&client).await?;
            let object =
                json!({ "user_id": user_id, "username": name, "session_id": session_id, "recovered": recovered });
            Ok(self.printer.line(&format!("{user_id} {name}"), &object)?)
        };
        self.finish(&client, body).await
    }

    /// Waits until what was said before a device that has just logged in is open, and says how much that is.
    async fn history_opened(&self, client: &Client) -> Result<Option<Value>, CliError> {
        client.live().await?;
        let recovered = client.recovered().await;
        match recovered {
            Some(recovered) if recovered == Recovered::default() => {}
            Some(recovered) => self.printer.remark(&format!("note: {}", recovered_line(recovered))),
            None => self
                .printer
                .remark("note: what was said before this device could not be opened now; `chat recover` tries again"),
        }
        Ok(recovered.map(recovered_object))
    }

    async fn register(
        &self,
        account: NewAccount,
        password: Option<Password>,
        invitation: Option<&str>,
    ) -> Result<(), CliError> {
        let storage = self.profile(true).await?;
        let config = self.config()?;
        let registering = async {
            match (&password, invitation) {
                (password, Some(code)) => {
                    Client::register_invited(config, account, password.as_ref(), code, storage).await
                }
                (Some(password), None) => Client::register_with_password(config, account, password, storage).await,
                (None, None) => Client::register(config, account, storage).await,
            }
        };
        let client = timeout_at(self.deadline, registering).await.map_err(|_| self.timeout(None))??;
        let (user_id, name) = (client.user_id(), client.username());
        self.end(&client).await;
        self.note_protection();
        if password.is_none() {
            self.printer.remark(
                "note: without a password this account is lost with its last device, and what was said with it; \
                 `password change` gives it one",
            );
        }
        let object = json!({ "user_id": user_id, "username": name, "session_id": client.session_id() });
        Ok(self.printer.line(&format!("{user_id} {name}"), &object)?)
    }

    /// Whether requests for this account are news here: the commands about them show them by themselves.
    fn is_to_be_told(&self) -> bool {
        !matches!(self.args.command, Command::Friends { .. })
    }

    async fn recover(&self, account: NewAccount, is_stdin: bool) -> Result<(), CliError> {
        let storage = self.profile(true).await?;
        let recovering = recover(&self.printer, self.config()?, account, storage, is_stdin);
        let client = timeout_at(self.deadline, recovering).await.map_err(|_| self.timeout(None))??;
        self.note_protection();
        self.finish(&client, async {
            let recovered = self.history_opened(&client).await?;
            let (user_id, name, session_id) = (client.user_id(), client.username(), client.session_id());
            let object =
                json!({ "user_id": user_id, "username": name, "session_id": session_id, "recovered": recovered });
            self.printer.line(&format!("{user_id} {name}"), &object)?;
            self.printer.remark("Look at `session list` now, and end sessions that are not in your hands any more.");
            Ok(())
        })
        .await
    }

    async fn link(&self, server: &str, username: &str, is_drawn: bool) -> Result<(), CliError> {
        let storage = self.profile(true).await?;
        let account = NewAccount { server: server.to_owned(), username: username.to_owned(), ttl: None };
        let link = PendingLink::begin(self.config()?, account, storage);
        let link = timeout_at(self.deadline, link).await.map_err(|_| self.timeout(None))??;
        let (name, code) = (link.username(), link.code());
        let shown = Shown { username: name.as_str(), code: &code };
        self.printer.line(&code, &json!({ "code": code, "qr": shown.text() }))?;
        if !self.printer.is_json()
            && let Some(lines) = shown.drawn(is_drawn, self.printer.paint)
        {
            self.printer.drawing(&lines)?;
        }
        let client = timeout_at(self.deadline, link.wait()).await.map_err(|_| self.timeout(None))??;
        self.note_protection();
        self.finish(&client, async { Ok(client.live().await?) }).await
    }

    fn wait<'a>(&'a self, client: &'a Client, chat: ChatId) -> Wait<'a> {
        let limit = self.limit.unwrap_or(FAR);
        Wait { client, printer: &self.printer, chat, deadline: self.deadline, limit }
    }

    fn timeout(&self, failure: Option<String>) -> CliError {
        CliError::Timeout { limit: self.limit.unwrap_or(FAR), failure }
    }
}

fn open_profile(
    folder: &Path,
    passphrase: Option<Zeroizing<Vec<u8>>>,
    wait: Duration,
    may_create: bool,
) -> Result<Profile, StorageError> {
    let passphrase = passphrase.as_ref().map(|phrase| phrase.as_slice());
    if may_create {
        Ok(Profile::open_or_create(folder, passphrase, wait)?.0)
    } else {
        Profile::open(folder, passphrase, wait)
    }
}
