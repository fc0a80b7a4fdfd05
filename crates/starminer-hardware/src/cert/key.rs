//! Public keys and the signatures that they verify, with aws-lc-rs.

use aws_lc_rs::signature::{self as lc, RsaParameters, RsaPssSaltLength, UnparsedPublicKey, VerificationAlgorithm};

use super::der::{self, Malformed, Reader, tag};

/// Object identifiers by their content octets.
mod oid {
    pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    pub(super) const RSA_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7];
    pub(super) const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
    pub(super) const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10];
    pub(super) const RSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5];
    pub(super) const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
    pub(super) const RSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12];
    pub(super) const RSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13];
    pub(super) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    pub(super) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    pub(super) const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    pub(super) const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
    pub(super) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    pub(super) const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
    pub(super) const ECDSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4];
    pub(super) const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
    pub(super) const SHA384: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
    pub(super) const SHA512: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3];
}

/// A digest beneath a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    const fn len_bytes(self) -> u64 {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn from_oid(oid: &[u8]) -> Option<Self> {
        match oid {
            oid::SHA256 => Some(Self::Sha256),
            oid::SHA384 => Some(Self::Sha384),
            oid::SHA512 => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// How long the salt of an RSASSA-PSS signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PssSalt {
    /// As the digest. What certificates have to use.
    Digest,
    /// As long as fits. What many TPMs do.
    Longest,
}

/// How a message was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
    /// RSASSA-PKCS1-v1_5 over SHA-1: in chains only where [`super::Quirk::Sha1`] is named.
    RsaPkcs1Sha1,
    /// RSASSA-PSS with MGF1 over the same digest.
    RsaPss(Hash, PssSalt),
    /// ECDSA, the signature as a DER sequence of r and s.
    EcdsaAsn1(Hash),
    /// ECDSA, the signature as r and s in big-endian bytes, each as long as the curve's order.
    EcdsaFixed(Hash),
}

impl SignatureAlgorithm {
    /// Reads an `AlgorithmIdentifier`, whose parameters have to be exactly those that its standard asks for.
    pub(crate) fn from_identifier(raw: &[u8]) -> Result<Self, SignatureError> {
        let read = || -> Result<Option<Self>, Malformed> {
            let mut fields = der::only(raw, tag::SEQUENCE)?;
            let algorithm = fields.content(tag::OID)?;
            let rsa = |hash| Some(Self::RsaPkcs1(hash));
            let algorithm = match algorithm {
                oid::RSA_SHA256 => rsa(Hash::Sha256),
                oid::RSA_SHA384 => rsa(Hash::Sha384),
                oid::RSA_SHA512 => rsa(Hash::Sha512),
                oid::RSA_SHA1 => Some(Self::RsaPkcs1Sha1),
                oid::ECDSA_SHA256 => Some(Self::EcdsaAsn1(Hash::Sha256)),
                oid::ECDSA_SHA384 => Some(Self::EcdsaAsn1(Hash::Sha384)),
                oid::ECDSA_SHA512 => Some(Self::EcdsaAsn1(Hash::Sha512)),
                oid::RSA_PSS => return pss(fields),
                _ => None,
            };
            // RSA: NULL, which some leave out. ECDSA: nothing, for which some write NULL.
            if let Some(parameters) = fields.optional(tag::NULL)?
                && !parameters.is_empty()
            {
                return Err(Malformed);
            }
            fields.finish()?;
            Ok(algorithm)
        };
        read().ok().flatten().ok_or_else(|| SignatureError::UnsupportedAlgorithm { oid: algorithm_name(raw) })
    }
}

/// The dotted identifier of an algorithm, for people.
fn algorithm_name(raw: &[u8]) -> String {
    der::only(raw, tag::SEQUENCE)
        .and_then(|mut fields| fields.content(tag::OID))
        .map_or_else(|_| "unreadable".to_owned(), der::dotted)
}

