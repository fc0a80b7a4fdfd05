//! What no real file at hand shows: measurements that match and that do not, several GPUs, Blackwell, revocation, and devices that are not what they say.

use data_encoding::HEXLOWER;
use starminer_hardware::Verdict;
use starminer_hardware::cert::{Crl, Provenance};
use starminer_hardware::nvidia::{
    Endorsements, Evidence, Mode, Nonce, Policy, Requirement, Rim, Roots, Verification, appraise, verify,
};

use super::pki::{FWID, Maker, NONCE, Recipe, Resource};
use super::support::{NOW_S, list, verdict};

const DRIVER: &str = "590.12";
const VBIOS: &str = "96.00.A5.00.01";

fn evidence(gpus: &[serde_json::Value]) -> Evidence {
    Evidence::parse(&serde_json::to_vec(&gpus).unwrap()).unwrap()
}

fn roots(maker: &Maker) -> Roots {
    Roots::compiled_in().with_device(maker.device_root.certificate.clone()).with_rim(maker.rim_root.certificate.clone())
}

fn check(maker: &Maker, gpus: &[serde_json::Value], endorsements: &Endorsements<'_>) -> Verification {
    verify(&evidence(gpus), Nonce::Expected(NONCE), endorsements, &roots(maker), NOW_S)
}

/// The strictest policy, that names the roots of this maker.
fn policy(maker: &Maker) -> Policy {
    let hex = |certificate: &starminer_hardware::cert::Certificate| HEXLOWER.encode(&certificate.fingerprint());
    Policy {
        modes: Some(vec![Mode::SinglePassthrough]),
        minimum_driver: Some("590.9".to_owned()),
        minimum_vbios: Some("96.00.9f.00.01".to_owned()),
        gpus: Some(1),
        simulated_roots: vec![hex(&maker.device_root.certificate), hex(&maker.rim_root.certificate)],
        ..Policy::default()
    }
}

fn lists(maker: &Maker) -> Vec<Crl> {
    vec![maker.device_root.list(&[], 5), maker.identity.list(&[], 5), maker.rim_root.list(&[], 5)]
}

fn driver_resources() -> Vec<Resource> {
    let mut resources = vec![Resource::matching(7), Resource::matching(40), Resource::matching(0)];
    // An alternative that matches, an index that is not active and does not, and the decoder that is off.
    resources[1].values.insert(0, vec![0; 48]);
    resources[2].active = false;
    resources[2].values = vec![vec![0; 48]];
    resources.push(Resource { index: 35, active: true, values: vec![vec![0; 48]] });
    resources
}

fn rims(maker: &Maker, driver: &[Resource], vbios: &[Resource]) -> [Rim; 2] {
    [(DRIVER, driver), (VBIOS, vbios)]
        .map(|(version, resources)| Rim::parse(maker.rim(version, "GH100", resources).as_bytes()).unwrap())
}

#[test]
fn everything_in_order_passes_the_strictest_policy() {
    let maker = Maker::new();
    let (gpu, _) = maker.device(&Recipe::hopper("A1"));
    let rims = rims(&maker, &driver_resources(), &[Resource::matching(1), Resource::matching(63)]);
    let crls = lists(&maker);
    let verification = check(&maker, &[gpu], &Endorsements { rims: &rims, crls: &crls, ..Endorsements::default() });
    let verified = verification.verified.unwrap_or_else(|| panic!("{}", list(&verification.checks)));
    let checks = appraise(&verified, &policy(&maker));
    assert!(checks.hold(), "{}", list(&checks));
    for name in ["nvidia.driver-measurements", "nvidia.vbios-measurements", "nvidia.policy.provenance"] {
        assert_eq!(verdict(&checks, name), Some(Verdict::Pass), "{name}");
    }
    let claims = verified.claims();
    assert_eq!(claims.gpus[0].fwid, Some(FWID));
    let root = maker.device_root.certificate.fingerprint();
    assert_eq!(claims.provenance, Provenance::Simulated { root });
    assert_eq!(claims.to_json()["simulated_root"], HEXLOWER.encode(&root));

    // Each expectation of the policy in turn, changed so that it does not hold.
    let strict = policy(&maker);
    for (name, policy) in [
        (
            "nvidia.policy.provenance",
            Policy { simulated_roots: strict.simulated_roots[..1].to_vec(), ..strict.clone() },
        ),
        ("nvidia.policy.mode", Policy { modes: Some(vec![Mode::MultiPassthrough]), ..strict.clone() }),
        ("nvidia.policy.driver-version", Policy { minimum_driver: Some("590.13".to_owned()), ..strict.clone() }),
        ("nvidia.policy.driver-version", Policy { minimum_driver: Some("new".to_owned()), ..strict.clone() }),
        ("nvidia.policy.vbios-version", Policy { minimum_vbios: Some("96.00.a5.00.02".to_owned()), ..strict.clone() }),
        ("nvidia.policy.gpus", Policy { gpus: Some(8), ..strict.clone() }),
        ("nvidia.policy.device", Policy { denied_devices: vec!["a1".to_owned()], ..strict.clone() }),
        ("nvidia.driver-measurements", Policy { nvdec0: starminer_hardware::nvidia::Nvdec0::Always, ..strict.clone() }),
    ] {
        let checks = appraise(&verified, &policy);
        assert_eq!(verdict(&checks, name), Some(Verdict::Fail), "{name}");
        assert!(!checks.hold(), "{name}");
    }
    // Without a policy the same is told, and only what contradicts itself refuses.
    let checks = appraise(&verified, &Policy::consistency());
    assert_eq!(verdict(&checks, "nvidia.policy.provenance"), Some(Verdict::NotChecked));
    assert!(checks.hold(), "{}", list(&checks));
}

