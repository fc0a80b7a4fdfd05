//! Submitting, following, cancelling; what a receipt is made of.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use starminer_receipt::{Base64Bytes, CancelStatement, EntryKind, EnvelopeError, TaskSpec};
use starminer_store::BlobRow;
use starminer_verify::{Digest, Party, PublicKey, TaskId};
use starminer_wire::{
    Accepted, CancelRequest, MAX_ATTACHED_BYTES, ProblemStatus, ReceiptParts, SubmitRequest, TaskView,
};

use super::{open, poll, poll_wait};
use crate::board::task_view;
use crate::limits::Reservation;
use crate::log_reader::storage;
use crate::refused::Refused;
use crate::server::{Identity, Json, Params, Query};
use crate::shared::{Shared, objects_of};
use crate::tasks::{Command, StoredParts, Task, Tasks};

pub(super) async fn submit(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Json(request): Json<SubmitRequest>,
) -> Result<Json<TaskView>, Refused> {
    let spec = open::<TaskSpec>(&shared, request.spec, |spec| spec.network)?;
    if spec.requester != peer {
        return Err(Refused::forbidden("the spec names another requester"));
    }
    if let Some(task) = shared.task(&spec.task).await? {
        Tasks::resubmit(&task, &spec)?;
        return Ok(Json(view(&shared, &task)));
    }
    match (&request.deposit, spec.releaser == spec.requester) {
        (None, false) => {
            return Err(deposit_refused("submit.deposit-missing", "the spec names a broker and no deposit came along"));
        }
        (Some(_), true) => {
            return Err(deposit_refused(
                "submit.deposit-unexpected",
                "the requester releases itself and needs no deposit",
            ));
        }
        _ => {}
    }
    if request.deposit.as_ref().is_some_and(|deposit| !deposit.secret.is_well_formed()) {
        return Err(deposit_refused("submit.deposit-malformed", "the deposit is not a sealed secret"));
    }
    let attached = Attached::take(&shared, peer, &spec, request.objects).await?;
    let elsewhere = objects_of(&spec).filter(|(id, _)| !attached.has(id));
    let pin = shared.hold_blobs("submit.blob-missing", Party::Requester, elsewhere).await?;
    let command = Command::Submit { spec, deposit: request.deposit.map(Arc::new) };
    let answer = shared.writer.execute_with(command, attached.rows).await?;
    drop(pin);
    for ((id, size_bytes), reservation) in attached.reservations {
        reservation.keep();
        shared.known_blobs.add(id, size_bytes);
    }
    let task = answer.task.ok_or_else(Refused::internal)?;
    Ok(Json(view(&shared, &task)))
}

/// Sealed objects that came along with a spec: they become durable in the same commit, so that a small job needs no uploads.
struct Attached<'s> {
    rows: Vec<BlobRow>,
    /// Id and length of each, with the bytes set aside for it.
    reservations: Vec<(([u8; 32], u64), Reservation<'s>)>,
}

impl<'s> Attached<'s> {
    /// Every object has to be one of the spec's, by content and length.
    async fn take(
        shared: &'s Shared,
        peer: PublicKey,
        spec: &TaskSpec,
        objects: Vec<Base64Bytes>,
    ) -> Result<Self, Refused> {
        if objects.iter().map(|object| object.0.len()).sum::<usize>() > MAX_ATTACHED_BYTES {
            let reason = format!("at most {MAX_ATTACHED_BYTES} bytes of objects may come along with a spec");
            return Err(attached_refused(ProblemStatus::TooLarge, "submit.objects-too-large", reason));
        }
        let mut attached = Self { rows: Vec::new(), reservations: Vec::new() };
        let stored_at = shared.clock.now().wall.as_millis();
        for Base64Bytes(bytes) in objects {
            let (id, size_bytes) = (Digest(*blake3::hash(&bytes).as_bytes()), bytes.len() as u64);
            if !objects_of(spec).any(|object| object == (id, size_bytes)) {
                let reason = format!("object {id} came along, and the spec has no such object");
                return Err(attached_refused(ProblemStatus::Refused, "submit.object-unexpected", reason));
            }
            if attached.has(&id) || shared.blob_size(&id).await?.is_some() {
                continue;
            }
            attached.reservations.push(((id.0, size_bytes), shared.quotas.reserve(peer.0, size_bytes)?));
            attached.rows.push(BlobRow { id: id.0, owner: peer.0, size_bytes, stored_at, body: Some(bytes) });
        }
        Ok(attached)
    }

    fn has(&self, id: &Digest) -> bool {
        self.rows.iter().any(|row| row.id == id.0)
    }
}

fn attached_refused(status: ProblemStatus, check: &'static str, reason: String) -> Refused {
    Refused::of(status, Party::Requester, check, reason, "upload the spec's objects, and submit the spec without them")
}

fn deposit_refused(check: &'static str, reason: &'static str) -> Refused {
    Refused::of(
        ProblemStatus::Refused,
        Party::Requester,
        check,
        reason,
        "leave a deposit exactly where the spec names a broker as releaser",
    )
}

