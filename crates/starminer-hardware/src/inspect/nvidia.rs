//! `starminer appraise nvidia`.

use super::authorities::{self, Authorities, at_most};
use super::{Fault, File, InputError, Inspection, Options, PolicyFile, ended, unappraised};
use crate::cert::Certificate;
use crate::nvidia::{Endorsements, Evidence, Nonce, Policy, Rim, Roots, appraise, verify};

/// Files of a call.
#[derive(Debug, Clone, Copy)]
pub struct Nvidia<'a> {
    /// Evidence of one or several GPUs.
    pub evidence: &'a File,
    /// Manifests of drivers and VBIOSes.
    pub rims: &'a [File],
    /// The nonce that was asked with, if it is known.
    pub nonce: Option<&'a [u8]>,
    /// Roots for devices, and revocation lists. Certificates come with the evidence; others are not used.
    pub authorities: Authorities<'a>,
    /// Roots for manifests.
    pub rim_roots: &'a [File],
}

/// Judges evidence of NVIDIA's GPUs.
#[must_use]
pub fn nvidia(given: &Nvidia<'_>, options: &Options<'_>) -> Inspection {
    ended(judge(given, options))
}

fn judge(given: &Nvidia<'_>, options: &Options<'_>) -> Result<Inspection, Fault> {
    const REMEDY: &str = "give the nonce that the GPU was asked with, in hexadecimal";
    let policy = options.policy.map(PolicyFile::nvidia).transpose()?;
    at_most("--rim", given.rims)?;
    at_most("--rim-ca", given.rim_roots)?;
    let nonce = match given.nonce {
        None => Nonce::Unknown,
        Some(nonce) => Nonce::Expected(
            nonce
                .try_into()
                .map_err(|_| InputError::new("call.nonce", "--nonce", "a GPU's nonce has 32 bytes", REMEDY))?,
        ),
    };
    let authorities = authorities::read("nvidia", &given.authorities)?;
    let manifests = Authorities { roots: given.rim_roots, ..Authorities::default() };
    let rim_roots = authorities::read("nvidia", &manifests)?.roots;
    let malformed = |file: &File, code, reason: String| Fault::malformed("nvidia", file, code, reason);
    let evidence = Evidence::parse(&given.evidence.bytes)
        .map_err(|error| malformed(given.evidence, error.code(), told(&error)))?;
    let rims: Vec<Rim> = given
        .rims
        .iter()
        .map(|file| Rim::parse(&file.bytes).map_err(|error| malformed(file, error.code(), told(&error))))
        .collect::<Result<_, _>>()?;
    let all =
        |roots: Roots, more: Vec<Certificate>, add: fn(Roots, Certificate) -> Roots| more.into_iter().fold(roots, add);
    let roots = all(Roots::compiled_in(), authorities.roots, Roots::with_device);
    let roots = all(roots, rim_roots, Roots::with_rim);
    let endorsements = Endorsements { rims: &rims, crls: &authorities.crls, revoked: &[] };
    let verification = verify(&evidence, nonce, &endorsements, &roots, options.now_s);
    let mut checks = verification.checks;
    let Some(verified) = verification.verified else {
        unappraised(&mut checks, "nvidia", options);
        return Ok(Inspection::refused(checks));
    };
    let without = Policy::consistency();
    checks.extend(appraise(&verified, policy.unwrap_or(&without)));
    Ok(Inspection::judged(checks, verified.claims().to_json()))
}

/// An error with what caused it.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}
