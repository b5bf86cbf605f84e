//! Sets up the server of a listener as the transport needs it.
//!
//! Floor 5.
//!
//! What it sees to:
//! 1. Nagle's algorithm is off, or it adds 40 ms.
//! 2. A duplicate of each socket is kept from the moment it is accepted, with what the caller adds.
//! 3. What carries one request is not kept for another.
//! 4. Who asks for an upgrade is answered by the same application, and then carried without the HTTP layer.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use actix_codec::{AsyncRead, AsyncWrite};
use actix_http::body::{BoxBody, MessageBody};
use actix_http::h1::ExpectHandler;
use actix_http::{HttpService, KeepAlive, Request, Response, TlsAcceptorConfig};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, boxed, map_config};
use actix_web::dev::{AppConfig, Extensions, Server};
use tokio_rustls::rustls::ServerConfig;

use super::carrier::{Application, Upgrades};
use super::kill::keep;

/// How a listener serves.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Threads.
    pub workers: usize,
    /// Connections of each thread; more wait to be accepted.
    pub connections_max: usize,
    /// Longest time for the head of a request, and for a handshake of TLS.
    pub head_timeout: Duration,
    /// How it speaks TLS, if it does.
    pub tls: Option<ServerConfig>,
}

/// Serves an application on a listener.
///
/// `greet` is called for each connection that is accepted, with the address of its other end and with what is kept for it as
/// long as its socket lives: see [`kept_for`](super::kept_for).
///
/// # Errors
/// The listener cannot be used.
pub fn serve<A, I, S, B>(
    listener: TcpListener,
    options: ListenerOptions,
    greet: impl Fn(Option<IpAddr>, &mut Extensions) + Clone + Send + 'static,
    app: A,
) -> io::Result<Server>
where
    A: Fn() -> I + Clone + Send + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, InitError = ()> + 'static,
    S::Service: 'static,
    S::Future: 'static,
    S::Response: Into<Response<B>>,
    S::Error: Into<actix_web::Error>,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let application = move || -> Application {
        let service = app().into_factory();
        let service = service.map(|response| response.into().map_into_boxed_body());
        let service = service.map_err(|error| Response::from(error.into()));
        boxed::factory(map_config(service, |()| AppConfig::default()))
    };
    let builder = Server::build().workers(options.workers).max_concurrent_connections(options.connections_max);
    let builder = builder.disable_signals();
    let head_timeout = options.head_timeout;
    let builder = match options.tls {
        None => builder.listen("public", listener, move || http(&application, head_timeout, greet.clone()).tcp())?,
        Some(tls) => builder.listen("public", listener, move || {
            let acceptor = TlsAcceptorConfig::default().handshake_timeout(head_timeout);
            http(&application, head_timeout, greet.clone()).rustls_0_23_with_config(tls.clone(), acceptor)
        })?,
    };
    Ok(builder.run())
}

fn http<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    application: &impl Fn() -> Application,
    head_timeout: Duration,
    greet: impl Fn(Option<IpAddr>, &mut Extensions) + 'static,
) -> HttpService<T, Application, BoxBody, ExpectHandler, Upgrades<Application>> {
    HttpService::build()
        .keep_alive(KeepAlive::Disabled)
        // Without it the HTTP layer has a limit of its own.
        .client_request_timeout(head_timeout)
        // After the last word nothing is waited for; how a slow peer is cut is the reaper's business.
        .client_disconnect_timeout(Duration::ZERO)
        .tcp_nodelay(true)
        .on_connect_ext(move |io: &T, data| keep(io, data, &greet))
        .upgrade(Upgrades(application()))
        .finish(application())
}
