//! What a TPM is asked for: enrolment, quotes, keys, counters, its own words; and that the reference tools agree.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use starminer_attester::tpm::{
    AkKind, AkPlace, AkSpec, Authorization, CounterReaders, EkKind, Tpm, TpmAddress, TpmAttester, TpmError, TpmSettings,
};
use starminer_hardware::tpm::{
    HashAlg, PcrSelection, PcrValues, Public,
    clock::continuity,
    credential::{Credential, Randomness},
    enrolment::{challenge, confirm},
};
use starminer_verify::{Batch, Digest, report_data_for};
use tpm2_protocol::data::TpmRcBase;

use crate::{
    COUNTER, PCRS, QUOTE, admit, at, attester_settings, certified,
    emulator::Swtpm,
    failed,
    interposer::{Act, Interposer, code},
    quotes, random, spec, verified,
};

#[test]
fn a_node_is_enrolled_and_quotes() {
    let Some(tpm) = Swtpm::start() else { return };
    for kind in [EkKind::Rsa2048, EkKind::P384] {
        let attester = TpmAttester::open(attester_settings(&tpm.socket(), kind)).unwrap();
        let secret = random();
        let credential = admit(&tpm, &attester, kind, &secret);
        let answer = attester.activate(&credential).unwrap();
        assert!(confirm(&secret, &answer).hold());
        assert!(!confirm(&random(), &answer).hold());
        let evidence = attester.quote(&[0x5a; 32]).unwrap();
        let quoted = verified(&attester, &evidence, &[0x5a; 32]);
        assert_eq!(quoted.ak().name.as_deref(), Some(attester.ak_name()));
        assert_eq!(quoted.pcrs(), Some(&evidence.pcrs));
        assert_eq!(evidence.pcrs.iter().count(), 24 + 3);
        assert_eq!((quoted.clock(), quoted.firmware_version()), (evidence.clock, evidence.firmware_version));
    }
    assert_eq!(tpm.left_behind(), "", "keys or sessions were left in the TPM");
}

#[test]
fn offers_that_do_not_fit_get_no_credential() {
    let (Some(tpm), Some(elsewhere)) = (Swtpm::start(), Swtpm::start()) else { return };
    let offer = |tpm: &Swtpm, kind| TpmAttester::open(attester_settings(&tpm.socket(), kind)).unwrap().offer().unwrap();
    let (rsa, p384) = (offer(&tpm, EkKind::Rsa2048), offer(&tpm, EkKind::P384));
    let other = offer(&elsewhere, EkKind::Rsa2048);
    let mut device = Tpm::open(at(&tpm.socket(), EkKind::Rsa2048)).unwrap();
    let ak = device.create_ak(&spec(AkKind::Rsapss2048, AkPlace::EndorsementKey)).unwrap();
    let certificate = certified(&tpm, &rsa, EkKind::Rsa2048);
    let public = |bytes: &[u8]| Public::parse(bytes).unwrap();
    let refusal = |ek: &[u8], ak: &[u8]| {
        let randomness = Randomness { seed: random().into(), ephemeral: random().into() };
        let made = challenge(&certificate, &public(ek), &public(ak), &random(), randomness).unwrap();
        assert_eq!(made.credential.is_none(), !failed(&made.checks).is_empty());
        failed(&made.checks)
    };
    assert!(refusal(&rsa.ek_public, &rsa.ak_public).is_empty());
    assert!(refusal(&rsa.ek_public, &ak.to_tpm2b()).is_empty());
    assert_eq!(refusal(&other.ek_public, &other.ak_public), ["tpm-ek.public"], "another TPM's key");
    assert_eq!(refusal(&p384.ek_public, &p384.ak_public), ["tpm-ek.public"], "another key of this TPM");
    assert_eq!(refusal(&rsa.ek_public, &rsa.ek_public), ["tpm.ak-attributes"], "a key that signs nothing");
    assert_eq!(refusal(&rsa.ak_public, &rsa.ak_public), ["tpm-ek.public", "tpm-ek.template"], "no endorsement key");
}

