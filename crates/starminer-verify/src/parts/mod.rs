//! Parts: which may stand together, and how each kind is verified.
//!
//! One binding goes through all of them: report data of a TEE, qualifying data of a TPM and nonce of a GPU are the same 32 bytes, and a
//! part that has others refuses the whole. Everything that costs nothing is compared before the first signature is looked at. The
//! signatures, chains and replays themselves are `starminer-hardware`'s; this module says what they are about. Source:
//! `specs/evidence.md`, sections "Parts" and "Verification".

mod encoding;
mod gpu;
mod intel;
mod sev_snp;
mod tpm;

use std::collections::BTreeSet;

use starminer_hardware::cert::{self, Certificate, Crl};
use starminer_hardware::{self as hardware, Checks};

pub use encoding::{GpuArchitecture, GpuPart, PartError, SevSnpPart, TpmPart};
pub use gpu::GpuClaims;
pub use intel::{SgxClaims, TdxClaims};
pub use sev_snp::SevSnpClaims;
pub(crate) use tpm::endorsement_key;
pub use tpm::{BootLog, ImaClaims, TpmClaims, boot_component, pcr_measurement};

use crate::binding::Binding;
use crate::check::{Check, Verdict, Weight};
use crate::evidence::{EvidenceKind, Part};
use crate::refusal::{Party, Refusal};
use crate::software_tee;
use crate::trust::{Provenance, SimulatedRootId, TrustAnchors};
use crate::types::{Digest, UnixTime};
use crate::verify::{Context, DeviceClaims};

/// The parts of one evidence by what they are. Only sets that belong together become one.
pub(crate) struct PartSet<'a> {
    tee: Option<&'a Part>,
    tpm: Option<&'a Part>,
    uefi_log: Option<&'a [u8]>,
    cc_log: Option<&'a [u8]>,
    ima_log: Option<&'a [u8]>,
    gpus: Vec<&'a [u8]>,
}

impl<'a> PartSet<'a> {
    /// A part that is not called for refuses, so that nothing rides along unverified.
    pub(crate) fn new(parts: &'a [Part]) -> Result<Self, Refusal> {
        if !parts.is_sorted_by_key(|part| part.kind) {
            return Err(not_a_set("the parts are not in the order of their kinds"));
        }
        let mut set = Self { tee: None, tpm: None, uefi_log: None, cc_log: None, ima_log: None, gpus: Vec::new() };
        for part in parts {
            let bytes = part.report.as_slice();
            let before = match part.kind {
                EvidenceKind::SoftwareTee | EvidenceKind::SevSnp | EvidenceKind::Tdx | EvidenceKind::Sgx => {
                    set.tee.replace(part).is_some()
                }
                EvidenceKind::Tpm => set.tpm.replace(part).is_some(),
                EvidenceKind::UefiLog => set.uefi_log.replace(bytes).is_some(),
                EvidenceKind::CcLog => set.cc_log.replace(bytes).is_some(),
                EvidenceKind::ImaLog => set.ima_log.replace(bytes).is_some(),
                EvidenceKind::NvidiaGpu => {
                    set.gpus.push(bytes);
                    false
                }
            };
            if before {
                return Err(not_a_set("there is more than one CPU TEE, or more than one of a kind that stands alone"));
            }
        }
        let rules = [
            (set.tee.is_some() || set.tpm.is_some(), "there is neither a CPU TEE nor a TPM"),
            (set.tpm.is_some() || set.uefi_log.is_none(), "a uefi-log without the TPM that it is of"),
            (set.tpm.is_some() || set.ima_log.is_none(), "an ima-log without the TPM that it is of"),
            (
                set.cc_log.is_none() || set.tee.is_some_and(|tee| tee.kind == EvidenceKind::Tdx),
                "a cc-log without the trust domain that it is of",
            ),
            (set.gpus.is_empty() || set.tee.is_some(), "a GPU without the CPU TEE that drives it"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, reason)) => Err(not_a_set(reason)),
            None => Ok(set),
        }
    }
}