#[test]
fn measurements_are_those_of_the_manifest() {
    let maker = Maker::new();
    let (gpu, _) = maker.device(&Recipe::hopper("A1"));
    let good = [Resource::matching(1)];
    let other = |index: u8| Resource { index, active: true, values: vec![vec![0xee; 48]; 3] };
    let shorter = Resource { index: 1, active: true, values: vec![vec![2; 47]] };
    let with = |resource: Resource| [driver_resources(), vec![resource]].concat();
    for (why, driver, vbios, failed) in [
        ("another value", with(other(20)), good.to_vec(), "nvidia.driver-measurements"),
        ("another VBIOS", driver_resources(), vec![other(1)], "nvidia.vbios-measurements"),
        ("a shorter value", driver_resources(), vec![shorter], "nvidia.vbios-measurements"),
        ("beyond the report", with(Resource::matching(64)), good.to_vec(), "nvidia.driver-measurements"),
        ("beyond all reports", with(other(255)), good.to_vec(), "nvidia.driver-measurements"),
        ("only what is left out", driver_resources()[3..].to_vec(), good.to_vec(), "nvidia.driver-measurements"),
        ("an index of both", driver_resources(), vec![Resource::matching(7)], "nvidia.rim-conflict"),
    ] {
        let rims = rims(&maker, &driver, &vbios);
        let verified =
            check(&maker, std::slice::from_ref(&gpu), &Endorsements { rims: &rims, ..Endorsements::default() });
        let verified = verified.verified.expect("the signatures hold");
        for policy in [policy(&maker), Policy::consistency()] {
            let checks = appraise(&verified, &policy);
            assert_eq!(verdict(&checks, failed), Some(Verdict::Fail), "{why}");
            assert!(!checks.hold(), "{why}");
        }
    }
}

#[test]
fn manifests_of_other_versions_and_chips_are_not_compared() {
    let maker = Maker::new();
    let (gpu, _) = maker.device(&Recipe::hopper("A1"));
    for (version, product) in [("590.11", "GH100"), (DRIVER, "GB100"), (DRIVER, "GH10"), ("590.12.0", "GH100")] {
        let rims = [Rim::parse(maker.rim(version, product, &[Resource::matching(7)]).as_bytes()).unwrap()];
        let verification =
            check(&maker, std::slice::from_ref(&gpu), &Endorsements { rims: &rims, ..Endorsements::default() });
        let verified = verification.verified.expect("the signatures hold");
        let checks = appraise(&verified, &policy(&maker));
        assert_eq!(verdict(&checks, "nvidia.driver-measurements"), Some(Verdict::NotChecked), "{version} {product}");
        assert!(!checks.hold());
    }
    // Two boards may share a VBIOS version: one of the manifests has to be its own.
    let other = Resource { index: 1, active: true, values: vec![vec![0xee; 48]] };
    let manifests = [vec![other], vec![Resource::matching(1)]];
    let rims = manifests.map(|resources| Rim::parse(maker.rim(VBIOS, "GH100", &resources).as_bytes()).unwrap());
    let verified = check(&maker, &[gpu], &Endorsements { rims: &rims, ..Endorsements::default() }).verified.unwrap();
    assert_eq!(verdict(&appraise(&verified, &policy(&maker)), "nvidia.vbios-measurements"), Some(Verdict::Pass));
}

