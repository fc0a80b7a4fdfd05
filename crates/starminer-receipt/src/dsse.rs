//! DSSE envelopes: JSON payloads signed and hashed as the exact bytes.
//!
//! Specification: Dead Simple Signing Envelope v1.0.2, protocol and envelope sections. Signatures are Ed25519 (RFC 8032) over the
//! pre-authentication encoding. One signature an envelope: where two parties vouch, each signs a statement of its own. Published reference values
//! alone are signed by several keys, which all vouch for the same (`reference`).
//! Payloads are never re-encoded: [`Signed`] keeps the bytes that were verified.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use starminer_verify::{Digest, PublicKey};
use zeroize::Zeroizing;

/// Longest envelope that any party accepts, in bytes of JSON.
pub const MAX_ENVELOPE_BYTES: usize = 96 * 1024;

/// Bytes that stand in JSON as standard base64 with padding (RFC 4648 section 4); other spellings of the same bytes are refused.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Base64Bytes(pub Vec<u8>);

impl fmt::Debug for Base64Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64Bytes({} bytes)", self.0.len())
    }
}

impl From<Vec<u8>> for Base64Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Base64Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("standard base64 with padding")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64Bytes, E> {
                BASE64
                    .decode(text.as_bytes())
                    .map(Base64Bytes)
                    .map_err(|_| E::custom("not standard base64 with padding"))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Something that signs with an Ed25519 key.
pub trait Signer {
    /// The public half of the key.
    fn public_key(&self) -> PublicKey;
    /// Signs `message` (RFC 8032, pure Ed25519).
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// An Ed25519 key in memory, made from its 32-byte seed.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Derives the key pair from a seed (RFC 8032 section 5.1.5). The caller draws the seed from a random source and wipes it.
    ///
    /// # Panics
    /// Never: every 32-byte seed is a valid Ed25519 private key.
    #[must_use]
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).expect("every 32-byte seed is an Ed25519 private key");
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { pair, public: PublicKey(public) }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl Signer for SigningKey {
    fn public_key(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

/// Verifies an Ed25519 signature.
#[must_use]
pub fn verify_ed25519(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(message, signature).is_ok()
}

/// A statement that travels signed.
pub trait Statement: Serialize + DeserializeOwned {
    /// The DSSE payload type; it separates the domains of the signatures.
    const PAYLOAD_TYPE: &'static str;

    /// The key that the statement itself says it is signed with. An envelope signed by any other key is refused.
    fn signer(&self) -> PublicKey;

    /// Bounds and consistency that hold for the statement alone; the text says which does not.
    ///
    /// # Errors
    /// The rule that is broken, as a short fixed text.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Why an envelope was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Longer than [`MAX_ENVELOPE_BYTES`].
    #[error("envelope of {size_bytes} bytes is over the limit of {MAX_ENVELOPE_BYTES}")]
    TooLarge {
        /// Its length.
        size_bytes: usize,
    },
    /// Not an envelope: broken JSON, unknown fields, or not exactly one signature.
    #[error("not a DSSE envelope with one signature")]
    Malformed,
    /// The payload type is of another statement.
    #[error("payload type is not {expected}")]
    WrongType {
        /// What was expected.
        expected: &'static str,
    },
    /// The payload is not the statement its type names.
    #[error("payload is not a {expected}: {reason}")]
    BadPayload {
        /// The payload type.
        expected: &'static str,
        /// Where it breaks, without any value of it.
        reason: String,
    },
    /// Signed by a key other than the one the statement names.
    #[error("signed by {found}, but the statement names {named}")]
    WrongSigner {
        /// The key id in the envelope.
        found: PublicKey,
        /// The key in the statement.
        named: PublicKey,
    },
    /// The signature does not verify.
    #[error("signature does not verify")]
    BadSignature,
}

impl EnvelopeError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "statement.too-large",
            Self::Malformed => "statement.malformed",
            Self::WrongType { .. } => "statement.wrong-type",
            Self::BadPayload { .. } => "statement.bad-payload",
            Self::WrongSigner { .. } => "statement.wrong-signer",
            Self::BadSignature => "statement.bad-signature",
        }
    }
}

/// A DSSE envelope, not verified. Its JSON form is the wire form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    payload_type: String,
    payload: Base64Bytes,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    keyid: PublicKey,
    sig: Base64Bytes,
}

