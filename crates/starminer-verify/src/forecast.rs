//! The day on which today's evidence stops meeting its policy, and what is at fault, told beforehand.
//!
//! A forecast is about one verified evidence: its devices' certificates, revocation lists, TCB data and graces, the policy and those that are
//! announced, and how long the endorsements that it took may be used. Nothing that makers will find out is in it. Its age is not in it either: a
//! node makes evidence anew for every challenge. Source: `specs/endorsements.md`, section "Forecast".

use starminer_hardware::endorsements::{Ages, Announced, Cause, Ending, Forecast, Hands, Snapshot};

use crate::appraise::{AttestationResult, appraise};
use crate::check::{Check, Verdict, Weight};
use crate::evidence::EvidenceKind;
use crate::hardware_policy::{HardwarePolicy, Requirement};
use crate::judge::Question;
use crate::policy::Policy;
use crate::reference::ReferenceValues;
use crate::selection::Selection;
use crate::tier::Tier;
use crate::trust::SimulatedRootId;
use crate::verify::{DeviceClaims, Verified};

/// The endorsements that evidence was verified with, where they came from a network's snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// What was taken for this evidence.
    pub selection: &'a Selection,
    /// Out of this.
    pub snapshot: &'a Snapshot,
    /// How old endorsements may get.
    pub ages: &'a Ages,
}

/// What evidence has to go on meeting.
#[derive(Debug, Clone, Copy)]
pub struct Outlook<'a> {
    /// Known-good values.
    pub reference_values: &'a ReferenceValues,
    /// The policy of today.
    pub policy: &'a Policy,
    /// Policies that will be in force, with the times from which they are.
    pub announced: &'a [Announced<Policy>],
    /// Endorsements and their ages; without them, dates that makers signed count alone.
    pub kept: Option<Kept<'a>>,
}

/// Everything that is known to end this evidence, as of the time at which it was verified, soonest first.
pub fn forecast(verified: &Verified, outlook: &Outlook<'_>) -> Forecast {
    let now_s = verified.verified_at.as_seconds();
    let today = appraise(verified, outlook.reference_values, outlook.policy);
    let mut endings: Vec<Ending> =
        unmet(&today).map(|check| of_check(check, now_s, Cause::Today, check.reason().to_owned())).collect();
    for next in outlook.announced {
        let then = appraise(verified, outlook.reference_values, &next.policy);
        for check in unmet(&then).filter(|check| unmet(&today).all(|known| known.name() != check.name())) {
            let reason = format!("a policy that is announced: {}", check.reason());
            endings.push(of_check(check, next.from_s.max(now_s), Cause::Announced, reason));
        }
    }
    endings.extend(facility(verified, outlook.policy));

    let question = Question {
        verified,
        reference_values: outlook.reference_values,
        policy: outlook.policy,
        hardware: &outlook.policy.hardware(),
    };
    let devices = devices(&question, now_s).without(Cause::Today);
    let windows = windows(verified, &devices);
    let of_age = outlook
        .kept
        .map(|kept| Forecast::endorsements(kept.snapshot, &kept.selection.used, kept.ages, now_s))
        .unwrap_or_default();
    Forecast::of(endings).and(devices).and(windows).and(of_age)
}

/// Checks that refuse, but for that of age.
fn unmet(result: &AttestationResult) -> impl Iterator<Item = &Check> {
    let refuses = |check: &&Check| check.weight == Weight::Required && check.verdict != Verdict::Pass;
    result.checks().iter().filter(refuses).filter(|check| check.name() != "evidence.age")
}

fn of_check(check: &Check, at_s: u64, cause: Cause, reason: String) -> Ending {
    let reason = format!("{}: {reason}", check.name());
    Ending { at_s, cause, reason, remedy: check.remedy.clone().into_owned(), hands: Hands::Provider }
}

/// The credential of the facility, where the policy hangs on it. It counts up to its end, and not at it.
fn facility(verified: &Verified, policy: &Policy) -> Option<Ending> {
    let asked = policy.hardware().chips.facility == Requirement::Required;
    let credential = verified.facility.as_ref().filter(|_| asked || policy.fields().minimum_tier == Tier::Hardened)?;
    Some(Ending {
        at_s: credential.not_after.as_millis().div_ceil(1000),
        cause: Cause::Certificate,
        reason: "the credential of the chip's facility ends".to_owned(),
        remedy: "have the facility vouch for the chip again".to_owned(),
        hands: Hands::Provider,
    })
}

/// What each device's own kind knows of its ends.
fn devices(question: &Question<'_>, now_s: u64) -> Forecast {
    let hardware: &HardwarePolicy = question.hardware;
    let of_intel = |kind, quote: &starminer_hardware::dcap::Verified| {
        let given = question.given(kind, SimulatedRootId::Intel, *quote.claims().body().report_data());
        Forecast::dcap(quote, &hardware.dcap(&given), &[], now_s)
    };
    let device = match &question.verified.device {
        DeviceClaims::SevSnp(claims) => {
            let given = question.given(EvidenceKind::SevSnp, SimulatedRootId::SevSnp, claims.claims().report_data);
            Forecast::snp(&claims.verified, &hardware.snp(&given), &[], now_s)
        }
        DeviceClaims::Tdx(claims) => of_intel(EvidenceKind::Tdx, &claims.quote),
        DeviceClaims::Sgx(claims) => of_intel(EvidenceKind::Sgx, &claims.quote),
        DeviceClaims::SoftwareTee(claims) => Forecast::of(vec![Ending {
            at_s: claims.certificate_not_after.as_millis().div_ceil(1000),
            cause: Cause::Certificate,
            reason: "the certificate of the software TEE ends".to_owned(),
            remedy: "have the simulated root certify it again".to_owned(),
            hands: Hands::Provider,
        }]),
        DeviceClaims::Tpm(_) => Forecast::default(),
    };
    let tpm = question.verified.tpm().map(|claims| Forecast::chain(claims.ek.chain())).unwrap_or_default();
    let gpus = question.verified.gpus.as_ref().map(|claims| Forecast::nvidia(&claims.verified)).unwrap_or_default();
    device.and(tpm).and(gpus)
}

/// The ends that verification itself found and that no kind told: those of revocation lists. Without them a forecast could be later than the day
/// on which [`Verified::check_at`] refuses.
fn windows(verified: &Verified, told: &Forecast) -> Forecast {
    let endings = verified.windows.iter().filter_map(|window| {
        let at_s = u64::try_from(window.until_s).ok()?.checked_add(1)?;
        let known = window.until_s == i64::MAX || told.endings().iter().any(|ending| ending.at_s == at_s);
        (!known).then(|| Ending {
            at_s,
            cause: Cause::RevocationList,
            reason: format!("{}: one of them ends", window.what),
            remedy: "fetch it again".to_owned(),
            hands: Hands::Refresh,
        })
    });
    Forecast::of(endings.collect())
}
