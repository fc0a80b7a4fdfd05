//! Evidence of one or several GPUs, as NVIDIA's tools serialize it: JSON with one object a GPU.
//!
//! Two shapes are read: an array of objects with `arch`, `certificate`, `evidence` and `nonce`, and an object with `arch`, `nonce` and `evidence_list` (what
//! NVIDIA's remote service is sent). `certificate` is the base64 of PEM, the attestation certificate first; `evidence` the base64 of the
//! report. Members that are not known are passed over: nothing of the JSON is signed, and what is read from it is held against the report.

use std::fmt;
use std::marker::PhantomData;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::spdm::{NONCE_LEN, Report};
use crate::cert::{Certificate, CertificateError};

/// The longest evidence that is read. That of one GPU has about 13 KiB.
pub const MAX_LEN: usize = 320 * 1024;
/// Most GPUs in it.
pub const MAX_GPUS: usize = 16;
/// Most certificates of one GPU. Real chains have five, the root included.
pub const MAX_CERTIFICATES: usize = 8;

/// Why bytes are no evidence that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A part is longer than any real one.
    #[error("{what} exceeds {limit}")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// The most that is read.
        limit: usize,
    },
    /// It is no JSON of the expected shape.
    #[error("the evidence is not JSON of the expected shape (line {line}, column {column})")]
    Json {
        /// Where it goes wrong, from 1.
        line: usize,
        /// Where it goes wrong, from 1.
        column: usize,
    },
    /// There is no GPU in it.
    #[error("the evidence holds no GPU")]
    Empty,
    /// A GPU of a kind whose evidence has another form, or which is not known.
    #[error("the architecture is not one that is supported (HOPPER, BLACKWELL)")]
    Architecture,
    /// A member is not encoded as it should be.
    #[error("{member} is not {expected}")]
    Encoding {
        /// The JSON member.
        member: &'static str,
        /// How it should be encoded.
        expected: &'static str,
    },
    /// The certificates cannot be read.
    #[error("the certificates cannot be read")]
    Certificates(#[from] CertificateError),
    /// The report is not of the expected form.
    #[error("the report does not have the expected form: {field}: {problem}")]
    Report {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A field of the report's opaque data is not of the expected form.
    #[error("the report's opaque field {kind} does not have the expected form: {problem}")]
    Opaque {
        /// The type of the field.
        kind: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl ParseError {
    /// A stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "evidence-too-large",
            Self::Json { .. } => "evidence-json",
            Self::Empty => "evidence-empty",
            Self::Architecture => "evidence-architecture",
            Self::Encoding { .. } => "evidence-encoding",
            Self::Certificates(_) => "evidence-certificates",
            Self::Report { .. } => "evidence-report",
            Self::Opaque { .. } => "evidence-opaque-data",
        }
    }
}

/// A family of GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// GH100.
    Hopper,
    /// GB100 and its like.
    Blackwell,
}

impl Architecture {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hopper => "hopper",
            Self::Blackwell => "blackwell",
        }
    }

    /// Whether a chip of this name is of this family.
    pub(super) fn has_chip(self, chip: &str) -> bool {
        match self {
            Self::Hopper => chip == "GH100",
            Self::Blackwell => chip.starts_with("GB1") || chip.starts_with("GB2"),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "HOPPER" => Some(Self::Hopper),
            "BLACKWELL" => Some(Self::Blackwell),
            _ => None,
        }
    }
}

/// Parsed evidence: nothing of it is believed yet, and nothing can be read of it.
#[derive(Debug, Clone)]
pub struct Evidence {
    pub(super) gpus: Vec<Gpu>,
}

/// The evidence of one GPU.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    pub architecture: Architecture,
    pub certificates: Vec<Certificate>,
    pub report: Report,
    /// The nonce that the JSON says was asked with.
    pub stated_nonce: [u8; NONCE_LEN],
    /// Versions that the JSON states beside the report.
    pub stated_driver: Option<String>,
    pub stated_vbios: Option<String>,
}

#[derive(serde::Deserialize)]
struct Entry {
    arch: String,
    certificate: String,
    evidence: String,
    nonce: String,
    driver_version: Option<String>,
    vbios_version: Option<String>,
}

