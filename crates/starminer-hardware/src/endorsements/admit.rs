//! What every endorsement has to show before it is kept: that its maker, or a root that the caller named, signed it, that its dates hold, and that it
//! is about what it was asked for.

mod amd;
mod intel;
mod others;

pub(super) use intel::{File, hex, pem};

use super::{
    item::{Candidate, Facts, Item, MAX_OBJECT_BYTES, MAX_SOURCE_BYTES, Number, Object, Parsed, Trust, sha256},
    key::Key,
    snapshot::{Mark, Snapshot},
};
use crate::{
    Checks, Verdict, Weight,
    cert::{Certificate, Chain, Crl, Provenance},
    dcap::MAX_ENDORSEMENTS_LEN,
};

/// Why an endorsement is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Larger than is read.
    #[error("it is larger than {most} bytes")]
    TooLarge {
        /// The bound.
        most: usize,
    },
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// It is genuine, and about something else.
    #[error("it is about something else: {0}")]
    OtherThanAsked(String),
    /// Signature, chain or dates do not hold.
    #[error("it does not verify: {0}")]
    Unverified(String),
    /// It says that it was had after now.
    #[error("it is said to have been fetched at {fetched_s}, after now ({now_s})")]
    FromTheFuture {
        /// Seconds since 1970.
        fetched_s: u64,
        /// Seconds since 1970.
        now_s: u64,
    },
    /// It goes back behind what is known.
    #[error("{what} went back from {known} to {offered}: whoever gave it holds back the newer one")]
    Rollback {
        /// Of what.
        what: &'static str,
        /// What is known.
        known: String,
        /// What it has.
        offered: String,
    },
    /// A revocation list of another issuer than the one known under the name.
    #[error("it is by another issuer than the list that is known")]
    OtherIssuer,
    /// No room.
    #[error("there are as many endorsements, or bytes of them, as are kept")]
    Full,
}

impl Refusal {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "endorsement.too-large",
            Self::Malformed(_) => "endorsement.malformed",
            Self::OtherThanAsked(_) => "endorsement.other-than-asked",
            Self::Unverified(_) => "endorsement.unverified",
            Self::FromTheFuture { .. } => "endorsement.from-the-future",
            Self::Rollback { .. } => "endorsement.rollback",
            Self::OtherIssuer => "endorsement.other-issuer",
            Self::Full => "endorsement.full",
        }
    }
}

/// What was found in a candidate, in the form in which it is kept.
struct Found {
    content: Vec<u8>,
    chain: Option<Vec<u8>>,
    facts: Facts,
    parsed: Parsed,
}

/// Verifies a candidate. What the snapshot already has serves: authorities, and the list of the root.
pub(super) fn verify(snapshot: &Snapshot, candidate: &Candidate, trust: &Trust, now_s: u64) -> Result<Item, Refusal> {
    let chain_bytes = candidate.chain.as_ref().map_or(0, Vec::len);
    // A list in hex is twice as long as in DER.
    if candidate.content.len() > 2 * MAX_OBJECT_BYTES || chain_bytes > MAX_OBJECT_BYTES {
        return Err(Refusal::TooLarge { most: MAX_OBJECT_BYTES });
    }
    if candidate.fetched_s > now_s {
        return Err(Refusal::FromTheFuture { fetched_s: candidate.fetched_s, now_s });
    }
    if candidate.source.len() > MAX_SOURCE_BYTES || !candidate.source.bytes().all(plain) {
        return Err(Refusal::Malformed("the address it came from is no address".to_owned()));
    }
    let found = match &candidate.key {
        Key::AmdVcek { .. } | Key::AmdVlek { .. } => amd::key(snapshot, candidate, trust, now_s),
        Key::AmdChain { product, signer } => amd::chain(*product, *signer, candidate, trust, now_s),
        Key::AmdCrl { product, .. } => amd::list(*product, candidate, trust, now_s),
        Key::IntelTcbInfo { tee, fmspc } => intel::tcb_info(*tee, fmspc, snapshot, candidate, trust, now_s),
        Key::IntelQeIdentity { tee } => intel::qe_identity(*tee, snapshot, candidate, trust, now_s),
        Key::IntelPckCrl { ca } => intel::pck_list(*ca, candidate, trust, now_s),
        Key::IntelRootCrl => intel::root_list(candidate, trust, now_s),
        Key::TpmAuthority { .. } => others::tpm_authority(snapshot, candidate, trust, now_s),
        Key::TpmCrl { .. } => others::tpm_list(snapshot, candidate, trust, now_s),
        Key::NvidiaRim { id } => others::rim(id, candidate, trust, now_s),
        Key::NvidiaOcsp { issuer, serial } => others::ocsp(issuer, serial, candidate, trust, now_s),
    }?;
    if found.content.len() > MAX_OBJECT_BYTES {
        return Err(Refusal::TooLarge { most: MAX_OBJECT_BYTES });
    }
    Ok(Item {
        key: candidate.key.clone(),
        content: Object::new(&found.content),
        chain: found.chain.as_deref().map(Object::new),
        fetched_s: candidate.fetched_s,
        source: candidate.source.clone(),
        facts: found.facts,
        parsed: found.parsed,
    })
}

