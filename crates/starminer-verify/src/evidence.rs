//! Evidence as bytes: one strict, bounded JSON form, and nothing readable before it was verified.
//!
//! [`Evidence::parse`] checks form alone. What the evidence claims stays private until [`crate::verify`] has seen the
//! signatures, so no caller can act on a claim by mistake. There is exactly one encoding of any evidence: bytes that parse
//! but are not that encoding are refused, so a digest over the bytes names the statement. [`EvidenceBuilder`] is
//! for the attesting side. Source: `specs/evidence.md`, section "Evidence".

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::batch::{MAX_PATH_LEN, PathStep, Side};
use crate::binding::{AkName, BINDING_VERSION, Binding, BindingShapeError, Purpose, Suite, TaskKey};
use crate::posture::Posture;
use crate::refusal::{Party, Refusal};
use crate::types::{Attempt, BootId, Challenge, Digest, NetworkId, NodeId, PublicKey};

/// Version of the evidence format.
pub const EVIDENCE_VERSION: u32 = 1;
/// Longest evidence without logs, in bytes.
pub const MAX_EVIDENCE_BYTES: usize = 64 * 1024;
/// Longest evidence with a log among its parts ([`EvidenceKind::is_log`]), in bytes.
pub const MAX_EVIDENCE_WITH_LOGS_BYTES: usize = 2 * 1024 * 1024;
/// Most parts (device reports and logs) in one evidence.
pub const MAX_PARTS: usize = 8;
/// Longest report of one device, in bytes before base64.
pub const MAX_REPORT_BYTES: usize = 32 * 1024;
/// Longest event log (`uefi-log`, `cc-log`), in bytes before base64.
pub const MAX_EVENT_LOG_BYTES: usize = 256 * 1024;
/// Longest IMA list (`ima-log`), in bytes before base64.
pub const MAX_IMA_LOG_BYTES: usize = 1024 * 1024;

/// What a part is: which device made it, or which log it is. Each kind has a module that knows its bytes. The order is that of
/// parts in evidence and of reference values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceKind {
    /// The simulated TEE of demo and test networks: [`crate::software_tee`].
    SoftwareTee,
    /// A guest of AMD SEV-SNP: report and certificates ([`crate::parts::SevSnpPart`]).
    SevSnp,
    /// A trust domain of Intel TDX: its quote.
    Tdx,
    /// An enclave of Intel SGX: its quote.
    Sgx,
    /// A TPM 2.0: quote, attestation key, PCR values, certificates of the endorsement key ([`crate::parts::TpmPart`]).
    Tpm,
    /// The log of what UEFI firmware measured into the TPM.
    UefiLog,
    /// The log of what firmware measured into a trust domain's registers (`CCEL`).
    CcLog,
    /// The list of what the kernel measured into the TPM (IMA).
    ImaLog,
    /// One confidential-computing GPU of NVIDIA: report and certificates ([`crate::parts::GpuPart`]).
    NvidiaGpu,
}