fn view(shared: &Shared, task: &Task) -> TaskView {
    task_view(task, shared.board.queue_position(task))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FollowQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
    #[serde(default)]
    until: Until,
}

/// What a follower waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Until {
    /// A version past `after`.
    #[default]
    Changed,
    /// The end, whatever happens before it.
    Ended,
}

pub(super) async fn follow(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(id): Params<TaskId>,
    Query(query): Query<FollowQuery>,
) -> Result<Json<TaskView>, Refused> {
    let Some((task, changed)) = shared.board.watch(&id) else {
        // Only an ended task is not on the board; it changes no more.
        let task = shared.task_of(&id, peer).await?;
        return Ok(Json(view(&shared, &task)));
    };
    if task.requester() != peer {
        return Err(Refused::task_unknown());
    }
    let look = || {
        let now = shared.board.task(&id).unwrap_or_else(|| task.clone());
        let enough = now.ending.is_some() || (query.until == Until::Changed && now.version > query.after);
        (now, enough)
    };
    let task = poll(&shared, poll_wait(query.wait_ms), &changed, look).await;
    Ok(Json(view(&shared, &task)))
}

pub(super) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(id): Params<TaskId>,
    Json(request): Json<CancelRequest>,
) -> Result<Json<Accepted>, Refused> {
    let cancel = open::<CancelStatement>(&shared, request.cancel, |cancel| cancel.network)?;
    let task = shared.task_of(&id, peer).await?;
    if task.ending.is_some() {
        // It changes no more: the answer follows from it alone.
        Tasks::decide_cancel(&task, peer, cancel)?;
        return Ok(Json(Accepted { state: task.state() }));
    }
    let answer = shared.writer.execute(Command::Cancel { peer, task: id, cancel }).await?;
    Ok(Json(Accepted { state: answer.task.ok_or_else(Refused::internal)?.state() }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceiptQuery {
    remembered: Option<u64>,
}

pub(super) async fn receipt(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Params(id): Params<TaskId>,
    Query(query): Query<ReceiptQuery>,
) -> Result<Json<ReceiptParts>, Refused> {
    let task = shared.task_of(&id, peer).await?;
    let rows = shared.database.task_events(&id.0).await.map_err(storage)?;
    // Taken after the rows: its tree has them all.
    let head = shared.log.head();
    let rows: Vec<_> = rows.into_iter().filter(|row| row.index < head.size).collect();
    let entries = shared.log.prove_all(head.size, &rows).await?;
    let consistency = match query.remembered {
        Some(size) => Some(shared.log.consistency(size, head.size).await?),
        None => None,
    };
    let mut parts = ReceiptParts {
        spec: task.spec.envelope().clone(),
        lease: None,
        challenge: None,
        evidence: None,
        endorsements: None,
        attestation_result: None,
        release: None,
        grant: None,
        denial: None,
        cancel: None,
        report: None,
        agent_statement: None,
        closing_evidence: None,
        checkpoint: head.note.to_string(),
        consistency,
        entries,
    };
    for row in &rows {
        let damaged = |error: &dyn std::error::Error| {
            tracing::error!(%error, task = %id, index = row.index, "the database is damaged");
            Refused::internal()
        };
        let stored = StoredParts::from_row(row).map_err(|error| damaged(&error))?;
        put(&mut parts, stored).map_err(|error| damaged(&error))?;
    }
    Ok(Json(parts))
}

/// A lease begins an attempt: what was of the attempt before is not part of the receipt, its log entries are.
fn put(parts: &mut ReceiptParts, stored: StoredParts) -> Result<(), EnvelopeError> {
    match stored.kind {
        EntryKind::Genesis
        | EntryKind::Admitted
        | EntryKind::Enrolled
        | EntryKind::Suspended
        | EntryKind::Rules
        | EntryKind::Published
        | EntryKind::Checkpointed
        | EntryKind::Submitted
        | EntryKind::Expired => {}
        EntryKind::Leased => {
            parts.lease = Some(stored.envelope()?);
            parts.challenge = None;
            parts.evidence = None;
            parts.endorsements = None;
            parts.attestation_result = None;
            parts.release = None;
            parts.grant = None;
            parts.denial = None;
            parts.report = None;
            parts.agent_statement = None;
            parts.closing_evidence = None;
        }
        EntryKind::Challenged => parts.challenge = Some(stored.envelope()?),
        EntryKind::Attested => {
            parts.evidence = Some(Base64Bytes(stored.statement));
            parts.endorsements = stored.endorsements;
        }
        EntryKind::Released => parts.release = Some(stored.envelope()?),
        EntryKind::Granted => {
            parts.grant = Some(stored.envelope()?);
            parts.attestation_result = stored.attestation_result;
        }
        EntryKind::Denied => parts.denial = Some(stored.envelope()?),
        EntryKind::Reported => {
            parts.report = Some(stored.envelope()?);
            parts.agent_statement = stored.agent_statement;
            parts.closing_evidence = stored.closing_evidence;
        }
        EntryKind::Cancelled => parts.cancel = Some(stored.envelope()?),
    }
    Ok(())
}
