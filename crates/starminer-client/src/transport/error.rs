//! Why a request has no response, sorted by what to do about it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use starminer_tls::HandshakeError;

use crate::error::ClientError;

/// Why a request has no response, or a response no end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection: nobody there, or not the party that was expected.
    #[error("no connection to {address}")]
    Dial {
        /// The server's address.
        address: Arc<str>,
        /// Why.
        source: Arc<HandshakeError>,
    },
    /// The server ended the connection with a TLS alert: it does not admit this identity, or a clock is wrong.
    #[error("the server at {address} refused this identity")]
    RefusedByServer {
        /// The server's address.
        address: Arc<str>,
        /// The alert.
        source: Arc<HandshakeError>,
    },
    /// The connection or the request's stream on it broke.
    #[error("the connection to {address} broke: {reason}")]
    Broken {
        /// The server's address.
        address: Arc<str>,
        /// What was seen of it.
        reason: String,
    },
    /// The server did not answer in time.
    #[error("the server at {address} did not answer within {} s", after.as_secs_f32())]
    Timeout {
        /// The server's address.
        address: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// A response body made no progress.
    #[error("the response of {address} made no progress for {} s", after.as_secs_f32())]
    Stalled {
        /// The server's address.
        address: Arc<str>,
        /// How long was waited.
        after: Duration,
    },
    /// A response body is longer than the caller takes.
    #[error("the response is longer than {max_bytes} bytes")]
    BodyTooLarge {
        /// What the caller takes.
        max_bytes: usize,
    },
    /// A response body is not the JSON that the caller expects.
    #[error("the response is not the expected JSON")]
    Json(#[source] serde_json::Error),
    /// The request's body could not be read.
    #[error("the body of the request could not be read")]
    Local(#[source] io::Error),
    /// The path is none.
    #[error("{path:?} is not a request path")]
    InvalidPath {
        /// Its first characters.
        path: String,
    },
}

impl TransportError {
    /// What hyper says of a request that failed.
    pub(super) fn broken(address: &Arc<str>, error: &hyper::Error) -> Self {
        Self::Broken { address: address.clone(), reason: error_chain(error) }
    }

    /// A stable code for users and scripts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Dial { source, .. } | Self::RefusedByServer { source, .. } => source.code(),
            Self::Broken { .. } => "transport.broken",
            Self::Timeout { .. } => "transport.timeout",
            Self::Stalled { .. } => "transport.stalled",
            Self::BodyTooLarge { .. } => "transport.body-too-large",
            Self::Json(_) => "transport.json",
            Self::Local(_) => "transport.local-io",
            Self::InvalidPath { .. } => "transport.invalid-path",
        }
    }

    /// Whether the same request may succeed later without anything being mended.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Dial { source, .. } => is_transient(source),
            Self::Broken { .. } | Self::Timeout { .. } | Self::Stalled { .. } => true,
            Self::RefusedByServer { .. }
            | Self::BodyTooLarge { .. }
            | Self::Json(_)
            | Self::Local(_)
            | Self::InvalidPath { .. } => false,
        }
    }
}

/// Whether dialling again may help: the network and a server that starts may, another identity or protocol not.
pub(super) fn is_transient(error: &HandshakeError) -> bool {
    match error {
        HandshakeError::Connect(source) => source.kind() != io::ErrorKind::InvalidInput,
        HandshakeError::ConnectTimeout(_)
        | HandshakeError::Timeout(_)
        | HandshakeError::Overloaded(_)
        | HandshakeError::Closed(_) => true,
        _ => false,
    }
}

/// An error and what it stems from in one line, each once.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_line = inner.to_string();
        if !line.ends_with(&inner_line) {
            line.push_str(": ");
            line.push_str(&inner_line);
        }
        source = inner.source();
    }
    line
}

impl From<TransportError> for ClientError {
    fn from(error: TransportError) -> Self {
        let transient = error.is_transient();
        match error {
            TransportError::Local(source) => Self::Local(source),
            TransportError::Dial { ref address, .. }
            | TransportError::Broken { ref address, .. }
            | TransportError::Timeout { ref address, .. }
            | TransportError::Stalled { ref address, .. }
                if transient =>
            {
                Self::Unreachable { address: address.to_string(), reason: error_chain(&error) }
            }
            TransportError::Dial { ref address, ref source } if is_wrong_peer(source) => {
                Self::WrongPeer { address: address.to_string(), check: source.code(), reason: error_chain(source) }
            }
            TransportError::Dial { ref address, ref source }
            | TransportError::RefusedByServer { ref address, ref source }
                if matches!(**source, HandshakeError::Alert(_)) =>
            {
                Self::NotAdmitted { address: address.to_string(), check: source.code(), reason: error_chain(source) }
            }
            error => Self::Protocol { reason: error_chain(&error) },
        }
    }
}

/// Whether the peer failed to prove that it is the one that was dialled; what does not speak this protocol at all is not meant.
fn is_wrong_peer(error: &HandshakeError) -> bool {
    matches!(error, HandshakeError::Refused(_) | HandshakeError::NoCertificate)
}
