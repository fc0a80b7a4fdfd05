//! What the authority of the tests makes: every form of quote, every status, and everything that can be wrong.

use serde_json::json;
use starminer_hardware::Verdict;
use starminer_hardware::cert::{Provenance, Roots};
use starminer_hardware::dcap::{Endorsements, Quote, Rtmr, TcbStatus, check_rtmrs, roots, rtmr_replay, verify};

use crate::pki::{Form, NOW_S, PCK_CA_SERIAL, PCK_SERIAL, TCB_SIGNER_SERIAL, World, altered_ca, past};
use crate::samples::{Sample, fails, find, list};

#[test]
fn every_form_is_verified_and_simulated() {
    for form in Form::ALL {
        let world = World::new(form);
        let verification = world.verify();
        let verified = verification.verified.unwrap_or_else(|| panic!("{form:?}\n{}", list(&verification.checks)));
        assert_eq!(verified.provenance(), Provenance::Simulated { root: world.root.certificate.fingerprint() });
        assert_eq!(verified.claims().tcb().status, TcbStatus::UpToDate);
        assert_eq!(verified.claims().body().report_data(), &[0x33; 64]);
        let claims = verified.claims().to_json();
        assert_eq!(claims["platform"]["cached_keys"], true);
        assert_eq!(claims["platform"]["smt_enabled"], false);
        let second = world.second_opinion(&world.body());
        if matches!(form, Form::Sgx4 | Form::Sgx5) {
            assert!(second.unwrap_err().contains("SGX TEE quote must have version 3"));
        } else {
            second.unwrap_or_else(|error| panic!("{form:?}: {error}"));
        }

        let quote = Quote::parse(&world.quote(&world.body())).unwrap();
        let endorsements = Endorsements::parse(&world.json()).unwrap();
        let genuine = verify(&quote, &endorsements, &roots(), NOW_S);
        assert!(genuine.verified.is_none(), "Intel's root vouches for none of it");
        fails(&genuine.checks, "dcap.pck-chain", "neither a trusted root");
    }
}

/// A quote of one root with endorsements of another: each is in order, and together they are not.
#[test]
fn one_root_has_to_stand_behind_all() {
    let (one, other) = (World::new(Form::Sgx3), World::new(Form::Sgx3));
    let roots = one.roots().with(other.root.certificate.clone());
    let quote = Quote::parse(&one.quote(&one.body())).unwrap();
    let check = |roots: &Roots| verify(&quote, &Endorsements::parse(&other.json()).unwrap(), roots, NOW_S);
    let verification = check(&roots);
    assert!(verification.verified.is_none());
    for name in ["dcap.root-ca-crl", "dcap.pck-crl", "dcap.tcb-info-chain", "dcap.qe-identity-chain"] {
        assert_eq!(find(&verification.checks, name).0, Verdict::Fail, "{name}");
    }
    let Some(sample) = Sample::read("sgx_quote") else { return };
    let mut both = starminer_hardware::dcap::roots();
    both.add(one.root.certificate.clone());
    let endorsements = Endorsements::parse(&one.json()).unwrap();
    let mixed = verify(&Quote::parse(&sample.quote).unwrap(), &endorsements, &both, NOW_S);
    assert!(mixed.verified.is_none());
    fails(&mixed.checks, "dcap.tcb-info-chain", "");
}

#[test]
fn what_was_revoked_is_refused() {
    for (by_root, by_ca, name, reason) in [
        (vec![], vec![PCK_SERIAL], "dcap.pck-revocation", "is revoked"),
        (vec![PCK_CA_SERIAL], vec![], "dcap.pck-revocation", "root CA revoked"),
        (vec![PCK_CA_SERIAL], vec![], "dcap.signer-revocation", "PCK Platform CA"),
        (vec![TCB_SIGNER_SERIAL], vec![], "dcap.signer-revocation", "TCB Signing"),
        (vec![0x1001], vec![], "dcap.root-ca-crl", "revoked itself"),
    ] {
        let mut world = World::new(Form::Td10v4);
        (world.revoked_by_root, world.revoked_by_ca) = (by_root, by_ca);
        let verification = world.verify();
        fails(&verification.checks, name, reason);
        assert!(verification.verified.is_none());
    }
    let mut world = World::new(Form::Td10v4);
    (world.revoked_by_root, world.revoked_by_ca) = (vec![PCK_SERIAL], vec![TCB_SIGNER_SERIAL, 1, 2, 3]);
    assert!(world.verify().verified.is_some(), "each list speaks of its own issuer's certificates alone");
}