#[test]
fn keys_of_every_kind_and_place() {
    let Some(tpm) = Swtpm::start() else { return };
    for ek in EkKind::ALL {
        let mut device = Tpm::open(at(&tpm.socket(), ek)).unwrap();
        for place in [AkPlace::Endorsement, AkPlace::Owner, AkPlace::EndorsementKey] {
            for kind in [AkKind::EcdsaP256, AkKind::Rsassa2048, AkKind::Rsapss2048] {
                let what = format!("{ek:?} {place:?} {kind:?}");
                let ak = device.create_ak(&spec(kind, place)).unwrap_or_else(|error| panic!("{what}: {error}"));
                quotes(&mut device, &ak, &what);
                let (name, area, private) = (ak.name().to_vec(), ak.public().clone(), ak.private().map(<[u8]>::to_vec));
                let tpm2b = ak.to_tpm2b();
                device.flush_ak(ak).unwrap();
                // The same key again: from the seed, or from what was kept.
                let again = match private {
                    Some(private) => device.load_ak(&tpm2b[2..], &private).unwrap(),
                    None => device.create_ak(&spec(kind, place)).unwrap(),
                };
                assert_eq!((again.name(), again.public()), (&name[..], &area), "{what}");
                quotes(&mut device, &again, &what);
                device.flush_ak(again).unwrap();
                let other = device.create_ak(&AkSpec { label: [8; 32], ..spec(kind, place) }).unwrap();
                assert_ne!(other.name(), name, "{what}");
                device.flush_ak(other).unwrap();
            }
        }
    }
    assert_eq!(tpm.left_behind(), "");
}

#[test]
fn one_quote_for_two_hundred_bindings() {
    let Some(tpm) = Swtpm::start() else { return };
    let quotes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&quotes);
    let count = move |command: &mut Vec<u8>| {
        counted.fetch_add(usize::from(code(command) == QUOTE), Ordering::SeqCst);
        Act::Pass
    };
    let way = Interposer::start(&tpm.socket(), "count.sock", count, |_, _| {});
    let attester = TpmAttester::open(attester_settings(&way.socket, EkKind::P256)).unwrap();
    let bindings: Vec<Digest> = (0..200u8).map(|number| Digest::from([number; 32])).collect();
    let batch = Batch::new(&bindings).unwrap();
    let evidence = attester.quote(batch.report_data().as_bytes()).unwrap();
    assert_eq!(quotes.load(Ordering::SeqCst), 1);
    for (binding, path) in bindings.iter().zip(batch.paths()) {
        let root = report_data_for(binding, path).unwrap();
        verified(&attester, &evidence, root.as_bytes());
        let stranger = report_data_for(&Digest::from([0xee; 32]), path).unwrap();
        assert_ne!(stranger, root, "a binding that is not in the batch");
    }
}

#[test]
fn the_reference_tool_agrees() {
    let Some(tpm) = Swtpm::start() else { return };
    tpm.run(&format!("tpm2_pcrextend 16:sha256={}", "11".repeat(32)));
    let attester = TpmAttester::open(attester_settings(&tpm.socket(), EkKind::Rsa2048)).unwrap();
    let evidence = attester.quote(&[0xa5; 32]).unwrap();
    assert_ne!(evidence.pcrs.value(HashAlg::Sha256, 16), Some(&[0; 32][..]));
    let values = tools_file(&evidence.pcrs);
    let mut altered = evidence.quote.clone();
    *altered.last_mut().unwrap() ^= 1;
    for (name, bytes) in [
        ("quote", &evidence.quote),
        ("altered", &altered),
        ("signature", &evidence.signature),
        ("ak", &evidence.ak_public),
        ("values", &values),
    ] {
        tpm.write(name, bytes);
    }
    let check = |message: &str| {
        let nonce = "a5".repeat(32);
        tpm.try_run(&format!("tpm2_checkquote -u ak -m {message} -s signature -f values -g sha256 -q {nonce}"))
    };
    let good = check("quote");
    assert!(good.status.success(), "{good:?}");
    assert!(!check("altered").status.success());
}

