//! Sealed secrets: who gets them back, and who does not.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use starminer_attester::tpm::{
    Authorization, CounterReaders, EkKind, MadeUnder, PolicyStep, SECRET_BYTES_MAX, Sealed, Tpm, TpmError,
};
use starminer_hardware::tpm::{
    HashAlg, PcrSelection,
    approval::{ApprovalKey, ApprovalSigner, policy_of_register},
};
use tpm2_protocol::data::TpmRcBase;

use crate::{COUNTER, at, emulator::Swtpm, interposer::Interposer, random};

/// Of the machine: firmware and Secure Boot. And of the image.
const MACHINE: PcrSelection = PcrSelection { bank: HashAlg::Sha256, bits: 1 | 1 << 7 };
const IMAGE: PcrSelection = PcrSelection { bank: HashAlg::Sha256, bits: 1 << 11 };
const STRICT: PcrSelection = PcrSelection { bank: HashAlg::Sha256, bits: MACHINE.bits | IMAGE.bits };

fn open(tpm: &Swtpm) -> Tpm {
    Tpm::open(at(&tpm.socket(), EkKind::P256)).unwrap()
}

fn extend(tpm: &Swtpm, register: u8, with: u8) {
    tpm.run(&format!("tpm2_pcrextend {register}:sha256={}", format!("{with:02x}").repeat(32)));
}

#[track_caller]
fn refused(device: &mut Tpm, sealed: &Sealed, policy: &[PolicyStep<'_>], with: TpmRcBase) {
    let error = device.unseal(sealed, policy).map(|_| ()).unwrap_err();
    assert_eq!(error.refusal(), Some(with), "{error}");
}

#[test]
fn registers_as_they_were_give_a_secret_back_to_the_same_tpm() {
    let (Some(mut tpm), Some(elsewhere)) = (Swtpm::start(), Swtpm::start()) else { return };
    extend(&tpm, 11, 1);
    let secret: [u8; 64] = random();
    let policy = [PolicyStep::Registers(STRICT)];
    let way = Interposer::reader(&tpm.socket());
    let mut device = Tpm::open(at(&way.socket, EkKind::P256)).unwrap();
    let sealed = device.seal(&secret, &policy, STRICT).unwrap();
    assert_eq!(device.unseal(&sealed, &policy).unwrap()[..], secret);
    let values = device.read_pcrs(&[STRICT]).unwrap();
    let all: Vec<u8> = values.iter().flat_map(|(_, _, value)| value.to_vec()).collect();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &all).as_ref().try_into().unwrap();
    let made = MadeUnder { registers: STRICT, digest };
    assert_eq!(device.made_under(&sealed).unwrap(), made);
    // The TPM knows of which object creation data are.
    let other = device.seal(&secret, &policy, MACHINE).unwrap();
    assert_ne!(device.made_under(&other).unwrap(), made);
    let mixed = Sealed { creation: sealed.creation.clone(), ticket: sealed.ticket.clone(), ..other };
    assert_eq!(device.made_under(&mixed).unwrap_err().refusal(), Some(TpmRcBase::Ticket));
    assert!(way.saw(&sealed.private), "what is not secret passes");
    assert!(!way.saw(&secret), "the secret passed in the clear");
    for length in [0, SECRET_BYTES_MAX + 1] {
        assert!(matches!(device.seal(&vec![1; length], &policy, STRICT), Err(TpmError::Argument(_))));
    }
    drop(device);

    // After a new start with the same measurements, and not before them nor with more.
    tpm.reset();
    refused(&mut open(&tpm), &sealed, &policy, TpmRcBase::PolicyFail);
    extend(&tpm, 11, 1);
    assert_eq!(open(&tpm).unseal(&sealed, &policy).unwrap()[..], secret);
    refused(&mut open(&tpm), &sealed, &[PolicyStep::Registers(MACHINE)], TpmRcBase::PolicyFail);
    refused(&mut open(&tpm), &sealed, &[], TpmRcBase::PolicyFail);
    extend(&tpm, 7, 1);
    refused(&mut open(&tpm), &sealed, &policy, TpmRcBase::PolicyFail);

    extend(&elsewhere, 11, 1);
    refused(&mut open(&elsewhere), &sealed, &policy, TpmRcBase::Integrity);
    assert_eq!(tpm.left_behind() + &elsewhere.left_behind(), "");
}

