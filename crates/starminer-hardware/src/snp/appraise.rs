//! Claims against expectations, each with a reason.

use data_encoding::HEXLOWER;

use super::{
    claims::{Claims, Names},
    policy::{Crls, Expect, Hex, MaskedChip, Policy, Provisional, Want},
    tcb::TcbVersion,
    verify::Verified,
};
use crate::{cert::Provenance, check::Checks};

/// Appraises a verified report. Every option of the policy is one check.
#[must_use]
pub fn appraise(verified: &Verified, policy: &Policy) -> Checks {
    let claims = verified.claims();
    let mut checks = Checks::new();
    endorsements(&mut checks, claims, policy);
    chip(&mut checks, claims, policy);
    tcb(&mut checks, claims, policy);
    guest(&mut checks, claims, policy);
    platform(&mut checks, claims, policy);
    identity(&mut checks, claims, policy);
    checks
}

/// One of the values, or any.
fn one_of<T: PartialEq>(checks: &mut Checks, name: &'static str, expected: &Expect<T>, found: &T, shown: &str) {
    match expected {
        Expect::Any => checks.not_checked(name, format!("any value is accepted; it is {shown}")),
        Expect::OneOf(values) if values.is_empty() => {
            checks.require(name, Err(format!("no value is set that would be accepted; it is {shown}")));
        }
        Expect::OneOf(values) => {
            let accepted = values.contains(found);
            checks.require(
                name,
                if accepted {
                    Ok(shown.to_owned())
                } else {
                    Err(format!("{shown} is not among the values that are accepted"))
                },
            );
        }
    }
}

fn bytes<const N: usize>(checks: &mut Checks, name: &'static str, expected: &Expect<Hex<N>>, found: [u8; N]) {
    one_of(checks, name, expected, &Hex(found), &HEXLOWER.encode(&found));
}

fn bit(checks: &mut Checks, name: &'static str, want: Want, found: bool) {
    let shown = if found { "set" } else { "clear" };
    let accepted = match want {
        Want::Any => return checks.not_checked(name, format!("either is accepted; it is {shown}")),
        Want::Yes => found,
        Want::No => !found,
    };
    checks.require(
        name,
        if accepted {
            Ok(shown)
        } else {
            Err(if found { "set, and has to be clear" } else { "clear, and has to be set" })
        },
    );
}

/// A floor, of which the lowest means that there is none.
fn floor<T: PartialOrd>(checks: &mut Checks, name: &'static str, lowest: &T, floor: &T, found: &T, shown: [String; 2]) {
    let [floor_shown, found_shown] = shown;
    if floor <= lowest {
        return checks.not_checked(name, format!("no floor is set; it is {found_shown}"));
    }
    let reason = format!("{found_shown}, and the floor is {floor_shown}");
    checks.require(name, if found >= floor { Ok(reason) } else { Err(reason) });
}

fn endorsements(checks: &mut Checks, claims: &Claims, policy: &Policy) {
    checks.require(
        "snp.policy.root",
        match claims.provenance {
            Provenance::Genuine => Ok("AMD's".to_owned()),
            Provenance::Simulated { root } if policy.simulated_roots.contains(&Hex(root)) => {
                Ok(format!("simulated, and the policy names {}", HEXLOWER.encode(&root)))
            }
            Provenance::Simulated { root } => {
                Err(format!("{} is not AMD's, and the policy does not name it", HEXLOWER.encode(&root)))
            }
        },
    );
    match (&claims.crl, policy.crl) {
        (Some(crl), _) => {
            checks
                .require("snp.policy.crl", Ok(format!("looked up in a list that counts until {}", crl.next_update_s)));
        }
        (None, Crls::Required) => {
            checks.require("snp.policy.crl", Err("no revocation list was given: fetch it from AMD's key service"));
        }
        (None, Crls::Optional) => {
            checks.not_checked("snp.policy.crl", "no revocation list was given, and none is required")
        }
    }
}

fn chip(checks: &mut Checks, claims: &Claims, policy: &Policy) {
    let version = claims.report_version;
    one_of(checks, "snp.policy.report-version", &policy.report_versions, &version, &version.to_string());
    one_of(checks, "snp.policy.product", &policy.products, &claims.product, claims.product.claim());
    let names = claims.names.name();
    checks.require(
        "snp.policy.names",
        match (claims.names, policy.names) {
            (Names::Chip, _) | (Names::Cloud, Names::Cloud) => Ok(format!("the key names a {names}")),
            (Names::Cloud, Names::Chip) => Err("a VLEK names a cloud, and the policy asks for a chip".to_owned()),
        },
    );
    match &claims.cloud_id {
        None => checks.not_checked("snp.policy.cloud", "a VCEK names no cloud"),
        Some(cloud) => one_of(checks, "snp.policy.cloud", &policy.cloud_ids, cloud, cloud),
    }
    let id = claims.chip_id.as_deref().map(|id| HEXLOWER.encode(id));
    let shown = id.as_deref().unwrap_or("unknown");
    let lower = |ids: &[String]| ids.iter().map(|id| id.to_ascii_lowercase()).collect::<Vec<_>>();
    let accepted = match &policy.chip_ids {
        Expect::Any => Expect::Any,
        Expect::OneOf(ids) => Expect::OneOf(lower(ids)),
    };
    one_of(checks, "snp.policy.chip", &accepted, &shown.to_owned(), shown);
    checks.require(
        "snp.policy.denied-chip",
        match &id {
            Some(id) if lower(&policy.denied_chip_ids).contains(id) => Err(format!("{id} is denied")),
            None if !policy.denied_chip_ids.is_empty() => {
                Err("chips are denied, and the report does not say which it is".to_owned())
            }
            _ => Ok(format!("not among {} that are denied", policy.denied_chip_ids.len())),
        },
    );
    checks.require(
        "snp.policy.masked-chip",
        match (claims.chip_id_masked, policy.masked_chip_id) {
            (false, _) => Ok("the report says its chip id"),
            (true, MaskedChip::Accepted) => Ok("the report withholds its chip id, which is accepted"),
            (true, MaskedChip::Refused) => Err("the report withholds its chip id"),
        },
    );
}

