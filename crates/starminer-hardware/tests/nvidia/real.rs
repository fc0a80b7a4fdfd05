//! Evidence of real GPUs, and manifests that NVIDIA signed.

use starminer_hardware::cert::{Certificate, Provenance};
use starminer_hardware::nvidia::{
    Architecture, Endorsements, Evidence, Mode, Nonce, Policy, Requirement, Rim, RimKind, Roots, appraise, verify,
};
use starminer_hardware::{Verdict, Weight};

use super::support::{
    NOW_S, accepted, data, first_hopper, json, list, rim_refusal, second_hopper, vectors, verdict, verify_genuine,
};

const DRIVER_RIM: &str = "NV_GPU_DRIVER_GH100_550.144.03.xml";

#[test]
fn a_hopper_says_what_it_is() {
    let Some(folder) = vectors() else { return };
    let bytes = std::fs::read(folder.join("hopper_evidence.json")).unwrap();
    let verification = verify_genuine(&bytes, &[], NOW_S).unwrap();
    let verified = verification.verified.unwrap_or_else(|| panic!("{}", list(&verification.checks)));
    for name in ["nvidia.certificate-chain", "nvidia.report-signature", "nvidia.fwid", "nvidia.device-key"] {
        assert_eq!(verdict(&verification.checks, name), Some(Verdict::Pass), "{name}");
    }
    for name in ["nvidia.nonce", "nvidia.revocation", "nvidia.firmware-state"] {
        assert_eq!(verdict(&verification.checks, name), Some(Verdict::NotChecked), "{name}");
    }
    let claims = verified.claims();
    assert_eq!(claims.provenance, Provenance::Genuine);
    let [gpu] = claims.gpus.as_slice() else { panic!("one GPU") };
    assert_eq!((gpu.architecture, gpu.chip.as_str()), (Architecture::Hopper, "GH100"));
    assert_eq!((gpu.model.as_str(), gpu.device.as_str()), ("GH100 A01 GSP BROM", "48B02DF44660DA06"));
    assert_eq!(gpu.driver_version.as_deref(), Some("590.12"));
    assert_eq!(gpu.vbios_version.as_deref(), Some("96.00.a5.00.01"));
    assert_eq!(gpu.mode, Some(Mode::ProtectedPcie));
    assert_eq!((gpu.protected_pcie, gpu.nvdec0), (Some(true), Some(false)));
    assert_eq!((gpu.measurements.len(), gpu.switch_devices.len()), (64, 18));

    let json = claims.to_json();
    let gpu = &json["gpus"][0];
    assert_eq!(gpu["nonce"], "e97b23a1718095a0e9e35edca810768c70a6a5a389b705e753b197912bc11576");
    assert_eq!(gpu["ueid"], "72ca27239f0e96f6535f73af84eb1542471a17b2");
    assert_eq!(
        (&gpu["project"], &gpu["project_sku"], &gpu["chip_sku"]),
        (&"G520".into(), &"0200".into(), &"885".into())
    );
    assert!(gpu["fwid"].as_str().unwrap().starts_with("956ecf09ee4191f1"));
    assert!(gpu["measurements"]["2"].as_str().unwrap().starts_with("f21c16b08086efe5"));
    assert_eq!((&json["provenance"], &json["simulated_root"]), (&"genuine".into(), &serde_json::Value::Null));
}

#[test]
fn an_older_driver_states_less() {
    let (chain, report) = second_hopper();
    let claims = accepted(&serde_json::to_vec(&json("HOPPER", &chain, &report)).unwrap()).expect("it is genuine");
    let gpu = &claims.gpus[0];
    assert_eq!(gpu.driver_version.as_deref(), Some("550.90.07"));
    assert_eq!(gpu.vbios_version.as_deref(), Some("96.00.9f.00.01"));
    assert_eq!((gpu.mode, gpu.protected_pcie), (None, Some(false)));
    assert_eq!(gpu.project.as_deref(), Some("1010"));
}

#[test]
fn what_is_sent_to_the_remote_service_reads_the_same() {
    let (chain, report) = second_hopper();
    let list = json("HOPPER", &chain, &report);
    let request = serde_json::json!({
        "arch": "HOPPER", "nonce": list[0]["nonce"], "claims_version": "3.0",
        "evidence_list": [{"certificate": list[0]["certificate"], "evidence": list[0]["evidence"]}],
    });
    let claims = accepted(&serde_json::to_vec(&request).unwrap());
    assert!(claims.is_some());
    assert_eq!(claims, accepted(&serde_json::to_vec(&list).unwrap()));
}

