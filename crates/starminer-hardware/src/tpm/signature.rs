//! `TPMT_SIGNATURE` (Part 2, 11.3.4) and the plain forms of tpm2-tools.

use serde::Serialize;
use tpm2_protocol::data::{TpmAlgId, TpmsSignatureEcc, TpmsSignatureRsa, TpmtSignature, TpmuSignature};

use super::{HashAlg, ParseError, unmarshal, unwrap_2b};
use crate::cert::{Hash, PssSalt, PublicKey, SignatureAlgorithm, SignatureError};

/// Longer than an RSA-4096 signature with its algorithms and sizes.
const SIGNATURE_BYTES_MAX: usize = 640;
/// Sizes of plain RSA signatures; no `TPMT_SIGNATURE` that is accepted has one of them.
const PLAIN_RSA_BYTES: [usize; 3] = [256, 384, 512];

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SchemeKind {
    /// RSASSA-PKCS1-v1_5.
    Rsassa,
    /// RSASSA-PSS.
    Rsapss,
    /// ECDSA.
    Ecdsa,
}

/// How a key signs, and over which hash: also that of the quote's PCR digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Scheme {
    /// How.
    pub kind: SchemeKind,
    /// SHA-256 or SHA-384.
    pub hash: HashAlg,
}

impl Scheme {
    /// The name in JSON: `rsapss-sha256`.
    #[must_use]
    pub fn name(self) -> String {
        let kind = match self.kind {
            SchemeKind::Rsassa => "rsassa",
            SchemeKind::Rsapss => "rsapss",
            SchemeKind::Ecdsa => "ecdsa",
        };
        format!("{kind}-{}", self.hash.name())
    }

    /// `None` for what is not accepted.
    pub(super) fn from_tpm(scheme: TpmAlgId, hash: TpmAlgId) -> Option<Self> {
        let kind = match scheme {
            TpmAlgId::Rsassa => SchemeKind::Rsassa,
            TpmAlgId::Rsapss => SchemeKind::Rsapss,
            TpmAlgId::Ecdsa => SchemeKind::Ecdsa,
            _ => return None,
        };
        let hash = HashAlg::from_tpm(hash).filter(|hash| matches!(hash, HashAlg::Sha256 | HashAlg::Sha384))?;
        Some(Self { kind, hash })
    }
}

/// A signature over a quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Absent in tpm2-tools' plain forms, which do not tell.
    pub(super) scheme: Option<Scheme>,
    value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Rsa(Vec<u8>),
    Ecdsa { r: Vec<u8>, s: Vec<u8> },
    EcdsaAsn1(Vec<u8>),
}

impl Signature {
    /// Reads a `TPMT_SIGNATURE` (bare, as `tpm2_quote -s` writes it, or in a TPM2B), a plain RSA signature, or a DER ECDSA signature
    /// (`tpm2_quote -f plain`).
    ///
    /// # Errors
    /// Where the bytes are none of these, or of another scheme or hash than RSASSA, RSAPSS and ECDSA over SHA-256 and SHA-384.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        const WHAT: &str = "the signature";
        const TPM2B_OR_OTHER: ParseError = ParseError::Malformed { what: WHAT, why: "of no form that is known" };
        if bytes.len() > SIGNATURE_BYTES_MAX {
            return Err(ParseError::TooLong { what: WHAT, most: SIGNATURE_BYTES_MAX });
        }
        if PLAIN_RSA_BYTES.contains(&bytes.len()) {
            return Ok(Self { scheme: None, value: Value::Rsa(bytes.to_vec()) });
        }
        let bare = match bytes.first_chunk() {
            Some([0x00, 0x14 | 0x16 | 0x18]) => bytes,
            Some([0x30, _]) => return Ok(Self { scheme: None, value: Value::EcdsaAsn1(bytes.to_vec()) }),
            _ => unwrap_2b(bytes).ok_or(TPM2B_OR_OTHER)?,
        };
        let signature: TpmtSignature = unmarshal(WHAT, bare)?;
        let rsa = |TpmsSignatureRsa { hash, sig }: TpmsSignatureRsa| (hash, Value::Rsa(sig.to_vec()));
        let ecdsa = |TpmsSignatureEcc { hash, signature_r, signature_s }: TpmsSignatureEcc| {
            (hash, Value::Ecdsa { r: signature_r.to_vec(), s: signature_s.to_vec() })
        };
        let (hash, value) = match signature.signature {
            TpmuSignature::Rsassa(fields) | TpmuSignature::Rsapss(fields) => rsa(fields),
            TpmuSignature::Ecdsa(fields) => ecdsa(fields),
            _ => return Err(ParseError::Unsupported("a signature scheme other than RSASSA, RSAPSS and ECDSA")),
        };
        let scheme = Scheme::from_tpm(signature.sig_alg, hash)
            .ok_or(ParseError::Unsupported("a signature over another hash than SHA-256 and SHA-384"))?;
        Ok(Self { scheme: Some(scheme), value })
    }

    /// Verifies it with a key and the scheme that is known for it.
    pub(super) fn verify(&self, key: &PublicKey, scheme: Scheme, message: &[u8]) -> Result<(), SignatureError> {
        let hash = match scheme.hash {
            HashAlg::Sha256 => Hash::Sha256,
            HashAlg::Sha384 => Hash::Sha384,
            HashAlg::Sha1 | HashAlg::Sha512 => return Err(SignatureError::KeyMismatch),
        };
        match (&self.value, scheme.kind) {
            (Value::Rsa(signature), SchemeKind::Rsassa) => {
                key.verify(SignatureAlgorithm::RsaPkcs1(hash), message, signature)
            }
            // Part 1, B.7: the salt is as long as the digest (FIPS mode) or as long as fits; the standards allow both.
            (Value::Rsa(signature), SchemeKind::Rsapss) => key
                .verify(SignatureAlgorithm::RsaPss(hash, PssSalt::Digest), message, signature)
                .or_else(|_| key.verify(SignatureAlgorithm::RsaPss(hash, PssSalt::Longest), message, signature)),
            (Value::Ecdsa { r, s }, SchemeKind::Ecdsa) => {
                let (curve, _) = key.ec().ok_or(SignatureError::KeyMismatch)?;
                let mut fixed = pad(r, curve.coordinate_bytes()).ok_or(SignatureError::Bad)?;
                fixed.extend(pad(s, curve.coordinate_bytes()).ok_or(SignatureError::Bad)?);
                key.verify(SignatureAlgorithm::EcdsaFixed(hash), message, &fixed)
            }
            (Value::EcdsaAsn1(signature), SchemeKind::Ecdsa) => {
                key.verify(SignatureAlgorithm::EcdsaAsn1(hash), message, signature)
            }
            _ => Err(SignatureError::KeyMismatch),
        }
    }
}

/// Big-endian bytes with zeros before them; TPMs may leave leading zeros out. `None` where they are too many.
pub(super) fn pad(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    let zeros = len.checked_sub(bytes.len())?;
    let mut out = vec![0; zeros];
    out.extend(bytes);
    Some(out)
}