#[test]
fn lists_have_to_be_current() {
    for (days, reason) in [((-20, -1), "fetch a newer one"), ((1, 20), "after now")] {
        let mut world = World::new(Form::Sgx3);
        world.crl_days = days;
        let checks = world.verify().checks;
        fails(&checks, "dcap.root-ca-crl", reason);
        fails(&checks, "dcap.pck-crl", reason);
    }
}

#[test]
fn certificates_have_to_be_in_order() {
    let expired = World::with_ca(Form::Sgx3, altered_ca(|ca| ca.not_after = past())).verify();
    fails(&expired.checks, "dcap.pck-chain", "valid until");
    let no_ca = World::with_ca(Form::Sgx3, altered_ca(|ca| ca.is_ca = rcgen::IsCa::ExplicitNoCa)).verify();
    fails(&no_ca.checks, "dcap.pck-chain", "no certificate authority");
    // Signed by the root all right, but not by a signer of TCB info.
    let mut world = World::new(Form::Sgx3);
    std::mem::swap(&mut world.tcb_signer, &mut world.pck);
    let checks = world.verify().checks;
    fails(&checks, "dcap.tcb-info-chain", "");
    fails(&checks, "dcap.pck-chain", "one authority between");
}

#[test]
fn statuses_are_merged_as_intel_does() {
    use TcbStatus::{ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded, SWHardeningNeeded, UpToDate};
    for (platform, qe_svn, merged) in [
        ("UpToDate", 4, UpToDate),
        ("SWHardeningNeeded", 4, SWHardeningNeeded),
        ("ConfigurationNeeded", 4, ConfigurationNeeded),
        ("OutOfDate", 4, OutOfDate),
        ("UpToDate", 2, OutOfDate),
        ("SWHardeningNeeded", 3, OutOfDate),
        ("ConfigurationNeeded", 2, OutOfDateConfigurationNeeded),
    ] {
        for form in [Form::Sgx3, Form::Td10v4] {
            let mut world = World::new(form);
            world.tcb_info["tcbLevels"][1]["tcbStatus"] = platform.into();
            world.qe_report[258] = qe_svn;
            let verified = world.verify().verified.expect("verified");
            let tcb = verified.claims().tcb();
            assert_eq!((tcb.status, tcb.platform.status.to_string()), (merged, platform.to_owned()));
            assert_eq!(tcb.qe.status, if qe_svn == 4 { UpToDate } else { OutOfDate });
            world.second_opinion(&world.body()).expect("dcap-qvl says the same");
        }
    }
}

#[test]
fn a_revoked_tcb_is_never_verified() {
    for member in ["platform", "qe", "current"] {
        let mut world = World::new(Form::Td15v5);
        let mut body = world.body();
        match member {
            "platform" => world.tcb_info["tcbLevels"][1]["tcbStatus"] = "Revoked".into(),
            "qe" => world.qe_identity["tcbLevels"][0]["tcbStatus"] = "Revoked".into(),
            _ => {
                world.tcb_info["tcbLevels"][2]["tcbStatus"] = "Revoked".into();
                body[584..600].fill(3);
                body[585] = 0;
            }
        }
        let verification = world.verify_body(&body);
        fails(&verification.checks, "dcap.tcb-status", "revoked");
        assert!(verification.verified.is_none());
    }
}

