//! The TPM as a device, against running emulators: no stand-in for a TPM anywhere. Skipped, with a printed word, where
//! swtpm is not installed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod between;
mod emulator;
mod interposer;
mod operations;
mod seal;

use std::path::Path;

use starminer_attester::tpm::{
    Ak, AkKind, AkPlace, AkSpec, EkKind, Tpm, TpmAddress, TpmAttester, TpmAttesterSettings, TpmEvidence, TpmOffer,
    TpmSettings,
};
use starminer_hardware::{
    cert::Certificate,
    tpm::{
        AttestationKey, Context, HashAlg, PcrSelection, Public, Quote, Verified,
        credential::{Credential, Randomness},
        ek::{self, EkCertificate},
        enrolment::{SECRET_BYTES, challenge},
        verify,
    },
};

use crate::emulator::Swtpm;

const QUOTE: u32 = 0x158;
const ACTIVATE_CREDENTIAL: u32 = 0x147;
const NV_INCREMENT: u32 = 0x134;
const NV_READ: u32 = 0x14e;
const COUNTER: u32 = 0x0180_5354;

const PCRS: [PcrSelection; 2] = [
    PcrSelection { bank: HashAlg::Sha256, bits: 0x00ff_ffff },
    PcrSelection { bank: HashAlg::Sha384, bits: 0b1001_0001 },
];

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
    let context = Context { nonce: root, ak: &ak, parent: attester.parent(), pcrs: Some(&evidence.pcrs), maker: None };
    let verification = verify(&quote, &context);
    verification.verified.unwrap_or_else(|| panic!("{:#?}", verification.checks))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

/// The certificate in an offer, under the authority of this TPM's setup.
fn certified(tpm: &Swtpm, offer: &TpmOffer, kind: EkKind) -> ek::Verified {
    let root = Certificate::read_one(&tpm.file("ca/swtpm-localca-rootca-cert.pem")).unwrap();
    let authorities = [Certificate::read_one(&tpm.file("ca/issuer.pem")).unwrap(), root.clone()];
    let now_s = u64::try_from(root.not_before_s()).unwrap() + 3600;
    let (_, certificate) = offer.certificates.keys.iter().find(|(of, _)| *of == kind).expect("a certificate");
    let certificate = EkCertificate::parse(certificate).unwrap();
    let certificate = ek::verify(&certificate, &ek::Context { authorities: &authorities, crls: &[], now_s });
    certificate.verified.unwrap_or_else(|| panic!("{:#?}", certificate.checks))
}

/// What whoever admits a node does with its offer.
fn admit(tpm: &Swtpm, attester: &TpmAttester, kind: EkKind, secret: &[u8; SECRET_BYTES]) -> Credential {
    let offer = attester.offer().unwrap();
    let certificate = certified(tpm, &offer, kind);
    let (ek, ak) = (Public::parse(&offer.ek_public).unwrap(), Public::parse(&offer.ak_public).unwrap());
    let randomness = Randomness { seed: random().into(), ephemeral: random().into() };
    let made = challenge(&certificate, &ek, &ak, secret, randomness).unwrap();
    made.credential.unwrap_or_else(|| panic!("{:#?}", made.checks))
}

/// Quotes with a key, and verifies that.
fn quotes(device: &mut Tpm, ak: &Ak, what: &str) {
    let raw = device.quote(ak, b"nonce", &PCRS).unwrap();
    let pcrs = device.read_pcrs(&PCRS).unwrap();
    let quote = Quote::parse(&raw.attest, &raw.signature).unwrap();
    let key = AttestationKey::parse(&ak.to_tpm2b()).unwrap();
    let parent = ak.parent(device.ek());
    let verification = verify(&quote, &Context { nonce: b"nonce", ak: &key, parent, pcrs: Some(&pcrs), maker: None });
    assert!(verification.verified.is_some(), "{what}: {:#?}", verification.checks);
}

/// Names of checks that failed.
fn failed(checks: &starminer_hardware::Checks) -> Vec<String> {
    let failed = checks.as_slice().iter().filter(|check| check.verdict == starminer_hardware::Verdict::Fail);
    failed.map(|check| check.name.to_string()).collect()
}

/// An attester is shared between threads.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<TpmAttester>();
};
