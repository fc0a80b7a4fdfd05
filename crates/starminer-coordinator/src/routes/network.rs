//! What the coordinator says of itself.

use std::sync::Arc;

use axum::extract::State;
use starminer_wire::NetworkInfo;

use crate::server::{Identity, Json};
use crate::shared::Shared;

/// Name and version of this build.
const BUILD: &str = concat!("starminer-coordinator ", env!("CARGO_PKG_VERSION"));

pub(super) async fn network(State(shared): State<Arc<Shared>>, Identity(_): Identity) -> Json<NetworkInfo> {
    let now = shared.clock.now();
    let brokers = shared.broker_presence.present(now);
    Json(NetworkInfo { network: shared.network, build: BUILD.into(), now: now.wall, brokers })
}
