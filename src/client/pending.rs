//! One connection of a session that is not live yet: it logs in, and asks for what a pending session may ask for.

use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::engine::login::LoginError;
use super::engine::state::{Progress, Shared};
use super::net::socket;
use super::net::wire::Wire;
use crate::protocol::frame::{Hello, ServerFrame};

/// How long a pending session's connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// What the connection brings by itself.
#[derive(Debug)]
pub(super) struct Hellos<'a> {
    /// The greeting.
    pub(super) hello: oneshot::Receiver<Hello>,
    /// Told when the session is approved.
    pub(super) approved: &'a Notify,
}

/// Opens a connection and works over it until the work is done or the connection lost.
pub(super) async fn connected<T>(
    shared: &Shared,
    work: impl AsyncFnOnce(&Wire, Hellos<'_>) -> Result<T, LoginError>,
) -> Result<T, LoginError> {
    let config = &shared.config;
    let opened = socket::open(&config.connector, &shared.endpoint, config.encoding, config.connect_timeout).await;
    let (writer, mut reader) = opened.map_err(|error| {
        tracing::debug!(%error, "no connection");
        LoginError::Lost
    })?;
    let (wire, outgoing) = Wire::new(1);
    shared.lock().progress = Progress::default();
    let approved = Notify::new();
    let (greet, hello) = oneshot::channel();
    let receive = async {
        let mut greet = Some(greet);
        loop {
            match socket::read(&mut reader, config.encoding, SILENCE_MAX).await {
                Ok(ServerFrame::Hello(hello)) => {
                    if let Some(greet) = greet.take() {
                        let _ = greet.send(hello);
                    }
                }
                Ok(ServerFrame::Ok(ok)) => wire.done(ok.id, ok.result),
                Ok(ServerFrame::Error(error)) => wire.refused(error),
                Ok(ServerFrame::Approved(_)) => approved.notify_one(),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    };
    let mut work = std::pin::pin!(work(&wire, Hellos { hello, approved: &approved }));
    tokio::select! {
        done = &mut work => return done,
        () = receive => {}
        _ = socket::write(writer, outgoing, config.encoding) => {}
        () = wire.wait_cut() => {}
    }
    wire.closed();
    // The last words, which may have come together with the end, are heard.
    tokio::select! {
        biased;
        done = &mut work => done,
        () = std::future::ready(()) => Err(LoginError::Lost),
    }
}
