//! Judges the chain a peer presents: pure, from bytes and a time to an identity or a refusal.
//!
//! The order is cheap first: shape, identity, admission, and only then signatures. Names are not checked (the identity
//! is the key) and neither is revocation (an unwanted identity is not admitted, a leaf lives for hours). What the
//! identity certificate may look like is fixed to the byte; the leaf is judged by webpki.
//!
//! Spec: `specs/tls.md`, section "What a verifier checks".

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, PeerMisbehaved, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use crate::certificate::{ED25519_SPKI, Side, anchor_spki, anchor_subject, is_self_signed, parse_identity};
use crate::clock::unix_time;
use crate::config::AllowedPeers;
use crate::identity::PeerIdentity;

/// How far the clocks of two machines may be apart before a leaf counts as expired or not yet valid.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// A leaf valid for longer is refused: rotation is part of the protocol, not a habit of well-behaved peers.
pub const MAX_LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The only signature algorithm of certificates and handshakes.
pub(crate) static ED25519_ONLY: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::aws_lc_rs::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[webpki::aws_lc_rs::ED25519])],
};

/// id-kp-serverAuth and id-kp-clientAuth, RFC 5280 section 4.2.1.12.
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// Why a peer's certificates were refused. The fault is the peer's, except where the clocks disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRefusal {
    /// Not exactly a leaf and an identity certificate.
    #[error("the peer sent {certificates} certificates instead of a leaf and an identity certificate")]
    ChainLength {
        /// How many it sent.
        certificates: usize,
    },
    /// The second certificate is not the identity certificate of any key.
    #[error("the peer's second certificate is not an identity certificate")]
    NotAnIdentity,
    /// The server is another party than the one that was dialled.
    #[error("the server is {found}, not {expected}")]
    WrongIdentity {
        /// Who should have answered.
        expected: PeerIdentity,
        /// Who did (unproven: signatures were not looked at).
        found: PeerIdentity,
    },
    /// The client is not on the list of those admitted.
    #[error("the client {found} is not admitted")]
    NotAdmitted {
        /// Who it claims to be (unproven: signatures were not looked at).
        found: PeerIdentity,
    },
    /// The identity certificate does not carry its own key's signature.
    #[error("the identity certificate is not signed by its own key")]
    IdentitySignature,
    /// The leaf cannot be parsed.
    #[error("the leaf certificate is malformed")]
    LeafMalformed,
    /// The leaf's key is not an Ed25519 key.
    #[error("the leaf certificate's key is not Ed25519")]
    LeafKeyKind,
    /// The leaf certifies the identity key itself.
    #[error("the leaf certificate certifies the identity key instead of an ephemeral one")]
    LeafReusesIdentity,
    /// Another key issued the leaf, or the signature is wrong.
    #[error("the leaf certificate was not issued by the identity beside it")]
    LeafIssuer,
    /// The leaf is a CA, or meant for the other end of a connection.
    #[error("the leaf certificate is not meant for this end of a connection")]
    LeafUsage,
    /// The leaf's validity begins later than the clock skew allows.
    #[error("the leaf certificate is valid only in {ahead_seconds} s: one of the two clocks is wrong")]
    LeafNotYetValid {
        /// How far ahead its validity begins.
        ahead_seconds: u64,
    },
    /// The leaf's validity ended longer ago than the clock skew allows.
    #[error(
        "the leaf certificate expired {ago_seconds} s ago: the peer does not rotate, or one of the two clocks is wrong"
    )]
    LeafExpired {
        /// How long ago its validity ended.
        ago_seconds: u64,
    },
    /// The leaf is valid for longer than [`MAX_LEAF_LIFETIME`].
    #[error("the leaf certificate lives longer than {} h", MAX_LEAF_LIFETIME.as_secs() / 3600)]
    LeafTooLong,
}