#[test]
fn manifests_are_compared_only_with_their_own_version() {
    let Some(folder) = vectors() else { return };
    let bytes = std::fs::read(folder.join("hopper_evidence.json")).unwrap();
    let rims = [
        Rim::parse(&std::fs::read(folder.join(DRIVER_RIM)).unwrap()).unwrap(),
        Rim::parse(&data("vbios_96.00.74.00.1C.swidtag")).unwrap(),
    ];
    let verification = verify_genuine(&bytes, &rims, NOW_S).unwrap();
    let verified = verification.verified.unwrap_or_else(|| panic!("{}", list(&verification.checks)));
    let rims: Vec<_> =
        verified.claims().rims.iter().map(|rim| (rim.kind, rim.version.as_str(), rim.product.as_str())).collect();
    assert_eq!(rims, [(RimKind::Driver, "550.144.03", "GH100"), (RimKind::Vbios, "96.00.74.00.1c", "GH100")]);

    for (policy, weight) in [(Policy::default(), Weight::Required), (Policy::consistency(), Weight::Informative)] {
        let checks = appraise(&verified, &policy);
        for name in ["nvidia.driver-measurements", "nvidia.vbios-measurements"] {
            let check = checks.as_slice().iter().find(|check| check.name == name).unwrap();
            assert_eq!((check.verdict, check.weight), (Verdict::NotChecked, weight), "{name}");
            assert!(check.reason.contains("no manifest of"), "{}", check.reason);
        }
        assert_eq!(checks.hold(), weight == Weight::Informative, "{}", list(&checks));
    }
}

#[test]
fn manifests_have_dates() {
    let Some(folder) = vectors() else { return };
    let driver = std::fs::read(folder.join(DRIVER_RIM)).unwrap();
    let vbios = data("vbios_96.00.74.00.1C.swidtag");
    for (rim, now_s, refusal) in [
        (&driver, NOW_S, None),
        (&driver, 1_735_000_000, Some("nvidia.rim-chain")), // 2024-12-24, six days before its signer's certificate
        (&driver, 1_799_000_000, Some("nvidia.rim-chain")), // 2027-01-03, four days after it
        (&vbios, NOW_S, None),
        (&vbios, 1_758_000_000, Some("nvidia.rim-chain")), // 2025-09-16, eleven days after its own
    ] {
        assert_eq!(rim_refusal(rim, now_s).as_deref(), refusal, "{now_s}");
    }
}

#[test]
fn devices_have_dates_too() {
    let (chain, report) = second_hopper();
    let bytes = serde_json::to_vec(&json("HOPPER", &chain, &report)).unwrap();
    for (now_s, verdict_then) in
        [(1_600_000_000, Verdict::Fail), (253_402_300_800, Verdict::Fail), (253_402_300_799, Verdict::Pass)]
    {
        let verification = verify_genuine(&bytes, &[], now_s).unwrap();
        assert_eq!(verdict(&verification.checks, "nvidia.certificate-chain"), Some(verdict_then), "{now_s}");
        assert_eq!(verification.verified.is_some(), verdict_then == Verdict::Pass);
    }
}

#[test]
fn the_nonce_is_the_one_that_was_expected() {
    let (chain, report) = second_hopper();
    let evidence = Evidence::parse(&serde_json::to_vec(&json("HOPPER", &chain, &report)).unwrap()).unwrap();
    let mut nonce: [u8; 32] = report[4..36].try_into().unwrap();
    let check = |nonce| {
        let verification =
            verify(&evidence, Nonce::Expected(nonce), &Endorsements::default(), &Roots::compiled_in(), NOW_S);
        (verdict(&verification.checks, "nvidia.nonce"), verification.verified.is_some())
    };
    assert_eq!(check(nonce), (Some(Verdict::Pass), true));
    nonce[31] ^= 1;
    assert_eq!(check(nonce), (Some(Verdict::Fail), false));
}

#[test]
fn the_default_policy_asks_for_freshness_and_revocation() {
    let (chain, report) = second_hopper();
    let bytes = serde_json::to_vec(&json("HOPPER", &chain, &report)).unwrap();
    let verified = verify_genuine(&bytes, &[], NOW_S).unwrap().verified.unwrap();
    let checks = appraise(&verified, &Policy::default());
    for name in ["nvidia.policy.nonce", "nvidia.policy.revocation"] {
        let check = checks.as_slice().iter().find(|check| check.name == name).unwrap();
        assert_eq!((check.verdict, check.weight), (Verdict::NotChecked, Weight::Required), "{name}");
    }
    assert!(!checks.hold());
    assert_eq!(Policy::default().vbios_measurements, Requirement::Required);
}