#[test]
fn a_manifest_that_does_not_verify_refuses_the_whole() {
    let (maker, stranger) = (Maker::new(), Maker::new());
    let (gpu, _) = maker.device(&Recipe::hopper("A1"));
    let genuine = maker.rim(DRIVER, "GH100", &[Resource::matching(7)]);
    for (rim, failed) in [
        (stranger.rim(DRIVER, "GH100", &[Resource::matching(7)]), "nvidia.rim-chain"),
        (genuine.replacen("active=\"True\"", "active=\"True\" a=\"b\"", 1), "nvidia.rim-digest"),
        (genuine.replacen("<ds:SignatureMethod", " <ds:SignatureMethod", 1), "nvidia.rim-signature"),
    ] {
        let rims = [Rim::parse(rim.as_bytes()).unwrap()];
        let verification =
            check(&maker, std::slice::from_ref(&gpu), &Endorsements { rims: &rims, ..Endorsements::default() });
        assert_eq!(verdict(&verification.checks, failed), Some(Verdict::Fail));
        assert!(verification.verified.is_none());
    }
    let revoked = [maker.rim_signer.certificate.fingerprint()];
    let rims = [Rim::parse(genuine.as_bytes()).unwrap()];
    let endorsements = Endorsements { rims: &rims, revoked: &revoked, ..Endorsements::default() };
    let verification = check(&maker, &[gpu], &endorsements);
    assert_eq!(verdict(&verification.checks, "nvidia.rim-revocation"), Some(Verdict::Fail));
    assert!(verification.verified.is_none());
}

#[test]
fn revoked_certificates_refuse() {
    let maker = Maker::new();
    let (gpu, leaf) = maker.device(&Recipe::hopper("A1"));
    let (none, device) = (Vec::<Crl>::new(), maker.identity.list(&[], 5));
    for (why, crls, revoked, expected) in [
        ("nothing given", none.clone(), vec![], Verdict::NotChecked),
        ("one list of two", vec![device.clone()], vec![], Verdict::NotChecked),
        ("both lists", lists(&maker), vec![], Verdict::Pass),
        (
            "on a list",
            vec![maker.device_root.list(&[&maker.identity.certificate], 5), device.clone()],
            vec![],
            Verdict::Fail,
        ),
        ("on the other", vec![maker.identity.list(&[&maker.provisioner.certificate], 5)], vec![], Verdict::Fail),
        ("another serial", vec![maker.device_root.list(&[&leaf], 5), device], vec![], Verdict::Pass),
        ("an old list", vec![maker.identity.list(&[], -1)], vec![], Verdict::Fail),
        ("reported", lists(&maker), vec![leaf.fingerprint()], Verdict::Fail),
        ("reported, no lists", none, vec![maker.provisioner.certificate.fingerprint()], Verdict::Fail),
    ] {
        let endorsements = Endorsements { crls: &crls, revoked: &revoked, ..Endorsements::default() };
        let verification = check(&maker, std::slice::from_ref(&gpu), &endorsements);
        assert_eq!(verdict(&verification.checks, "nvidia.revocation"), Some(expected), "{why}");
        assert_eq!(verification.verified.is_some(), expected != Verdict::Fail, "{why}");
        let Some(verified) = verification.verified else { continue };
        let made = verdict(&appraise(&verified, &policy(&maker)), "nvidia.policy.revocation");
        assert_eq!(made, Some(expected), "{why}");
    }
}

