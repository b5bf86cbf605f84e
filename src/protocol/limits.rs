//! Names every bound of the wire, with its unit and its reason.
//!
//! Operators set rates and lifetimes in `config.toml`; what stands here is part of the protocol, the same on
//! both ends. Relations between bounds are checked by the compiler at the foot of the file.

/// Bytes of one WebSocket message from a client: holds the largest [`DATA_BYTES_MAX`] beside
/// [`COPIES_PER_FRAME_MAX`] copies in JSON, and no more, since a session's memory is counted in it.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a message's ciphertext with nonce and tag.
pub const DATA_BYTES_MAX: usize = 64 * 1024;

/// Copies in one frame: more go ahead in parts.
pub const COPIES_PER_FRAME_MAX: usize = 500;

/// Parts of one staged list of copies: with [`COPIES_PER_FRAME_MAX`] room for 32,000 recipients.
pub const STAGED_PARTS_MAX: u32 = 64;

/// Seconds a staged list of copies is kept.
pub const STAGED_KEPT_S: u64 = 60;

/// Attachments of one message.
pub const ATTACHMENTS_MAX: usize = 32;

/// Cursors in one `resume`: above the largest number of chats a user may be in.
pub const CURSORS_MAX: usize = 1_000;

/// Entries of one page of the log.
pub const PAGE_ENTRIES_MAX: u32 = 200;

/// Bytes of data in one page of the log, after which it ends early; one entry may overshoot it.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;

/// Bytes of a chat's encrypted name.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Bytes of a chat's encrypted description.
pub const DESCRIPTION_BYTES_MAX: usize = 4_096;

/// Info-key wraps in one request for a whole chat, and sessions that one push asks for; more follow.
pub const INFO_KEY_WRAPS_PER_CHAT_MAX: usize = 256;

/// Info-key wraps in one request: sessions of one user.
pub const INFO_KEY_WRAPS_MAX: usize = 64;

/// Bytes of a user's encrypted name.
pub const PROFILE_NAME_BYTES_MAX: usize = 512;

/// Bytes of a user's encrypted email: room for the longest address of RFC 5321.
pub const PROFILE_EMAIL_BYTES_MAX: usize = 512;

/// Bytes of a user's encrypted description.
pub const PROFILE_DESCRIPTION_BYTES_MAX: usize = 4_096;

/// Wraps of a user's info key in one request, and sessions that one push asks for; more follow.
pub const PROFILE_KEY_WRAPS_MAX: usize = 256;

/// Bytes of the sealed hand-over to a new session: identity key, info keys and anchors of all chats.
pub const HANDOVER_BYTES_MAX: usize = 128 * 1024;

/// Key identifiers in one `keys` request.
pub const KEYS_PER_REQUEST_MAX: usize = 200;

/// Key identifiers in one `fetch_archives` request.
pub const ARCHIVES_PER_REQUEST_MAX: usize = 100;

/// Group keys in one answer to `fetch_group_keys`.
pub const GROUP_KEYS_PER_REQUEST_MAX: u32 = 200;

/// Links between generations in one request, and in one answer to `fetch_links`.
pub const LINKS_PER_REQUEST_MAX: usize = 200;

/// Archives of one key by others than its sender.
pub const ARCHIVES_PER_KEY_MAX: u64 = 4;

/// User keys of a chat's members up to which it has a group key: wraps to all of them fit in one frame. In a larger chat
/// history survives by devices alone.
pub const MEMBER_KEYS_MAX: usize = 1_000;

/// Generations that one user refuses in an hour, over all chats.
pub const GENERATION_REFUSALS_PER_HOUR_MAX: u64 = 6;

/// Secrets of a chat.
pub const SECRETS_MAX: u64 = 256;

/// Bytes of a secret's encrypted name: 256 and those that sealing adds.
pub const SECRET_NAME_BYTES_MAX: usize = 256 + 28;

