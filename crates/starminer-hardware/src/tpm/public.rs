//! `TPMT_PUBLIC` (Part 2, 12.2.4): a key of a TPM, with what the TPM guarantees about it; its name.

use tpm2_protocol::data::{
    TpmAlgId, TpmEccCurve, TpmtPublic, TpmtSymDef, TpmuAsymScheme, TpmuPublicId, TpmuPublicParms, TpmuSymKeyBits,
    TpmuSymMode,
};

use super::{HashAlg, ParseError, Scheme, signature::pad, unmarshal, unwrap_2b};
use crate::cert::{Curve, PublicKey, SignatureError};

/// Longer than any: an RSA-4096 key with a policy of 64 bytes.
const PUBLIC_BYTES_MAX: usize = 1024;
/// Longer than any: such a key in PEM.
const SPKI_BYTES_MAX: usize = 4096;

const WHAT: &str = "the public area";

/// `TPMA_OBJECT`: what a TPM guarantees about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes(u32);

impl Attributes {
    /// Never leaves its TPM.
    pub const FIXED_TPM: Self = Self(1 << 1);
    /// Never gets another parent.
    pub const FIXED_PARENT: Self = Self(1 << 4);
    /// The TPM made the private part.
    pub const SENSITIVE_DATA_ORIGIN: Self = Self(1 << 5);
    /// Its authorisation value suffices to use it.
    pub const USER_WITH_AUTH: Self = Self(1 << 6);
    /// Its policy is needed to administrate it.
    pub const ADMIN_WITH_POLICY: Self = Self(1 << 7);
    /// Signs only what the TPM made itself, or decrypts only structures of the TPM's own.
    pub const RESTRICTED: Self = Self(1 << 16);
    /// Decrypts.
    pub const DECRYPT: Self = Self(1 << 17);
    /// Signs.
    pub const SIGN: Self = Self(1 << 18);

    const NAMES: [(u32, &'static str); 14] = [
        (1, "fixedTPM"),
        (2, "stClear"),
        (4, "fixedParent"),
        (5, "sensitiveDataOrigin"),
        (6, "userWithAuth"),
        (7, "adminWithPolicy"),
        (8, "firmwareLimited"),
        (9, "svnLimited"),
        (10, "noDA"),
        (11, "encryptedDuplication"),
        (16, "restricted"),
        (17, "decrypt"),
        (18, "sign"),
        (19, "x509sign"),
    ];

    fn parse(bits: u32) -> Result<Self, ParseError> {
        let known = Self::NAMES.iter().fold(0, |known, (bit, _)| known | 1 << bit);
        if bits & !known == 0 {
            Ok(Self(bits))
        } else {
            Err(ParseError::Malformed { what: WHAT, why: "reserved attributes" })
        }
    }

    /// Whether all of these are set.
    #[must_use]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// As a TPM encodes them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The specification's names of those that are set.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| *name).collect()
    }
}

/// The key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA.
    Rsa {
        /// Big-endian, of the key's full size.
        modulus: Vec<u8>,
        /// 65537 where the TPM says 0.
        exponent: u32,
    },
    /// An elliptic curve.
    Ecc {
        /// Which one.
        curve: Curve,
        /// Big-endian, of the curve's full size.
        x: Vec<u8>,
        /// The same.
        y: Vec<u8>,
    },
}

/// What a storage key protects its children with: AES in CFB mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symmetric {
    /// 128, 192 or 256.
    pub bits: u16,
}

/// The public area of a TPM's key, bounded and with nothing reserved set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    area: Vec<u8>,
    pub(super) name_alg: HashAlg,
    pub(super) attributes: Attributes,
    pub(super) auth_policy: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) scheme: Option<Scheme>,
    /// Whether the key leaves the scheme to each command.
    pub(super) scheme_open: bool,
    pub(super) symmetric: Option<Symmetric>,
}