#[test]
fn devices_that_are_not_what_they_say_refuse() {
    let maker = Maker::new();
    let hopper = || Recipe::hopper("A1");
    let named = |name: &str, model: &str| Recipe { name: name.to_owned(), model: model.to_owned(), ..hopper() };
    for (why, recipe, failed) in [
        ("other firmware", Recipe { certified_fwid: [0; 48], ..hopper() }, "nvidia.fwid"),
        ("another key beneath", Recipe { other_issuer_key: true, ..hopper() }, "nvidia.device-key"),
        ("a switch", named("NVIDIA:LS_10:A1", "LS_10 A01 FSP BROM"), "nvidia.architecture"),
        ("a switch that says it is a GPU", named("NVIDIA:GH100:A1", "LS_10 A01 FSP BROM"), "nvidia.architecture"),
        ("another maker", named("NVIDEA:GH100:A1", "GH100 A01 GSP BROM"), "nvidia.architecture"),
        ("no serial number", named("NVIDIA:GH100:", "GH100 A01 GSP BROM"), "nvidia.architecture"),
        ("another family", Recipe { architecture: "BLACKWELL", ..hopper() }, "nvidia.architecture"),
        ("a report of another chip", hopper().with(35, b"GB100\0"), "nvidia.architecture"),
        ("a leaf that may issue", Recipe { leaf_is_authority: true, ..hopper() }, "nvidia.certificate-chain"),
        ("a key of another curve", Recipe { p256_leaf: true, ..hopper() }, "nvidia.report-signature"),
    ] {
        let verification = check(&maker, &[maker.device(&recipe).0], &Endorsements::default());
        assert_eq!(verdict(&verification.checks, failed), Some(Verdict::Fail), "{why}");
        assert!(verification.verified.is_none(), "{why}");
    }
    let stranger = Maker::new();
    let verification = check(&maker, &[stranger.device(&hopper()).0], &Endorsements::default());
    assert_eq!(verdict(&verification.checks, "nvidia.certificate-chain"), Some(Verdict::Fail));

    let (mut gpu, _) = maker.device(&hopper());
    gpu["driver_version"] = "590.13".into();
    let verification = check(&maker, std::slice::from_ref(&gpu), &Endorsements::default());
    assert_eq!(verdict(&verification.checks, "nvidia.versions-stated"), Some(Verdict::Fail));
    gpu["driver_version"] = "590.12".into();
    gpu["vbios_version"] = VBIOS.into();
    assert!(check(&maker, std::slice::from_ref(&gpu), &Endorsements::default()).verified.is_some());
    gpu["nonce"] = HEXLOWER.encode(&[0; 32]).into();
    let verification = check(&maker, &[gpu], &Endorsements::default());
    assert_eq!(verdict(&verification.checks, "nvidia.nonce-stated"), Some(Verdict::Fail));
    assert_eq!(verdict(&verification.checks, "nvidia.report-signature"), Some(Verdict::NotChecked));
}

#[test]
fn what_a_report_does_not_state_is_not_checked() {
    let maker = Maker::new();
    let recipe = Recipe::hopper("A1").without(20).without(36).without(3);
    let verification = check(&maker, &[maker.device(&recipe).0], &Endorsements::default());
    assert_eq!(verdict(&verification.checks, "nvidia.fwid"), Some(Verdict::NotChecked));
    let verified = verification.verified.unwrap();
    let checks = appraise(&verified, &policy(&maker));
    assert_eq!(verdict(&checks, "nvidia.policy.firmware-id"), Some(Verdict::NotChecked));
    for name in ["nvidia.policy.mode", "nvidia.policy.driver-version"] {
        assert_eq!(verdict(&checks, name), Some(Verdict::Fail), "{name}");
    }
    assert!(!checks.hold());
}

#[test]
fn opaque_data_is_read_strictly() {
    let maker = Maker::new();
    for (why, field, value) in [
        ("a mode that is not known", 36, &[3, 0][..]),
        ("neither on nor off", 11, &[0]),
        ("a short firmware id", 20, &[0; 47]),
        ("a VBIOS version with more in it", 6, &[0, 0, 0, 0x96, 1, 1, 0, 0]),
        ("a text with something behind its end", 3, b"590.12\0x"),
        ("a text that is none", 3, b"590\n12\0"),
        ("counts that are cut off", 12, &[0; 5]),
    ] {
        let (gpu, _) = maker.device(&Recipe::hopper("A1").with(field, value));
        let error = Evidence::parse(&serde_json::to_vec(&[gpu]).unwrap()).expect_err(why);
        assert_eq!(error.code(), "evidence-opaque-data", "{why}");
    }
    let mut twice = Recipe::hopper("A1");
    twice.opaque.push((3, b"590.13\0".to_vec()));
    let mut many = Recipe::hopper("A1");
    many.opaque.extend((100..200).map(|kind| (kind, Vec::new())));
    let mut again = Recipe::hopper("A1");
    again.measurements.push((64, vec![0; 48]));
    let mut long = Recipe::hopper("A1");
    long.measurements[0].1 = vec![0; 2000];
    let mut none = Recipe::hopper("A1");
    none.measurements.clear();
    for (recipe, code) in [
        (twice, "evidence-opaque-data"),
        (many, "evidence-too-large"),
        (again, "evidence-report"),
        (long, "evidence-report"),
        (none, "evidence-report"),
    ] {
        let (gpu, _) = maker.device(&recipe);
        assert_eq!(Evidence::parse(&serde_json::to_vec(&[gpu]).unwrap()).unwrap_err().code(), code);
    }
    // A field of a later day is kept and decides nothing.
    let (gpu, _) = maker.device(&Recipe::hopper("A1").with(77, &[1, 2, 3]));
    assert!(check(&maker, &[gpu], &Endorsements::default()).verified.is_some());
}

