//! The handle of the store: a pool of connections, and transactions with a name.

use std::str::FromStr;
use std::time::{Duration, Instant};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::{Config, IsolationLevel, NoTls};

use super::clock::DbClock;
use super::error::{Failure, StoreError};
use super::outage::Outage;
use super::rows;
use super::statements::PLANS;
use super::transaction::Transaction;
use crate::telemetry::metrics::Metrics;

/// How the pool behaves.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Connections at most, the writer's lanes not counted.
    pub connections_max: usize,
    /// How long a request waits for its transaction, all in all.
    pub deadline: Duration,
    /// How its statements are planned.
    pub plans: Plans,
}

/// How Postgres plans the statements of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plans {
    /// Each once, by the primary keys and indexes, whatever the statistics say: for statements that look up rows by their
    /// keys and come again and again. Planning them anew would cost more than running them.
    Kept,
    /// As Postgres sees fit: for statements that look at whole tables, now and then.
    Chosen,
}

/// How many times longer than others a transaction may take that touches any number of rows.
const SLOW_FACTOR: u32 = 60;

/// How long a reader waits before it asks a database again that went away.
const LOST_PAUSE: Duration = Duration::from_millis(100);

/// How often a transaction that met another is tried.
const ATTEMPTS_MAX: u32 = 5;

/// The store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Pool,
    config: Config,
    clock: DbClock,
    deadline: Duration,
    metrics: Metrics,
    outage: Outage,
}

/// How the pool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolFigures {
    /// Connections that somebody has.
    pub in_use: usize,
    /// Connections that wait to be used.
    pub idle: usize,
    /// Transactions that wait for a connection.
    pub waiting: usize,
}

impl Store {
    /// How the pool stands now.
    #[must_use]
    pub fn pool_figures(&self) -> PoolFigures {
        let status = self.pool.status();
        PoolFigures {
            in_use: status.size.saturating_sub(status.available),
            idle: status.available,
            waiting: status.waiting,
        }
    }

