//! Numbers and times only rise.

use serde_json::json;
use starminer_hardware::endorsements::{Ages, Marks, Refusal, Snapshot, Trust};

use super::{
    add, intel, nobody, one,
    pki::{Form, NOW_S, World},
};

const DAY_S: u64 = 86_400;

struct Kept {
    world: World,
    trust: Trust,
    snapshot: Snapshot,
    marks: Marks,
}

impl Kept {
    fn new() -> Self {
        let world = World::new(Form::Sgx3);
        let trust = Trust { intel: world.roots(), ..nobody() };
        let mut kept = Self { world, trust, snapshot: Snapshot::default(), marks: Marks::none() };
        for one in intel(&kept.world.json(), NOW_S) {
            add(&mut kept.snapshot, &mut kept.marks, &kept.trust, NOW_S, &one).unwrap();
        }
        kept
    }

    /// Offers what the world has of this kind, a while later.
    fn offer(&mut self, prefix: &str) -> Result<(), Refusal> {
        let later_s = NOW_S + 60;
        let offered = one(&intel(&self.world.json(), later_s), prefix);
        add(&mut self.snapshot, &mut self.marks, &self.trust, later_s, &offered)
    }
}

#[track_caller]
fn rolled_back(result: Result<(), Refusal>, what: &str) {
    match result {
        Err(Refusal::Rollback { what: found, .. }) if found == what => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn evaluation_data_numbers() {
    for (prefix, tcb) in [("intel/tcb-info", true), ("intel/qe-identity", false)] {
        let mut kept = Kept::new();
        let set = |kept: &mut Kept, number: u32| {
            let of = if tcb { &mut kept.world.tcb_info } else { &mut kept.world.qe_identity };
            of["tcbEvaluationDataNumber"] = json!(number);
        };
        set(&mut kept, 19);
        let before = *kept.snapshot.digest();
        rolled_back(kept.offer(prefix), "the evaluation data number");
        assert_eq!(*kept.snapshot.digest(), before, "nothing of it was taken");
        set(&mut kept, 20);
        kept.offer(prefix).unwrap();
        set(&mut kept, 21);
        kept.offer(prefix).unwrap();
        assert_ne!(*kept.snapshot.digest(), before);
        set(&mut kept, 20);
        rolled_back(kept.offer(prefix), "the evaluation data number");
        // The mark stays when the item is lost.
        let key = one(&intel(&kept.world.json(), NOW_S), prefix).key;
        kept.snapshot = kept.snapshot.without(&key);
        rolled_back(kept.offer(prefix), "the evaluation data number");
        // Marks survive being written.
        let text = serde_json::to_string(&kept.marks).unwrap();
        kept.marks = serde_json::from_str(&text).unwrap();
        rolled_back(kept.offer(prefix), "the evaluation data number");
    }
}

#[test]
fn times_of_issue() {
    let mut kept = Kept::new();
    let newer = kept.world.tcb_info["issueDate"].clone();
    kept.world.tcb_info["issueDate"] = json!("2026-05-20T00:00:00Z");
    rolled_back(kept.offer("intel/tcb-info"), "the time of issue");
    kept.world.tcb_info["issueDate"] = newer;
    kept.offer("intel/tcb-info").unwrap();
    // Lists of the same number, issued earlier.
    kept.world.crl_days = (-11, 20);
    rolled_back(kept.offer("intel/pck-crl"), "the time of issue");
    rolled_back(kept.offer("intel/root-crl"), "the time of issue");
    kept.world.crl_days = (-9, 20);
    kept.offer("intel/pck-crl").unwrap();
}

#[test]
fn what_the_root_took_back_signs_nothing() {
    let mut kept = Kept::new();
    kept.world.revoked_by_root = vec![super::pki::TCB_SIGNER_SERIAL];
    kept.world.crl_days = (-9, 20);
    kept.offer("intel/root-crl").unwrap();
    let refusal = kept.offer("intel/tcb-info").unwrap_err();
    assert!(refusal.to_string().contains("dcap.signer-revocation"), "{refusal}");
    assert!(matches!(kept.offer("intel/qe-identity"), Err(Refusal::Unverified(_))));
}

#[test]
fn fetched_again_becomes_younger_and_never_older() {
    let mut kept = Kept::new();
    let ages = Ages::default();
    let same = one(&intel(&kept.world.json(), NOW_S + DAY_S), "intel/root-crl");
    let key = same.key.clone();
    let until = |kept: &Kept| kept.snapshot.item(&key).unwrap().usable_until_s(&ages);
    assert_eq!(until(&kept), NOW_S + 7 * DAY_S);
    add(&mut kept.snapshot, &mut kept.marks, &kept.trust, NOW_S + DAY_S, &same).unwrap();
    assert_eq!(until(&kept), NOW_S + 8 * DAY_S);
    let digest = *kept.snapshot.digest();
    let mut older = same;
    older.fetched_s = NOW_S;
    add(&mut kept.snapshot, &mut kept.marks, &kept.trust, NOW_S + DAY_S, &older).unwrap();
    assert_eq!((until(&kept), *kept.snapshot.digest()), (NOW_S + 8 * DAY_S, digest));
}

#[test]
fn the_makers_end_and_both_ages_bound_the_use() {
    let kept = Kept::new();
    let ages = Ages::default();
    let find = |prefix: &str, ages: &Ages| {
        let key = one(&intel(&kept.world.json(), NOW_S), prefix).key;
        kept.snapshot.item(&key).unwrap().usable_until_s(ages)
    };
    assert_eq!(find("intel/tcb-info", &ages), NOW_S + 7 * DAY_S);
    // Issued two days before.
    let by_issue: Ages = toml::from_str("intel_tcb_info = { fetched_hours = 9999, issued_hours = 120 }").unwrap();
    assert_eq!(find("intel/tcb-info", &by_issue), NOW_S + 3 * DAY_S);
    let by_maker: Ages = toml::from_str("intel_tcb_info = { fetched_hours = 9999 }").unwrap();
    assert_eq!(find("intel/tcb-info", &by_maker), NOW_S + 28 * DAY_S);
    let key = one(&intel(&kept.world.json(), NOW_S), "intel/tcb-info").key;
    assert_eq!(kept.snapshot.item(&key).unwrap().refresh_at_s(&ages), NOW_S + 7 * DAY_S / 2);
    assert!(toml::from_str::<Ages>("refresh_percent = 91").is_err());
    assert!(toml::from_str::<Ages>("refresh_percent = 0").is_err());
    assert!(toml::from_str::<Ages>("amd_crls = { fetched_hours = 1 }").is_err());
}
