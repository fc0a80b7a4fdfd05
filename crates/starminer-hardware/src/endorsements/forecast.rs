//! The day on which today's evidence will stop meeting its policy, and why, told beforehand.
//!
//! A forecast is about this very evidence, these endorsements and this policy, and about policies that are announced. What makers will find out and
//! publish in between is not in it.

use serde_json::{Value, json};

use super::{age::Ages, key::Key, snapshot::Snapshot};
use crate::{
    Checks, Verdict, Weight,
    cert::Chain,
    dcap::{self, time::readable},
    nvidia, snp,
};

/// Who can do something about an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hands {
    /// Nobody needs to: it is renewed by fetching it again, while its maker publishes it.
    Refresh,
    /// Whoever runs the machine.
    Provider,
}

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It does not meet the policy today.
    Today,
    /// A certificate.
    Certificate,
    /// A revocation list.
    RevocationList,
    /// TCB data or the identity of a quoting enclave.
    TcbData,
    /// The age that endorsements may have.
    Age,
    /// A grace period for a TCB that is not up to date.
    Grace,
    /// Another policy begins, which is announced.
    Announced,
    /// An endorsement that is needed is not there.
    Missing,
}

impl Cause {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::Certificate => "certificate",
            Self::RevocationList => "revocation-list",
            Self::TcbData => "tcb-data",
            Self::Age => "age",
            Self::Grace => "grace",
            Self::Announced => "announced",
            Self::Missing => "missing",
        }
    }
}

/// Something that makes evidence stop meeting its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The first second at which it is so, since 1970.
    pub at_s: u64,
    /// What ends.
    pub cause: Cause,
    /// Why, for people.
    pub reason: String,
    /// What to do, for people.
    pub remedy: String,
    /// Who can do it.
    pub hands: Hands,
}

/// A policy that will be in force from a time on.
#[derive(Debug, Clone)]
pub struct Announced<P> {
    /// From when, in seconds since 1970.
    pub from_s: u64,
    /// What will be demanded.
    pub policy: P,
}

/// Everything that is known to end, soonest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    endings: Vec<Ending>,
}

const FETCH: &str = "fetch it again";
const FIRMWARE: &str = "update firmware and microcode of the machine, and make evidence anew";

/// What to do about a check of a policy that does not hold.
fn remedy(check: &str) -> &'static str {
    match check {
        name if name.contains("tcb") || name.contains("firmware") || name.contains("advisor") => FIRMWARE,
        name if name.contains("crl") || name.contains("endorsement") => "fetch newer endorsements",
        name if name.contains("measurement") || name.contains("mrtd") || name.contains("rtmr") => {
            "run an image that the policy names"
        }
        _ => "set the machine up as the policy demands, and make evidence anew",
    }
}

fn ending(at_s: u64, cause: Cause, reason: String, remedy: &str, hands: Hands) -> Ending {
    Ending { at_s, cause, reason, remedy: remedy.to_owned(), hands }
}

/// The first second after the last one at which something counts.
fn after(at_s: i64) -> u64 {
    u64::try_from(at_s).unwrap_or(0).saturating_add(1)
}

fn failing(checks: &Checks) -> impl Iterator<Item = &crate::Check> {
    checks.as_slice().iter().filter(|check| check.weight == Weight::Required && check.verdict != Verdict::Pass)
}

impl Forecast {
    /// Of these endings, in whatever order.
    #[must_use]
    pub fn of(mut endings: Vec<Ending>) -> Self {
        endings.sort_by(|a, b| a.at_s.cmp(&b.at_s).then_with(|| a.reason.cmp(&b.reason)));
        endings.dedup();
        Self { endings }
    }

