//! Verification: inner consistency first, then chains and signatures, of GPUs and of manifests.

use std::collections::BTreeSet;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::claims::{Claims, GpuClaims, RimClaims};
use super::device::{Device, Outcome, architecture, firmware, stated_versions};
use super::evidence::{Evidence, Gpu};
use super::rim::Rim;
use super::spdm::NONCE_LEN;
use crate::cert::{
    Certificate, Chain, ChainOptions, Crl, Hash, Provenance, Roots as CertificateRoots, SignatureAlgorithm,
    build_chain, memo,
};
use crate::{Checks, Verdict, Weight};

/// Most manifests at a time.
pub const MAX_RIMS: usize = 32;

/// The extension that says where a certificate's revocation list is found: 2.5.29.31.
const DISTRIBUTION_POINTS: &[u8] = &[0x55, 0x1d, 0x1f];

/// The nonce that the verifier expects.
#[derive(Debug, Clone, Copy)]
pub enum Nonce {
    /// The one that it had given out.
    Expected([u8; NONCE_LEN]),
    /// None: whether the evidence is fresh is not checked, and says so.
    Unknown,
}

/// What is known beside the evidence.
#[derive(Debug, Clone, Copy, Default)]
pub struct Endorsements<'a> {
    /// Manifests of drivers and VBIOSes. One that does not verify refuses the whole.
    pub rims: &'a [Rim],
    /// Revocation lists of NVIDIA's authorities.
    pub crls: &'a [Crl],
    /// SHA-256 of certificates that somebody said are revoked: the slot for OCSP, whose answers the caller verifies.
    pub revoked: &'a [[u8; 32]],
}

/// Whom to believe: one kind of root for devices, another for manifests. Neither vouches for the other.
#[derive(Debug, Clone)]
pub struct Roots {
    device: CertificateRoots,
    rim: CertificateRoots,
}

impl Roots {
    /// NVIDIA's own, compiled in.
    #[must_use]
    pub fn compiled_in() -> Self {
        let read = |pem: &[u8]| {
            CertificateRoots::compiled_in(Certificate::read(pem).expect("a root that is compiled in can be read"))
        };
        Self {
            device: read(include_bytes!("../../roots/nvidia/device-identity-ca.pem")),
            rim: read(include_bytes!("../../roots/nvidia/corim-signing-root-ca.pem")),
        }
    }

    /// All of either kind.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Certificate, Provenance)> {
        self.device.iter().chain(self.rim.iter())
    }

    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { device: CertificateRoots::none(), rim: CertificateRoots::none() }
    }

    /// The roots of devices.
    #[must_use]
    pub const fn devices(&self) -> &CertificateRoots {
        &self.device
    }

    /// Believes this root for devices too. What hangs on it is simulated.
    #[must_use]
    pub fn with_device(mut self, root: Certificate) -> Self {
        self.device.add(root);
        self
    }

    /// Believes this root for manifests too. What hangs on it is simulated.
    #[must_use]
    pub fn with_rim(mut self, root: Certificate) -> Self {
        self.rim.add(root);
        self
    }
}

/// What came of a verification.
#[derive(Debug)]
pub struct Verification {
    /// All checks that were made, and those that were not.
    pub checks: Checks,
    /// There if all that is required passed.
    pub verified: Option<Verified>,
}

/// Evidence whose chains and signatures hold. Only [`verify`] makes it.
#[derive(Debug, Clone)]
pub struct Verified {
    claims: Claims,
    pub(super) rims: Vec<Rim>,
    pub(super) nonce_expected: bool,
    pub(super) revocation_checked: bool,
}

impl Verified {
    /// What it says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }
}

