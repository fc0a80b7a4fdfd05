//! Appraisal: measurements against manifests, and state against a policy.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::claims::{Claims, GpuClaims};
use super::opaque::Mode;
use super::rim::{Rim, RimKind};
use super::verify::Verified;
use crate::cert::Provenance;
use crate::{Checks, Verdict, Weight};

/// The RIM index of the measurement that depends on the first video decoder. Where the GPU says that this decoder is off, the measurement has no meaning:
/// NVIDIA's own verifier leaves it out, and manifests do not list the value it then has.
const NVDEC0_INDEX: u8 = 35;

/// Whether a check has to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// It has to be made and to pass: not checked refuses.
    #[default]
    Required,
    /// If it can be made it has to pass; if not, that is told and refuses nothing.
    WherePossible,
}

impl Requirement {
    const fn weight(self) -> Weight {
        match self {
            Self::Required => Weight::Required,
            Self::WherePossible => Weight::Informative,
        }
    }
}

/// What to do with the measurement of a video decoder that is off (RIM index 35).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nvdec0 {
    /// Leave it out where the GPU says that the decoder is off, as NVIDIA's verifier does.
    #[default]
    UnlessOff,
    /// Compare it always.
    Always,
}

/// What is asked of GPUs. The default is strict: genuine, fresh, revocation checked, driver and VBIOS measured against manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Whether every root has to be NVIDIA's, or one of `simulated_roots`.
    pub genuine: Requirement,
    /// Whether the nonce has to be one that the verifier expected.
    pub nonce: Requirement,
    /// Whether the report has to name the firmware that the certificate was issued for.
    pub firmware_id: Requirement,
    /// Whether revocation lists have to be there, for every certificate that names one.
    pub revocation: Requirement,
    /// Whether a manifest of the very driver has to be there.
    pub driver_measurements: Requirement,
    /// Whether a manifest of the very VBIOS has to be there.
    pub vbios_measurements: Requirement,
    /// What to do with the measurement of a video decoder that is off.
    pub nvdec0: Nvdec0,
    /// Modes of confidential computing that are accepted, of which the report has to state one. Unset: not checked.
    pub modes: Option<Vec<Mode>>,
    /// The oldest driver that is accepted, by numbers between dots. Unset: not checked.
    pub minimum_driver: Option<String>,
    /// The oldest VBIOS that is accepted, by hexadecimal numbers between dots. Unset: not checked.
    pub minimum_vbios: Option<String>,
    /// How many GPUs there have to be. Unset: not checked.
    pub gpus: Option<usize>,
    /// Serial numbers of devices that are not accepted, as in the claim `device`, whatever their case.
    pub denied_devices: Vec<String>,
    /// SHA-256 of simulated roots that are accepted, in hexadecimal. None by default.
    pub simulated_roots: Vec<String>,
}

impl Policy {
    /// Nothing asked for beyond consistency: what was given has to hold, and what was not is told. For use where there is no policy.
    #[must_use]
    pub fn consistency() -> Self {
        Self {
            genuine: Requirement::WherePossible,
            nonce: Requirement::WherePossible,
            firmware_id: Requirement::WherePossible,
            revocation: Requirement::WherePossible,
            driver_measurements: Requirement::WherePossible,
            vbios_measurements: Requirement::WherePossible,
            ..Self::default()
        }
    }
}

/// Holds what evidence says against manifests and a policy.
#[must_use]
pub fn appraise(verified: &Verified, policy: &Policy) -> Checks {
    let claims = verified.claims();
    let mut appraisal = Appraisal { checks: Checks::new(), policy, rims: &verified.rims };
    appraisal.provenance(claims);
    appraisal.made(
        "nvidia.policy.nonce",
        policy.nonce,
        verified.nonce_expected,
        "the nonce was held against an expected one",
    );
    appraisal.made(
        "nvidia.policy.revocation",
        policy.revocation,
        verified.revocation_checked,
        "revocation was checked for every chain",
    );
    appraisal.count(claims.gpus.len());
    for (at, gpu) in claims.gpus.iter().enumerate() {
        let subject = if claims.gpus.len() > 1 { format!("GPU {at}: ") } else { String::new() };
        appraisal.gpu(gpu, &subject);
    }
    appraisal.checks
}

struct Appraisal<'a> {
    checks: Checks,
    policy: &'a Policy,
    rims: &'a [Rim],
}

