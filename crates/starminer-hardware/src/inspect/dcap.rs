//! `starminer appraise dcap`: SGX and TDX, told apart by the quote.

use super::authorities::{self, Authorities, at_most};
use super::{Fault, File, Inspection, Options, PolicyFile, ended, endorsements, logs, unappraised, unasked};
use crate::cert::Provenance;
use crate::dcap::{Policy, Quote, TcbStatus, Verified, appraise, roots, verify};
use crate::event_log::Registers;
use crate::{Checks, Verdict, Weight};

/// Worth telling whatever anyone expects: in debug mode the host reads the memory.
const TOLD: [&str; 1] = ["dcap.policy.debug"];

/// Files of a call.
#[derive(Debug, Clone, Copy)]
pub struct Dcap<'a> {
    /// The quote.
    pub quote: &'a File,
    /// What Intel publishes, in `dcap-qvl`'s form or as Intel's service answers.
    pub endorsements: &'a [File],
    /// Parts of that in files of their own, and other roots.
    pub authorities: Authorities<'a>,
    /// The log of a trust domain's run-time measurements (`CCEL`).
    pub eventlog: Option<&'a File>,
}

/// Judges a quote of SGX or TDX.
#[must_use]
pub fn dcap(given: &Dcap<'_>, options: &Options<'_>) -> Inspection {
    ended(judge(given, options))
}

fn judge(given: &Dcap<'_>, options: &Options<'_>) -> Result<Inspection, Fault> {
    let policy = options.policy.map(PolicyFile::dcap).transpose()?;
    let log_policy = options.policy.filter(|_| given.eventlog.is_some()).map(PolicyFile::eventlog).transpose()?;
    at_most("--endorsements", given.endorsements)?;
    let parts = authorities::read("dcap", &given.authorities)?;
    let quote =
        Quote::parse(&given.quote.bytes).map_err(|error| Fault::malformed("dcap", given.quote, error.code(), error))?;
    let log = given.eventlog.map(logs::parse_eventlog).transpose()?;
    let endorsements = endorsements::gather(given.endorsements, &parts)?;
    let verification = verify(&quote, &endorsements, &parts.roots(roots()), options.now_s);
    let mut checks = verification.checks;
    let Some(verified) = verification.verified else {
        unappraised(&mut checks, "dcap", options);
        return Ok(Inspection::refused(checks));
    };
    up_to_date(&mut checks, &verified);
    match policy {
        Some(policy) => checks.extend(appraise(&verified, policy)),
        None => checks.extend(unasked(&appraise(&verified, &Policy::default()), &TOLD)),
    }
    let mut claims = verified.claims().to_json();
    claims["provenance"] = verified.provenance().name().into();
    if let Provenance::Simulated { root } = verified.provenance() {
        claims["simulated_root"] = data_encoding::HEXLOWER.encode(&root).into();
    }
    if let Some(log) = &log {
        let Some(report) = verified.claims().tdx() else {
            checks.require("dcap.eventlog", Err("an enclave of SGX has no registers that a log could explain"));
            return Ok(Inspection::judged(checks, claims));
        };
        claims["eventlog"] = logs::judge_eventlog(log, Registers::Rtmrs(&report.rtmrs), log_policy, &mut checks);
    }
    Ok(Inspection::judged(checks, claims))
}

/// How up to date the platform is, told apart from any policy. One that is revoked does not verify.
fn up_to_date(checks: &mut Checks, verified: &Verified) {
    let tcb = verified.claims().tcb();
    let verdict = if tcb.status == TcbStatus::UpToDate { Verdict::Pass } else { Verdict::Fail };
    let advisories = if tcb.advisories.is_empty() { "none".to_owned() } else { tcb.advisories.join(", ") };
    let reason = format!("TCB status {}, open advisories: {advisories}", tcb.status);
    checks.push("dcap.up-to-date", verdict, Weight::Informative, reason);
}
