//! Group secrets: what the broker takes, by the bare protocol; what members read, and what they do not believe.

#[cfg(feature = "client")]
mod lies;
#[cfg(feature = "client")]
mod lost;
#[cfg(feature = "client")]
mod read;
mod requests;
#[cfg(feature = "client")]
mod terminal;

#[cfg(feature = "client")]
mod people {
    use std::sync::Arc;

    use sealcast::client::{Client, MemoryStorage, NewAccount, OpenSecrets, SecretState, SecretSummary, Storage};
    use sealcast::crypto::opaque::Password;
    use sealcast::protocol::ids::{ChatId, SecretId};

    use crate::support::broker::Broker;
    use crate::support::clients::config;
    use crate::support::library::caught_up;
    use crate::support::within;

    pub fn password(name: &str) -> Password {
        Password::new(format!("the password of {name}")).unwrap()
    }

    fn account(broker: &Broker, name: &str) -> NewAccount {
        NewAccount { server: broker.public.clone(), username: name.to_owned(), ttl: None }
    }

    /// An account with a password, kept in `storage`.
    pub async fn register_in(broker: &Broker, name: &str, storage: Arc<dyn Storage>) -> Client {
        let password = password(name);
        let registering = Client::register_with_password(config(), account(broker, name), &password, storage);
        let client = within("a registration", registering).await.unwrap();
        within("a live client", client.live()).await.unwrap();
        client
    }

    pub async fn register(broker: &Broker, name: &str) -> Client {
        register_in(broker, name, Arc::new(MemoryStorage::default())).await
    }

    /// A new device of an account.
    pub async fn log_in(broker: &Broker, name: &str) -> Client {
        let (storage, password) = (Arc::new(MemoryStorage::default()), password(name));
        let logging_in = Client::log_in(config(), account(broker, name), &password, storage);
        let client = within("a login", logging_in).await.unwrap();
        within("a live client", client.live()).await.unwrap();
        within("the end of the recovery", client.recovered()).await.unwrap();
        client
    }

    /// Adds a user, whose client has taken that.
    pub async fn add(by: &Client, chat_id: ChatId, to: &Client) {
        let seq = by.add_member(chat_id, to.username().as_str(), true, false).await.unwrap();
        caught_up(to, chat_id, seq).await;
    }

    /// Ada and Bob with passwords, in a chat of Ada's.
    pub async fn ada_and_bob(broker: &Broker) -> (Client, Client, ChatId) {
        let (ada, bob) = (register(broker, "ada").await, register(broker, "bob").await);
        let chat_id = ada.create_chat("Keys").await.unwrap();
        add(&ada, chat_id, &bob).await;
        (ada, bob, chat_id)
    }

    pub async fn open(client: &Client, chat_id: ChatId) -> OpenSecrets {
        let password = password(client.username().as_str());
        within("open secrets", client.open_secrets(chat_id, &password)).await.unwrap()
    }

    /// What a secret says, by its name.
    pub async fn said(secrets: &OpenSecrets, name: &str) -> Vec<u8> {
        let secret_id = secrets.find(name).await.unwrap();
        let (found, value) = secrets.read(secret_id).await.unwrap();
        assert_eq!(found, name);
        value.to_vec()
    }

    pub async fn summary(secrets: &OpenSecrets, secret_id: SecretId) -> SecretSummary {
        let listed = secrets.list().await.unwrap();
        listed.into_iter().find(|secret| secret.secret_id == secret_id).unwrap()
    }

    pub fn name_of(summary: &SecretSummary) -> Option<&str> {
        match &summary.state {
            SecretState::Open(name) => Some(name),
            _ => None,
        }
    }
}