impl EvidenceKind {
    /// All kinds, in their order.
    pub const ALL: [Self; 9] = [
        Self::SoftwareTee,
        Self::SevSnp,
        Self::Tdx,
        Self::Sgx,
        Self::Tpm,
        Self::UefiLog,
        Self::CcLog,
        Self::ImaLog,
        Self::NvidiaGpu,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SoftwareTee => "software-tee",
            Self::SevSnp => "sev-snp",
            Self::Tdx => "tdx",
            Self::Sgx => "sgx",
            Self::Tpm => "tpm",
            Self::UefiLog => "uefi-log",
            Self::CcLog => "cc-log",
            Self::ImaLog => "ima-log",
            Self::NvidiaGpu => "nvidia-gpu",
        }
    }

    /// Whether it runs agents in memory of their own: at most one such part is in evidence.
    pub const fn is_cpu_tee(self) -> bool {
        matches!(self, Self::SoftwareTee | Self::SevSnp | Self::Tdx | Self::Sgx)
    }

    /// Whether it is a log, which nobody signs and which has to lead to registers that somebody does.
    pub const fn is_log(self) -> bool {
        matches!(self, Self::UefiLog | Self::CcLog | Self::ImaLog)
    }

    /// Length of the measurement that reference values of this kind hold; `None` where there are no such values.
    pub const fn measurement_bytes(self) -> Option<usize> {
        match self {
            Self::SoftwareTee | Self::Sgx | Self::Tpm | Self::ImaLog => Some(32),
            Self::SevSnp => Some(48),
            Self::Tdx => Some(5 * 48),
            Self::UefiLog => Some(1 + 32),
            Self::CcLog | Self::NvidiaGpu => None,
        }
    }

    const fn max_report_bytes(self) -> usize {
        match self {
            Self::UefiLog | Self::CcLog => MAX_EVENT_LOG_BYTES,
            Self::ImaLog => MAX_IMA_LOG_BYTES,
            Self::SoftwareTee | Self::SevSnp | Self::Tdx | Self::Sgx | Self::Tpm | Self::NvidiaGpu => MAX_REPORT_BYTES,
        }
    }
}

/// Longest evidence with parts of these kinds.
fn max_evidence_bytes(mut kinds: impl Iterator<Item = EvidenceKind>) -> usize {
    if kinds.any(EvidenceKind::is_log) { MAX_EVIDENCE_WITH_LOGS_BYTES } else { MAX_EVIDENCE_BYTES }
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One device's report over the batch that the binding is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) kind: EvidenceKind,
    pub(crate) report: Vec<u8>,
}

/// Evidence that has the right form and of which nothing is known to be true. It goes to [`crate::verify`] and nowhere
/// else; only its digest and size can be read.
#[derive(Clone)]
pub struct Evidence {
    digest: Digest,
    size_bytes: usize,
    pub(crate) binding: Binding,
    pub(crate) path: Vec<PathStep>,
    pub(crate) posture: Posture,
    pub(crate) parts: Vec<Part>,
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Evidence({}, {} bytes, unverified)", self.digest, self.size_bytes)
    }
}

/// Bytes are not evidence. Nothing of the bytes is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseEvidenceError {
    /// Longer than [`MAX_EVIDENCE_BYTES`], or with logs than [`MAX_EVIDENCE_WITH_LOGS_BYTES`].
    #[error("evidence of {found_bytes} bytes; at most {max_bytes} are read")]
    TooLong {
        /// Bytes that were given.
        found_bytes: usize,
        /// The bound that they exceed.
        max_bytes: usize,
    },
    /// Not JSON of the documented shape: an unknown, missing or repeated field, a wrong type, a malformed value.
    #[error("evidence is not in the documented form, at byte {at_column}")]
    Malformed {
        /// Where the reader stopped (evidence is one line).
        at_column: usize,
    },
    /// Another version of the format.
    #[error("evidence of another format version; this verifier reads {EVIDENCE_VERSION}")]
    Version,
    /// The same content in other bytes than the one encoding.
    #[error("evidence is not in its one encoding")]
    NotCanonical,
    /// The binding's fields do not suit its purpose.
    #[error(transparent)]
    Shape(#[from] BindingShapeError),
    /// The path of the batch is longer than [`MAX_PATH_LEN`].
    #[error("a batch path of more than {MAX_PATH_LEN} steps")]
    PathTooLong,
    /// No parts, or more than [`MAX_PARTS`].
    #[error("evidence carries 1 to {MAX_PARTS} parts")]
    PartCount,
    /// A report is empty or longer than its kind may be.
    #[error("a {kind} part of 1 to {} bytes was expected", kind.max_report_bytes())]
    ReportSize {
        /// The kind of the part.
        kind: EvidenceKind,
    },
}

