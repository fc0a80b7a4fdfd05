//! From what was collected to what it is worth: the verification and appraisal that a verifier makes, line by line, with the tier that follows,
//! what the next one lacks, and until when it holds. Pure: no file, device, clock or network.
//!
//! TEE and TPM are judged each alone and both together; the best of these is the machine's tier. A TPM counts as enrolled where it passed what
//! enrolment asks for: its maker's certificate verifies, is about its endorsement key, and it activated a credential. A log that does
//! not hold is left out and told, so that it hides nothing else.

use std::collections::BTreeSet;

use starminer_hardware::cert::{self, Certificate};
use starminer_hardware::endorsements::{Ages, Cause, Forecast, Missing, Snapshot};
use starminer_hardware::event_log::{self, EventLog, Registers};
use starminer_hardware::tpm::Public;
use starminer_verify::parts::{SevSnpPart, pcr_measurement};
use starminer_verify::{
    AttestationResult, Check, Context, Decision, DeviceClaims, Digest, Endorsements, Enrolment, Enrolments, Evidence,
    EvidenceBuilder, EvidenceKind, Expect, Expected, ExpectedPurpose, HostMeasure, Kept, MAX_EVENT_LOG_BYTES,
    MAX_IMA_LOG_BYTES, Measurement, MinimumPosture, MinimumTcb, OperatorMayReadMemory, Outlook, POLICY_VERSION, Party,
    Policy, PolicyFields, PostureState, Provenance, ReferenceValue, ReferenceValues, Refusal, Selection,
    SimulatedRootId, Tier, TrustAnchors, UnixTime, Verdict, Verified, appraise, forecast, verify,
};

use super::collect::{Absence, Collected, Place, TpmShown};
use super::fix;

/// By what is judged.
#[derive(Debug)]
pub struct Standard {
    /// What has to be met; without one, the strict rules of each tier.
    pub policy: Option<Policy>,
    /// Roots that the network's trust file names, and those of certificates that were given.
    pub anchors: TrustAnchors,
    /// Known-good values.
    pub reference_values: ReferenceValues,
    /// Endorsements, where they were given.
    pub snapshot: Option<Snapshot>,
    /// How old they may get.
    pub ages: Ages,
    /// Certificates of a test network's makers, which evidence brings along.
    pub authorities: Vec<Certificate>,
    /// The time to judge by.
    pub now: UnixTime,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It holds.
    Pass,
    /// It does not, or is not there.
    Missing,
    /// It could not be told, and counts for nothing.
    NotChecked,
}

impl Mark {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Missing => "missing",
            Self::NotChecked => "not-checked",
        }
    }

    const fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail => Self::Missing,
            Verdict::NotChecked => Self::NotChecked,
        }
    }
}

/// Where a check belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The CPU TEE.
    Tee,
    /// The TPM.
    Tpm,
    /// What was started.
    Boot,
    /// Where tasks leave what they leave on a disk.
    Storage,
    /// The kernel's settings.
    Kernel,
    /// The processor and its memory.
    Cpu,
    /// What makers published.
    Endorsements,
}

impl Group {
    /// All, as they are shown.
    pub const ALL: [Self; 7] =
        [Self::Tee, Self::Tpm, Self::Boot, Self::Storage, Self::Kernel, Self::Cpu, Self::Endorsements];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tee => "tee",
            Self::Tpm => "tpm",
            Self::Boot => "boot",
            Self::Storage => "storage",
            Self::Kernel => "kernel",
            Self::Cpu => "cpu",
            Self::Endorsements => "endorsements",
        }
    }

    const fn of_measure(measure: HostMeasure) -> Self {
        match measure {
            HostMeasure::JobStorageEncrypted
            | HostMeasure::JobStorageLocked
            | HostMeasure::JobStorageUnshadowed
            | HostMeasure::DiskKeysGuarded
            | HostMeasure::EndedInOrder
            | HostMeasure::SwapOff
            | HostMeasure::SwapEncrypted => Self::Storage,
            HostMeasure::SecureBoot => Self::Boot,
            HostMeasure::CorePatternContained
            | HostMeasure::CoreDumpsOff
            | HostMeasure::PtraceRestricted
            | HostMeasure::KernelLockdown
            | HostMeasure::ModulesSigned
            | HostMeasure::NoPreloads
            | HostMeasure::NotTraced => Self::Kernel,
            HostMeasure::CpuMitigated
            | HostMeasure::SmtOff
            | HostMeasure::MicrocodeCurrent
            | HostMeasure::MemoryEncrypted
            | HostMeasure::Iommu
            | HostMeasure::DmaProtected => Self::Cpu,
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it belongs.
    pub group: Group,
    /// Stable name.
    pub name: String,
    /// How it came out.
    pub mark: Mark,
    /// Why.
    pub reason: String,
    /// What to do; empty where it passed.
    pub fix: String,
    /// Whether people are shown it although it passed or decides nothing.
    pub is_headline: bool,
}

/// A tier that is not reached yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// Which.
    pub tier: Tier,
    /// Names of checks that it needs and that do not pass.
    pub missing: Vec<String>,
}

