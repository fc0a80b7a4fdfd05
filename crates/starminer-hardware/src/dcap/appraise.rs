//! A verified quote against a policy.

use std::collections::BTreeSet;

use crate::cert::Provenance;
use crate::{Checks, Verdict, Weight};

use super::body::{Body, SgxReport, TdReport};
use super::judge::Expiry;
use super::parse::Trailing;
use super::pck::hex;
use super::policy::{
    Expect, FlagRule, Hex, Policy, SgxAttribute, SgxPolicy, StatusRule, StatusTable, TdAttribute, TdxPolicy,
    TrailingRule, x_required,
};
use super::tcb::Level;
use super::time::readable;
use super::verify::Verified;

const DAY_S: u64 = 86_400;

/// Compares what a verified quote says with what a policy demands, at the time at which it was verified.
#[must_use]
pub fn appraise(verified: &Verified, policy: &Policy) -> Checks {
    let mut checks = Checks::new();
    let claims = verified.claims();
    provenance(&mut checks, verified.provenance(), policy);
    bytes(&mut checks, "dcap.policy.report-data", "report data", &policy.report_data, *claims.body.report_data());
    trailing(&mut checks, claims.trailing, policy.trailing_bytes);
    let tcb = &claims.tcb;
    let platform = platform_level(verified);
    status(&mut checks, "dcap.policy.tcb-status", "the platform", &policy.tcb_status, &platform, verified.at_s());
    if let Some(current) = &tcb.current {
        let what = "the platform with its current TDX module";
        status(&mut checks, "dcap.policy.current-tcb-status", what, &policy.tcb_status, current, verified.at_s());
    }
    status(
        &mut checks,
        "dcap.policy.qe-tcb-status",
        "the quoting enclave",
        &policy.qe_tcb_status,
        &tcb.qe,
        verified.at_s(),
    );
    let advisories = [Some(&tcb.platform), tcb.current.as_ref(), Some(&tcb.qe)];
    advisories_allowed(&mut checks, advisories.into_iter().flatten(), &policy.advisories_allowed);
    endorsements(&mut checks, verified, policy);
    bytes(&mut checks, "dcap.policy.fmspc", "FMSPC", &policy.fmspc, claims.platform.fmspc);
    for (name, what, rule, flag) in [
        ("dcap.policy.dynamic-platform", "dynamic platform", policy.dynamic_platform, claims.platform.dynamic_platform),
        ("dcap.policy.cached-keys", "cached keys", policy.cached_keys, claims.platform.cached_keys),
        ("dcap.policy.smt", "hyper-threading", policy.smt_enabled, claims.platform.smt_enabled),
    ] {
        platform_flag(&mut checks, name, what, rule, flag);
    }
    match &claims.body {
        Body::Sgx(report) => sgx(&mut checks, report, &policy.sgx),
        Body::Tdx(report) => tdx(&mut checks, report, &policy.tdx),
    }
    checks
}

/// Until when the verdicts stand that rest on time, soonest first: what verification rests on, and what this policy grants for a while.
///
/// With newer endorsements there may be a later end, or an earlier one.
#[must_use]
pub fn forecast(verified: &Verified, policy: &Policy) -> Vec<Expiry> {
    let mut ends = verified.expiries().to_vec();
    let tcb = &verified.claims().tcb;
    for (what, table, level) in
        [("tcb-grace", &policy.tcb_status, &platform_level(verified)), ("qe-tcb-grace", &policy.qe_tcb_status, &tcb.qe)]
    {
        if let StatusRule::AcceptDays(days) = table.rule(level.status) {
            ends.push(Expiry { what, at_s: days_after(level.date_s, days) });
        }
    }
    ends.push(Expiry { what: "endorsement-age", at_s: endorsed_until_s(verified, policy) });
    ends.sort_by_key(|end| end.at_s);
    ends
}

const fn days_after(at_s: u64, days: u32) -> u64 {
    at_s.saturating_add(days as u64 * DAY_S)
}

/// The platform's level, with what an updated module beneath it changes.
fn platform_level(verified: &Verified) -> Level {
    let tcb = &verified.claims().tcb;
    let mut level = tcb.platform.clone();
    if let Some(current) = &tcb.current {
        level.status = super::tcb::relaunch(level.status, current.status);
    }
    level
}

fn endorsed_until_s(verified: &Verified, policy: &Policy) -> u64 {
    let used = verified.claims().endorsements();
    days_after(used.tcb_info_issued_s.min(used.qe_identity_issued_s), policy.max_endorsement_age_days)
}

