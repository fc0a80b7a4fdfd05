//! TPM 2.0: a quote over the batch, the key that made it, the maker's word for the TPM, and the logs behind the registers.
//!
//! That the key is in that very TPM is no part of evidence: an [`Enrolment`] says so. A TPM beside a CPU TEE is the host's, and what it
//! measured is the host's boot; the guest's is in the TEE's own measurement.

use std::collections::BTreeSet;

use starminer_hardware::cert::{Certificate, Roots};
use starminer_hardware::event_log::{self, Bank, EventLog, PcrValues as LogValues, Registers};
use starminer_hardware::ima::{self, BootAggregate, Form, IMA_REGISTER, MeasurementList};
use starminer_hardware::tpm::ek::{self, EkCertificate};
use starminer_hardware::tpm::{
    self, AttestationKey, HashAlg, Parent, PcrIndex, PcrSelection, PcrValues, Public, Quote,
};

use super::{
    TpmPart, Window, check_report_data, issues_itself, malformed, named_roots, provenance_of, refuse_unknown_roots,
    report_data_passes, seconds, verified,
};
use crate::binding::{AkName, Binding};
use crate::check::Check;
use crate::endorsements::Snapshot;
use crate::enrolment::Enrolment;
use crate::evidence::EvidenceKind;
use crate::reference::Measurement;
use crate::refusal::{Party, Refusal};
use crate::trust::{Provenance, SimulatedRootId, TrustAnchors};
use crate::types::{Digest, TaggedHasher, UnixTime};
use crate::verify::Context;

const KIND: EvidenceKind = EvidenceKind::Tpm;

/// The logs that came with a quote.
#[derive(Clone, Copy)]
pub(super) struct Logs<'a> {
    pub(super) uefi: Option<&'a [u8]>,
    pub(super) ima: Option<&'a [u8]>,
}

pub(super) struct Parsed {
    quote: Quote,
    ak: AttestationKey,
    name: AkName,
    pcrs: PcrValues,
    ek: EkCertificate,
    certificates: Vec<Certificate>,
}

/// What a verified quote of a TPM claims; obtained from [`crate::Verified`] alone.
#[derive(Debug, Clone)]
pub struct TpmClaims {
    pub(crate) quote: Box<tpm::Verified>,
    pub(crate) ek: Box<ek::Verified>,
    pub(crate) enrolment: Result<Enrolment, &'static str>,
    pub(crate) boot: Option<BootLog>,
    pub(crate) ima: Option<ImaClaims>,
}

/// A log of firmware that leads to the registers that were quoted.
pub type BootLog = Box<event_log::Verified>;

/// What an IMA list says, as far as the quoted register vouches for it.
#[derive(Debug, Clone)]
pub struct ImaClaims {
    entries: usize,
    violations: usize,
    boot_aggregate: BootAggregate,
    sha1_alone: bool,
    files: BTreeSet<[u8; 32]>,
}

impl ImaClaims {
    /// Entries that the register vouches for.
    pub const fn entries(&self) -> usize {
        self.entries
    }

    /// Files that changed while they were measured.
    pub const fn violations(&self) -> usize {
        self.violations
    }

    /// Whether the first entry is of the registers that were quoted.
    pub const fn boot_aggregate(&self) -> BootAggregate {
        self.boot_aggregate
    }

    /// Whether nothing but SHA-1 vouches for the list.
    pub const fn sha1_alone(&self) -> bool {
        self.sha1_alone
    }

    /// Whether a file with this SHA-256 was measured.
    pub fn measured(&self, sha256: &[u8]) -> bool {
        sha256.try_into().is_ok_and(|digest: [u8; 32]| self.files.contains(&digest))
    }
}

impl TpmClaims {
    /// The quote: clock, counters, firmware version, PCR values.
    pub const fn quote(&self) -> &tpm::Verified {
        &self.quote
    }

    /// The certificate of the endorsement key.
    pub const fn endorsement_key(&self) -> &ek::Verified {
        &self.ek
    }