/// What a machine can prove.
#[derive(Debug)]
pub struct Diagnosis {
    /// The tier it reaches.
    pub tier: Tier,
    /// What stands behind it; none where nothing was proven.
    pub provenance: Option<Provenance>,
    /// What it would reach if the network named what it runs.
    pub would_reach: Tier,
    /// What it runs, in the form of reference values.
    pub measurements: Vec<(EvidenceKind, Measurement)>,
    /// What the next tier needs; none above the highest.
    pub next: Option<Next>,
    /// Every check.
    pub lines: Vec<Line>,
    /// Checks by which the policy that was given is not met; none where none was given.
    pub unmet: Option<Vec<String>>,
    /// Until when it holds.
    pub forecast: Forecast,
}

impl Diagnosis {
    /// Whether what was asked for is reached: all of the policy, or tier `measured` where none was given.
    pub fn is_enough(&self) -> bool {
        self.unmet.as_ref().map_or(self.tier >= Tier::Measured, Vec::is_empty)
    }
}

/// Which devices an evidence is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Tee,
    Tpm,
    Both,
}

/// Evidence that verified.
struct Attempt {
    of: Of,
    verified: Verified,
    selection: Option<Selection>,
    /// Logs that do not hold.
    faults: Vec<(EvidenceKind, Refusal)>,
}

/// Judges everything.
pub fn judge(found: &Collected, standard: &Standard) -> Diagnosis {
    let case = Case { found, standard };
    let mut lines = Lines { lines: Vec::new(), as_root: found.as_root };
    let tee = found.tee.is_ok().then(|| case.attempt(Of::Tee, &Enrolments::none()));
    let (tpm, enrolments) = case.tpm();
    let both = match (&tee, &tpm) {
        (Some(Ok(_)), Some(Ok(_))) => case.attempt(Of::Both, &enrolments).ok(),
        _ => None,
    };
    let attempts: Vec<&Attempt> = [&tee, &tpm].into_iter().flatten().flatten().chain(both.as_ref()).collect();

    case.boot_lines(tpm.as_ref(), tee.as_ref(), &mut lines);
    case.tee_lines(tee.as_ref(), &mut lines);
    case.tpm_lines(tpm.as_ref(), &enrolments, &mut lines);
    if let Some(both) = &both {
        let result = case.appraise(both, Tier::Hardened);
        let joined = ["tpm.co-enrolled", "device.facility", "device.side-channels"];
        for check in result.checks().iter().filter(|check| joined.contains(&check.name())) {
            // What both together show is told in the place of what each shows alone.
            lines.lines.retain(|line| line.name != check.name());
            lines.of_check(Of::Both, check);
        }
    }
    case.host_lines(&mut lines);
    case.endorsement_lines(&mut lines);

    // Of equal ones the first: the TEE's is told before the TPM's.
    let mut best: Option<(&Attempt, Tier)> = None;
    for attempt in &attempts {
        let tier = case.appraise(attempt, Tier::None).tier();
        if best.is_none_or(|(_, so_far)| tier > so_far) {
            best = Some((attempt, tier));
        }
    }
    let tier = best.map_or(Tier::None, |(_, tier)| tier);
    let measurements = case.measurements(&attempts);
    let own = with_own(&standard.reference_values, &measurements);
    let would_reach = attempts.iter().map(|attempt| appraise(&attempt.verified, &own, &case.policy(Tier::None)).tier());
    let next = case.next(tier, &attempts, &lines.lines);
    let judged = best.map(|(attempt, _)| (attempt, case.policy_for_forecast(tier)));
    let unmet = standard.policy.as_ref().map(|policy| case.unmet(policy, &attempts, &lines.lines));
    Diagnosis {
        tier,
        provenance: best.filter(|_| tier > Tier::None).map(|(attempt, _)| attempt.verified.provenance()),
        would_reach: would_reach.fold(tier, Tier::max),
        measurements,
        next,
        unmet,
        forecast: judged.map(|(attempt, policy)| case.forecast(attempt, &policy)).unwrap_or_default(),
        lines: lines.sorted(),
    }
}

/// Reference values and what this machine runs.
fn with_own(values: &ReferenceValues, own: &[(EvidenceKind, Measurement)]) -> ReferenceValues {
    let mut all = values.values().to_vec();
    for (kind, measurement) in own {
        if values.find(*kind, measurement.as_bytes()).is_none() {
            let name = "what runs on this machine".to_owned();
            all.push(ReferenceValue { kind: *kind, measurement: measurement.clone(), name });
        }
    }
    // A file as full as it may be has no room for another.
    ReferenceValues::new(all).unwrap_or_else(|_| values.clone())
}

struct Case<'a> {
    found: &'a Collected,
    standard: &'a Standard,
}