    /// Connects, and reads the database's clock.
    ///
    /// # Errors
    /// [`StoreError`] when the URL cannot be read or the database cannot be reached.
    pub async fn connect(config: Config, options: &PoolOptions, metrics: Metrics) -> Result<Self, StoreError> {
        let manager =
            Manager::from_config(config.clone(), NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let mut pool = Pool::builder(manager)
            .max_size(options.connections_max)
            .wait_timeout(Some(options.deadline))
            .create_timeout(Some(options.deadline))
            .runtime(Runtime::Tokio1);
        if options.plans == Plans::Kept {
            pool = pool.post_create(Hook::async_fn(|client, _| {
                Box::pin(async { client.batch_execute(PLANS).await.map_err(HookError::Backend) })
            }));
        }
        let pool = pool.build()?;
        let asked = Instant::now();
        let row = pool.get().await?.query_one("SELECT clock_timestamp() AS now", &[]).await?;
        let clock = DbClock::new(rows::timestamp(&row, "now")?);
        clock.set(rows::timestamp(&row, "now")?, asked);
        Ok(Self { pool, config, clock, deadline: options.deadline, metrics, outage: Outage::default() })
    }

    /// The database's clock.
    #[must_use]
    pub const fn clock(&self) -> &DbClock {
        &self.clock
    }

    /// How to reach the database, for connections outside the pool.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How long a transaction may take.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The metrics that the store counts in.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether the database is away, as all who ask it have found.
    #[must_use]
    pub const fn outage(&self) -> &Outage {
        &self.outage
    }

    /// Asks the database for its time; also tells whether it can be reached.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let ask = async {
            let client = self.pool.get().await?;
            let row = client.query_one("SELECT clock_timestamp() AS now", &[]).await?;
            rows::timestamp(&row, "now")
        };
        let result = tokio::time::timeout(self.deadline, ask).await.map_err(|_| StoreError::Deadline);
        let now = result.and_then(|now| now).inspect_err(|error| self.outage.failed("ping", error))?;
        self.outage.answered();
        if self.clock.set(now, asked) {
            self.metrics.clock_steps.with_label_values(&["database"]).inc();
            tracing::warn!("the database's clock has jumped");
        }
        Ok(())
    }

    /// Runs a transaction that changes something, again if another one was in its way.
    ///
    /// The name labels its metrics. `work` may run several times; it must do nothing but query.
    ///
    /// # Errors
    /// What `work` returns, or [`StoreError`]. After [`StoreError::Deadline`] or a lost connection the outcome
    /// is unknown.
    pub async fn write<T>(
        &self,
        name: &'static str,
        work: impl AsyncFn(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.run(name, IsolationLevel::ReadCommitted, false, self.deadline, work).await
    }

    /// Runs a transaction that may touch any number of rows, like the end of a large chat.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub async fn write_slowly<T>(
        &self,
        name: &'static str,
        work: impl AsyncFn(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let work = async |tx: &Transaction<'_>| {
            tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
            work(tx).await
        };
        self.run(name, IsolationLevel::ReadCommitted, false, self.deadline * SLOW_FACTOR, work).await
    }

    /// Runs a transaction that reads from one snapshot.
    ///
    /// # Errors
    /// What `work` returns, or [`StoreError`].
    pub async fn read<T>(
        &self,
        name: &'static str,
        work: impl AsyncFn(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.run(name, IsolationLevel::RepeatableRead, true, self.deadline, work).await
    }

    async fn run<T>(
        &self,
        name: &'static str,
        isolation: IsolationLevel,
        read_only: bool,
        deadline: Duration,
        work: impl AsyncFn(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        let attempts = async {
            let mut attempt = 1;
            loop {
                let result = self.attempt(isolation, read_only, &work).await;
                match result {
                    Err(Failure::Store(error)) if error.is_conflict() && attempt < ATTEMPTS_MAX => attempt += 1,
                    // What only reads may be asked again, until the database is back or the deadline has passed.
                    Err(Failure::Store(error)) if read_only && error.is_lost_connection() => {
                        tokio::time::sleep(LOST_PAUSE).await;
                    }
                    result => return result,
                }
            }
        };
        let result = match tokio::time::timeout(deadline, attempts).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Store(StoreError::Deadline)),
        };
        let outcome = match &result {
            Ok(_) => {
                self.outage.answered();
                "committed"
            }
            Err(Failure::Store(error)) => {
                self.outage.failed(name, error);
                "failed"
            }
            Err(_) => "refused",
        };
        self.metrics.transactions.with_label_values(&[name, outcome]).inc();
        self.metrics.transaction_seconds.with_label_values(&[name]).observe(started.elapsed().as_secs_f64());
        result
    }

    async fn attempt<T>(
        &self,
        isolation: IsolationLevel,
        read_only: bool,
        work: &impl AsyncFn(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut loan = Loan(Some(self.pool.get().await.map_err(StoreError::from)?));
        let Some(client) = loan.0.as_mut() else { return Err(Failure::Store(StoreError::Deadline)) };
        let result = in_transaction(client, isolation, read_only, work).await;
        loan.give_back();
        let (value, epochs) = result?;
        self.metrics.epoch_changes.inc_by(epochs);
        Ok(value)
    }
}

async fn in_transaction<T>(
    client: &mut Object,
    isolation: IsolationLevel,
    read_only: bool,
    work: &impl AsyncFn(&Transaction<'_>) -> Result<T, Failure>,
) -> Result<(T, u64), Failure> {
    let begun = client.build_transaction().isolation_level(isolation).read_only(read_only).start().await?;
    let transaction = Transaction::new(begun);
    let value = work(&transaction).await?;
    let epochs = transaction.commit().await?;
    Ok((value, epochs))
}

/// A connection on loan. Given up halfway, by a deadline, it is closed: what it is doing is unknown, and the next
/// borrower must not wait for it.
struct Loan(Option<Object>);

impl Loan {
    fn give_back(mut self) {
        self.0 = None;
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop(Object::take(client));
        }
    }
}

/// Reads a connection string and sets what every connection needs: a name, and bounds on waiting.
///
/// # Errors
/// [`StoreError::Url`] when it cannot be read.
pub fn connection_config(url: &str, deadline: Duration) -> Result<Config, StoreError> {
    let mut config = Config::from_str(url).map_err(StoreError::Url)?;
    let deadline_ms = deadline.as_millis();
    let lock_ms = deadline_ms / 2;
    let options = format!(
        "-c synchronous_commit=on -c statement_timeout={deadline_ms} -c lock_timeout={lock_ms} -c idle_in_transaction_session_timeout={}",
        deadline_ms * 2,
    );
    config.application_name("sealcast").options(options).connect_timeout(deadline);
    Ok(config)
}
