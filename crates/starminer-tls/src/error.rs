//! Why a connection did not come about, sorted by the party at fault and with a stable code each.
//!
//! Nothing here tells the *peer* more than a TLS alert: the reason stays on this side.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, PeerIncompatible};

use crate::certificate::IssueError;
use crate::verify::PeerRefusal;

/// Why [`Acceptor::accept`](crate::Acceptor::accept) or [`Connector::connect`](crate::Connector::connect) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Nobody answered at the address, or the network failed.
    #[error("no TCP connection")]
    Connect(#[source] io::Error),
    /// The address did not answer in time.
    #[error("no TCP connection within {} s", .0.as_secs_f32())]
    ConnectTimeout(Duration),
    /// The peer did not finish the handshake in time.
    #[error("the peer did not finish the handshake within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// Too many handshakes are under way; this connection was dropped unread.
    #[error("{0} handshakes are under way already")]
    Overloaded(usize),
    /// The peer's certificates were refused.
    #[error("the peer was refused")]
    Refused(#[source] PeerRefusal),
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The peer does not speak TLS 1.3.
    #[error("the peer does not speak TLS 1.3")]
    Version,
    /// The peer shares no suite, group or signature scheme with us.
    #[error("the peer shares no TLS parameters with us: {0:?}")]
    Incompatible(PeerIncompatible),
    /// The peer did not agree on HTTP/2.
    #[error("the peer did not agree on the application protocol h2")]
    Alpn,
    /// What the peer sent is not TLS.
    #[error("what the peer sent is not TLS")]
    NotTls,
    /// The peer ended the handshake with an alert; it knows why.
    #[error("the peer refused with the TLS alert {0:?}")]
    Alert(AlertDescription),
    /// The peer broke the protocol in another way, or this machine's TLS failed.
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    /// The connection ended during the handshake.
    #[error("the connection ended during the handshake")]
    Closed(#[source] io::Error),
    /// This machine could not issue its own leaf.
    #[error("no leaf certificate of our own")]
    Issue(#[source] IssueError),
}

impl HandshakeError {
    /// A stable code for users and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "tls.connect",
            Self::ConnectTimeout(_) => "tls.connect-timeout",
            Self::Timeout(_) => "tls.handshake-timeout",
            Self::Overloaded(_) => "tls.overloaded",
            Self::Refused(refusal) => refusal.code(),
            Self::NoCertificate => "tls.peer.no-certificate",
            Self::Version => "tls.version",
            Self::Incompatible(_) => "tls.incompatible",
            Self::Alpn => "tls.alpn",
            Self::NotTls => "tls.not-tls",
            Self::Alert(_) => "tls.refused-by-peer",
            Self::Tls(_) => "tls.protocol",
            Self::Closed(_) => "tls.closed",
            Self::Issue(_) => "tls.issue",
        }
    }

    /// Sorts an error of the TLS stream, also one that shows only after the handshake: in TLS 1.3 a client learns on
    /// its first read that the server refused its certificate.
    pub fn from_io(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => tls.clone().into(),
            None => Self::Closed(error),
        }
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        use rustls::{CertificateError, Error as E, InvalidMessage};
        match error {
            E::InvalidCertificate(CertificateError::Other(ref other)) => match other.0.downcast_ref::<PeerRefusal>() {
                Some(refusal) => Self::Refused(*refusal),
                None => Self::Tls(error),
            },
            E::NoCertificatesPresented => Self::NoCertificate,
            E::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::Version,
            E::PeerIncompatible(reason) => Self::Incompatible(reason),
            E::NoApplicationProtocol => Self::Alpn,
            E::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                Self::NotTls
            }
            E::AlertReceived(AlertDescription::ProtocolVersion) => Self::Version,
            E::AlertReceived(alert) => Self::Alert(alert),
            other => Self::Tls(other),
        }
    }
}
