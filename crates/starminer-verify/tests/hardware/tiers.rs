//! What is true and not good enough: each ground of a tier taken away in turn.

use starminer_hardware::snp::{Crls, Names};
use starminer_verify::{
    Digest, Endorsements, EvidenceKind as Kind, HostMeasure, ReferenceValues, Requirement, Tier, TrustStatus, Verdict,
    chip_digest,
};

use crate::fixture::Verifier;
use crate::log_builder::machine;
use crate::snp_lab::{Vek, put};
use crate::tpm_lab::TpmLab;
use crate::world::{World, find, refused_by};

/// Refused by exactly these checks, with this tier.
#[track_caller]
fn check(codes: &[&str], tier: Tier, verifier: &Verifier, evidence: &[u8]) {
    let result = verifier.appraise(evidence).unwrap();
    assert_eq!(refused_by(&result), codes);
    assert_eq!(result.tier(), tier);
    assert_eq!(result.status(), TrustStatus::Contraindicated);
}

#[test]
fn rules_of_a_kind_make_up_confidentiality() {
    let kinds = [Kind::SevSnp];
    let strict = |change: fn(&mut World), codes: &[&str], tier| {
        let mut world = World::new();
        change(&mut world);
        check(codes, tier, &world.verifier(&kinds), &world.evidence(&kinds));
    };
    let floors = ["snp.policy.tcb.reported", "snp.policy.tcb.committed", "snp.policy.tcb.launch"];
    let low = ["device.tcb", floors[0], floors[1], floors[2], "policy.minimum-tier"];
    strict(|world| world.rules.sev_snp.tcb_floor.clear(), &low, Tier::Identified);
    strict(
        |world| world.rules.sev_snp.tcb_floor.values_mut().for_each(|floor| floor.microcode += 1),
        &low,
        Tier::Identified,
    );
    strict(|world| world.rules.sev_snp.vmpl = vec![1], &["snp.policy.vmpl", "policy.minimum-tier"], Tier::Identified);
    let chip = |world: &mut World| world.rules.chips.denied = vec![Digest([0; 32]), world.snp_chip()];
    strict(chip, &["device.chip", "policy.minimum-tier"], Tier::Identified);
    strict(|world| world.rules.chips.facility = Requirement::Required, &["device.facility"], Tier::Confidential);
    strict(|world| world.rules.gpu.count_min = 1, &["gpu.count"], Tier::Confidential);
}

#[test]
fn a_policy_without_the_section_is_strict() {
    let world = World::new();
    let mut verifier = world.verifier(&[Kind::SevSnp]);
    verifier.policy = world.policy(&[Kind::SevSnp], |fields| fields.hardware = None);
    let codes = [
        "device.tcb",
        "snp.policy.tcb.reported",
        "snp.policy.tcb.committed",
        "snp.policy.tcb.launch",
        "policy.minimum-tier",
    ];
    check(&codes, Tier::Identified, &verifier, &world.evidence(&[Kind::SevSnp]));
    // Intel's strict rules need nothing written: what Intel says is up to date is accepted.
    for kinds in [&[Kind::Tdx][..], &[Kind::Sgx]] {
        let mut verifier = world.verifier(kinds);
        verifier.policy = world.policy(kinds, |fields| fields.hardware = None);
        assert_eq!(refused_by(&verifier.appraise(&world.evidence(kinds)).unwrap()), [""; 0]);
    }
}