/// What addresses are made of, and what a bundle writes without escapes.
const fn plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')
}

/// Whether an item goes back behind what is known under its name.
pub(super) fn monotonic(item: &Item, mark: &Mark) -> Result<(), Refusal> {
    let facts = &item.facts;
    if mark.issuer.is_some() && mark.issuer != facts.issuer {
        return Err(Refusal::OtherIssuer);
    }
    if let Some(known) = &mark.number
        && facts.number.as_ref().is_none_or(|number| number < known)
    {
        let what = match item.key {
            Key::IntelTcbInfo { .. } | Key::IntelQeIdentity { .. } => "the evaluation data number",
            _ => "the revocation list's number",
        };
        let offered = facts.number.as_ref().map_or_else(|| "none".to_owned(), Number::to_string);
        return Err(Refusal::Rollback { what, known: known.to_string(), offered });
    }
    if let Some(known) = mark.issued_s
        && facts.issued_s.is_none_or(|issued_s| issued_s < known)
    {
        let offered = facts.issued_s.map_or_else(|| "none".to_owned(), |issued_s| issued_s.to_string());
        return Err(Refusal::Rollback { what: "the time of issue", known: known.to_string(), offered });
    }
    Ok(())
}

/// A time of X.509 as one after 1970.
fn seconds(at_s: i64) -> u64 {
    u64::try_from(at_s).unwrap_or(0)
}

/// Certificates, in PEM or DER.
fn certificates(bytes: &[u8]) -> Result<Vec<Certificate>, Refusal> {
    Certificate::read(bytes).map_err(|error| Refusal::Malformed(error.to_string()))
}

/// Certificates in DER, one after the other.
fn joined(certificates: &[Certificate]) -> Vec<u8> {
    certificates.iter().flat_map(|certificate| certificate.der().iter().copied()).collect()
}

/// One list in DER, PEM, or DER in hex, as caches of Intel's service give it.
fn list(bytes: &[u8]) -> Result<Crl, Refusal> {
    let malformed = |error: crate::cert::CertificateError| Refusal::Malformed(error.to_string());
    // A longer one than is read of Intel's is none of Intel's.
    let trimmed = if bytes.len() <= MAX_ENDORSEMENTS_LEN { bytes.trim_ascii() } else { &[] };
    if !trimmed.is_empty() && trimmed.iter().all(u8::is_ascii_hexdigit) {
        let der = data_encoding::HEXLOWER_PERMISSIVE
            .decode(trimmed)
            .map_err(|_| Refusal::Malformed("an odd number of hexadecimal digits".to_owned()))?;
        return Crl::from_der(&der).map_err(malformed);
    }
    let mut lists = Crl::read(bytes).map_err(malformed)?;
    match (lists.pop(), lists.is_empty()) {
        (Some(list), true) => Ok(list),
        _ => Err(Refusal::Malformed("more than one revocation list".to_owned())),
    }
}

fn list_facts(list: &Crl, provenance: Provenance) -> Facts {
    Facts {
        issued_s: Some(seconds(list.this_update_s())),
        until_s: list.next_update_s().map_or(0, seconds),
        number: list.number().map(Number::new),
        issuer: Some(sha256(list.issuer())),
        provenance,
    }
}

fn found_list(list: Crl, provenance: Provenance) -> Found {
    Found {
        content: list.der().to_vec(),
        chain: None,
        facts: list_facts(&list, provenance),
        parsed: Parsed::Crl(Box::new(list)),
    }
}

fn chain_facts(chain: &Chain) -> Facts {
    Facts {
        issued_s: None,
        until_s: seconds(chain.not_after_s()),
        number: None,
        issuer: None,
        provenance: chain.provenance(),
    }
}

fn unverified(reason: impl ToString) -> Refusal {
    Refusal::Unverified(reason.to_string())
}

/// The first required check that does not hold.
fn refuse(checks: &Checks, names: Option<&[&str]>) -> Result<(), Refusal> {
    let asked = |name: &str| names.is_none_or(|names| names.contains(&name));
    let failed = checks
        .as_slice()
        .iter()
        .find(|check| check.weight == Weight::Required && check.verdict != Verdict::Pass && asked(&check.name));
    failed.map_or(Ok(()), |check| Err(Refusal::Unverified(format!("{}: {}", check.name, check.reason))))
}