/// The form of `tpm2_quote -o`: selections and lists of digests as they stand in the tool's memory.
fn tools_file(pcrs: &PcrValues) -> Vec<u8> {
    let mut file = (PCRS.len() as u32).to_le_bytes().to_vec();
    for slot in 0..16 {
        let selection = PCRS.get(slot);
        file.extend(selection.map_or(0, |selection| selection.bank.id()).to_le_bytes());
        file.push(if selection.is_some() { 3 } else { 0 });
        file.extend(selection.map_or(0, |selection| selection.bits).to_le_bytes());
        file.push(0);
    }
    let values: Vec<&[u8]> = pcrs.iter().map(|(_, _, value)| value).collect();
    file.extend((values.chunks(8).count() as u32).to_le_bytes());
    for list in values.chunks(8) {
        file.extend((list.len() as u32).to_le_bytes());
        for slot in 0..8 {
            let value = list.get(slot).copied().unwrap_or_default();
            file.extend((value.len() as u16).to_le_bytes());
            file.extend(value);
            file.resize(file.len() + 64 - value.len(), 0);
        }
    }
    file
}

#[test]
fn a_reset_is_seen_and_survived() {
    let Some(mut tpm) = Swtpm::start() else { return };
    let attester = TpmAttester::open(attester_settings(&tpm.socket(), EkKind::P256)).unwrap();
    let take = |root: &[u8; 32]| verified(&attester, &attester.quote(root).unwrap(), root);
    let (first, second) = (take(&[1; 32]), take(&[2; 32]));
    let between = continuity(&first, &second, &[]);
    assert!(between.hold(), "{between:#?}");
    tpm.reset();
    // Keys and sessions are gone; the attester makes the same key again.
    let third = take(&[3; 32]);
    let over = continuity(&second, &third, &[]);
    assert!(failed(&over).contains(&"tpm.reset-count".to_owned()), "{over:#?}");
    assert!(!failed(&over).contains(&"tpm.same-ak".to_owned()), "{over:#?}");
}

#[test]
fn wrong_credentials_stay_closed() {
    let (Some(tpm), Some(elsewhere)) = (Swtpm::start(), Swtpm::start()) else { return };
    for kind in [EkKind::Rsa2048, EkKind::P384] {
        let attester = TpmAttester::open(attester_settings(&tpm.socket(), kind)).unwrap();
        let other_tpm = TpmAttester::open(attester_settings(&elsewhere.socket(), kind)).unwrap();
        let mut settings = attester_settings(&tpm.socket(), kind);
        settings.ak.label = [9; 32];
        let refused = |credential: &Credential, what: &str| match attester.activate(credential) {
            Err(TpmError::Refused { .. }) => {}
            other => panic!("{kind:?}, {what}: {other:?}"),
        };
        let secret = random();
        let good = admit(&tpm, &attester, kind, &secret);
        refused(&admit(&elsewhere, &other_tpm, kind, &secret), "for another TPM");
        for index in [0, 2, good.credential_blob.len() - 1] {
            let mut blob = good.credential_blob.clone();
            blob[index] ^= 1;
            refused(&Credential { credential_blob: blob, ..good.clone() }, "altered");
        }
        let mut encrypted = good.encrypted_secret.clone();
        *encrypted.last_mut().unwrap() ^= 1;
        refused(&Credential { encrypted_secret: encrypted, ..good.clone() }, "with another seed");
        // The TPM has one user at a time.
        drop(attester);
        let other_key = TpmAttester::open(settings).unwrap();
        let refusal = other_key.activate(&good).unwrap_err();
        assert_eq!(refusal.refusal(), Some(TpmRcBase::Integrity), "for another attestation key");
        // No failure took anything from the TPM, or left anything in it.
        drop(other_key);
        assert_eq!(tpm.left_behind(), "");
        let attester = TpmAttester::open(attester_settings(&tpm.socket(), kind)).unwrap();
        assert_eq!(attester.activate(&good).unwrap()[..], secret);
    }
}

