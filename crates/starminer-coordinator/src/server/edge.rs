//! One request: rate, session, route, and whatever happens as a problem.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use starminer_tls::{ChannelBindingProof, ProofError, Session};
use starminer_verify::{Party, PublicKey};
use starminer_wire::{CHANNEL_BINDING_HEADER, ProblemStatus};
use tower::ServiceExt as _;

use crate::refused::Refused;
use crate::shared::Shared;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its key.
    pub(crate) identity: PublicKey,
    session: Session,
    bound: AtomicBool,
}

impl Peer {
    pub(crate) fn new(identity: PublicKey, session: Session) -> Self {
        Self { identity, session, bound: AtomicBool::new(false) }
    }

    /// Makes sure that the session is bound to the connection: the first request's proof is verified, and counts for those that follow.
    fn check_bound(&self, headers: &HeaderMap) -> Result<(), Refused> {
        if self.bound.load(Ordering::Acquire) {
            return Ok(());
        }
        let refused = |error: ProofError| {
            Refused::of(
                ProblemStatus::Unauthorized,
                Party::Network,
                error.code(),
                error.to_string(),
                "send the channel-binding proof of this very connection with every request (specs/tls.md)",
            )
        };
        let proof =
            headers.get(CHANNEL_BINDING_HEADER).and_then(|value| value.to_str().ok()).ok_or(ProofError::Malformed);
        let proof: ChannelBindingProof = proof.and_then(str::parse).map_err(refused)?;
        self.session.verify_peer(&proof).map_err(refused)?;
        self.bound.store(true, Ordering::Release);
        Ok(())
    }
}

/// The identity of a request's bound session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity(pub(crate) PublicKey);

impl<S: Send + Sync> FromRequestParts<S> for Identity {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        // `handle` put it there.
        parts.extensions.get::<Self>().copied().ok_or_else(Refused::internal)
    }
}

/// Answers one request.
pub(crate) async fn handle(shared: &Shared, router: Router, peer: &Peer, request: Request<Incoming>) -> Response {
    let admitted = shared.requests.take_one(peer.identity, shared.clock.now().mono_ms);
    if let Err(refused) = admitted.and_then(|()| peer.check_bound(request.headers())) {
        return refused.into_response();
    }
    let (mut parts, body) = request.into_parts();
    let method = parts.method.clone();
    let path = parts.uri.path().to_owned();
    parts.extensions.insert(Identity(peer.identity));
    let answer = AssertUnwindSafe(router.oneshot(Request::from_parts(parts, Body::new(body)))).catch_unwind().await;
    match answer {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            // The panic hook has printed where; the path is ours to print, nothing of the body is.
            tracing::error!(%method, %path, "a handler panicked");
            Refused::internal().into_response()
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}
