//! The software TEE end to end: certified, saved, loaded, asked for a batch of evidence that the verifier accepts.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use starminer_attester::{
    AttestError, Attester, CertifyError, KeyFileError, MAX_ATTEST_BATCH, MAX_KEY_FILE_BYTES, SELF_EXECUTABLE,
    SimulatedRoot, SoftwareTee, SoftwareTeeSettings, measure_executable,
};
use starminer_verify::software_tee::{ChipId, DebugMode, MemoryEncryption};
use starminer_verify::{
    Attempt, Binding, BootId, BuildEvidenceError, Challenge, Context, Decision, Digest, Endorsements, Enrolments,
    Evidence, EvidenceKind, Expect, Expected, ExpectedPurpose, NetworkId, NodeId, Policy, Posture, PostureItem,
    PostureState, PublicKey, Purpose, ReferenceValue, ReferenceValues, SandboxMeasure, Suite, TaskKey, Tier,
    TrustAnchors, UnixTime, X_WING_PUBLIC_KEY_LEN, appraise, verify,
};

const NOW: UnixTime = UnixTime(1_780_000_000_000);
const BOOT: BootId = BootId([0x0b; 16]);

fn root() -> SimulatedRoot {
    SimulatedRoot::generate(&[1; 32])
}

fn settings() -> SoftwareTeeSettings {
    SoftwareTeeSettings {
        boot: BOOT,
        measurement: measure_executable(SELF_EXECUTABLE).unwrap(),
        debug: DebugMode::Off,
        memory_encryption: MemoryEncryption::Claimed,
        tcb_version: 1,
    }
}

fn device() -> SoftwareTee {
    let request = SoftwareTee::request(&[2; 32], ChipId([3; 32]));
    let until = UnixTime(NOW.0 + 1000);
    SoftwareTee::new(&[2; 32], root().certify(&request, NOW, until).unwrap(), settings()).unwrap()
}

fn posture() -> Posture {
    let sandbox = Policy::confidential().fields().minimum_posture.sandbox.clone();
    let in_force = |name: SandboxMeasure| PostureItem::new(name, PostureState::InForce, "");
    Posture::new(sandbox.into_iter().map(in_force).collect(), vec![]).unwrap()
}

fn binding(attempt: u32) -> Binding {
    Binding {
        network: NetworkId([4; 32]),
        challenge: Challenge([5; 32]),
        purpose: Purpose::Task,
        spec: Some(Digest([6; 32])),
        node: NodeId(PublicKey([7; 32])),
        attempt: Some(Attempt(attempt)),
        boot: BOOT,
        task_key: TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, &[8; X_WING_PUBLIC_KEY_LEN]),
        report_key: Some(PublicKey([9; 32])),
        agent_key: PublicKey([10; 32]),
        tls_key: PublicKey([11; 32]),
        ak_name: None,
        posture: posture().digest(),
        subject: None,
    }
}

fn expected(attempt: u32) -> Expected {
    Expected {
        network: NetworkId([4; 32]),
        challenge: Challenge([5; 32]),
        challenge_issued_at: NOW,
        purpose: ExpectedPurpose::Task { spec: Digest([6; 32]), attempt: Attempt(attempt) },
        node: NodeId(PublicKey([7; 32])),
        boot: Expect::Any,
        task_key: Expect::Any,
        report_key: Expect::Any,
        agent_key: Expect::Any,
        tls_key: Expect::Any,
        posture: Expect::Any,
    }
}

/// Tier and decision of evidence as a verifier sees it that trusts this test's executable and root.
fn judge(evidence: &[u8], attempt: u32) -> (Tier, Decision) {
    let anchors = TrustAnchors::makers().with_simulated_roots([root().id()]).unwrap();
    let endorsements = Endorsements::none();
    let context = Context {
        expected: expected(attempt),
        endorsements: &endorsements,
        trust_anchors: &anchors,
        enrolments: &Enrolments::none(),
        now: NOW,
    };
    let verified = verify(Evidence::parse(evidence).unwrap(), &context).unwrap();
    let reference_values = ReferenceValues::new(vec![ReferenceValue {
        kind: EvidenceKind::SoftwareTee,
        measurement: measure_executable(std::env::current_exe().unwrap()).unwrap().into(),
        name: "this test".into(),
    }])
    .unwrap();
    let mut fields = Policy::confidential().fields().clone();
    fields.accepted_simulated_roots = vec![root().id()];
    let result = appraise(&verified, &reference_values, &Policy::new(fields).unwrap());
    (result.tier(), result.decision())
}

#[test]
fn each_evidence_of_a_batch_is_accepted_for_its_attempt_and_no_other() {
    for size in [1u32, 2, 5, 64] {
        let bindings: Vec<Binding> = (1..=size).map(binding).collect();
        let batch = device().attest(&bindings, &posture()).unwrap();
        assert_eq!(batch.len(), bindings.len());
        for (evidence, attempt) in batch.iter().zip(1..) {
            assert_eq!(judge(evidence, attempt), (Tier::Confidential, Decision::Meets), "{attempt} of {size}");
        }
        if let [first, .., _] = batch.as_slice() {
            let anchors = TrustAnchors::makers().with_simulated_roots([root().id()]).unwrap();
            let endorsements = Endorsements::none();
            let context = Context {
                expected: expected(2),
                endorsements: &endorsements,
                trust_anchors: &anchors,
                enrolments: &Enrolments::none(),
                now: NOW,
            };
            let refusal = verify(Evidence::parse(first).unwrap(), &context).unwrap_err();
            assert_eq!(refusal.check(), "evidence.attempt");
        }
    }
}