#[test]
fn a_counter_only_goes_up() {
    let Some(mut tpm) = Swtpm::start() else { return };
    let authorization = Authorization::new(&random::<32>());
    let wrong = Authorization::new(&random::<32>());
    let open = |tpm: &Swtpm| Tpm::open(at(&tpm.socket(), EkKind::P256)).unwrap();
    let mut device = open(&tpm);
    assert!(matches!(
        device.define_counter(0x01c0_0002, &authorization, CounterReaders::Knowing),
        Err(TpmError::Argument(_))
    ));
    device.define_counter(COUNTER, &authorization, CounterReaders::Knowing).unwrap();
    let again = device.define_counter(COUNTER, &authorization, CounterReaders::Knowing).unwrap_err();
    assert_eq!(again.refusal(), Some(TpmRcBase::NvDefined));
    let unset = device.read_counter(COUNTER, &authorization).unwrap_err();
    assert_eq!(unset.refusal(), Some(TpmRcBase::NvUninitialized));
    let first = device.increment_counter(COUNTER, &authorization).unwrap();
    assert_eq!(device.increment_counter(COUNTER, &authorization).unwrap(), first + 1);
    for error in [
        device.increment_counter(COUNTER, &wrong).unwrap_err(),
        device.read_counter(COUNTER, &Authorization::default()).unwrap_err(),
    ] {
        assert!(matches!(error.refusal(), Some(TpmRcBase::AuthFail | TpmRcBase::BadAuth)), "{error}");
    }
    drop(device);
    tpm.reset();
    let mut device = open(&tpm);
    assert_eq!(device.read_counter(COUNTER, &authorization).unwrap(), first + 1);
    device.undefine_counter(COUNTER).unwrap();
    device.define_counter(COUNTER, &authorization, CounterReaders::Knowing).unwrap();
    assert!(device.increment_counter(COUNTER, &authorization).unwrap() > first + 1, "defined anew, it went back");
}

#[test]
fn what_a_tpm_says_about_itself() {
    let Some(tpm) = Swtpm::start() else { return };
    let mut device = Tpm::open(at(&tpm.socket(), EkKind::P256)).unwrap();
    let properties = device.properties().unwrap();
    assert_eq!((properties.maker.as_str(), properties.vendor.as_str()), ("IBM", "SW   TPM"));
    let banks: Vec<_> = properties.pcr_banks.iter().map(|bank| (bank.bank, bank.bits)).collect();
    assert_eq!(banks, [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384].map(|bank| (bank, 0x00ff_ffff)));
    assert!(!properties.owner_authorization_set && !properties.endorsement_authorization_set && !properties.in_lockout);
    let certificates = device.ek_certificates().unwrap();
    let kinds: Vec<_> = certificates.keys.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [EkKind::Rsa2048, EkKind::P384]);
    let (earlier, later) = (device.clock().unwrap(), device.clock().unwrap());
    assert!(earlier.clock.clock_ms <= later.clock.clock_ms && earlier.clock.reset_count == later.clock.reset_count);
    let ak = device.create_ak(&spec(AkKind::EcdsaP256, AkPlace::Endorsement)).unwrap();
    quotes(&mut device, &ak, "properties");
    drop(device);
    let attester = TpmAttester::open(attester_settings(&tpm.socket(), EkKind::P256)).unwrap();
    assert_eq!(attester.quote(&[0; 32]).unwrap().firmware_version, properties.firmware_version);
    for pcrs in [
        vec![],
        vec![PcrSelection { bank: HashAlg::Sha256, bits: 0 }],
        vec![PcrSelection { bank: HashAlg::Sha512, bits: 1 }],
    ] {
        let refused = attester.with_tpm(|tpm| tpm.read_pcrs(&pcrs)).unwrap_err();
        assert!(matches!(refused, TpmError::Argument(_)), "{pcrs:?}: {refused}");
    }
}