    /// What fails today, and what will under policies that are announced and does not today.
    fn policies<P>(
        now_s: u64,
        today: &Checks,
        announced: &[Announced<P>],
        appraise: impl Fn(&P) -> Checks,
    ) -> Vec<Ending> {
        let mut endings = Vec::new();
        for check in failing(today) {
            let reason = format!("{}: {}", check.name, check.reason);
            endings.push(ending(now_s, Cause::Today, reason, remedy(&check.name), Hands::Provider));
        }
        for next in announced {
            for check in failing(&appraise(&next.policy)) {
                if failing(today).any(|known| known.name == check.name) {
                    continue;
                }
                let reason = format!("a policy that is announced, {}: {}", check.name, check.reason);
                let at_s = next.from_s.max(now_s);
                endings.push(ending(at_s, Cause::Announced, reason, remedy(&check.name), Hands::Provider));
            }
        }
        endings
    }

    /// Of a report of AMD's.
    #[must_use]
    pub fn snp(
        verified: &snp::Verified,
        policy: &snp::Policy,
        announced: &[Announced<snp::Policy>],
        now_s: u64,
    ) -> Self {
        let claims = verified.claims();
        let today = snp::appraise(verified, policy);
        let mut endings = Self::policies(now_s, &today, announced, |next| snp::appraise(verified, next));
        let (hands, what) = match claims.signing_key {
            snp::SigningKey::Vcek => (Hands::Refresh, "fetch the VCEK's certificate again from AMD's key service"),
            snp::SigningKey::Vlek => (Hands::Provider, "have the cloud give a VLEK certificate that is newer"),
        };
        let reason = format!("certificates of the {} end", claims.signing_key.name());
        endings.push(ending(after(claims.not_after_s), Cause::Certificate, reason, what, hands));
        if let Some(list) = &claims.crl {
            let reason = "AMD's revocation list has to be renewed".to_owned();
            endings.push(ending(after(list.next_update_s), Cause::RevocationList, reason, FETCH, Hands::Refresh));
        }
        Self::of(endings)
    }

    /// Of a quote of Intel's.
    #[must_use]
    pub fn dcap(
        verified: &dcap::Verified,
        policy: &dcap::Policy,
        announced: &[Announced<dcap::Policy>],
        now_s: u64,
    ) -> Self {
        let today = dcap::appraise(verified, policy);
        let mut endings = Self::policies(now_s, &today, announced, |next| dcap::appraise(verified, next));
        for end in dcap::forecast(verified, policy) {
            let at_s = end.at_s.saturating_add(1);
            let (cause, reason, remedy, hands) = match end.what {
                "root-ca-crl" => {
                    (Cause::RevocationList, "the list of Intel's root has to be renewed", FETCH, Hands::Refresh)
                }
                "pck-crl" => {
                    (Cause::RevocationList, "the list of PCK certificates has to be renewed", FETCH, Hands::Refresh)
                }
                "tcb-info" => (Cause::TcbData, "TCB info has to be renewed", FETCH, Hands::Refresh),
                "qe-identity" => {
                    (Cause::TcbData, "the quoting enclave's identity has to be renewed", FETCH, Hands::Refresh)
                }
                "endorsement-age" => (
                    Cause::Age,
                    "TCB info or identity get older than the policy allows",
                    "fetch newer endorsements",
                    Hands::Refresh,
                ),
                "tcb-grace" => {
                    (Cause::Grace, "the policy's grace for the platform's TCB status ends", FIRMWARE, Hands::Provider)
                }
                "qe-tcb-grace" => (
                    Cause::Grace,
                    "the policy's grace for the quoting enclave's TCB status ends",
                    "update the quoting enclave, and make evidence anew",
                    Hands::Provider,
                ),
                _ => (
                    Cause::Certificate,
                    "a certificate of the PCK or of Intel's signers ends",
                    "fetch endorsements again; for the PCK's own certificate provision the platform again",
                    Hands::Provider,
                ),
            };
            endings.push(ending(at_s, cause, reason.to_owned(), remedy, hands));
        }
        Self::of(endings)
    }

