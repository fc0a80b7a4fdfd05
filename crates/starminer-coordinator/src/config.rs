//! What the operator of a coordinator can set. Every limit has a name, a unit and a default.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use starminer_store::PartialLimits;
use starminer_verify::{HardwarePolicy, HostMeasure};

use crate::nodes::EndorsementConfig;
use crate::tasks::Waits;

/// Settings of a coordinator (TOML). Absent ones have their defaults; unknown ones are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Measures of the host without which no node is admitted, whatever its tier; none where absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_posture: Vec<HostMeasure>,
    /// How long each step is waited for.
    pub waits: WaitConfig,
    /// Limits of one identity.
    pub identity: IdentityLimits,
    /// Limits of all together.
    pub total: TotalLimits,
    /// How long things are kept.
    pub keep: KeepConfig,
    /// Rules for hardware that decide what tier a node reaches here, and so which tasks it is offered; the strict defaults for whatever is absent. Chips
    /// that it denies are not admitted at all. Its digest goes into the log at each start.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "over_strict_rules")]
    pub hardware: Option<HardwarePolicy>,
    /// Endorsements of hardware makers.
    pub endorsements: EndorsementConfig,
}

/// The strict rules with these in their places.
fn over_strict_rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HardwarePolicy>, D::Error> {
    fn put(all: &mut toml::Table, given: toml::Table) {
        for (name, value) in given {
            match (all.get_mut(&name), value) {
                (Some(toml::Value::Table(all)), toml::Value::Table(given)) => put(all, given),
                (_, value) => drop(all.insert(name, value)),
            }
        }
    }
    let given = toml::Table::deserialize(deserializer)?;
    let mut rules = toml::Table::try_from(HardwarePolicy::strict()).map_err(D::Error::custom)?;
    put(&mut rules, given);
    rules.try_into().map(Some).map_err(D::Error::custom)
}

/// How long each step of a task is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WaitConfig {
    /// For the releaser to challenge, decide or grant; then the task fails.
    pub releaser_ms: u64,
    /// For the node to answer a challenge; then the attempt ends.
    pub node_ms: u64,
    /// For the report, beyond the wall limit of the spec; then the attempt ends.
    pub report_margin_ms: u64,
    /// For a node to come back that has a checkpoint of a task, once its attempt there has ended; then another node begins the task anew.
    pub resume_ms: u64,
    /// Without a poll of a node; then its attempts end.
    pub node_silence_ms: u64,
    /// For newer evidence of a node; then its attempts end and it gets no more. Nodes are asked to send it after half of this.
    pub attestation_ms: u64,
    /// For a broker's answer to a requester.
    pub broker_answer_ms: u64,
    /// For brokers to come back after a start; until then one that is not there is not called absent. A broker that lost its connection
    /// without being told misses it after 25 s and is back a few seconds later.
    pub broker_return_ms: u64,
    /// For the next bytes of a body.
    pub body_idle_ms: u64,
    /// For connections to run dry when the coordinator stops.
    pub drain_ms: u64,
}

impl Default for WaitConfig {
    fn default() -> Self {
        Self {
            releaser_ms: 120_000,
            node_ms: 30_000,
            report_margin_ms: 30_000,
            resume_ms: 60_000,
            node_silence_ms: 15_000,
            attestation_ms: 60_000,
            broker_answer_ms: 20_000,
            broker_return_ms: 30_000,
            body_idle_ms: 30_000,
            drain_ms: 10_000,
        }
    }
}

/// Limits of one identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityLimits {
    /// Tasks that have not ended.
    pub open_tasks: usize,
    /// Requests a second, on average.
    pub requests_per_second: u32,
    /// Requests at once, after a pause.
    pub request_burst: u32,
    /// Bytes of blobs a second, up and down together, on average; transfers are slowed to it.
    pub blob_bytes_per_second: u64,
    /// Bytes of complete blobs.
    pub blob_bytes: u64,
    /// Largest blob.
    pub largest_blob_bytes: u64,
    /// Uploads that are not complete.
    pub partial_uploads: usize,
    /// Bytes that those would have when complete.
    pub partial_bytes: u64,
    /// Connections.
    pub connections: usize,
}