fn not_a_set(reason: &'static str) -> Refusal {
    let remedy = "send exactly the parts that specs/evidence.md lists together, in their order";
    Refusal::new(Party::Node, "evidence.part-set", reason, remedy)
}

/// What one verification found out about all parts.
pub(crate) struct Devices {
    /// The CPU TEE, or else the TPM.
    pub(crate) device: DeviceClaims,
    /// The TPM beside a CPU TEE.
    pub(crate) tpm: Option<Box<TpmClaims>>,
    pub(crate) gpus: Option<Box<GpuClaims>>,
    /// When all of what was relied upon counts.
    pub(crate) windows: Vec<Window>,
}

/// When something that was relied upon counts. Seconds since 1970, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) what: &'static str,
    pub(crate) from_s: i64,
    pub(crate) until_s: i64,
}

impl Window {
    /// Of something that counts always, to be narrowed.
    pub(crate) const fn of(what: &'static str) -> Self {
        Self { what, from_s: i64::MIN, until_s: i64::MAX }
    }

    pub(crate) fn narrowed(self, from_s: i64, until_s: i64) -> Self {
        Self { what: self.what, from_s: self.from_s.max(from_s), until_s: self.until_s.min(until_s) }
    }

    /// While all of these certificates are valid, and all lists by one of them or by whoever issued one of them.
    pub(crate) fn of_chains<'c>(
        what: &'static str,
        certificates: impl IntoIterator<Item = &'c Certificate>,
        crls: &[Crl],
    ) -> Self {
        let mut window = Self::of(what);
        let mut names = BTreeSet::new();
        for certificate in certificates {
            window = window.narrowed(certificate.not_before_s(), certificate.not_after_s());
            names.extend([certificate.subject(), certificate.issuer()]);
        }
        for list in crls.iter().filter(|list| names.contains(list.issuer())) {
            window = window.narrowed(list.this_update_s(), list.next_update_s().unwrap_or(i64::MIN));
        }
        window
    }

    pub(crate) fn check(&self, now: UnixTime) -> Result<(), Refusal> {
        let now_s = i64::try_from(now.as_seconds()).unwrap_or(i64::MAX);
        if (self.from_s..=self.until_s).contains(&now_s) {
            return Ok(());
        }
        let Self { what, from_s, until_s } = self;
        Err(Refusal::new(
            Party::Node,
            "evidence.certificate-dates",
            format!("{what} count from {from_s} to {until_s} s, not at {now_s}"),
            "have the device certified again, fetch newer endorsements, or set the verifier's clock right",
        ))
    }
}

/// A part whose form was checked and that says to be over the batch.
enum ParsedTee<'a> {
    Software(&'a [u8]),
    SevSnp(sev_snp::Parsed),
    Tdx(intel::Parsed),
    Sgx(intel::Parsed),
}

/// Verifies all parts: form and binding of each first, signatures after.
pub(crate) fn verify_parts(
    parts: &[Part],
    report_data: &Digest,
    binding: &Binding,
    context: &Context<'_>,
    checks: &mut Vec<Check>,
) -> Result<Devices, Refusal> {
    let set = PartSet::new(parts)?;
    let tee = set.tee.map(|part| ParsedTee::parse(part, report_data)).transpose()?;
    let tpm = set.tpm.map(|part| tpm::Parsed::new(&part.report, report_data, binding)).transpose()?;
    let gpus = gpu::Parsed::new(&set.gpus, report_data)?;

    let mut windows = Vec::new();
    let device = match tee {
        None => None,
        Some(ParsedTee::Software(report)) => {
            let anchors = context.trust_anchors;
            let claims = software_tee::verify_report(report, report_data, &binding.boot, anchors, context.now)?;
            software_tee_passes(checks);
            Some(DeviceClaims::SoftwareTee(claims))
        }
        Some(ParsedTee::SevSnp(parsed)) => {
            Some(DeviceClaims::SevSnp(parsed.verify(context, report_data, checks, &mut windows)?))
        }
        Some(ParsedTee::Tdx(parsed)) => {
            Some(DeviceClaims::Tdx(parsed.verify_tdx(set.cc_log, context, report_data, checks, &mut windows)?))
        }
        Some(ParsedTee::Sgx(parsed)) => {
            Some(DeviceClaims::Sgx(parsed.verify_sgx(context, report_data, checks, &mut windows)?))
        }
    };
    let tpm = match tpm {
        None => None,
        Some(parsed) => {
            let logs = tpm::Logs { uefi: set.uefi_log, ima: set.ima_log };
            Some(Box::new(parsed.verify(logs, report_data, binding, context, checks, &mut windows)?))
        }
    };
    let gpus = match gpus {
        None => None,
        Some(parsed) => Some(Box::new(parsed.verify(report_data, context, checks, &mut windows)?)),
    };
    let (device, tpm) = match (device, tpm) {
        (Some(device), tpm) => (device, tpm),
        (None, Some(tpm)) => (DeviceClaims::Tpm(tpm), None),
        (None, None) => return Err(not_a_set("there is neither a CPU TEE nor a TPM")),
    };
    Ok(Devices { device, tpm, gpus, windows })
}

