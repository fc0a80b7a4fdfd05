//! Evidence of all devices of a node, as a verifier takes it: a software TEE and a running TPM emulator, with the logs of a boot that its registers
//! show. Devices of other kinds are stand-ins that serve recorded reports: what they sign is none, and everything before it holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod boot;
#[path = "../tpm/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "../../../starminer-hardware/tests/event_log/builder.rs"]
#[allow(dead_code)]
mod log_builder;
#[path = "../recorded/mod.rs"]
mod recorded;
mod tees;
mod with_tpm;

use std::collections::BTreeSet;
use std::path::Path;

use data_encoding::BASE64;
use starminer_attester::tpm::{AkKind, Certificate, HashAlg, KnownEk, PcrIndex, TpmAddress};
use starminer_attester::{
    Attester, DeviceError, JoinedAttester, NodeTpm, NodeTpmSettings, SimulatedRoot, SoftwareTee, SoftwareTeeSettings,
    TpmLog,
};
use starminer_verify::software_tee::{ChipId, DebugMode, MemoryEncryption};
use starminer_verify::{
    AkName, Binding, BootId, Challenge, Context, Digest, Endorsements, Enrolments, Evidence, EvidenceKind, Expect,
    Expected, ExpectedPurpose, NetworkId, NodeId, Posture, PublicKey, Purpose, Refusal, SimulatedRootId, TrustAnchors,
    UnixTime, Verified, verify,
};

use crate::emulator::Swtpm;

const BOOT: BootId = BootId([3; 16]);

fn posture() -> Posture {
    Posture::unstated()
}

/// What an agent fills in for an admission.
fn binding(challenge: u8, ak_name: Option<AkName>) -> Binding {
    Binding {
        network: NetworkId([1; 32]),
        challenge: Challenge([challenge; 32]),
        purpose: Purpose::Admission,
        spec: None,
        node: NodeId(PublicKey([2; 32])),
        attempt: None,
        boot: BOOT,
        task_key: None,
        report_key: None,
        agent_key: PublicKey([4; 32]),
        tls_key: PublicKey([5; 32]),
        ak_name,
        posture: posture().digest(),
        subject: None,
    }
}

/// One piece of evidence.
fn attest(attester: &JoinedAttester) -> Vec<u8> {
    attester.attest(&[binding(7, attester.ak_name())], &posture()).unwrap().remove(0)
}

/// What a verifier makes of it that trusts these roots.
fn verified(evidence: &[u8], challenge: u8, now: UnixTime, roots: &[SimulatedRootId]) -> Result<Verified, Refusal> {
    let expected = Expected {
        network: NetworkId([1; 32]),
        challenge: Challenge([challenge; 32]),
        challenge_issued_at: now,
        purpose: ExpectedPurpose::Admission,
        node: NodeId(PublicKey([2; 32])),
        boot: Expect::Exactly(BOOT),
        task_key: Expect::Any,
        report_key: Expect::Any,
        agent_key: Expect::Any,
        tls_key: Expect::Any,
        posture: Expect::Any,
    };
    let anchors = TrustAnchors::makers().with_simulated_roots(roots.iter().copied()).unwrap();
    let endorsements = Endorsements::none();
    let enrolments = Enrolments::none();
    let context =
        Context { expected, endorsements: &endorsements, trust_anchors: &anchors, enrolments: &enrolments, now };
    verify(Evidence::parse(evidence).unwrap(), &context)
}

/// The parts as they stand in evidence.
fn parts(evidence: &[u8]) -> Vec<(String, Vec<u8>)> {
    let json: serde_json::Value = serde_json::from_slice(evidence).unwrap();
    let part = |part: &serde_json::Value| {
        let report = BASE64.decode(part["report"].as_str().unwrap().as_bytes()).unwrap();
        (part["kind"].as_str().unwrap().to_owned(), report)
    };
    json["parts"].as_array().unwrap().iter().map(part).collect()
}

fn kinds(evidence: &[u8]) -> Vec<String> {
    parts(evidence).into_iter().map(|(kind, _)| kind).collect()
}

/// Codes of what the last batch was made without.
fn notes(attester: &JoinedAttester) -> Vec<(EvidenceKind, &'static str)> {
    attester.notes().iter().map(|note| (note.kind, note.code)).collect()
}

fn software(root: &SimulatedRoot) -> SoftwareTee {
    let request = SoftwareTee::request(&[2; 32], ChipId([3; 32]));
    let certificate = root.certify(&request, UnixTime(0), UnixTime(u64::MAX)).unwrap();
    let settings = SoftwareTeeSettings {
        boot: BOOT,
        measurement: Digest([9; 32]),
        debug: DebugMode::Off,
        memory_encryption: MemoryEncryption::Claimed,
        tcb_version: 1,
    };
    SoftwareTee::new(&[2; 32], certificate, settings).unwrap()
}

/// The authorities of an emulator's certificates, root last, as files have them.
fn authorities(tpm: &Swtpm) -> Vec<Certificate> {
    ["ca/issuer.pem", "ca/swtpm-localca-rootca-cert.pem"]
        .into_iter()
        .flat_map(|name| Certificate::read(&tpm.file(name)).unwrap())
        .collect()
}

fn tpm_root(tpm: &Swtpm) -> SimulatedRootId {
    SimulatedRootId::Tpm(Digest(authorities(tpm).last().unwrap().fingerprint()))
}

/// When those certificates are valid.
fn now(tpm: &Swtpm) -> UnixTime {
    let from_s = authorities(tpm).iter().map(Certificate::not_before_s).max().unwrap();
    UnixTime((u64::try_from(from_s).unwrap() + 3600) * 1000)
}

fn settings(tpm: &Swtpm) -> NodeTpmSettings {
    NodeTpmSettings {
        address: TpmAddress::Unix(tpm.socket()),
        ek: None,
        known_ek: KnownEk::FirstUse,
        ak: AkKind::EcdsaP256,
        label: [7; 32],
        bank: HashAlg::Sha256,
        pcrs: with_ima(),
        certificates: authorities(tpm),
        logs: BTreeSet::from([TpmLog::Uefi, TpmLog::Ima]),
    }
}

fn with_ima() -> BTreeSet<PcrIndex> {
    NodeTpmSettings::default_pcrs().into_iter().chain([NodeTpmSettings::ima_pcr()]).collect()
}

fn joined(tee: Option<SoftwareTee>, settings: &NodeTpmSettings, root: &Path) -> Result<JoinedAttester, DeviceError> {
    JoinedAttester::new(BOOT, tee.map(Into::into), Some(NodeTpm::open(settings)?), root)
}
