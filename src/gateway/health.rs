//! The operator's listener: whether the process lives, whether it is ready, and what it counts.

use actix::prelude::*;
use actix_web::{HttpResponse, web};

use super::Door;
use crate::store::writer::IsIdle;

/// Mounts the routes.
pub fn configure(routes: &mut web::ServiceConfig) {
    routes
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics));
}

async fn healthz() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

/// Ready: migrations are done (the listener opens after them), the database answers, the writer lives, and the
/// process is not going.
async fn readyz(door: web::Data<Door>) -> HttpResponse {
    let mut wanting = Vec::new();
    if door.broker.is_draining() {
        wanting.push("draining");
    }
    if !door.broker.writers().iter().all(Addr::connected) {
        wanting.push("writer not alive");
    }
    let database_is_up = door.broker.store.ping().await.is_ok();
    door.broker.metrics.postgres_up.set(i64::from(database_is_up));
    if !database_is_up {
        wanting.push("database not reachable");
    }
    if wanting.is_empty() {
        return HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ready\n");
    }
    HttpResponse::ServiceUnavailable()
        .content_type("text/plain; charset=utf-8")
        .body(format!("{}\n", wanting.join("\n")))
}

async fn metrics(door: web::Data<Door>) -> HttpResponse {
    look(&door);
    match door.broker.metrics.text() {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "metrics not written");
            HttpResponse::InternalServerError().finish()
        }
    }
}

/// Brings what is counted elsewhere into the metrics.
fn look(door: &Door) {
    let metrics = &door.broker.metrics;
    let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    metrics.queue_depth.with_label_values(&["outboxes_bytes"]).set(whole(door.budget.bytes()));
    metrics.sent_bytes.inc_by(door.budget.handed_on().saturating_sub(metrics.sent_bytes.get()));
    let pool = door.broker.store.pool_figures();
    metrics.pool_connections.with_label_values(&["in_use"]).set(whole(pool.in_use));
    metrics.pool_connections.with_label_values(&["idle"]).set(whole(pool.idle));
    metrics.pool_waiting.set(whole(pool.waiting));
}

/// Whether every lane of the writer has committed what it was given.
pub async fn writers_are_idle(door: &Door) -> bool {
    for writer in door.broker.writers() {
        if !writer.send(IsIdle).await.unwrap_or(true) {
            return false;
        }
    }
    true
}
