//! The binding: everything that one piece of evidence is *for*, as one digest that the device signs.
//!
//! A binding is made by the attesting side and says nothing by itself; [`crate::verify`] compares each field with what the
//! verifier expects. This module does not know any device. Source: DESIGN.md "Evidence and appraisal" and
//! `specs/evidence.md`, section "Binding".

use std::fmt;

use thiserror::Error;

use crate::types::{Attempt, BootId, Challenge, Digest, NetworkId, NodeId, PublicKey, TaggedHasher};

/// Version of the binding's fields and of their digest.
pub const BINDING_VERSION: u32 = 1;
/// Length of an X-Wing public key: ML-KEM-768 (1184) and X25519 (32); draft-connolly-cfrg-xwing-kem, section 5.
pub const X_WING_PUBLIC_KEY_LEN: usize = 1216;
/// Longest TPM name: algorithm (2 bytes) and a SHA-512 digest; TPM 2.0 Part 1, section 16.
pub const MAX_AK_NAME_LEN: usize = 66;

/// What the evidence was made for. Evidence for one purpose never serves another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Before a task runs: the releaser decides whether to release its secret.
    Task,
    /// After a task ran: over its report, to show that boot, posture and keys did not change.
    ClosingTask,
    /// A broker, before a requester seals anything to it.
    Broker,
    /// A node that wants to join a network.
    Admission,
}

impl Purpose {
    /// All purposes, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Task, Self::ClosingTask, Self::Broker, Self::Admission];

    /// The octet in the binding's digest.
    pub const fn code(self) -> u8 {
        match self {
            Self::Task => 1,
            Self::ClosingTask => 2,
            Self::Broker => 3,
            Self::Admission => 4,
        }
    }

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::ClosingTask => "closing-task",
            Self::Broker => "broker",
            Self::Admission => "admission",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The HPKE suite of a task key. There is one, and no negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// X-Wing (KEM 0x647a), HKDF-SHA256 (0x0001), AES-256-GCM (0x0002).
    XWingSha256Aes256Gcm,
}

impl Suite {
    /// KEM, KDF and AEAD identifiers of RFC 9180, each big-endian.
    pub const fn id(self) -> [u8; 6] {
        match self {
            Self::XWingSha256Aes256Gcm => [0x64, 0x7a, 0x00, 0x01, 0x00, 0x02],
        }
    }

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XWingSha256Aes256Gcm => "xwing-hkdf-sha256-aes-256-gcm",
        }
    }
}

/// A public HPKE key with its suite: what the releaser seals the task secret to. Equality is not secret-dependent: both
/// sides are public.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TaskKey {
    suite: Suite,
    public: Box<[u8; X_WING_PUBLIC_KEY_LEN]>,
}

impl TaskKey {
    /// Takes the encoded public key of `suite`; `None` where its length is another. Whether it is a valid key is known
    /// when something is sealed to it.
    pub fn from_bytes(suite: Suite, public: &[u8]) -> Option<Self> {
        let public: [u8; X_WING_PUBLIC_KEY_LEN] = public.try_into().ok()?;
        Some(Self { suite, public: Box::new(public) })
    }

    /// The suite.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The encoded public key.
    pub fn as_bytes(&self) -> &[u8] {
        self.public.as_slice()
    }

    /// A short name for logs and associated data: the tagged hash of suite and key.
    pub fn digest(&self) -> Digest {
        crate::types::tagged_hash("task-key", &[&self.suite.id(), self.as_bytes()])
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskKey({}, {})", self.suite.name(), self.digest())
    }
}

/// The TPM name of an attestation key: algorithm and hash of its public area.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AkName(Vec<u8>);