/// Bytes of a secret's encrypted value, nonce and tag included.
pub const SECRET_VALUE_BYTES_MAX: usize = 32 * 1024;

/// Secrets in one answer to `list_secrets`.
pub const SECRETS_PER_REQUEST_MAX: u32 = 64;

/// Deleted secrets that a chat remembers, and entries of the log of its secrets.
pub const SECRET_LOG_MAX: u64 = 1_000;

/// Entries in one answer to `fetch_secret_log`.
pub const SECRET_LOG_ENTRIES_PER_REQUEST_MAX: u32 = 100;

/// Members who are named as able to open a generation.
pub const SECRET_OPENERS_MAX: u32 = 10;

/// Secrets of one chat that one user makes, changes or deletes in a minute; what is sealed again does not count.
pub const SECRET_WRITES_PER_MINUTE_MAX: u64 = 60;

/// Users in one `user_events` request.
pub const CHAINS_PER_REQUEST_MAX: usize = 100;

/// Entries of users' chains in one answer.
pub const CHAIN_EVENTS_MAX: u32 = 500;

/// Bytes of a session's encrypted name.
pub const LABEL_BYTES_MAX: usize = 512;

/// Bytes of a signal's ciphertext with nonce and tag.
pub const SIGNAL_BYTES_MAX: usize = 1_024;

/// Seconds after which receivers drop a signal.
pub const SIGNAL_AGE_MAX_S: u64 = 30;

/// Recipients of a chat up to which its sessions are told how far each other has come.
pub const DELIVERED_RECIPIENTS_MAX: usize = 50;

/// Users whom one user has blocked.
pub const BLOCKS_MAX: usize = 1_000;

/// Refusals of copies that one session may make in an hour; more are noted, and void nothing.
pub const REFUSALS_PER_HOUR_MAX: u64 = 10;

/// Backups that one session holds, and that fit in one request.
pub const BACKUPS_MAX: usize = 32;

/// Keys that one session may have asked for and not got yet.
pub const KEY_REQUESTS_MAX: u64 = 1_000;

/// Entries of one user's chain that a client follows.
pub const CHAIN_LENGTH_MAX: usize = 100_000;

/// Changes of a chat's history policy in a day.
pub const HISTORY_CHANGES_PER_DAY_MAX: u64 = 2;

/// `rekey` changes of a chat in an hour.
pub const REKEYS_PER_HOUR_MAX: u64 = 6;

/// Unread messages that the server counts of each chat in a list; more are as many.
pub const UNREAD_MAX: u64 = 100;

/// Entries after a cursor among which the server counts unread messages, so that no chat makes a list slow.
pub const UNREAD_SCANNED_MAX: u64 = 1_000;

/// Characters of a username, at least.
pub const USERNAME_LENGTH_MIN: usize = 3;

/// Characters of a username, at most.
pub const USERNAME_LENGTH_MAX: usize = 32;

/// Bytes of the body of an HTTP request.
pub const HTTP_BODY_BYTES_MAX: usize = 16 * 1024;

/// User keys of one user, with those that serve for reading alone: all of them fit in one request.
pub const USER_KEYS_MAX: usize = 24;

/// User keys that a user makes in a day.
pub const USER_KEYS_PER_DAY_MAX: u64 = 2;

/// Friends who hold shares of one recovery code, and users in one `fetch_user_keys`.
pub const SHARES_MAX: usize = 16;

/// Shares that recover, at least: one friend alone must not.
pub const SHARES_NEEDED_MIN: u32 = 2;

/// Bytes of a share that is sealed to a request, with the signed set beside it.
pub const RELEASE_BYTES_MAX: usize = 8 * 1024;

/// Requests for recovery of one user that are open at a time; a newer one ends the oldest without a share.
pub const RECOVERY_REQUESTS_MAX: i64 = 8;

/// Seconds a request for recovery is kept: long enough for the friends' window of a day and for those who are away.
pub const RECOVERY_REQUEST_KEPT_S: u64 = 7 * 86_400;