/// RSASSA-PSS-params (RFC 4055): all of one digest, a salt of its length, trailer 1.
fn pss(mut fields: Reader<'_>) -> Result<Option<SignatureAlgorithm>, Malformed> {
    let mut parameters = fields.inside(tag::SEQUENCE)?;
    fields.finish()?;
    let digest = |identifier: &mut Reader<'_>| -> Result<Option<Hash>, Malformed> {
        let mut fields = identifier.inside(tag::SEQUENCE)?;
        let hash = Hash::from_oid(fields.content(tag::OID)?);
        if fields.optional(tag::NULL)?.is_some_and(|null| !null.is_empty()) {
            return Err(Malformed);
        }
        fields.finish()?;
        Ok(hash)
    };
    // What is left out means SHA-1 and a salt of 20 bytes, which nobody may use.
    let mut field = parameters.inside(tag::CONTEXT_0)?;
    let hash = digest(&mut field)?;
    field.finish()?;
    let mut field = parameters.inside(tag::CONTEXT_1)?;
    let mut mask = field.inside(tag::SEQUENCE)?;
    field.finish()?;
    let mgf1 = mask.content(tag::OID)? == oid::MGF1;
    let mask_hash = digest(&mut mask)?;
    mask.finish()?;
    let mut field = parameters.inside(tag::CONTEXT_2)?;
    let salt_bytes = field.small()?;
    field.finish()?;
    if let Some(trailer) = parameters.optional(tag::CONTEXT_3)? {
        let mut trailer = Reader::new(trailer);
        if trailer.small()? != 1 {
            return Err(Malformed);
        }
        trailer.finish()?;
    }
    parameters.finish()?;
    Ok(hash
        .filter(|hash| mgf1 && mask_hash == Some(*hash) && salt_bytes == hash.len_bytes())
        .map(|hash| SignatureAlgorithm::RsaPss(hash, PssSalt::Digest)))
}

/// Why a signature or a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The signer used an algorithm that is not accepted.
    #[error("signature algorithm {oid} is not supported")]
    UnsupportedAlgorithm {
        /// Dotted.
        oid: String,
    },
    /// The signer's key is of a kind, or has a size, that is not accepted.
    #[error("the public key is not supported: {0}")]
    UnsupportedKey(&'static str),
    /// Key and signature algorithm do not belong together.
    #[error("the signature algorithm does not belong to the key")]
    KeyMismatch,
    /// The key did not make this signature over this message.
    #[error("the signature is not the key's")]
    Bad,
}

impl SignatureError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedAlgorithm { .. } => "signature.algorithm",
            Self::UnsupportedKey(_) => "signature.key",
            Self::KeyMismatch => "signature.key-mismatch",
            Self::Bad => "signature.bad",
        }
    }
}

/// Elliptic curves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
}

impl Curve {
    /// Bytes of a coordinate, and of r and s in a signature of fixed length.
    #[must_use]
    pub const fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// A public key, with which signatures are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// `pkcs1` is the `RSAPublicKey`; `signs` is false where the certificate keeps the key for encryption.
    Rsa { pkcs1: Vec<u8>, modulus: Vec<u8>, exponent: Vec<u8>, signs: bool },
    /// `point` is uncompressed: 4, x, y.
    Ec { curve: Curve, point: Vec<u8> },
}