#[test]
fn authorisations_of_hierarchies() {
    let Some(tpm) = Swtpm::start() else { return };
    let (owner, endorsement) = ("owner-authorisation-0123456789", "endorsement-authorisation-012345");
    tpm.run(&format!("tpm2_changeauth -c owner {owner}"));
    tpm.run(&format!("tpm2_changeauth -c endorsement {endorsement}"));
    // And locked, by a wrong authorisation of somebody else's index.
    tpm.run("tpm2_dictionarylockout -s -n 1 -t 1000 -l 1000");
    tpm.run(&format!("tpm2_nvdefine 0x1800001 -s 8 -C o -P {owner} -p right -a authread|authwrite"));
    assert!(!tpm.try_run("tpm2_nvread 0x1800001 -P wrong").status.success());
    let way = Interposer::reader(&tpm.socket());
    let settings = |owner: &str, endorsement: &str| TpmSettings {
        owner: Authorization::new(owner.as_bytes()),
        endorsement: Authorization::new(endorsement.as_bytes()),
        ..at(&way.socket, EkKind::P256)
    };
    let wrong = Tpm::open(settings(owner, "wrong")).unwrap_err();
    assert!(matches!(wrong.refusal(), Some(TpmRcBase::AuthFail | TpmRcBase::BadAuth)), "{wrong}");
    let mut device = Tpm::open(settings(owner, endorsement)).unwrap();
    let properties = device.properties().unwrap();
    assert!(properties.owner_authorization_set && properties.endorsement_authorization_set && properties.in_lockout);
    for place in [AkPlace::Endorsement, AkPlace::Owner, AkPlace::EndorsementKey] {
        let ak = device.create_ak(&spec(AkKind::EcdsaP256, place)).unwrap();
        quotes(&mut device, &ak, "with authorisations, in lockout");
        device.flush_ak(ak).unwrap();
    }
    let counter = Authorization::new(b"counter-authorisation-0123456789");
    device.define_counter(COUNTER, &counter, CounterReaders::Knowing).unwrap();
    device.increment_counter(COUNTER, &counter).unwrap();
    drop(device);
    let mut device = Tpm::open(settings("wrong", endorsement)).unwrap();
    let wrong = device.undefine_counter(COUNTER).unwrap_err();
    assert!(matches!(wrong.refusal(), Some(TpmRcBase::AuthFail | TpmRcBase::BadAuth)), "{wrong}");
    for secret in [owner, endorsement, "counter-authorisation-0123456789"] {
        assert!(!way.saw(secret.as_bytes()), "{secret} was sent");
    }
}

#[test]
fn what_is_no_tpm_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for address in [
        TpmAddress::Device(dir.path().join("tpmrm0")),
        TpmAddress::Unix(dir.path().join("tpm.sock")),
        TpmAddress::Tcp(([127, 0, 0, 1], 1).into()),
    ] {
        let absent = Tpm::open(TpmSettings::new(address)).unwrap_err();
        assert_eq!(absent.code(), "tpm.device.absent", "{absent}");
    }
    // A device that answers with what is no response.
    let zero = Tpm::open(TpmSettings::new(TpmAddress::Device("/dev/zero".into()))).unwrap_err();
    assert_eq!(zero.code(), "tpm.device.connection", "{zero}");
    let null = Tpm::open(TpmSettings::new(TpmAddress::Device("/dev/null".into()))).unwrap_err();
    assert_eq!(null.code(), "tpm.device.connection", "{null}");
}

/// Prints a figure: `cargo test … -- --ignored --nocapture quotes_a_second`.
#[test]
#[ignore = "a measurement"]
fn quotes_a_second() {
    const QUOTES: u32 = 300;
    let Some(tpm) = Swtpm::start() else { return };
    for kind in [AkKind::EcdsaP256, AkKind::Rsassa2048] {
        let mut settings = attester_settings(&tpm.socket(), EkKind::P256);
        settings.ak.kind = kind;
        let attester = TpmAttester::open(settings).unwrap();
        let rate = |one: &dyn Fn()| {
            let start = Instant::now();
            (0..QUOTES).for_each(|_| one());
            f64::from(QUOTES) / start.elapsed().as_secs_f64()
        };
        let whole = rate(&|| drop(attester.quote(&[1; 32]).unwrap()));
        let reads = rate(&|| drop(attester.with_tpm(|tpm| tpm.read_pcrs(&PCRS)).unwrap()));
        println!(
            "{kind:?}: {whole:.0} quotes a second with 27 PCRs read and verified; {reads:.0} readings of these PCRs"
        );
    }
}
