//! A migration that is killed, and two at once: D16.

use std::process::{Child, Command, Stdio};

use super::super::support::broker::{Broker, Settings, executable};
use super::super::support::database::Database;
use super::super::support::device::Device;
use super::super::support::{eventually, trials, within};

/// Tables that migrations make: the first and the last of each, at which one of them is stopped.
const PLACES: [&str; 4] = ["users", "attachments", "user_blocks", "key_requests"];

/// The whole schema as text: columns, constraints and indices, without those of refinery's own table.
const SCHEMA: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM ( \
     SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) AS line \
         FROM information_schema.columns WHERE table_schema = 'public' \
     UNION ALL SELECT format('%s %s', conrelid::regclass, pg_get_constraintdef(oid)) FROM pg_constraint \
         WHERE connamespace = 'public'::regnamespace \
     UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public') AS lines";

async fn text(database: &Database, sql: &str) -> String {
    database.client().await.query_one(sql, &[]).await.unwrap().get(0)
}

async fn assert_migrated_once(database: &Database, schema: &str) {
    let versions = "SELECT string_agg(version::text, ' ' ORDER BY version) FROM refinery_schema_history";
    let template = Database::create().await;
    assert_eq!(text(database, versions).await, text(&template, versions).await, "each version once");
    assert_eq!(text(database, SCHEMA).await, schema);
}

/// `sealcast migrate`; killed when it is dropped.
struct Migration(Child);

impl Migration {
    fn start(database: &Database) -> Self {
        let mut command = Command::new(executable());
        command.arg("migrate").env("SEALCAST__DATABASE__URL", database.url());
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    async fn end(mut self) -> bool {
        let mut status = None;
        eventually("the migration's end", async || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().success()
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn d16_a_migration_that_is_killed_is_finished_by_the_next_start() {
    let schema = text(&Database::create().await, SCHEMA).await;
    for place in PLACES {
        let database = Database::create_empty().await;
        // Whoever makes a table of that name waits for this transaction.
        let outside = database.client().await;
        outside.batch_execute(&format!("BEGIN; CREATE TABLE {place} ()")).await.unwrap();
        let migration = Migration::start(&database);
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()";
        eventually("a migration that is held", async || database.count(waiting).await > 0).await;
        // The kill.
        drop(migration);
        // Another waits for the lock of the one that is gone, until its server notices.
        let next = Migration::start(&database);
        outside.batch_execute("ROLLBACK").await.unwrap();
        assert!(next.end().await, "killed at {place}");
        assert_migrated_once(&database, &schema).await;
        let broker = Broker::start(&database).await;
        Device::register(&broker, "ada").await;
    }
}

#[tokio::test]
async fn d16_a_migration_that_is_killed_at_any_moment_is_finished_by_the_next() {
    let schema = text(&Database::create().await, SCHEMA).await;
    for trial in 0..trials(4, 100) as u64 {
        let database = Database::create_empty().await;
        let migration = Migration::start(&database);
        tokio::time::sleep(std::time::Duration::from_millis(20 + trial * 37 % 400)).await;
        drop(migration);
        assert!(Migration::start(&database).end().await);
        assert_migrated_once(&database, &schema).await;
    }
}

#[tokio::test]
async fn d16_brokers_that_migrate_at_once_do_it_once() {
    let schema = text(&Database::create().await, SCHEMA).await;
    for _ in 0..trials(2, 50) {
        let database = Database::create_empty().await;
        let start = || Broker::start_with(Settings::on(&database));
        let (one, two) = within("two brokers", async { tokio::join!(start(), start()) }).await;
        assert_migrated_once(&database, &schema).await;
        let ada = Device::register(&one, "ada").await;
        ada.connect_live(&two).await;
    }
}
