//! What the agent and a task process say to each other (`specs/node.md`, section "Channel").
//!
//! JSON in the frames of [`starminer_sandbox::Channel`]; bulk data and everything large travels as descriptors. The task
//! process believes the agent, which is in the same enclave, except where a signature is called for. The agent believes a
//! task process only what fits the state it is in ([`Phase`]), because a guest may have broken into it: nothing that it
//! says after [`FromTask::Started`] is worth more than the guest.
//!
//! Not here: who does what when ([`crate::task`], [`crate::supervisor`]).

use serde::{Deserialize, Serialize};
use starminer_receipt::{Base64Bytes, Envelope};
use starminer_verify::{Digest, PublicKey, Refusal};

/// First argument (`argv[0]`) of a task process.
pub const TASK_PROGRAM_NAME: &str = "starminer-task-process";
/// Second argument of a task process. Nobody types both by mistake, and a person who does gets a process that ends at once,
/// because it finds no channel.
pub const TASK_ARGUMENT: &str = "--starminer-task-process-v1";
/// Objects that travel in one message: as many descriptors as a frame takes.
pub const MAX_OBJECTS_PER_MESSAGE: usize = starminer_sandbox::MAX_MESSAGE_FDS;
/// Most outputs of one task, logs included; a report of more than the envelope holds is refused before.
pub const MAX_OUTPUTS: usize = 1024;

/// From the agent to a task process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToTask {
    /// The task. With it comes one descriptor: the empty store of its scratch; and where the spec asks for a state another one: the store of its
    /// checkpoints, as this node has it.
    Lease {
        /// The signed spec.
        spec: Envelope,
        /// The signed lease.
        lease: Envelope,
    },
    /// Ciphertext: one descriptor for each object from `first` on. 0 is the workload, 1 the first input.
    Objects {
        /// Number of the first.
        first: u32,
    },
    /// The key, and what it was given for. With it comes one descriptor: a file with the evidence, as its exact bytes, because evidence with logs
    /// is longer than a frame.
    Grant {
        /// The signed challenge.
        challenge: Envelope,
        /// The signed grant.
        grant: Envelope,
    },
    /// Compiled code that a task of the same owner left, as one descriptor, or word that there is none.
    Compiled {
        /// What it was made from.
        found: Option<CompiledRecord>,
    },
    /// Empty files for ciphertext: one descriptor for each output from `first` on.
    OutputFiles {
        /// Number of the first.
        first: u32,
    },
}

/// From a task process to the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromTask {
    /// It is sealed and waits for a lease.
    Ready {
        /// [`starminer_sandbox::InForce`], encoded.
        in_force: String,
    },
    /// The two public keys of this task, once.
    Keys {
        /// The HPKE key that the task secret is to be sealed to.
        task_key: Base64Bytes,
        /// The key that signs the report.
        report_key: PublicKey,
    },
    /// The lease is not one that can be run. The process ends.
    LeaseRefused {
        /// Why.
        refusal: Refusal,
    },
    /// The grant is not valid. It consumed nothing, and a valid one still counts.
    GrantRefused {
        /// Why.
        refusal: Refusal,
    },
    /// The grant is valid and was taken: the time of the run begins.
    GrantTaken,
    /// Asks for compiled code.
    CompiledWanted {
        /// Its name in the cache.
        key: Digest,
    },
    /// Leaves compiled code for later tasks of the same owner, as one descriptor.
    CompiledMade {
        /// Its name in the cache.
        key: Digest,
        /// What it was made from.
        record: CompiledRecord,
    },
    /// The guest's first instruction is next. Nothing compiled is taken from this process any more.
    Started,
    /// A checkpoint is durable: its signed statement. The last one is the one to pass on.
    Checkpoint {
        /// The envelope.
        statement: Envelope,
    },
    /// Asks for files to seal outputs into.
    OutputsWanted {
        /// How many, 1 to `MAX_OUTPUTS` over the whole task.
        count: u32,
    },
    /// The end: the signed report. The process exits.
    Report {
        /// The envelope.
        report: Envelope,
    },
}

/// What compiled code was made from. Plain digests: they stay between processes of one enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompiledRecord {
    /// SHA-256 of the component that was compiled.
    pub component: Digest,
    /// SHA-256 of the preview-1 adapter, where the module needed it.
    pub adapter: Option<Digest>,
    /// SHA-256 of the compiled code.
    pub compiled: Digest,
}

