//! The steps of an attempt.

use std::sync::Arc;

use axum::extract::State;
use starminer_receipt::{
    AgentStatement, ChallengeStatement, CheckpointStatement, DenyStatement, Grant, ReleaseStatement, Report,
};
use starminer_verify::{Attempt, Digest, Evidence, Party, PublicKey, TaskId};
use starminer_wire::{
    Accepted, ChallengeRequest, CheckpointRequest, DenyRequest, EvidenceRequest, GrantRequest, ProblemStatus,
    ReleaseRequest, ReleaseResponse, ReportRequest,
};

use super::open;
use crate::refused::Refused;
use crate::server::{Identity, Json, JsonWithEvidence, Params};
use crate::shared::Shared;
use crate::tasks::{Command, Step, Task, Tasks};

/// Longest attestation result (EAR JSON), in bytes.
const MAX_ATTESTATION_RESULT_BYTES: usize = 64 * 1024;

type Path = Params<(TaskId, Attempt)>;

/// Takes a step. A task that is not in memory any more has ended; its answer follows from the database.
async fn take(
    shared: &Shared,
    peer: PublicKey,
    (task, attempt): (TaskId, Attempt),
    step: Step,
) -> Result<Arc<Task>, Refused> {
    if shared.board.task(&task).is_some() {
        match shared.writer.execute(Command::Step { peer, task, attempt, step: step.clone() }).await {
            Err(refused) if refused.code() == "task.unknown" => {}
            answer => return answer?.task.ok_or_else(Refused::internal),
        }
    }
    let ended = shared.task(&task).await?.ok_or_else(Refused::task_unknown)?;
    match Tasks::decide(&ended, peer, attempt, step, shared.clock.now(), false)? {
        None => Ok(ended),
        Some(_) => Err(Refused::internal()),
    }
}

fn accepted(task: &Task) -> Json<Accepted> {
    Json(Accepted { state: task.state() })
}

pub(super) async fn challenge(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(path): Path,
    Json(request): Json<ChallengeRequest>,
) -> Result<Json<Accepted>, Refused> {
    let challenge = open::<ChallengeStatement>(&shared, request.challenge, |challenge| challenge.network)?;
    Ok(accepted(&*take(&shared, peer, path, Step::Challenge(challenge)).await?))
}

pub(super) async fn evidence(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(path): Path,
    JsonWithEvidence(request): JsonWithEvidence<EvidenceRequest>,
) -> Result<Json<Accepted>, Refused> {
    // Form alone: what it claims is for the releaser.
    let evidence =
        Evidence::parse(&request.evidence.0).map_err(|error| Refused::new(ProblemStatus::Refused, error.into()))?;
    let digest = Digest::of(&request.evidence.0);
    let endorsements = shared.admission.beside(&evidence, request.enrolments, shared.clock.now().wall)?.map(Arc::new);
    let report_key = evidence.claimed_report_key();
    let step = Step::Evidence { evidence: Arc::new(request.evidence.0), digest, endorsements, report_key };
    Ok(accepted(&*take(&shared, peer, path, step).await?))
}

pub(super) async fn release(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(path): Path,
    Json(request): Json<ReleaseRequest>,
) -> Result<Json<ReleaseResponse>, Refused> {
    // Before anything is taken, so that a bad size does not waste a release.
    if request.remembered_size > shared.log.head().size {
        shared.log.continuation(request.remembered_size).await?;
    }
    let release = open::<ReleaseStatement>(&shared, request.release, |release| release.network)?;
    let task = take(&shared, peer, path, Step::Release(release)).await?;
    let index = task.attempt(path.1).and_then(|record| record.release_index).ok_or_else(Refused::internal)?;
    Ok(Json(ReleaseResponse { proof: shared.log.proof(index, request.remembered_size).await? }))
}

pub(super) async fn grant(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(path): Path,
    Json(request): Json<GrantRequest>,
) -> Result<Json<Accepted>, Refused> {
    if request.attestation_result.0.len() > MAX_ATTESTATION_RESULT_BYTES {
        return Err(too_long("attestation result", MAX_ATTESTATION_RESULT_BYTES));
    }
    let grant = open::<Grant>(&shared, request.grant, |grant| grant.network)?;
    let step = Step::Grant { grant, attestation_result: Arc::new(request.attestation_result.0) };
    Ok(accepted(&*take(&shared, peer, path, step).await?))
}

pub(super) async fn deny(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(path): Path,
    Json(request): Json<DenyRequest>,
) -> Result<Json<Accepted>, Refused> {
    let denial = open::<DenyStatement>(&shared, request.denial, |denial| denial.network)?;
    Ok(accepted(&*take(&shared, peer, path, Step::Deny(denial)).await?))
}

pub(super) async fn checkpoint(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(path): Path,
    Json(request): Json<CheckpointRequest>,
) -> Result<Json<Accepted>, Refused> {
    let checkpoint = open::<CheckpointStatement>(&shared, request.checkpoint, |checkpoint| checkpoint.network)?;
    Ok(accepted(&*take(&shared, peer, path, Step::Checkpoint(checkpoint)).await?))
}

pub(super) async fn report(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(path): Path,
    JsonWithEvidence(request): JsonWithEvidence<ReportRequest>,
) -> Result<Json<Accepted>, Refused> {
    let report = open::<Report>(&shared, request.report, |report| report.predicate.network)?;
    let agent_statement = request
        .agent_statement
        .map(|envelope| open::<AgentStatement>(&shared, envelope, |statement| statement.network))
        .transpose()?;
    if let Some(evidence) = &request.closing_evidence {
        Evidence::parse(&evidence.0).map_err(|error| Refused::new(ProblemStatus::Refused, error.into()))?;
    }
    // An attempt that has ended is told so before it is asked for its outputs.
    if let Some(task) = shared.board.task(&path.0)
        && task
            .attempt(path.1)
            .is_some_and(|record| record.ended && record.node.0 == peer && record.report != Some(report.digest()))
    {
        return Err(Refused::fenced());
    }
    let outputs = report.predicate.outputs.iter().map(|object| (object.content_id, object.sealed_bytes));
    let pin = shared.hold_blobs("report.blob-missing", Party::Node, outputs).await?;
    let closing_evidence = request.closing_evidence.map(|evidence| Arc::new(evidence.0));
    let task = take(&shared, peer, path, Step::Report { report, agent_statement, closing_evidence }).await?;
    drop(pin);
    Ok(accepted(&task))
}

fn too_long(what: &str, most: usize) -> Refused {
    Refused::of(
        ProblemStatus::TooLarge,
        Party::Releaser,
        "body.too-large",
        format!("the {what} is over {most} bytes"),
        "send less",
    )
}
