//! What nobody forgets: every copy that the database ever had, and every key that a keyring ever held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use sealcast::client::{MemoryStorage, Record, Storage, StorageError};
use sealcast::crypto::{ExchangeSecret, Secret, SessionSecrets, wrap};
use sealcast::protocol::binary::WrappedKey;
use sealcast::protocol::ids::{ChatId, KeyId, SessionId};
use serde::Deserialize;
use uuid::Uuid;

use super::super::support::database::Database;

/// Copies are deleted and voided in time; these are not.
const KEEP: &str = "CREATE TABLE kept_copies AS SELECT chat_id, sender_key_id, sender_session_id, session_id, key \
        FROM vault_chat_sender_keys WITH NO DATA; CREATE INDEX ON kept_copies (chat_id); \
    CREATE FUNCTION keep_copy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        INSERT INTO kept_copies VALUES (NEW.chat_id, NEW.sender_key_id, NEW.sender_session_id, NEW.session_id, NEW.key); \
        RETURN NEW; END $$; \
    CREATE TRIGGER keep_copy AFTER INSERT OR UPDATE OF key ON vault_chat_sender_keys \
        FOR EACH ROW EXECUTE FUNCTION keep_copy()";

/// From now on every copy stays to be looked at.
pub async fn keep_every_copy(database: &Database) {
    database.client().await.batch_execute(KEEP).await.unwrap();
}

/// A copy of a sender key.
#[derive(Debug)]
pub struct Copy {
    pub chat_id: ChatId,
    pub key_id: KeyId,
    pub sender: SessionId,
    pub recipient: SessionId,
    pub key: WrappedKey,
}

/// Every copy that there ever was in some chats.
pub async fn copies(database: &Database, chats: &[ChatId]) -> Vec<Copy> {
    let chats: Vec<Uuid> = chats.iter().map(|chat_id| chat_id.0).collect();
    let statement = "SELECT chat_id, sender_key_id, sender_session_id, session_id, key FROM kept_copies \
        WHERE chat_id = ANY($1)";
    let rows = database.client().await.query(statement, &[&chats]).await.unwrap();
    let copy = |row: &tokio_postgres::Row| Copy {
        chat_id: ChatId(row.get(0)),
        key_id: KeyId(row.get(1)),
        sender: SessionId(row.get(2)),
        recipient: SessionId(row.get(3)),
        key: WrappedKey::try_from(row.get::<_, &[u8]>(4)).unwrap(),
    };
    rows.iter().map(copy).collect()
}

/// A keyring in memory, with every X25519 key that was ever written to it.
#[derive(Debug, Default)]
pub struct Keyring {
    now: MemoryStorage,
    ever: Mutex<BTreeSet<Vec<u8>>>,
}

/// The part of a keyring's first record that a thief would read; its form is the client library's own.
#[derive(Deserialize)]
struct Account {
    me: Me,
}

#[derive(Deserialize)]
struct Me {
    session_id: SessionId,
    secrets: SessionSecrets,
    #[serde(default)]
    older: Vec<OlderKey>,
}

#[derive(Deserialize)]
struct OlderKey {
    session_id: SessionId,
    secret: ExchangeSecret,
}

impl Storage for Keyring {
    fn load(&self) -> Result<BTreeMap<String, Vec<u8>>, StorageError> {
        self.now.load()
    }

    fn write(&self, records: &[Record]) -> Result<(), StorageError> {
        let accounts = records.iter().filter(|(name, _)| name == "account").filter_map(|(_, content)| content.clone());
        self.ever.lock().unwrap_or_else(PoisonError::into_inner).extend(accounts);
        self.now.write(records)
    }
}

impl Keyring {
    /// The session and its newest secrets.
    pub fn session(&self) -> (SessionId, SessionSecrets) {
        let account = self.now.load().unwrap().remove("account").expect("an account is kept");
        let account: Account = rmp_serde::from_slice(&account).unwrap();
        (account.me.session_id, account.me.secrets)
    }

    /// What all its keys, its own and those that it was handed, open of these copies.
    pub fn open(&self, copies: &[Copy]) -> BTreeMap<(ChatId, KeyId), Vec<Secret>> {
        let mut keys: Vec<(SessionId, ExchangeSecret)> = Vec::new();
        for account in &*self.ever.lock().unwrap_or_else(PoisonError::into_inner) {
            let Account { me } = rmp_serde::from_slice(account).unwrap();
            let own = (me.session_id, me.secrets.exchange_secret());
            let handed = me.older.into_iter().map(|older| (older.session_id, older.secret));
            for key in std::iter::once(own).chain(handed) {
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        let mut opened: BTreeMap<(ChatId, KeyId), Vec<Secret>> = BTreeMap::new();
        for copy in copies {
            for (session_id, key) in keys.iter().filter(|(session_id, _)| *session_id == copy.recipient) {
                let secret =
                    wrap::open_sender_key_with(&copy.key, copy.chat_id, copy.key_id, copy.sender, (*session_id, key));
                opened.entry((copy.chat_id, copy.key_id)).or_default().extend(secret.ok());
            }
        }
        opened
    }
}