#[test]
fn a_batch_that_cannot_be_signed_is_refused() {
    let device = device();
    assert!(matches!(device.attest(&[], &posture()), Err(AttestError::EmptyBatch)));
    let many = vec![binding(1); MAX_ATTEST_BATCH + 1];
    assert!(matches!(device.attest(&many, &posture()), Err(AttestError::BatchTooLarge)));
    let mut other_boot = binding(1);
    other_boot.boot = BootId([9; 16]);
    assert!(matches!(device.attest(&[other_boot], &posture()), Err(AttestError::Boot)));
    let other_posture = device.attest(&[binding(1)], &Posture::unstated());
    assert!(matches!(other_posture, Err(AttestError::Build(BuildEvidenceError::Posture))));
    let mut shapeless = binding(1);
    shapeless.spec = None;
    assert!(matches!(device.attest(&[shapeless], &posture()), Err(AttestError::Build(BuildEvidenceError::Shape(_)))));
}

#[test]
fn certificates_belong_to_one_device_and_end_after_they_begin() {
    let request = SoftwareTee::request(&[2; 32], ChipId([3; 32]));
    assert_eq!(root().certify(&request, NOW, NOW).unwrap_err(), CertifyError::Dates);
    let certificate = root().certify(&request, NOW, UnixTime(NOW.0 + 1)).unwrap();
    assert_eq!(SoftwareTee::new(&[99; 32], certificate, settings()).unwrap_err(), CertifyError::OtherDevice);
}

#[test]
fn what_is_saved_is_loaded_and_only_its_owner_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let root_path = folder.path().join("root.json");
    let device_path = folder.path().join("device.json");
    root().save(&root_path).unwrap();
    device().save(&device_path).unwrap();
    for path in [&root_path, &device_path] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    assert_eq!(SimulatedRoot::load(&root_path).unwrap().id(), root().id());
    let loaded = SoftwareTee::load(&device_path, settings()).unwrap();
    assert_eq!(loaded.certificate(), device().certificate());
    assert_eq!(loaded.root(), root().id());
    let evidence = loaded.attest(&[binding(1)], &posture()).unwrap();
    assert_eq!(evidence, device().attest(&[binding(1)], &posture()).unwrap());
    assert_eq!(judge(&evidence[0], 1), (Tier::Confidential, Decision::Meets));

    assert_eq!(root().save(&root_path).unwrap_err().code(), "key-file.exists");
    let text = format!("{:?} {:?}", root(), device());
    assert!(!text.contains(&"01".repeat(32)) && !text.contains(&"02".repeat(32)), "no seed is ever printed");
}

#[track_caller]
fn check_load(code: &str, path: &Path) {
    assert_eq!(SimulatedRoot::load(path).unwrap_err().code(), code);
    assert_eq!(SoftwareTee::load(path, settings()).unwrap_err().code(), code);
}

#[test]
fn key_files_that_others_can_touch_or_that_are_not_key_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    root().save(&path).unwrap();
    for mode in [0o640, 0o604, 0o660, 0o602, 0o610, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        check_load("key-file.permissions", &path);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    check_load("key-file.io", &link);
    check_load("key-file.io", &folder.path().join("nothing"));
    check_load("key-file.not-a-file", folder.path());
    assert!(matches!(root().save(&link), Err(KeyFileError::Exists)), "no link is written through");

    // A root's file is no device's, nor the reverse.
    assert_eq!(SoftwareTee::load(&path, settings()).unwrap_err().code(), "key-file.malformed");
    let device_path = folder.path().join("device.json");
    device().save(&device_path).unwrap();
    assert_eq!(SimulatedRoot::load(&device_path).unwrap_err().code(), "key-file.malformed");

    let text = fs::read_to_string(&path).unwrap();
    let seed = "01".repeat(32);
    for (i, contents) in [
        String::new(),
        text.replace(&seed, &seed[2..]),
        text.replace(&seed, &seed.to_uppercase().replace('1', "A")),
        text.replace("/v1", "/v2"),
        text.replacen('{', r#"{"extra":1,"#, 1),
        text.clone() + &text,
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(format!("malformed-{i}"));
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        check_load("key-file.malformed", &path);
    }
    let long = folder.path().join("long");
    fs::write(&long, vec![b' '; MAX_KEY_FILE_BYTES + 1]).unwrap();
    fs::set_permissions(&long, fs::Permissions::from_mode(0o600)).unwrap();
    check_load("key-file.too-long", &long);
}

#[test]
fn an_executable_is_measured_as_sha_256_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    for bytes in [vec![], vec![1; 10], vec![2; 64 * 1024], vec![3; 200_001]] {
        fs::write(&path, &bytes).unwrap();
        assert_eq!(measure_executable(&path).unwrap(), Digest::of(&bytes));
    }
    assert!(measure_executable(folder.path()).is_err());
    assert!(measure_executable(folder.path().join("nothing")).is_err());
    let myself = std::env::current_exe().unwrap();
    assert_eq!(measure_executable(SELF_EXECUTABLE).unwrap(), measure_executable(myself).unwrap());
}
