//! NVIDIA GPUs: reports whose nonce is the batch, and manifests that say what they should measure.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;
use starminer_hardware::cert::{self, Certificate};
use starminer_hardware::nvidia::{self, Nonce, Rim};

use super::{
    GpuArchitecture, GpuPart, Window, check_report_data, issues_itself, malformed, refuse_unknown_roots,
    report_data_passes, seconds, verified,
};
use crate::check::Check;
use crate::evidence::EvidenceKind;
use crate::refusal::Refusal;
use crate::trust::{Provenance, SimulatedRootId, TrustAnchors};
use crate::types::Digest;
use crate::verify::Context;

const KIND: EvidenceKind = EvidenceKind::NvidiaGpu;

/// All GPUs of one evidence: devices that are not each other.
pub(super) struct Parsed {
    evidence: nvidia::Evidence,
    certificates: Vec<Certificate>,
}

/// What verified GPUs claim; obtained from [`crate::Verified`] alone.
#[derive(Debug, Clone)]
pub struct GpuClaims {
    pub(crate) verified: nvidia::Verified,
    pub(crate) roots: Vec<SimulatedRootId>,
}

impl GpuClaims {
    /// All that they say.
    pub const fn claims(&self) -> &nvidia::Claims {
        self.verified.claims()
    }

    /// The simulated roots behind devices and manifests.
    pub(crate) fn provenances(&self) -> impl Iterator<Item = Provenance> {
        self.roots.iter().map(|root| Provenance::Simulated { root: *root })
    }
}

impl Parsed {
    pub(super) fn new(parts: &[&[u8]], report_data: &Digest) -> Result<Option<Self>, Refusal> {
        if parts.is_empty() {
            return Ok(None);
        }
        let mut entries = Vec::new();
        let mut certificates = Vec::new();
        for part in parts {
            let part = GpuPart::parse(part).map_err(|error| malformed(KIND, error))?;
            for der in &part.certificates {
                certificates.push(Certificate::from_der(der).map_err(|error| malformed(KIND, error))?);
            }
            entries.push(entry(&part, report_data));
        }
        let json = serde_json::to_vec(&entries).map_err(|error| malformed(KIND, error))?;
        let evidence = nvidia::Evidence::parse(&json).map_err(|error| malformed(KIND, error))?;
        for nonce in evidence.unverified_nonces() {
            check_report_data(KIND, nonce, report_data)?;
        }
        Ok(Some(Self { evidence, certificates }))
    }

    pub(super) fn verify(
        self,
        report_data: &Digest,
        context: &Context<'_>,
        checks: &mut Vec<Check>,
        windows: &mut Vec<Window>,
    ) -> Result<GpuClaims, Refusal> {
        let given = context.endorsements.snapshot();
        let stated: Vec<String> = self.evidence.unverified_versions().collect();
        // A manifest of another version says nothing about these GPUs, and whether it holds is nobody's business here.
        let rims: Vec<Rim> = given
            .nvidia_rims
            .iter()
            .filter(|rim| stated.iter().any(|version| version == rim.unverified_version()))
            .take(nvidia::MAX_RIMS)
            .cloned()
            .collect();
        let of_rims = || rims.iter().flat_map(Rim::unverified_certificates);
        let mut roots = nvidia::Roots::compiled_in();
        let mut known = cert::Roots::none();
        for root in named(&self.certificates, context.trust_anchors, SimulatedRootId::Nvidia) {
            known.add(root.clone());
            roots = roots.with_device(root);
        }
        for root in named(of_rims(), context.trust_anchors, SimulatedRootId::NvidiaRim) {
            roots = roots.with_rim(root);
        }
        for (root, _) in nvidia::Roots::compiled_in().devices().iter() {
            known.add(root.clone());
        }
        refuse_unknown_roots(&self.certificates, &known, SimulatedRootId::Nvidia)?;
        let endorsements =
            nvidia::Endorsements { rims: &rims, crls: &given.nvidia_crls, revoked: &given.nvidia_revoked };
        let now_s = seconds(context.now);
        let verification = nvidia::verify(&self.evidence, Nonce::Expected(report_data.0), &endorsements, &roots, now_s);
        let found = verified(KIND, verification.verified, &verification.checks, checks)?;
        for gpu in &found.claims().gpus {
            check_report_data(KIND, &gpu.nonce, report_data)?;
        }
        report_data_passes(KIND, checks);
        let mut window = Window::of_chains(
            "GPU certificates, manifests and revocation lists",
            self.certificates.iter().chain(of_rims()),
            &given.nvidia_crls,
        );
        let claims = found.claims();
        let ends = claims.gpus.iter().map(|gpu| gpu.not_after_s).chain(claims.rims.iter().map(|rim| rim.not_after_s));
        for not_after_s in ends {
            window = window.narrowed(i64::MIN, not_after_s);
        }
        windows.push(window);
        let devices = claims.gpus.iter().map(|gpu| (gpu.provenance, SimulatedRootId::Nvidia as fn(Digest) -> _));
        let manifests = claims.rims.iter().map(|rim| (rim.provenance, SimulatedRootId::NvidiaRim as fn(Digest) -> _));
        let mut simulated: Vec<SimulatedRootId> = devices
            .chain(manifests)
            .filter_map(|(provenance, sort)| match provenance {
                cert::Provenance::Genuine => None,
                cert::Provenance::Simulated { root } => Some(sort(Digest(root))),
            })
            .collect();
        simulated.sort_unstable();
        simulated.dedup();
        Ok(GpuClaims { verified: found, roots: simulated })
    }
}

impl GpuPart {
    /// The versions of driver and VBIOS that the report states, unverified, in lower case; none where it cannot be read.
    pub(crate) fn stated_versions(&self) -> Vec<String> {
        let json = serde_json::to_vec(&[entry(self, &Digest([0; 32]))]).unwrap_or_default();
        nvidia::Evidence::parse(&json).map(|evidence| evidence.unverified_versions().collect()).unwrap_or_default()
    }
}

/// The one form of one GPU that the parser of NVIDIA's JSON is given.
fn entry(part: &GpuPart, report_data: &Digest) -> serde_json::Value {
    let pem: String = part
        .certificates
        .iter()
        .map(|der| format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(der)))
        .collect();
    json!({
        "arch": match part.architecture {
            GpuArchitecture::Hopper => "HOPPER",
            GpuArchitecture::Blackwell => "BLACKWELL",
        },
        "certificate": BASE64.encode(pem.as_bytes()),
        "evidence": BASE64.encode(&part.report),
        "nonce": HEXLOWER.encode(report_data.as_bytes()),
    })
}

fn named<'c>(
    certificates: impl IntoIterator<Item = &'c Certificate>,
    anchors: &TrustAnchors,
    sort: fn(Digest) -> SimulatedRootId,
) -> Vec<Certificate> {
    let counts = |certificate: &&Certificate| {
        issues_itself(certificate) && anchors.names(&sort(Digest(certificate.fingerprint())))
    };
    certificates.into_iter().filter(counts).cloned().collect()
}
