//! A node with a software TEE, and the verifier that asked it for evidence. Everything is fixed, so that evidence has the same
//! bytes in every run; each test changes one thing.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use starminer_verify::software_tee::{
    ChipId, DebugMode, DeviceCertificate, MemoryEncryption, ReportBody, SIGNED_LEN, report_message,
};
use starminer_verify::{
    Attempt, AttestationResult, Batch, Binding, BootId, Challenge, Context, Digest, Endorsements, Enrolments, Evidence,
    EvidenceBuilder, EvidenceKind, Expect, Expected, ExpectedPurpose, HostMeasure, NetworkId, NodeId, PathStep, Policy,
    PolicyFields, Posture, PostureItem, PostureState, PublicKey, Purpose, ReferenceValue, ReferenceValues, Refusal,
    SandboxMeasure, SimulatedRootId, Suite, TaskKey, TrustAnchors, UnixTime, Verified, X_WING_PUBLIC_KEY_LEN, appraise,
    verify,
};

/// The time at which the verifier judges.
pub const NOW: UnixTime = UnixTime(1_780_000_000_000);
/// When it issued the challenge.
pub const ISSUED: UnixTime = UnixTime(NOW.0 - 1_500);

/// An Ed25519 key pair from a one-byte seed.
pub struct Key(Ed25519KeyPair);

impl Key {
    pub fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::from_slice(self.0.public_key().as_ref()).unwrap()
    }

    pub fn sign(&self, message: &Digest) -> [u8; 64] {
        self.sign_bytes(message.as_bytes())
    }

    #[allow(dead_code)] // the benchmark signs digests alone
    pub fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().unwrap()
    }
}

/// The attesting side.
pub struct Node {
    pub root: Key,
    pub device: Key,
    pub chip_id: ChipId,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    pub debug: DebugMode,
    pub memory_encryption: MemoryEncryption,
    pub tcb_version: u64,
    pub measurement: Digest,
    pub boot: BootId,
    pub posture: Posture,
    pub binding: Binding,
    /// Bindings that are signed along with `binding`, before it.
    pub batch_mates: Vec<Digest>,
}

pub fn posture() -> Posture {
    use SandboxMeasure as S;
    let in_force = |name| PostureItem::new(name, PostureState::InForce, "");
    let sandbox = [
        S::NoNetwork,
        S::NoNewPrivileges,
        S::Seccomp,
        S::ResourceLimits,
        S::NonDumpable,
        S::KeysLocked,
        S::CoreDumpsOff,
    ];
    let mut sandbox: Vec<_> = sandbox.into_iter().map(in_force).collect();
    sandbox.push(PostureItem::new(S::Landlock, PostureState::Absent, "kernel without Landlock"));
    let host = vec![
        PostureItem::new(HostMeasure::SwapOff, PostureState::Absent, "active swap areas: 1"),
        PostureItem::new(HostMeasure::PtraceRestricted, PostureState::NotChecked, ""),
    ];
    Posture::new(sandbox, host).unwrap()
}

pub fn task_key(seed: u8) -> TaskKey {
    TaskKey::from_bytes(Suite::XWingSha256Aes256Gcm, &[seed; X_WING_PUBLIC_KEY_LEN]).unwrap()
}

impl Node {
    pub fn for_purpose(purpose: Purpose) -> Self {
        let posture = posture();
        let of_task = matches!(purpose, Purpose::Task | Purpose::ClosingTask);
        let has_keys = purpose != Purpose::Admission;
        let boot = BootId([0x0b; 16]);
        Self {
            root: Key::new(1),
            device: Key::new(2),
            chip_id: ChipId([0xc1; 32]),
            not_before: UnixTime(NOW.0 - 1_000_000),
            not_after: UnixTime(NOW.0 + 1_000_000),
            debug: DebugMode::Off,
            memory_encryption: MemoryEncryption::Claimed,
            tcb_version: 3,
            measurement: Digest::of(b"agent 0.1"),
            boot,
            binding: Binding {
                network: NetworkId([0x11; 32]),
                challenge: Challenge([0x22; 32]),
                purpose,
                spec: of_task.then_some(Digest([0x33; 32])),
                node: NodeId(Key::new(3).public()),
                attempt: of_task.then_some(Attempt(1)),
                boot,
                task_key: has_keys.then(|| task_key(0x44)),
                report_key: has_keys.then(|| Key::new(4).public()),
                agent_key: Key::new(5).public(),
                tls_key: Key::new(6).public(),
                ak_name: None,
                posture: posture.digest(),
                subject: (purpose == Purpose::ClosingTask).then_some(Digest([0x55; 32])),
            },
            posture,
            batch_mates: Vec::new(),
        }
    }

    pub fn task() -> Self {
        Self::for_purpose(Purpose::Task)
    }

    pub fn admission() -> Self {
        Self::for_purpose(Purpose::Admission)
    }