/// A required check that passes or fails, with a reason for either.
fn hold(checks: &mut Checks, name: &'static str, holds: bool, reason: String) {
    checks.require(name, if holds { Ok(reason) } else { Err(reason) });
}

fn provenance(checks: &mut Checks, provenance: Provenance, policy: &Policy) {
    let result = match provenance {
        Provenance::Genuine => Ok("Intel's root".into()),
        Provenance::Simulated { root } if policy.simulated_roots.contains(&Hex(root)) => {
            Ok(format!("simulated: the policy names root {}", hex(&root)))
        }
        Provenance::Simulated { root } => Err(format!("simulated: the policy does not name root {}", hex(&root))),
    };
    checks.require("dcap.policy.provenance", result);
}

/// A value that has to be one of those expected.
fn value<T: PartialEq>(
    checks: &mut Checks,
    name: &'static str,
    what: &str,
    expected: &Expect<T>,
    found: &T,
    show: impl Fn(&T) -> String,
) {
    match expected {
        Expect::Any => checks.not_checked(name, format!("{what} {}: the policy takes any", show(found))),
        Expect::Unset => {
            let reason = format!("{what} {}: the policy does not say what is expected, which denies", show(found));
            checks.push(name, Verdict::NotChecked, Weight::Required, reason);
        }
        Expect::OneOf(values) => {
            let holds = values.contains(found);
            let reason = if holds { "is as expected" } else { "is not among what is expected" };
            hold(checks, name, holds, format!("{what} {} {reason}", show(found)));
        }
    }
}

fn bytes<const N: usize>(
    checks: &mut Checks,
    name: &'static str,
    what: &str,
    expected: &Expect<Hex<N>>,
    found: [u8; N],
) {
    value(checks, name, what, expected, &Hex(found), |value| hex(&value.0));
}

fn trailing(checks: &mut Checks, found: Trailing, rule: TrailingRule) {
    let holds = match (found, rule) {
        (Trailing::None, _) | (_, TrailingRule::Anything) | (Trailing::Zeros(_), TrailingRule::Zeros) => true,
        (Trailing::Zeros(_), TrailingRule::Nothing)
        | (Trailing::Other(_), TrailingRule::Nothing | TrailingRule::Zeros) => false,
    };
    let reason = match found {
        Trailing::None => "nothing follows the quote".into(),
        Trailing::Zeros(count) => format!("{count} zero bytes follow the quote"),
        Trailing::Other(count) => format!("{count} bytes that nothing signs follow the quote"),
    };
    hold(checks, "dcap.policy.trailing-bytes", holds, reason);
}

fn status(checks: &mut Checks, name: &'static str, what: &str, table: &StatusTable, level: &Level, at_s: u64) {
    let found = format!("{what} is {} (TCB of {})", level.status, readable(level.date_s));
    let result = match table.rule(level.status) {
        StatusRule::Accept => Ok(format!("{found}, which the policy accepts")),
        StatusRule::Refuse => Err(format!("{found}, which the policy refuses")),
        StatusRule::AcceptDays(days) => {
            let until_s = days_after(level.date_s, days);
            if at_s <= until_s {
                Ok(format!("{found}, which the policy accepts until {}", readable(until_s)))
            } else {
                Err(format!("{found}, which the policy accepted until {}", readable(until_s)))
            }
        }
    };
    checks.require(name, result);
}

fn advisories_allowed<'a>(checks: &mut Checks, levels: impl Iterator<Item = &'a Level>, allowed: &BTreeSet<String>) {
    let open: BTreeSet<&String> = levels.flat_map(|level| &level.advisories).collect();
    let unknown: Vec<&str> = open.iter().filter(|one| !allowed.contains(**one)).map(|one| one.as_str()).collect();
    let reason = match (open.len(), unknown.len()) {
        (0, _) => "none is open".into(),
        (_, 0) => "the policy allows each that is open".into(),
        _ => format!("open and not allowed by the policy: {}", unknown.join(", ")),
    };
    hold(checks, "dcap.policy.advisories", unknown.is_empty(), reason);
}

