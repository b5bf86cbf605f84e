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

/// Bytes of the sealed hand-over to a new session: identity key, info keys and anchors of all chats.
pub const HANDOVER_BYTES_MAX: usize = 128 * 1024;

/// Key identifiers in one `keys` request.
pub const KEYS_PER_REQUEST_MAX: usize = 200;

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

/// Depth of nesting that a decoder follows.
pub const NESTING_MAX: usize = 32;

/// A copy in JSON: 80 bytes in base64url, a UUID, field names and punctuation.
const COPY_JSON_BYTES: usize = 107 + 36 + 40;

/// Everything of a `send` in JSON but data and copies.
const SEND_REST_BYTES: usize = 8 * 1024;

/// An info-key wrap in JSON: three UUIDs, key and signature in base64url, field names and punctuation.
const INFO_KEY_WRAP_JSON_BYTES: usize = 3 * 36 + 107 + 86 + 120;

const fn base64_bytes(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

const _: () = assert!(
    base64_bytes(DATA_BYTES_MAX) + COPIES_PER_FRAME_MAX * COPY_JSON_BYTES + SEND_REST_BYTES <= FRAME_BYTES_MAX,
    "a full message with a full list of copies must fit in one frame",
);
const _: () = assert!(
    base64_bytes(HANDOVER_BYTES_MAX) + SEND_REST_BYTES <= FRAME_BYTES_MAX,
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
const _: () = assert!(DATA_BYTES_MAX <= PAGE_BYTES_MAX, "a page must hold any message");
