//! The endpoints. `specs/api.md` has who may call what, with which bodies and problems.
//!
//! Handlers verify whatever can be verified without the state (signatures, identities, blobs), in parallel; the writer decides.

mod attempts;
mod blobs;
mod brokers;
mod feeds;
mod log;
mod network;
mod nodes;
mod references;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post, put};
use starminer_receipt::{Envelope, Signed, Statement};
use starminer_verify::{NetworkId, Party};
use starminer_wire::paths as wire;
use starminer_wire::{MAX_POLL_WAIT_MS, ProblemStatus};
use tokio::sync::Notify;

use crate::refused::Refused;
use crate::shared::Shared;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let attempt = |action: &str| format!("/v1/tasks/{{task}}/attempts/{{attempt}}/{action}");
    Router::new()
        .route(wire::NETWORK, get(network::network))
        .route(wire::TASKS, post(tasks::submit))
        .route("/v1/tasks/{task}", get(tasks::follow))
        .route("/v1/tasks/{task}/cancel", post(tasks::cancel))
        .route("/v1/tasks/{task}/receipt", get(tasks::receipt))
        .route(&attempt("challenge"), post(attempts::challenge))
        .route(&attempt("evidence"), post(attempts::evidence))
        .route(&attempt("release"), post(attempts::release))
        .route(&attempt("grant"), post(attempts::grant))
        .route(&attempt("deny"), post(attempts::deny))
        .route(&attempt("checkpoint"), post(attempts::checkpoint))
        .route(&attempt("report"), post(attempts::report))
        .route(wire::FEED, get(feeds::feed))
        .route(wire::NODE_FEED, post(feeds::node_feed))
        .route(wire::NODE_CHALLENGE, post(nodes::challenge))
        .route(wire::NODE_ENROLMENT, post(nodes::enrolment))
        .route(wire::NODE_ADMISSION, post(nodes::admission))
        .route(wire::NODES, get(nodes::list))
        .route(wire::REFERENCES, post(references::publish))
        .route("/v1/references/{role}", get(references::newest))
        .route(wire::BROKERS, get(brokers::list))
        .route(wire::BROKER_EVIDENCE, post(brokers::evidence))
        .route(wire::BROKER_REQUESTS, get(brokers::requests))
        .route(wire::BROKER_ANSWERS, post(brokers::answer))
        .route("/v1/blobs/{id}", put(blobs::upload).get(blobs::download))
        .route("/v1/blobs/{id}/status", get(blobs::status))
        .route(wire::LOG, get(log::checkpoint))
        .route("/v1/log/checkpoint", get(log::checkpoint))
        .route(wire::LOG_CONSISTENCY, get(log::consistency))
        .route(wire::LOG_CHAIN, get(log::chain))
        .route("/v1/log/tile/{*path}", get(log::tile))
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(no_such_method)
        .with_state(shared)
}

async fn no_such_endpoint() -> Refused {
    Refused::of(
        ProblemStatus::NotFound,
        Party::Network,
        "endpoint.unknown",
        "there is no such endpoint",
        "see specs/api.md; client and coordinator may be of different versions",
    )
}

async fn no_such_method() -> Refused {
    Refused::malformed("endpoint.method", "the endpoint has no such method")
}

/// Verifies a statement of this network.
fn open<T: Statement>(
    shared: &Shared,
    envelope: Envelope,
    network: impl FnOnce(&T) -> NetworkId,
) -> Result<Arc<Signed<T>>, Refused> {
    let signed = envelope.open::<T>()?;
    if network(signed.statement()) == shared.network {
        return Ok(Arc::new(signed));
    }
    Err(Refused::of(
        ProblemStatus::Refused,
        Party::Network,
        "network.other",
        "the statement is of another network",
        "use the network file of this coordinator",
    ))
}

/// How long a poll waits.
fn poll_wait(wait_ms: u64) -> Duration {
    Duration::from_millis(wait_ms.min(MAX_POLL_WAIT_MS))
}

/// Looks until there is something, the time is over, or the coordinator stops; the last look counts.
async fn poll<T>(shared: &Shared, wait: Duration, changed: &Notify, mut look: impl FnMut() -> (T, bool)) -> T {
    let mut stopping = shared.stopping.clone();
    let deadline = tokio::time::sleep(wait);
    tokio::pin!(deadline);
    loop {
        let notified = changed.notified();
        tokio::pin!(notified);
        // Registered before looking, so that a change in between wakes.
        notified.as_mut().enable();
        let (found, enough) = look();
        if enough || wait.is_zero() || shared.is_stopping() {
            return found;
        }
        tokio::select! {
            () = &mut notified => {}
            () = &mut deadline => return look().0,
            _ = stopping.wait_for(|stopping| *stopping) => return look().0,
        }
    }
}
