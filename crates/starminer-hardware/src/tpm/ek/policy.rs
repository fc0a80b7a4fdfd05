//! A verified certificate of an endorsement key against expectations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    super::{Demand, hex, makers::of_root},
    Verified,
};
use crate::{
    Checks, Verdict, Weight,
    cert::{Curve, Provenance},
};

/// What is expected of a certificate. In TOML:
///
/// ```toml
/// purpose = "required"
/// revocation = "optional"
/// rsa_bits_min = 2048
/// ecc_bits_min = 256
/// makers = ["IFX", "NTC", "STM"]
/// simulated_roots = []
/// [models_denied]
/// NTC = ["NPCT75x"]
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// That the certificate says that it is for an endorsement key.
    pub purpose: Demand,
    /// That a revocation list was given for some link of the chain. Few makers issue any.
    pub revocation: Demand,
    /// The smallest RSA key.
    pub rsa_bits_min: u32,
    /// The smallest key on an elliptic curve.
    pub ecc_bits_min: u32,
    /// Ids of makers that are accepted; none listed means all whose roots are compiled in.
    pub makers: Vec<String>,
    /// SHA-256 fingerprints, in hexadecimal, of roots that are accepted although no maker stands behind them.
    pub simulated_roots: Vec<String>,
    /// Models that are refused, by maker id.
    pub models_denied: BTreeMap<String, Vec<String>>,
}

impl Default for Policy {
    /// Every maker whose roots are compiled in, and no other root.
    fn default() -> Self {
        Self {
            purpose: Demand::Required,
            revocation: Demand::Optional,
            rsa_bits_min: 2048,
            ecc_bits_min: 256,
            makers: Vec::new(),
            simulated_roots: Vec::new(),
            models_denied: BTreeMap::new(),
        }
    }
}

/// Judges a verified certificate.
#[must_use]
pub fn appraise(verified: &Verified, policy: &Policy) -> Checks {
    let mut checks = Checks::new();
    let leaf = verified.chain.leaf();
    checks.require(
        "tpm-ek.policy.kind",
        match (leaf.is_ca(), &verified.tpm, verified.family.as_deref()) {
            (true, ..) => Err("an authority's certificate, and not one of an endorsement key".to_owned()),
            (_, None, _) => Err("the certificate does not say which TPM it is about".to_owned()),
            (_, _, Some(family)) if family != "2.0" => Err(format!("a TPM of family {family}")),
            _ => Ok("the certificate of a TPM's endorsement key".to_owned()),
        },
    );
    demand(
        &mut checks,
        "tpm-ek.policy.purpose",
        policy.purpose,
        verified.purpose == Some(true),
        "said",
        "the certificate names no purpose",
    );
    demand(
        &mut checks,
        "tpm-ek.policy.revocation",
        policy.revocation,
        verified.crls_checked > 0,
        "revocation lists were consulted",
        "no revocation list was given",
    );
    root(&mut checks, verified, policy);
    let (bits, floor) = match (verified.key.rsa(), verified.key.ec()) {
        (Some((modulus, _)), _) => (modulus.len() * 8, policy.rsa_bits_min),
        (None, Some((Curve::P256, _))) => (256, policy.ecc_bits_min),
        (None, Some((Curve::P384, _))) => (384, policy.ecc_bits_min),
        (None, Some((Curve::P521, _))) => (521, policy.ecc_bits_min),
        (None, None) => (0, u32::MAX),
    };
    let said = format!("{bits} bits, of at least {floor}");
    checks.require(
        "tpm-ek.policy.key-size",
        if u32::try_from(bits).is_ok_and(|bits| bits >= floor) { Ok(said) } else { Err(said) },
    );
    if let Some(tpm) = &verified.tpm {
        let denied = policy.models_denied.get(&tpm.maker).is_some_and(|models| models.contains(&tpm.model));
        checks.require(
            "tpm-ek.policy.model",
            if denied { Err("the model is on the list of those refused") } else { Ok("not refused") },
        );
    }
    checks
}

fn root(checks: &mut Checks, verified: &Verified, policy: &Policy) {
    const NAME: &str = "tpm-ek.policy.root";
    let fingerprint = hex(&verified.chain.root().fingerprint());
    checks.require(
        NAME,
        match (verified.provenance(), of_root(verified.chain.root())) {
            (Provenance::Genuine, Some(maker))
                if policy.makers.is_empty() || policy.makers.iter().any(|id| id == maker.id) =>
            {
                Ok(format!("{}'s", maker.name))
            }
            (Provenance::Genuine, Some(maker)) => Err(format!("{} is not among the makers accepted", maker.name)),
            _ if policy.simulated_roots.iter().any(|root| root.eq_ignore_ascii_case(&fingerprint)) => {
                Ok(format!("simulated, under {fingerprint}, which the policy names"))
            }
            _ => Err(format!("simulated, under {fingerprint}, which the policy does not name")),
        },
    );
}

fn demand(checks: &mut Checks, name: &'static str, demand: Demand, shown: bool, yes: &'static str, no: &'static str) {
    match (shown, demand) {
        (true, _) => checks.push(name, Verdict::Pass, Weight::Required, yes),
        (false, Demand::Required) => checks.push(name, Verdict::Fail, Weight::Required, no),
        (false, Demand::Optional) => checks.push(name, Verdict::NotChecked, Weight::Informative, no),
    };
}