impl ParseEvidenceError {
    /// Stable code, as in a [`Refusal`].
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "evidence.too-long",
            Self::Malformed { .. } => "evidence.malformed",
            Self::Version => "evidence.version",
            Self::NotCanonical => "evidence.not-canonical",
            Self::Shape(_) => "evidence.binding-shape",
            Self::PathTooLong => "evidence.path-too-long",
            Self::PartCount => "evidence.part-count",
            Self::ReportSize { .. } => "evidence.report-size",
        }
    }
}

impl From<ParseEvidenceError> for Refusal {
    fn from(error: ParseEvidenceError) -> Self {
        let remedy = "send evidence as the node's agent of this version makes it (specs/evidence.md)";
        Self::new(Party::Node, error.code(), error.to_string(), remedy)
    }
}

impl Evidence {
    /// Reads evidence. Accepts at most [`MAX_EVIDENCE_BYTES`] ([`MAX_EVIDENCE_WITH_LOGS_BYTES`] where a part is a log), no
    /// unknown field, no second encoding.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseEvidenceError> {
        let within = |max_bytes| match bytes.len() {
            found_bytes if found_bytes > max_bytes => Err(ParseEvidenceError::TooLong { found_bytes, max_bytes }),
            _ => Ok(()),
        };
        within(MAX_EVIDENCE_WITH_LOGS_BYTES)?;
        let malformed = |at_column| ParseEvidenceError::Malformed { at_column };
        // Without a log that can be read, the shorter bound holds whatever else there may be in the bytes.
        let wire: WireEvidence<'_> = serde_json::from_slice(bytes)
            .map_err(|error| within(MAX_EVIDENCE_BYTES).err().unwrap_or_else(|| malformed(error.column())))?;
        within(max_evidence_bytes(wire.parts.iter().map(|part| part.kind)))?;
        if wire.version != EVIDENCE_VERSION || wire.binding.version != BINDING_VERSION {
            return Err(ParseEvidenceError::Version);
        }
        if wire.batch_path.len() > MAX_PATH_LEN {
            return Err(ParseEvidenceError::PathTooLong);
        }
        if wire.parts.is_empty() || wire.parts.len() > MAX_PARTS {
            return Err(ParseEvidenceError::PartCount);
        }
        // One encoding: writing what was read must give the same bytes.
        if !is_encoding_of(&wire, bytes) {
            return Err(ParseEvidenceError::NotCanonical);
        }
        let parts = wire.parts.iter().map(WirePart::read).collect::<Result<_, _>>()?;
        let binding = wire.binding.read().ok_or(malformed(0))?;
        binding.check_shape()?;
        Ok(Self {
            digest: digest_of(bytes),
            size_bytes: bytes.len(),
            binding,
            path: wire.batch_path.into_iter().map(PathStep::from).collect(),
            posture: wire.posture,
            parts,
        })
    }

    /// SHA-256 of the exact bytes: the name of this evidence in releases, grants, the log and receipts, as for every statement.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Length of the bytes it was read from.
    /// The report key that it names, unverified.
    #[must_use]
    pub const fn claimed_report_key(&self) -> Option<PublicKey> {
        self.binding.report_key
    }

    /// Bytes of it.
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}

/// Evidence cannot be encoded; each is a mistake of the attesting side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BuildEvidenceError {
    /// The binding's fields do not suit its purpose.
    #[error(transparent)]
    Shape(#[from] BindingShapeError),
    /// The binding names another posture than the one given.
    #[error("the binding names another posture than the one given")]
    Posture,
    /// The path is longer than [`MAX_PATH_LEN`].
    #[error("a batch path of more than {MAX_PATH_LEN} steps")]
    PathTooLong,
    /// No parts, or more than [`MAX_PARTS`].
    #[error("evidence carries 1 to {MAX_PARTS} parts")]
    PartCount,
    /// A report is empty or longer than its kind may be, or all together exceed [`MAX_EVIDENCE_BYTES`] (with logs
    /// [`MAX_EVIDENCE_WITH_LOGS_BYTES`]).
    #[error("the reports do not fit into evidence")]
    ReportSize,
}

