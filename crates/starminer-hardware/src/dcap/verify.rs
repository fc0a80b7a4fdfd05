//! Whether a quote is what it says: by signatures from the root down to the body, and by what Intel publishes about the platform.

use std::sync::Arc;

use dcap_qvl::TcbStatus;

use crate::cert::{Certificate, Chain, ChainOptions, Curve, Provenance, PublicKey, Roots, build_chain};
use crate::{Checks, Verdict, Weight};

use super::backend::digest;
use super::body::{Body, SgxReport, Tee};
use super::claims::{Claims, PlatformTcb, Snapshot};
use super::endorsements::Endorsements;
use super::judge::{ECDSA, Expiry, Judged, check_root, judge, p256};
use super::parse::{PCK_CHAIN, Quote, Trailing};
use super::pck::{Platform, hex, names_platform, read_chain};
use super::tcb::{Level, module_matches, platform_level, qe_level, qe_matches, relaunch};

/// What became of a quote.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Every check.
    pub checks: Checks,
    /// The quote, where all that is required holds.
    pub verified: Option<Verified>,
}

/// A quote whose signatures, chains and dates hold, and whose platform reaches a TCB level. Only [`verify`] and [`verify_warm`] make one.
#[derive(Debug, Clone)]
pub struct Verified {
    claims: Claims,
    provenance: Provenance,
    at_s: u64,
    from_s: u64,
    expiries: Vec<Expiry>,
}

impl Verified {
    /// What the quote says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Who stands behind the root.
    #[must_use]
    pub const fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// The time at which it was verified, in seconds since 1970.
    #[must_use]
    pub const fn at_s(&self) -> u64 {
        self.at_s
    }

    /// The first second, since 1970, at which all that it rests on counts.
    #[must_use]
    pub const fn from_s(&self) -> u64 {
        self.from_s
    }

    /// Until when what it rests on counts, soonest first: with the same endorsements it is refused from the first one on.
    #[must_use]
    pub fn expiries(&self) -> &[Expiry] {
        &self.expiries
    }
}

/// Intel's root, which is compiled in.
///
/// # Panics
/// Never: a test reads it.
#[must_use]
pub fn intel_root() -> Certificate {
    Certificate::from_der(include_bytes!("../../roots/intel/sgx_root_ca.der")).expect("the root is a certificate")
}

/// Intel's root: what chains to it is genuine.
#[must_use]
pub fn roots() -> Roots {
    Roots::compiled_in([intel_root()])
}

/// Endorsements verified beforehand, so that a quote costs its own signatures alone. Verifying at a time at which they do not hold verifies them anew.
#[derive(Debug, Clone)]
pub struct Warm {
    roots: Roots,
    at_s: u64,
    judged: Vec<(Certificate, Judged)>,
    endorsements: Arc<Endorsements>,
}

impl Warm {
    /// Verifies endorsements against each of the roots.
    #[must_use]
    pub fn new(endorsements: Endorsements, roots: Roots, now_s: u64) -> Self {
        let endorsements = Arc::new(endorsements);
        let judged = roots.iter().map(|(root, _)| (root.clone(), judge(&endorsements, root, now_s))).collect();
        Self { roots, at_s: now_s, judged, endorsements }
    }

    /// What verifying them against this root came to, at this time.
    fn at(&self, root: &Certificate, now_s: u64) -> Judged {
        let kept = self.judged.iter().find(|(known, _)| known == root).map(|(_, judged)| judged);
        match kept {
            Some(judged) if now_s == self.at_s => judged.clone(),
            // Nothing that holds throughout its dates holds less in between.
            Some(judged)
                if judged.checks.hold()
                    && judged.from_s <= now_s
                    && judged.expiries.iter().all(|expiry| now_s <= expiry.at_s) =>
            {
                judged.clone()
            }
            _ => judge(&self.endorsements, root, now_s),
        }
    }
}

/// Verifies a quote with endorsements, against these roots, at this time.
#[must_use]
pub fn verify(quote: &Quote, endorsements: &Endorsements, roots: &Roots, now_s: u64) -> Verification {
    let shared = Arc::new(endorsements.clone());
    verify_by(quote, endorsements, roots, now_s, |root| judge(&shared, root, now_s))
}

/// Verifies a quote with endorsements that were verified before.
#[must_use]
pub fn verify_warm(quote: &Quote, warm: &Warm, now_s: u64) -> Verification {
    verify_by(quote, &warm.endorsements, &warm.roots, now_s, |root| warm.at(root, now_s))
}