#[test]
fn debug_and_reference_values() {
    // The guest's owner allowed debugging, and the chip says so.
    let world = World::new();
    let mut part = world.snp_part(&world.report_data());
    part.report = world.snp.report(|report| {
        put(report, 0x50, world.report_data().as_bytes());
        put(report, 0x70, &[0; 32]);
        put(report, 0x08, &(0x3001f_u64 | 1 << 19).to_le_bytes());
    });
    let codes = ["device.debug-off", "snp.policy.guest.debug", "policy.minimum-tier"];
    let evidence = world.encode(vec![(Kind::SevSnp, part.encode())]);
    check(&codes, Tier::Identified, &world.verifier(&[Kind::SevSnp]), &evidence);
    for (kind, detail) in [(Kind::SevSnp, "snp.policy.measurement"), (Kind::Sgx, "dcap.policy.mrenclave")] {
        let mut verifier = world.verifier(&[kind]);
        let codes = ["device.measurement", detail, "policy.minimum-tier"];
        verifier.reference_values = ReferenceValues::unset();
        check(&codes, Tier::Identified, &verifier, &world.evidence(&[kind]));
        // Values of other kinds are none of this one.
        let others = world.reference_values().values().to_vec();
        let others = others.into_iter().filter(|value| value.kind != kind).collect();
        verifier.reference_values = ReferenceValues::new(others).unwrap();
        check(&codes, Tier::Identified, &verifier, &world.evidence(&[kind]));
    }
    // A register from one image and another from another are no image.
    let mut world = World::new();
    let verifier = {
        let mut values = world.reference_values().values().to_vec();
        let mut other = values.iter().find(|value| value.kind == Kind::Tdx).unwrap().clone();
        let mut bytes = other.measurement.as_bytes().to_vec();
        bytes[48..96].fill(1);
        other.measurement = starminer_verify::Measurement::from_bytes(&bytes).unwrap();
        let mut bytes = other.measurement.as_bytes().to_vec();
        bytes[..48].fill(0x45);
        other.measurement = starminer_verify::Measurement::from_bytes(&bytes).unwrap();
        values.push(other);
        let mut verifier = world.verifier(&[Kind::Tdx]);
        verifier.reference_values = ReferenceValues::new(values).unwrap();
        verifier
    };
    assert_eq!(refused_by(&verifier.appraise(&world.evidence(&[Kind::Tdx])).unwrap()), [""; 0]);
    world.td_registers[0] = [1; 48];
    let codes = ["device.measurement", "policy.minimum-tier"];
    check(&codes, Tier::Identified, &verifier, &world.evidence(&[Kind::Tdx]));
}

#[test]
fn a_revocation_list_is_asked_for_unless_the_policy_says_otherwise() {
    let mut world = World::new();
    let mut verifier = world.verifier(&[Kind::SevSnp]);
    verifier.endorsements = Endorsements::none();
    let evidence = world.evidence(&[Kind::SevSnp]);
    check(&["snp.policy.crl", "policy.minimum-tier"], Tier::Identified, &verifier, &evidence);
    world.rules.sev_snp.crl = Crls::Optional;
    verifier.policy = world.policy(&[Kind::SevSnp], |_| {});
    let result = verifier.appraise(&evidence).unwrap();
    assert_eq!(refused_by(&result), [""; 0]);
    assert_eq!(find(&result, "snp.crl").verdict(), Verdict::NotChecked, "and says so");
    // Of GPUs, of whose drivers and images there are no manifests either.
    let world = World::new();
    let kinds = [Kind::SoftwareTee, Kind::NvidiaGpu];
    let mut verifier = world.verifier(&kinds);
    verifier.endorsements = Endorsements::none();
    let codes = ["nvidia.policy.revocation", "nvidia.driver-measurements", "nvidia.vbios-measurements"];
    check(&codes, Tier::Confidential, &verifier, &world.evidence(&kinds));
}

#[test]
fn a_vlek_names_a_cloud_and_is_never_hardened() {
    let kinds = [Kind::SevSnp, Kind::Tpm, Kind::UefiLog, Kind::ImaLog];
    let mut world = World::with_tpm();
    world.vek = Vek::Cloud;
    world.smt_off = true;
    world.state(&[HostMeasure::JobStorageEncrypted, HostMeasure::JobStorageLocked, HostMeasure::CpuMitigated]);
    // By default nobody takes a cloud's word.
    let codes = ["snp.policy.names", "snp.policy.cloud", "policy.minimum-tier"];
    check(&codes, Tier::Identified, &world.verifier(&kinds), &world.evidence(&kinds));
    world.rules.sev_snp.names = Names::Cloud;
    world.rules.sev_snp.cloud_ids = vec!["CN=cloud.example".to_owned()];
    assert_eq!(world.appraise(&kinds).tier(), Tier::Confidential);
    // With everything that a hardened node has.
    world.minimum_tier = Tier::Hardened;
    let mut verifier = world.verifier(&kinds);
    verifier.enrolments.keys[0].chip = Some(world.snp_chip());
    verifier.enrolments.facilities = vec![world.facility(world.snp_chip())];
    let codes = ["tpm.co-enrolled", "device.facility", "policy.minimum-tier"];
    check(&codes, Tier::Confidential, &verifier, &world.evidence(&kinds));
    // Where chips are denied, one that does not say which it is is denied too.
    world.minimum_tier = Tier::Confidential;
    world.rules.chips.denied = vec![Digest([7; 32])];
    check(&["device.chip", "policy.minimum-tier"], Tier::Identified, &world.verifier(&kinds), &world.evidence(&kinds));
}