/// Verifies evidence, and the manifests that come with it.
#[must_use]
pub fn verify(
    evidence: &Evidence,
    nonce: Nonce,
    endorsements: &Endorsements<'_>,
    roots: &Roots,
    now_s: u64,
) -> Verification {
    let mut context = Context {
        checks: Checks::new(),
        endorsements,
        now_s,
        several: evidence.gpus.len() > 1,
        revocation_checked: true,
    };
    let devices: Vec<Option<Device>> =
        evidence.gpus.iter().enumerate().map(|(at, gpu)| context.consistency(at, gpu, nonce)).collect();
    context.together(evidence, &devices);

    // A chain costs five verifications: whoever got the cheap part wrong, or one GPU, is not given more.
    let mut gpus = Vec::new();
    let mut go_on = devices.iter().all(Option::is_some);
    for (at, (gpu, device)) in evidence.gpus.iter().zip(devices).enumerate() {
        let claims = device.filter(|_| go_on).and_then(|device| context.signatures(at, gpu, &device, roots));
        go_on = claims.is_some();
        match claims {
            Some(claims) => gpus.push(claims),
            None => context.skipped(at),
        }
    }
    let rims = context.rims(roots);
    let Context { checks, revocation_checked, .. } = context;
    let mut provenances = gpus.iter().map(|gpu| gpu.provenance).chain(rims.iter().map(|(_, claims)| claims.provenance));
    let provenance = provenances.find(|&provenance| provenance != Provenance::Genuine).unwrap_or(Provenance::Genuine);
    let complete = gpus.len() == evidence.gpus.len() && rims.len() == endorsements.rims.len();
    let verified = (complete && checks.hold()).then(|| {
        let (rims, claimed) = rims.into_iter().unzip();
        Verified {
            claims: Claims { gpus, rims: claimed, provenance },
            rims,
            nonce_expected: matches!(nonce, Nonce::Expected(_)),
            revocation_checked,
        }
    });
    Verification { checks, verified }
}

/// Verifies a manifest by itself, so that it can be kept. Revocation lists and reports are looked at with the evidence.
#[must_use]
pub fn verify_rim(rim: &Rim, roots: &Roots, now_s: u64) -> (Checks, Option<RimClaims>) {
    let endorsements = Endorsements::default();
    let mut context =
        Context { checks: Checks::new(), endorsements: &endorsements, now_s, several: false, revocation_checked: true };
    let claims = context.rim(rim, roots);
    let hold = context.checks.hold();
    (context.checks, claims.filter(|_| hold))
}

struct Context<'a> {
    checks: Checks,
    endorsements: &'a Endorsements<'a>,
    now_s: u64,
    several: bool,
    /// Whether revocation was checked for every chain so far.
    revocation_checked: bool,
}

