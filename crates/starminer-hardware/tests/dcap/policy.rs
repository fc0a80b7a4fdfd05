//! What a policy demands, one thing at a time.

use starminer_hardware::dcap::{
    Expect, FlagRule, Hex, Policy, SgxAttribute, StatusRule, TdAttribute, TrailingRule, Verified, appraise, forecast,
};
use starminer_hardware::{Checks, Verdict};

use crate::pki::{FMSPC, Form, NOW_S, World};
use crate::samples::{Sample, fails, find, list, missing};

fn world(form: Form) -> (World, Policy) {
    let world = World::new(form);
    let mut policy = Policy {
        simulated_roots: vec![Hex(world.root.certificate.fingerprint())],
        report_data: Expect::exactly(Hex([0x33; 64])),
        ..Policy::default()
    };
    policy.sgx.mrenclave = Expect::exactly(Hex([0x11; 32]));
    policy.sgx.mrsigner = Expect::exactly(Hex([0x22; 32]));
    policy.sgx.isv_prod_id = Expect::exactly(7);
    policy.tdx.mrtd = Expect::exactly(Hex([0x44; 48]));
    policy.tdx.rtmr0 = Expect::exactly(Hex([0x50; 48]));
    policy.tdx.rtmr1 = Expect::exactly(Hex([0x51; 48]));
    policy.tdx.rtmr2 = Expect::exactly(Hex([0x52; 48]));
    (world, policy)
}

fn verified(world: &World, body: &[u8]) -> Verified {
    let verification = world.verify_body(body);
    verification.verified.unwrap_or_else(|| panic!("{}", list(&verification.checks)))
}

#[test]
fn what_is_expected_is_accepted_in_every_form() {
    for form in Form::ALL {
        let (world, policy) = world(form);
        let checks = appraise(&verified(&world, &world.body()), &policy);
        assert!(checks.hold(), "{form:?}\n{}", list(&checks));
    }
}

#[test]
fn a_policy_by_default_accepts_nothing() {
    for (form, names) in [
        (Form::Sgx3, &["mrenclave", "mrsigner", "isv-prod-id", "report-data"][..]),
        (Form::Td10v4, &["mrtd", "rtmr0", "rtmr1", "rtmr2", "report-data"]),
    ] {
        let (world, _) = world(form);
        let checks = appraise(&verified(&world, &world.body()), &Policy::default());
        for name in names {
            missing(&checks, &format!("dcap.policy.{name}"), "does not say what is expected");
        }
        fails(&checks, "dcap.policy.provenance", "does not name root");
    }
}

#[test]
fn each_byte_that_is_pinned_counts() {
    for (form, places) in [
        (
            Form::Sgx5,
            &[
                (64, "mrenclave"),
                (128, "mrsigner"),
                (256, "isv-prod-id"),
                (192, "config-id"),
                (32, "isv-ext-prod-id"),
                (304, "isv-family-id"),
                (16, "misc-select"),
                (320, "report-data"),
            ][..],
        ),
        (
            Form::Td15Extended,
            &[
                (136, "mrtd"),
                (184, "mr-config-id"),
                (232, "mr-owner"),
                (280, "mr-owner-config"),
                (328, "rtmr0"),
                (376, "rtmr1"),
                (424, "rtmr2"),
                (472, "rtmr3"),
                (520, "report-data"),
                (600, "mr-service-td"),
                (885 - 56, "service-td-hash"),
            ],
        ),
    ] {
        let (world, policy) = world(form);
        for (at, name) in places {
            let mut body = world.body();
            body[*at] ^= 1;
            fails(&appraise(&verified(&world, &body), &policy), &format!("dcap.policy.{name}"), "not");
        }
    }
}

#[test]
fn attributes_are_allowed_by_name() {
    let (td, policy) = world(Form::Td15v5);
    for bit in 0..64u32 {
        let mut body = td.body();
        let place = 120 + bit as usize / 8;
        body[place] ^= 1 << (bit % 8);
        let checks = appraise(&verified(&td, &body), &policy);
        let allowed = [16, 27, 30].contains(&bit);
        assert_eq!(checks.hold(), allowed, "bit {bit}\n{}", list(&checks));
        let expected = if allowed { Verdict::Pass } else { Verdict::Fail };
        assert_eq!(find(&checks, "dcap.policy.attributes").0, expected, "bit {bit}");
        assert_eq!(find(&checks, "dcap.policy.debug").0 == Verdict::Fail, bit == 0);
    }
    let (enclave, policy) = world(Form::Sgx3);
    for bit in 0..64u32 {
        let mut body = enclave.body();
        body[48 + bit as usize / 8] ^= 1 << (bit % 8);
        let checks = appraise(&verified(&enclave, &body), &policy);
        assert_eq!(checks.hold(), [6, 7, 10].contains(&bit), "bit {bit}\n{}", list(&checks));
        assert_eq!(find(&checks, "dcap.policy.debug").0 == Verdict::Fail, bit == 1);
    }
    // Whoever writes it out may have it.
    let mut lax = policy.clone();
    lax.sgx.attributes_allowed.insert(SgxAttribute::Debug);
    lax.tdx.attributes_allowed.extend([TdAttribute::Debug, TdAttribute::Perfmon]);
    let mut body = enclave.body();
    body[48] |= 2;
    assert!(appraise(&verified(&enclave, &body), &lax).hold());
}

