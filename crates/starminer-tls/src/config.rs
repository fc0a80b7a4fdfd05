//! The rustls configurations: one protocol version, one suite, two groups, nothing to negotiate down to.
//!
//! It deliberately offers no switch to relax any of it. Spec: `specs/tls.md`, section "Parameters".

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::{ClientConfig, ServerConfig};

use crate::clock::{Clock, RustlsTime};
use crate::error::HandshakeError;
use crate::identity::PeerIdentity;
use crate::rotation::RotatingCertificate;
use crate::verify::{AdmittedClients, ED25519_ONLY, PinnedServer};

/// The only application protocol: HTTP/2 (RFC 9113, section 3.2).
pub const ALPN_H2: &[u8] = b"h2";

/// Which client identities a server completes a handshake with.
#[derive(Clone, Default)]
pub enum AllowedPeers {
    /// Whoever proves an identity: what it may do is decided per request.
    #[default]
    Any,
    /// These and no others.
    Only(Arc<BTreeSet<PeerIdentity>>),
}

impl AllowedPeers {
    pub(crate) fn admit(&self, peer: PeerIdentity) -> bool {
        match self {
            Self::Any => true,
            Self::Only(peers) => peers.contains(&peer),
        }
    }
}

impl fmt::Debug for AllowedPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("Any"),
            Self::Only(peers) => write!(f, "Only({} peers)", peers.len()),
        }
    }
}

/// A rustls configuration for servers. Prefer [`Acceptor`](crate::Acceptor), which adds time and concurrency bounds
/// and reads the peer's identity.
pub fn server_config(
    certificate: Arc<RotatingCertificate>,
    clients: AllowedPeers,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, HandshakeError> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(RustlsTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(HandshakeError::Tls)?
        .with_client_cert_verifier(Arc::new(AdmittedClients(clients)))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // Every connection proves both identities anew and has a channel binding of its own; connections live long, so
    // that a full handshake costs little. Tickets would also let a peer return after its identity was struck off.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// A rustls configuration for a client of exactly one server, `expected`. Prefer [`Connector`](crate::Connector).
pub fn client_config(
    certificate: Arc<RotatingCertificate>,
    expected: PeerIdentity,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, HandshakeError> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(RustlsTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(HandshakeError::Tls)?
        .dangerous() // rustls' word for "own verifier": names mean nothing here, the key is the name
        .with_custom_certificate_verifier(Arc::new(PinnedServer(expected)))
        .with_client_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false; // there is no name to indicate, and the first message is not encrypted
    Ok(config)
}

/// aws-lc-rs narrowed to one suite, the hybrid group and its classical half, and Ed25519. `key_log` stays rustls'
/// default, which logs nothing.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        signature_verification_algorithms: ED25519_ONLY,
        ..aws_lc_rs::default_provider()
    })
}