/// How far a task process has come, as the agent follows it. Decides what the process may say next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Sealing itself.
    Starting,
    /// Waiting for a lease.
    Waiting,
    /// It has a lease and owes its keys.
    Leased,
    /// Its keys are known; it waits for a grant.
    Keyed,
    /// It has the grant and no guest code runs yet.
    Opening,
    /// Guest code may have run: whatever it says may be the guest's words.
    Running,
    /// It has reported and has nothing more to say.
    Reported,
}

impl Phase {
    /// The phase after `message`, or `None` if that message does not belong here: the process is broken or broken into.
    pub fn after(self, message: &FromTask) -> Option<Self> {
        use Phase::{Keyed, Leased, Opening, Reported, Running, Starting, Waiting};
        match (self, message) {
            (Starting, FromTask::Ready { .. }) => Some(Waiting),
            (Leased, FromTask::Keys { .. }) => Some(Keyed),
            (Leased, FromTask::LeaseRefused { .. }) => Some(Reported),
            (Keyed, FromTask::GrantRefused { .. }) => Some(Keyed),
            (Keyed, FromTask::GrantTaken) => Some(Opening),
            (Opening, FromTask::CompiledWanted { .. } | FromTask::CompiledMade { .. }) => Some(Opening),
            (Opening, FromTask::Started) => Some(Running),
            (Running, FromTask::Checkpoint { .. }) => Some(Running),
            (Opening | Running, FromTask::OutputsWanted { .. }) => Some(self),
            (Opening | Running, FromTask::Report { .. }) => Some(Reported),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn every_message() -> Vec<FromTask> {
        let refusal = || Refusal::new(starminer_verify::Party::Node, "a.b", "c", "d");
        let record = CompiledRecord { component: Digest([1; 32]), adapter: None, compiled: Digest([2; 32]) };
        let envelope: Envelope = serde_json::from_str(r#"{"payloadType":"x","payload":"","signatures":[]}"#).unwrap();
        vec![
            FromTask::Ready { in_force: "x\n".into() },
            FromTask::Keys { task_key: Base64Bytes(vec![1]), report_key: PublicKey([1; 32]) },
            FromTask::LeaseRefused { refusal: refusal() },
            FromTask::GrantRefused { refusal: refusal() },
            FromTask::GrantTaken,
            FromTask::CompiledWanted { key: Digest([3; 32]) },
            FromTask::CompiledMade { key: Digest([3; 32]), record },
            FromTask::Started,
            FromTask::OutputsWanted { count: 1 },
            FromTask::Report { report: envelope.clone() },
            FromTask::Checkpoint { statement: envelope },
        ]
    }

    /// One column for each message in the order above; a dot where it is refused.
    #[test]
    fn each_message_has_its_phases() {
        let table = [
            (Phase::Starting, "W.........."),
            (Phase::Waiting, "..........."),
            (Phase::Leased, ".KD........"),
            (Phase::Keyed, "...KO......"),
            (Phase::Opening, ".....OOROD."),
            (Phase::Running, "........RDR"),
            (Phase::Reported, "..........."),
        ];
        let letter = |phase| match phase {
            Some(Phase::Waiting) => 'W',
            Some(Phase::Keyed) => 'K',
            Some(Phase::Opening) => 'O',
            Some(Phase::Running) => 'R',
            Some(Phase::Reported) => 'D',
            _ => '.',
        };
        for (phase, row) in table {
            let found: String = every_message().iter().map(|message| letter(phase.after(message))).collect();
            assert_eq!(found, row, "{phase:?}");
        }
    }

    #[test]
    fn messages_survive_the_trip_and_strangers_do_not() {
        for message in every_message() {
            let json = serde_json::to_vec(&message).unwrap();
            assert_eq!(serde_json::from_slice::<FromTask>(&json).unwrap(), message);
        }
        for bad in [
            r#"{"ready":{"in_force":"","more":1}}"#,
            r#"{"outputs-wanted":{"count":-1}}"#,
            r#"{"outputs-wanted":{"count":1},"started":null}"#,
            r#""nothing""#,
            "",
        ] {
            assert!(serde_json::from_str::<FromTask>(bad).is_err(), "{bad}");
        }
    }
}
