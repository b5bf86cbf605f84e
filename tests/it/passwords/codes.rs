//! Recovery codes: the second way in.

use std::sync::Arc;

use sealcast::client::{Client, ClientError, MemoryStorage};
use sealcast::crypto::recovery_code::RecoveryCode;

use super::super::support::broker::Broker;
use super::super::support::database::Database;
use super::super::support::within;
use super::{config, log_in, new_account, open, password, register};

async fn recover(broker: &Broker, code: &RecoveryCode) -> Result<Client, ClientError> {
    let storage = Arc::new(MemoryStorage::default());
    let client = within("a login", Client::recover(config(), new_account(broker, "ada"), code, storage)).await?;
    within("a live client", client.live()).await.unwrap();
    Ok(client)
}

#[tokio::test]
async fn p8_the_recovery_code_lets_its_user_in_and_gives_a_forgotten_password_anew() {
    let database = Database::create().await;
    let broker = Broker::start(&database).await;
    let ada = register(&broker, "ada", "correct horse").await;
    let before = RecoveryCode::generate();
    assert!(matches!(recover(&broker, &before).await, Err(ClientError::LoginFailed)), "there is none yet");
    assert!(matches!(ada.make_recovery_code(&password("wrong horse")).await, Err(ClientError::LoginFailed)));
    let first = ada.make_recovery_code(&password("correct horse")).await.unwrap();
    let typed: RecoveryCode = first.to_text().to_lowercase().parse().unwrap();
    let on_paper = recover(&broker, &typed).await.unwrap();
    assert_eq!(on_paper.user_id(), ada.user_id());
    assert!(matches!(recover(&broker, &before).await, Err(ClientError::LoginFailed)));

    // The password is forgotten.
    on_paper.reset_password(&typed, &password("brand new horse")).await.unwrap();
    assert!(matches!(log_in(&broker, "ada", "correct horse").await, Err(ClientError::LoginFailed)));
    log_in(&broker, "ada", "brand new horse").await.unwrap();
    let (_, opened) = open(&broker, "ada", "brand new horse").await;
    let keys = typed.keys();
    assert_eq!(opened.recovery, Some((keys.public_key(), keys.signing_public_key())), "the code stays good");
    recover(&broker, &typed).await.unwrap();

    // A new one ends the one before.
    let second = ada.make_recovery_code(&password("brand new horse")).await.unwrap();
    assert!(matches!(recover(&broker, &first).await, Err(ClientError::LoginFailed)));
    assert!(matches!(ada.reset_password(&first, &password("third horse")).await, Err(ClientError::LoginFailed)));
    ada.reset_password(&second, &password("third horse")).await.unwrap();
}
