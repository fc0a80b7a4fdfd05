//! Admission of nodes, and the list of those that are admitted.

use std::sync::Arc;

use axum::extract::State;
use starminer_receipt::LogEntry;
use starminer_wire::{
    AdmissionChallenge, AdmissionRequest, AdmissionResponse, EnrolmentChallenge, EnrolmentRequest, NodeSummary,
};

use crate::nodes::Outcome;
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

pub(super) async fn enrolment(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Json(request): Json<EnrolmentRequest>,
) -> Result<Json<EnrolmentChallenge>, Refused> {
    let now = shared.clock.now().wall;
    shared.admission.enrol(peer, &request, &*shared.randomness, now).map(Json)
}

pub(super) async fn admission(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    JsonWithEvidence(request): JsonWithEvidence<AdmissionRequest>,
) -> Result<Json<AdmissionResponse>, Refused> {
    let node = node_of(peer);
    let now = shared.clock.now();
    let reference_values = shared.published.agents(&shared.log, now.wall).await?;
    let outcome = match shared.admission.appraise(peer, request, &reference_values, now) {
        Ok(outcome) => outcome,
        Err(refused) => {
            // It signed this itself: whatever it was admitted for, it is not that any more.
            if refused.is_of_the_node() {
                shared.writer.execute(Command::Suspend { node, refusal: refused.refusal.clone() }).await?;
            }
            return Err(refused);
        }
    };
    let Outcome { evidence, standing, forecast, unmatched, change, enrolment, state } = outcome;
    if let Some(refusal) = change {
        shared.writer.execute(Command::Suspend { node, refusal }).await?;
    }
    let response = AdmissionResponse {
        tier: standing.tier.name().into(),
        provenance: standing.provenance().name().into(),
        valid_until: standing.valid_until,
        renew_after_ms: shared.config.waits.attestation_ms / 2,
        enrolment: enrolment.as_ref().map(|signed| signed.envelope().clone()),
        forecast,
        unmatched,
    };
    if let Some(statement) = enrolment {
        shared.writer.execute(Command::Enrol { node, statement: Arc::new(statement) }).await?;
    }
    shared.writer.execute(Command::Admit { node, evidence, standing }).await?;
    shared.admission.keep(node, state);
    Ok(Json(response))
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, Identity(_): Identity) -> Json<Vec<NodeSummary>> {
    let now = shared.clock.now();
    let admitted = shared.board.nodes().into_iter().filter(|(_, standing, _)| standing.counts_at(now));
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