#[test]
fn chains_and_roots_are_not_interchangeable() {
    let Some(folder) = vectors() else { return };
    let (first_chain, first_report) = first_hopper(&folder);
    let (second_chain, second_report) = second_hopper();
    for (chain, report) in [(&first_chain, &second_report), (&second_chain, &first_report)] {
        let verification =
            verify_genuine(&serde_json::to_vec(&json("HOPPER", chain, report)).unwrap(), &[], NOW_S).unwrap();
        assert!(verification.verified.is_none());
        assert_eq!(verdict(&verification.checks, "nvidia.fwid"), Some(Verdict::Fail));
    }

    let evidence = Evidence::parse(&serde_json::to_vec(&json("HOPPER", &first_chain, &first_report)).unwrap()).unwrap();
    let rim_root = Certificate::read_one(&std::fs::read(folder.join("rim_root.crt")).unwrap()).unwrap();
    let device_root = Certificate::read(&first_chain).unwrap().pop().unwrap();
    let rims = [Rim::parse(&std::fs::read(folder.join(DRIVER_RIM)).unwrap()).unwrap()];
    let endorsements = Endorsements { rims: &rims, ..Endorsements::default() };
    for (roots, device, rim) in [
        (Roots::none(), false, false),
        (Roots::none().with_device(device_root.clone()), true, false),
        (Roots::none().with_rim(rim_root.clone()), false, true),
        (Roots::none().with_rim(device_root.clone()).with_device(rim_root.clone()), false, false),
    ] {
        let verification = verify(&evidence, Nonce::Unknown, &endorsements, &roots, NOW_S);
        assert!(verification.verified.is_none());
        for (name, holds) in [("nvidia.certificate-chain", device), ("nvidia.rim-chain", rim)] {
            assert_eq!(verdict(&verification.checks, name) == Some(Verdict::Pass), holds, "{name}");
        }
    }

    // The very same roots named by the caller, and not by this crate, are simulated.
    let roots = Roots::none().with_device(device_root.clone()).with_rim(rim_root);
    let verified = verify(&evidence, Nonce::Unknown, &endorsements, &roots, NOW_S).verified.unwrap();
    assert_eq!(verified.claims().provenance, Provenance::Simulated { root: device_root.fingerprint() });
    assert_eq!(verdict(&appraise(&verified, &Policy::default()), "nvidia.policy.provenance"), Some(Verdict::Fail));
    // What is compiled in stays genuine if it is named once more.
    let roots = Roots::compiled_in().with_device(device_root);
    let verified = verify(&evidence, Nonce::Unknown, &endorsements, &roots, NOW_S).verified.unwrap();
    assert_eq!(verified.claims().provenance, Provenance::Genuine);
}

#[test]
fn the_chain_is_whole_and_in_order() {
    let (chain, report) = second_hopper();
    let text = String::from_utf8(chain).unwrap();
    let blocks: Vec<&str> = text.split_inclusive("-----END CERTIFICATE-----").collect();
    let blocks: Vec<&str> = blocks.into_iter().filter(|block| block.contains("BEGIN")).collect();
    assert_eq!(blocks.len(), 5);
    let outcome = |order: &[usize]| {
        let pem: String = order.iter().map(|&at| blocks[at]).collect();
        let pem = pem.replace("----------", "-----\n-----");
        accepted(&serde_json::to_vec(&json("HOPPER", pem.as_bytes(), &report)).unwrap()).is_some()
    };
    assert!(outcome(&[0, 1, 2, 3, 4]));
    assert!(outcome(&[0, 1, 2, 3]), "the root may be left out");
    for order in [
        &[0][..],
        &[0, 1],
        &[0, 1, 2],
        &[1, 2, 3, 4],
        &[0, 1, 3, 2, 4],
        &[1, 0, 2, 3, 4],
        &[0, 2, 1, 3, 4],
        &[0, 1, 2, 3, 4, 4],
        &[0, 0, 1, 2, 3, 4],
        &[4, 3, 2, 1, 0],
        &[0, 1, 2, 3, 3],
    ] {
        assert!(!outcome(order), "{order:?}");
    }
}