impl<'a> Appraisal<'a> {
    /// Something that was checked before, or was not.
    fn made(&mut self, name: &'static str, requirement: Requirement, made: bool, what: &str) {
        if made {
            self.checks.push(name, Verdict::Pass, requirement.weight(), what.to_owned());
        } else {
            self.checks.push(name, Verdict::NotChecked, requirement.weight(), format!("not so: {what}"));
        }
    }

    fn provenance(&mut self, claims: &Claims) {
        const NAME: &str = "nvidia.policy.provenance";
        let all = claims.gpus.iter().map(|gpu| gpu.provenance).chain(claims.rims.iter().map(|rim| rim.provenance));
        let mut simulated = None;
        for provenance in all {
            let Provenance::Simulated { root } = provenance else { continue };
            let root = HEXLOWER.encode(&root);
            if !self.policy.simulated_roots.iter().any(|accepted| accepted.eq_ignore_ascii_case(&root)) {
                let verdict = match self.policy.genuine {
                    Requirement::Required => Verdict::Fail,
                    Requirement::WherePossible => Verdict::NotChecked,
                };
                let reason = format!("root {root} is simulated, and the policy does not name it");
                self.checks.push(NAME, verdict, self.policy.genuine.weight(), reason);
                return;
            }
            simulated = Some(root);
        }
        let reason = simulated.map_or_else(
            || "all roots are NVIDIA's".to_owned(),
            |root| format!("root {root} is simulated, which the policy accepts"),
        );
        self.checks.require(NAME, Ok(reason));
    }

    fn count(&mut self, found: usize) {
        const NAME: &str = "nvidia.policy.gpus";
        match self.policy.gpus {
            None => self.checks.not_checked(
                NAME,
                format!("number of GPUs: {found}; the policy does not say how many there have to be"),
            ),
            Some(wanted) if wanted == found => {
                self.checks.require(NAME, Ok(format!("number of GPUs: {found}")));
            }
            Some(wanted) => {
                self.checks.require(NAME, Err(format!("number of GPUs: {found}, and {wanted} are asked for")));
            }
        }
    }

    fn gpu(&mut self, gpu: &GpuClaims, subject: &str) {
        self.made(
            "nvidia.policy.firmware-id",
            self.policy.firmware_id,
            gpu.fwid.is_some(),
            &format!("{subject}the report names the firmware that the certificate was issued for"),
        );
        let denied = self.policy.denied_devices.iter().any(|denied| denied.eq_ignore_ascii_case(&gpu.device));
        let outcome = if denied {
            Err(format!("{subject}device {} is denied", gpu.device))
        } else {
            Ok(format!("{subject}device {} is not denied", gpu.device))
        };
        self.checks.require("nvidia.policy.device", outcome);
        self.mode(gpu, subject);
        let (driver, vbios) = (gpu.driver_version.as_deref(), gpu.vbios_version.as_deref());
        self.minimum("nvidia.policy.driver-version", subject, driver, self.policy.minimum_driver.as_deref(), 10);
        self.minimum("nvidia.policy.vbios-version", subject, vbios, self.policy.minimum_vbios.as_deref(), 16);
        let (driver, vbios) = (self.matching(RimKind::Driver, gpu), self.matching(RimKind::Vbios, gpu));
        self.conflict(&driver, &vbios, subject);
        self.measurements(RimKind::Driver, gpu, &driver, subject);
        self.measurements(RimKind::Vbios, gpu, &vbios, subject);
    }

    fn mode(&mut self, gpu: &GpuClaims, subject: &str) {
        const NAME: &str = "nvidia.policy.mode";
        let stated = gpu.mode.map_or("not stated", Mode::name);
        match &self.policy.modes {
            None => self.checks.not_checked(NAME, format!("{subject}mode {stated}; the policy does not name any")),
            Some(accepted) if gpu.mode.is_some_and(|mode| accepted.contains(&mode)) => {
                self.checks.require(NAME, Ok(format!("{subject}mode {stated}")));
            }
            Some(_) => {
                self.checks.require(NAME, Err(format!("{subject}mode {stated}, which the policy does not accept")));
            }
        }
    }