    /// The record by which attestation key and endorsement key are in one TPM, if one was given.
    pub fn enrolment(&self) -> Option<&Enrolment> {
        self.enrolment.as_ref().ok()
    }

    /// What firmware measured, where its log was given.
    pub const fn boot_log(&self) -> Option<&BootLog> {
        self.boot.as_ref()
    }

    /// What the kernel measured, where its list was given.
    pub const fn ima(&self) -> Option<&ImaClaims> {
        self.ima.as_ref()
    }

    pub(crate) fn provenance(&self) -> Provenance {
        provenance_of(self.ek.provenance(), SimulatedRootId::Tpm)
    }
}

/// What reference values of a TPM hold: the tagged hash `"starminer/tpm-pcrs/v1"` over the bank's name and then, for each of these PCRs in
/// ascending order, its number as one octet and its value. `None` where a value is missing or no PCR is named.
pub fn pcr_measurement(values: &PcrValues, bank: HashAlg, pcrs: &BTreeSet<PcrIndex>) -> Option<Digest> {
    let mut hasher = TaggedHasher::new("tpm-pcrs");
    hasher.field(bank.name().as_bytes());
    for pcr in pcrs {
        hasher.field(&[pcr.get()]).field(values.value(bank, pcr.get())?);
    }
    (!pcrs.is_empty()).then(|| hasher.finish())
}

/// What reference values of a firmware's log hold: the register as one octet and the SHA-256 digest that was extended into it. `None` where the digest has another length.
pub fn boot_component(register: u8, sha256: &[u8]) -> Option<Measurement> {
    let digest: [u8; 32] = sha256.try_into().ok()?;
    Measurement::from_bytes(&[&[register], &digest[..]].concat())
}

impl Parsed {
    /// Form, qualifying data and name of the key.
    pub(super) fn new(bytes: &[u8], report_data: &Digest, binding: &Binding) -> Result<Self, Refusal> {
        let malformed = |error: &dyn std::fmt::Display| malformed(KIND, error);
        let part = TpmPart::parse(bytes).map_err(|error| malformed(&error))?;
        one_encoding(&part).map_err(|what| malformed(&what))?;
        let quote = Quote::parse(&part.attest, &part.signature).map_err(|error| malformed(&error))?;
        check_report_data(KIND, quote.unverified_qualifying_data(), report_data)?;
        let public = Public::parse(&part.ak_public).map_err(|error| malformed(&error))?;
        let name = public.name();
        if binding.ak_name.as_ref().map(AkName::as_bytes) != Some(&name) {
            return Err(Refusal::new(
                Party::Node,
                "evidence.ak-name",
                "the binding names another TPM key than the one that quoted",
                "name the key that quotes in the binding",
            ));
        }
        let name = AkName::from_bytes(&name).ok_or_else(|| malformed(&"the key's name is too long"))?;
        let pcrs = pcr_values(&part.pcr_values, quote.selections())
            .ok_or_else(|| malformed(&"the PCR values are not those of the quote's selection, each once"))?;
        let mut certificates = Vec::with_capacity(part.ek_certificates.len());
        for der in &part.ek_certificates {
            certificates.push(Certificate::from_der(der).map_err(|error| malformed(&error))?);
        }
        let first = part.ek_certificates.first().map_or(&[][..], Vec::as_slice);
        let ek = EkCertificate::parse(first).map_err(|error| malformed(&error))?;
        Ok(Self { quote, ak: AttestationKey::Tpm(Box::new(public)), name, pcrs, ek, certificates })
    }