impl PeerRefusal {
    /// A stable code for users and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ChainLength { .. } => "tls.peer.chain-length",
            Self::NotAnIdentity => "tls.peer.not-an-identity",
            Self::WrongIdentity { .. } => "tls.peer.wrong-identity",
            Self::NotAdmitted { .. } => "tls.peer.not-admitted",
            Self::IdentitySignature => "tls.peer.identity-signature",
            Self::LeafMalformed => "tls.peer.leaf-malformed",
            Self::LeafKeyKind => "tls.peer.leaf-key-kind",
            Self::LeafReusesIdentity => "tls.peer.leaf-reuses-identity",
            Self::LeafIssuer => "tls.peer.leaf-issuer",
            Self::LeafUsage => "tls.peer.leaf-usage",
            Self::LeafNotYetValid { .. } => "tls.peer.leaf-not-yet-valid",
            Self::LeafExpired { .. } => "tls.peer.leaf-expired",
            Self::LeafTooLong => "tls.peer.leaf-too-long",
        }
    }
}

impl From<PeerRefusal> for rustls::Error {
    /// `Other` makes rustls send `certificate_unknown`: the reason stays on this side.
    fn from(refusal: PeerRefusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

/// Identity and TLS key out of a chain whose signatures were verified in the handshake.
pub(crate) fn read_verified_chain(chain: &[CertificateDer<'_>]) -> Result<(PeerIdentity, [u8; 32]), PeerRefusal> {
    let (leaf, _, identity) = parse_chain(chain)?;
    Ok((identity, tls_key_of(&leaf)?))
}

/// The whole judgement over the chain of the peer at `side`, at `now`. `admit` decides on the claimed identity.
fn verify_chain(
    chain: &[CertificateDer<'_>],
    side: Side,
    now: UnixTime,
    admit: impl FnOnce(PeerIdentity) -> Result<(), PeerRefusal>,
) -> Result<PeerIdentity, PeerRefusal> {
    let (leaf, identity_der, identity) = parse_chain(chain)?;
    admit(identity)?;
    if tls_key_of(&leaf)? == identity.0 {
        return Err(PeerRefusal::LeafReusesIdentity);
    }
    if !is_self_signed(identity_der, identity) {
        return Err(PeerRefusal::IdentitySignature);
    }
    let (subject, spki) = (anchor_subject(identity), anchor_spki(identity));
    let anchor = TrustAnchor {
        subject: subject.as_slice().into(),
        subject_public_key_info: spki.as_slice().into(),
        name_constraints: None,
    };
    let verify_at = |time| verify_leaf_at(&leaf, &anchor, side, time);
    let (not_before, not_after) = validity(verify_at)?;
    verify_at(time_within_skew(now.as_secs(), not_before, not_after)?).map_err(refusal)?;
    Ok(identity)
}

fn parse_chain<'c, 'd>(
    chain: &'c [CertificateDer<'d>],
) -> Result<(EndEntityCert<'c>, &'c CertificateDer<'d>, PeerIdentity), PeerRefusal> {
    let [leaf, identity_der] = chain else {
        return Err(PeerRefusal::ChainLength { certificates: chain.len() });
    };
    let identity = parse_identity(identity_der).ok_or(PeerRefusal::NotAnIdentity)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| PeerRefusal::LeafMalformed)?;
    Ok((leaf, identity_der, identity))
}

fn tls_key_of(leaf: &EndEntityCert<'_>) -> Result<[u8; 32], PeerRefusal> {
    let spki = leaf.subject_public_key_info();
    let key = spki.strip_prefix(ED25519_SPKI).ok_or(PeerRefusal::LeafKeyKind)?;
    key.try_into().map_err(|_| PeerRefusal::LeafKeyKind)
}

fn verify_leaf_at(
    leaf: &EndEntityCert<'_>,
    anchor: &TrustAnchor<'_>,
    side: Side,
    unix_seconds: u64,
) -> Result<(), webpki::Error> {
    // `required`, since webpki's own server_auth() and client_auth() accept a leaf that names no usage at all.
    let usage = KeyUsage::required(match side {
        Side::Client => CLIENT_AUTH,
        Side::Server => SERVER_AUTH,
    });
    let anchors = std::slice::from_ref(anchor);
    leaf.verify_for_usage(ED25519_ONLY.all, anchors, &[], unix_time(unix_seconds), usage, None, None).map(|_| ())
}

/// First and last second of a leaf's validity. webpki shows them only in its errors, so it is asked at the two ends of
/// time; it looks at validity before signatures, so that asking costs no signature check.
fn validity(verify_at: impl Fn(u64) -> Result<(), webpki::Error>) -> Result<(u64, u64), PeerRefusal> {
    let not_before = match verify_at(0) {
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => not_before.as_secs(),
        Ok(()) | Err(webpki::Error::CertExpired { .. }) => 0,
        Err(error) => return Err(refusal(error)),
    };
    let not_after = match verify_at(u64::MAX) {
        Err(webpki::Error::CertExpired { not_after, .. }) => not_after.as_secs(),
        Err(error) => return Err(refusal(error)),
        Ok(()) => return Err(PeerRefusal::LeafTooLong),
    };
    if not_after.saturating_sub(not_before) > MAX_LEAF_LIFETIME.as_secs() {
        return Err(PeerRefusal::LeafTooLong);
    }
    Ok((not_before, not_after))
}

/// The time to judge at: `now`, moved into the validity if the clocks may just be that far apart.
fn time_within_skew(now: u64, not_before: u64, not_after: u64) -> Result<u64, PeerRefusal> {
    let skew = MAX_CLOCK_SKEW.as_secs();
    let ahead_seconds = not_before.saturating_sub(now);
    let ago_seconds = now.saturating_sub(not_after);
    if ahead_seconds > skew {
        return Err(PeerRefusal::LeafNotYetValid { ahead_seconds });
    }
    if ago_seconds > skew {
        return Err(PeerRefusal::LeafExpired { ago_seconds });
    }
    Ok(now.clamp(not_before, not_after))
}

fn refusal(error: webpki::Error) -> PeerRefusal {
    use webpki::Error as E;
    match error {
        E::CaUsedAsEndEntity | E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => PeerRefusal::LeafUsage,
        E::UnknownIssuer
        | E::InvalidSignatureForPublicKey
        | E::SignatureAlgorithmMismatch
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => PeerRefusal::LeafIssuer,
        _ => PeerRefusal::LeafMalformed,
    }
}

/// Verifies that the server is the party that was dialled.
#[derive(Debug)]
pub(crate) struct PinnedServer(pub(crate) PeerIdentity);

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let expected = self.0;
        verify_chain(&whole_chain(end_entity, intermediates), Side::Server, now, |found| {
            if found == expected { Ok(()) } else { Err(PeerRefusal::WrongIdentity { expected, found }) }
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &ED25519_ONLY)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ED25519_ONLY.supported_schemes()
    }
}

/// Verifies that the client is some party (or one of a list). Anonymous clients are refused by rustls already:
/// `client_auth_mandatory` is its default.
pub(crate) struct AdmittedClients(pub(crate) AllowedPeers);

impl fmt::Debug for AdmittedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdmittedClients({:?})", self.0)
    }
}

impl ClientCertVerifier for AdmittedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        verify_chain(&whole_chain(end_entity, intermediates), Side::Client, now, |found| {
            if self.0.admit(found) { Ok(()) } else { Err(PeerRefusal::NotAdmitted { found }) }
        })?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &ED25519_ONLY)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ED25519_ONLY.supported_schemes()
    }
}

fn whole_chain<'c>(
    end_entity: &'c CertificateDer<'_>,
    intermediates: &'c [CertificateDer<'_>],
) -> Vec<CertificateDer<'c>> {
    std::iter::once(end_entity).chain(intermediates).map(|der| CertificateDer::from(der.as_ref())).collect()
}

#[cfg(test)]
mod tests;