fn verify_by(
    quote: &Quote,
    endorsements: &Endorsements,
    roots: &Roots,
    now_s: u64,
    judged: impl FnOnce(&Certificate) -> Judged,
) -> Verification {
    let mut checks = Checks::new();
    note(quote, &mut checks);
    let signatures = signatures(quote, endorsements, roots, now_s, &mut checks);
    let root = match &signatures {
        Some((chain, _)) => Some(chain.root().clone()),
        None => roots.iter().next().map(|(root, _)| root.clone()),
    };
    let judged = root.as_ref().map(judged);
    let found = judged.as_ref().and_then(|judged| {
        checks.extend(judged.checks.clone());
        appraise_platform(quote, signatures.as_ref(), judged, &mut checks)
    });
    let verified = match (found, signatures, judged) {
        (Some(tcb), Some((chain, platform)), Some(judged)) if checks.hold() => {
            Some(assemble(quote, tcb, &chain, platform, &judged, now_s))
        }
        _ => None,
    };
    Verification { checks, verified }
}

/// What nothing depends on.
fn note(quote: &Quote, checks: &mut Checks) {
    let (verdict, reason) = match quote.trailing {
        Trailing::None => (Verdict::Pass, "nothing follows the quote".into()),
        Trailing::Zeros(count) => (Verdict::Pass, format!("{count} zero bytes follow the quote and are no part of it")),
        Trailing::Other(count) => {
            (Verdict::Fail, format!("{count} bytes follow the quote; nothing signs them and they are ignored"))
        }
    };
    checks.push("dcap.trailing-bytes", verdict, Weight::Informative, reason);
    if quote.version > 3 && quote.header_svns != (0, 0) {
        checks.push(
            "dcap.header-reserved",
            Verdict::Fail,
            Weight::Informative,
            "reserved bytes of the header are not zero",
        );
    }
}

/// A required check that could not be made.
fn skip(checks: &mut Checks, name: &'static str, reason: impl Into<std::borrow::Cow<'static, str>>) {
    checks.push(name, Verdict::NotChecked, Weight::Required, reason);
}

/// The quote's own signatures: root, authority, PCK, quoting enclave, attestation key, body.
fn signatures(
    quote: &Quote,
    endorsements: &Endorsements,
    roots: &Roots,
    now_s: u64,
    checks: &mut Checks,
) -> Option<(Chain, Platform)> {
    const UNVOUCHED: &str = "not verified with a key that nothing vouches for";
    let bound = digest::<32>(&aws_lc_rs::digest::SHA256, &[&quote.attestation_key[..], &quote.qe_auth_data].concat());
    let binds = checks.require(
        "dcap.attestation-key",
        if quote.qe_report.report_data[..32] == bound {
            Ok("the quoting enclave's report names the attestation key")
        } else {
            Err("the quoting enclave's report names another attestation key")
        },
    );
    let debug = checks.require(
        "dcap.qe-debug",
        if quote.qe_report.flags() & SgxReport::DEBUG == 0 {
            Ok("the quoting enclave is not in debug mode")
        } else {
            Err("the quoting enclave is in debug mode")
        },
    );
    let chain = pck_chain(quote, endorsements, roots, now_s).and_then(|chain| {
        let platform = Platform::of(chain.leaf())?;
        if quote.certification.kind != PCK_CHAIN {
            names_platform(quote.certification.kind, &quote.certification.data, chain.leaf(), &platform)?;
        }
        Ok((chain, platform))
    });
    let (chain, platform) = match chain {
        Err(reason) => {
            checks.require::<String>("dcap.pck-chain", Err(reason));
            skip(checks, "dcap.qe-report-signature", UNVOUCHED);
            skip(checks, "dcap.quote-signature", UNVOUCHED);
            return None;
        }
        Ok(found) => found,
    };
    let reason = format!("PCK certificate chains to {} ({})", chain.root().subject_name(), chain.provenance().name());
    checks.require("dcap.pck-chain", Ok(reason));
    let qe = chain
        .leaf()
        .public_key()
        .and_then(|key| key.verify(ECDSA, &quote.qe_report_bytes, &quote.qe_report_signature))
        .map(|()| "the PCK signed the quoting enclave's report".to_owned())
        .map_err(|error| format!("the quoting enclave's report: {error}"));
    if !(checks.require("dcap.qe-report-signature", qe) && binds && debug) {
        skip(checks, "dcap.quote-signature", UNVOUCHED);
        return None;
    }
    let point = [&[4], &quote.attestation_key[..]].concat();
    let body = PublicKey::from_ec_point(Curve::P256, &point)
        .and_then(|key| key.verify(ECDSA, &quote.signed, &quote.signature))
        .map(|()| "the attestation key signed header and body".to_owned())
        .map_err(|error| format!("header and body: {error}"));
    checks.require("dcap.quote-signature", body).then_some((chain, platform))
}

