//! Feeds of releasers and nodes, by long poll.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use serde::Deserialize;
use starminer_verify::{NodeId, Party, PublicKey, TaskId};
use starminer_wire::{FeedResponse, FeedRole, MAX_HELD, NodeFeedRequest, ProblemStatus};

use super::{poll, poll_wait};
use crate::refused::Refused;
use crate::server::{Identity, Json, Query};
use crate::shared::{Shared, node_of};
use crate::tasks::{Command, Offer};
use crate::writer::WriterHandle;

/// Tasks that are read from the database for one poll, to see whether they are over; the others are told at the next.
const MAX_LOOKED_UP: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeedQuery {
    role: FeedRole,
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

/// Where a follower stands: with another start of the coordinator, or too far behind, it begins anew under another epoch.
fn resume(shared: &Shared, epoch: u64, after: u64) -> (u64, u64) {
    let of_this_start = epoch >> 32 == shared.epoch >> 32;
    if !of_this_start {
        (shared.epoch, 0)
    } else if after > 0 && !shared.board.reaches_back_to(after) {
        (epoch.wrapping_add(1), 0)
    } else {
        (epoch, after)
    }
}

async fn wait(
    shared: &Shared,
    role: FeedRole,
    identity: PublicKey,
    (epoch, after): (u64, u64),
    wait_ms: u64,
) -> FeedResponse {
    let (epoch, after) = resume(shared, epoch, after);
    let changed = shared.board.feed_changed(role, identity);
    let look = || {
        let page = shared.board.feed(role, identity, after);
        let enough = !page.attempts.is_empty();
        (page, enough)
    };
    let page = poll(shared, poll_wait(wait_ms), &changed, look).await;
    FeedResponse { epoch, version: page.version, attempts: page.attempts, over: Vec::new() }
}

pub(super) async fn feed(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Query(query): Query<FeedQuery>,
) -> Json<FeedResponse> {
    Json(wait(&shared, query.role, peer, (query.epoch, query.after), query.wait_ms).await)
}

/// Takes a node's offer back when its poll breaks off: whoever does not listen gets no leases.
struct Offered {
    writer: WriterHandle,
    node: Option<NodeId>,
    poll: u64,
}

impl Drop for Offered {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            let (writer, poll) = (self.writer.clone(), self.poll);
            tokio::spawn(async move {
                // Should the writer be busy, the node is found silent later.
                let _ = writer.execute(Command::Withdraw { node, poll }).await;
            });
        }
    }
}

/// Which of these tasks have ended, or never were: nobody goes on from a checkpoint of them.
async fn over(shared: &Shared, held: &[TaskId]) -> Result<Vec<TaskId>, Refused> {
    let (mut over, mut looked_up) = (Vec::new(), 0);
    for id in held {
        let ended = match shared.board.task(id) {
            Some(task) => task.ending.is_some(),
            None if looked_up == MAX_LOOKED_UP => continue,
            None => {
                looked_up += 1;
                shared.task(id).await?.is_none_or(|task| task.ending.is_some())
            }
        };
        if ended {
            over.push(*id);
        }
    }
    Ok(over)
}

pub(super) async fn node_feed(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Json(request): Json<NodeFeedRequest>,
) -> Result<Json<FeedResponse>, Refused> {
    let node = node_of(peer);
    if shared.board.standing(&node).is_none_or(|standing| !standing.counts_at(shared.clock.now())) {
        return Err(Refused::of(
            ProblemStatus::Forbidden,
            Party::Node,
            "node.not-admitted",
            "the node is not admitted, or its admission expired",
            "prove the node at /v1/node/challenge and /v1/node/admission first",
        ));
    }
    let _present = shared.presence.poll(peer, &shared.clock);
    let (_, seen) = resume(&shared, request.epoch, request.after);
    let poll = shared.polls.fetch_add(1, Ordering::Relaxed);
    let mut offered = Offered { writer: shared.writer.clone(), node: Some(node), poll };
    if request.holds.len() > MAX_HELD {
        return Err(Refused::malformed("body.malformed", "a node holds checkpoints of more tasks than it may"));
    }
    let over = over(&shared, &request.holds).await?;
    let mut holds = request.holds;
    holds.sort_unstable();
    let (holds, unclean) = (Arc::from(holds), request.unclean);
    let offer = Offer { boot: request.boot, poll, free_places: request.free_places, holds, unclean };
    shared.writer.execute(Command::Offer { node, offer, seen }).await?;
    // What is known to be over is said at once: the disk it takes is the node's.
    let wait_ms = if over.is_empty() { request.wait_ms } else { 0 };
    let response = wait(&shared, FeedRole::Node, peer, (request.epoch, request.after), wait_ms).await;
    offered.node = None;
    Ok(Json(FeedResponse { over, ..response }))
}
