//! The TPM as a device, against running emulators: no stand-in for a TPM anywhere. Skipped, with a printed word, where swtpm is not installed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod emulator;
mod interposer;

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use starminer_attester::tpm::{
    Ak, AkKind, AkPlace, AkSpec, Authorization, Deadlines, EkKind, KnownEk, Tpm, TpmAddress, TpmAttester, TpmAttesterSettings,
    TpmError, TpmEvidence, TpmSettings,
};
use starminer_hardware::{
    cert::Certificate,
    tpm::{
        AttestationKey, Context, HashAlg, PcrSelection, PcrValues, Public, Quote, Verified,
        clock::continuity,
        credential::{Credential, Randomness},
        ek::{self, EkCertificate},
        enrolment::{SECRET_BYTES, challenge, confirm},
        verify,
    },
};
use starminer_verify::{Batch, Digest, report_data_for};
use tpm2_protocol::data::TpmRcBase;

use crate::{
    emulator::Swtpm,
    interposer::{Act, Interposer, code, refusal},
};

const QUOTE: u32 = 0x158;
const ACTIVATE_CREDENTIAL: u32 = 0x147;
const NV_INCREMENT: u32 = 0x134;
const NV_READ: u32 = 0x14e;
const COUNTER: u32 = 0x0180_5354;

const PCRS: [PcrSelection; 2] =
    [PcrSelection { bank: HashAlg::Sha256, bits: 0x00ff_ffff }, PcrSelection { bank: HashAlg::Sha384, bits: 0b1001_0001 }];

fn at(socket: &Path, ek: EkKind) -> TpmSettings {
    TpmSettings { ek, ..TpmSettings::new(TpmAddress::Unix(socket.to_owned())) }
}

fn spec(kind: AkKind, place: AkPlace) -> AkSpec {
    AkSpec { kind, place, label: [7; 32] }
}

fn attester_settings(socket: &Path, ek: EkKind) -> TpmAttesterSettings {
    let ak = spec(AkKind::EcdsaP256, AkPlace::Endorsement);
    TpmAttesterSettings { tpm: at(socket, ek), ak, pcrs: PCRS.to_vec() }
}

