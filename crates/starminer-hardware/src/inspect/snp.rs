//! `starminer appraise snp`.

use super::authorities::{self, Authorities};
use super::{Fault, File, Inspection, Options, ended, unappraised, unasked};
use crate::cert::Certificate;
use crate::snp::{Policy, Report, appraise, roots, signers, verify};

/// Worth telling whatever anyone expects: with debugging allowed the host reads and writes the guest's memory.
const TOLD: [&str; 1] = ["snp.policy.guest.debug"];

/// Files of a call.
#[derive(Debug, Clone, Copy)]
pub struct Snp<'a> {
    /// The attestation report.
    pub report: &'a File,
    /// VCEK or VLEK, and authorities.
    pub authorities: Authorities<'a>,
}

/// Judges a report of SEV-SNP.
#[must_use]
pub fn snp(given: &Snp<'_>, options: &Options<'_>) -> Inspection {
    ended(judge(given, options))
}

fn judge(given: &Snp<'_>, options: &Options<'_>) -> Result<Inspection, Fault> {
    let policy = options.policy.map(super::PolicyFile::snp).transpose()?;
    let authorities = authorities::read("snp", &given.authorities)?;
    let report = Report::parse(&given.report.bytes)
        .map_err(|error| Fault::malformed("snp", given.report, error.code(), error))?;
    let roots = authorities.roots(roots());
    let certificates: Vec<Certificate> = authorities.certificates.iter().chain(&authorities.between).cloned().collect();
    let verification = verify(&report, &certificates, &authorities.crls, &roots, options.now_s);
    let mut checks = verification.checks;
    let Some(verified) = verification.verified else {
        unappraised(&mut checks, "snp", options);
        return Ok(Inspection::refused(checks));
    };
    authorities.vouched(&mut checks, "snp.authorities", (&roots, signers()), None, options.now_s);
    match policy {
        Some(policy) => checks.extend(appraise(&verified, policy)),
        None => checks.extend(unasked(&appraise(&verified, &Policy::default()), &TOLD)),
    }
    Ok(Inspection::judged(checks, verified.claims().to_json()))
}