#[test]
fn altered_secrets_are_none() {
    let Some(tpm) = Swtpm::start() else { return };
    let policy = [PolicyStep::Registers(STRICT)];
    let mut device = open(&tpm);
    let sealed = device.seal(&[5; 64], &policy, STRICT).unwrap();
    // The policy stands in the public half, which the private half is bound to.
    for at in 0..sealed.public.len() {
        let mut altered = sealed.clone();
        altered.public[at] ^= 1;
        assert!(device.unseal(&altered, &policy).is_err(), "byte {at} of the public half");
    }
    for at in [0, sealed.private.len() / 2, sealed.private.len() - 1] {
        let mut altered = sealed.clone();
        altered.private[at] ^= 1;
        assert!(device.unseal(&altered, &policy).is_err(), "byte {at} of the private half");
    }
    assert_eq!(device.unseal(&sealed, &policy).unwrap()[..], [5; 64]);
    drop(device);
    assert_eq!(tpm.left_behind(), "");
}

fn signer() -> ApprovalSigner {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    ApprovalSigner::from_pkcs8(key.to_pkcs8v1().unwrap().as_ref()).unwrap()
}

/// What an image with this value in register 11 asks with.
fn asked<'a>(key: &'a ApprovalKey, reference: [u8; 32], signature: [u8; 64]) -> [PolicyStep<'a>; 3] {
    [PolicyStep::Registers(IMAGE), PolicyStep::Approved { key, reference, signature }, PolicyStep::Registers(MACHINE)]
}

#[test]
fn a_maker_approves_successors_and_nobody_else_does() {
    let Some(mut tpm) = Swtpm::start() else { return };
    let (maker, other) = (signer(), signer());
    let (key, other_key) = (maker.key(), other.key());
    assert_eq!(ApprovalKey::from_spki(&key.to_spki()).as_ref(), Some(&key));
    assert!(ApprovalKey::from_spki(&key.to_spki()[1..]).is_none());
    // Register 11 after one measurement, by arithmetic of our own.
    let after = |with: u8| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[[0; 32], [with; 32]].concat());
        policy_of_register(11, digest.as_ref().try_into().unwrap())
    };
    let (first, second, third) = (after(1), after(2), after(3));
    let approval = maker.approve(&first, &[1; 32]).unwrap();
    assert!(key.approves(&first, &[1; 32], &approval));
    assert!(!key.approves(&first, &[2; 32], &approval) && !key.approves(&second, &[1; 32], &approval));

    extend(&tpm, 11, 1);
    let secret: [u8; 64] = random();
    let mut device = open(&tpm);
    // Without an approval of what runs, nothing is sealed that nobody could open.
    let unapproved = asked(&key, [1; 32], maker.approve(&second, &[1; 32]).unwrap());
    assert_eq!(device.seal(&secret, &unapproved, STRICT).unwrap_err().refusal(), Some(TpmRcBase::Signature));
    let sealed = device.seal(&secret, &asked(&key, [1; 32], approval), STRICT).unwrap();
    assert_eq!(device.unseal(&sealed, &asked(&key, [1; 32], approval)).unwrap()[..], secret);
    drop(device);

    tpm.reset();
    extend(&tpm, 11, 2);
    let mut device = open(&tpm);
    for (what, steps, with) in [
        ("the first one's approval", asked(&key, [1; 32], approval), TpmRcBase::Signature),
        ("for something else", asked(&key, [2; 32], maker.approve(&second, &[2; 32]).unwrap()), TpmRcBase::PolicyFail),
        (
            "another maker's",
            asked(&other_key, [1; 32], other.approve(&second, &[1; 32]).unwrap()),
            TpmRcBase::PolicyFail,
        ),
        (
            "another maker's under this one's name",
            asked(&key, [1; 32], other.approve(&second, &[1; 32]).unwrap()),
            TpmRcBase::Signature,
        ),
        ("of another image", asked(&key, [1; 32], maker.approve(&third, &[1; 32]).unwrap()), TpmRcBase::Signature),
    ] {
        println!("{what}");
        refused(&mut device, &sealed, &steps, with);
    }
    let successor = asked(&key, [1; 32], maker.approve(&second, &[1; 32]).unwrap());
    assert_eq!(device.unseal(&sealed, &successor).unwrap()[..], secret);
    drop(device);
    // The machine counts all the same.
    extend(&tpm, 0, 9);
    refused(&mut open(&tpm), &sealed, &successor, TpmRcBase::PolicyFail);
    assert_eq!(tpm.left_behind(), "");
}