    pub(super) fn verify(
        self,
        logs: Logs<'_>,
        report_data: &Digest,
        binding: &Binding,
        context: &Context<'_>,
        checks: &mut Vec<Check>,
        windows: &mut Vec<Window>,
    ) -> Result<TpmClaims, Refusal> {
        let given = context.endorsements.snapshot();
        let certificates = &self.certificates;
        let named = check_ek_root(certificates, given, context.trust_anchors)?;
        checks.push(Check::pass("evidence.ak-name", "the binding names the TPM's key"));
        let ek = verify_ek(&self.ek, certificates, &named, given, context.now, checks)?;
        let quote_context = tpm::Context {
            nonce: report_data.as_bytes(),
            ak: &self.ak,
            parent: Parent::Unknown,
            pcrs: Some(&self.pcrs),
            maker: ek.maker_id(),
        };
        let verification = tpm::verify(&self.quote, &quote_context);
        let quote = verified(KIND, verification.verified, &verification.checks, checks)?;
        report_data_passes(KIND, checks);
        windows.push(Window::of_chains(
            "certificates and revocation lists of the TPM's endorsement key",
            ek.chain().certificates(),
            &given.tpm_crls,
        ));

        let values = quote.pcrs().map(log_values).unwrap_or_default();
        let boot = logs.uefi.map(|log| boot_log(log, &values, checks)).transpose()?;
        let ima = logs.ima.map(|list| ima_list(list, &values, checks)).transpose()?;
        let enrolment = self.enrolment(&ek, binding, context);
        Ok(TpmClaims { quote: Box::new(quote), ek: Box::new(ek), enrolment, boot, ima })
    }

    /// The record of this key in this TPM at this node, or why none counts.
    fn enrolment(
        &self,
        ek: &ek::Verified,
        binding: &Binding,
        context: &Context<'_>,
    ) -> Result<Enrolment, &'static str> {
        let records = &context.enrolments.keys;
        let mut of_key = records.iter().filter(|one| one.ak_name == self.name).peekable();
        if of_key.peek().is_none() {
            return Err("no enrolment names this attestation key: nothing shows in which TPM it is");
        }
        let fingerprint = Digest(ek.chain().leaf().fingerprint());
        let provenance = provenance_of(ek.provenance(), SimulatedRootId::Tpm);
        of_key
            .find(|one| {
                one.network == binding.network
                    && one.node == binding.node
                    && one.ek_certificate == fingerprint
                    && one.provenance == provenance
                    && one.enrolled_at <= context.now
            })
            .cloned()
            .ok_or("the key was enrolled for another network, node or time, or with another endorsement key or root")
    }
}

/// The certificate of an endorsement key, down to a root that is a maker's or named; `certificates` is it and its authorities, in DER.
pub(crate) fn endorsement_key(
    certificates: &[&[u8]],
    given: &Snapshot,
    anchors: &TrustAnchors,
    now: UnixTime,
    checks: &mut Vec<Check>,
) -> Result<ek::Verified, Refusal> {
    let first = certificates.first().copied().unwrap_or_default();
    let ek = EkCertificate::parse(first).map_err(|error| malformed(KIND, error))?;
    let mut parsed = Vec::with_capacity(certificates.len());
    for der in certificates {
        parsed.push(Certificate::from_der_prefix(der).map_err(|error| malformed(KIND, error))?.0);
    }
    let roots = check_ek_root(&parsed, given, anchors)?;
    verify_ek(&ek, &parsed, &roots, given, now, checks)
}

fn check_ek_root(certificates: &[Certificate], given: &Snapshot, anchors: &TrustAnchors) -> Result<Roots, Refusal> {
    let candidates = certificates.iter().chain(&given.tpm_certificates);
    let roots = named_roots(ek::roots(), candidates, anchors, SimulatedRootId::Tpm);
    refuse_unknown_roots(certificates, &roots, SimulatedRootId::Tpm)?;
    Ok(roots)
}

fn verify_ek(
    ek: &EkCertificate,
    certificates: &[Certificate],
    roots: &Roots,
    given: &Snapshot,
    now: UnixTime,
    checks: &mut Vec<Check>,
) -> Result<ek::Verified, Refusal> {
    // What issues itself would count as a root of the caller's: only those that are named go on.
    let authorities: Vec<Certificate> = certificates
        .iter()
        .chain(&given.tpm_certificates)
        .filter(|certificate| !issues_itself(certificate) || roots.iter().any(|(root, _)| root == *certificate))
        .cloned()
        .collect();
    let context = ek::Context { authorities: &authorities, crls: &given.tpm_crls, now_s: seconds(now) };
    let verification = ek::verify(ek, &context);
    verified(KIND, verification.verified, &verification.checks, checks)
}