/// The bytes that are signed: DSSE v1 `PAE(type, payload)`.
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Envelope {
    /// Parses the JSON form.
    ///
    /// # Errors
    /// [`EnvelopeError::TooLarge`] and [`EnvelopeError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLarge { size_bytes: bytes.len() });
        }
        serde_json::from_slice(bytes).map_err(|_| EnvelopeError::Malformed)
    }

    /// The JSON form.
    ///
    /// # Panics
    /// Never: an envelope is strings and bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an envelope is strings and bytes")
    }

    /// SHA-256 of the payload bytes: what other statements and the log refer to it by. Says nothing about the signature.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.payload.0)
    }

    /// The payload type, not verified.
    #[must_use]
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// An envelope that nobody has signed yet: of a statement that several keys sign.
    pub(crate) fn unsigned(payload_type: &str, payload: Vec<u8>) -> Self {
        Self { payload_type: payload_type.into(), payload: Base64Bytes(payload), signatures: Vec::new() }
    }

    /// The payload, not verified.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload.0
    }

    /// Keys and signatures, not verified.
    pub(crate) fn signatures(&self) -> impl ExactSizeIterator<Item = (PublicKey, &[u8])> {
        self.signatures.iter().map(|signature| (signature.keyid, signature.sig.0.as_slice()))
    }

    /// Adds the signer's signature.
    pub(crate) fn add_signature(&mut self, signer: &impl Signer) {
        let signature = signer.sign(&pre_authentication_encoding(&self.payload_type, &self.payload.0));
        self.signatures.push(EnvelopeSignature { keyid: signer.public_key(), sig: Base64Bytes(signature.to_vec()) });
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// The statement breaks its own rules, or names another signer.
    pub fn sign<T: Statement>(statement: T, signer: &impl Signer) -> Result<Signed<T>, EnvelopeError> {
        let payload = serde_json::to_vec(&statement)
            .map_err(|error| EnvelopeError::BadPayload { expected: T::PAYLOAD_TYPE, reason: error.to_string() })?;
        statement
            .check()
            .map_err(|reason| EnvelopeError::BadPayload { expected: T::PAYLOAD_TYPE, reason: reason.into() })?;
        let key = signer.public_key();
        if statement.signer() != key {
            return Err(EnvelopeError::WrongSigner { found: key, named: statement.signer() });
        }
        let signature = signer.sign(&pre_authentication_encoding(T::PAYLOAD_TYPE, &payload));
        let digest = Digest::of(&payload);
        let envelope = Self {
            payload_type: T::PAYLOAD_TYPE.into(),
            payload: Base64Bytes(payload),
            signatures: vec![EnvelopeSignature { keyid: key, sig: Base64Bytes(signature.to_vec()) }],
        };
        Ok(Signed { statement, envelope, digest })
    }

    /// Verifies the signature and only then reads the statement.
    ///
    /// # Errors
    /// Every variant of [`EnvelopeError`].
    pub fn open<T: Statement>(self) -> Result<Signed<T>, EnvelopeError> {
        self.open_remembering(&mut VerifiedEnvelopes::default())
    }

    /// The same, without verifying again a signature that the caller's memory has seen verified; and remembers this one.
    ///
    /// # Errors
    /// Every variant of [`EnvelopeError`].
    pub fn open_remembering<T: Statement>(self, memory: &mut VerifiedEnvelopes) -> Result<Signed<T>, EnvelopeError> {
        if self.payload_type != T::PAYLOAD_TYPE {
            return Err(EnvelopeError::WrongType { expected: T::PAYLOAD_TYPE });
        }
        if self.payload.0.len() > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLarge { size_bytes: self.payload.0.len() });
        }
        let [signature] = self.signatures.as_slice() else { return Err(EnvelopeError::Malformed) };
        if !memory.0.contains(&self) {
            let message = pre_authentication_encoding(&self.payload_type, &self.payload.0);
            if !verify_ed25519(&signature.keyid, &message, &signature.sig.0) {
                return Err(EnvelopeError::BadSignature);
            }
            memory.remember(&self);
        }
        let found = signature.keyid;
        let statement: T = serde_json::from_slice(&self.payload.0).map_err(|error| EnvelopeError::BadPayload {
            expected: T::PAYLOAD_TYPE,
            reason: format!("at line {} column {}", error.line(), error.column()),
        })?;
        if statement.signer() != found {
            return Err(EnvelopeError::WrongSigner { found, named: statement.signer() });
        }
        statement
            .check()
            .map_err(|reason| EnvelopeError::BadPayload { expected: T::PAYLOAD_TYPE, reason: reason.into() })?;
        let digest = self.digest();
        Ok(Signed { statement, envelope: self, digest })
    }
}

/// Envelopes whose signatures this process has verified, or made. Equal means equal in every byte: what verified once verifies again, and
/// verifying is most of what opening costs. Holds the envelopes of one task at most; what is not in it is verified.
#[derive(Debug, Clone, Default)]
pub struct VerifiedEnvelopes(Vec<Envelope>);

/// More than any task's receipt has.
const MAX_REMEMBERED: usize = 24;
/// Longest payload that is remembered, in bytes.
const MAX_REMEMBERED_BYTES: usize = 64 << 10;

impl VerifiedEnvelopes {
    /// Takes in a statement that was opened or signed.
    pub fn add<T>(&mut self, signed: &Signed<T>) {
        self.remember(&signed.envelope);
    }

    /// Takes in what another memory has.
    pub fn merge(&mut self, other: Self) {
        other.0.iter().for_each(|envelope| self.remember(envelope));
    }

    fn remember(&mut self, envelope: &Envelope) {
        let fits = self.0.len() < MAX_REMEMBERED && envelope.payload.0.len() <= MAX_REMEMBERED_BYTES;
        if fits && !self.0.contains(envelope) {
            self.0.push(envelope.clone());
        }
    }
}

/// A statement whose signature verified, with the very bytes that were signed. Only [`Envelope::open`] and [`Envelope::sign`]
/// make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    statement: T,
    envelope: Envelope,
    digest: Digest,
}

impl<T> Signed<T> {
    /// The statement.
    #[must_use]
    pub fn statement(&self) -> &T {
        &self.statement
    }

    /// The envelope it came in.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// SHA-256 of the payload bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Gives up the statement for its envelope.
    #[must_use]
    pub fn into_envelope(self) -> Envelope {
        self.envelope
    }
}

impl<T> std::ops::Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.statement
    }
}