/// Puts evidence together on the attesting side.
#[derive(Debug, Clone)]
pub struct EvidenceBuilder {
    binding: Binding,
    path: Vec<PathStep>,
    posture: Posture,
    parts: Vec<Part>,
}

impl EvidenceBuilder {
    /// Evidence for `binding`, which stands at the end of `path` in its batch, under `posture`.
    pub fn new(binding: Binding, path: Vec<PathStep>, posture: Posture) -> Self {
        Self { binding, path, posture, parts: Vec::new() }
    }

    /// Adds the report of one device.
    #[must_use]
    pub fn part(mut self, kind: EvidenceKind, report: impl Into<Vec<u8>>) -> Self {
        self.parts.push(Part { kind, report: report.into() });
        self
    }

    /// The one encoding.
    pub fn encode(&self) -> Result<Vec<u8>, BuildEvidenceError> {
        self.binding.check_shape()?;
        if self.binding.posture != self.posture.digest() {
            return Err(BuildEvidenceError::Posture);
        }
        if self.path.len() > MAX_PATH_LEN {
            return Err(BuildEvidenceError::PathTooLong);
        }
        if self.parts.is_empty() || self.parts.len() > MAX_PARTS {
            return Err(BuildEvidenceError::PartCount);
        }
        if self.parts.iter().any(|p| p.report.is_empty() || p.report.len() > p.kind.max_report_bytes()) {
            return Err(BuildEvidenceError::ReportSize);
        }
        let wire = WireEvidence {
            version: EVIDENCE_VERSION,
            binding: WireBinding::write(&self.binding),
            batch_path: self.path.iter().copied().map(WireStep::from).collect(),
            posture: self.posture.clone(),
            parts: self
                .parts
                .iter()
                .map(|p| WirePart { kind: p.kind, report: BASE64.encode(&p.report).into() })
                .collect(),
        };
        let max_bytes = max_evidence_bytes(self.parts.iter().map(|part| part.kind));
        encode_wire(&wire).filter(|bytes| bytes.len() <= max_bytes).ok_or(BuildEvidenceError::ReportSize)
    }
}

// The form on the wire. Field order here is field order in the one encoding.