/// A counter that was counted up closes what was sealed before, for good: taking it away and making it anew turns nothing back.
#[test]
fn a_counter_closes_what_was_sealed_before() {
    let Some(tpm) = Swtpm::start() else { return };
    let authorization = Authorization::new(&random::<32>());
    let mut device = open(&tpm);
    let at_most = |value| [PolicyStep::Registers(STRICT), PolicyStep::CounterAtMost { index: COUNTER, value }];
    let missing = device.seal(&[6; 64], &at_most(1), STRICT).unwrap_err();
    assert!(matches!(missing, TpmError::NoCounter(COUNTER)), "{missing}");
    device.define_counter(COUNTER, &authorization, CounterReaders::Owner).unwrap();
    let value = device.increment_counter(COUNTER, &authorization).unwrap();
    // Whoever asks may read it before anything secret is known.
    assert_eq!(device.read_counter(COUNTER, &Authorization::default()).unwrap(), value);
    let sealed = device.seal(&[6; 64], &at_most(value), STRICT).unwrap();
    assert_eq!(device.unseal(&sealed, &at_most(value)).unwrap()[..], [6; 64]);
    // Asking for more than it was sealed under is another policy.
    refused(&mut device, &sealed, &at_most(value + 1), TpmRcBase::PolicyFail);
    assert!(device.increment_counter(COUNTER, &Authorization::default()).is_err(), "anybody counts it up");
    assert_eq!(device.unseal(&sealed, &at_most(value)).unwrap()[..], [6; 64]);

    assert_eq!(device.increment_counter(COUNTER, &authorization).unwrap(), value + 1);
    refused(&mut device, &sealed, &at_most(value), TpmRcBase::Policy);
    // The owner, whose authorisation anybody has, makes it anew: with the same name, and above.
    device.undefine_counter(COUNTER).unwrap();
    assert!(matches!(device.unseal(&sealed, &at_most(value)), Err(TpmError::NoCounter(COUNTER))));
    device.define_counter(COUNTER, &Authorization::default(), CounterReaders::Owner).unwrap();
    assert!(device.unseal(&sealed, &at_most(value)).is_err(), "a counter without a value");
    assert!(device.increment_counter(COUNTER, &Authorization::default()).unwrap() > value + 1);
    refused(&mut device, &sealed, &at_most(value), TpmRcBase::Policy);
    drop(device);
    assert_eq!(tpm.left_behind(), "");
}

/// Whoever clears the owner starts its counters anew, and loses what was sealed.
#[test]
fn a_cleared_owner_has_sealed_nothing() {
    let Some(tpm) = Swtpm::start() else { return };
    let policy = [PolicyStep::Registers(STRICT)];
    let sealed = open(&tpm).seal(&[7; 64], &policy, STRICT).unwrap();
    tpm.run("tpm2_clear -c lockout");
    refused(&mut open(&tpm), &sealed, &policy, TpmRcBase::Integrity);
}
