//! When today's evidence stops meeting its policy: the day that is told is the day on which it does.

use starminer_hardware::{
    cert::Roots,
    dcap::{self, Endorsements, Quote, StatusRule, verify},
    endorsements::{Ages, Announced, Cause, Forecast, Hands, Marks, Snapshot, Trust},
    snp::{self, Components, Report},
};

use super::{
    add, candidate, intel,
    lab::{self, Lab, Vek},
    nobody, one,
    pki::{Form, NOW_S, World},
};

const DAY_S: u64 = 86_400;

fn dcap_policy(verified: &dcap::Verified, world: &World) -> dcap::Policy {
    let mut policy = dcap::Policy {
        simulated_roots: vec![dcap::Hex(world.root.certificate.fingerprint())],
        report_data: dcap::Expect::exactly(dcap::Hex(*verified.claims().body().report_data())),
        ..dcap::Policy::default()
    };
    policy.sgx.mrenclave = dcap::Expect::exactly(dcap::Hex([0x11; 32]));
    policy.sgx.mrsigner = dcap::Expect::exactly(dcap::Hex([0x22; 32]));
    policy.sgx.isv_prod_id = dcap::Expect::exactly(7);
    policy
}

struct Dcap {
    world: World,
    quote: Quote,
    endorsements: Endorsements,
}

impl Dcap {
    fn new(world: World) -> Self {
        let quote = Quote::parse(&world.quote(&world.body())).unwrap();
        let endorsements = Endorsements::parse(&world.json()).unwrap();
        Self { world, quote, endorsements }
    }

    fn verified(&self, now_s: u64) -> Option<dcap::Verified> {
        verify(&self.quote, &self.endorsements, &self.world.roots(), now_s).verified
    }

    fn accepted(&self, policy: &dcap::Policy, now_s: u64) -> bool {
        self.verified(now_s).is_some_and(|verified| dcap::appraise(&verified, policy).hold())
    }
}

#[test]
fn a_quote_ends_on_the_day_that_is_told() {
    let node = Dcap::new(World::new(Form::Sgx3));
    let verified = node.verified(NOW_S).unwrap();
    let policy = dcap_policy(&verified, &node.world);
    assert!(node.accepted(&policy, NOW_S));
    let forecast = Forecast::dcap(&verified, &policy, &[], NOW_S);
    let first = forecast.first().unwrap();
    assert!(node.accepted(&policy, first.at_s - 1), "{first:?}");
    assert!(!node.accepted(&policy, first.at_s), "{first:?}");
    assert_eq!((first.at_s, first.cause), (NOW_S + 20 * DAY_S + 1, Cause::RevocationList));
    assert_eq!(first.hands, Hands::Refresh);
    let provider = forecast.first_for_provider().unwrap();
    assert_eq!((provider.at_s, provider.cause), (NOW_S + 100 * DAY_S + 1, Cause::Certificate));
    assert!(forecast.endings().is_sorted_by_key(|ending| ending.at_s));
    let json = forecast.to_json();
    assert_eq!(json["first"]["day"], "2026-06-17");
    assert_eq!(json["endings"].as_array().unwrap().len(), forecast.endings().len());
}

#[test]
fn a_grace_ends_on_the_day_that_is_told() {
    let mut world = World::new(Form::Sgx3);
    // The level that the platform reaches, 60 days old, falls behind.
    world.tcb_info["tcbLevels"][1]["tcbStatus"] = "OutOfDate".into();
    let node = Dcap::new(world);
    let verified = node.verified(NOW_S).unwrap();
    let mut policy = dcap_policy(&verified, &node.world);
    let refused = Forecast::dcap(&verified, &policy, &[], NOW_S);
    assert_eq!((refused.first().unwrap().at_s, refused.first().unwrap().cause), (NOW_S, Cause::Today));
    policy.tcb_status.out_of_date = StatusRule::AcceptDays(70);
    let forecast = Forecast::dcap(&verified, &policy, &[], NOW_S);
    let first = forecast.first_for_provider().unwrap();
    assert_eq!((first.at_s, first.cause), (NOW_S + 10 * DAY_S + 1, Cause::Grace));
    assert!(first.remedy.contains("firmware"));
    assert_eq!(forecast.first(), Some(first));
    assert!(node.accepted(&policy, first.at_s - 1));
    assert!(!node.accepted(&policy, first.at_s));
}

