//! Reference values: measurements of agents that are known to be good.
//!
//! Where none is set for a kind, evidence of that kind is refused; there is no default. Who may set them (release keys,
//! a requester's own pin) is the caller's affair, and so is keeping agents and brokers in sets of their own: a set says
//! which programs are good for the role that the caller asks about. Source: RFC 9334, section 4.2; `specs/policy.md`, section "Reference
//! values".

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::evidence::EvidenceKind;
use crate::types::{Digest, tagged_hash};

/// Version of the format.
pub const REFERENCE_VALUES_VERSION: u32 = 1;
/// Most values in one set.
pub const MAX_REFERENCE_VALUES: usize = 1024;
/// Longest name of a value, in bytes.
pub const MAX_REFERENCE_NAME_BYTES: usize = 64;
/// Longest reference values in JSON, in bytes.
pub const MAX_REFERENCE_VALUES_BYTES: usize = 512 * 1024;

/// A measurement as a device reports it; its length belongs to the kind ([`EvidenceKind::measurement_bytes`]): for a software TEE and SGX
/// the 32 bytes of the program, for SEV-SNP the launch digest (48), for TDX MRTD and RTMR 0 to 3 (240), for a TPM the digest over the
/// selected PCRs ([`crate::pcr_measurement`], 32), for an IMA list the SHA-256 of the agent's executable file, for a firmware's log one
/// component of a boot ([`crate::boot_component`], 33): such values explain, and decide nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Measurement(Vec<u8>);

impl Measurement {
    /// Longest measurement of any kind, in bytes.
    pub const MAX_LEN: usize = 240;

    /// Takes 1 to [`Self::MAX_LEN`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty() && bytes.len() <= Self::MAX_LEN).then(|| Self(bytes.to_vec()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Digest> for Measurement {
    fn from(digest: Digest) -> Self {
        Self(digest.0.to_vec())
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Measurement({self})")
    }
}

impl TryFrom<String> for Measurement {
    type Error = ReferenceValuesError;

    fn try_from(text: String) -> Result<Self, ReferenceValuesError> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or(ReferenceValuesError::Measurement)
    }
}

impl From<Measurement> for String {
    fn from(measurement: Measurement) -> Self {
        measurement.to_string()
    }
}

/// One known-good measurement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceValue {
    /// The kind of evidence it is for.
    pub kind: EvidenceKind,
    /// The measurement.
    pub measurement: Measurement,
    /// What it is, for people: printable ASCII, 1 to [`MAX_REFERENCE_NAME_BYTES`], without `"` and `\`.
    pub name: String,
}

/// Why values are no reference values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReferenceValuesError {
    /// Not JSON of the documented shape, or longer than [`MAX_REFERENCE_VALUES_BYTES`].
    #[error("the reference values are not in the documented form")]
    Malformed,
    /// Another version.
    #[error("reference values of another version; {REFERENCE_VALUES_VERSION} is known")]
    Version,
    /// Not a measurement, or one of a wrong length for its kind.
    #[error("a measurement is malformed or has a wrong length for its kind")]
    Measurement,
    /// A name is empty, too long, or holds other characters than it may.
    #[error("the name of a reference value is malformed")]
    Name,
    /// One measurement is listed twice for a kind.
    #[error("a measurement is listed twice")]
    Twice,
    /// More than [`MAX_REFERENCE_VALUES`].
    #[error("at most {MAX_REFERENCE_VALUES} reference values are taken")]
    TooMany,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireReferenceValues {
    version: u32,
    values: Vec<ReferenceValue>,
}

/// A set of reference values in its one form: `{"version":1,"values":[{"kind","measurement","name"}…]}`, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireReferenceValues", into = "WireReferenceValues")]
pub struct ReferenceValues(Vec<ReferenceValue>);

impl ReferenceValues {
    /// No values: refuses every measurement.
    pub const fn unset() -> Self {
        Self(Vec::new())
    }

    /// Checks the values and puts them in order.
    pub fn new(mut values: Vec<ReferenceValue>) -> Result<Self, ReferenceValuesError> {
        if values.len() > MAX_REFERENCE_VALUES {
            return Err(ReferenceValuesError::TooMany);
        }
        values.sort_unstable();
        for value in &values {
            let name_fits = !value.name.is_empty()
                && value.name.len() <= MAX_REFERENCE_NAME_BYTES
                && value.name.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\');
            if !name_fits {
                return Err(ReferenceValuesError::Name);
            }
            if Some(value.measurement.as_bytes().len()) != value.kind.measurement_bytes() {
                return Err(ReferenceValuesError::Measurement);
            }
        }
        let same = |pair: &[ReferenceValue]| pair[0].kind == pair[1].kind && pair[0].measurement == pair[1].measurement;
        if values.windows(2).any(same) {
            return Err(ReferenceValuesError::Twice);
        }
        Ok(Self(values))
    }

    /// Reads reference values from JSON, at most [`MAX_REFERENCE_VALUES_BYTES`].
    pub fn parse(json: &[u8]) -> Result<Self, ReferenceValuesError> {
        if json.len() > MAX_REFERENCE_VALUES_BYTES {
            return Err(ReferenceValuesError::Malformed);
        }
        let wire: WireReferenceValues = serde_json::from_slice(json).map_err(|_| ReferenceValuesError::Malformed)?;
        wire.try_into()
    }

    /// The values, in order.
    pub fn values(&self) -> &[ReferenceValue] {
        &self.0
    }

    /// Whether any value is set for a kind.
    pub fn is_set_for(&self, kind: EvidenceKind) -> bool {
        self.0.iter().any(|value| value.kind == kind)
    }

    /// The measurements of a kind.
    pub(crate) fn of_kind(&self, kind: EvidenceKind) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |value| value.kind == kind).map(|value| value.measurement.as_bytes())
    }

    /// The value with this measurement.
    pub fn find(&self, kind: EvidenceKind, measurement: &[u8]) -> Option<&ReferenceValue> {
        let key = (kind, measurement);
        let at = self.0.binary_search_by(|v| (v.kind, v.measurement.as_bytes()).cmp(&key)).ok()?;
        self.0.get(at)
    }

    /// The one JSON form.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("reference values have names and hexadecimal only")
    }

    /// The tagged hash `"starminer/reference-values/v1"` over the one JSON form.
    pub fn digest(&self) -> Digest {
        tagged_hash("reference-values", &[&self.to_json()])
    }
}

impl TryFrom<WireReferenceValues> for ReferenceValues {
    type Error = ReferenceValuesError;

    fn try_from(wire: WireReferenceValues) -> Result<Self, ReferenceValuesError> {
        if wire.version != REFERENCE_VALUES_VERSION {
            return Err(ReferenceValuesError::Version);
        }
        Self::new(wire.values)
    }
}

impl From<ReferenceValues> for WireReferenceValues {
    fn from(values: ReferenceValues) -> Self {
        Self { version: REFERENCE_VALUES_VERSION, values: values.0 }
    }
}