#[test]
fn an_updated_module_beneath_an_old_launch_advises_to_relaunch() {
    let world = World::new(Form::Td15v5);
    let mut body = world.body();
    body[..16].fill(3);
    body[1] = 0;
    let verified = world.verify_body(&body).verified.expect("verified");
    assert_eq!(verified.claims().tcb().status, TcbStatus::TDRelaunchAdvised);
    world.second_opinion(&body).expect("dcap-qvl says the same");
    // Older than any level by now.
    body[584..600].fill(1);
    fails(&world.verify_body(&body).checks, "dcap.tcb-level", "by its current TDX module");
}

#[test]
fn levels_count_in_intels_order() {
    let mut world = World::new(Form::Td10v4);
    world.tcb_info["tcbLevels"].as_array_mut().unwrap().reverse();
    assert_eq!(world.verify().verified.expect("verified").claims().tcb().status, TcbStatus::UpToDate);
    world.second_opinion(&world.body()).expect("dcap-qvl says the same");
}

#[test]
fn modules_are_known_by_signer_attributes_and_version() {
    let world = World::new(Form::Td10v4);
    for at in [64, 112] {
        let mut body = world.body();
        body[at] = 1;
        fails(
            &world.verify_body(&body).checks,
            "dcap.tdx-module",
            "are not those of|is not the signer of".split('|').nth(usize::from(at == 64)).unwrap(),
        );
    }
    let mut body = world.body();
    body[1] = 3;
    fails(&world.verify_body(&body).checks, "dcap.tdx-module", "TDX_03");
    let mut world = World::new(Form::Td10v4);
    world.tcb_info["tdxModuleIdentities"] = json!([{
        "id": "TDX_03", "mrsigner": "00".repeat(48), "attributes": "00".repeat(8), "attributesMask": "FF".repeat(8),
        "tcbLevels": [
            { "tcb": { "isvsvn": 4 }, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "OutOfDate", "advisoryIDs": ["INTEL-SA-00003"] },
            { "tcb": { "isvsvn": 6 }, "tcbDate": "2026-02-01T00:00:00Z", "tcbStatus": "UpToDate" },
        ],
    }]);
    let verified = world.verify_body(&body).verified.expect("verified");
    assert_eq!(verified.claims().tcb().status, TcbStatus::OutOfDate);
    assert_eq!(verified.claims().tcb().advisories, ["INTEL-SA-00003"]);
    world.second_opinion(&body).expect("dcap-qvl says the same");
}

#[test]
fn the_quoting_enclave_is_the_one_of_its_identity() {
    let world = |at: usize, value: u8| {
        let mut world = World::new(Form::Sgx3);
        world.qe_report[at] = value;
        world.verify().checks
    };
    fails(&world(48, 0x13), "dcap.qe-debug", "debug");
    fails(&world(48, 0x01), "dcap.qe-identity-match", "ATTRIBUTES");
    fails(&world(16, 1), "dcap.qe-identity-match", "MISCSELECT");
    fails(&world(128, 0), "dcap.qe-identity-match", "MRSIGNER");
    fails(&world(256, 3), "dcap.qe-identity-match", "product id");
    fails(&world(258, 1), "dcap.qe-tcb-level", "reaches no level");
    let mut world = World::new(Form::Sgx3);
    world.qe_identity["version"] = 3.into();
    fails(&world.verify().checks, "dcap.qe-identity-match", "version 3");
}

#[test]
fn tcb_info_is_of_this_platform() {
    let world = |member: &str, value: serde_json::Value| {
        let mut world = World::new(Form::Sgx3);
        world.tcb_info[member] = value;
        world.verify().checks
    };
    fails(&world("fmspc", json!("102030400001")), "dcap.tcb-info-match", "FMSPC mismatch");
    fails(&world("pceId", json!("0001")), "dcap.tcb-info-match", "PCE id mismatch");
    fails(&world("id", json!("TDX")), "dcap.tcb-info-match", "needs SGX");
    fails(&world("version", json!(2)), "dcap.tcb-info-match", "version 2");
    fails(&world("tcbLevels", json!([])), "dcap.tcb-level", "no level");
}