impl<'a> ParsedTee<'a> {
    fn parse(part: &'a Part, report_data: &Digest) -> Result<Self, Refusal> {
        match part.kind {
            EvidenceKind::SoftwareTee => Ok(Self::Software(&part.report)),
            EvidenceKind::SevSnp => sev_snp::Parsed::new(&part.report, report_data).map(Self::SevSnp),
            EvidenceKind::Tdx => intel::Parsed::new(part.kind, &part.report, report_data).map(Self::Tdx),
            EvidenceKind::Sgx => intel::Parsed::new(part.kind, &part.report, report_data).map(Self::Sgx),
            EvidenceKind::Tpm
            | EvidenceKind::UefiLog
            | EvidenceKind::CcLog
            | EvidenceKind::ImaLog
            | EvidenceKind::NvidiaGpu => Err(not_a_set("a part that is no CPU TEE stands in its place")),
        }
    }
}

/// What a software TEE's verification has found to hold, where it returned claims.
fn software_tee_passes(checks: &mut Vec<Check>) {
    for (name, reason) in [
        ("evidence.report-data", "the device signed the batch that this binding is in"),
        ("evidence.report-boot", "the device reports the start of the agent that the binding names"),
        ("evidence.certificate-dates", "the device certificate is valid at the time given"),
        ("evidence.certificate-signature", "the root signed the device certificate"),
        ("evidence.report-signature", "the device signed the report"),
    ] {
        checks.push(Check::pass(name, reason));
    }
}

const REMEDY_DATA: &str = "have every device sign this very binding";

/// The 32 bytes of the batch; in the longer field of a TEE, zeros behind them.
fn check_report_data(kind: EvidenceKind, signed: &[u8], report_data: &Digest) -> Result<(), Refusal> {
    let padding = |rest: &[u8]| if kind.is_cpu_tee() { rest.iter().all(|byte| *byte == 0) } else { rest.is_empty() };
    match signed.split_at_checked(Digest::LEN) {
        Some((data, rest)) if data == report_data.as_bytes() && padding(rest) => Ok(()),
        _ => {
            let reason = format!("the {kind} signed another batch than the one this binding is in");
            Err(Refusal::new(Party::Node, "evidence.report-data", reason, REMEDY_DATA))
        }
    }
}

/// Of a check that holds: which device signed the batch.
fn report_data_passes(kind: EvidenceKind, checks: &mut Vec<Check>) {
    let reason = format!("the {kind} signed the batch that this binding is in");
    checks.push(Check::pass("evidence.report-data", reason));
}

pub(crate) fn malformed(kind: EvidenceKind, error: impl std::fmt::Display) -> Refusal {
    let remedy = "send the part as the node's device made it (specs/evidence.md)";
    Refusal::new(Party::Node, "evidence.report-format", format!("{kind}: {error}"), remedy)
}

