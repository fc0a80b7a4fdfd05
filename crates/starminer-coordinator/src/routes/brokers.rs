//! The relay between requesters and brokers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use starminer_verify::{MAX_EVIDENCE_BYTES, Party, PublicKey};
use starminer_wire::{BrokerEvidenceRequest, BrokerEvidenceView, ProblemStatus};

use super::{poll, poll_wait};
use crate::refused::Refused;
use crate::server::{Identity, Json, Query};
use crate::shared::Shared;

pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Identity(_): Identity,
) -> Result<Json<Vec<PublicKey>>, Refused> {
    let present = shared.broker_presence.present(shared.clock.now());
    if present.is_empty() {
        shared.brokers_have_returned()?;
    }
    Ok(Json(present))
}

pub(super) async fn evidence(
    State(shared): State<Arc<Shared>>,
    Identity(_): Identity,
    Json(request): Json<BrokerEvidenceRequest>,
) -> Result<Json<BrokerEvidenceView>, Refused> {
    if !shared.broker_presence.is_present(&request.broker, shared.clock.now()) {
        shared.brokers_have_returned()?;
        return Err(Refused::of(
            ProblemStatus::Unavailable,
            Party::Broker,
            "broker.absent",
            "this broker is not connected",
            "see `starminer status` for brokers that are, or release the key yourself",
        )
        .retry_after(5_000));
    }
    let mut asked = shared.brokers.ask(request)?;
    let mut stopping = shared.stopping.clone();
    let wait = Duration::from_millis(shared.config.waits.broker_answer_ms);
    let answer = tokio::select! {
        answer = tokio::time::timeout(wait, &mut asked.answer) => answer.ok().and_then(Result::ok),
        _ = stopping.wait_for(|stopping| *stopping) => None,
    };
    let evidence = answer.ok_or_else(|| {
        Refused::of(
            ProblemStatus::Unavailable,
            Party::Broker,
            "broker.silent",
            "the broker did not answer in time",
            "ask again, or another broker",
        )
        .retry_after(1_000)
    })?;
    Ok(Json(BrokerEvidenceView { challenge: request.challenge, evidence }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    #[serde(default)]
    wait_ms: u64,
}

pub(super) async fn requests(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Query(query): Query<WaitQuery>,
) -> Json<Vec<BrokerEvidenceRequest>> {
    let _poll = shared.broker_presence.poll(peer, &shared.clock);
    let asked = shared.brokers.asked(peer);
    let look = || {
        let questions = shared.brokers.questions(peer, shared.clock.now().mono_ms);
        let enough = !questions.is_empty();
        (questions, enough)
    };
    Json(poll(&shared, poll_wait(query.wait_ms), &asked, look).await)
}

pub(super) async fn answer(
    State(shared): State<Arc<Shared>>,
    Identity(peer): Identity,
    Json(view): Json<BrokerEvidenceView>,
) -> Result<StatusCode, Refused> {
    if view.evidence.0.len() > MAX_EVIDENCE_BYTES {
        return Err(Refused::of(
            ProblemStatus::TooLarge,
            Party::Broker,
            "evidence.too-long",
            "the evidence is too long",
            "send less",
        ));
    }
    shared.brokers.answer(peer, view.challenge, view.evidence)?;
    Ok(StatusCode::NO_CONTENT)
}