impl AkName {
    /// Takes 1 to [`MAX_AK_NAME_LEN`] bytes.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        (!name.is_empty() && name.len() <= MAX_AK_NAME_LEN).then(|| Self(name.to_vec()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a piece of evidence is for. Absent fields are `None`, written out in JSON and in the digest alike; which ones are
/// absent follows from the purpose and is checked by [`Binding::check_shape`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The network this evidence is for; it means nothing in another.
    pub network: NetworkId,
    /// What the verifier asked to see answered.
    pub challenge: Challenge,
    /// What the evidence is for.
    pub purpose: Purpose,
    /// Digest of the task's spec; only for `Task` and `ClosingTask`.
    pub spec: Option<Digest>,
    /// The node whose agent asks for evidence.
    pub node: NodeId,
    /// The attempt; only for `Task` and `ClosingTask`.
    pub attempt: Option<Attempt>,
    /// This start of the agent; the device reports it too.
    pub boot: BootId,
    /// The HPKE key made inside for this task alone (for `Broker`: the key that requesters seal to); absent for `Admission`.
    pub task_key: Option<TaskKey>,
    /// The key that signs the report of this task (for `Broker`: that signs grants); absent for `Admission`.
    pub report_key: Option<PublicKey>,
    /// The key by which the agent countersigns resources and exit status.
    pub agent_key: PublicKey,
    /// The key of the TLS certificate in use, so that a session can be tied to the evidence.
    pub tls_key: PublicKey,
    /// The TPM attestation key that takes part, where one does.
    pub ak_name: Option<AkName>,
    /// Digest of the [`crate::Posture`] that travels with the evidence.
    pub posture: Digest,
    /// Digest over the report; only for `ClosingTask`.
    pub subject: Option<Digest>,
}

/// A binding has fields that its purpose forbids, or lacks one that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("evidence for {purpose} with a wrong set of fields: {field}")]
pub struct BindingShapeError {
    /// The purpose of the binding.
    pub purpose: Purpose,
    /// The first field that should be there and is not, or the reverse.
    pub field: &'static str,
}

impl Binding {
    /// The fields that are there are those that the purpose calls for.
    pub fn check_shape(&self) -> Result<(), BindingShapeError> {
        let of_task = matches!(self.purpose, Purpose::Task | Purpose::ClosingTask);
        let has_keys = self.purpose != Purpose::Admission;
        let rules = [
            ("spec", self.spec.is_some(), of_task),
            ("attempt", self.attempt.is_some(), of_task),
            ("task_key", self.task_key.is_some(), has_keys),
            ("report_key", self.report_key.is_some(), has_keys),
            ("subject", self.subject.is_some(), self.purpose == Purpose::ClosingTask),
        ];
        match rules.into_iter().find(|(_, found, wanted)| found != wanted) {
            None => Ok(()),
            Some((field, ..)) => Err(BindingShapeError { purpose: self.purpose, field }),
        }
    }

    /// The tagged hash `"starminer/binding/v1"` over all fields in the order of the struct, after the version as `u32`
    /// big-endian. An optional field is one octet 0 where absent, else one octet 1 and its bytes.
    pub fn digest(&self) -> Digest {
        let mut hash = TaggedHasher::new("binding");
        hash.field(&BINDING_VERSION.to_be_bytes())
            .field(self.network.as_bytes())
            .field(self.challenge.as_bytes())
            .field(&[self.purpose.code()]);
        optional(&mut hash, self.spec.as_ref().map(|d| d.as_bytes().as_slice()));
        hash.field(self.node.as_bytes());
        let attempt = self.attempt.map(|a| a.0.to_be_bytes());
        optional(&mut hash, attempt.as_ref().map(<[u8; 4]>::as_slice));
        hash.field(self.boot.as_bytes());
        let task_key = self.task_key.as_ref().map(|key| {
            let mut bytes = key.suite.id().to_vec();
            bytes.extend_from_slice(key.as_bytes());
            bytes
        });
        optional(&mut hash, task_key.as_deref());
        optional(&mut hash, self.report_key.as_ref().map(|k| k.as_bytes().as_slice()));
        hash.field(self.agent_key.as_bytes()).field(self.tls_key.as_bytes());
        optional(&mut hash, self.ak_name.as_ref().map(AkName::as_bytes));
        hash.field(self.posture.as_bytes());
        optional(&mut hash, self.subject.as_ref().map(|d| d.as_bytes().as_slice()));
        hash.finish()
    }
}

fn optional(hash: &mut TaggedHasher, field: Option<&[u8]>) {
    match field {
        None => hash.field(&[0]),
        Some(bytes) => {
            let mut present = Vec::with_capacity(1 + bytes.len());
            present.push(1);
            present.extend_from_slice(bytes);
            hash.field(&present)
        }
    };
}