fn endorsements(checks: &mut Checks, verified: &Verified, policy: &Policy) {
    let used = verified.claims().endorsements();
    let number = used.tcb_evaluation_data_number.min(used.qe_evaluation_data_number);
    let name = "dcap.policy.evaluation-data-number";
    match policy.min_tcb_evaluation_data_number {
        0 => checks.not_checked(name, format!("{number}: the policy sets no floor")),
        floor => hold(checks, name, number >= floor, format!("{number}, the policy's floor is {floor}")),
    }
    let issued_s = used.tcb_info_issued_s.min(used.qe_identity_issued_s);
    let until_s = endorsed_until_s(verified, policy);
    let reason = format!(
        "issued {}, the policy takes them for {} days, until {}",
        readable(issued_s),
        policy.max_endorsement_age_days,
        readable(until_s)
    );
    hold(checks, "dcap.policy.endorsement-age", verified.at_s() <= until_s, reason);
}

fn platform_flag(checks: &mut Checks, name: &'static str, what: &str, rule: FlagRule, flag: Option<bool>) {
    let found = match flag {
        None => format!("{what}: the PCK certificate does not say"),
        Some(on) => format!("{what}: {}", if on { "on" } else { "off" }),
    };
    match rule {
        FlagRule::Any => checks.not_checked(name, format!("{found}; the policy takes any")),
        FlagRule::Off => hold(checks, name, flag == Some(false), format!("{found}; the policy demands off")),
        FlagRule::On => hold(checks, name, flag == Some(true), format!("{found}; the policy demands on")),
    }
}

