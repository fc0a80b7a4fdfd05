//! TLS 1.3 between the machines of a network, with keys as identities.
//!
//! Every party has one long-lived Ed25519 [`IdentityKey`]; its public half, [`PeerIdentity`], is the party's name.
//! That key signs short-lived certificates for ephemeral TLS keys ([`RotatingCertificate`]), both ends prove theirs,
//! and a finished handshake ([`Connection`]) tells whose identity stands at the other end, which TLS key it used, and
//! the channel binding of RFC 9266 by which a session is tied to this very connection ([`ChannelBindingProof`]).
//!
//! ```text
//! Acceptor ──accept(TcpStream)──────► Connection ── session() ─► Session { peer, tls keys, group, channel binding }
//! Connector ─connect(addr, expected)─► Connection ── AsyncRead + AsyncWrite ─► HTTP/2
//! ```
//!
//! What it deliberately does not do: names, DNS and public certificate authorities (the key is the name), TLS 1.2,
//! tickets, resumption, 0-RTT, key logs, and any decision about what a peer may do. It knows no other crate of ours.
//!
//! Spec: `specs/tls.md`; RFC 8446 (TLS 1.3), RFC 8410 (Ed25519 in X.509), RFC 5280 (certificates), RFC 9266 (channel
//! binding), draft-ietf-tls-ecdhe-mlkem (X25519MLKEM768).

mod binding;
mod certificate;
mod clock;
mod config;
mod connection;
mod error;
mod identity;
mod key_file;
mod rotation;
mod verify;

pub use binding::{CHANNEL_BINDING_LABEL, ChannelBinding, ChannelBindingProof, ProofError, Statement};
pub use certificate::{IDENTITY_CERTIFICATE_BYTES, IssueError, Leaf, Side, identity_certificate};
pub use clock::{Clock, SystemClock};
pub use config::{ALPN_H2, AllowedPeers, client_config, server_config};
pub use connection::{
    Acceptor, Connection, Connector, HANDSHAKE_TIMEOUT, Limits, MAX_CONCURRENT_HANDSHAKES, Session, TCP_CONNECT_TIMEOUT,
};
pub use error::HandshakeError;
pub use identity::{IdentityKey, KeyError, PeerIdentity};
pub use key_file::{KEY_FILE_MAGIC, KeyFileError, MAX_KEY_FILE_BYTES};
pub use rotation::{RotatingCertificate, Rotation, RotationTask, ScheduleError};
pub use verify::{MAX_CLOCK_SKEW, MAX_LEAF_LIFETIME, PeerRefusal};

// The group names that `Session::group` gives.
pub use rustls::NamedGroup;
