//! The log for everybody: checkpoint, tiles and entry bundles (C2SP tlog-tiles), consistency proofs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use starminer_log::TilePath;
use starminer_verify::Party;
use starminer_wire::{LogChain, LogProof, MAX_CHAIN_SIZES, ProblemStatus};

use crate::refused::Refused;
use crate::server::{Identity, Json, Params, Query};
use crate::shared::Shared;

pub(super) async fn checkpoint(State(shared): State<Arc<Shared>>, Identity(_): Identity) -> Response {
    content("text/plain; charset=utf-8", "no-store", shared.log.head().note.to_string())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FromQuery {
    from: u64,
}

pub(super) async fn consistency(
    State(shared): State<Arc<Shared>>,
    Identity(_): Identity,
    Query(query): Query<FromQuery>,
) -> Result<Json<LogProof>, Refused> {
    shared.log.continuation(query.from).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SizesQuery {
    sizes: String,
}

pub(super) async fn chain(
    State(shared): State<Arc<Shared>>,
    Identity(_): Identity,
    Query(query): Query<SizesQuery>,
) -> Result<Json<LogChain>, Refused> {
    let malformed = || {
        let reason = format!("sizes are at most {MAX_CHAIN_SIZES} ascending numbers, parted by commas");
        Refused::malformed("log.sizes", reason)
    };
    let sizes: Vec<u64> = query.sizes.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
    if sizes.len() > MAX_CHAIN_SIZES || !sizes.is_sorted() {
        return Err(malformed());
    }
    shared.log.chain(&sizes).await.map(Json)
}

pub(super) async fn tile(
    State(shared): State<Arc<Shared>>,
    Identity(_): Identity,
    Params(path): Params<String>,
) -> Result<Response, Refused> {
    let unknown = || {
        Refused::of(
            ProblemStatus::NotFound,
            Party::Network,
            "log.tile-unknown",
            "the log has no such tile",
            "read the checkpoint for its size",
        )
    };
    let size = shared.log.head().size;
    let bytes = match TilePath::parse(&format!("tile/{path}")).map_err(|_| unknown())? {
        TilePath::Tile(tile) if tile.is_within(size) => {
            let hashes = shared.log.stored_hashes(&tile.reads()).await?;
            tile.read(&hashes).map_err(|_| Refused::internal())?
        }
        TilePath::Entries(bundle) if bundle.is_within(size) => {
            let range = bundle.entries();
            let entries = shared.log.entries(range.start, range.end).await?;
            bundle.encode(&entries).map_err(|_| Refused::internal())?
        }
        TilePath::Tile(_) | TilePath::Entries(_) => return Err(unknown()),
    };
    // What a tile holds never changes.
    Ok(content("application/octet-stream", "public, max-age=31536000, immutable", bytes))
}

fn content(content_type: &'static str, cache: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}
