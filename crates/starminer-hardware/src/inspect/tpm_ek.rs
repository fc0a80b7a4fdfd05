//! `starminer appraise tpm-ek`.

use super::authorities::{self, Authorities, at_most, is_self_issued};
use super::{Fault, File, Inspection, Options, PolicyFile, ended, unappraised, unasked};
use crate::cert::{Certificate, CertificateError, MAX_CERTIFICATE_BYTES};
use crate::tpm::ek::{Context, EkCertificate, Policy, appraise, roots, verify};

/// What NV storage pads certificates with, at most.
const PADDING_BYTES_MAX: usize = 16 * 1024;

/// Files of a call.
#[derive(Debug, Clone, Copy)]
pub struct TpmEk<'a> {
    /// The endorsement key's certificate; authorities may be beside it.
    pub certificates: &'a [File],
    /// Authorities and lists; its `certificates` are not used.
    pub authorities: Authorities<'a>,
}

/// Judges the certificate of a TPM's endorsement key.
#[must_use]
pub fn tpm_ek(given: &TpmEk<'_>, options: &Options<'_>) -> Inspection {
    ended(judge(given, options))
}

fn judge(given: &TpmEk<'_>, options: &Options<'_>) -> Result<Inspection, Fault> {
    let policy = options.policy.map(PolicyFile::tpm_ek).transpose()?;
    at_most("--cert", given.certificates)?;
    let mut read = authorities::read("tpm-ek", &Authorities { certificates: &[], ..given.authorities })?;
    let (leaf, certificate, others) = leaf(given.certificates)?;
    read.certificates = others;
    let roots = read.roots(roots());
    // Only what the caller names is a root, wherever else one that names itself as its issuer came from.
    let between = read.certificates.iter().chain(&read.between).filter(|certificate| !is_self_issued(certificate));
    let trusted: Vec<Certificate> = between.chain(&read.roots).cloned().collect();
    let context = Context { authorities: &trusted, crls: &read.crls, now_s: options.now_s };
    let verification = verify(&leaf, &context);
    let mut checks = verification.checks;
    let Some(verified) = verification.verified else {
        unappraised(&mut checks, "tpm-ek", options);
        return Ok(Inspection::refused(checks));
    };
    read.vouched(&mut checks, "tpm-ek.authorities", (&roots, &[]), Some(&certificate), options.now_s);
    match policy {
        Some(policy) => checks.extend(appraise(&verified, policy)),
        None => checks.extend(unasked(&appraise(&verified, &Policy::default()), &[])),
    }
    Ok(Inspection::judged(checks, verified.claims().to_json()))
}

/// The certificate that is about a key, as it lay in its file, and those of authorities beside it.
fn leaf(files: &[File]) -> Result<(EkCertificate, Certificate, Vec<Certificate>), Fault> {
    let mut all: Vec<(EkCertificate, Certificate)> = Vec::new();
    for file in files {
        let malformed = |error: CertificateError| Fault::malformed("tpm-ek", file, error.code(), &error);
        // One in DER is read as NV storage holds it, padding included.
        let one = file.bytes.first() == Some(&0x30) && file.bytes.len() <= MAX_CERTIFICATE_BYTES + PADDING_BYTES_MAX;
        let padded = one.then(|| EkCertificate::parse(&file.bytes)).and_then(Result::ok);
        if let Some(padded) = padded {
            let (certificate, _) = Certificate::from_der_prefix(&file.bytes).map_err(malformed)?;
            all.push((padded, certificate));
            continue;
        }
        for certificate in Certificate::read(&file.bytes).map_err(malformed)? {
            all.push((EkCertificate::parse(certificate.der()).map_err(malformed)?, certificate));
        }
    }
    let mut seen = Vec::new();
    all.retain(|(_, certificate)| {
        let new = !seen.contains(certificate);
        seen.push(certificate.clone());
        new
    });
    let nothing = File { name: "--cert".to_owned(), bytes: Vec::new() };
    let file = files.first().unwrap_or(&nothing);
    let keys: Vec<usize> = (0..all.len()).filter(|at| all.get(*at).is_some_and(|(_, one)| !one.is_ca())).collect();
    let at = match (keys.as_slice(), all.len()) {
        ([at], _) => *at,
        ([], 1) => 0,
        ([], _) => {
            return Err(Fault::malformed("tpm-ek", file, "tpm-ek.leaf", "no certificate is of an endorsement key"));
        }
        _ => {
            let reason = "more than one certificate that could be the endorsement key's";
            return Err(Fault::malformed("tpm-ek", file, "tpm-ek.leaf", reason));
        }
    };
    let (leaf, certificate) = all.swap_remove(at);
    Ok((leaf, certificate, all.into_iter().map(|(_, other)| other).collect()))
}