    fn minimum(&mut self, name: &'static str, subject: &str, found: Option<&str>, minimum: Option<&str>, radix: u32) {
        let stated = found.unwrap_or("not stated");
        let Some(minimum) = minimum else {
            self.checks.not_checked(name, format!("{subject}version {stated}; the policy sets no minimum"));
            return;
        };
        let numbers = |version: &str| {
            version.split('.').map(|part| u32::from_str_radix(part, radix).ok()).collect::<Option<Vec<_>>>()
        };
        let outcome = match (found.and_then(numbers), numbers(minimum)) {
            (Some(found), Some(least)) if found >= least => {
                Ok(format!("{subject}version {stated}, at least {minimum}"))
            }
            (_, None) => Err(format!("{subject}the policy's minimum {minimum} is no version")),
            _ => Err(format!("{subject}version {stated}, and at least {minimum} is asked for")),
        };
        self.checks.require(name, outcome);
    }

    /// Manifests of the version that the report states, for the chip that the certificate names. Boards of several projects may share a version.
    fn matching(&self, kind: RimKind, gpu: &GpuClaims) -> Vec<&'a Rim> {
        let version = stated_version(kind, gpu);
        self.rims
            .iter()
            .filter(|rim| {
                rim.kind == kind
                    && version.is_some_and(|version| version.eq_ignore_ascii_case(&rim.version))
                    && rim.product == gpu.chip
                    && rim.edition == "GPU"
            })
            .collect()
    }

    /// Driver and VBIOS answer for different measurements.
    fn conflict(&mut self, driver: &[&Rim], vbios: &[&Rim], subject: &str) {
        let active = |rim: &Rim, index: &u8| rim.references.get(index).is_some_and(|reference| reference.active);
        let shared = driver.iter().flat_map(|rim| rim.references.keys().filter(|index| active(rim, index)));
        let shared: Vec<_> = shared.filter(|index| vbios.iter().any(|rim| active(rim, index))).collect();
        if let Some(index) = shared.first() {
            let reason = format!("{subject}the manifests of driver and VBIOS both list index {index}");
            self.checks.require("nvidia.rim-conflict", Err(reason));
        }
    }

    fn measurements(&mut self, kind: RimKind, gpu: &GpuClaims, rims: &[&Rim], subject: &str) {
        let (name, requirement) = match kind {
            RimKind::Driver => ("nvidia.driver-measurements", self.policy.driver_measurements),
            RimKind::Vbios => ("nvidia.vbios-measurements", self.policy.vbios_measurements),
        };
        if rims.is_empty() {
            let given: Vec<_> =
                self.rims.iter().filter(|rim| rim.kind == kind).map(|rim| rim.version.as_str()).collect();
            let given = if given.is_empty() { "none".to_owned() } else { given.join(", ") };
            let version = stated_version(kind, gpu).unwrap_or("(not stated)");
            let reason = format!(
                "{subject}not compared, since no manifest of {} {version} for {} was given (given: {given})",
                kind.name(),
                gpu.chip
            );
            self.checks.push(name, Verdict::NotChecked, requirement.weight(), reason);
            return;
        }
        let skip_nvdec0 = self.policy.nvdec0 == Nvdec0::UnlessOff && gpu.nvdec0 == Some(false);
        let mut outcome = Err(String::new());
        for rim in rims {
            outcome = compare(gpu, rim, skip_nvdec0);
            if outcome.is_ok() {
                break;
            }
        }
        let outcome = match outcome {
            Ok(count) => Ok(format!("{subject}{count} measurements are among those of the manifest")),
            Err(reason) => Err(format!("{subject}{reason}")),
        };
        self.checks.require(name, outcome);
    }
}

fn stated_version(kind: RimKind, gpu: &GpuClaims) -> Option<&str> {
    match kind {
        RimKind::Driver => gpu.driver_version.as_deref(),
        RimKind::Vbios => gpu.vbios_version.as_deref(),
    }
}

/// Every active index of a manifest against the report, whose own indices are one higher. How many were compared.
fn compare(gpu: &GpuClaims, rim: &Rim, skip_nvdec0: bool) -> Result<usize, String> {
    let mut compared = 0;
    let mut different = Vec::new();
    for (&index, reference) in rim.references.iter().filter(|(_, reference)| reference.active) {
        if index == NVDEC0_INDEX && skip_nvdec0 {
            continue;
        }
        compared += 1;
        let measured = index.checked_add(1).and_then(|index| gpu.measurements.get(&index));
        if !measured.is_some_and(|measured| reference.values.contains(measured)) {
            different.push(index.to_string());
        }
    }
    match (compared, different.is_empty()) {
        (0, _) => Err("the manifest lists nothing to compare".to_owned()),
        (_, true) => Ok(compared),
        (_, false) => Err(format!("measurements differ from the manifest's at RIM index {}", different.join(", "))),
    }
}