#[derive(serde::Deserialize)]
struct Request {
    arch: String,
    nonce: String,
    evidence_list: Bounded<Item>,
}

#[derive(serde::Deserialize)]
struct Item {
    certificate: String,
    evidence: String,
}

/// A list of which no more is kept than one too many: enough for the caller to see that there are too many.
struct Bounded<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Bounded<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bounded<T>, A::Error> {
                let mut kept = Vec::new();
                while let Some(item) = list.next_element()? {
                    kept.push(item);
                    if kept.len() > MAX_GPUS {
                        while list.next_element::<IgnoredAny>()?.is_some() {}
                        break;
                    }
                }
                Ok(Bounded(kept))
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

impl Evidence {
    /// Reads evidence.
    ///
    /// # Errors
    /// [`ParseError`] says what does not have the expected form.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_LEN {
            return Err(ParseError::TooLarge { what: "evidence (bytes)", limit: MAX_LEN });
        }
        let entries = entries(bytes)?;
        if entries.is_empty() {
            return Err(ParseError::Empty);
        }
        if entries.len() > MAX_GPUS {
            return Err(ParseError::TooLarge { what: "evidence (GPUs)", limit: MAX_GPUS });
        }
        let gpus = entries.into_iter().map(Gpu::parse).collect::<Result<_, _>>()?;
        Ok(Self { gpus })
    }

    /// How many GPUs it is of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gpus.len()
    }

    /// The nonces that the reports were asked with, as they stand, unverified: cheap to compare before anything is verified.
    pub fn unverified_nonces(&self) -> impl Iterator<Item = &[u8; NONCE_LEN]> {
        self.gpus.iter().map(|gpu| &gpu.report.request_nonce)
    }

    /// The versions of driver and VBIOS that reports state, unverified, in lower case: which manifests to look for.
    pub fn unverified_versions(&self) -> impl Iterator<Item = String> {
        let stated = |gpu: &Gpu| {
            let opaque = &gpu.report.opaque;
            [&opaque.driver_version, &opaque.vbios_version]
                .into_iter()
                .flatten()
                .map(|v| v.to_ascii_lowercase())
                .collect::<Vec<_>>()
        };
        self.gpus.iter().flat_map(stated)
    }

    /// Never: evidence of no GPU does not parse.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gpus.is_empty()
    }
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, ParseError> {
    let json = |error: serde_json::Error| ParseError::Json { line: error.line(), column: error.column() };
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return serde_json::from_slice(bytes).map(|Bounded(entries)| entries).map_err(json);
    }
    let request: Request = serde_json::from_slice(bytes).map_err(json)?;
    let entry = |item: Item| Entry {
        arch: request.arch.clone(),
        certificate: item.certificate,
        evidence: item.evidence,
        nonce: request.nonce.clone(),
        driver_version: None,
        vbios_version: None,
    };
    Ok(request.evidence_list.0.into_iter().map(entry).collect())
}

impl Gpu {
    fn parse(entry: Entry) -> Result<Self, ParseError> {
        let encoding = |member, expected| ParseError::Encoding { member, expected };
        let architecture = Architecture::parse(&entry.arch).ok_or(ParseError::Architecture)?;
        let nonce = HEXLOWER_PERMISSIVE.decode(entry.nonce.as_bytes()).ok().and_then(|nonce| nonce.try_into().ok());
        let stated_nonce = nonce.ok_or_else(|| encoding("nonce", "32 bytes in hexadecimal"))?;
        let report =
            BASE64.decode(entry.evidence.as_bytes()).map_err(|_| encoding("evidence", "base64 without line breaks"))?;
        let report = Report::parse(&report)?;
        let pem = BASE64
            .decode(entry.certificate.as_bytes())
            .map_err(|_| encoding("certificate", "base64 without line breaks"))?;
        let certificates = Certificate::read(&pem)?;
        if certificates.len() > MAX_CERTIFICATES {
            return Err(ParseError::TooLarge { what: "certificate chain", limit: MAX_CERTIFICATES });
        }
        Ok(Self {
            architecture,
            certificates,
            report,
            stated_nonce,
            stated_driver: entry.driver_version,
            stated_vbios: entry.vbios_version,
        })
    }
}
