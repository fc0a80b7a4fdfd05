//! Somebody sits between, or the TPM dies: nothing altered, replayed or forged is taken, nothing secret is read,
//! nothing is left behind.

use std::{
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use starminer_attester::tpm::{
    Ak, AkKind, AkPlace, Authorization, CounterReaders, Deadlines, EkKind, KnownEk, Tpm, TpmAttester, TpmError,
    TpmSettings,
};
use starminer_hardware::tpm::clock::continuity;
use tpm2_protocol::data::TpmRcBase;

use crate::{
    ACTIVATE_CREDENTIAL, COUNTER, NV_INCREMENT, NV_READ, PCRS, QUOTE, admit, at, attester_settings,
    emulator::Swtpm,
    failed,
    interposer::{Act, Interposer, code, refusal},
    random, spec, verified,
};

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
    assert!(way.saw(&evidence.ak_public), "so do public keys");
    assert!(!way.saw(&secret), "the credential's secret passed in the clear");
    assert!(!way.saw(&root), "the batch's root passed in the clear");
    assert!(!way.saw(&evidence.quote[..16]), "the quote passed in the clear");
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
    for (name, what) in
        [("quote", QUOTE), ("activate", ACTIVATE_CREDENTIAL), ("increment", NV_INCREMENT), ("read", NV_READ)]
    {
        for of_response in [false, true] {
            let (way, place, length) = altering(&tpm, &format!("{name}-{of_response}.sock"), what, of_response);
            let settings = at(&way.socket, EkKind::Rsa2048);
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
            device.define_counter(COUNTER, &counter, CounterReaders::Knowing).unwrap();
            once(&mut device, &ak).unwrap();
            let bytes = length.load(Ordering::SeqCst);
            assert!(bytes > 60, "{name} has {bytes} bytes");
            // All of the frame but its size: for more than there is, both sides wait until the deadline.
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
    let way = Interposer::start(
        &tpm.socket(),
        "retry.sock",
        |_| Act::Pass,
        |command, response| {
            if code(command) == NV_INCREMENT {
                *response = refusal(0x922);
            }
        },
    );
    let authorization = Authorization::new(b"counter");
    let mut device = Tpm::open(at(&tpm.socket(), EkKind::P256)).unwrap();
    device.define_counter(COUNTER, &authorization, CounterReaders::Knowing).unwrap();
    let before = device.increment_counter(COUNTER, &authorization).unwrap();
    drop(device);
    let mut device = Tpm::open(at(&way.socket, EkKind::P256)).unwrap();
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
    // TPM_RC_FAILURE, TPM_RC_LOCKOUT, one of no meaning: told, and the next quote is good although the session is out
    // of step.
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
    let settings =
        |tpm: &Swtpm| TpmSettings { known_ek: KnownEk::Name(known.clone()), ..at(&tpm.socket(), EkKind::P256) };
    assert_eq!(Tpm::open(settings(&tpm)).unwrap().ek_name(), known);
    assert!(matches!(Tpm::open(settings(&other)).unwrap_err(), TpmError::OtherEndorsementKey));
    assert_eq!(other.left_behind(), "");
}

#[test]
fn a_tpm_that_dies_or_hangs() {
    // Far more than any command takes on a machine that is busy.
    const SILENCE: Duration = Duration::from_secs(10);
    let Some(mut tpm) = Swtpm::start() else { return };
    // In the middle of the next quote: 1 kills the TPM, 2 hangs up, 3 says nothing.
    let fate = Arc::new(AtomicU32::new(0));
    let (decided, pid) = (Arc::clone(&fate), tpm.id().to_string());
    let act =
        move |command: &mut Vec<u8>| match if code(command) == QUOTE { decided.swap(0, Ordering::SeqCst) } else { 0 } {
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
    settings.tpm.deadlines = Deadlines { other: SILENCE, ..settings.tpm.deadlines };
    let attester = TpmAttester::open(settings).unwrap();
    let first = verified(&attester, &attester.quote(&[1; 32]).unwrap(), &[1; 32]);
    fate.store(3, Ordering::SeqCst);
    let start = Instant::now();
    let silent = attester.quote(&[2; 32]).unwrap_err();
    assert!(matches!(silent, TpmError::Deadline { .. }), "{silent}");
    assert!(start.elapsed() >= SILENCE, "it did not wait");
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