impl Case<'_> {
    /// The rules that hold, with another tier asked for. Posture that a policy asks for is no part of a tier, and tasks' sandboxes are not there.
    fn policy(&self, tier: Tier) -> Policy {
        let given = self.standard.policy.as_ref().map(Policy::fields);
        let consent = match tier >= Tier::Confidential {
            true => OperatorMayReadMemory::No,
            false => OperatorMayReadMemory::Yes,
        };
        let fields = PolicyFields {
            version: POLICY_VERSION,
            minimum_tier: tier,
            operator_may_read_memory: consent,
            accepted_simulated_roots: match given {
                Some(fields) => fields.accepted_simulated_roots.clone(),
                None => self.standard.anchors.simulated_roots().copied().collect(),
            },
            evidence_max_age_ms: given.map_or(60_000, |fields| fields.evidence_max_age_ms),
            minimum_tcb: given.map_or(MinimumTcb { software_tee: 1 }, |fields| fields.minimum_tcb),
            minimum_posture: MinimumPosture::default(),
            hardware: given.and_then(|fields| fields.hardware.clone()),
        };
        Policy::new(fields).expect("a consistent policy stays one with another tier")
    }

    /// The policy that was given, but for sandboxes; else the strict rules of the tier that is reached.
    fn policy_for_forecast(&self, tier: Tier) -> Policy {
        self.standard.policy.as_ref().map_or_else(|| self.policy(tier), without_sandbox)
    }

    fn appraise(&self, attempt: &Attempt, tier: Tier) -> AttestationResult {
        appraise(&attempt.verified, &self.standard.reference_values, &self.policy(tier))
    }

    /// Verifies what these devices showed, with each log that holds.
    fn attempt(&self, of: Of, enrolments: &Enrolments) -> Result<Attempt, Refusal> {
        let bare = self.parts(of);
        let (mut attempt, mut parts) = (self.verify(of, &bare, enrolments)?, bare);
        for (kind, log) in self.logs(of) {
            let mut with: Vec<(EvidenceKind, Vec<u8>)> = parts.clone();
            with.push((kind, log.clone()));
            with.sort_by_key(|(kind, _)| *kind);
            match self.verify(of, &with, enrolments) {
                Ok(verified) => {
                    let faults = std::mem::take(&mut attempt.faults);
                    (attempt, parts) = (Attempt { faults, ..verified }, with);
                }
                Err(refusal) => attempt.faults.push((kind, refusal)),
            }
        }
        Ok(attempt)
    }

    /// Parts of devices, in the order of evidence.
    fn parts(&self, of: Of) -> Vec<(EvidenceKind, Vec<u8>)> {
        let mut parts = Vec::new();
        if let Ok(tee) = &self.found.tee
            && of != Of::Tpm
        {
            let part = match tee.kind {
                EvidenceKind::SevSnp => self.with_authorities(&tee.part),
                _ => tee.part.clone(),
            };
            parts.push((tee.kind, part));
        }
        if let Ok(TpmShown { part: Some(part), .. }) = &self.found.tpm
            && of != Of::Tee
        {
            let mut part = part.clone();
            let room = MAX_TPM_CERTIFICATES.saturating_sub(part.ek_certificates.len());
            let above = self.above(part.ek_certificates.last());
            part.ek_certificates.extend(above.into_iter().take(room));
            parts.push((EvidenceKind::Tpm, part.encode()));
        }
        parts
    }

    /// The certificates that were given, from the one above this upwards.
    fn above(&self, last: Option<&Vec<u8>>) -> Vec<Vec<u8>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut last = last.and_then(|der| Certificate::from_der(der).ok());
        while let Some(below) = last {
            let fits = |one: &&Certificate| {
                one.subject() == below.issuer()
                    && one.der() != below.der()
                    && !found.iter().any(|known| known == one.der())
            };
            last = self.standard.authorities.iter().find(fits).cloned();
            found.extend(last.as_ref().map(|next| next.der().to_vec()));
        }
        found
    }

    fn with_authorities(&self, part: &[u8]) -> Vec<u8> {
        let Ok(mut parsed) = SevSnpPart::parse(part) else { return part.to_vec() };
        let room = MAX_SEV_SNP_CERTIFICATES.saturating_sub(parsed.certificates.len());
        let above = self.above(parsed.certificates.last());
        parsed.certificates.extend(above.into_iter().take(room));
        parsed.encode()
    }

    /// Logs that go with these devices and that evidence can carry.
    fn logs(&self, of: Of) -> Vec<(EvidenceKind, &Vec<u8>)> {
        let is_tdx = self.found.tee.as_ref().is_ok_and(|tee| tee.kind == EvidenceKind::Tdx);
        let all = [
            (EvidenceKind::UefiLog, &self.found.uefi, of != Of::Tee, MAX_EVENT_LOG_BYTES),
            (EvidenceKind::CcLog, &self.found.cc, of != Of::Tpm && is_tdx, MAX_EVENT_LOG_BYTES),
            (EvidenceKind::ImaLog, &self.found.ima, of != Of::Tee, MAX_IMA_LOG_BYTES),
        ];
        let fitting = all.into_iter().filter(|(.., goes, _)| *goes);
        let found = fitting.filter_map(|(kind, log, _, most)| Some((kind, log.as_ref().ok()?, most)));
        found.filter(|(_, log, most)| log.len() <= *most).map(|(kind, log, _)| (kind, log)).collect()
    }

    fn place(&self, of: Of) -> Option<&Place> {
        match of {
            Of::Tee => Some(&self.found.plain),
            Of::Tpm | Of::Both => self.found.with_tpm.as_ref(),
        }
    }

    fn encode(&self, of: Of, parts: &[(EvidenceKind, Vec<u8>)]) -> Result<Vec<u8>, Refusal> {
        let place = self.place(of).ok_or_else(|| unfit("there is no binding for these devices".to_owned()))?;
        let builder = EvidenceBuilder::new(place.binding.clone(), place.path.clone(), self.found.posture.clone());
        let builder = parts.iter().fold(builder, |builder, (kind, part)| builder.part(*kind, part.clone()));
        builder.encode().map_err(|error| unfit(error.to_string()))
    }

    fn verify(&self, of: Of, parts: &[(EvidenceKind, Vec<u8>)], enrolments: &Enrolments) -> Result<Attempt, Refusal> {
        let bytes = self.encode(of, parts)?;
        let place = self.place(of).ok_or_else(|| unfit("there is no binding for these devices".to_owned()))?;
        let evidence = Evidence::parse(&bytes)?;
        let now = self.standard.now;
        let selected = self.standard.snapshot.as_ref();
        let selection =
            selected.map(|snapshot| evidence.select_endorsements(snapshot, &self.standard.ages, now)).transpose()?;
        let none = Endorsements::none();
        let binding = &place.binding;
        let context = Context {
            expected: Expected {
                network: binding.network,
                challenge: binding.challenge,
                challenge_issued_at: now,
                purpose: ExpectedPurpose::Admission,
                node: binding.node,
                boot: Expect::Exactly(binding.boot),
                task_key: Expect::Any,
                report_key: Expect::Any,
                agent_key: Expect::Exactly(binding.agent_key),
                tls_key: Expect::Exactly(binding.tls_key),
                posture: Expect::Exactly(binding.posture),
            },
            endorsements: selection.as_ref().map_or(&none, |selection| &selection.endorsements),
            trust_anchors: &self.standard.anchors,
            enrolments,
            now,
        };
        let verified = verify(evidence, &context)?;
        Ok(Attempt { of, verified, selection, faults: Vec::new() })
    }

    /// The TPM's evidence, with the enrolment on trial where it passed.
    fn tpm(&self) -> (Option<Result<Attempt, Refusal>>, Enrolments) {
        let Ok(shown @ TpmShown { part: Some(_), .. }) = &self.found.tpm else { return (None, Enrolments::none()) };
        let first = match self.attempt(Of::Tpm, &Enrolments::none()) {
            Ok(first) => first,
            Err(refusal) => return (Some(Err(refusal)), Enrolments::none()),
        };
        let enrolments = Enrolments { keys: self.trial(shown, &first).into_iter().collect(), facilities: Vec::new() };
        (Some(self.attempt(Of::Tpm, &enrolments)), enrolments)
    }

    /// What a network would keep of this TPM.
    fn trial(&self, shown: &TpmShown, attempt: &Attempt) -> Option<Enrolment> {
        let key = attempt.verified.tpm()?.endorsement_key();
        let public = Public::parse(&shown.ek_public).ok()?;
        if shown.activated.is_err() || !key.endorses(&public).hold() {
            return None;
        }
        let place = self.place(Of::Tpm)?;
        let tee = self.found.tee.is_ok().then(|| self.attempt(Of::Tee, &Enrolments::none()).ok()).flatten();
        Some(Enrolment {
            network: place.binding.network,
            node: place.binding.node,
            ak_name: shown.ak_name.clone(),
            ek_certificate: Digest(key.chain().leaf().fingerprint()),
            provenance: match key.provenance() {
                cert::Provenance::Genuine => Provenance::Genuine,
                cert::Provenance::Simulated { root } => {
                    Provenance::Simulated { root: SimulatedRootId::Tpm(Digest(root)) }
                }
            },
            chip: tee.and_then(|tee| tee.verified.device().chip()),
            enrolled_at: self.standard.now,
        })
    }

    fn tee_lines(&self, attempt: Option<&Result<Attempt, Refusal>>, lines: &mut Lines) {
        match &self.found.tee {
            Ok(tee) => {
                let reason = format!("{} through {}", tee.kind.name(), tee.through);
                lines.push(Group::Tee, "tee.device", Mark::Pass, reason, true);
            }
            Err(absence) => lines.absence(Group::Tee, "tee.device", absence),
        }
        match attempt {
            None => {}
            Some(Err(refusal)) => lines.refused(Group::Tee, "tee.evidence", refusal),
            Some(Ok(attempt)) => {
                lines.push(Group::Tee, "tee.evidence", Mark::Pass, "signature, chain and dates hold".into(), true);
                let result = self.appraise(attempt, Tier::Confidential);
                result.checks().iter().for_each(|check| lines.of_check(Of::Tee, check));
            }
        }
    }

    fn tpm_lines(&self, attempt: Option<&Result<Attempt, Refusal>>, enrolments: &Enrolments, lines: &mut Lines) {
        let shown = match &self.found.tpm {
            Ok(shown) => shown,
            Err(absence) => {
                // Without its bank, the TPM is there and has nothing to quote.
                let quotes = matches!(absence, Absence::Missing(reason) if reason.starts_with("no quote over"));
                return lines.absence(Group::Tpm, if quotes { "tpm.bank" } else { "tpm.device" }, absence);
            }
        };
        let of = &shown.properties;
        let device = format!("{} {}, firmware {:x}", of.maker.trim(), of.vendor.trim(), of.firmware_version);
        lines.push(Group::Tpm, "tpm.device", Mark::Pass, device, true);
        lines.push(Group::Tpm, "tpm.bank", Mark::Pass, format!("{} is quoted", shown.bank.name()), true);
        let Some(attempt) = attempt else {
            let reason = "no maker's certificate is in the TPM's storage".to_owned();
            return lines.push(Group::Tpm, "tpm.certificate", Mark::Missing, reason, true);
        };
        lines.push(Group::Tpm, "tpm.certificate", Mark::Pass, "its maker's certificate is in its storage".into(), true);
        let (mark, reason) = match &shown.activated {
            Ok(()) => (Mark::Pass, "it opened a credential for its endorsement and attestation key".to_owned()),
            Err(reason) => (Mark::Missing, reason.clone()),
        };
        lines.push(Group::Tpm, "tpm.activation", mark, reason, true);
        match attempt {
            Err(refusal) => lines.refused(Group::Tpm, "tpm.evidence", refusal),
            Ok(attempt) => {
                lines.push(Group::Tpm, "tpm.evidence", Mark::Pass, "quote, chain and dates hold".into(), true);
                let result = self.appraise(attempt, Tier::Measured);
                for check in result.checks() {
                    // On trial: what it says of a record is not this machine's.
                    if check.name() == "tpm.enrolled" {
                        let reason = match enrolments.keys.first() {
                            Some(one) => format!(
                                "on trial: the network asks for the same when the node joins; attestation key {}",
                                data_encoding::HEXLOWER.encode(one.ak_name.as_bytes())
                            ),
                            None => "the certificate is about another key, or no credential was opened".to_owned(),
                        };
                        lines.push(Group::Tpm, "tpm.enrolled", Mark::of(check.verdict()), reason, true);
                    } else {
                        lines.of_check(Of::Tpm, check);
                    }
                }
            }
        }
    }

    fn boot_lines(
        &self,
        tpm: Option<&Result<Attempt, Refusal>>,
        tee: Option<&Result<Attempt, Refusal>>,
        lines: &mut Lines,
    ) {
        let is_tdx = self.found.tee.as_ref().is_ok_and(|tee| tee.kind == EvidenceKind::Tdx);
        let logs = [
            ("boot.event-log", EvidenceKind::UefiLog, &self.found.uefi, tpm, MAX_EVENT_LOG_BYTES),
            ("boot.cc-log", EvidenceKind::CcLog, &self.found.cc, tee, MAX_EVENT_LOG_BYTES),
            ("boot.ima", EvidenceKind::ImaLog, &self.found.ima, tpm, MAX_IMA_LOG_BYTES),
        ];
        for (name, kind, log, attempt, most_bytes) in logs {
            let log = match log {
                // Only trust domains have this one.
                Err(_) if kind == EvidenceKind::CcLog && !is_tdx => continue,
                Err(absence) => {
                    lines.absence(Group::Boot, name, absence);
                    continue;
                }
                Ok(log) => log,
            };
            if log.len() > most_bytes {
                let reason = format!("{} bytes, and evidence carries {most_bytes}", log.len());
                lines.push(Group::Boot, name, Mark::Missing, reason, true);
                continue;
            }
            match attempt {
                Some(Ok(attempt)) => match attempt.faults.iter().find(|(faulty, _)| *faulty == kind) {
                    Some((_, refusal)) => lines.refused(Group::Boot, name, refusal),
                    None => lines.push(Group::Boot, name, Mark::Pass, "leads to what the device signed".into(), true),
                },
                _ => {
                    let reason = format!("{}: no device vouches for it", by_its_own_word(kind, log));
                    lines.push(Group::Boot, name, Mark::NotChecked, reason, true);
                }
            }
        }
    }

    fn host_lines(&self, lines: &mut Lines) {
        for measure in HostMeasure::ALL {
            let item = self.found.posture.host().iter().find(|item| item.name() == *measure);
            let (mark, detail) = match item.map(|item| (item.state(), item.detail())) {
                Some((PostureState::InForce, detail)) => (Mark::Pass, detail),
                Some((PostureState::Absent, detail)) => (Mark::Missing, detail),
                Some((PostureState::NotChecked, detail)) => (Mark::NotChecked, detail),
                None => (Mark::NotChecked, "the machine states nothing about it"),
            };
            lines.push(Group::of_measure(*measure), &posture_name(*measure), mark, detail.to_owned(), true);
        }
    }

    fn endorsement_lines(&self, lines: &mut Lines) {
        let group = Group::Endorsements;
        let missing = self.missing();
        let snapshot = self.standard.snapshot.as_ref();
        let (mark, reason) = match (snapshot, missing.is_empty()) {
            (Some(snapshot), _) => {
                (Mark::Pass, format!("{} endorsements, snapshot {}", snapshot.len(), Digest(*snapshot.digest())))
            }
            (None, false) => (Mark::Missing, "none were given: --endorsements".to_owned()),
            (None, true) => (Mark::Pass, "no device asks for any".to_owned()),
        };
        lines.push(group, "endorsements.store", mark, reason, true);
        for one in &missing {
            let reason = format!("{}: {}", one.what, one.why);
            lines.push(group, "endorsements.missing", Mark::Missing, reason, true);
            if let Some(line) = lines.lines.last_mut() {
                line.fix = match one.fetch() {
                    Some(_) => {
                        format!("starminer endorsements fetch DIR {}, and give DIR with --endorsements", one.what)
                    }
                    None => "it comes with the evidence: have the machine's cloud give it".to_owned(),
                };
            }
        }
        let Some(snapshot) = snapshot else { return };
        let now_s = self.standard.now.as_seconds();
        let old: Vec<String> = snapshot
            .items()
            .filter(|item| snapshot.find(item.key(), &self.standard.ages, now_s).is_err())
            .map(|item| item.key().to_string())
            .collect();
        let (mark, reason) = match old.len() {
            0 => (Mark::Pass, "all that are there can be used".to_owned()),
            count => (Mark::Missing, format!("{count} ended or are too old, {} the first", old[0])),
        };
        lines.push(group, "endorsements.usable", mark, reason, true);
    }

    /// What the devices' evidence asks for and is not there, whether it verifies or not: often it does not for want of it.
    fn missing(&self) -> Vec<Missing> {
        let nothing = Snapshot::default();
        let snapshot = self.standard.snapshot.as_ref().unwrap_or(&nothing);
        let mut missing: Vec<Missing> = Vec::new();
        for of in [Of::Tee, Of::Tpm] {
            let evidence = self.encode(of, &self.parts(of)).ok().and_then(|bytes| Evidence::parse(&bytes).ok());
            let selected = evidence.and_then(|evidence| {
                evidence.select_endorsements(snapshot, &self.standard.ages, self.standard.now).ok()
            });
            for one in selected.into_iter().flat_map(|selection| selection.missing) {
                if !missing.contains(&one) {
                    missing.push(one);
                }
            }
        }
        missing
    }

    /// What runs here, as reference values would name it.
    fn measurements(&self, attempts: &[&Attempt]) -> Vec<(EvidenceKind, Measurement)> {
        let hardware = self.policy(Tier::None).hardware().into_owned();
        let mut found = Vec::new();
        for attempt in attempts.iter().filter(|attempt| attempt.of != Of::Both) {
            let bytes = match attempt.verified.device() {
                DeviceClaims::SevSnp(claims) => Some(claims.claims().measurement.to_vec()),
                DeviceClaims::Tdx(claims) => Some(claims.measurement()),
                DeviceClaims::Sgx(claims) => Some(claims.measurement()),
                DeviceClaims::Tpm(claims) => {
                    let pcrs = claims.quote().pcrs();
                    let digest = pcrs.and_then(|pcrs| pcr_measurement(pcrs, hardware.tpm.pcr_bank, &hardware.tpm.pcrs));
                    digest.map(|digest| digest.as_bytes().to_vec())
                }
                _ => None,
            };
            let measurement = bytes.and_then(|bytes| Measurement::from_bytes(&bytes));
            found.extend(measurement.map(|measurement| (attempt.verified.device().kind(), measurement)));
        }
        found
    }

    /// The lowest tier above this one that the machine's devices can lead to.
    fn next(&self, tier: Tier, attempts: &[&Attempt], lines: &[Line]) -> Option<Next> {
        let (has_tee, has_tpm) = (self.found.tee.is_ok(), self.found.tpm.is_ok());
        let next = match tier {
            Tier::None => Tier::Identified,
            // A TPM alone never gets further, and a TEE alone passes this one by.
            Tier::Identified if has_tee && !has_tpm => Tier::Confidential,
            Tier::Identified => Tier::Measured,
            Tier::Measured => Tier::Confidential,
            Tier::Confidential => Tier::Hardened,
            Tier::Hardened => return None,
        };
        let of = |of| attempts.iter().find(|attempt| attempt.of == of).copied();
        let not_passing = |names: &[&str]| -> Vec<String> {
            let failing = lines.iter().filter(|line| line.mark != Mark::Pass && names.contains(&line.name.as_str()));
            failing.map(|line| line.name.clone()).collect()
        };
        const TEE: [&str; 2] = ["tee.device", "tee.evidence"];
        const TPM: [&str; 5] = ["tpm.device", "tpm.bank", "tpm.certificate", "tpm.activation", "tpm.evidence"];
        let missing = match next {
            Tier::Identified | Tier::None => match (of(Of::Tee), of(Of::Tpm)) {
                (Some(tee), _) => self.refusing(tee, next),
                (None, Some(tpm)) => self.refusing(tpm, next),
                (None, None) if has_tee => not_passing(&TEE),
                (None, None) if has_tpm => not_passing(&TPM),
                (None, None) => not_passing(&[&TEE[..], &TPM[..]].concat()),
            },
            Tier::Measured => of(Of::Tpm).map_or_else(|| not_passing(&TPM), |tpm| self.refusing(tpm, next)),
            Tier::Confidential => of(Of::Tee).map_or_else(|| not_passing(&TEE), |tee| self.refusing(tee, next)),
            Tier::Hardened => of(Of::Both)
                .map_or_else(|| not_passing(&[&TEE[..], &TPM[..]].concat()), |both| self.refusing(both, next)),
        };
        Some(Next { tier: next, missing })
    }

    /// What refuses where this tier is asked for, under the names of lines.
    fn refusing(&self, attempt: &Attempt, tier: Tier) -> Vec<String> {
        let mut names = names_of(attempt.of, &self.appraise(attempt, tier));
        // Which device it is hangs on roots and enrolment; what runs on it, whatever a policy says, on nothing of that.
        let identifies = |name: &String| {
            name.ends_with(".root")
                || ["tpm.enrolled", "tpm.policy.", "tpm-ek."].iter().any(|kind| name.starts_with(kind))
        };
        names.retain(|name| tier > Tier::Identified || identifies(name));
        names
    }

    /// What of a policy is not met by whatever meets most of it.
    fn unmet(&self, policy: &Policy, attempts: &[&Attempt], lines: &[Line]) -> Vec<String> {
        let policy = without_sandbox(policy);
        let each = attempts.iter().map(|attempt| {
            let result = appraise(&attempt.verified, &self.standard.reference_values, &policy);
            let Decision::Fails(refusals) = result.decision() else { return Vec::new() };
            refusals.iter().map(|refusal| line_name(attempt.of, refusal.check())).collect()
        });
        let devices = ["tee.device", "tee.evidence", "tpm.device", "tpm.evidence", "tpm.certificate"];
        let nothing = || {
            let failing = lines.iter().filter(|line| line.mark != Mark::Pass && devices.contains(&line.name.as_str()));
            failing.map(|line| line.name.clone()).collect()
        };
        each.min_by_key(Vec::len).unwrap_or_else(nothing)
    }

    fn forecast(&self, attempt: &Attempt, policy: &Policy) -> Forecast {
        let kept = attempt.selection.as_ref().zip(self.standard.snapshot.as_ref());
        let outlook = Outlook {
            reference_values: &self.standard.reference_values,
            policy,
            announced: &[],
            kept: kept.map(|(selection, snapshot)| Kept { selection, snapshot, ages: &self.standard.ages }),
        };
        let told = forecast(&attempt.verified, &outlook);
        // Without a policy there is nothing to be met but the tier, which is reached.
        if self.standard.policy.is_some() { told } else { told.without(Cause::Today) }
    }
}