#[test]
fn snapshots_do_not_go_back() {
    let snapshot = |alter: fn(&mut World)| {
        let mut world = World::new(Form::Sgx3);
        alter(&mut world);
        world.verify().verified.expect("verified").claims().endorsements().clone()
    };
    let known = snapshot(|_| {});
    let newer = snapshot(|world| world.tcb_info["tcbEvaluationDataNumber"] = 21.into());
    let older = snapshot(|world| world.qe_identity["tcbEvaluationDataNumber"] = 19.into());
    assert!(known.not_before(&known).hold() && newer.not_before(&known).hold());
    fails(&known.not_before(&newer), "dcap.monotonic.tcb-info", "went back from 21 to 20");
    fails(&older.not_before(&known), "dcap.monotonic.qe-identity", "went back");
    let old_list = snapshot(|world| world.crl_days = (-11, 20));
    fails(&old_list.not_before(&known), "dcap.monotonic.pck-crl", "went back");
    fails(&old_list.not_before(&known), "dcap.monotonic.root-ca-crl", "went back");
}

#[test]
fn a_log_explains_the_registers_or_not() {
    let world = World::new(Form::Td10v4);
    let events: Vec<_> = (1..=4u8).map(|ccel| (Rtmr::from_ccel(ccel.into()).unwrap(), [ccel; 48])).collect();
    let replayed = rtmr_replay(events.iter().copied());
    let mut body = world.body();
    for (number, register) in replayed.iter().enumerate() {
        body[328 + 48 * number..][..48].copy_from_slice(register);
    }
    let verified = world.verify_body(&body).verified.expect("verified");
    assert!(check_rtmrs(&verified, &replayed).hold());
    let fewer = check_rtmrs(&verified, &rtmr_replay(events[..3].iter().copied()));
    fails(&fewer, "dcap.rtmr-replay.3", "of another boot");
    let enclave = World::new(Form::Sgx3).verify().verified.expect("verified");
    fails(&check_rtmrs(&enclave, &replayed), "dcap.rtmr-replay.0", "SGX");
}

#[test]
fn a_chain_beside_the_quote_has_to_be_of_its_platform() {
    let world = World::new(Form::Td10v4);
    let (alone, chain) = world.pck_pem();
    let other = World::new(Form::Td10v4);
    let svns = World::svns();
    let plain = |ppid: u8, svns: &[u8]| [&[ppid; 16], svns].concat();
    let long = |len: usize| [&vec![1; len][..], &svns].concat();
    let mut newer = svns.clone();
    newer[0] += 1;
    for (kind, data, reason) in [
        (1, plain(7, &svns), None),
        (2, long(256), None),
        (3, long(384), None),
        (4, alone.clone().into_bytes(), None),
        (1, plain(6, &svns), Some("of another platform")),
        (1, plain(7, &newer), Some("of another TCB")),
        (2, long(255), Some("of another TCB")),
        (3, vec![0; 100], Some("another length")),
        (4, other.pck_pem().0.into_bytes(), Some("not the one given")),
        (4, chain.clone().into_bytes(), Some("not the one given")),
        (7, chain.clone().into_bytes(), Some("type 7 is not known")),
    ] {
        let quote = Quote::parse(&world.quote_certified(&world.body(), kind, &data)).unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&world.json()).unwrap();
        let without = Endorsements::parse(json.to_string().as_bytes()).unwrap();
        fails(&verify(&quote, &without, &world.roots(), NOW_S).checks, "dcap.pck-chain", "fetch the PCK certificate");
        json["pck_certificate_chain"] = chain.clone().into();
        let given = Endorsements::parse(json.to_string().as_bytes()).unwrap();
        let verification = verify(&quote, &given, &world.roots(), NOW_S);
        match reason {
            None => assert!(verification.verified.is_some(), "type {kind}\n{}", list(&verification.checks)),
            Some(reason) => fails(&verification.checks, "dcap.pck-chain", reason),
        }
    }
}