/// Whether each field is in the one of its forms that is taken here; the parsers know others, which tools write.
fn one_encoding(part: &TpmPart) -> Result<(), &'static str> {
    if !part.attest.starts_with(&[0xff, b'T', b'C', b'G']) {
        return Err("the quote is no bare TPMS_ATTEST");
    }
    // The lengths at which a signature would be read as a plain one of RSA.
    let plain = [256, 384, 512].contains(&part.signature.len());
    if plain || !matches!(part.signature.first_chunk(), Some([0x00, 0x14 | 0x16 | 0x18])) {
        return Err("the signature is no bare TPMT_SIGNATURE");
    }
    if !matches!(part.ak_public.first_chunk(), Some([0x00, 0x01 | 0x23])) {
        return Err("the key is no bare TPMT_PUBLIC");
    }
    Ok(())
}

/// The values in the order of the quote, as many and as long as it selects; no PCR is selected twice.
fn pcr_values(mut bytes: &[u8], selections: &[PcrSelection]) -> Option<PcrValues> {
    let mut values = PcrValues::default();
    let mut seen = BTreeSet::new();
    for selection in selections {
        for index in selection.indices() {
            let (value, rest) = bytes.split_at_checked(selection.bank.len_bytes())?;
            if !seen.insert((selection.bank, index)) {
                return None;
            }
            values.insert(selection.bank, PcrIndex::new(index)?, value.to_vec()).ok()?;
            bytes = rest;
        }
    }
    bytes.is_empty().then_some(values)
}

/// The same values for replays. An index that no TPM has is left out: no log speaks of it.
fn log_values(values: &PcrValues) -> LogValues {
    let mut out = LogValues::new();
    for (bank, index, value) in values.iter() {
        if let Some(digest) = Bank::from_name(bank.name()).and_then(|bank| event_log::Digest::new(bank, value)) {
            out.insert(u32::from(index), digest);
        }
    }
    out
}

fn boot_log(log: &[u8], values: &LogValues, checks: &mut Vec<Check>) -> Result<BootLog, Refusal> {
    const LOG: EvidenceKind = EvidenceKind::UefiLog;
    let log = EventLog::parse(log).map_err(|error| malformed(LOG, error))?;
    let verification = event_log::verify(&log, Registers::Pcrs(values));
    verified(LOG, verification.verified, &verification.checks, checks).map(Box::new)
}

fn ima_list(list: &[u8], values: &LogValues, checks: &mut Vec<Check>) -> Result<ImaClaims, Refusal> {
    const LOG: EvidenceKind = EvidenceKind::ImaLog;
    let list = MeasurementList::parse(list).map_err(|error| malformed(LOG, error))?;
    if !values.banks().any(|bank| values.value(bank, IMA_REGISTER).is_some()) {
        return Err(Refusal::new(
            Party::Node,
            "ima.registers",
            "the quote does not have PCR 10, so that nothing vouches for the list",
            "quote PCR 10 too, or send no ima-log",
        ));
    }
    let verification = ima::verify(&list, Some(values));
    let list = verified(LOG, verification.verified, &verification.checks, checks)?;
    let files = list
        .entries()
        .filter(|entry| entry.register == IMA_REGISTER && !entry.is_violation())
        .filter_map(|entry| {
            let file = entry.file_digest?;
            let plain = file.algorithm == Bank::Sha256.name() && !file.verity;
            file.digest.as_ref().try_into().ok().filter(|_| plain)
        })
        .collect();
    Ok(ImaClaims {
        entries: list.len(),
        violations: list.violations(),
        boot_aggregate: list.boot_aggregate(),
        sha1_alone: !list.pcr10().iter().any(|(bank, form, _)| *bank != Bank::Sha1 && *form == Form::Own),
        files,
    })
}
