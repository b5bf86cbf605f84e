//! The two listeners: the public one for devices, the operator's for those who run it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use socket2::{Domain, Protocol, Socket, Type};

use super::{ServerError, threads};
use crate::gateway::tls::Certificates;
use crate::gateway::transport::{self, ListenerOptions};
use crate::gateway::{self, Door, accounts, entrance, health, socket, status};
use crate::protocol::account::SOCKET_PATH;

/// Connections that wait to be accepted; Linux cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

pub(super) fn start_public(
    door: &Door,
    certificates: Option<&Arc<Certificates>>,
) -> Result<(ServerHandle, SocketAddr), ServerError> {
    let address = door.settings.server.listen;
    let (listener, bound_to) = listen(address).map_err(|source| ServerError::Listen { address, source })?;
    let options = ListenerOptions {
        workers: threads(door.settings.server.workers),
        connections_max: door.settings.server.connections_max.saturating_mul(2),
        head_timeout: Duration::from_secs(door.settings.server.login_timeout_s),
        tls: certificates.map(Certificates::config).transpose()?,
    };
    let arriving = door.clone();
    let greet = move |peer, kept: &mut _| {
        arriving.reaper.greet(kept);
        entrance::greet(&arriving, peer, kept);
    };
    let data = web::Data::new(door.clone());
    let app = move || {
        App::new()
            .app_data(data.clone())
            .configure(accounts::configure)
            .configure(gateway::passwords::configure)
            .configure(gateway::friends::configure)
            .route(SOCKET_PATH, web::get().to(socket::open))
            .default_service(web::to(accounts::not_found))
            .wrap(from_fn(entrance::entrance))
            .wrap(from_fn(transport::only_one))
    };
    let server = transport::serve(listener, options, greet, app);
    let server = server.map_err(|source| ServerError::Listen { address, source })?;
    Ok((run_in_background(server), bound_to))
}

fn listen(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted broker need not wait for the connections of the last one to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    let bound_to = listener.local_addr()?;
    Ok((listener, bound_to))
}

pub(super) fn start_operator(door: &Door) -> Result<(ServerHandle, SocketAddr), ServerError> {
    let address = door.settings.operator.listen;
    let data = web::Data::new(door.clone());
    let routes = |routes: &mut web::ServiceConfig| {
        health::configure(routes);
        status::configure(routes);
        #[cfg(feature = "fail-points")]
        gateway::fail_points::configure(routes);
    };
    let server =
        HttpServer::new(move || App::new().app_data(data.clone()).configure(routes)).workers(1).disable_signals();
    let server = server.bind(address).map_err(|source| ServerError::Listen { address, source })?;
    let bound_to = server.addrs().first().copied().unwrap_or(address);
    Ok((run_in_background(server.run()), bound_to))
}

fn run_in_background(server: Server) -> ServerHandle {
    let handle = server.handle();
    actix::spawn(server);
    handle
}