    pub fn set_posture(&mut self, posture: Posture) {
        self.binding.posture = posture.digest();
        self.posture = posture;
    }

    pub fn root_id(&self) -> SimulatedRootId {
        SimulatedRootId::SoftwareTee(self.root.public())
    }

    pub fn certificate(&self) -> DeviceCertificate {
        let device_key = self.device.public();
        let message = DeviceCertificate::message(&self.chip_id, &device_key, self.not_before, self.not_after);
        DeviceCertificate {
            chip_id: self.chip_id,
            device_key,
            root: self.root.public(),
            not_before: self.not_before,
            not_after: self.not_after,
            signature: self.root.sign(&message),
        }
    }

    pub fn batch(&self) -> (Digest, Vec<PathStep>) {
        let mut digests = self.batch_mates.clone();
        digests.push(self.binding.digest());
        let batch = Batch::new(&digests).unwrap();
        (batch.report_data(), batch.into_paths().pop().unwrap())
    }

    pub fn report_body(&self, report_data: Digest) -> ReportBody {
        ReportBody {
            debug: self.debug,
            memory_encryption: self.memory_encryption,
            tcb_version: self.tcb_version,
            boot: self.boot,
            measurement: self.measurement,
            report_data,
            certificate: self.certificate(),
        }
    }

    /// The device signs these bytes, whatever they are.
    pub fn sign_report(&self, signed: &[u8; SIGNED_LEN]) -> Vec<u8> {
        [signed.as_slice(), &self.device.sign(&report_message(signed))].concat()
    }

    pub fn report(&self) -> Vec<u8> {
        self.sign_report(&self.report_body(self.batch().0).encode())
    }

    /// Evidence around a report that may be anything.
    pub fn evidence_with(&self, report: Vec<u8>) -> Vec<u8> {
        EvidenceBuilder::new(self.binding.clone(), self.batch().1, self.posture.clone())
            .part(EvidenceKind::SoftwareTee, report)
            .encode()
            .unwrap()
    }

    pub fn evidence(&self) -> Vec<u8> {
        self.evidence_with(self.report())
    }
}

/// The verifying side.
pub struct Verifier {
    pub expected: Expected,
    pub anchors: TrustAnchors,
    pub endorsements: Endorsements,
    pub enrolments: Enrolments,
    pub reference_values: ReferenceValues,
    pub policy: Policy,
    pub now: UnixTime,
}

impl Verifier {
    /// Expects what `node` is going to send, and trusts its simulated root in trust file and policy both.
    pub fn of(node: &Node) -> Self {
        let binding = &node.binding;
        let purpose = match binding.purpose {
            Purpose::Task => ExpectedPurpose::Task { spec: binding.spec.unwrap(), attempt: binding.attempt.unwrap() },
            Purpose::ClosingTask => ExpectedPurpose::ClosingTask {
                spec: binding.spec.unwrap(),
                attempt: binding.attempt.unwrap(),
                subject: binding.subject.unwrap(),
            },
            Purpose::Broker => ExpectedPurpose::Broker,
            Purpose::Admission => ExpectedPurpose::Admission,
        };
        Self {
            expected: Expected {
                network: binding.network,
                challenge: binding.challenge,
                challenge_issued_at: ISSUED,
                purpose,
                node: binding.node,
                boot: Expect::Any,
                task_key: Expect::Any,
                report_key: Expect::Any,
                agent_key: Expect::Any,
                tls_key: Expect::Any,
                posture: Expect::Any,
            },
            anchors: TrustAnchors::makers().with_simulated_roots([node.root_id()]).unwrap(),
            endorsements: Endorsements::none(),
            enrolments: Enrolments::none(),
            reference_values: ReferenceValues::new(vec![ReferenceValue {
                kind: EvidenceKind::SoftwareTee,
                measurement: Digest::of(b"agent 0.1").into(),
                name: "starminer-agent 0.1".into(),
            }])
            .unwrap(),
            policy: policy(|fields| fields.accepted_simulated_roots = vec![node.root_id()]),
            now: NOW,
        }
    }

    pub fn verify(&self, evidence: &[u8]) -> Result<Verified, Refusal> {
        let evidence = Evidence::parse(evidence)?;
        let context = Context {
            expected: self.expected.clone(),
            endorsements: &self.endorsements,
            trust_anchors: &self.anchors,
            enrolments: &self.enrolments,
            now: self.now,
        };
        verify(evidence, &context)
    }

    pub fn appraise(&self, evidence: &[u8]) -> Result<AttestationResult, Refusal> {
        Ok(appraise(&self.verify(evidence)?, &self.reference_values, &self.policy))
    }
}

/// The default policy with changes.
pub fn policy(change: impl FnOnce(&mut PolicyFields)) -> Policy {
    let mut fields = Policy::confidential().fields().clone();
    change(&mut fields);
    Policy::new(fields).unwrap()
}

/// Another start of the fixed pseudo-random sequence of each test; splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