/// The roots that count for one sort: the makers', and of the certificates at hand those that issue themselves and that the anchors name.
fn named_roots<'c>(
    mut roots: cert::Roots,
    candidates: impl IntoIterator<Item = &'c Certificate>,
    anchors: &TrustAnchors,
    sort: fn(Digest) -> SimulatedRootId,
) -> cert::Roots {
    for candidate in candidates {
        if issues_itself(candidate) && anchors.names(&sort(Digest(candidate.fingerprint()))) {
            roots.add(candidate.clone());
        }
    }
    roots
}

fn issues_itself(certificate: &Certificate) -> bool {
    certificate.subject() == certificate.issuer()
}

/// Evidence that brings along a root which nobody knows is refused for that, before a chain is looked at.
fn refuse_unknown_roots<'c>(
    certificates: impl IntoIterator<Item = &'c Certificate>,
    roots: &cert::Roots,
    sort: fn(Digest) -> SimulatedRootId,
) -> Result<(), Refusal> {
    let known = |certificate: &Certificate| roots.iter().any(|(root, _)| root == certificate);
    match certificates.into_iter().find(|certificate| issues_itself(certificate) && !known(certificate)) {
        None => Ok(()),
        Some(root) => Err(software_tee::unknown_root(&sort(Digest(root.fingerprint())))),
    }
}

/// Provenance as the spine knows it.
pub(crate) fn provenance_of(provenance: cert::Provenance, sort: fn(Digest) -> SimulatedRootId) -> Provenance {
    match provenance {
        cert::Provenance::Genuine => Provenance::Genuine,
        cert::Provenance::Simulated { root } => Provenance::Simulated { root: sort(Digest(root)) },
    }
}

fn seconds(now: UnixTime) -> u64 {
    now.as_seconds()
}

/// What to do about a check of a device that does not hold.
const REMEDY_DEVICE: &str =
    "see the check in specs/hardware.md: make new evidence, update the device, or fetch what it names";

/// Takes checks of a device over into those of the evidence; weights stay, or become those given.
pub(crate) fn adopt(checks: &mut Vec<Check>, found: &Checks, weight_of_required: Weight) {
    checks.extend(found.as_slice().iter().map(|check| Check {
        name: check.name.clone(),
        verdict: verdict_of(check.verdict),
        weight: match check.weight {
            hardware::Weight::Required => weight_of_required,
            hardware::Weight::Informative => Weight::Informative,
        },
        reason: check.reason.clone(),
        party: party_of(check.verdict),
        remedy: if check.verdict == hardware::Verdict::Pass { "" } else { REMEDY_DEVICE }.into(),
    }));
}

pub(crate) const fn verdict_of(verdict: hardware::Verdict) -> Verdict {
    match verdict {
        hardware::Verdict::Pass => Verdict::Pass,
        hardware::Verdict::Fail => Verdict::Fail,
        hardware::Verdict::NotChecked => Verdict::NotChecked,
    }
}

/// What could not be checked was not given by whoever verifies: endorsements, reference values, policy.
const fn party_of(verdict: hardware::Verdict) -> Party {
    match verdict {
        hardware::Verdict::NotChecked => Party::Verifier,
        hardware::Verdict::Pass | hardware::Verdict::Fail => Party::Node,
    }
}

/// Of a verification that came to nothing: the first required check that failed, else the first that could not be made.
pub(crate) fn refuse(kind: EvidenceKind, checks: &Checks) -> Refusal {
    let required = || checks.as_slice().iter().filter(|check| check.weight == hardware::Weight::Required);
    let first = |verdict| required().find(move |check| check.verdict == verdict);
    match first(hardware::Verdict::Fail).or_else(|| first(hardware::Verdict::NotChecked)) {
        Some(check) => {
            let reason = format!("{kind}: {}", check.reason);
            Refusal::new(party_of(check.verdict), check.name.clone(), reason, REMEDY_DEVICE)
        }
        None => malformed(kind, "nothing of it could be verified"),
    }
}

/// Takes over the checks of a verification that holds, or refuses.
fn verified<T>(kind: EvidenceKind, found: Option<T>, made: &Checks, checks: &mut Vec<Check>) -> Result<T, Refusal> {
    let Some(found) = found.filter(|_| made.hold()) else { return Err(refuse(kind, made)) };
    adopt(checks, made, Weight::Required);
    Ok(found)
}
