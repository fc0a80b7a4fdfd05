//! A verified quote against expectations.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{HashAlg, PcrIndex, Verified, hex};
use crate::{Checks, Verdict, Weight, cert::Curve};

/// Whether something has to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// Whatever does not show it is refused.
    Required,
    /// It is told, and does not decide.
    Optional,
}

/// What it means that nothing is expected of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unset {
    /// Refused: nobody said which values are good.
    Deny,
    /// Listed as not checked: something else judges it, such as an event log.
    NotChecked,
}

/// What is expected of a quote. In TOML:
///
/// ```toml
/// ak_attributes = "required"
/// qualified_signer = "optional"
/// clock_safe = "optional"
/// rsa_bits_min = 2048
/// ecc_bits_min = 256
/// pcr_values_unset = "deny"
/// [pcr_selection]
/// sha256 = [0, 1, 2, 3, 4, 5, 6, 7]
/// [pcr_values.sha256]
/// 7 = ["e21b703ee69c77476bccb43ec0336a9a1b2914b378944f7b00a10214ca8fea93"]
/// [firmware_version_min]
/// NTC = 0x0007000200030001
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// That the key's public area was given, and so its attributes were checked.
    pub ak_attributes: Demand,
    /// That the quote names the key as its signer, under a parent that is known.
    pub qualified_signer: Demand,
    /// That the TPM's clock never went back.
    pub clock_safe: Demand,
    /// The smallest RSA key.
    pub rsa_bits_min: u32,
    /// The smallest key on an elliptic curve.
    pub ecc_bits_min: u32,
    /// PCRs that have to be quoted, by bank.
    pub pcr_selection: BTreeMap<HashAlg, BTreeSet<PcrIndex>>,
    /// Good values of PCRs, in hexadecimal. Those listed have to be quoted.
    pub pcr_values: BTreeMap<HashAlg, BTreeMap<PcrIndex, BTreeSet<String>>>,
    /// What it means that a PCR of `pcr_selection` has no good values here.
    pub pcr_values_unset: Unset,
    /// The lowest firmware version, by the TPM maker's id. Where one is given, the maker has to be known and listed.
    pub firmware_version_min: BTreeMap<String, u64>,
}

impl Default for Policy {
    /// Attributes are required, the PCRs of firmware and boot (0 to 7) in the SHA-256 bank, and good values for each.
    fn default() -> Self {
        Self {
            ak_attributes: Demand::Required,
            qualified_signer: Demand::Optional,
            clock_safe: Demand::Optional,
            rsa_bits_min: 2048,
            ecc_bits_min: 256,
            pcr_selection: BTreeMap::from([(HashAlg::Sha256, (0..8).filter_map(PcrIndex::new).collect())]),
            pcr_values: BTreeMap::new(),
            pcr_values_unset: Unset::Deny,
            firmware_version_min: BTreeMap::new(),
        }
    }
}

/// Judges a verified quote.
#[must_use]
pub fn appraise(verified: &Verified, policy: &Policy) -> Checks {
    let mut checks = Checks::new();
    let demand =
        |checks: &mut Checks, demand: Demand, name: &'static str, shown: bool, yes: &'static str, no: &'static str| {
            let weight = if demand == Demand::Required { Weight::Required } else { Weight::Informative };
            match (shown, demand) {
                (true, _) => checks.push(name, Verdict::Pass, weight, yes),
                (false, Demand::Required) => checks.push(name, Verdict::Fail, weight, no),
                (false, Demand::Optional) => checks.push(name, Verdict::NotChecked, weight, no),
            };
        };
    demand(
        &mut checks,
        policy.ak_attributes,
        "tpm.policy.ak-attributes",
        verified.ak.attributes.is_some(),
        "the key's attributes are known and good",
        "the key's attributes are unknown: give its public area",
    );
    demand(
        &mut checks,
        policy.qualified_signer,
        "tpm.policy.qualified-signer",
        verified.hierarchy.is_some(),
        "the quote names the key as its signer",
        "the key's parent is unknown",
    );
    demand(
        &mut checks,
        policy.clock_safe,
        "tpm.policy.clock-safe",
        verified.attest.clock.safe,
        "the TPM's clock never went back",
        "the TPM's clock may have gone back: it lost power without being told before",
    );
    key_size(&mut checks, verified, policy);
    pcr_selection(&mut checks, verified, policy);
    pcr_values(&mut checks, verified, policy);
    firmware(&mut checks, verified, policy);
    checks
}