/// Most certificates in a part of a TPM and of SEV-SNP (`specs/evidence.md`).
const MAX_TPM_CERTIFICATES: usize = 5;
const MAX_SEV_SNP_CERTIFICATES: usize = 3;

/// A doctor starts no task, so that there is no sandbox to judge.
fn without_sandbox(policy: &Policy) -> Policy {
    let mut fields = policy.fields().clone();
    fields.minimum_posture.sandbox.clear();
    Policy::new(fields).expect("a consistent policy stays one without a list")
}

fn posture_name(measure: HostMeasure) -> String {
    format!("posture.host.{measure}")
}

/// Names of what refuses, but for the tier itself.
fn names_of(of: Of, result: &AttestationResult) -> Vec<String> {
    let refusing = result.checks().iter().filter(|check| check.refusal().is_some());
    let names: BTreeSet<String> = refusing
        .filter(|check| check.name() != "policy.minimum-tier")
        .map(|check| line_name(of, check.name()))
        .collect();
    names.into_iter().collect()
}

/// What is said of the device where a TPM is all there is, is said of the TPM: a machine can have both.
fn line_name(of: Of, check: &str) -> String {
    match (of, check.strip_prefix("device.")) {
        (Of::Tpm, Some(what @ ("root" | "measurement" | "tcb" | "storage"))) => format!("tpm.{what}"),
        (Of::Both, Some("storage")) => "tpm.storage".to_owned(),
        // A TPM alone is no TEE, which is what these lack.
        (Of::Tpm, Some("debug-off" | "memory-encrypted")) => "tee.device".to_owned(),
        _ => check.to_owned(),
    }
}

