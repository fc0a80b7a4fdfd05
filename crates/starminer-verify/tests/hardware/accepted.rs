//! Each kind from end to end, and what is claimed of it.

use starminer_hardware::event_log::SecureBootState;
use starminer_hardware::ima::BootAggregate;
use starminer_verify::{
    Decision, DeviceClaims, EvidenceKind as Kind, HostMeasure, Provenance, Tier, TrustStatus, UnixTime, Verdict,
    chip_digest,
};

use crate::fixture::NOW;
use crate::world::{World, find, refused_by};

/// Accepted in full, simulated under the first of its roots, with the tier that it should reach.
#[track_caller]
fn check(world: &World, kinds: &[Kind], tier: Tier) {
    let result = world.appraise(kinds);
    let refused: Vec<_> = match result.decision() {
        Decision::Meets => Vec::new(),
        Decision::Fails(refusals) => refusals.iter().map(ToString::to_string).collect(),
    };
    assert!(refused.is_empty(), "{kinds:?}: {refused:#?}");
    assert_eq!(result.tier(), tier, "{kinds:?}: {:#?}", result.checks());
    assert_eq!(result.provenance(), Provenance::Simulated { root: world.roots(kinds)[0] }, "{kinds:?}");
    assert_eq!(result.status(), TrustStatus::Warning, "a simulation is a warning at best");
    assert_eq!(result.kind(), kinds[0]);
    let data = result.checks().iter().filter(|check| check.name() == "evidence.report-data").count();
    let signing = kinds.iter().filter(|kind| !kind.is_log() && **kind != Kind::NvidiaGpu).count();
    assert_eq!(data, signing + usize::from(kinds.contains(&Kind::NvidiaGpu)), "each device signed the batch");
}

#[test]
fn cpu_tees_are_confidential() {
    let world = World::new();
    for kinds in [&[Kind::SevSnp][..], &[Kind::Tdx], &[Kind::Sgx], &[Kind::Tdx, Kind::CcLog]] {
        check(&world, kinds, Tier::Confidential);
    }
}

#[test]
fn gpus_beside_a_tee() {
    let mut world = World::new();
    world.rules.gpu.count_min = 1;
    check(&world, &[Kind::SevSnp, Kind::NvidiaGpu], Tier::Confidential);
    check(&world, &[Kind::SoftwareTee, Kind::NvidiaGpu], Tier::Confidential);
    // Two of them, which are two.
    let mut parts = world.parts(&[Kind::Tdx, Kind::NvidiaGpu]);
    parts.push((Kind::NvidiaGpu, world.gpu_part("A2", &world.report_data()).encode()));
    let result = world.verifier(&[Kind::Tdx, Kind::NvidiaGpu]).appraise(&world.encode(parts)).unwrap();
    assert_eq!(refused_by(&result), [""; 0]);
    assert_eq!(find(&result, "gpu.count").reason(), "GPUs: 2, at least 1 asked for");
}

#[test]
fn a_tpm_alone_is_identified_and_with_its_logs_measured() {
    let world = World::tpm_alone(Tier::Identified);
    // Reference values name an agent's file, so that a list is asked for; it does not refuse at this tier.
    check(&world, &[Kind::Tpm], Tier::Identified);
    check(&world, &[Kind::Tpm, Kind::UefiLog, Kind::ImaLog], Tier::Identified);

    let mut world = World::tpm_alone(Tier::Measured);
    world.state(&[HostMeasure::JobStorageEncrypted, HostMeasure::JobStorageLocked]);
    check(&world, &[Kind::Tpm, Kind::UefiLog, Kind::ImaLog], Tier::Measured);
    let verified = world.verify(&[Kind::Tpm, Kind::UefiLog, Kind::ImaLog]).unwrap();
    let DeviceClaims::Tpm(claims) = verified.device() else { panic!("{:?}", verified.device()) };
    assert_eq!(claims.quote().clock().reset_count, 7);
    assert_eq!(claims.endorsement_key().maker_id(), Some("STM"));
    assert_eq!(claims.boot_log().unwrap().secure_boot().state, SecureBootState::Enabled);
    let ima = claims.ima().unwrap();
    assert_eq!((ima.entries(), ima.violations(), ima.boot_aggregate()), (2, 0, BootAggregate::Agrees));
    assert_eq!(claims.enrolment(), Some(&world.enrolment()));
    assert!(verified.tpm().is_some() && verified.gpus().is_none());
}

#[test]
fn a_tpm_beside_a_tee_leaves_the_tier_to_the_tee() {
    let world = World::with_tpm();
    for tee in [Kind::SoftwareTee, Kind::SevSnp, Kind::Tdx, Kind::Sgx] {
        check(&world, &[tee, Kind::Tpm], Tier::Confidential);
    }
    check(&world, &[Kind::SevSnp, Kind::Tpm, Kind::UefiLog, Kind::ImaLog, Kind::NvidiaGpu], Tier::Confidential);
    let result = world.appraise(&[Kind::SevSnp, Kind::Tpm]);
    assert_eq!(find(&result, "tpm.co-enrolled").verdict(), Verdict::NotChecked, "enrolled without a chip");
}