#[test]
fn processor_features_are_bounded() {
    for (form, at, name) in [(Form::Sgx3, 56, "dcap.policy.xfrm"), (Form::Td10v4, 128, "dcap.policy.xfam")] {
        let (world, policy) = world(form);
        for (place, value, reason) in
            [(at + 1, 0x01, "not allowed: 0x100"), (at, 0xe6, "missing: 0x1"), (at + 7, 0x80, "not allowed")]
        {
            let mut body = world.body();
            body[place] = value;
            fails(&appraise(&verified(&world, &body), &policy), name, reason);
        }
    }
}

#[test]
fn each_status_has_a_rule() {
    type Rule = fn(&mut Policy) -> &mut StatusRule;
    let rules: [(&str, Rule); 6] = [
        ("UpToDate", |policy| &mut policy.tcb_status.up_to_date),
        ("SWHardeningNeeded", |policy| &mut policy.tcb_status.sw_hardening_needed),
        ("ConfigurationNeeded", |policy| &mut policy.tcb_status.configuration_needed),
        ("ConfigurationAndSWHardeningNeeded", |policy| &mut policy.tcb_status.configuration_and_sw_hardening_needed),
        ("OutOfDate", |policy| &mut policy.tcb_status.out_of_date),
        ("OutOfDateConfigurationNeeded", |policy| &mut policy.tcb_status.out_of_date_configuration_needed),
    ];
    const NAME: &str = "dcap.policy.tcb-status";
    for (status, rule) in rules {
        let (mut world, mut policy) = world(Form::Sgx3);
        // The level is dated sixty days back.
        world.tcb_info["tcbLevels"][1]["tcbStatus"] = status.into();
        let verified = verified(&world, &world.body());
        assert_eq!(appraise(&verified, &policy).hold(), status == "UpToDate", "{status} by default");
        for (set, holds) in [
            (StatusRule::Accept, true),
            (StatusRule::Refuse, false),
            (StatusRule::AcceptDays(60), true),
            (StatusRule::AcceptDays(59), false),
        ] {
            *rule(&mut policy) = set;
            let checks = appraise(&verified, &policy);
            assert_eq!(find(&checks, NAME).0 == Verdict::Pass, holds, "{status}, {set:?}");
            assert!(find(&checks, NAME).1.contains(status));
            assert_eq!(find(&checks, "dcap.policy.qe-tcb-status").0, Verdict::Pass);
        }
    }
}

#[test]
fn the_quoting_enclave_has_a_table_of_its_own() {
    let (mut world, mut policy) = world(Form::Td10v4);
    world.qe_report[258] = 2;
    let verified = verified(&world, &world.body());
    policy.tcb_status.out_of_date = StatusRule::Accept;
    let checks = appraise(&verified, &policy);
    fails(&checks, "dcap.policy.qe-tcb-status", "OutOfDate");
    assert_eq!(find(&checks, "dcap.policy.tcb-status").0, Verdict::Pass);
    fails(&checks, "dcap.policy.advisories", "INTEL-SA-00002");
    policy.qe_tcb_status.out_of_date = StatusRule::AcceptDays(301);
    let soonest = forecast(&verified, &policy);
    assert_eq!((soonest[0].what, soonest[0].at_s), ("qe-tcb-grace", NOW_S + 86_400));
    assert!(soonest.iter().any(|end| end.what == "tcb-info" && end.at_s == NOW_S + 28 * 86_400));
    assert!(soonest.iter().any(|end| end.what == "endorsement-age" && end.at_s == NOW_S + 27 * 86_400));
    assert!(soonest.is_sorted_by_key(|end| end.at_s));
    policy.advisories_allowed.insert("INTEL-SA-00002".into());
    assert!(appraise(&verified, &policy).hold());
}

#[test]
fn a_relaunch_has_a_rule() {
    let (world, mut policy) = world(Form::Td15v5);
    let mut body = world.body();
    body[..16].fill(3);
    body[1] = 0;
    let verified = verified(&world, &body);
    policy.advisories_allowed.insert("INTEL-SA-00001".into());
    fails(&appraise(&verified, &policy), "dcap.policy.tcb-status", "TDRelaunchAdvised");
    policy.tcb_status.td_relaunch_advised = StatusRule::Accept;
    assert!(appraise(&verified, &policy).hold());
    // The other way round: the launch was up to date, and the module is not by now.
    let mut back = world.body();
    back[584..600].fill(3);
    back[585] = 0;
    fails(&appraise(&self::verified(&world, &back), &policy), "dcap.policy.current-tcb-status", "OutOfDate");
    policy.tdx.min_tee_tcb_svn = Hex({
        let mut floor = [0; 16];
        floor[2] = 4;
        floor
    });
    fails(&appraise(&verified, &policy), "dcap.policy.tee-tcb-svn", "floor");
}

