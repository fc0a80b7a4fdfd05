//! Evidence from before and after a run, of one machine: what may have happened to its devices in between, and what may not.

use starminer_verify::EvidenceKind as Kind;
use starminer_verify::parts::TpmPart;
use starminer_verify::{Tier, Verified};

use crate::world::World;

const TPM: [Kind; 1] = [Kind::Tpm];
const WITH_LIST: [Kind; 2] = [Kind::Tpm, Kind::ImaLog];

/// Where a `TPMS_ATTEST` with a signer of 34 bytes and 32 bytes of challenge has what changes (TPM 2.0 part 2, 10.12.12).
const CLOCK: std::ops::Range<usize> = 76..84;
const RESET_COUNT: std::ops::Range<usize> = 84..88;
const RESTART_COUNT: std::ops::Range<usize> = 88..92;
const SAFE: usize = 92;
const FIRMWARE: std::ops::Range<usize> = 93..101;

/// Evidence of a TPM whose clock is at this many milliseconds.
fn at(world: &World, kinds: &[Kind], clock: u64, alter: impl FnOnce(&mut Vec<u8>)) -> Verified {
    let report_data = world.report_data();
    let (attest, signature) = world.tpm.quote(report_data.as_bytes(), |attest| {
        attest[CLOCK].copy_from_slice(&clock.to_be_bytes());
        alter(attest);
    });
    let part = TpmPart { attest, signature, ..world.tpm.part(&report_data) };
    let mut parts = world.parts(kinds);
    parts.iter_mut().find(|(kind, _)| *kind == Kind::Tpm).unwrap().1 = part.encode();
    world.verifier(kinds).verify(&world.encode(parts)).unwrap_or_else(|refusal| panic!("{refusal}"))
}

fn world() -> World {
    World::tpm_alone(Tier::Identified)
}

#[track_caller]
fn refused(name: &str, before: &Verified, after: &Verified) {
    let refusal = after.continues(before).expect_err(name);
    assert_eq!(refusal.check(), name, "{refusal}");
    assert_eq!(refusal.party(), starminer_verify::Party::Node);
}

#[test]
fn a_tpm_left_alone_for_a_millisecond() {
    let world = world();
    let before = at(&world, &TPM, 1_000, |_| {});
    at(&world, &TPM, 1_001, |_| {}).continues(&before).unwrap();
    // A clock that becomes safe again is no loss.
    let unsafe_before = at(&world, &TPM, 1_000, |attest| attest[SAFE] = 0);
    at(&world, &TPM, 1_001, |_| {}).continues(&unsafe_before).unwrap();
}

#[test]
fn each_thing_that_happens_to_a_tpm() {
    let world = world();
    let before = at(&world, &TPM, 1_000, |_| {});
    refused("tpm.clock-advanced", &before, &at(&world, &TPM, 1_000, |_| {}));
    refused("tpm.clock-advanced", &before, &at(&world, &TPM, 999, |_| {}));
    let later = |alter: &dyn Fn(&mut Vec<u8>)| at(&world, &TPM, 2_000, alter);
    refused("tpm.reset-count", &before, &later(&|attest| attest[RESET_COUNT][3] += 1));
    refused("tpm.reset-count", &before, &later(&|attest| attest[RESET_COUNT][3] -= 1));
    refused("tpm.restart-count", &before, &later(&|attest| attest[RESTART_COUNT][3] += 1));
    refused("tpm.clock-safe", &before, &later(&|attest| attest[SAFE] = 0));
    refused("tpm.firmware-unchanged", &before, &later(&|attest| attest[FIRMWARE][7] ^= 1));
}

#[test]
fn registers_of_boot_stay_and_those_of_a_running_system_may_change() {
    for index in 0..12 {
        let mut world = world();
        let before = at(&world, &TPM, 1_000, |_| {});
        world.tpm.pcrs.get_mut(&index).unwrap()[0] ^= 1;
        let after = at(&world, &TPM, 2_000, |_| {});
        match index {
            10 => after.continues(&before).unwrap(),
            _ => refused("tpm.pcrs-unchanged", &before, &after),
        }
    }
}

#[test]
fn another_key_of_the_same_machine_is_another_tpm() {
    let one = world();
    let mut other = world();
    other.tpm.pcrs.clone_from(&one.tpm.pcrs);
    let before = at(&one, &TPM, 1_000, |_| {});
    refused("tpm.same-ak", &before, &at(&other, &TPM, 2_000, |_| {}));
}

#[test]
fn a_list_of_measured_files_may_grow_and_not_have_violations() {
    let mut world = world();
    let before = at(&world, &WITH_LIST, 1_000, |_| {});
    world.tpm.measure("/usr/bin/ls", b"ls");
    let grown = at(&world, &WITH_LIST, 2_000, |_| {});
    grown.continues(&before).unwrap();
    world.tpm.violate("/usr/bin/ls");
    let violated = at(&world, &WITH_LIST, 3_000, |_| {});
    refused("ima.violations", &grown, &violated);
    // One that was there before the run is for the policy to judge.
    at(&world, &WITH_LIST, 4_000, |_| {}).continues(&violated).unwrap();
}

#[test]
fn the_tee_of_before_and_its_tpm() {
    let tee_and_tpm = [Kind::SevSnp, Kind::Tpm];
    let mut world = World::with_tpm();
    let before = at(&world, &tee_and_tpm, 1_000, |_| {});
    at(&world, &tee_and_tpm, 2_000, |_| {}).continues(&before).unwrap();
    refused("tpm.reset-count", &before, &at(&world, &tee_and_tpm, 2_000, |attest| attest[RESET_COUNT][3] += 1));

    // The TPM is the device now.
    refused("evidence.device", &before, &at(&world, &TPM, 2_000, |_| {}));
    // Another chip of the same kind.
    world.snp.hardware_id[0] ^= 1;
    refused("evidence.device", &before, &at(&world, &tee_and_tpm, 2_000, |_| {}));
}

#[test]
fn a_tpm_that_took_no_part_any_more() {
    let mut world = World::with_tpm();
    let before = at(&world, &[Kind::SevSnp, Kind::Tpm], 1_000, |_| {});
    world.node.binding.ak_name = None;
    let after = world.verify(&[Kind::SevSnp]).unwrap();
    refused("evidence.tpm-gone", &before, &after);
    // One that joins is nothing lost.
    before.continues(&after).unwrap();
}