#[test]
fn blackwell_says_whether_it_is_in_debug() {
    let maker = Maker::new();
    // Not configured is set on devices as they are delivered.
    for (flags, expected) in [
        (0x00, Verdict::Pass),
        (0x80, Verdict::Pass),
        (0x40, Verdict::Fail),
        (0x20, Verdict::Fail),
        (0x10, Verdict::Fail),
    ] {
        let (gpu, _) = maker.device(&Recipe::blackwell("B1", flags));
        let verification = check(&maker, &[gpu], &Endorsements::default());
        assert_eq!(verdict(&verification.checks, "nvidia.firmware-state"), Some(expected), "{flags:02x}");
        assert_eq!(verification.verified.is_some(), expected == Verdict::Pass, "{}", list(&verification.checks));
    }
    let (gpu, _) = maker.device(&Recipe { certified_fwid: [0; 48], ..Recipe::blackwell("B1", 0) });
    let verification = check(&maker, &[gpu], &Endorsements::default());
    assert_eq!(verdict(&verification.checks, "nvidia.fwid"), Some(Verdict::Fail));
}

#[test]
fn several_gpus_are_several() {
    let maker = Maker::new();
    let [a, b] = ["A1", "A2"].map(|serial| maker.device(&Recipe::hopper(serial)).0);
    let protected = maker.device(&Recipe::hopper("A3").with(36, &[2, 0])).0;
    let same_name = maker.device(&Recipe::hopper("A1")).0;
    let forged = maker.device(&Recipe { certified_fwid: [0; 48], ..Recipe::hopper("A4") }).0;
    for (why, gpus, failed) in [
        ("two", vec![a.clone(), b.clone()], None),
        ("the same twice", vec![a.clone(), a.clone()], Some("nvidia.distinct-devices")),
        ("one name twice", vec![a.clone(), same_name], Some("nvidia.distinct-devices")),
        ("two modes", vec![a.clone(), protected], Some("nvidia.one-mode")),
        ("one of them forged", vec![a.clone(), forged], Some("nvidia.fwid")),
    ] {
        let verification = check(&maker, &gpus, &Endorsements::default());
        assert_eq!(verification.verified.is_some(), failed.is_none(), "{why}: {}", list(&verification.checks));
        if let Some(failed) = failed {
            assert_eq!(verdict(&verification.checks, failed), Some(Verdict::Fail), "{why}");
        }
    }
    let verified = check(&maker, &[a.clone(), b], &Endorsements::default()).verified.unwrap();
    let devices: Vec<_> = verified.claims().gpus.iter().map(|gpu| gpu.device.as_str()).collect();
    assert_eq!(devices, ["A1", "A2"]);
    let checks = appraise(&verified, &Policy { gpus: Some(2), ..policy(&maker) });
    assert_eq!(verdict(&checks, "nvidia.policy.gpus"), Some(Verdict::Pass));
    assert_eq!(checks.as_slice().iter().filter(|check| check.name == "nvidia.driver-measurements").count(), 2);

    for (gpus, code) in [(vec![], "evidence-empty"), (vec![a; 17], "evidence-too-large")] {
        assert_eq!(Evidence::parse(&serde_json::to_vec(&gpus).unwrap()).unwrap_err().code(), code);
    }
}

#[test]
fn policies_are_written_out() {
    let policy: Policy = serde_json::from_value(serde_json::json!({
        "nonce": "where-possible", "modes": ["multi-passthrough"], "minimum_driver": "550.90.07", "nvdec0": "always",
    }))
    .unwrap();
    assert_eq!((policy.nonce, policy.revocation), (Requirement::WherePossible, Requirement::Required));
    assert_eq!(policy.modes, Some(vec![Mode::MultiPassthrough]));
    assert_eq!(serde_json::from_value::<Policy>(serde_json::json!({})).unwrap(), Policy::default());
    for wrong in [
        serde_json::json!({"mode": []}),
        serde_json::json!({"nonce": "optional"}),
        serde_json::json!({"modes": ["on"]}),
    ] {
        assert!(serde_json::from_value::<Policy>(wrong.clone()).is_err(), "{wrong}");
    }
}