impl Context<'_> {
    fn subject(&self, at: usize) -> String {
        if self.several { format!("GPU {at}: ") } else { String::new() }
    }

    fn require(&mut self, name: &'static str, subject: &str, outcome: Outcome) -> bool {
        let outcome = match outcome {
            Ok(reason) => Ok(format!("{subject}{reason}")),
            Err(reason) => Err(format!("{subject}{reason}")),
        };
        self.checks.require(name, outcome)
    }

    /// Everything that costs no signature. Gives the device if all of it holds.
    fn consistency(&mut self, at: usize, gpu: &Gpu, nonce: Nonce) -> Option<Device> {
        let subject = self.subject(at);
        let request_nonce = &gpu.report.request_nonce;
        let mut holds = self.require("nvidia.nonce-stated", &subject, equal_nonce(&gpu.stated_nonce, request_nonce));
        match nonce {
            Nonce::Expected(expected) => {
                holds &= self.require("nvidia.nonce", &subject, equal_nonce(&expected, request_nonce));
            }
            Nonce::Unknown => self.checks.not_checked(
                "nvidia.nonce",
                format!("{subject}no nonce was given to expect, so that the evidence may be old"),
            ),
        }
        holds &= self.require("nvidia.versions-stated", &subject, stated_versions(gpu));
        let device = Device::of(gpu);
        let architecture = device.as_ref().map_err(Clone::clone).and_then(|device| architecture(gpu, device));
        holds &= self.require("nvidia.architecture", &subject, architecture);
        holds &= self.firmware(gpu, &subject);
        device.ok().filter(|_| holds)
    }

    /// The extension of the attestation certificate against the report and the chain.
    fn firmware(&mut self, gpu: &Gpu, subject: &str) -> bool {
        let firmware = match firmware(gpu) {
            Ok(firmware) => firmware,
            Err(reason) => return self.require("nvidia.fwid", subject, Err(reason)),
        };
        let mut holds = true;
        match gpu.report.opaque.fwid {
            None => self.checks.not_checked("nvidia.fwid", format!("{subject}the report states no firmware id")),
            Some(fwid) => {
                let outcome = if fwid == firmware.fwid {
                    Ok("the certificate and the report name the same firmware".to_owned())
                } else {
                    Err("the certificate was issued for other firmware than the report names".to_owned())
                };
                holds &= self.require("nvidia.fwid", subject, outcome);
            }
        }
        match &firmware.issuer_key {
            None => self.checks.not_checked(
                "nvidia.device-key",
                format!("{subject}certificates of this form do not repeat the key of the layer beneath"),
            ),
            Some(key) => {
                let issuer = gpu.certificates.get(1).map(Certificate::spki);
                let outcome = if issuer == Some(key.as_slice()) {
                    Ok("the attestation certificate names the very key of the chip that issued it".to_owned())
                } else {
                    Err("the attestation certificate names another key than that of its issuer".to_owned())
                };
                holds &= self.require("nvidia.device-key", subject, outcome);
            }
        }
        match firmware.flags {
            None => self.checks.not_checked(
                "nvidia.firmware-state",
                format!("{subject}neither certificate nor report of this form says whether debug is possible: only measurements tell"),
            ),
            Some(flags) => {
                let outcome = if flags.debug || flags.recovery || flags.insecure {
                    Err(format!(
                        "the firmware says of itself: debug {}, recovery {}, not secure {}",
                        flags.debug, flags.recovery, flags.insecure
                    ))
                } else {
                    Ok("the firmware says that it is secure, and in neither debug nor recovery".to_owned())
                };
                holds &= self.require("nvidia.firmware-state", subject, outcome);
            }
        }
        holds
    }

    /// What has to hold between GPUs.
    fn together(&mut self, evidence: &Evidence, devices: &[Option<Device>]) {
        if !self.several {
            return;
        }
        let leaves: BTreeSet<_> =
            evidence.gpus.iter().filter_map(|gpu| gpu.certificates.first().map(Certificate::spki)).collect();
        let names: BTreeSet<_> = devices.iter().flatten().map(|device| &device.name.serial).collect();
        let distinct = if leaves.len() == evidence.gpus.len() && names.len() == devices.iter().flatten().count() {
            Ok("every GPU is another device".to_owned())
        } else {
            Err("one device stands for several GPUs".to_owned())
        };
        self.require("nvidia.distinct-devices", "", distinct);
        let modes: BTreeSet<_> = evidence.gpus.iter().map(|gpu| gpu.report.opaque.mode).collect();
        let one = if modes.len() == 1 {
            Ok("all GPUs are in the same mode".to_owned())
        } else {
            Err("the GPUs are in different modes".to_owned())
        };
        self.require("nvidia.one-mode", "", one);
    }

    /// The signature, and then the chain to its key: a forged report costs one verification whatever chain it comes with.
    fn signatures(&mut self, at: usize, gpu: &Gpu, device: &Device, roots: &Roots) -> Option<GpuClaims> {
        let subject = self.subject(at);
        let outcome = signed(gpu.certificates.first(), &gpu.report.signed, &gpu.report.signature);
        if !self.require("nvidia.report-signature", &subject, outcome) {
            return None;
        }
        let chain = self.chain("nvidia.certificate-chain", &subject, &gpu.certificates, &roots.device)?;
        let unrevoked = self.revoked(&chain, "nvidia.revocation", &subject);
        unrevoked.then(|| GpuClaims::new(gpu, &chain, &device.name, device.model.clone()))
    }

    fn chain(
        &mut self,
        name: &'static str,
        subject: &str,
        certificates: &[Certificate],
        roots: &CertificateRoots,
    ) -> Option<Chain> {
        match whole_chain(certificates, roots, self.now_s) {
            Ok(chain) => {
                let reason =
                    format!("{} certificates up to {}", chain.certificates().len(), chain.root().subject_name());
                self.require(name, subject, Ok(reason));
                Some(chain)
            }
            Err(reason) => {
                self.require(name, subject, Err(reason));
                None
            }
        }
    }

    fn skipped(&mut self, at: usize) {
        let reason = format!("{}not verified further, since a check failed before", self.subject(at));
        self.checks.push("nvidia.report-signature", Verdict::NotChecked, Weight::Required, reason);
    }

    /// Manifests that verify, with what they are about.
    fn rims(&mut self, roots: &Roots) -> Vec<(Rim, RimClaims)> {
        let rims = self.endorsements.rims;
        if rims.len() > MAX_RIMS {
            let reason = format!("more than {MAX_RIMS} manifests were given");
            self.require("nvidia.rim-signature", "", Err(reason));
            return Vec::new();
        }
        rims.iter().filter_map(|rim| self.rim(rim, roots).map(|claims| (rim.clone(), claims))).collect()
    }

    fn rim(&mut self, rim: &Rim, roots: &Roots) -> Option<RimClaims> {
        let subject = format!("RIM of {} {}: ", rim.kind.name(), rim.version);
        let digest = if rim.content_digest == rim.stated_digest {
            Ok("the file has the digest that is signed".to_owned())
        } else {
            Err("the file was changed after it was signed".to_owned())
        };
        if !self.require("nvidia.rim-digest", &subject, digest) {
            return None;
        }
        // The same few manifests are held against every GPU, so that their signatures are verified once a process.
        let signature = rim.certificates.first().map(|signer| (rim.signature_digest(), signer.fingerprint()));
        let outcome = if signature.as_ref().is_some_and(memo::knows) {
            Ok("signed by the first certificate's key".to_owned())
        } else {
            signed(rim.certificates.first(), &rim.signed_info, &rim.signature)
        };
        if !self.require("nvidia.rim-signature", &subject, outcome) {
            return None;
        }
        let chain = self.chain("nvidia.rim-chain", &subject, &rim.certificates, &roots.rim)?;
        signature.into_iter().for_each(memo::remember);
        if let [signer, issuer, ..] = chain.certificates() {
            memo::remember((signer.fingerprint(), issuer.fingerprint()));
        }
        let unrevoked = self.revoked(&chain, "nvidia.rim-revocation", &subject);
        unrevoked.then(|| RimClaims::new(rim, &chain))
    }

    /// Holds a verified chain against lists and reports. Not checked unless a list was given for every certificate that names one.
    fn revoked(&mut self, chain: &Chain, name: &'static str, subject: &str) -> bool {
        let (mut lists_held, mut missing) = (0, Vec::new());
        for pair in chain.certificates().windows(2) {
            let [certificate, issuer] = pair else { continue };
            if self.endorsements.revoked.contains(&certificate.fingerprint()) {
                return self.require(
                    name,
                    subject,
                    Err(format!("{} is reported as revoked", certificate.subject_name())),
                );
            }
            let lists: Vec<_> =
                self.endorsements.crls.iter().filter(|list| list.issuer() == issuer.subject()).collect();
            if lists.is_empty() && certificate.extension(DISTRIBUTION_POINTS).is_some() {
                missing.push(issuer.subject_name());
            }
            for list in lists {
                let problem = match list.verify(issuer, self.now_s) {
                    Ok(list) if list.revokes(certificate) => {
                        format!("{} is on its issuer's revocation list", certificate.subject_name())
                    }
                    Ok(_) => {
                        lists_held += 1;
                        continue;
                    }
                    Err(error) => format!("the revocation list of {}: {error}", issuer.subject_name()),
                };
                return self.require(name, subject, Err(problem));
            }
        }
        if missing.is_empty() && lists_held > 0 {
            return self.require(name, subject, Ok("no certificate is on its issuer's revocation list".to_owned()));
        }
        self.revocation_checked = false;
        let reason = if missing.is_empty() {
            format!("{subject}no certificate names a revocation list, and none was given")
        } else {
            format!("{subject}no revocation list was given of {}", missing.join("; "))
        };
        self.checks.not_checked(name, reason);
        true
    }
}

