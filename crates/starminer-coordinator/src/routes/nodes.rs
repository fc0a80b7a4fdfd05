//! Admission of nodes, and the list of those that are admitted.

use std::sync::Arc;

use axum::extract::State;
use starminer_receipt::LogEntry;
use starminer_wire::{AdmissionChallenge, AdmissionRequest, AdmissionResponse, NodeSummary};

use crate::refused::Refused;
use crate::server::{Identity, Json, JsonWithEvidence};
use crate::shared::{Shared, node_of};
use crate::tasks::Command;

pub(super) async fn challenge(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
) -> Result<Json<AdmissionChallenge>, Refused> {
    let random = shared.randomness.draw().map_err(|error| {
        tracing::error!(%error, "no challenge can be made");
        Refused::internal()
    })?;
    Ok(Json(shared.admission.challenge(peer, random, shared.clock.now().wall)))
}

pub(super) async fn admission(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    JsonWithEvidence(request): JsonWithEvidence<AdmissionRequest>,
) -> Result<Json<AdmissionResponse>, Refused> {
    let (evidence, standing) = shared.admission.appraise(peer, &request.evidence.0, shared.clock.now().wall)?;
    let response = AdmissionResponse {
        tier: standing.tier.name().into(),
        provenance: standing.provenance().name().into(),
        valid_until: standing.valid_until,
        renew_after_ms: shared.config.keep.admission_seconds.saturating_mul(500),
        enrolment: None,
        forecast: None,
    };
    shared.writer.execute(Command::Admit { node: node_of(peer), evidence, standing }).await?;
    Ok(Json(response))
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, Identity(_): Identity) -> Json<Vec<NodeSummary>> {
    let now = shared.clock.now();
    let admitted = shared.board.nodes().into_iter().filter(|(_, standing, _)| standing.valid_until > now.wall);
    let mut nodes: Vec<NodeSummary> = admitted
        .filter_map(|(node, standing, running)| {
            Some(NodeSummary {
                pseudonym: LogEntry::node_pseudonym(&shared.network, &node),
                tier: standing.tier.name().into(),
                provenance: standing.provenance().name().into(),
                running,
                seen_at: shared.presence.seen_at(&node.0, now)?,
            })
        })
        .collect();
    nodes.sort_by_key(|node| node.pseudonym);
    Json(nodes)
}