fn verified(attester: &TpmAttester, evidence: &TpmEvidence, root: &[u8]) -> Verified {
    let quote = Quote::parse(&evidence.quote, &evidence.signature).unwrap();
    let ak = AttestationKey::parse(&evidence.ak_public).unwrap();
    let context =
        Context { nonce: root, ak: &ak, parent: attester.parent(), pcrs: Some(&evidence.pcrs), maker: None };
    let verification = verify(&quote, &context);
    verification.verified.unwrap_or_else(|| panic!("{:#?}", verification.checks))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// What whoever admits a node does with its offer.
fn admit(tpm: &Swtpm, attester: &TpmAttester, kind: EkKind, secret: &[u8; SECRET_BYTES]) -> Credential {
    let offer = attester.offer().unwrap();
    let root = Certificate::read_one(&tpm.file("ca/swtpm-localca-rootca-cert.pem")).unwrap();
    let authorities = [Certificate::read_one(&tpm.file("ca/issuer.pem")).unwrap(), root.clone()];
    let now_s = u64::try_from(root.not_before_s()).unwrap() + 3600;
    let (_, certificate) = offer.certificates.keys.iter().find(|(of, _)| *of == kind).expect("a certificate");
    let certificate = EkCertificate::parse(certificate).unwrap();
    let certificate = ek::verify(&certificate, &ek::Context { authorities: &authorities, crls: &[], now_s });
    let certificate = certificate.verified.unwrap_or_else(|| panic!("{:#?}", certificate.checks));
    let (ek, ak) = (Public::parse(&offer.ek_public).unwrap(), Public::parse(&offer.ak_public).unwrap());
    let randomness = Randomness { seed: random().into(), ephemeral: random().into() };
    let made = challenge(&certificate, &ek, &ak, secret, randomness).unwrap();
    made.credential.unwrap_or_else(|| panic!("{:#?}", made.checks))
}

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

fn quotes(device: &mut Tpm, ak: &Ak, what: &str) {
    let raw = device.quote(ak, b"nonce", &PCRS).unwrap();
    let pcrs = device.read_pcrs(&PCRS).unwrap();
    let quote = Quote::parse(&raw.attest, &raw.signature).unwrap();
    let key = AttestationKey::parse(&ak.to_tpm2b()).unwrap();
    let parent = ak.parent(device.ek());
    let verification = verify(&quote, &Context { nonce: b"nonce", ak: &key, parent, pcrs: Some(&pcrs), maker: None });
    assert!(verification.verified.is_some(), "{what}: {:#?}", verification.checks);
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

fn failed(checks: &starminer_hardware::Checks) -> Vec<String> {
    let failed = checks.as_slice().iter().filter(|check| check.verdict == starminer_hardware::Verdict::Fail);
    failed.map(|check| check.name.to_string()).collect()
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
    assert!(matches!(device.define_counter(0x01c0_0002, &authorization), Err(TpmError::Argument(_))));
    device.define_counter(COUNTER, &authorization).unwrap();
    let again = device.define_counter(COUNTER, &authorization).unwrap_err();
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
    device.define_counter(COUNTER, &authorization).unwrap();
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
    for pcrs in [vec![], vec![PcrSelection { bank: HashAlg::Sha256, bits: 0 }], vec![PcrSelection { bank: HashAlg::Sha512, bits: 1 }]] {
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
    device.define_counter(COUNTER, &counter).unwrap();
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
fn who_sits_between_learns_nothing() {
    let Some(tpm) = Swtpm::start() else { return };
    let way = Interposer::reader(&tpm.socket());
    let attester = TpmAttester::open(attester_settings(&way.socket, EkKind::Rsa2048)).unwrap();
    let secret = random();
    let credential = admit(&tpm, &attester, EkKind::Rsa2048, &secret);
    assert_eq!(attester.activate(&credential).unwrap()[..], secret);
    let root = random();
    let evidence = attester.quote(&root).unwrap();
    verified(&attester, &evidence, &root);
    assert!(way.saw(&credential.credential_blob), "what is not secret passes");
    assert!(way.saw(attester.ak().name().get(2..10).unwrap()) || way.saw(&evidence.ak_public), "so do public keys");
    assert!(!way.saw(&secret), "the credential's secret passed in the clear");
    assert!(!way.saw(&root), "the batch's root passed in the clear");
    assert!(!way.saw(&evidence.quote[..16]) && !way.saw(&evidence.quote), "the quote passed in the clear");
}

/// Alters one byte of one command or response of this code.
fn altering(tpm: &Swtpm, name: &str, what: u32, of_response: bool) -> (Interposer, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    const NOTHING: usize = usize::MAX;
    let place = Arc::new(AtomicUsize::new(NOTHING));
    let length = Arc::new(AtomicUsize::new(0));
    let alter = {
        let (place, length) = (Arc::clone(&place), Arc::clone(&length));
        move |frame: &mut Vec<u8>| {
            length.store(frame.len(), Ordering::SeqCst);
            let place = place.swap(NOTHING, Ordering::SeqCst);
            if let Some(byte) = frame.get_mut(place) {
                *byte ^= 0x04;
            }
        }
    };
    let (for_commands, for_responses) = (alter.clone(), alter);
    let way = Interposer::start(
        &tpm.socket(),
        name,
        move |command| {
            if !of_response && code(command) == what {
                for_commands(command);
            }
            Act::Pass
        },
        move |command, response| {
            if of_response && code(command) == what {
                for_responses(response);
            }
        },
    );
    (way, place, length)
}

/// Bytes that nothing depends on: the nonce of the policy session, which has no key, and its attributes.
fn unauthenticated(what: u32, of_response: bool) -> std::ops::Range<usize> {
    match (what, of_response) {
        (ACTIVATE_CREDENTIAL, false) => 101..134,
        (ACTIVATE_CREDENTIAL, true) => 119..152,
        _ => 0..0,
    }
}

#[test]
fn no_altered_byte_is_taken() {
    let Some(tpm) = Swtpm::start() else { return };
    for (name, what) in [("quote", QUOTE), ("activate", ACTIVATE_CREDENTIAL), ("increment", NV_INCREMENT), ("read", NV_READ)] {
        for of_response in [false, true] {
            let (way, place, length) = altering(&tpm, &format!("{name}-{of_response}.sock"), what, of_response);
            let deadlines = Deadlines { key: Duration::from_secs(60), other: Duration::from_millis(1500) };
            let settings = TpmSettings { deadlines, ..at(&way.socket, EkKind::Rsa2048) };
            let attester = TpmAttester::open(attester_settings(&way.socket, EkKind::Rsa2048)).unwrap();
            let secret = random();
            let credential = admit(&tpm, &attester, EkKind::Rsa2048, &secret);
            drop(attester);
            let counter = Authorization::new(b"counter");
            let open = || {
                let mut device = Tpm::open(settings.clone()).unwrap();
                let ak = device.create_ak(&spec(AkKind::EcdsaP256, AkPlace::Endorsement)).unwrap();
                (device, ak)
            };
            let once = |device: &mut Tpm, ak: &Ak| match what {
                QUOTE => device.quote(ak, &[0x3c; 32], &PCRS).map(|_| ()),
                ACTIVATE_CREDENTIAL => device.activate(ak, &credential).map(|got| assert_eq!(got[..], secret)),
                _ => device.increment_counter(COUNTER, &counter).map(|_| ()),
            };
            let (mut device, mut ak) = open();
            // There from the turn before, or not yet.
            let _ = device.undefine_counter(COUNTER);
            device.define_counter(COUNTER, &counter).unwrap();
            once(&mut device, &ak).unwrap();
            let bytes = length.load(Ordering::SeqCst);
            assert!(bytes > 60, "{name} has {bytes} bytes");
            // All of the frame but its size: a longer one makes both sides wait for the deadline.
            for at in (0..bytes).filter(|at| !(2..6).contains(at)) {
                place.store(at, Ordering::SeqCst);
                let result = once(&mut device, &ak);
                if unauthenticated(what, of_response).contains(&at) {
                    // `once` has compared what came of it.
                    result.unwrap();
                } else {
                    assert!(result.is_err(), "{name}, response {of_response}: byte {at} was altered and taken");
                }
                assert_eq!(place.load(Ordering::SeqCst), usize::MAX, "nothing was altered");
                // A forged error leaves the session out of step: anew, so that the next refusal is about the next byte.
                drop(device);
                (device, ak) = open();
            }
            once(&mut device, &ak).unwrap();
        }
    }
}

#[test]
fn nothing_is_taken_twice() {
    let Some(tpm) = Swtpm::start() else { return };
    // The response to the first quote, for each quote after it.
    let kept = Arc::new(Mutex::new(None::<Vec<u8>>));
    let replay = {
        let kept = Arc::clone(&kept);
        move |command: &[u8], response: &mut Vec<u8>| {
            if code(command) == QUOTE {
                *response = kept.lock().unwrap().get_or_insert_with(|| response.clone()).clone();
            }
        }
    };
    let way = Interposer::start(&tpm.socket(), "replay.sock", |_| Act::Pass, replay);
    let attester = TpmAttester::open(attester_settings(&way.socket, EkKind::P256)).unwrap();
    attester.quote(&[1; 32]).unwrap();
    for _ in 0..2 {
        let refused = attester.quote(&[1; 32]).unwrap_err();
        assert!(matches!(refused, TpmError::Altered { .. }), "{refused}");
    }
    drop(attester);

    // A command of which the TPM is said to have been too busy, although it ran it.
    let way = Interposer::start(&tpm.socket(), "retry.sock", |_| Act::Pass, |command, response| {
        if code(command) == NV_INCREMENT {
            *response = refusal(0x922);
        }
    });
    let authorization = Authorization::new(b"counter");
    let mut device = Tpm::open(at(&tpm.socket(), EkKind::P256)).unwrap();
    device.define_counter(COUNTER, &authorization).unwrap();
    let before = device.increment_counter(COUNTER, &authorization).unwrap();
    drop(device);
    let mut settings = at(&way.socket, EkKind::P256);
    settings.deadlines.other = Duration::from_secs(2);
    let mut device = Tpm::open(settings).unwrap();
    assert!(device.increment_counter(COUNTER, &authorization).is_err());
    drop(device);
    let mut device = Tpm::open(at(&tpm.socket(), EkKind::P256)).unwrap();
    assert_eq!(device.read_counter(COUNTER, &authorization).unwrap(), before + 1, "counted more than once");
}

#[test]
fn forged_errors_only_delay() {
    let Some(tpm) = Swtpm::start() else { return };
    let forge = Arc::new(AtomicU32::new(0));
    let code_to_forge = Arc::clone(&forge);
    let way = Interposer::start(
        &tpm.socket(),
        "forge.sock",
        |_| Act::Pass,
        move |command, response| {
            let forged = if code(command) == QUOTE { code_to_forge.swap(0, Ordering::SeqCst) } else { 0 };
            if forged != 0 {
                *response = refusal(forged);
            }
        },
    );
    let attester = TpmAttester::open(attester_settings(&way.socket, EkKind::P256)).unwrap();
    // TPM_RC_FAILURE, TPM_RC_LOCKOUT, one of no meaning: told, and the next quote is good although the session is out of step.
    for forged in [0x101, 0x921, 0x0400_0000] {
        forge.store(forged, Ordering::SeqCst);
        let refused = attester.quote(&[1; 32]).unwrap_err();
        assert_eq!(refused.code(), "tpm.device.refused", "{refused}");
        verified(&attester, &attester.quote(&[2; 32]).unwrap(), &[2; 32]);
    }
}

#[test]
fn retries_are_bounded() {
    let Some(tpm) = Swtpm::start() else { return };
    let busy = Arc::new(AtomicU32::new(0));
    let left = Arc::clone(&busy);
    let answer = move |command: &mut Vec<u8>| {
        let again = code(command) == QUOTE
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if again { Act::Answer(refusal([0x922, 0x908, 0x90a][command.len() % 3])) } else { Act::Pass }
    };
    let way = Interposer::start(&tpm.socket(), "busy.sock", answer, |_, _| {});
    let attester = TpmAttester::open(attester_settings(&way.socket, EkKind::P256)).unwrap();
    busy.store(3, Ordering::SeqCst);
    attester.quote(&[1; 32]).unwrap();
    busy.store(u32::MAX, Ordering::SeqCst);
    let refused = attester.quote(&[1; 32]).unwrap_err();
    assert!(matches!(refused.refusal(), Some(TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing)), "{refused}");
    assert!(u32::MAX - busy.load(Ordering::SeqCst) <= 16, "asked too often");
    busy.store(0, Ordering::SeqCst);
    attester.quote(&[1; 32]).unwrap();
}

#[test]
fn another_tpm_is_refused() {
    let (Some(tpm), Some(other)) = (Swtpm::start(), Swtpm::start()) else { return };
    let known = Tpm::open(at(&tpm.socket(), EkKind::P256)).unwrap().ek_name().to_vec();
    let settings = |tpm: &Swtpm| TpmSettings { known_ek: KnownEk::Name(known.clone()), ..at(&tpm.socket(), EkKind::P256) };
    assert_eq!(Tpm::open(settings(&tpm)).unwrap().ek_name(), known);
    assert!(matches!(Tpm::open(settings(&other)).unwrap_err(), TpmError::OtherEndorsementKey));
    assert_eq!(other.left_behind(), "");
}

#[test]
fn a_tpm_that_dies_or_hangs() {
    let Some(mut tpm) = Swtpm::start() else { return };
    // In the middle of the next quote: 1 kills the TPM, 2 hangs up, 3 says nothing.
    let fate = Arc::new(AtomicU32::new(0));
    let (decided, pid) = (Arc::clone(&fate), tpm.id().to_string());
    let act = move |command: &mut Vec<u8>| match if code(command) == QUOTE { decided.swap(0, Ordering::SeqCst) } else { 0 } {
        1 => {
            assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            Act::Pass
        }
        2 => Act::HangUp,
        3 => Act::Silence,
        _ => Act::Pass,
    };
    let way = Interposer::start(&tpm.socket(), "fate.sock", act, |_, _| {});
    let mut settings = attester_settings(&way.socket, EkKind::P256);
    settings.tpm.deadlines.other = Duration::from_secs(3);
    let attester = TpmAttester::open(settings).unwrap();
    let first = verified(&attester, &attester.quote(&[1; 32]).unwrap(), &[1; 32]);
    fate.store(3, Ordering::SeqCst);
    let start = Instant::now();
    let silent = attester.quote(&[2; 32]).unwrap_err();
    assert!(matches!(silent, TpmError::Deadline { .. }), "{silent}");
    assert!(start.elapsed() >= Duration::from_secs(3), "it did not wait");
    // The next call opens it anew, and what was left in it goes.
    attester.quote(&[2; 32]).unwrap();
    fate.store(2, Ordering::SeqCst);
    attester.quote(&[3; 32]).unwrap();
    fate.store(1, Ordering::SeqCst);
    let dead = attester.quote(&[4; 32]).unwrap_err();
    assert!(matches!(dead, TpmError::Connection(_) | TpmError::Absent { .. }), "{dead}");
    let still = attester.quote(&[4; 32]).unwrap_err();
    assert!(matches!(still, TpmError::Connection(_) | TpmError::Absent { .. }), "{still}");
    tpm.reset();
    let after = verified(&attester, &attester.quote(&[5; 32]).unwrap(), &[5; 32]);
    assert!(failed(&continuity(&first, &after, &[])).contains(&"tpm.reset-count".to_owned()));
    drop(attester);
    assert_eq!(tpm.left_behind(), "");
}

#[test]
fn what_the_last_user_left_goes() {
    let Some(tpm) = Swtpm::start() else { return };
    // A process that was killed: connected, a key and a session in the TPM, and gone.
    let gone = Arc::new(AtomicU32::new(0));
    let hang_up = Arc::clone(&gone);
    let act = move |command: &mut Vec<u8>| {
        if code(command) == QUOTE && hang_up.swap(0, Ordering::SeqCst) == 1 { Act::HangUp } else { Act::Pass }
    };
    let way = Interposer::start(&tpm.socket(), "gone.sock", act, |_, _| {});
    let mut device = Tpm::open(at(&way.socket, EkKind::P256)).unwrap();
    let ak = device.create_ak(&spec(AkKind::EcdsaP256, AkPlace::Endorsement)).unwrap();
    gone.store(1, Ordering::SeqCst);
    assert!(device.quote(&ak, b"x", &PCRS).is_err());
    drop(device);
    assert_ne!(tpm.left_behind(), "", "the test leaves nothing to clean");
    drop(Tpm::open(at(&tpm.socket(), EkKind::P256)).unwrap());
    assert_eq!(tpm.left_behind(), "");
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