#[test]
fn each_ground_of_hardened_in_turn() {
    let kinds = [Kind::SevSnp, Kind::Tpm, Kind::UefiLog, Kind::ImaLog];
    let measures = [HostMeasure::JobStorageEncrypted, HostMeasure::JobStorageLocked, HostMeasure::CpuMitigated];
    let world = |smt_off, measures: &[HostMeasure]| {
        let mut world = World::with_tpm();
        world.minimum_tier = Tier::Hardened;
        world.smt_off = smt_off;
        world.state(measures);
        world
    };
    let verifier = |world: &World| {
        let mut verifier = world.verifier(&kinds);
        verifier.enrolments.keys[0].chip = Some(world.snp_chip());
        verifier.enrolments.facilities = vec![world.facility(world.snp_chip())];
        verifier
    };
    let down = |world: &World, verifier: &Verifier, kinds: &[Kind], codes: &[&str]| {
        let codes: Vec<&str> = codes.iter().copied().chain(["policy.minimum-tier"]).collect();
        check(&codes, Tier::Confidential, verifier, &world.evidence(kinds));
    };
    let noisy = world(false, &measures);
    down(&noisy, &verifier(&noisy), &kinds, &["device.side-channels"]);
    let unknown = world(true, &measures[..2]);
    down(&unknown, &verifier(&unknown), &kinds, &["device.side-channels"]);
    let open = world(true, &measures[1..]);
    down(&open, &verifier(&open), &kinds, &["device.storage"]);

    let world = world(true, &measures);
    let evidence_of = |kinds: &[Kind], codes: &[&str]| down(&world, &verifier(&world), kinds, codes);
    evidence_of(&[Kind::SevSnp, Kind::Tpm, Kind::ImaLog], &["eventlog.policy.secure-boot"]);
    evidence_of(&[Kind::SevSnp, Kind::Tpm, Kind::UefiLog], &["ima.policy.registers"]);
    let mut without = verifier(&world);
    without.enrolments.facilities.clear();
    down(&world, &without, &kinds, &["device.facility"]);
    for change in [
        (|credential| credential.chip = Digest([1; 32])) as fn(&mut starminer_verify::FacilityCredential),
        |credential| credential.network = starminer_verify::NetworkId([1; 32]),
        |credential| credential.not_after = crate::fixture::NOW,
        |credential| credential.not_before = starminer_verify::UnixTime(crate::fixture::NOW.0 + 1),
    ] {
        let mut other = verifier(&world);
        change(&mut other.enrolments.facilities[0]);
        down(&world, &other, &kinds, &["device.facility"]);
    }
    let mut without = verifier(&world);
    without.enrolments.keys[0].chip = None;
    down(&world, &without, &kinds, &["tpm.co-enrolled"]);
    let mut without = verifier(&world);
    without.enrolments.keys.clear();
    down(&world, &without, &kinds, &["tpm.enrolled", "tpm.co-enrolled"]);
    let mut without = verifier(&world);
    let values = world.reference_values().values().to_vec();
    without.reference_values =
        ReferenceValues::new(values.into_iter().filter(|value| value.kind != Kind::Tpm).collect()).unwrap();
    down(&world, &without, &kinds, &["tpm.measurement"]);
    // Without a TPM at all.
    let mut alone = World::new();
    alone.minimum_tier = Tier::Hardened;
    alone.smt_off = true;
    alone.state(&measures);
    let mut verifier = alone.verifier(&[Kind::SevSnp]);
    verifier.enrolments.facilities = vec![alone.facility(alone.snp_chip())];
    down(&alone, &verifier, &[Kind::SevSnp], &["tpm.co-enrolled"]);
}

