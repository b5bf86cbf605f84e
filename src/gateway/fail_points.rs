//! Lets tests break the broker at named places, over the operator's listener. Compiled with the feature `fail-points`
//! alone, which no shipped build has.
//!
//! `PUT /fail-points/NAME` with the actions of the crate `fail` as its body (`1*pause`, `2*off->1*return`, `panic`,
//! `off`) arms a place. `pause` and `sleep` hold up the whole thread, and with it all that runs there.

use std::time::Duration;

use actix_web::{HttpResponse, web};

/// Mounts the route.
pub fn configure(routes: &mut web::ServiceConfig) {
    routes.route("/fail-points/{name}", web::put().to(arm));
}

async fn arm(name: web::Path<String>, actions: String) -> HttpResponse {
    match fail::cfg(name.into_inner(), &actions) {
        Ok(()) => HttpResponse::NoContent().finish(),
        Err(reason) => HttpResponse::BadRequest().body(reason),
    }
}

/// Waits for as long as a place returns (`return`), and holds up nothing else.
pub async fn hold(place: &str) {
    while fail::eval(place, |_| ()).is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
