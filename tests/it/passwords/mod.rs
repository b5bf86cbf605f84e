//! Passwords and recovery codes: over real HTTP and sockets, with the client library and with the bare protocol.

mod alike;
mod change;
mod codes;
mod dump;
mod inputs;
mod limits;
mod login;
mod replays;
mod siblings;
mod terminal;

use std::sync::Arc;

use sealcast::client::{Client, ClientError, MemoryStorage, NewAccount, Storage};
use sealcast::crypto::opaque::{Login, NewPassword, Parties, Password};
use sealcast::crypto::strongbox::{self, Opened, Sealing};
use sealcast::crypto::{IdentitySecret, Secret};
use sealcast::protocol::account::HttpError;
use sealcast::protocol::binary::Blob;
use sealcast::protocol::ids::{SessionId, UserId};
use sealcast::protocol::password::{
    BeginLogin, BeginPassword, FinishLogin, LOGINS_FINISH_PATH, LOGINS_PATH, LoggedIn, LoginBegun, NewSession,
    PASSWORDS_PATH, PasswordBegun, ReplaceStrongbox, STRONGBOXES_PATH,
};
use sealcast::protocol::strongbox::Stretching;
use sealcast::protocol::username::Username;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::support::broker::Broker;
use super::support::clients::{self, config};
use super::support::within;

/// The name that brokers have unless told otherwise.
const SERVER: &str = "sealcast";

/// As light as the protocol allows: what is tested here is not the stretching.
const LIGHT: Stretching = Stretching { memory_kib: 8 * 1024, passes: 1, lanes: 1 };

pub fn password(text: &str) -> Password {
    Password::new(text.to_owned()).unwrap()
}

pub fn new_account(broker: &Broker, name: &str) -> NewAccount {
    clients::new_account(&broker.public, name)
}

/// Makes an account with a password, kept in `storage`.
pub async fn register_in(broker: &Broker, name: &str, text: &str, storage: Arc<dyn Storage>) -> Client {
    let (account, password) = (new_account(broker, name), password(text));
    let registering = Client::register_with_password(config(), account, &password, storage);
    let client = within("a registration", registering).await.unwrap();
    within("a live client", client.live()).await.unwrap();
    client
}

pub async fn register(broker: &Broker, name: &str, text: &str) -> Client {
    register_in(broker, name, text, Arc::new(MemoryStorage::default())).await
}

/// Logs in on a device that has nothing.
pub async fn log_in(broker: &Broker, name: &str, text: &str) -> Result<Client, ClientError> {
    let (account, password) = (new_account(broker, name), password(text));
    let storage = Arc::new(MemoryStorage::default());
    let client = within("a login", Client::log_in(config(), account, &password, storage)).await?;
    within("a live client", client.live()).await.unwrap();
    Ok(client)
}

/// A request by the bare protocol.
pub async fn post<T: DeserializeOwned>(
    broker: &Broker,
    path: &str,
    body: &impl Serialize,
) -> Result<T, (u16, HttpError)> {
    let (status, text) = broker.request("POST", path, &serde_json::to_string(body).unwrap()).await;
    match status {
        200 => Ok(serde_json::from_str(&text).unwrap()),
        _ => Err((status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}")))),
    }
}

fn parties(username: &Username) -> Parties<'_> {
    Parties { username, server_name: SERVER }
}

/// Seals under a new password of a user.
pub async fn sealing(broker: &Broker, name: &str, text: &str) -> Sealing {
    let (username, password) = (Username::parse(name).unwrap(), password(text));
    let (new, message) = NewPassword::begin(&password).unwrap();
    let begin = BeginPassword { username: name.to_owned(), message };
    let begun: PasswordBegun = post(broker, PASSWORDS_PATH, &begin).await.unwrap();
    let (record, key) = new.finish(&password, parties(&username), LIGHT, &begun.message).unwrap();
    Sealing { key, credential_id: begun.credential_id, record, stretching: LIGHT }
}

/// Begins a login by the bare protocol.
async fn begin(broker: &Broker, name: &str, text: &str) -> (Login, LoginBegun) {
    let (login, message) = Login::begin(&password(text)).unwrap();
    let begin = BeginLogin { username: name.to_owned(), message };
    (login, post(broker, LOGINS_PATH, &begin).await.unwrap())
}

/// KE3 and key of a login that has begun with the right password.
fn answer(login: Login, begun: &LoginBegun, name: &str, text: &str) -> (Blob, Secret) {
    let username = Username::parse(name).unwrap();
    login.finish(&password(text), parties(&username), begun.stretching, &begun.message).unwrap()
}

/// Ends a login.
async fn finish(
    broker: &Broker,
    begun: &LoginBegun,
    message: Blob,
    session: Option<NewSession>,
) -> Result<LoggedIn, (u16, HttpError)> {
    post(broker, LOGINS_FINISH_PATH, &FinishLogin { login_id: begun.login_id, message, session, for_session: None })
        .await
}

/// Logs in for a session that is there.
pub async fn log_in_for(broker: &Broker, name: &str, text: &str, session_id: SessionId) {
    let (login, begun) = begin(broker, name, text).await;
    let (message, _) = answer(login, &begun, name, text);
    let finish = FinishLogin { login_id: begun.login_id, message, session: None, for_session: Some(session_id) };
    let _: LoggedIn = post(broker, LOGINS_FINISH_PATH, &finish).await.unwrap();
}

/// Logs in without a session, and opens what the password protects.
pub async fn open(broker: &Broker, name: &str, text: &str) -> (LoggedIn, Opened) {
    let (login, begun) = begin(broker, name, text).await;
    let (message, key) = answer(login, &begun, name, text);
    let logged_in = finish(broker, &begun, message, None).await.unwrap();
    let opened = strongbox::open(&logged_in.strongbox, logged_in.user_id, &key).unwrap();
    (logged_in, opened)
}

/// Replaces what a password protects.
pub async fn replace(
    broker: &Broker,
    user_id: UserId,
    upload: sealcast::protocol::strongbox::StrongboxUpload,
) -> Result<u64, (u16, HttpError)> {
    let replaced: sealcast::protocol::password::StrongboxReplaced =
        post(broker, STRONGBOXES_PATH, &ReplaceStrongbox { user_id, upload }).await?;
    Ok(replaced.version)
}

/// The 32 bytes of an identity key.
fn seed(identity: &IdentitySecret) -> Vec<u8> {
    let packed = rmp_serde::to_vec(identity).unwrap();
    packed[packed.len() - 32..].to_vec()
}