fn equal_nonce(expected: &[u8; NONCE_LEN], request: &[u8; NONCE_LEN]) -> Outcome {
    match verify_slices_are_equal(expected, request) {
        Ok(()) => Ok("the report was asked with this nonce".to_owned()),
        Err(_) => Err("the report was asked with another nonce".to_owned()),
    }
}

/// A chain from the first of these certificates, over each of the others in its order, to a root.
fn whole_chain(certificates: &[Certificate], roots: &CertificateRoots, now_s: u64) -> Result<Chain, String> {
    let (leaf, others) = certificates.split_first().ok_or("there is no certificate")?;
    let chain = build_chain(leaf, others, roots, now_s, &ChainOptions::default()).map_err(|error| error.to_string())?;
    let used = chain.certificates();
    // The root may be left out, and nothing may be there that is not used: it would be neither verified nor said.
    if certificates == used || used.split_last().is_some_and(|(_, used)| used == certificates) {
        Ok(chain)
    } else {
        Err("the certificates are not exactly those of the chain, in their order".to_owned())
    }
}

fn signed(signer: Option<&Certificate>, message: &[u8], signature: &[u8]) -> Outcome {
    let key = signer.ok_or("there is no certificate")?.public_key().map_err(|error| error.to_string())?;
    if !matches!(key.ec(), Some((crate::cert::Curve::P384, _))) {
        return Err("the signer's key is not of P-384".to_owned());
    }
    key.verify(SignatureAlgorithm::EcdsaFixed(Hash::Sha384), message, signature)
        .map(|()| "signed by the first certificate's key".to_owned())
        .map_err(|error| error.to_string())
}