#[test]
fn each_ground_of_measured_in_turn() {
    let kinds = [Kind::Tpm, Kind::UefiLog, Kind::ImaLog];
    let world = |lab: TpmLab, measures: &[HostMeasure]| {
        let mut world = World::tpm_alone(Tier::Measured);
        world.tpm = lab;
        world.node.binding.ak_name = Some(world.tpm.ak_name());
        world.state(measures);
        world
    };
    let locked = [HostMeasure::JobStorageEncrypted, HostMeasure::JobStorageLocked];
    let down = |world: &World, kinds: &[Kind], codes: &[&str]| {
        let codes: Vec<&str> = codes.iter().copied().chain(["policy.minimum-tier"]).collect();
        check(&codes, Tier::Identified, &world.verifier(kinds), &world.evidence(kinds));
    };
    let good = world(TpmLab::new(), &locked);
    assert_eq!(good.appraise(&kinds).tier(), Tier::Measured);
    down(&good, &[Kind::Tpm, Kind::ImaLog], &["eventlog.policy.secure-boot"]);
    down(&good, &[Kind::Tpm, Kind::UefiLog], &["ima.policy.registers"]);
    down(&world(TpmLab::with_log(machine(&[0])), &locked), &kinds, &["eventlog.policy.secure-boot"]);
    down(&world(TpmLab::new(), &locked[..1]), &kinds, &["device.storage"]);
    down(&world(TpmLab::new(), &[]), &kinds, &["device.storage"]);

    // Another image than the one that is good, and another agent.
    let mut verifier = good.verifier(&kinds);
    verifier.reference_values = World::new().reference_values();
    let mut other = world(TpmLab::new(), &locked);
    other.tpm.pcrs.insert(11, [9; 32]);
    let mut pinned = other.verifier(&kinds);
    pinned.reference_values = good.reference_values();
    check(&["device.measurement", "policy.minimum-tier"], Tier::Identified, &pinned, &other.evidence(&kinds));
    let mut pinned = good.verifier(&kinds);
    let mut values = good.reference_values().values().to_vec();
    for value in values.iter_mut().filter(|value| value.kind == Kind::ImaLog) {
        value.measurement = Digest::of(b"another file").into();
    }
    pinned.reference_values = ReferenceValues::new(values).unwrap();
    check(&["ima.policy.agent", "policy.minimum-tier"], Tier::Identified, &pinned, &good.evidence(&kinds));
    // Where no file is named the PCRs cover the agent, and no list is asked for.
    let mut pinned = good.verifier(&[Kind::Tpm, Kind::UefiLog]);
    let values = good.reference_values().values().to_vec();
    pinned.reference_values =
        ReferenceValues::new(values.into_iter().filter(|value| value.kind != Kind::ImaLog).collect()).unwrap();
    let result = pinned.appraise(&good.evidence(&[Kind::Tpm, Kind::UefiLog])).unwrap();
    assert_eq!((result.tier(), refused_by(&result)), (Tier::Measured, Vec::new()));
}

#[test]
fn a_tpm_is_never_confidential() {
    let mut world = World::with_tpm();
    world.state(&[HostMeasure::JobStorageEncrypted, HostMeasure::JobStorageLocked]);
    let kinds = [Kind::Tpm, Kind::UefiLog, Kind::ImaLog];
    let codes = ["device.debug-off", "device.memory-encrypted", "policy.minimum-tier"];
    check(&codes, Tier::Measured, &world.verifier(&kinds), &world.evidence(&kinds));
}

/// A maker's device with a number that everybody can try is not named by it.
#[test]
fn names_of_chips_are_apart() {
    let id = [7; 16];
    assert_eq!(chip_digest(Kind::Tdx, &id), chip_digest(Kind::Sgx, &id), "one platform, whichever TEE asks");
    assert_ne!(chip_digest(Kind::Tdx, &id), chip_digest(Kind::SevSnp, &id));
    let world = World::new();
    let chip = |kind| world.verify(&[kind]).unwrap().device().chip();
    assert_eq!(chip(Kind::Tdx), chip(Kind::Sgx));
    assert_eq!(chip(Kind::SevSnp), Some(world.snp_chip()));
    let mut denying = World::new();
    denying.rules.chips.denied = vec![chip_digest(Kind::NvidiaGpu, b"A1")];
    let result = denying.appraise(&[Kind::SevSnp, Kind::NvidiaGpu]);
    assert_eq!(refused_by(&result), ["gpu.chip"]);
}