/// Sizes of RSA keys that are accepted, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// Where the key is malformed, of another kind or of a size that is not accepted.
    pub fn from_spki(spki: &[u8]) -> Result<Self, SignatureError> {
        const MALFORMED: SignatureError = SignatureError::UnsupportedKey("malformed");
        let mut fields = der::only(spki, tag::SEQUENCE).map_err(|_| MALFORMED)?;
        let mut algorithm = fields.inside(tag::SEQUENCE).map_err(|_| MALFORMED)?;
        let bits = fields.bit_string().map_err(|_| MALFORMED)?;
        fields.finish().map_err(|_| MALFORMED)?;
        match algorithm.content(tag::OID).map_err(|_| MALFORMED)? {
            oid::RSA => Self::from_pkcs1(bits, true),
            oid::RSA_PSS if algorithm.is_empty() => Self::from_pkcs1(bits, true),
            oid::RSA_PSS => Err(SignatureError::UnsupportedKey("an RSASSA-PSS key with parameters")),
            oid::RSA_OAEP => Self::from_pkcs1(bits, false),
            oid::EC => {
                let curve = match algorithm.content(tag::OID) {
                    Ok(oid::P256) => Curve::P256,
                    Ok(oid::P384) => Curve::P384,
                    Ok(oid::P521) => Curve::P521,
                    _ => return Err(SignatureError::UnsupportedKey("another curve than P-256, P-384 and P-521")),
                };
                algorithm.finish().map_err(|_| MALFORMED)?;
                Self::from_ec_point(curve, bits)
            }
            _ => Err(SignatureError::UnsupportedKey("neither RSA nor ECDSA")),
        }
    }

    fn from_pkcs1(pkcs1: &[u8], signs: bool) -> Result<Self, SignatureError> {
        let parts = || -> Result<_, Malformed> {
            let mut fields = der::only(pkcs1, tag::SEQUENCE)?;
            let parts = (fields.unsigned()?.to_vec(), fields.unsigned()?.to_vec());
            fields.finish()?;
            Ok(parts)
        };
        let (modulus, exponent) = parts().map_err(|_| SignatureError::UnsupportedKey("malformed"))?;
        let bits = (modulus.len() * 8).saturating_sub(modulus.first().map_or(0, |byte| byte.leading_zeros() as usize));
        if !RSA_BITS.contains(&bits) {
            return Err(SignatureError::UnsupportedKey("RSA of less than 2048 or more than 8192 bits"));
        }
        Ok(Self(Kind::Rsa { pkcs1: pkcs1.to_vec(), modulus, exponent, signs }))
    }

    /// From modulus and exponent, big-endian.
    ///
    /// # Errors
    /// Where the size is not accepted.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, SignatureError> {
        if modulus.len() > RSA_BITS.end() / 8 || exponent.len() > 8 {
            return Err(SignatureError::UnsupportedKey("RSA of less than 2048 or more than 8192 bits"));
        }
        let fields = [der::encode_unsigned(modulus), der::encode_unsigned(exponent)].concat();
        Self::from_pkcs1(&der::encode(tag::SEQUENCE, &fields), true)
    }

    /// From an uncompressed point (4, x, y). That it is on the curve shows when it verifies.
    ///
    /// # Errors
    /// Where the point has another form.
    pub fn from_ec_point(curve: Curve, point: &[u8]) -> Result<Self, SignatureError> {
        if point.first() != Some(&4) || point.len() != 1 + 2 * curve.coordinate_bytes() {
            return Err(SignatureError::UnsupportedKey("a point that is not uncompressed, or of another curve"));
        }
        Ok(Self(Kind::Ec { curve, point: point.to_vec() }))
    }

    /// Modulus and exponent, big-endian without leading zeros, of an RSA key.
    #[must_use]
    pub fn rsa(&self) -> Option<(&[u8], &[u8])> {
        match &self.0 {
            Kind::Rsa { modulus, exponent, .. } => Some((modulus, exponent)),
            Kind::Ec { .. } => None,
        }
    }

    /// Curve and uncompressed point (4, x, y) of an elliptic-curve key.
    #[must_use]
    pub fn ec(&self) -> Option<(Curve, &[u8])> {
        match &self.0 {
            Kind::Ec { curve, point } => Some((*curve, point)),
            Kind::Rsa { .. } => None,
        }
    }

    /// Kind and size, for people and claims: `rsa-2048`, `p-384`.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.0 {
            Kind::Rsa { modulus, .. } => format!("rsa-{}", modulus.len() * 8),
            Kind::Ec { curve: Curve::P256, .. } => "p-256".to_owned(),
            Kind::Ec { curve: Curve::P384, .. } => "p-384".to_owned(),
            Kind::Ec { curve: Curve::P521, .. } => "p-521".to_owned(),
        }
    }

    /// Verifies that this key made the signature over the message.
    ///
    /// # Errors
    /// Where it did not, or where the algorithm is not one of this key's.
    pub fn verify(
        &self,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        match (&self.0, algorithm) {
            (Kind::Ec { curve, .. }, SignatureAlgorithm::EcdsaFixed(hash)) => {
                let (r, s) = signature.split_at_checked(curve.coordinate_bytes()).ok_or(SignatureError::Bad)?;
                if s.len() != r.len() {
                    return Err(SignatureError::Bad);
                }
                let pair = [der::encode_unsigned(r), der::encode_unsigned(s)].concat();
                self.verify(SignatureAlgorithm::EcdsaAsn1(hash), message, &der::encode(tag::SEQUENCE, &pair))
            }
            (Kind::Ec { curve, point }, SignatureAlgorithm::EcdsaAsn1(hash)) => {
                UnparsedPublicKey::new(ecdsa(*curve, hash), point)
                    .verify(message, signature)
                    .map_err(|_| SignatureError::Bad)
            }
            (Kind::Rsa { signs: false, .. }, _) => {
                Err(SignatureError::UnsupportedKey("its certificate keeps it for encryption"))
            }
            (Kind::Rsa { pkcs1, .. }, algorithm) => {
                let parameters = rsa(algorithm).ok_or(SignatureError::KeyMismatch)?;
                UnparsedPublicKey::new(parameters, pkcs1).verify(message, signature).map_err(|_| SignatureError::Bad)
            }
            (Kind::Ec { .. }, _) => Err(SignatureError::KeyMismatch),
        }
    }
}