/// The chain of the PCK certificate: the quote's own, or that of the endorsements where the quote has none.
fn pck_chain(quote: &Quote, endorsements: &Endorsements, roots: &Roots, now_s: u64) -> Result<Chain, String> {
    let read;
    let certificates = match (quote.certification.kind, &endorsements.pck_chain) {
        (PCK_CHAIN, _) => {
            read = read_chain(&quote.certification.data)?;
            &read
        }
        (_, Some(given)) => given,
        (kind, None) => {
            return Err(format!(
                "the quote has certification data of type {kind} and no certificate chain: fetch the PCK certificate and give it as pck_certificate_chain"
            ));
        }
    };
    let [leaf, authority, above @ ..] = &certificates[..] else {
        return Err("the chain has less than a leaf and its authority".into());
    };
    let chain = build_chain(leaf, std::slice::from_ref(authority), roots, now_s, &ChainOptions::default())
        .map_err(|error| error.to_string())?;
    if chain.certificates().len() != 3 {
        return Err("a PCK certificate has one authority between itself and the root".into());
    }
    check_root(above, chain.root())?;
    match chain.leaf().public_key() {
        Ok(key) if p256(&key) => Ok(chain),
        _ => Err("the PCK is not of P-256".into()),
    }
}

/// The platform and its enclaves against Intel's data.
fn appraise_platform(
    quote: &Quote,
    signatures: Option<&(Chain, Platform)>,
    judged: &Judged,
    checks: &mut Checks,
) -> Option<PlatformTcb> {
    let endorsements = &judged.endorsements;
    let Some((chain, platform)) = signatures else {
        let reason = "not made for a quote whose signatures do not hold";
        for name in [
            "dcap.pck-revocation",
            "dcap.tcb-info-match",
            "dcap.qe-identity-match",
            "dcap.tcb-level",
            "dcap.qe-tcb-level",
        ] {
            skip(checks, name, reason);
        }
        return None;
    };
    revocation(chain, platform, judged, checks);
    let launch = platform_tcb(quote, platform, endorsements, checks);
    let qe = quoting_enclave(quote, endorsements, checks);
    let ((launch, current), qe) = (launch?, qe?);
    let merged = |level: &Level| level.clone().merged(&qe);
    let total = merged(&launch);
    let mut status = total.status;
    if let Some(current) = &current {
        let now = merged(current).status;
        status = if now == TcbStatus::Revoked { now } else { relaunch(status, now) };
    }
    let revoked = status == TcbStatus::Revoked;
    let outcome = if revoked {
        Err("the TCB is revoked: nothing that it signs can be trusted".to_owned())
    } else {
        Ok(format!(
            "{status}, advisories: {}",
            if total.advisories.is_empty() { "none".into() } else { total.advisories.join(", ") }
        ))
    };
    checks.require("dcap.tcb-status", outcome);
    Some(PlatformTcb { status, advisories: total.advisories, platform: launch, current, qe })
}

/// Neither the PCK certificate nor its authority was taken back.
fn revocation(chain: &Chain, platform: &Platform, judged: &Judged, checks: &mut Checks) {
    const NAME: &str = "dcap.pck-revocation";
    let [leaf, authority, _] = chain.certificates() else { return };
    let (Some(root_list), Some(list), Some(issuer)) = (
        judged.endorsements.root_ca_crl.as_ref().filter(|_| judged.root_list),
        &judged.endorsements.pck_crl,
        &judged.pck_ca,
    ) else {
        return skip(checks, NAME, format!("needs both revocation lists ({})", platform.wanted()));
    };
    let result = if root_list.names(authority) {
        Err(format!("the root CA revoked {}", authority.subject_name()))
    } else if issuer.subject() != authority.subject() || issuer.spki() != authority.spki() {
        Err(format!(
            "the revocation list is of {}, the PCK certificate is by {}: fetch that of authority {}",
            issuer.subject_name(),
            authority.subject_name(),
            platform.ca_name()
        ))
    } else if list.names(leaf) {
        Err(format!("the PCK certificate (serial {}) is revoked", hex(leaf.serial())))
    } else {
        Ok("neither the PCK certificate nor its authority is revoked".into())
    };
    checks.require(NAME, result);
}