    /// Of evidence of NVIDIA's.
    #[must_use]
    pub fn nvidia(verified: &nvidia::Verified) -> Self {
        let claims = verified.claims();
        let mut endings = Vec::new();
        for gpu in &claims.gpus {
            let reason = format!("certificates of the {} end", gpu.model);
            let remedy = "have NVIDIA's certificates of the GPU renewed";
            endings.push(ending(after(gpu.not_after_s), Cause::Certificate, reason, remedy, Hands::Provider));
        }
        for rim in &claims.rims {
            let reason = format!("the manifest of {} {} ends", rim.kind.name(), rim.version);
            endings.push(ending(after(rim.not_after_s), Cause::Certificate, reason, FETCH, Hands::Refresh));
        }
        Self::of(endings)
    }

    /// Of a chain, as of the certificate of an endorsement key.
    #[must_use]
    pub fn chain(chain: &Chain) -> Self {
        let reason = format!("{} or what stands above it ends", chain.leaf().subject_name());
        let remedy = "have its maker renew the certificate, and enrol anew";
        Self::of(vec![ending(after(chain.not_after_s()), Cause::Certificate, reason, remedy, Hands::Provider)])
    }

    /// Of endorsements: until when they may be used, if nobody fetches them again. What cannot be used today is missing today.
    #[must_use]
    pub fn endorsements<'a>(
        snapshot: &Snapshot,
        keys: impl IntoIterator<Item = &'a Key>,
        ages: &Ages,
        now_s: u64,
    ) -> Self {
        let endings = keys.into_iter().map(|key| match snapshot.find(key, ages, now_s) {
            Err(missing) => {
                let hands = if missing.fetch().is_some() { Hands::Refresh } else { Hands::Provider };
                let remedy = missing.fetch().map_or_else(|| "bring it".to_owned(), |place| format!("fetch {place}"));
                Ending { at_s: now_s, cause: Cause::Missing, reason: format!("{key}: {}", missing.why), remedy, hands }
            }
            Ok(item) => {
                let until_s = item.usable_until_s(ages);
                let (cause, why) = if until_s < item.facts().until_s {
                    (Cause::Age, "gets older than the policy allows")
                } else {
                    match key {
                        Key::IntelTcbInfo { .. } | Key::IntelQeIdentity { .. } => (Cause::TcbData, "has to be renewed"),
                        _ if item.facts().issued_s.is_some() => (Cause::RevocationList, "has to be renewed"),
                        _ => (Cause::Certificate, "ends"),
                    }
                };
                ending(until_s.saturating_add(1), cause, format!("{key} {why}"), FETCH, Hands::Refresh)
            }
        });
        Self::of(endings.collect())
    }

    /// This and another, of the same node.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.endings.extend(other.endings);
        Self::of(self.endings)
    }

    /// The same without endings of one cause, for whoever tells those in words of its own.
    #[must_use]
    pub fn without(mut self, cause: Cause) -> Self {
        self.endings.retain(|ending| ending.cause != cause);
        self
    }

    /// All endings, soonest first.
    #[must_use]
    pub fn endings(&self) -> &[Ending] {
        &self.endings
    }

    /// When today's evidence stops meeting the policy if nothing is fetched again.
    #[must_use]
    pub fn first(&self) -> Option<&Ending> {
        self.endings.first()
    }

    /// When it does although endorsements are renewed: what the provider has to be told.
    #[must_use]
    pub fn first_for_provider(&self) -> Option<&Ending> {
        self.endings.iter().find(|ending| ending.hands == Hands::Provider)
    }

    /// For people and other programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let one = |ending: &Ending| {
            let at = readable(ending.at_s);
            json!({
                "at_s": ending.at_s,
                "day": at.split('T').next().unwrap_or(&at),
                "cause": ending.cause.name(),
                "reason": ending.reason,
                "remedy": ending.remedy,
                "renewed_by_fetching": ending.hands == Hands::Refresh,
            })
        };
        json!({
            "first": self.first().map(one),
            "first_for_provider": self.first_for_provider().map(one),
            "endings": self.endings.iter().map(one).collect::<Vec<_>>(),
        })
    }
}
