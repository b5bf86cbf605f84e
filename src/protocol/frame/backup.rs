//! Frames about backups of sessions' keys: handed on to another session of the same user, and fetched.

use serde::{Deserialize, Serialize};

use crate::protocol::backup::SessionKeyBackup;
use crate::protocol::ids::SessionId;

/// Keys of older sessions for a live session of the same user. What is there stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadBackups {
    /// The recipient of all of them.
    pub session_id: SessionId,
    /// At most [`BACKUPS_MAX`](crate::protocol::limits::BACKUPS_MAX); none to ask whether the recipient has any.
    pub backups: Vec<SessionKeyBackup>,
}

/// What the recipient had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupsStored {
    /// Whether the recipient held backups before this request.
    pub held_before: bool,
}

/// Every backup for this session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backups {
    /// In the order in which they were stored.
    pub backups: Vec<SessionKeyBackup>,
}