#[test]
fn policies_that_are_announced() {
    let node = Dcap::new(World::new(Form::Sgx3));
    let verified = node.verified(NOW_S).unwrap();
    let policy = dcap_policy(&verified, &node.world);
    let next = dcap::Policy { min_tcb_evaluation_data_number: 21, ..policy.clone() };
    let announced = [Announced { from_s: NOW_S + 5 * DAY_S, policy: next }];
    let forecast = Forecast::dcap(&verified, &policy, &announced, NOW_S);
    let first = forecast.first().unwrap();
    assert_eq!((first.at_s, first.cause), (NOW_S + 5 * DAY_S, Cause::Announced));
    assert!(first.reason.contains("evaluation"), "{}", first.reason);
}

#[test]
fn a_report_of_amds() {
    let lab = Lab::milan();
    let report = Report::parse(&lab.report(|_| {})).unwrap();
    let certificates = lab.certificates(Vek::Chip);
    let list = [lab.crl()];
    let verified = |now_s| snp::verify(&report, &certificates, &list, &lab.roots(), now_s).verified;
    let now = verified(lab::NOW).unwrap();
    let policy = lab.policy(&now);
    assert!(snp::appraise(&now, &policy).hold());
    let mut next = policy.clone();
    let floor = next.tcb_floor.get_mut(&lab.product).unwrap();
    *floor = Components { microcode: floor.microcode + 1, ..*floor };
    let announced = [Announced { from_s: lab::NOW + 4 * DAY_S, policy: next }];
    let forecast = Forecast::snp(&now, &policy, &announced, lab::NOW);
    let first = forecast.first().unwrap();
    assert_eq!((first.at_s, first.cause, first.hands), (lab::NOW + 4 * DAY_S, Cause::Announced, Hands::Provider));
    assert!(first.remedy.contains("firmware") && first.reason.contains("below the floor"), "{first:?}");
    let list_end = forecast.endings().iter().find(|ending| ending.cause == Cause::RevocationList).unwrap();
    assert!(verified(list_end.at_s - 1).is_some() && verified(list_end.at_s).is_none());
    let certificates_end = forecast.endings().iter().find(|ending| ending.cause == Cause::Certificate).unwrap();
    let without_list = |now_s| snp::verify(&report, &certificates, &[], &lab.roots(), now_s).verified;
    assert!(without_list(certificates_end.at_s - 1).is_some() && without_list(certificates_end.at_s).is_none());
    // A policy that is not met today.
    let strict = snp::Policy { measurement: snp::Expect::unset(), ..policy };
    let forecast = Forecast::snp(&now, &strict, &[], lab::NOW);
    assert_eq!((forecast.first().unwrap().at_s, forecast.first().unwrap().cause), (lab::NOW, Cause::Today));
}

#[test]
fn endorsements_that_nobody_fetches_again() {
    let lab = Lab::milan();
    let trust = Trust { amd: lab.roots(), ..nobody() };
    let (mut snapshot, mut marks, ages) = (Snapshot::default(), Marks::none(), Ages::default());
    let list = candidate("amd/crl/milan/vcek", lab.crl().der(), None, lab::NOW);
    add(&mut snapshot, &mut marks, &trust, lab::NOW, &list).unwrap();
    let chain = candidate("amd/chain/milan/vcek", lab.certificates(Vek::Chip)[1].der(), None, lab::NOW);
    let keys = [list.key, chain.key];
    let forecast = Forecast::endorsements(&snapshot, &keys, &ages, lab::NOW);
    let found: Vec<_> = forecast.endings().iter().map(|ending| (ending.at_s, ending.cause)).collect();
    assert_eq!(found, [(lab::NOW, Cause::Missing), (lab::NOW + 7 * DAY_S + 1, Cause::Age)]);
    for ending in forecast.endings() {
        assert_eq!(ending.hands, Hands::Refresh);
    }
    let again = forecast.clone().and(forecast.clone());
    assert_eq!(again, forecast);

    let world = World::new(Form::Sgx3);
    let trust = Trust { intel: world.roots(), amd: Roots::none(), ..nobody() };
    let info = one(&intel(&world.json(), NOW_S), "intel/tcb-info");
    add(&mut snapshot, &mut marks, &trust, NOW_S, &info).unwrap();
    let lenient: Ages = toml::from_str("intel_tcb_info = { fetched_hours = 9999 }").unwrap();
    let forecast = Forecast::endorsements(&snapshot, [&info.key], &lenient, NOW_S);
    assert_eq!(
        (forecast.first().unwrap().at_s, forecast.first().unwrap().cause),
        (NOW_S + 28 * DAY_S + 1, Cause::TcbData)
    );
}