fn key_size(checks: &mut Checks, verified: &Verified, policy: &Policy) {
    let (bits, floor) = match (verified.key.rsa(), verified.key.ec()) {
        (Some((modulus, _)), _) => (modulus.len() * 8, policy.rsa_bits_min),
        (None, Some((Curve::P256, _))) => (256, policy.ecc_bits_min),
        (None, Some((Curve::P384, _))) => (384, policy.ecc_bits_min),
        (None, Some((Curve::P521, _))) => (521, policy.ecc_bits_min),
        (None, None) => (0, u32::MAX),
    };
    let enough = u32::try_from(bits).is_ok_and(|bits| bits >= floor);
    let said = format!("{bits} bits, of at least {floor}");
    checks.require("tpm.policy.key-size", if enough { Ok(said) } else { Err(said) });
}

fn quoted(verified: &Verified, bank: HashAlg, index: PcrIndex) -> bool {
    verified.attest.selections.iter().any(|selection| selection.bank == bank && selection.bits >> index.get() & 1 == 1)
}

fn pcr_selection(checks: &mut Checks, verified: &Verified, policy: &Policy) {
    const NAME: &str = "tpm.policy.pcr-selection";
    let mut required =
        policy.pcr_selection.iter().flat_map(|(bank, pcrs)| pcrs.iter().map(|index| (*bank, *index))).peekable();
    if required.peek().is_none() {
        checks.not_checked(NAME, "the policy asks for no PCRs");
        return;
    }
    let missing: Vec<String> = required
        .filter(|(bank, index)| !quoted(verified, *bank, *index))
        .map(|(bank, index)| format!("{}:{index}", bank.name()))
        .collect();
    checks.require(
        NAME,
        if missing.is_empty() {
            Ok("all PCRs that the policy asks for are quoted".to_owned())
        } else {
            Err(format!("not quoted: {}", missing.join(", ")))
        },
    );
}

fn pcr_values(checks: &mut Checks, verified: &Verified, policy: &Policy) {
    let good = |bank: HashAlg, index: PcrIndex| policy.pcr_values.get(&bank)?.get(&index);
    let listed = policy.pcr_values.iter().flat_map(|(bank, pcrs)| pcrs.keys().map(|index| (*bank, *index)));
    let selected = policy.pcr_selection.iter().flat_map(|(bank, pcrs)| pcrs.iter().map(|index| (*bank, *index)));
    let all: BTreeSet<_> = listed.chain(selected).collect();
    for (bank, index) in all {
        let name = format!("tpm.policy.pcr-values.{}.{index}", bank.name());
        let value = verified.pcrs.as_ref().and_then(|pcrs| pcrs.value(bank, index.get())).map(hex);
        let unset = || format!("no good value of PCR {index} is named");
        match (good(bank, index), value) {
            (Some(good), Some(value)) => {
                let is = good.iter().any(|good| good.eq_ignore_ascii_case(&value));
                checks.require(
                    name,
                    if is {
                        Ok(format!("{value} is good"))
                    } else {
                        Err(format!("{value} is none of the good values"))
                    },
                );
            }
            (Some(_), None) => {
                checks.require::<&str>(
                    name,
                    Err("its value is not known: it was not quoted, or the values were not given"),
                );
            }
            (None, _) => match policy.pcr_values_unset {
                Unset::Deny => {
                    checks.require(name, Err(unset()));
                }
                Unset::NotChecked => checks.not_checked(name, unset()),
            },
        }
    }
}

fn firmware(checks: &mut Checks, verified: &Verified, policy: &Policy) {
    const NAME: &str = "tpm.policy.firmware";
    if policy.firmware_version_min.is_empty() {
        checks.not_checked(NAME, "the policy has no floor for any maker's firmware");
        return;
    }
    let version = verified.attest.firmware_version;
    let floor = verified.maker.as_ref().and_then(|maker| policy.firmware_version_min.get(maker));
    let plain = verified.hierarchy.is_some_and(super::Hierarchy::is_plain);
    checks.require(
        NAME,
        match (floor, plain) {
            (None, _) => Err("the maker is unknown, or the policy has no floor for it".to_owned()),
            (Some(_), false) => {
                Err("the key is not known to be in the endorsement hierarchy: others see the version obfuscated"
                    .to_owned())
            }
            (Some(floor), true) if version < *floor => Err(format!("{version:#018x}, of at least {floor:#018x}")),
            (Some(floor), true) => Ok(format!("{version:#018x}, of at least {floor:#018x}")),
        },
    );
}
