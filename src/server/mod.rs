//! The composition root: starts the floors bottom-up, stops them top-down, drains the writer last.

pub mod admin;
mod clock_watch;
mod database;
mod listeners;
mod signals;
mod upkeep;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use actix_web::dev::ServerHandle;
use tokio::task::JoinHandle;

use crate::broker::chat::actor::MAILBOX;
use crate::broker::chat::state::KeyLimits;
use crate::broker::passwords::{self, Passwords};
use crate::broker::{Broker, BrokerOptions};
use crate::config::{ConfigError, Settings};
use crate::gateway::reaper::{Reaper, ReaperLimits};
use crate::gateway::tls::{Certificates, TlsError};
use crate::gateway::{Door, health};
use crate::store::batch::BatchLimits;
use crate::store::embedded::EmbeddedError;
use crate::store::lanes::Lanes;
use crate::store::pool::{Plans, PoolOptions};
use crate::store::users::SessionLimits;
use crate::store::writer::WriterOptions;
use crate::store::{Failure, Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{panics, subscriber};
use crate::verify::{Report, verify};
pub use database::Database;
use listeners::{start_operator, start_public};
use signals::{Signals, Wanted};
use upkeep::{heed_operator, sweep, upkeep, watch_clock};

/// The broker cannot start or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The private Postgres cannot be run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate of the public listener cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The process' signals cannot be heard, or stdout is closed.
    #[error("the process cannot be set up")]
    Process(#[from] std::io::Error),
    /// The metrics cannot be made: a fault of this crate.
    #[error("the metrics cannot be made")]
    Metrics(#[from] prometheus::Error),
    /// There is no private Postgres to look at.
    #[error("there is no database in {}", data_dir.display())]
    NoDatabase {
        /// Where it would be.
        data_dir: PathBuf,
    },
    /// Open work did not end in time.
    #[error("stopped before everything was finished")]
    Forced,
}

/// What those who are connected have for reading the last words, however late it is: without them they would all come
/// back at once.
const GOODBYE: Duration = Duration::from_secs(2);

/// Recomputes what the database must keep, and lists so many violations at most. Changes nothing.
///
/// # Errors
/// [`ServerError`] when the database cannot be found or read.
pub fn run_verify(settings: &Settings, list: usize) -> Result<Report, ServerError> {
    System::new().block_on(async {
        let database = Database::open_as_it_is(settings).await?;
        let report = verify(database.config(), list).await;
        database.close().await?;
        Ok(report?)
    })
}

/// Brings the database's schema up to date and stops.
///
/// # Errors
/// [`ServerError`].
pub fn run_migrate(settings: &Settings) -> Result<(), ServerError> {
    System::new().block_on(async { Database::open(settings).await?.close().await })
}

/// Looks at what settings name outside of themselves: the files of the certificate.
///
/// # Errors
/// [`ServerError::Tls`].
pub fn check(settings: &Settings) -> Result<(), ServerError> {
    if settings.has_tls() {
        Certificates::read(&settings.server.tls)?;
    }
    Ok(())
}

/// Serves until a signal says stop. SIGHUP reads the settings again, from the same file and the environment.
///
/// # Errors
/// [`ServerError`]; [`ServerError::Forced`] when a second signal or the grace period cut the drain short.
pub fn run(settings: Settings, file: Option<&Path>) -> Result<(), ServerError> {
    System::new().block_on(serve(settings, file))
}

async fn serve(settings: Settings, file: Option<&Path>) -> Result<(), ServerError> {
    let mut signals = Signals::new()?;
    let database = tokio::select! {
        database = Database::open(&settings) => database?,
        () = signals.wait() => return Ok(()),
    };
    let running = Running::start(settings, &database).await?;
    running.announce()?;
    while signals.next().await == Wanted::Settings {
        running.reload(file);
    }
    tracing::info!("draining");
    let deadline = Instant::now() + running.grace();
    let is_finished = tokio::select! {
        is_finished = running.finish(deadline) => is_finished,
        () = signals.wait() => false,
    };
    let goodbye = Instant::now() + GOODBYE;
    let are_gone = tokio::select! {
        are_gone = running.send_home(if is_finished { deadline.max(goodbye) } else { goodbye }) => are_gone,
        () = signals.wait() => false,
    };
    running.stop().await;
    database.close().await?;
    if is_finished && are_gone { Ok(()) } else { Err(ServerError::Forced) }
}

/// Everything that runs above the database.
struct Running {
    door: Door,
    certificates: Option<Arc<Certificates>>,
    public: ServerHandle,
    operator: ServerHandle,
    public_address: SocketAddr,
    operator_address: SocketAddr,
    upkeep: Vec<JoinHandle<()>>,
    arbiters: Vec<Arbiter>,
}

impl Running {
    async fn start(settings: Settings, database: &Database) -> Result<Self, ServerError> {
        let metrics = Metrics::new()?;
        panics::count(metrics.panics.clone());
        let deadline = Duration::from_secs(settings.database.deadline_s);
        let pool = PoolOptions { connections_max: settings.database.connections_max, deadline, plans: Plans::Kept };
        show_bounds(&settings, &metrics);
        let store = Store::connect(database.config().clone(), &pool, metrics.clone()).await?;
        let mut arbiters = Vec::new();
        let writers = start_writers(&settings, &store, deadline, &mut arbiters);
        let chat_arbiters: Vec<Arbiter> = (0..chat_threads(settings.chat.workers)).map(|_| Arbiter::new()).collect();
        let handles = chat_arbiters.iter().map(Arbiter::handle).collect();
        arbiters.extend(chat_arbiters);
        let secrets = store.server_secret(passwords::SECRET_NAME, &Passwords::fresh()).await?;
        let passwords = Passwords::read(&secrets, &settings.server.name)?;
        let broker = Broker::new(store, writers, handles, broker_options(&settings, deadline), passwords, metrics);
        let reaper = Reaper::new(ReaperLimits {
            stalled_timeout: Duration::from_secs(settings.server.stalled_timeout_s),
            exchange_timeout: Duration::from_secs(settings.server.login_timeout_s) + deadline,
            ..ReaperLimits::default()
        });
        let door = Door::new(broker, settings, reaper);
        let certificates =
            door.settings.has_tls().then(|| Certificates::read(&door.settings.server.tls)).transpose()?;
        let certificates = certificates.map(Arc::new);
        // Before anybody connects: what the operator does from here on is noticed.
        let seen = door.broker.store.newest_action().await.map_err(failed)?;
        let (public, public_address) = start_public(&door, certificates.as_ref())?;
        let (operator, operator_address) = start_operator(&door)?;
        let upkeep = vec![
            tokio::spawn(Arc::clone(&door.reaper).run(Duration::from_secs(1))),
            tokio::task::spawn_local(sweep(door.clone())),
            tokio::task::spawn_local(heed_operator(door.clone(), seen)),
            tokio::task::spawn_local(upkeep(door.clone())),
            tokio::task::spawn_local(watch_clock(door.clone())),
        ];
        Ok(Self { door, certificates, public, operator, public_address, operator_address, upkeep, arbiters })
    }

    /// Says where it listens, on stdout, for people and for scripts.
    fn announce(&self) -> Result<(), ServerError> {
        let mut stdout = std::io::stdout().lock();
        let public =
            format!("{}://{}", if self.certificates.is_some() { "https" } else { "http" }, self.public_address);
        writeln!(stdout, "listening on {public}")?;
        writeln!(stdout, "operator on http://{}", self.operator_address)?;
        stdout.flush()?;
        tracing::info!(
            next = format!("sealcast client --profile DIR register --server {public} USERNAME"),
            "ready for devices",
        );
        Ok(())
    }

    /// Reads the settings again and puts in force what may change. What cannot be used changes nothing at all.
    fn reload(&self, file: Option<&Path>) {
        match self.try_reload(file) {
            Ok(kept) => {
                tracing::info!("settings read again");
                if !kept.is_empty() {
                    tracing::warn!(settings = kept.join(", "), "these count after a restart alone");
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "settings not read again"),
        }
    }

    /// Gives the names of what differs and may not change.
    fn try_reload(&self, file: Option<&Path>) -> Result<Vec<String>, ServerError> {
        let newer = Settings::load(file)?;
        let settings = self.door.current().reloaded(&newer);
        let kept = settings.differing(&newer)?;
        // The one step that can still fail comes first.
        if let Some(certificates) = &self.certificates {
            certificates.exchange(&settings.server.tls)?;
        }
        // It was looked at when it was loaded.
        let _ = subscriber::set_filter(&settings.log.filter);
        self.door.put_in_force(settings);
        Ok(kept)
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.door.settings.drain.grace_s)
    }

    /// Ends what is open: no new connection, no new message, and what was taken in is committed and answered (P11).
    /// Says whether all of it ended in time.
    async fn finish(&self, deadline: Instant) -> bool {
        let door = &self.door;
        door.broker.drain();
        self.public.pause().await;
        wait_until(deadline, async || door.broker.open_work.is_done() && health::writers_are_idle(door).await).await
    }

    /// Tells all that are connected to come back (P11). Says whether they were gone in time.
    async fn send_home(&self, deadline: Instant) -> bool {
        let door = &self.door;
        let connections = door.broker.directory.everybody();
        let count = u64::try_from(connections.len()).unwrap_or(u64::MAX).max(1);
        for (index, connection) in connections.iter().enumerate() {
            let share = u64::try_from(index).unwrap_or(0) * door.settings.drain.retry_spread_ms / count;
            connection.say_bye(share);
        }
        wait_until(deadline, async || door.broker.directory.is_empty()).await
    }

    async fn stop(self) {
        self.upkeep.iter().for_each(JoinHandle::abort);
        self.public.stop(false).await;
        self.operator.stop(false).await;
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

/// Why the store could not be read at the start.
fn failed(failure: Failure) -> StoreError {
    match failure {
        Failure::Store(error) => error,
        _ => StoreError::Corrupt { what: "operator_actions" },
    }
}

/// Asks again and again until it is so, or the deadline has passed.
async fn wait_until(deadline: Instant, is_so: impl AsyncFn() -> bool) -> bool {
    while !is_so().await {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

/// Shows the bounds of queues that are the same for every chat and connection; the writer's lanes show their own.
fn show_bounds(settings: &Settings, metrics: &Metrics) {
    let bounds = [
        ("chat", settings.chat.in_flight_max),
        ("chat_mailbox", MAILBOX),
        ("outbox_frames", settings.limits.outbox_frames_max),
        ("outbox_bytes", settings.limits.outbox_bytes_max),
        ("outboxes_bytes", settings.limits.outboxes_bytes_max),
    ];
    for (queue, bound) in bounds {
        metrics.queue_bound.with_label_values(&[queue]).set(i64::try_from(bound).unwrap_or(i64::MAX));
    }
}

fn start_writers(settings: &Settings, store: &Store, deadline: Duration, arbiters: &mut Vec<Arbiter>) -> Lanes {
    let arbiter = Arbiter::new();
    let limits = BatchLimits {
        items_max: settings.writer.items_max,
        bytes_max: settings.writer.bytes_max,
        queue_max: settings.writer.queue_max,
    };
    let options = WriterOptions { limits, deadline };
    let (config, metrics, outage) = (store.config().clone(), store.metrics().clone(), store.outage().clone());
    let lanes = Lanes::start(settings.writer.lanes, arbiter.handle(), config, options, metrics, outage);
    arbiters.push(arbiter);
    lanes
}

fn broker_options(settings: &Settings, deadline: Duration) -> BrokerOptions {
    BrokerOptions {
        sessions: SessionLimits {
            lifetime_max_s: settings.session.lifetime_max_s,
            live_max: settings.session.live_max,
            certificates_per_hour_max: settings.session.certificates_per_hour_max,
            chats_max: settings.session.chats_max,
            pending_s: settings.session.pending_s,
        },
        keys: KeyLimits {
            messages_max: settings.keys.messages_max,
            messages_max_large: settings.keys.messages_max_large,
            recipients_large: settings.keys.recipients_large,
            age_max_micros: settings.keys.age_max_s.saturating_mul(1_000_000),
        },
        members_max: settings.chat.members_max,
        in_flight_max: settings.chat.in_flight_max,
        chat_idle: Duration::from_secs(settings.chat.idle_s),
        deadline,
        catch_up_readers: settings.limits.catch_up_readers,
        // Most connections are left to those who wait.
        newly_live_max: (settings.database.connections_max / 4).max(1),
    }
}

/// How many threads a setting means: 0 is one for each core.
fn threads(setting: usize) -> usize {
    if setting > 0 { setting } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// The same for chats: 0 is one for two cores, for the sockets of their members have more to do than chats.
fn chat_threads(setting: usize) -> usize {
    if setting > 0 { setting } else { threads(0).div_ceil(2) }
}