/// TCB info of this very platform, and the levels that it reaches at launch and by now.
fn platform_tcb(
    quote: &Quote,
    platform: &Platform,
    endorsements: &Endorsements,
    checks: &mut Checks,
) -> Option<(Level, Option<Level>)> {
    let tee = quote.tee();
    let Some(signed) = &endorsements.tcb_info else {
        let reason = format!("needs TCB info: fetch that of {} for {}", tee.tcb_info(), platform.wanted());
        for name in ["dcap.tcb-info-match", "dcap.tcb-level"] {
            skip(checks, name, reason.clone());
        }
        return None;
    };
    let info = &signed.content;
    let (fmspc, pce_id) = (hex(&platform.fmspc), hex(&platform.pce_id));
    let matches = if info.id != tee.tcb_info() || info.version != 3 {
        Err(format!(
            "TCB info is of {} version {}, a quote of {} needs {} version 3",
            info.id,
            info.version,
            tee.name(),
            tee.tcb_info()
        ))
    } else if !info.fmspc.eq_ignore_ascii_case(&fmspc) {
        Err(format!("FMSPC mismatch: TCB info is for {}, the platform is {fmspc}", info.fmspc.to_ascii_lowercase()))
    } else if !info.pce_id.eq_ignore_ascii_case(&pce_id) {
        Err(format!("PCE id mismatch: TCB info is for {}, the platform has {pce_id}", info.pce_id))
    } else {
        Ok(format!("{} of FMSPC {fmspc}, evaluation data number {}", info.id, info.tcb_evaluation_data_number))
    };
    if !checks.require("dcap.tcb-info-match", matches) {
        skip(checks, "dcap.tcb-level", "not made with TCB info of another platform");
        return None;
    }
    let svns = platform.svns();
    let levels = match &quote.body {
        Body::Sgx(_) => platform_level(info, &svns, None).map(|level| (level, None)),
        Body::Tdx(td) => {
            checks.require("dcap.tdx-module", module_matches(info, td));
            platform_level(info, &svns, Some(&td.tee_tcb_svn)).and_then(|launch| {
                let current = td.td15.as_ref().map(|td15| {
                    platform_level(info, &svns, Some(&td15.tee_tcb_svn_2))
                        .map_err(|reason| format!("by its current TDX module: {reason}"))
                });
                Ok((launch, current.transpose()?))
            })
        }
    };
    let described = levels.as_ref().map(|(level, _)| describe(level)).map_err(Clone::clone);
    checks.require("dcap.tcb-level", described);
    levels.ok()
}

/// The quoting enclave against its identity.
fn quoting_enclave(quote: &Quote, endorsements: &Endorsements, checks: &mut Checks) -> Option<Level> {
    let tee: Tee = quote.tee();
    let Some(signed) = &endorsements.qe_identity else {
        for name in ["dcap.qe-identity-match", "dcap.qe-tcb-level"] {
            skip(checks, name, format!("needs the identity of the quoting enclave: fetch {}", tee.qe_identity()));
        }
        return None;
    };
    if !checks.require("dcap.qe-identity-match", qe_matches(&signed.content, tee, &quote.qe_report)) {
        skip(checks, "dcap.qe-tcb-level", "not made with the identity of another enclave");
        return None;
    }
    let level = qe_level(&signed.content, quote.qe_report.isv_svn);
    checks.require("dcap.qe-tcb-level", level.as_ref().map(describe).map_err(Clone::clone));
    level.ok()
}

fn describe(level: &Level) -> String {
    format!("{} (TCB of {})", level.status, super::time::readable(level.date_s))
}

fn assemble(
    quote: &Quote,
    tcb: PlatformTcb,
    chain: &Chain,
    platform: Platform,
    judged: &Judged,
    now_s: u64,
) -> Verified {
    let mut expiries = judged.expiries.clone();
    let chain_until = u64::try_from(chain.not_after_s()).unwrap_or(0);
    match expiries.iter_mut().find(|known| known.what == "certificates") {
        Some(known) => known.at_s = known.at_s.min(chain_until),
        None => expiries.push(Expiry { what: "certificates", at_s: chain_until }),
    }
    expiries.sort_by_key(|expiry| expiry.at_s);
    let claims = Claims {
        version: quote.version,
        header_svns: (quote.version == 3).then_some(quote.header_svns),
        user_data: quote.user_data,
        body: quote.body.clone(),
        platform,
        qe: quote.qe_report.clone(),
        tcb,
        endorsements: Snapshot::of(&judged.endorsements),
        trailing: quote.trailing,
    };
    let chain_from = chain.certificates().iter().map(Certificate::not_before_s).max().unwrap_or(i64::MAX);
    let from_s = judged.from_s.max(u64::try_from(chain_from).unwrap_or(0));
    Verified { claims, provenance: chain.provenance(), at_s: now_s, from_s, expiries }
}
