//! What the server has of passwords, private halves and recovery codes: nothing that opens anything.

use tempfile::TempDir;

use super::super::support::broker::{Broker, Settings};
use super::super::support::database::Database;
use super::{open, password, register};

const NAME: &str = "canaryname";

const PASSWORD: &str = "CANARY horse battery";

#[tokio::test]
async fn p6_neither_password_nor_private_halves_are_in_the_database_or_the_log() {
    let (database, folder) = (Database::create().await, TempDir::new().unwrap());
    let log = folder.path().join("broker.log");
    let broker = Broker::start_logging(Settings::on(&database).with("log.filter", "trace"), &log).await;
    let ada = register(&broker, NAME, PASSWORD).await;
    let code = ada.make_recovery_code(&password(PASSWORD)).await.unwrap();
    let (logged_in, opened) = open(&broker, NAME, PASSWORD).await;
    // A login that is under way, so that its row is there.
    let (login, begun) = super::begin(&broker, NAME, PASSWORD).await;
    let (_, key) = super::answer(login, &begun, NAME, PASSWORD);
    assert!(super::log_in(&broker, NAME, "CANARY wrong horse").await.is_err());

    let mut secrets = vec![
        ("password", PASSWORD.as_bytes().to_vec()),
        ("wrong password", b"CANARY wrong horse".to_vec()),
        ("identity key", super::seed(&opened.identity)),
        ("self key", opened.self_key.expose().to_vec()),
        ("key that the password yields", key.expose().to_vec()),
        ("recovery code", code.to_text().as_bytes().to_vec()),
    ];
    let text = rmp_serde::to_vec(&code.keys()).unwrap();
    secrets.push(("the recovery code's X25519 key", text[text.len() - 66..text.len() - 34].to_vec()));
    secrets.push(("the recovery code's Ed25519 key", text[text.len() - 32..].to_vec()));
    let client = database.client().await;
    let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'";
    let mut dump = String::new();
    for row in client.query(tables, &[]).await.unwrap() {
        let table: String = row.get(0);
        for row in client.query(&format!("SELECT t::text FROM {table} t"), &[]).await.unwrap() {
            dump += row.get::<_, &str>(0);
            dump.push('\n');
        }
    }
    let log = std::fs::read_to_string(log).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (what, secret) in &secrets {
        let plain = String::from_utf8(secret.clone()).unwrap_or_else(|_| "no text".to_owned());
        for (place, text) in [("database", &dump), ("log", &log)] {
            assert!(!text.contains(&hex(secret)) && !text.contains(&plain), "the {what} is in the {place}");
        }
    }
    // What must be there is found in the same way, so the search can find.
    assert!(dump.contains(&hex(logged_in.identity_key.as_ref())) && dump.contains(NAME));
    assert!(dump.contains(&hex(logged_in.strongbox.user_keys[0].sealed.as_ref())));
    for what in [NAME, "CANARY"] {
        assert!(!log.contains(what), "{what} is in the log");
    }
    assert!(log.len() > 1_000, "everything was logged");
}