fn tcb(checks: &mut Checks, claims: &Claims, policy: &Policy) {
    let mut one = |name: &'static str, tcb: TcbVersion| {
        let found = tcb.components(claims.product);
        let result = match policy.tcb_floor.get(&claims.product) {
            None => Err(format!("no floor is set for {}; it is {found}", claims.product.claim())),
            Some(floor) if found.at_least(floor) => Ok(format!("{found}; the floor is {floor}")),
            Some(floor) => Err(format!("{found} is below the floor: {floor}")),
        };
        checks.require(name, result);
    };
    one("snp.policy.tcb.reported", claims.reported_tcb);
    one("snp.policy.tcb.committed", claims.committed_tcb);
    one("snp.policy.tcb.launch", claims.launch_tcb);
    let committed = claims.current_tcb == claims.committed_tcb && claims.current_version == claims.committed_version;
    checks.require(
        "snp.policy.provisional-firmware",
        match (committed, policy.provisional_firmware) {
            (true, _) => Ok("what runs is committed"),
            (false, Provisional::Accepted) => Ok("what runs is not committed, which is accepted"),
            (false, Provisional::Refused) => Err("what runs is not committed: the platform can go back behind it"),
        },
    );
    let (lowest, found) = (policy.firmware_floor, claims.committed_version);
    let shown = [lowest.to_string(), found.to_string()];
    floor(checks, "snp.policy.firmware", &Default::default(), &lowest, &found, shown);
    match claims.mitigations {
        _ if policy.mitigations == 0 => checks.not_checked("snp.policy.mitigations", "none is asked for"),
        None => {
            checks.require("snp.policy.mitigations", Err("this report version does not say"));
        }
        Some(vectors) => {
            let missing = policy.mitigations & !(vectors.launch & vectors.current);
            let result =
                if missing == 0 { Ok("all in force".to_owned()) } else { Err(format!("missing: {missing:#x}")) };
            checks.require("snp.policy.mitigations", result);
        }
    }
}

fn guest(checks: &mut Checks, claims: &Claims, policy: &Policy) {
    let (rules, found) = (&policy.guest, claims.policy);
    bit(checks, "snp.policy.guest.debug", rules.debug, found.debug());
    bit(checks, "snp.policy.guest.migration-agent", rules.migration_agent, found.migration_agent());
    bit(checks, "snp.policy.guest.smt", rules.smt, found.smt());
    bit(checks, "snp.policy.guest.single-socket", rules.single_socket, found.single_socket());
    bit(checks, "snp.policy.guest.cxl", rules.cxl, found.cxl());
    bit(checks, "snp.policy.guest.aes-256-xts", rules.aes_256_xts, found.aes_256_xts());
    bit(checks, "snp.policy.guest.rapl-disabled", rules.rapl_disabled, found.rapl_disabled());
    bit(checks, "snp.policy.guest.ciphertext-hiding", rules.ciphertext_hiding, found.ciphertext_hiding());
    bit(checks, "snp.policy.guest.page-swap-disabled", rules.page_swap_disabled, found.page_swap_disabled());
    let shown = [rules.abi_floor, found.abi()].map(|(major, minor)| format!("{major}.{minor}"));
    floor(checks, "snp.policy.guest.abi", &(0, 0), &rules.abi_floor, &found.abi(), shown);
}

fn platform(checks: &mut Checks, claims: &Claims, policy: &Policy) {
    let (rules, found) = (&policy.platform, claims.platform);
    bit(checks, "snp.policy.platform.smt", rules.smt, found.smt());
    bit(checks, "snp.policy.platform.tsme", rules.tsme, found.tsme());
    bit(checks, "snp.policy.platform.ecc", rules.ecc, found.ecc());
    bit(checks, "snp.policy.platform.rapl-disabled", rules.rapl_disabled, found.rapl_disabled());
    bit(checks, "snp.policy.platform.ciphertext-hiding", rules.ciphertext_hiding, found.ciphertext_hiding());
    bit(checks, "snp.policy.platform.alias-check", rules.alias_check_complete, found.alias_check_complete());
    bit(checks, "snp.policy.platform.trusted-io", rules.trusted_io, found.trusted_io());
}

fn identity(checks: &mut Checks, claims: &Claims, policy: &Policy) {
    one_of(checks, "snp.policy.vmpl", &policy.vmpl, &claims.vmpl, &claims.vmpl.to_string());
    bytes(checks, "snp.policy.measurement", &policy.measurement, claims.measurement);
    bytes(checks, "snp.policy.report-data", &policy.report_data, claims.report_data);
    bytes(checks, "snp.policy.host-data", &policy.host_data, claims.host_data);
    bytes(checks, "snp.policy.id-key", &policy.id_key_digest, claims.id_key_digest);
    bytes(checks, "snp.policy.author-key", &policy.author_key_digest, claims.author_key_digest);
    bytes(checks, "snp.policy.family-id", &policy.family_id, claims.family_id);
    bytes(checks, "snp.policy.image-id", &policy.image_id, claims.image_id);
    bytes(checks, "snp.policy.report-id", &policy.report_id, claims.report_id);
    let shown = [policy.guest_svn_floor.to_string(), claims.guest_svn.to_string()];
    floor(checks, "snp.policy.guest-svn", &0, &policy.guest_svn_floor, &claims.guest_svn, shown);
}