fn unfit(reason: String) -> Refusal {
    let remedy = "report it: this machine's devices made what no evidence carries";
    Refusal::new(Party::Node, "evidence.parts", reason, remedy)
}

/// What a log says, whoever wrote it.
fn by_its_own_word(kind: EvidenceKind, log: &[u8]) -> String {
    if kind == EvidenceKind::ImaLog {
        let list = starminer_hardware::ima::MeasurementList::parse(log);
        return list.map_or_else(|error| error.to_string(), |list| format!("{} entries", list.len()));
    }
    let log = match EventLog::parse(log) {
        Ok(log) => log,
        Err(error) => return error.to_string(),
    };
    let secure_boot =
        event_log::verify(&log, Registers::NotGiven).verified.map(|verified| verified.secure_boot().state);
    let word = match secure_boot {
        Some(event_log::SecureBootState::Enabled) => "Secure Boot on",
        Some(event_log::SecureBootState::Disabled) => "Secure Boot off",
        _ => "Secure Boot not told",
    };
    format!("{} events, {word}", log.len())
}

/// The lines, in the making.
struct Lines {
    lines: Vec<Line>,
    as_root: bool,
}

/// What a check that only root can make needs first.
const AS_ROOT: &str = "run it as root (sudo starminer node doctor), so that it can be read; then";

