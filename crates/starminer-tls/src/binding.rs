//! Ties a session to one TLS connection, once, by a signature over the connection's `tls-exporter` (RFC 9266).
//!
//! TLS has authenticated both ends already; what this adds is a statement under the identity key about *this*
//! connection that code without access to the TLS stack can verify, and that is worthless on any other connection. It
//! does not make requests replay-proof: what matters is a signed object with an idempotency key of its own.
//!
//! Spec: `specs/tls.md`, section "Channel binding".

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;

use crate::certificate::Side;
use crate::identity::{IdentityKey, PeerIdentity};

/// The exporter label of RFC 9266, section 4.2; the context is empty and the output 32 bytes.
pub const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// What the signed bytes begin with, so that the signature means nothing elsewhere.
const DOMAIN: &[u8] = b"starminer/channel-binding/v1\0";

/// The `tls-exporter` value of a connection: equal at its two ends, different on every other connection. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelBinding(pub [u8; 32]);

impl fmt::Display for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelBinding({self})")
    }
}

/// Why a proof was refused or not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Signed for another connection, another role or by another key.
    #[error("the channel-binding proof does not hold for this connection")]
    Invalid,
    /// Not 128 lowercase hexadecimal digits.
    #[error("a channel-binding proof is 128 lowercase hexadecimal digits")]
    Malformed,
    /// The caller's key is not the identity that it has on this connection.
    #[error("the key is not the identity that proves")]
    NotTheProver,
}

impl ProofError {
    /// A stable code for users and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid => "tls.channel-binding.invalid",
            Self::Malformed => "tls.channel-binding.malformed",
            Self::NotTheProver => "tls.channel-binding.not-the-prover",
        }
    }
}

/// What is signed: who proves, between whom, on which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The end that signs.
    pub prover: Side,
    /// The client's identity.
    pub client: PeerIdentity,
    /// The server's identity.
    pub server: PeerIdentity,
    /// The connection.
    pub binding: ChannelBinding,
}

impl Statement {
    /// The bytes to sign: the domain, a zero byte, then role, client, server and binding, each after its length in
    /// four bytes, big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let role: &[u8] = match self.prover {
            Side::Client => b"client",
            Side::Server => b"server",
        };
        let mut bytes = DOMAIN.to_vec();
        for field in [role, &self.client.0, &self.server.0, &self.binding.0] {
            bytes.extend_from_slice(&(field.len() as u32).to_be_bytes());
            bytes.extend_from_slice(field);
        }
        bytes
    }

    /// Whose signature the statement needs.
    pub fn signer(&self) -> PeerIdentity {
        match self.prover {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }
}

/// A signature over a [`Statement`]; as text, 128 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChannelBindingProof(pub [u8; 64]);

impl ChannelBindingProof {
    /// Signs `statement` with the identity that it names as prover.
    pub fn prove(statement: &Statement, key: &IdentityKey) -> Result<Self, ProofError> {
        if key.identity() != statement.signer() {
            return Err(ProofError::NotTheProver);
        }
        Ok(Self(key.sign(&statement.to_bytes())))
    }

    /// Verifies against the statement that the verifier builds from its own end of the connection.
    pub fn verify(&self, statement: &Statement) -> Result<(), ProofError> {
        if statement.signer().verify(&statement.to_bytes(), &self.0) { Ok(()) } else { Err(ProofError::Invalid) }
    }
}

impl fmt::Display for ChannelBindingProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ChannelBindingProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelBindingProof({self})")
    }
}

impl FromStr for ChannelBindingProof {
    type Err = ProofError;

    fn from_str(text: &str) -> Result<Self, ProofError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| ProofError::Malformed)?;
        bytes.try_into().map(Self).map_err(|_| ProofError::Malformed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(seed: u8) -> IdentityKey {
        IdentityKey::from_seed(&[seed; 32]).unwrap()
    }

    fn statement() -> Statement {
        Statement {
            prover: Side::Client,
            client: key(1).identity(),
            server: key(2).identity(),
            binding: ChannelBinding([3; 32]),
        }
    }

    #[test]
    fn statement_bytes_are_frozen() {
        let bytes = statement().to_bytes();
        assert_eq!(&bytes[..29], b"starminer/channel-binding/v1\0");
        assert_eq!(&bytes[29..39], b"\0\0\0\x06client");
        assert_eq!(bytes.len(), 29 + 10 + 3 * 36);
        assert_eq!(&bytes[39..43], b"\0\0\0\x20");
        assert_eq!(&bytes[bytes.len() - 32..], [3; 32]);
    }

    #[test]
    fn a_proof_holds_for_its_statement_only() {
        let good = statement();
        let proof = ChannelBindingProof::prove(&good, &key(1)).unwrap();
        assert_eq!(proof.verify(&good), Ok(()));
        assert_eq!(proof.to_string().parse(), Ok(proof));
        assert_eq!(ChannelBindingProof::prove(&good, &key(2)), Err(ProofError::NotTheProver));

        let refused = |change: fn(&mut Statement)| {
            let mut other = statement();
            change(&mut other);
            assert_eq!(proof.verify(&other), Err(ProofError::Invalid), "{other:?}");
        };
        refused(|s| s.binding = ChannelBinding([4; 32]));
        refused(|s| s.prover = Side::Server);
        refused(|s| s.server = key(3).identity());
        refused(|s| s.client = key(3).identity());
        refused(|s| std::mem::swap(&mut s.client, &mut s.server));
    }

    #[test]
    fn proofs_parse_strictly() {
        let text = "ab".repeat(64);
        assert!(text.parse::<ChannelBindingProof>().is_ok());
        for bad in ["", "ab", &text.to_uppercase(), &format!("{text}ab"), &text[..126]] {
            assert_eq!(bad.parse::<ChannelBindingProof>(), Err(ProofError::Malformed), "{bad:?}");
        }
    }
}