impl Public {
    /// Reads a `TPM2B_PUBLIC` (as `tpm2_createak -u` and `tpm2_createek -u` write it) or a `TPMT_PUBLIC`.
    ///
    /// # Errors
    /// Where the bytes are no public area of an RSA key of 2048 to 4096 bits or of one on P-256 or P-384, named with SHA-2.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > PUBLIC_BYTES_MAX {
            return Err(ParseError::TooLong { what: WHAT, most: PUBLIC_BYTES_MAX });
        }
        let area = match bytes.first_chunk() {
            // The type of RSA and ECC keys; no area is as short as these would be as sizes.
            Some([0x00, 0x01 | 0x23]) => bytes,
            _ => unwrap_2b(bytes)
                .ok_or(ParseError::Malformed { what: WHAT, why: "neither TPM2B_PUBLIC nor TPMT_PUBLIC" })?,
        };
        let public: TpmtPublic = unmarshal(WHAT, area)?;
        let name_alg = HashAlg::from_tpm(public.name_alg)
            .filter(|alg| *alg != HashAlg::Sha1)
            .ok_or(ParseError::Unsupported("a name of another hash than SHA-2"))?;
        if ![0, name_alg.len_bytes()].contains(&public.auth_policy.len()) {
            return Err(ParseError::Malformed { what: WHAT, why: "a policy of another size than the name's hash" });
        }
        let (algorithm, symmetric, scheme, details) = match (&public.parameters, &public.unique) {
            (TpmuPublicParms::Rsa(parameters), TpmuPublicId::Rsa(modulus)) => {
                let bits = parameters.key_bits.value();
                if ![2048, 3072, 4096].contains(&bits) {
                    return Err(ParseError::Unsupported("RSA of another size than 2048, 3072 and 4096 bits"));
                }
                if modulus.len() * 8 != usize::from(bits) || modulus.first().is_none_or(|first| *first < 0x80) {
                    return Err(ParseError::Malformed { what: WHAT, why: "a modulus of another size than said" });
                }
                let exponent = match parameters.exponent.value() {
                    0 => 65537,
                    small if small < 65537 || small % 2 == 0 => {
                        return Err(ParseError::Unsupported("an RSA exponent that is even or less than 65537"));
                    }
                    exponent => exponent,
                };
                let algorithm = Algorithm::Rsa { modulus: modulus.to_vec(), exponent };
                (algorithm, &parameters.symmetric, parameters.scheme.scheme, parameters.scheme.details)
            }
            (TpmuPublicParms::Ecc(parameters), TpmuPublicId::Ecc(point)) => {
                let curve = match parameters.curve_id {
                    TpmEccCurve::NistP256 => Curve::P256,
                    TpmEccCurve::NistP384 => Curve::P384,
                    _ => return Err(ParseError::Unsupported("another curve than P-256 and P-384")),
                };
                let coordinate = |bytes: &[u8]| {
                    pad(bytes, curve.coordinate_bytes())
                        .ok_or(ParseError::Malformed { what: WHAT, why: "a coordinate longer than the curve's" })
                };
                let algorithm = Algorithm::Ecc { curve, x: coordinate(&point.x)?, y: coordinate(&point.y)? };
                (algorithm, &parameters.symmetric, parameters.scheme.scheme, parameters.scheme.details)
            }
            _ => return Err(ParseError::Unsupported("a key that is neither RSA nor ECC")),
        };
        let scheme_open = scheme == TpmAlgId::Null;
        let scheme = match details {
            TpmuAsymScheme::Hash(details) => Scheme::from_tpm(scheme, details.hash_alg),
            TpmuAsymScheme::Null => None,
        };
        Ok(Self {
            area: area.to_vec(),
            name_alg,
            attributes: Attributes::parse(public.object_attributes.bits())?,
            auth_policy: public.auth_policy.to_vec(),
            algorithm,
            scheme,
            scheme_open,
            symmetric: symmetric_of(symmetric)?,
        })
    }

    /// The name (Part 1, 16): algorithm and hash of the public area. What a credential is bound to.
    #[must_use]
    pub fn name(&self) -> Vec<u8> {
        let mut name = self.name_alg.id().to_be_bytes().to_vec();
        name.extend(self.name_alg.digest(&[&self.area]).as_ref());
        name
    }

    /// The attributes.
    #[must_use]
    pub const fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// The key.
    #[must_use]
    pub const fn algorithm(&self) -> &Algorithm {
        &self.algorithm
    }

    /// The key, to verify with.
    ///
    /// # Errors
    /// Where it is of a size that is not accepted.
    pub fn public_key(&self) -> Result<PublicKey, SignatureError> {
        match &self.algorithm {
            Algorithm::Rsa { modulus, exponent } => PublicKey::from_rsa(modulus, &exponent.to_be_bytes()),
            Algorithm::Ecc { curve, x, y } => PublicKey::from_ec_point(*curve, &[&[4][..], x, y].concat()),
        }
    }
}

fn symmetric_of(definition: &TpmtSymDef) -> Result<Option<Symmetric>, ParseError> {
    match (definition.algorithm, definition.key_bits, definition.mode) {
        (TpmAlgId::Null, ..) => Ok(None),
        (TpmAlgId::Aes, TpmuSymKeyBits::Aes(bits), TpmuSymMode::Aes(TpmAlgId::Cfb))
            if [128, 192, 256].contains(&bits.value()) =>
        {
            Ok(Some(Symmetric { bits: bits.value() }))
        }
        _ => Err(ParseError::Unsupported("a symmetric algorithm other than AES in CFB mode")),
    }
}

/// The key that signs quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttestationKey {
    /// With all that the TPM guarantees about it.
    Tpm(Box<Public>),
    /// The key alone: nothing is known of its attributes, so nothing shows that its quotes were made by a TPM.
    Bare(PublicKey),
}

impl AttestationKey {
    /// Reads a public area as [`Public::parse`] does, or a `SubjectPublicKeyInfo` in DER or PEM, told apart by content.
    ///
    /// # Errors
    /// Where the bytes are neither.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        const BARE: ParseError =
            ParseError::Malformed { what: "the attestation key", why: "no public key in PEM or DER that is accepted" };
        match bytes.first() {
            Some(0x30 | b'-') if bytes.len() > SPKI_BYTES_MAX => {
                Err(ParseError::TooLong { what: "the attestation key", most: SPKI_BYTES_MAX })
            }
            Some(0x30) => PublicKey::from_spki(bytes).map(Self::Bare).map_err(|_| BARE),
            Some(b'-') => {
                let der = spki_of_pem(bytes).ok_or(BARE)?;
                PublicKey::from_spki(&der).map(Self::Bare).map_err(|_| BARE)
            }
            _ => Public::parse(bytes).map(|public| Self::Tpm(Box::new(public))),
        }
    }

    /// The key, to verify with.
    ///
    /// # Errors
    /// Where it is of a size that is not accepted.
    pub fn public_key(&self) -> Result<PublicKey, SignatureError> {
        match self {
            Self::Tpm(public) => public.public_key(),
            Self::Bare(key) => Ok(key.clone()),
        }
    }
}

/// One block of RFC 7468, with nothing around it.
fn spki_of_pem(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(bytes).ok()?.trim_ascii_end();
    let body = text.strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let base64: String = body.split(['\n', '\r']).collect();
    data_encoding::BASE64.decode(base64.as_bytes()).ok()
}