/// Seconds after a cancellation by a live session alone in which the next one takes the identity key.
pub const RECOVERY_CANCEL_REST_S: u64 = 30 * 86_400;

/// Depth of nesting that a decoder follows.
pub const NESTING_MAX: usize = 32;

/// A copy in JSON: 80 bytes in base64url, a UUID, field names and punctuation.
const COPY_JSON_BYTES: usize = 107 + 36 + 40;

/// Everything of a `send` in JSON but data and copies.
const SEND_REST_BYTES: usize = 8 * 1024;

/// An info-key wrap in JSON: three UUIDs, key and signature in base64url, field names and punctuation.
const INFO_KEY_WRAP_JSON_BYTES: usize = 3 * 36 + 107 + 86 + 120;

/// A wrap of a group key in JSON: two UUIDs, key in base64url, field names and punctuation.
const GROUP_KEY_WRAP_JSON_BYTES: usize = 2 * 36 + 107 + 40;
/// A backup of a session's key in JSON: three UUIDs, both keys and the signature in base64url, field names.
const BACKUP_JSON_BYTES: usize = 3 * 36 + 43 + 107 + 86 + 180;
/// The same of a user's info key: one UUID more.
const PROFILE_KEY_WRAP_JSON_BYTES: usize = INFO_KEY_WRAP_JSON_BYTES + 36 + 14;
/// A holder in a share set, with the wrap that goes beside it, in JSON.
const SHARE_JSON_BYTES: usize = 2 * 36 + 2 * 43 + 107 + 86 + 160;

const fn base64_bytes(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

const _: () = assert!(
    base64_bytes(DATA_BYTES_MAX) + COPIES_PER_FRAME_MAX * COPY_JSON_BYTES + SEND_REST_BYTES <= FRAME_BYTES_MAX,
    "a full message with a full list of copies must fit in one frame",
);
const _: () = assert!(
    base64_bytes(HANDOVER_BYTES_MAX) + BACKUPS_MAX * BACKUP_JSON_BYTES + SEND_REST_BYTES <= FRAME_BYTES_MAX,
    "a hand-over must fit in one frame",
);
const _: () = assert!(
    INFO_KEY_WRAPS_PER_CHAT_MAX * INFO_KEY_WRAP_JSON_BYTES
        + base64_bytes(NAME_BYTES_MAX)
        + base64_bytes(DESCRIPTION_BYTES_MAX)
        + SEND_REST_BYTES
        <= FRAME_BYTES_MAX,
    "a save under a new key must fit in one frame",
);
const _: () = assert!(
    MEMBER_KEYS_MAX * GROUP_KEY_WRAP_JSON_BYTES + SEND_REST_BYTES <= FRAME_BYTES_MAX,
    "a group key for all members must fit in one frame",
);
const _: () = assert!(
    PROFILE_KEY_WRAPS_MAX * PROFILE_KEY_WRAP_JSON_BYTES
        + base64_bytes(PROFILE_NAME_BYTES_MAX)
        + base64_bytes(PROFILE_EMAIL_BYTES_MAX)
        + base64_bytes(PROFILE_DESCRIPTION_BYTES_MAX)
        + SEND_REST_BYTES
        <= FRAME_BYTES_MAX,
    "a profile saved under a new key must fit in one frame",
);
const _: () = assert!(
    SHARES_MAX * SHARE_JSON_BYTES + base64_bytes(RELEASE_BYTES_MAX) + SEND_REST_BYTES <= FRAME_BYTES_MAX,
    "a set of shares and a released share must fit in one frame",
);
const _: () = assert!(
    base64_bytes(SECRET_NAME_BYTES_MAX) + base64_bytes(SECRET_VALUE_BYTES_MAX) + SEND_REST_BYTES <= FRAME_BYTES_MAX,
    "a secret must fit in one frame",
);
const _: () = assert!(DATA_BYTES_MAX <= PAGE_BYTES_MAX, "a page must hold any message");