fn ecdsa(curve: Curve, hash: Hash) -> &'static dyn VerificationAlgorithm {
    match (curve, hash) {
        (Curve::P256, Hash::Sha256) => &lc::ECDSA_P256_SHA256_ASN1,
        (Curve::P256, Hash::Sha384) => &lc::ECDSA_P256_SHA384_ASN1,
        (Curve::P256, Hash::Sha512) => &lc::ECDSA_P256_SHA512_ASN1,
        (Curve::P384, Hash::Sha256) => &lc::ECDSA_P384_SHA256_ASN1,
        (Curve::P384, Hash::Sha384) => &lc::ECDSA_P384_SHA384_ASN1,
        (Curve::P384, Hash::Sha512) => &lc::ECDSA_P384_SHA512_ASN1,
        (Curve::P521, Hash::Sha256) => &lc::ECDSA_P521_SHA256_ASN1,
        (Curve::P521, Hash::Sha384) => &lc::ECDSA_P521_SHA384_ASN1,
        (Curve::P521, Hash::Sha512) => &lc::ECDSA_P521_SHA512_ASN1,
    }
}

fn rsa(algorithm: SignatureAlgorithm) -> Option<&'static RsaParameters> {
    const LONGEST: RsaPssSaltLength = RsaPssSaltLength::Max;
    static LONG_SHA256: RsaParameters = lc::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(LONGEST);
    static LONG_SHA384: RsaParameters = lc::RSA_PSS_2048_8192_SHA384.with_pss_salt_length(LONGEST);
    static LONG_SHA512: RsaParameters = lc::RSA_PSS_2048_8192_SHA512.with_pss_salt_length(LONGEST);
    Some(match algorithm {
        SignatureAlgorithm::RsaPkcs1Sha1 => &lc::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
        SignatureAlgorithm::RsaPkcs1(Hash::Sha256) => &lc::RSA_PKCS1_2048_8192_SHA256,
        SignatureAlgorithm::RsaPkcs1(Hash::Sha384) => &lc::RSA_PKCS1_2048_8192_SHA384,
        SignatureAlgorithm::RsaPkcs1(Hash::Sha512) => &lc::RSA_PKCS1_2048_8192_SHA512,
        SignatureAlgorithm::RsaPss(Hash::Sha256, PssSalt::Digest) => &lc::RSA_PSS_2048_8192_SHA256,
        SignatureAlgorithm::RsaPss(Hash::Sha384, PssSalt::Digest) => &lc::RSA_PSS_2048_8192_SHA384,
        SignatureAlgorithm::RsaPss(Hash::Sha512, PssSalt::Digest) => &lc::RSA_PSS_2048_8192_SHA512,
        SignatureAlgorithm::RsaPss(Hash::Sha256, PssSalt::Longest) => &LONG_SHA256,
        SignatureAlgorithm::RsaPss(Hash::Sha384, PssSalt::Longest) => &LONG_SHA384,
        SignatureAlgorithm::RsaPss(Hash::Sha512, PssSalt::Longest) => &LONG_SHA512,
        SignatureAlgorithm::EcdsaAsn1(_) | SignatureAlgorithm::EcdsaFixed(_) => return None,
    })
}
