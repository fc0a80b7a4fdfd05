//! Endorsements that makers published.

use std::path::PathBuf;

use starminer_hardware::{
    dcap::{self, Quote, Tee, verify},
    endorsements::{
        Absence, Ages, Bundle, DcapWants, Key, Marks, PckAuthority, Refusal, RimId, Snapshot, SnpWants, Trust, encode,
    },
    snp::{self, Product, Report, SigningKey},
};

use super::{add, candidate, intel, samples::Sample};

fn vector(name: &str) -> Option<Vec<u8>> {
    let vectors = std::env::var_os("STARMINER_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let file = std::fs::read(vectors.join(name)).ok();
    if file.is_none() {
        println!("skipped: no shared vector {name} on this machine");
    }
    file
}

/// What a quote needs is found in its PCK certificate; here in what the sample brings.
fn wants(snapshot: &Snapshot) -> DcapWants {
    let mut wants = DcapWants { tee: Tee::Sgx, fmspc: [0; 6], ca: PckAuthority::Processor };
    for item in snapshot.items() {
        match item.key() {
            Key::IntelTcbInfo { tee, fmspc } => (wants.tee, wants.fmspc) = (*tee, *fmspc),
            Key::IntelPckCrl { ca } => wants.ca = *ca,
            _ => {}
        }
    }
    wants
}

#[test]
fn intels_serve_real_quotes_by_way_of_a_bundle() {
    for name in ["sgx_quote", "tdx_quote", "tdx_quote_td15ex"] {
        let Some(sample) = Sample::read(name) else { return };
        let (mut snapshot, mut marks) = (Snapshot::default(), Marks::none());
        for one in intel(&sample.json, sample.now_s) {
            add(&mut snapshot, &mut marks, &Trust::genuine(), sample.now_s, &one)
                .unwrap_or_else(|error| panic!("{name}, {}: {error}", one.key));
        }
        assert_eq!((snapshot.len(), marks.len()), (4, 4));

        let file = encode(&snapshot);
        let bundle = Bundle::parse(&file).unwrap();
        assert_eq!(bundle.digest(), snapshot.digest());
        let opened = bundle.open(&Snapshot::default(), &mut Marks::none(), &Trust::genuine(), sample.now_s);
        assert!(opened.refused.is_empty(), "{:?}", opened.refused);
        assert_eq!(opened.snapshot.digest(), snapshot.digest());
        assert_eq!(encode(&opened.snapshot), file);

        let quote = Quote::parse(&sample.quote).unwrap();
        let found = opened.snapshot.dcap(&wants(&snapshot), &Ages::default(), sample.now_s);
        assert!(found.missing.is_empty(), "{:?}", found.missing);
        let verification = verify(&quote, &found.endorsements, &dcap::roots(), sample.now_s);
        assert!(verification.verified.is_some(), "{name}: {:#?}", verification.checks);

        // Whatever is left out is named, and the quote refused for it.
        for key in wants(&snapshot).keys() {
            let less = snapshot.without(&key).dcap(&wants(&snapshot), &Ages::default(), sample.now_s);
            assert_eq!(less.missing.len(), 1);
            assert_eq!((&less.missing[0].what, less.missing[0].why), (&key, Absence::NotFetched));
            assert!(verify(&quote, &less.endorsements, &dcap::roots(), sample.now_s).verified.is_none());
        }
    }
}

#[test]
fn intels_of_every_bit_altered_are_refused() {
    let Some(sample) = Sample::read("tdx_quote") else { return };
    let trust = Trust::genuine();
    for original in intel(&sample.json, sample.now_s) {
        assert!(Snapshot::default().verify(&original, &trust, sample.now_s).is_ok());
        // Hexadecimal, and blanks of JSON outside of what is signed, have letters that mean the same.
        let mut original = original;
        if original.key == Key::IntelRootCrl {
            original.content = data_encoding::HEXLOWER_PERMISSIVE.decode(&original.content).unwrap();
        }
        for at in (0..original.content.len()).step_by(7) {
            let mut altered = original.clone();
            altered.content[at] ^= 1 << (at % 8);
            if altered.content.eq_ignore_ascii_case(&original.content) && at + 140 > original.content.len() {
                continue;
            }
            assert!(
                Snapshot::default().verify(&altered, &trust, sample.now_s).is_err(),
                "{} byte {at} altered",
                original.key
            );
        }
        for length in (0..original.content.len()).step_by(61) {
            let mut cut = original.clone();
            cut.content.truncate(length);
            assert!(Snapshot::default().verify(&cut, &trust, sample.now_s).is_err(), "{} cut", original.key);
        }
    }
}

#[test]
fn intels_have_to_be_what_was_asked_for_and_of_today() {
    let Some(sample) = Sample::read("sgx_quote") else { return };
    let trust = Trust::genuine();
    let all = intel(&sample.json, sample.now_s);
    let check = |candidate, now_s| Snapshot::default().verify(&candidate, &trust, now_s).map(|_| ()).unwrap_err();
    for one in &all {
        for year_s in [365 * 86_400 * 3, 0] {
            let now_s = if year_s == 0 { 1_500_000_000 } else { sample.now_s + year_s };
            let mut dated = one.clone();
            dated.fetched_s = now_s;
            assert!(matches!(check(dated, now_s), Refusal::Unverified(_)), "{} at {now_s}", one.key);
        }
        let mut future = one.clone();
        future.fetched_s += 1;
        assert!(matches!(check(future, sample.now_s), Refusal::FromTheFuture { .. }));
    }
    for (prefix, other) in [
        ("intel/tcb-info", "intel/tcb-info/sgx/00606a000001"),
        ("intel/tcb-info", "intel/tcb-info/tdx/00606a000000"),
        ("intel/qe-identity", "intel/qe-identity/tdx"),
        ("intel/pck-crl", "intel/pck-crl/processor"),
        ("intel/qe-identity", "intel/tcb-info/sgx/00606a000000"),
    ] {
        let mut one = super::one(&all, prefix);
        if one.key.to_string() == other {
            one.key = other.replace("processor", "platform").parse().unwrap();
        } else {
            one.key = other.parse().unwrap();
        }
        let refusal = check(one, sample.now_s);
        assert!(matches!(refusal, Refusal::OtherThanAsked(_)), "{prefix} as {other}: {refusal}");
    }
    let mut one = super::one(&all, "intel/tcb-info");
    one.chain = None;
    assert!(matches!(check(one, sample.now_s), Refusal::Malformed(_)));
}

#[test]
fn amds_serve_real_reports() {
    for (line, product) in [("milan", Product::Milan), ("genoa", Product::Genoa)] {
        let names = ["report.bin", "vcek.pem", "ask.pem", "ark.pem"];
        let files: Option<Vec<_>> = names.iter().map(|name| vector(&format!("snp/{line}_{name}"))).collect();
        let Some([report, vcek, ask, ark]) = files.as_deref() else { return };
        let report = Report::parse(report).unwrap();
        let now_s = 1_780_000_000;
        let (chip, tcb) = report.unverified_chip_and_tcb();
        let wants = SnpWants { product, signer: SigningKey::Vcek, names: chip, tcb };
        let keys = wants.keys();
        let name = |at: usize| keys[at].to_string();
        let (mut snapshot, mut marks) = (Snapshot::default(), Marks::none());
        let chain = [&ask[..], ark].concat();
        for (at, content) in [(0, &chain), (1, vcek)] {
            let one = candidate(&name(at), content.clone(), None, now_s);
            add(&mut snapshot, &mut marks, &Trust::genuine(), now_s, &one).unwrap();
        }
        let found = snapshot.snp(&wants, &Ages::default(), now_s);
        assert_eq!(found.missing.iter().map(|missing| missing.what.to_string()).collect::<Vec<_>>(), [name(2)]);
        assert!(found.missing[0].to_string().contains("/crl (AMD KDS)"), "{}", found.missing[0]);
        let verification = snp::verify(&report, &found.certificates, &found.crls, &snp::roots(), now_s);
        assert!(verification.verified.is_some(), "{:#?}", verification.checks);

        // The certificate of another chip, another TCB, another product.
        let (_, rest) = name(1).rsplit_once('/').map(|(chip, tcb)| (chip.to_owned(), tcb.to_owned())).unwrap();
        let other_tcb = name(1).replace(&rest, "0000000000000001");
        let mut other_chip = chip.to_vec();
        other_chip[0] ^= 1;
        let other_chip = SnpWants { names: &other_chip, ..wants }.keys()[1].to_string();
        for other in [other_tcb, other_chip, name(1).replace(line, if line == "milan" { "genoa" } else { "milan" })] {
            let one = candidate(&other, vcek.clone(), None, now_s);
            let refusal = snapshot.verify(&one, &Trust::genuine(), now_s).unwrap_err();
            assert!(matches!(refusal, Refusal::OtherThanAsked(_)), "{other}: {refusal}");
        }
        let vlek_chain = candidate(&name(0).replace("vcek", "vlek"), chain, None, now_s);
        assert!(matches!(snapshot.verify(&vlek_chain, &Trust::genuine(), now_s), Err(Refusal::OtherThanAsked(_))));
    }
}

#[test]
fn amds_list_of_turin() {
    let list = include_bytes!("../data/amd/turin.crl");
    let now_s = 1_788_000_000;
    let one = candidate("amd/crl/turin/vcek", list, None, now_s);
    let item = Snapshot::default().verify(&one, &Trust::genuine(), now_s).unwrap();
    assert_eq!(item.facts().number.as_ref().unwrap().to_string(), "7");
    // AMD lets it count until 4 October; a week after it was fetched it is too old for us.
    let (mut snapshot, mut marks) = (Snapshot::default(), Marks::none());
    snapshot = snapshot.with(item, &mut marks).unwrap();
    let ages = Ages::default();
    assert!(snapshot.find(&one.key, &ages, now_s + 7 * 86_400).is_ok());
    let late = snapshot.find(&one.key, &ages, now_s + 7 * 86_400 + 1).unwrap_err();
    assert_eq!(late.why, Absence::TooOld { since_s: now_s + 7 * 86_400 });
    let lenient =
        Ages { amd_crl: starminer_hardware::endorsements::Age { fetched_hours: 90 * 24, issued_hours: None }, ..ages };
    let ended = snapshot.find(&one.key, &lenient, 1_792_000_000).unwrap_err();
    assert!(matches!(ended.why, Absence::Ended { .. }));
    let milan = candidate("amd/crl/milan/vcek", list, None, now_s);
    assert!(matches!(Snapshot::default().verify(&milan, &Trust::genuine(), now_s), Err(Refusal::Unverified(_))));
}

#[test]
fn nvidias_manifest_is_the_one_of_its_id() {
    let Some(rim) = vector("nvidia/NV_GPU_DRIVER_GH100_550.144.03.xml") else { return };
    let now_s = 1_750_000_000;
    let name = "nvidia/rim/NV_GPU_DRIVER_GH100_550.144.03";
    let (mut snapshot, mut marks) = (Snapshot::default(), Marks::none());
    let one = candidate(name, rim.clone(), None, now_s);
    add(&mut snapshot, &mut marks, &Trust::genuine(), now_s, &one).unwrap();
    let id = RimId::new("NV_GPU_DRIVER_GH100_550.144.03").unwrap();
    let found = snapshot.nvidia(&[id], &[], &Ages::default(), now_s);
    assert_eq!((found.rims.len(), found.missing.len()), (1, 0));
    for other in ["nvidia/rim/NV_GPU_DRIVER_GH100_550.144.04", "nvidia/rim/NV_GPU_DRIVER_GB100_550.144.03"] {
        let refusal = snapshot.verify(&candidate(other, rim.clone(), None, now_s), &Trust::genuine(), now_s);
        assert!(matches!(refusal, Err(Refusal::OtherThanAsked(_))), "{other}");
    }
    let at = rim.len() / 2;
    let mut altered = rim;
    altered[at] ^= 1;
    assert!(snapshot.verify(&candidate(name, altered, None, now_s), &Trust::genuine(), now_s).is_err());
}

#[test]
fn a_real_authority_of_a_tpm_maker() {
    let (Some(ek), Some(ca)) = (vector("tpm-ek/nuvoton_ek.pem"), vector("tpm-ek/nuvoton_2110_ca.pem")) else { return };
    let ek = starminer_hardware::cert::Certificate::read_one(&ek).unwrap();
    let now_s = 1_700_000_000;
    let one = candidate("tpm/authority/https://www.nuvoton.com/a.cer", ca, None, now_s);
    let taken = Snapshot::default().verify(&one, &Trust::genuine(), now_s).unwrap();
    let snapshot = Snapshot::default().with(taken, &mut Marks::none()).unwrap();
    let found = snapshot.tpm(&ek, &Trust::genuine().tpm, &Ages::default(), now_s);
    // The root itself issued the key's certificate: nothing is needed between.
    assert!(found.authorities.is_empty());
}
