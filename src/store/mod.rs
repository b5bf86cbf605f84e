//! The store: Postgres and nothing else.
//!
//! Lives here: the private Postgres, the pool and its named transactions, migrations, one file for each family
//! of tables, and the writer that commits messages in batches. Floor 2: imports protocol, config and telemetry.
//! Invariants: S1 whatever changes a user's sessions, or adds or removes the user in a chat, locks the user's
//! row, then the chats' rows in order of id, and reads after the locks. S2 every entry of a log is written in
//! the transaction that moves the chat's head. S3 callers never see an SQLSTATE.

pub mod accounts;
pub mod archives;
pub mod backups;
pub mod batch;
pub mod chains;
mod change_limits;
pub mod chats;
pub mod clock;
mod columns;
pub mod commit;
pub mod copies;
pub mod cursors;
pub mod embedded;
pub mod error;
pub mod friends;
pub mod generation_links;
pub mod group_keys;
pub mod group_secrets;
pub mod head;
pub mod info;
mod info_seals;
pub mod inspect;
pub mod invitations;
pub mod judgement;
pub mod keys;
pub mod labels;
pub mod lanes;
pub mod linking;
pub mod loaded;
pub mod members;
pub mod messages;
pub mod migrate;
pub mod newly_live;
pub mod operator;
pub mod outage;
mod parts;
pub mod passwords;
mod plain;
pub mod pool;
pub mod postgres_error;
pub mod profile_readers;
pub mod profiles;
pub mod recovery_requests;
pub mod refusals;
mod renewal;
pub mod revisions;
pub mod rows;
mod sealed_info;
pub mod sessions;
pub mod settings;
mod statements;
pub mod strongboxes;
pub mod transaction;
pub mod users;
pub mod writer;

pub use error::{Failure, StoreError};
pub use pool::Store;
