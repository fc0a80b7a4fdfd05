//! Entries of the public log: what happened, when, to which task, with a commitment to the statement.
//!
//! An entry holds no detail: task ids are random, statements are named by their digests (they contain fresh keys and
//! ciphertexts, so their digests tell nothing), nodes by a pseudonym of the network. Specification: `specs/entries.md`.

use serde::{Deserialize, Serialize};
use starminer_verify::{Attempt, Digest, NetworkId, NodeId, Refusal, TaskId, UnixTime, tagged_hash};

/// Longest entry in bytes; the log itself takes 65,535.
pub const MAX_ENTRY_BYTES: usize = 1024;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// The network began; statement: its trust file.
    Genesis,
    /// A node was admitted; statement: its evidence.
    Admitted,
    /// A task was taken; statement: the spec.
    Submitted,
    /// A task was given to a node; statement: the lease.
    Leased,
    /// A challenge was issued; statement: the challenge.
    Challenged,
    /// A node proved itself for an attempt; statement: the evidence.
    Attested,
    /// A releaser decided to release; statement: the release.
    Released,
    /// The grant was handed over; statement: the grant.
    Granted,
    /// A releaser denied; statement: the denial.
    Denied,
    /// A report came; statement: the report.
    Reported,
    /// A lease ended without a report; statement: the lease.
    Expired,
    /// A requester cancelled; statement: the cancellation.
    Cancelled,
    /// A node's TPM was enrolled; statement: the enrolment.
    Enrolled,
    /// A node was taken out until it proves itself again; statement: the refusal.
    Suspended,
    /// Rules for hardware count from here on; statement: the section of the coordinator's policy.
    Rules,
    /// Reference values were published; statement: these, as their release keys signed them. They count from here on.
    Published,
    /// A task process made a checkpoint durable; statement: the checkpoint's.
    Checkpointed,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// 1.
    pub v: u32,
    /// What happened.
    pub kind: EntryKind,
    /// When, by the coordinator's clock; never less than the entry before.
    pub at: UnixTime,
    /// The task; absent for what is of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// How many entries of the task stand before this one: whoever is shown the entries of a task sees whether one is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// Pseudonym of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Digest>,
    /// SHA-256 of the statement's payload bytes (evidence: of its bytes).
    pub statement: Digest,
    /// What came with a report ([`Self::annex_of`]); absent where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annex: Option<Digest>,
    /// The code of the refusal by which the coordinator ended a lease or took a node out, or by which a task process refused its node's checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether the task ends with this: no entry of it follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends: bool,
}

impl LogEntry {
    /// The pseudonym by which the log names a node.
    #[must_use]
    pub fn node_pseudonym(network: &NetworkId, node: &NodeId) -> Digest {
        tagged_hash("node-pseudonym", &[network.as_bytes(), node.as_ref()])
    }

    /// What the entry of a report commits to besides the report: the agent's statement (digest of its payload) and the closing evidence
    /// (digest of its bytes). `None` where there is neither.
    #[must_use]
    pub fn annex_of(agent_statement: Option<Digest>, closing_evidence: Option<Digest>) -> Option<Digest> {
        const ABSENT: Digest = Digest([0; 32]);
        (agent_statement.is_some() || closing_evidence.is_some()).then(|| {
            let parts = [agent_statement, closing_evidence].map(|part| part.unwrap_or(ABSENT));
            tagged_hash("report-annex", &[parts[0].as_bytes(), parts[1].as_bytes()])
        })
    }

    /// The bytes that go into the log.
    ///
    /// # Panics
    /// Never: an entry is numbers and digests.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an entry is numbers and digests")
    }

    /// Parses an entry; only the one encoding that [`Self::encode`] writes is taken.
    ///
    /// # Errors
    /// A fixed text that says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err("entry is over 1024 bytes");
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(|_| "not a log entry")?;
        if entry.why.as_ref().is_some_and(|code| !Refusal::is_code(code)) {
            return Err("why is no code");
        }
        if entry.v != 1 {
            return Err("entry version is not 1");
        }
        if entry.encode() != bytes {
            return Err("entry is not in its one encoding");
        }
        Ok(entry)
    }
}
