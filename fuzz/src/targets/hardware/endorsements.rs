//! Endorsements on their way into a snapshot: one by one, in bundles, and their names.

use starminer_hardware::dcap::Tee;
use starminer_hardware::endorsements::{
    Address, Ages, Bundle, DcapWants, Forecast, Key, MAX_KEY_BYTES, Marks, PckAuthority, RimId, Snapshot, encode,
};

use crate::Outcome;
use crate::hardware::endorsements::{KEPT, NOW_S, TRUST, check_item, decode, sealed};

/// What anybody does with a snapshot, whatever is in it.
fn look_up(snapshot: &Snapshot) {
    let ages = Ages::default();
    let mut wants = DcapWants { tee: Tee::Sgx, fmspc: [0; 6], ca: PckAuthority::Processor };
    let mut keys = Vec::new();
    for item in snapshot.items() {
        check_item(item);
        assert_eq!(snapshot.item(item.key()).map(|found| found.content()), Some(item.content()));
        keys.push(item.key().clone());
        match item.key() {
            Key::IntelTcbInfo { tee, fmspc } => (wants.tee, wants.fmspc) = (*tee, *fmspc),
            Key::IntelPckCrl { ca } => wants.ca = *ca,
            _ => {}
        }
    }
    let _ = snapshot.dcap(&wants, &ages, NOW_S);
    let forecast = Forecast::endorsements(snapshot, &keys, &ages, NOW_S);
    assert!(forecast.endings().is_sorted_by_key(|ending| ending.at_s));
    assert!(forecast.to_json().is_object());
}

/// One endorsement, beside nothing and beside others.
pub fn endorsement(data: &[u8]) -> Outcome {
    let Some(candidate) = decode(data) else { return Outcome::refused("form") };
    let (empty, none) = (Snapshot::default(), Marks::none());
    let mut all = Vec::new();
    let mut accepted = false;
    for (snapshot, marks) in [(&empty, &none), (&KEPT.0, &KEPT.1)] {
        let item = match snapshot.verify(&candidate, &TRUST, NOW_S) {
            Ok(item) => item,
            Err(refusal) => {
                assert!(!refusal.to_string().chars().any(char::is_control), "{refusal:?} is not safe to show");
                all.push(refusal.code());
                continue;
            }
        };
        assert_eq!(*item.key(), candidate.key);
        check_item(&item);
        let mut raised = marks.clone();
        match snapshot.with(item, &mut raised) {
            Ok(next) => {
                assert!(next.item(&candidate.key).is_some() && next.len() >= snapshot.len());
                let mut again = raised.clone();
                again.raise(marks);
                assert_eq!(again, raised, "no mark goes back");
                accepted = true;
                all.push("taken");
            }
            Err(refusal) => all.push(refusal.code()),
        }
    }
    if accepted { Outcome::accepted(all) } else { Outcome::refused(all) }
}

fn open(data: &[u8]) -> Outcome {
    let parsed = Bundle::parse(data);
    let bundle = match &parsed {
        Ok(bundle) => bundle,
        Err(error) => {
            assert!(!error.to_string().chars().any(char::is_control), "{error:?} is not safe to show");
            return Outcome::refused(error.code());
        }
    };
    let opened = bundle.open(&Snapshot::default(), &mut Marks::none(), &TRUST, NOW_S);
    assert_eq!(opened.snapshot.len() + opened.refused.len(), bundle.candidates().len());
    look_up(&opened.snapshot);
    // What was taken has one encoding, which leads to the same.
    let file = encode(&opened.snapshot);
    let again = Bundle::parse(&file).expect("what was written can be read");
    assert_eq!(again.digest(), opened.snapshot.digest());
    let again = again.open(&Snapshot::default(), &mut Marks::none(), &TRUST, NOW_S);
    assert!(again.refused.is_empty(), "{:?}", again.refused);
    assert_eq!(encode(&again.snapshot), file);
    // Beside others it takes nothing away.
    let mut marks = KEPT.1.clone();
    let beside = bundle.open(&KEPT.0, &mut marks, &TRUST, NOW_S).snapshot;
    for item in KEPT.0.items() {
        assert!(beside.item(item.key()).is_some(), "{} is gone", item.key());
    }
    look_up(&beside);
    let refused: Vec<_> = opened.refused.iter().map(|(_, refusal)| refusal.code()).collect();
    if opened.snapshot.is_empty() { Outcome::refused(refused) } else { Outcome::accepted(refused) }
}

/// A bundle, as it came and with digests that fit.
pub fn bundle(data: &[u8]) -> Outcome {
    let came = open(data);
    match sealed(data) {
        Some(fitting) => came.and(open(&fitting)),
        None => came,
    }
}

/// A text as the names of endorsements, and as marks.
pub fn names(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else { return Outcome::refused("text") };
    let key: Result<Key, _> = text.parse();
    if let Ok(key) = &key {
        assert_eq!(key.to_string(), text, "a key has one text");
        assert!(text.len() <= MAX_KEY_BYTES);
        if let Some(location) = key.location() {
            let plain = location.path.bytes().all(|byte| byte.is_ascii_graphic());
            assert!(plain, "{:?} is no path to ask a server for", location.path);
        }
        assert!(!key.to_string().chars().any(char::is_control), "safe to show");
    }
    let address = Address::new(text);
    if let Some(address) = &address {
        assert!(!address.host().is_empty() && address.path().starts_with('/'));
        assert!(address.as_str().ends_with(&[address.host(), address.path()].concat()));
        let plain = |text: &str| !text.contains(['@', ' ', '#', '\r', '\n']);
        assert!(plain(address.host()) && !address.path().contains(['#', ' ', '\r', '\n']));
    }
    let id = RimId::new(text);
    let marks = crate::targets::json_round_trip::<Marks>(data);
    crate::targets::taken(&[key.is_ok(), address.is_some(), id.is_some(), marks.is_some()])
}