/// Attributes: those required, those allowed, none that is reserved; and debug apart, because it ends everything.
fn attributes(
    checks: &mut Checks,
    [debug_name, name]: [&'static str; 2],
    debug: (u64, bool),
    set: (u64, u64, Vec<&'static str>),
    required: u64,
    allowed: u64,
) {
    let (debug_bits, debug_allowed) = debug;
    let (bits, reserved, names) = set;
    let debugged = bits & debug_bits != 0;
    let reason = match (debugged, debug_allowed) {
        (false, _) => "not set",
        (true, true) => "set, and the policy allows it",
        (true, false) => "set: whoever runs the machine reads the memory",
    };
    hold(checks, debug_name, !debugged || debug_allowed, reason.into());
    let missing = required & !bits;
    let excess = bits & !(required | allowed);
    let reason = if reserved != 0 {
        format!("reserved bits are set: {reserved:#x}")
    } else {
        format!("set: {}; missing: {missing:#x}; set and not allowed: {excess:#x}", names.join(", "))
    };
    hold(checks, name, reserved == 0 && missing == 0 && excess == 0, reason);
}

fn features(checks: &mut Checks, name: &'static str, found: u64, allowed: Hex<8>) {
    let excess = found & !u64::from_le_bytes(allowed.0);
    let missing = x_required() & !found;
    let reason = format!("{found:#x}; missing: {missing:#x}; not allowed: {excess:#x}");
    hold(checks, name, excess == 0 && missing == 0, reason);
}

fn at_least(checks: &mut Checks, name: &'static str, what: &str, found: u16, floor: u16) {
    if floor == 0 {
        checks.not_checked(name, format!("{what} {found}: the policy sets no floor"));
    } else {
        hold(checks, name, found >= floor, format!("{what} {found}, the policy's floor is {floor}"));
    }
}

fn sgx(checks: &mut Checks, report: &SgxReport, policy: &SgxPolicy) {
    bytes(checks, "dcap.policy.mrenclave", "MRENCLAVE", &policy.mrenclave, report.mr_enclave);
    bytes(checks, "dcap.policy.mrsigner", "MRSIGNER", &policy.mrsigner, report.mr_signer);
    value(checks, "dcap.policy.isv-prod-id", "product id", &policy.isv_prod_id, &report.isv_prod_id, u16::to_string);
    // What is pinned by neither measurement nor signer is anybody's enclave.
    if policy.mrenclave == Expect::Any && (policy.mrsigner == Expect::Any || policy.isv_prod_id == Expect::Any) {
        let reason = "the policy pins neither the measurement nor signer and product: anybody's enclave would do";
        checks.push("dcap.policy.identity", Verdict::Fail, Weight::Required, reason);
    }
    at_least(checks, "dcap.policy.isv-svn", "security version", report.isv_svn, policy.min_isv_svn);
    bytes(checks, "dcap.policy.config-id", "configuration id", &policy.config_id, report.config_id);
    at_least(
        checks,
        "dcap.policy.config-svn",
        "configuration's security version",
        report.config_svn,
        policy.min_config_svn,
    );
    bytes(
        checks,
        "dcap.policy.isv-ext-prod-id",
        "extended product id",
        &policy.isv_ext_prod_id,
        report.isv_ext_prod_id,
    );
    bytes(checks, "dcap.policy.isv-family-id", "family id", &policy.isv_family_id, report.isv_family_id);
    let excess = report.misc_select & !policy.misc_select_allowed;
    hold(
        checks,
        "dcap.policy.misc-select",
        excess == 0,
        format!("{:#x}; not allowed: {excess:#x}", report.misc_select),
    );
    let mask = |set: &BTreeSet<SgxAttribute>| set.iter().fold(0, |all, one| all | one.bit());
    let flags = report.flags();
    let (required, allowed) = (mask(&policy.attributes_required), mask(&policy.attributes_allowed));
    attributes(
        checks,
        ["dcap.policy.debug", "dcap.policy.attributes"],
        (SgxReport::DEBUG, allowed & SgxReport::DEBUG != 0),
        (flags, SgxAttribute::reserved(flags), SgxAttribute::names(flags)),
        required,
        allowed,
    );
    features(checks, "dcap.policy.xfrm", report.xfrm(), policy.xfrm_allowed);
}

fn tdx(checks: &mut Checks, report: &TdReport, policy: &TdxPolicy) {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = report.rtmrs;
    let service_td = report.td15.as_ref().map_or([0; 48], |td15| td15.mr_service_td);
    for (name, what, expected, found) in [
        ("dcap.policy.mrtd", "MRTD", &policy.mrtd, report.mr_td),
        ("dcap.policy.rtmr0", "RTMR0", &policy.rtmr0, rtmr0),
        ("dcap.policy.rtmr1", "RTMR1", &policy.rtmr1, rtmr1),
        ("dcap.policy.rtmr2", "RTMR2", &policy.rtmr2, rtmr2),
        ("dcap.policy.rtmr3", "RTMR3", &policy.rtmr3, rtmr3),
        ("dcap.policy.mr-config-id", "MRCONFIGID", &policy.mr_config_id, report.mr_config_id),
        ("dcap.policy.mr-owner", "MROWNER", &policy.mr_owner, report.mr_owner),
        ("dcap.policy.mr-owner-config", "MROWNERCONFIG", &policy.mr_owner_config, report.mr_owner_config),
        ("dcap.policy.mr-service-td", "MRSERVICETD", &policy.mr_service_td, service_td),
        ("dcap.policy.mr-seam", "MRSEAM", &policy.mr_seam, report.mr_seam),
        ("dcap.policy.mr-signer-seam", "MRSIGNERSEAM", &policy.mr_signer_seam, report.mr_signer_seam),
    ] {
        bytes(checks, name, what, expected, found);
    }
    // Service TDs that were bound after the launch show here alone.
    if let Some(more) = report.td15.as_ref().and_then(|td15| td15.extension.as_ref()) {
        bytes(
            checks,
            "dcap.policy.service-td-hash",
            "current service TDs",
            &policy.mr_service_td,
            more.service_td_hash,
        );
    }
    bytes(checks, "dcap.policy.seam-attributes", "SEAMATTRIBUTES", &policy.seam_attributes, report.seam_attributes);
    let mask = |set: &BTreeSet<TdAttribute>| set.iter().fold(0, |all, one| all | one.bit());
    let bits = report.td_attributes;
    let (required, allowed) = (mask(&policy.attributes_required), mask(&policy.attributes_allowed));
    let debug = TdAttribute::Debug.bit();
    attributes(
        checks,
        ["dcap.policy.debug", "dcap.policy.attributes"],
        (debug, allowed & debug != 0),
        (bits, TdAttribute::reserved(bits), TdAttribute::names(bits)),
        required,
        allowed,
    );
    features(checks, "dcap.policy.xfam", report.xfam, policy.xfam_allowed);
    let floor = policy.min_tee_tcb_svn.0;
    let name = "dcap.policy.tee-tcb-svn";
    let svns = [Some(report.tee_tcb_svn), report.td15.as_ref().map(|td15| td15.tee_tcb_svn_2)];
    if floor == [0; 16] {
        checks.not_checked(name, format!("{}: the policy sets no floor", hex(&report.tee_tcb_svn)));
    } else {
        let holds = svns.iter().flatten().all(|svn| svn.iter().zip(floor).all(|(have, needs)| *have >= needs));
        hold(checks, name, holds, format!("{}, the policy's floor is {}", hex(&report.tee_tcb_svn), hex(&floor)));
    }
}