#[test]
fn platforms_and_endorsements_are_chosen() {
    let (world, policy) = world(Form::Sgx3);
    let verified = verified(&world, &world.body());
    let with = |alter: fn(&mut Policy)| -> Checks {
        let mut policy = policy.clone();
        alter(&mut policy);
        appraise(&verified, &policy)
    };
    fails(
        &with(|policy| policy.min_tcb_evaluation_data_number = 21),
        "dcap.policy.evaluation-data-number",
        "floor is 21",
    );
    assert!(with(|policy| policy.min_tcb_evaluation_data_number = 20).hold());
    fails(&with(|policy| policy.max_endorsement_age_days = 2), "dcap.policy.endorsement-age", "2 days");
    assert!(with(|policy| policy.max_endorsement_age_days = 3).hold());
    fails(&with(|policy| policy.fmspc = Expect::exactly(Hex([1; 6]))), "dcap.policy.fmspc", "not among");
    assert!(with(|policy| policy.fmspc = Expect::OneOf(vec![Hex([1; 6]), Hex(FMSPC)])).hold());
    fails(&with(|policy| policy.cached_keys = FlagRule::Off), "dcap.policy.cached-keys", "demands off");
    assert!(with(|policy| policy.cached_keys = FlagRule::On).hold());
    fails(&with(|policy| policy.smt_enabled = FlagRule::On), "dcap.policy.smt", "demands on");
    assert!(with(|policy| policy.dynamic_platform = FlagRule::Off).hold());
    fails(&with(|policy| policy.sgx.min_isv_svn = 4), "dcap.policy.isv-svn", "floor is 4");
    fails(&with(|policy| policy.sgx.min_config_svn = 1), "dcap.policy.config-svn", "floor is 1");
    fails(&with(|policy| policy.fmspc = Expect::OneOf(Vec::new())), "dcap.policy.fmspc", "not among");
    let anybody = with(|policy| (policy.sgx.mrenclave, policy.sgx.mrsigner) = (Expect::Any, Expect::Any));
    fails(&anybody, "dcap.policy.identity", "anybody's enclave");
    assert!(with(|policy| policy.sgx.mrenclave = Expect::Any).hold(), "signer and product are pinned");
}

#[test]
fn what_follows_a_quote_is_for_the_policy() {
    let Some(sample) = Sample::read("tdx_quote") else { return };
    let rule = |bytes: &[u8], rule: TrailingRule| {
        let verified = sample.verify_quote(bytes).verified.expect("verified");
        let checks = appraise(&verified, &Policy { trailing_bytes: rule, ..Policy::default() });
        find(&checks, "dcap.policy.trailing-bytes").0 == Verdict::Pass
    };
    let longer = [&sample.quote[..], b"x"].concat();
    for (bytes, nothing, zeros) in
        [(&sample.quote[..], false, true), (&sample.quote[..4936], true, true), (&longer, false, false)]
    {
        assert_eq!(rule(bytes, TrailingRule::Nothing), nothing);
        assert_eq!(rule(bytes, TrailingRule::Zeros), zeros);
        assert!(rule(bytes, TrailingRule::Anything));
    }
}

#[test]
fn policies_are_written_in_toml() {
    let (_, policy) = world(Form::Sgx3);
    let text = toml::to_string(&policy).unwrap();
    assert_eq!(toml::from_str::<Policy>(&text).unwrap(), policy, "{text}");
    assert_eq!(toml::from_str::<Policy>("").unwrap(), Policy::default());
    let some = toml::from_str::<Policy>(
        r#"
        advisories_allowed = ["INTEL-SA-00615"]
        smt_enabled = "off"
        fmspc = ["00a067110000"]
        [tcb_status]
        sw_hardening_needed = "accept"
        out_of_date = { accept-days = 30 }
        [sgx]
        mrenclave = "any"
        isv_prod_id = [1, 2]
        attributes_allowed = ["kss"]
        "#,
    )
    .unwrap();
    assert_eq!(some.tcb_status.out_of_date, StatusRule::AcceptDays(30));
    assert_eq!(some.sgx.mrenclave, Expect::Any);
    for bad in [
        "smt = \"off\"",
        "tcb_status = { revoked = \"accept\" }",
        "fmspc = \"all\"",
        "fmspc = [\"00A067110000\"]",
        "fmspc = [\"00\"]",
        "[sgx]\nattributes_allowed = [\"bit-3\"]",
    ] {
        assert!(toml::from_str::<Policy>(bad).is_err(), "{bad}");
    }
}
