//! Writes the exact bytes that are signed, hashed or bound as associated data.
//!
//! The form is: label, version, then the fields in their documented order, each as a big-endian u32 length and
//! its bytes. Integers are 8 bytes big-endian, identifiers 16 bytes, an absent field has length 0, a list is
//! its count followed by its items. It is never a wire encoding, so both encodings sign the same bytes.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::binary::Hash;

/// The version of every signed and hashed format of this crate.
pub const VERSION: u64 = 1;

/// Labels: no two purposes share one, so no signature or hash means two things.
pub mod label {
    /// A session's certificate.
    pub const CERTIFICATE: &str = "sealcast/certificate";
    /// The revocation of a session.
    pub const REVOCATION: &str = "sealcast/revocation";
    /// The hash before the first entry of a user's chain.
    pub const USER_CHAIN: &str = "sealcast/user-chain";
    /// The hash of one entry of a user's chain.
    pub const USER_EVENT: &str = "sealcast/user-event";
    /// The end of an account.
    pub const ACCOUNT_DELETION: &str = "sealcast/account-deletion";
    /// The expiry of a session, which nobody signs.
    pub const EXPIRY: &str = "sealcast/expiry";
    /// The end of an account by the server's operator, which nobody signs.
    pub const ACCOUNT_REMOVAL: &str = "sealcast/account-removal";
    /// A membership change.
    pub const MEMBERSHIP: &str = "sealcast/membership";
    /// The hash before the first membership change of a chat.
    pub const MEMBERSHIP_CHAIN: &str = "sealcast/membership-chain";
    /// The hash of one membership change.
    pub const MEMBERSHIP_EVENT: &str = "sealcast/membership-event";
    /// A message, an edit or a deletion.
    pub const MESSAGE: &str = "sealcast/message";
    /// The announcement of a sender key.
    pub const ANNOUNCEMENT: &str = "sealcast/announcement";
    /// The commitment to a sender key's secret.
    pub const COMMITMENT: &str = "sealcast/commitment";
    /// The hash before the first entry of a chat's log.
    pub const LOG: &str = "sealcast/log";
    /// The digest of one log entry: its signed bytes and their signature.
    pub const LOG_ENTRY: &str = "sealcast/log-entry";
    /// The hash of a log up to an entry.
    pub const LOG_HASH: &str = "sealcast/log-hash";
    /// The hash of a chat's recipients.
    pub const ROSTER: &str = "sealcast/roster";
    /// The hash of a list of copies that went ahead in parts.
    pub const STAGED_COPIES: &str = "sealcast/staged-copies";
    /// The refusal of a copy.
    pub const COPY_REFUSAL: &str = "sealcast/copy-refusal";
    /// An ephemeral signal.
    pub const SIGNAL: &str = "sealcast/signal";
    /// A login by signed challenge.
    pub const LOGIN: &str = "sealcast/login";
    /// A wrap of a chat's info key to a session.
    pub const INFO_KEY_WRAP: &str = "sealcast/info-key-wrap";
    /// A chat's info key sealed to a recovery key.
    pub const INFO_KEY_SEAL: &str = "sealcast/info-key-seal";
    /// A backup of a session's X25519 key.
    pub const SESSION_KEY_BACKUP: &str = "sealcast/session-key-backup";
    /// What a password protects, as its user signs it.
    pub const STRONGBOX: &str = "sealcast/strongbox";
    /// A user key.
    pub const USER_KEY: &str = "sealcast/user-key";
    /// The public halves of a recovery code.
    pub const RECOVERY_KEY: &str = "sealcast/recovery-key";
    /// A login by recovery code.
    pub const RECOVERY_LOGIN: &str = "sealcast/recovery-login";
    /// The credential identifier of OPAQUE.
    pub const CREDENTIAL: &str = "sealcast/opaque/credential";
    /// The context of OPAQUE's key exchange.
    pub const OPAQUE_CONTEXT: &str = "sealcast/opaque/v1";
    /// The credential that an unknown user seems to have.
    pub const FAKE_CREDENTIAL: &str = "sealcast/opaque/fake-credential";
    /// The masking key that an unknown user seems to have.
    pub const FAKE_MASKING: &str = "sealcast/opaque/fake-masking";
    /// What tries of passwords are counted by.
    pub const TRIES: &str = "sealcast/tries";
    /// Associated data of a private half that is sealed under a password or to a recovery code.
    pub const AAD_STRONGBOX: &str = "sealcast/aad/strongbox";
    /// Key derivation of the cipher key from OPAQUE's export key.
    pub const KDF_EXPORT: &str = "sealcast/kdf/export";
    /// Key derivation of a recovery code's X25519 key.
    pub const KDF_RECOVERY_EXCHANGE: &str = "sealcast/kdf/recovery-exchange";
    /// Key derivation of a recovery code's Ed25519 key.
    pub const KDF_RECOVERY_LOGIN: &str = "sealcast/kdf/recovery-login";
    /// The check characters of a recovery code.
    pub const RECOVERY_CHECK: &str = "sealcast/recovery-check";
    /// A set of shares of a recovery code.
    pub const SHARE_SET: &str = "sealcast/share-set";
    /// The commitment to one share.
    pub const SHARE_COMMITMENT: &str = "sealcast/share-commitment";
    /// A share that is wrapped to a friend's user key.
    pub const SHARE_WRAP: &str = "sealcast/share-wrap";
    /// The code of a request for recovery by friends.
    pub const RECOVERY_REQUEST: &str = "sealcast/recovery-request";
    /// A share that a friend gives to a request.
    pub const SHARE_RELEASE: &str = "sealcast/share-release";
    /// The cancellation of a request for recovery.
    pub const RECOVERY_CANCEL: &str = "sealcast/recovery-cancel";
    /// Associated data of a share that is wrapped to a friend's user key.
    pub const AAD_SHARE: &str = "sealcast/aad/share";
    /// Associated data of a share that is sealed to a request.
    pub const AAD_RELEASE: &str = "sealcast/aad/release";
    /// A chat's saved name and description.
    pub const CHAT_INFO: &str = "sealcast/chat-info";
    /// The withdrawal of a user key.
    pub const WITHDRAWAL: &str = "sealcast/withdrawal";
    /// A generation of a chat's group key.
    pub const GENERATION: &str = "sealcast/generation";
    /// The refusal of a generation.
    pub const GENERATION_REFUSAL: &str = "sealcast/generation-refusal";
    /// The hash of members' user keys.
    pub const MEMBER_KEYS: &str = "sealcast/member-keys";
    /// The hash of a group key's wraps.
    pub const GROUP_KEY_WRAPS: &str = "sealcast/group-key-wraps";
    /// Key derivation of a recovery key from a group key.
    pub const KDF_RECOVERY_KEY: &str = "sealcast/kdf/recovery-key";
    /// A revision of a group secret.
    pub const GROUP_SECRET: &str = "sealcast/group-secret";
    /// The end of a group secret.
    pub const GROUP_SECRET_DELETION: &str = "sealcast/group-secret-deletion";
    /// The hash of a revision of a group secret.
    pub const GROUP_SECRET_REVISION: &str = "sealcast/group-secret-revision";
    /// Key derivation of the key of the group secrets from a group key.
    pub const KDF_GROUP_SECRETS: &str = "sealcast/kdf/group-secrets";
    /// Associated data of a group secret's name or value.
    pub const AAD_GROUP_SECRET: &str = "sealcast/aad/group-secret";
    /// Associated data of a wrapped group key.
    pub const AAD_GROUP_KEY: &str = "sealcast/aad/group-key";
    /// A group key sealed to the recovery key of the next generation.
    pub const GENERATION_LINK: &str = "sealcast/generation-link";
    /// Associated data of a group key that is sealed to the recovery key of the next generation.
    pub const AAD_GENERATION_LINK: &str = "sealcast/aad/generation-link";
    /// Associated data of an archived sender key.
    pub const AAD_ARCHIVE: &str = "sealcast/aad/archive";
    /// A user's saved profile.
    pub const PROFILE: &str = "sealcast/profile-saved";
    /// A wrap of a user's info key to a session.
    pub const PROFILE_KEY_WRAP: &str = "sealcast/profile-key-wrap";
    /// A user's info key sealed to the user's own user key.
    pub const OWN_KEY_WRAP: &str = "sealcast/own-key-wrap";
    /// Associated data of a message's ciphertext.
    pub const AAD_MESSAGE: &str = "sealcast/aad/message";
    /// Associated data of a wrapped sender key.
    pub const AAD_SENDER_KEY: &str = "sealcast/aad/sender-key";
    /// Associated data of a wrapped info key.
    pub const AAD_INFO_KEY: &str = "sealcast/aad/info-key";
    /// Associated data of an info key that is sealed to a recovery key.
    pub const AAD_INFO_KEY_SEAL: &str = "sealcast/aad/info-key-seal";
    /// Associated data of a chat's name.
    pub const AAD_CHAT_NAME: &str = "sealcast/aad/chat-name";
    /// Associated data of a chat's description.
    pub const AAD_CHAT_DESCRIPTION: &str = "sealcast/aad/chat-description";
    /// Associated data of a part of a user's profile.
    pub const AAD_PROFILE: &str = "sealcast/aad/profile";
    /// Associated data of a wrapped info key of a user.
    pub const AAD_PROFILE_KEY: &str = "sealcast/aad/profile-key";
    /// Associated data of a user's info key that is sealed to the user's user key.
    pub const AAD_OWN_KEY: &str = "sealcast/aad/own-key";
    /// Associated data of a hand-over to a new session.
    pub const AAD_HANDOVER: &str = "sealcast/aad/handover";
    /// Of the wrap in a backup of a session's X25519 key.
    pub const AAD_SESSION_KEY: &str = "sealcast/aad/session-key";
    /// Associated data of a signal's ciphertext.
    pub const AAD_SIGNAL: &str = "sealcast/aad/signal";
    /// Associated data of a read mark for the user's own sessions.
    pub const AAD_RECEIPT: &str = "sealcast/aad/receipt";
    /// Associated data of a session's encrypted name.
    pub const AAD_LABEL: &str = "sealcast/aad/label";
    /// What the link code authenticates: the new session's keys.
    pub const LINK: &str = "sealcast/link";
    /// Key derivation of a message key.
    pub const KDF_MESSAGE: &str = "sealcast/kdf/message";
    /// Key derivation of a signal's key.
    pub const KDF_SIGNAL: &str = "sealcast/kdf/signal";
    /// Key derivation of an info key's cipher key.
    pub const KDF_INFO: &str = "sealcast/kdf/info";
    /// Key derivation of what the user's own sessions alone may read.
    pub const KDF_SELF: &str = "sealcast/kdf/self";
    /// Key derivation of the self key of an account that was made without one.
    pub const KDF_SELF_KEY: &str = "sealcast/kdf/self-key";
}

/// A writer of canonical bytes.
///
/// ```
/// # use sealcast::protocol::canonical::Canonical;
/// let bytes = Canonical::new("example").u64(7).finish();
/// assert_eq!(bytes.len(), (4 + 7) + (4 + 8) + (4 + 8));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Canonical(Vec<u8>);

impl Canonical {
    /// Starts with a label and [`VERSION`].
    pub fn new(label: &str) -> Self {
        Self(Vec::with_capacity(256)).bytes(label.as_bytes()).u64(VERSION)
    }

    /// Appends a field of bytes. Wire limits keep every field far below 4 GiB.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends an integer.
    pub fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Appends a truth value as the integer 0 or 1.
    pub fn bool(self, value: bool) -> Self {
        self.u64(u64::from(value))
    }

    /// Appends an identifier.
    pub fn id(self, id: Uuid) -> Self {
        self.bytes(id.as_bytes())
    }

    /// Appends text as UTF-8.
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// Their SHA-256.
    #[must_use]
    pub fn hash(&self) -> Hash {
        sha256(&self.0)
    }
}

/// SHA-256 of bytes (FIPS 180-4).
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}
