//! The client library: an account on one device, its chats, and everything that keeps them honest.
//!
//! Lives here: connection, keyring, verified logs, outbox. Wing: imports the protocol and crypto.
//! A [`Client`] is a cloneable handle; one task behind it keeps the connection, reconnects and resumes, and
//! what goes wrong with the network is not seen by its user. What does not verify is an [`Alarm`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use sealcast::client::{Client, ClientConfig, Connector, Ephemeral, NewAccount};
//!
//! let config = ClientConfig::new(Connector::new(None)?);
//! let account = NewAccount { server: "https://chat.example".to_owned(), username: "ann".to_owned(), ttl: None };
//! let ann = Client::register(config, account, Arc::new(Ephemeral)).await?;
//! let chat = ann.create_chat("Lunch").await?;
//! let sent = ann.send(chat, "anyone?").await?;
//! println!("entry {} of the log", sent.seq);
//! # Ok(()) }
//! ```

mod account;
mod backoff;
mod body;
mod chains;
mod chat;
mod config;
mod coverage;
mod engine;
mod error;
mod event;
mod failure;
mod friends;
mod handle;
mod keyring;
mod link;
mod live;
mod log_in;
mod moderation;
mod net;
mod password;
mod pending;
mod people;
mod profile;
mod receipt;
mod recovery;
mod renew;
mod revise;
mod secrets;
mod signal;
mod storage;
mod user_profile;
#[cfg(test)]
mod user_profile_tests;
mod view;

pub use crate::crypto::user_profile::PlainProfile;
pub use account::{NewAccount, SESSION_TTL};
pub use body::{Body, Reply};
pub use config::ClientConfig;
pub use coverage::{Coverage, CoverageRange, LockedMessage, Openness};
pub use engine::history::{History, HistoryPage};
pub use error::{ClientError, CloseReason, SendError};
pub use event::{Alarm, Deletion, Event, Message};
pub use failure::VerificationFailure;
pub use friends::{
    Bad, FriendRecovery, FriendsError, Gathered, HeldRequest, KnownRequest, OwnShares, Progress, SharedWith,
};
pub use handle::{Client, Sent};
pub use link::PendingLink;
pub use net::{Connector, Endpoint, NetworkError};
pub use password::Unlocked;
pub use profile::Profile;
pub use recovery::Recovered;
pub use revise::ReceiptsTo;
pub use secrets::{OpenSecrets, SecretState, SecretSummary};
pub use signal::Signal;
pub use storage::{Ephemeral, MemoryStorage, Record, Storage, StorageError};
pub use view::{ChatMember, ChatSummary, EventStream, OwnSession, OwnSessions, Stats};