#[test]
fn hardened_is_a_confidential_device_enrolled_with_a_measured_tpm() {
    let kinds = [Kind::SevSnp, Kind::Tpm, Kind::UefiLog, Kind::ImaLog];
    let mut world = World::with_tpm();
    world.minimum_tier = Tier::Hardened;
    world.smt_off = true;
    world.state(&[HostMeasure::JobStorageEncrypted, HostMeasure::JobStorageLocked, HostMeasure::CpuMitigated]);
    let mut verifier = world.verifier(&kinds);
    verifier.enrolments.keys[0].chip = Some(world.snp_chip());
    verifier.enrolments.facilities = vec![world.facility(world.snp_chip())];
    let result = verifier.appraise(&world.evidence(&kinds)).unwrap();
    assert_eq!(refused_by(&result), [""; 0]);
    assert_eq!(result.tier(), Tier::Hardened);
    assert!(matches!(result.provenance(), Provenance::Simulated { .. }));
    let claim = find(&result, "tpm.co-enrolled").reason();
    assert!(claim.starts_with("co-enrolled") && claim.contains("does not prove one platform"), "{claim}");
    // A TPM and its logs say nothing of the guest: what runs there is in the launch digest alone.
    assert_eq!(find(&result, "device.measurement").verdict(), Verdict::Pass);
    let mut verifier = world.verifier(&kinds);
    verifier.reference_values = {
        let all = world.reference_values().values().to_vec();
        starminer_verify::ReferenceValues::new(all.into_iter().filter(|value| value.kind != Kind::SevSnp).collect())
            .unwrap()
    };
    let result = verifier.appraise(&world.evidence(&kinds)).unwrap();
    assert_eq!(result.tier(), Tier::Identified);
    assert_eq!(find(&result, "device.measurement").verdict(), Verdict::NotChecked);
}

#[test]
fn one_signature_for_many_bindings() {
    let mut world = World::with_tpm();
    world.node.batch_mates = (0..5u8).map(|mate| starminer_verify::Digest::of(&[mate])).collect();
    check(&world, &[Kind::SevSnp, Kind::Tpm, Kind::NvidiaGpu], Tier::Confidential);
}

#[test]
fn no_result_names_a_chip() {
    let (joined, plain) = (World::with_tpm(), World::new());
    for (world, kinds) in
        [(&joined, &[Kind::SevSnp, Kind::Tpm, Kind::NvidiaGpu][..]), (&plain, &[Kind::Tdx]), (&plain, &[Kind::Sgx])]
    {
        let result = world.appraise(kinds);
        let ear = String::from_utf8(result.to_ear_json()).unwrap();
        let hex = |id: &[u8]| data_encoding::HEXLOWER.encode(id);
        let ids = match kinds[0] {
            Kind::SevSnp => vec![hex(&world.snp.hardware_id), world.snp_chip().to_hex(), "A1 ".into()],
            kind => vec![hex(&[7; 16]), chip_digest(kind, &[7; 16]).to_hex()],
        };
        for id in ids {
            assert!(!ear.contains(&id), "{kinds:?}: {id} in {ear}");
        }
        let json: serde_json::Value = serde_json::from_str(&ear).unwrap();
        assert_eq!(json["submods"][kinds[0].name()]["ear_starminer_tier"], "confidential");
        assert_eq!(json["submods"][kinds[0].name()]["ear_starminer_provenance"]["name"], "simulated");
    }
}

#[test]
fn a_result_is_a_jwt_that_its_key_set_verifies() {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use data_encoding::BASE64URL_NOPAD;
    let world = World::new();
    let result = world.appraise(&[Kind::SevSnp]);
    let signer = crate::fixture::Key::new(77);
    let token = result.to_jwt(&signer.public(), |bytes| signer.sign_bytes(bytes));
    let keys = starminer_verify::jwks([&signer.public()]);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let x = decode(keys["keys"][0]["x"].as_str().unwrap());
    UnparsedPublicKey::new(&ED25519, &x).verify(signed.as_bytes(), &decode(signature)).unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let header: serde_json::Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&"EdDSA".into(), &keys["keys"][0]["kid"]));
    assert_eq!(decode(payload), result.to_ear_json());
}

/// `check_at` says what `verify` would say, at the edges of whatever was relied upon.
#[test]
fn dates_can_be_asked_for_another_time() {
    let world = World::with_tpm();
    const DAY_MS: i64 = 86_400_000;
    // Days on which something begins or ends that one of the test authorities made, and those beside.
    const EDGES: [i64; 23] =
        [-101, -100, -31, -30, -11, -10, -5, -3, -2, -1, 0, 1, 5, 6, 10, 11, 20, 27, 28, 30, 100, 300, 301];
    for kinds in [
        &[Kind::SevSnp][..],
        &[Kind::Tdx],
        &[Kind::Sgx],
        &[Kind::SevSnp, Kind::Tpm],
        &[Kind::SoftwareTee, Kind::NvidiaGpu],
    ] {
        let mut world_of = World::new();
        world_of.node = crate::fixture::Node::for_purpose(starminer_verify::Purpose::Admission);
        let world = if kinds.contains(&Kind::Tpm) { &world } else { &world_of };
        let evidence = world.evidence(kinds);
        let mut verifier = world.verifier(kinds);
        let verified = verifier.verify(&evidence).unwrap();
        let mut seen = [false; 2];
        for days in EDGES {
            for offset in [-1000, 0, 1000] {
                let now = UnixTime(NOW.0.saturating_add_signed(days * DAY_MS + offset));
                // The enrolment is of another day and is no date of evidence.
                verifier.now = now;
                let at_once = verifier.verify(&evidence).map(|_| ()).map_err(|_| ());
                let later = verified.check_at(now);
                assert_eq!(later.is_ok(), at_once.is_ok(), "{kinds:?} on day {days} and {offset} ms: {later:?}");
                seen[usize::from(later.is_ok())] = true;
                if let Err(refusal) = later {
                    assert_eq!(refusal.check(), "evidence.certificate-dates");
                }
            }
        }
        assert_eq!(seen, [true; 2], "{kinds:?}");
    }
}