type Text<'a> = std::borrow::Cow<'a, str>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEvidence<'a> {
    version: u32,
    #[serde(borrow)]
    binding: WireBinding<'a>,
    batch_path: Vec<WireStep>,
    posture: Posture,
    #[serde(borrow)]
    parts: Vec<WirePart<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireBinding<'a> {
    version: u32,
    network: NetworkId,
    challenge: Challenge,
    purpose: WirePurpose,
    #[serde(deserialize_with = "present")]
    spec: Option<Digest>,
    node: NodeId,
    #[serde(deserialize_with = "present")]
    attempt: Option<Attempt>,
    boot: BootId,
    #[serde(borrow, deserialize_with = "present")]
    task_key: Option<WireTaskKey<'a>>,
    #[serde(deserialize_with = "present")]
    report_key: Option<PublicKey>,
    agent_key: PublicKey,
    tls_key: PublicKey,
    #[serde(borrow, deserialize_with = "present")]
    ak_name: Option<Text<'a>>,
    posture: Digest,
    #[serde(deserialize_with = "present")]
    subject: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTaskKey<'a> {
    suite: WireSuite,
    #[serde(borrow)]
    public: Text<'a>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum WireSuite {
    #[serde(rename = "xwing-hkdf-sha256-aes-256-gcm")]
    XWingSha256Aes256Gcm,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WirePurpose {
    Task,
    ClosingTask,
    Broker,
    Admission,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireStep {
    side: WireSide,
    sibling: Digest,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WireSide {
    Left,
    Right,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePart<'a> {
    kind: EvidenceKind,
    #[serde(borrow)]
    report: Text<'a>,
}

/// An optional field that must be written out, `null` where it is absent: without this attribute serde takes a
/// missing one for `None`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// Whether writing this gives exactly these bytes. Nothing is kept of what is written, however long it is.
fn is_encoding_of(wire: &WireEvidence<'_>, bytes: &[u8]) -> bool {
    struct Compare<'a>(&'a [u8]);
    impl std::io::Write for Compare<'_> {
        fn write(&mut self, written: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.strip_prefix(written).ok_or(std::io::ErrorKind::InvalidData)?;
            Ok(written.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut compare = Compare(bytes);
    serde_json::to_writer(&mut compare, wire).is_ok() && compare.0.is_empty()
}

/// `None` cannot happen with these types; a verifier answers it with a refusal rather than a panic all the same.
fn encode_wire(wire: &WireEvidence<'_>) -> Option<Vec<u8>> {
    serde_json::to_vec(wire).ok()
}

impl<'a> WireBinding<'a> {
    fn write(binding: &Binding) -> Self {
        Self {
            version: BINDING_VERSION,
            network: binding.network,
            challenge: binding.challenge,
            purpose: match binding.purpose {
                Purpose::Task => WirePurpose::Task,
                Purpose::ClosingTask => WirePurpose::ClosingTask,
                Purpose::Broker => WirePurpose::Broker,
                Purpose::Admission => WirePurpose::Admission,
            },
            spec: binding.spec,
            node: binding.node,
            attempt: binding.attempt,
            boot: binding.boot,
            task_key: binding.task_key.as_ref().map(|key| WireTaskKey {
                suite: match key.suite() {
                    Suite::XWingSha256Aes256Gcm => WireSuite::XWingSha256Aes256Gcm,
                },
                public: BASE64.encode(key.as_bytes()).into(),
            }),
            report_key: binding.report_key,
            agent_key: binding.agent_key,
            tls_key: binding.tls_key,
            ak_name: binding.ak_name.as_ref().map(|name| HEXLOWER.encode(name.as_bytes()).into()),
            posture: binding.posture,
            subject: binding.subject,
        }
    }

    fn read(self) -> Option<Binding> {
        let task_key = match self.task_key {
            None => None,
            Some(key) => {
                let WireSuite::XWingSha256Aes256Gcm = key.suite;
                let public = BASE64.decode(key.public.as_bytes()).ok()?;
                Some(TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, &public)?)
            }
        };
        let ak_name = match self.ak_name {
            None => None,
            Some(name) => Some(AkName::from_bytes(&HEXLOWER.decode(name.as_bytes()).ok()?)?),
        };
        Some(Binding {
            network: self.network,
            challenge: self.challenge,
            purpose: match self.purpose {
                WirePurpose::Task => Purpose::Task,
                WirePurpose::ClosingTask => Purpose::ClosingTask,
                WirePurpose::Broker => Purpose::Broker,
                WirePurpose::Admission => Purpose::Admission,
            },
            spec: self.spec,
            node: self.node,
            attempt: self.attempt,
            boot: self.boot,
            task_key,
            report_key: self.report_key,
            agent_key: self.agent_key,
            tls_key: self.tls_key,
            ak_name,
            posture: self.posture,
            subject: self.subject,
        })
    }
}

impl WirePart<'_> {
    fn read(&self) -> Result<Part, ParseEvidenceError> {
        let report =
            BASE64.decode(self.report.as_bytes()).map_err(|_| ParseEvidenceError::Malformed { at_column: 0 })?;
        if report.is_empty() || report.len() > self.kind.max_report_bytes() {
            return Err(ParseEvidenceError::ReportSize { kind: self.kind });
        }
        Ok(Part { kind: self.kind, report })
    }
}

impl From<PathStep> for WireStep {
    fn from(step: PathStep) -> Self {
        let side = match step.side {
            Side::Left => WireSide::Left,
            Side::Right => WireSide::Right,
        };
        Self { side, sibling: step.sibling }
    }
}

impl From<WireStep> for PathStep {
    fn from(step: WireStep) -> Self {
        let side = match step.side {
            WireSide::Left => Side::Left,
            WireSide::Right => Side::Right,
        };
        Self { side, sibling: step.sibling }
    }
}
