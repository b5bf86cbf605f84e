//! COMMITs of messages that are made to wait in the database, and come through when they are let: whoever asked for
//! them may have given them up by then.

use tokio_postgres::Client;

use super::database::Database;

/// No timeout of the broker's ends a transaction with a message, and each waits in COMMIT while somebody holds the lock 7.
const PLANTED: &str = "
    CREATE FUNCTION unhurried() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true),
            set_config('idle_in_transaction_session_timeout', '0', true);
        RETURN NEW;
    END $$;
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_advisory_xact_lock_shared(7);
        RETURN NULL;
    END $$;
    CREATE TRIGGER unhurried BEFORE INSERT ON chat_messages FOR EACH ROW EXECUTE FUNCTION unhurried();
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON chat_messages DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait();";

/// The hand that holds them up.
pub struct LateCommits(Client);

impl LateCommits {
    /// Plants what makes them wait; nothing is held yet.
    pub async fn of(database: &Database) -> Self {
        let client = database.client().await;
        client.batch_execute(PLANTED).await.unwrap();
        Self(client)
    }

    /// From now on they wait.
    pub async fn hold(&self) {
        self.0.execute("SELECT pg_advisory_lock(7)", &[]).await.unwrap();
    }

    /// Those that wait come through.
    pub async fn release(&self) {
        self.0.execute("SELECT pg_advisory_unlock(7)", &[]).await.unwrap();
    }

    /// How many wait; of a plain batch its one statement, which commits by itself.
    pub async fn waiting(&self) -> i64 {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event = 'advisory' AND (query = 'COMMIT' OR query LIKE 'WITH moves AS %')";
        self.0.query_one(waiting, &[]).await.unwrap().get(0)
    }

    /// Waits until one waits.
    pub async fn until_waiting(&self) {
        super::eventually("a commit that waits", async || self.waiting().await > 0).await;
    }
}