impl Lines {
    fn push(&mut self, group: Group, name: &str, mark: Mark, reason: String, is_headline: bool) {
        let fix = match mark {
            Mark::Pass => String::new(),
            Mark::Missing => fix::of(name).unwrap_or_default().to_owned(),
            Mark::NotChecked if self.as_root => fix::of(name).unwrap_or_default().to_owned(),
            Mark::NotChecked => format!("{AS_ROOT}: {}", fix::of(name).unwrap_or_default()),
        };
        self.lines.push(Line { group, name: name.to_owned(), mark, reason, fix, is_headline });
    }

    fn absence(&mut self, group: Group, name: &str, absence: &Absence) {
        let (mark, reason) = match absence {
            Absence::Missing(reason) => (Mark::Missing, reason),
            Absence::NotChecked(reason) => (Mark::NotChecked, reason),
        };
        self.push(group, name, mark, reason.clone(), true);
    }

    fn refused(&mut self, group: Group, name: &str, refusal: &Refusal) {
        let reason = format!("{}: {}", refusal.check(), refusal.reason());
        let fix = fix::of(refusal.check()).or(fix::of(name)).unwrap_or_default();
        self.lines.push(Line {
            group,
            name: name.to_owned(),
            mark: Mark::Missing,
            reason,
            fix: format!("{fix}. {}", refusal.remedy()),
            is_headline: true,
        });
    }