impl Default for IdentityLimits {
    fn default() -> Self {
        Self {
            open_tasks: 1_000,
            requests_per_second: 5_000,
            request_burst: 10_000,
            blob_bytes_per_second: 1 << 30,
            blob_bytes: 256 << 30,
            largest_blob_bytes: 64 << 30,
            partial_uploads: 64,
            partial_bytes: 128 << 30,
            connections: 32,
        }
    }
}

/// Limits of all identities together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TotalLimits {
    /// Tasks that have not ended.
    pub open_tasks: usize,
    /// Admitted nodes.
    pub nodes: usize,
    /// Connections.
    pub connections: usize,
    /// Requests under way on one connection, long polls among them.
    pub streams_per_connection: u32,
    /// Blob transfers under way.
    pub blob_transfers: usize,
    /// Bytes of request bodies, other than blobs, that are being read.
    pub body_bytes: usize,
}

impl Default for TotalLimits {
    fn default() -> Self {
        Self {
            open_tasks: 10_000,
            nodes: 10_000,
            connections: 4_096,
            streams_per_connection: 512,
            blob_transfers: 256,
            body_bytes: 64 << 20,
        }
    }
}

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepConfig {
    /// Blobs of a task after it ended.
    pub ended_blobs_seconds: u64,
    /// Blobs that no task ever used.
    pub unused_blobs_seconds: u64,
    /// Uploads that nobody continued.
    pub partial_uploads_seconds: u64,
    /// An admission in which nothing changes, before it stands in the log anew.
    pub admission_seconds: u64,
    /// How often expired things are looked for.
    pub sweep_every_seconds: u64,
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self {
            ended_blobs_seconds: 7 * 24 * 3600,
            unused_blobs_seconds: 24 * 3600,
            partial_uploads_seconds: 24 * 3600,
            admission_seconds: 24 * 3600,
            sweep_every_seconds: 60,
        }
    }
}

impl Config {
    /// Reads the TOML form.
    ///
    /// # Errors
    /// Where and why the text is not a configuration.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    pub(crate) fn task_waits(&self) -> Waits {
        Waits {
            resume_ms: self.waits.resume_ms,
            releaser_ms: self.waits.releaser_ms,
            node_ms: self.waits.node_ms,
            report_margin_ms: self.waits.report_margin_ms,
            open_tasks_per_requester: self.identity.open_tasks,
            open_tasks: self.total.open_tasks,
            nodes: self.total.nodes,
            unchanged_ms: self.keep.admission_seconds.saturating_mul(1000),
        }
    }

    pub(crate) fn partial_limits(&self) -> PartialLimits {
        PartialLimits { files: self.identity.partial_uploads, bytes: self.identity.partial_bytes }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_hardware_are_strict_where_they_are_silent() {
        let rules = |text: &str| toml::from_str::<Config>(text).map(|config| config.hardware);
        assert_eq!(rules("").unwrap(), None);
        assert_eq!(rules("[hardware]\n").unwrap(), Some(HardwarePolicy::strict()));
        let few = rules(
            "[hardware.tpm]\npcrs = [4, 7, 11]\n[hardware.sev_snp.tcb_floor]\nmilan = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }\n",
        );
        let few = few.unwrap().unwrap();
        let mut same = HardwarePolicy::strict();
        assert_ne!((&few.tpm, &few.sev_snp), (&same.tpm, &same.sev_snp));
        same.tpm.pcrs.clone_from(&few.tpm.pcrs);
        same.sev_snp.tcb_floor.clone_from(&few.sev_snp.tcb_floor);
        assert_eq!(few, same);
        // What is written out whole is what it says.
        let whole = toml::to_string(&Config { hardware: Some(few.clone()), ..Config::default() }).unwrap();
        assert_eq!(rules(&whole).unwrap(), Some(few));
        for bad in
            ["[hardware.tpm]\npcr = [4]\n", "[hardware.tmp]\n", "[hardware.tpm]\npcrs = [99]\n", "hardware = 1\n"]
        {
            assert!(rules(bad).is_err(), "{bad}");
        }
    }
}