    /// A check of verification or appraisal, unless it is one about the call, about tasks, or told elsewhere.
    fn of_check(&mut self, of: Of, check: &Check) {
        let name = check.name();
        let group = match name.split('.').next().unwrap_or_default() {
            "evidence" | "policy" | "posture" => return,
            "eventlog" | "ima" => Group::Boot,
            "device" if of == Of::Tpm => match line_name(of, name) {
                same if same == name || same == "tee.device" => return,
                _ => Group::Tpm,
            },
            "tpm" | "tpm-ek" => Group::Tpm,
            _ => Group::Tee,
        };
        let name = line_name(of, name);
        // Of one device alone, co-enrolment is told by the other's absence.
        if self.lines.iter().any(|line| line.name == name) || (of != Of::Both && name == "tpm.co-enrolled") {
            return;
        }
        let is_headline =
            name.starts_with("device.") || matches!(name.as_str(), "tpm.root" | "tpm.measurement" | "tpm.storage");
        self.push(group, &name, Mark::of(check.verdict()), check.reason().to_owned(), is_headline);
        if let Some(line) =
            self.lines.last_mut().filter(|line| line.mark == Mark::NotChecked && line.group == Group::Boot)
        {
            // It is the log that is not there.
            let log = if name.starts_with("ima") { "boot.ima" } else { "boot.event-log" };
            line.fix = fix::of(log).unwrap_or_default().to_owned();
        }
        if let Some(line) = self.lines.last_mut().filter(|line| line.mark != Mark::Pass && line.fix.is_empty()) {
            line.fix = check.refusal().map(|refusal| refusal.remedy().to_owned()).unwrap_or_default();
        }
    }

    fn sorted(mut self) -> Vec<Line> {
        self.lines.sort_by_key(|line| line.group);
        self.lines
    }
}
