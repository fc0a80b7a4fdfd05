//! The job file, parsed. It is handed around with examples and programs, so that its bytes are a stranger's: a fuzz target
//! compiles this very file, which therefore needs nothing of this crate.
//!
//! Paths are relative to the file:
//!
//! ```toml
//! wasm = "wordcount.wasm"            # or: onnx = "model.onnx"
//! inputs = ["notes.txt"]
//! output = "out"
//! args = ["--top", "20"]
//!
//! [limits]
//! fuel = 2_000_000_000
//! memory_mib = 256
//! timeout_seconds = 60
//!
//! [policy]
//! accept_simulated = ["demo software TEE"]
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use starminer_receipt::Sensitivity;
use starminer_verify::Tier;

/// Largest job file, in bytes.
pub const MAX_JOB_BYTES: u64 = 256 * 1024;

/// A job, as its file says it. What it does not say is the command line's to fill in.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobFile {
    /// The wasm program.
    pub wasm: Option<PathBuf>,
    /// The ONNX model.
    pub onnx: Option<PathBuf>,
    /// Input files and directories.
    #[serde(default)]
    pub inputs: Vec<PathBuf>,
    /// Where outputs go.
    pub output: Option<PathBuf>,
    /// Arguments of the program.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment of the program.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Results equal bit for bit on every machine.
    #[serde(default)]
    pub portable: bool,
    /// The program gets the clock.
    #[serde(default)]
    pub grant_clock: bool,
    /// The program gets randomness.
    #[serde(default)]
    pub grant_random: bool,
    /// How much it would matter if the job leaked.
    pub sensitivity: Option<Sensitivity>,
    /// How often it may be leased.
    pub max_attempts: Option<u32>,
    /// Bounds.
    #[serde(default)]
    pub limits: JobLimits,
    /// What a node has to prove.
    #[serde(default)]
    pub policy: JobPolicy,
    /// How an ONNX job reads and writes its table.
    #[serde(default)]
    pub table: JobTable,
}

/// Bounds of a run.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobLimits {
    /// Fuel: about one unit a wasm instruction.
    pub fuel: Option<u64>,
    /// Memory of the guest.
    pub memory_mib: Option<u64>,
    /// Longest run.
    pub timeout_seconds: Option<u64>,
    /// Most output.
    pub output_mib: Option<u64>,
    /// Most scratch.
    pub scratch_mib: Option<u64>,
    /// What `/state` may hold, in MiB; none unless given.
    pub state_mib: Option<u64>,
}

/// What a node has to prove.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobPolicy {
    /// The lowest tier that will do.
    pub minimum_tier: Option<Tier>,
    /// Simulated roots, by their names in network.toml.
    #[serde(default)]
    pub accept_simulated: Vec<String>,
    /// Consent to tiers below `confidential`.
    #[serde(default)]
    pub operator_may_read_memory: bool,
}

/// How an ONNX job reads and writes its table.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobTable {
    /// The column that names a row.
    pub id_column: Option<String>,
    /// Columns that are not fed to the model.
    #[serde(default)]
    pub ignore_columns: Vec<String>,
    /// Name of the table that is written.
    pub output: Option<String>,
}

impl JobFile {
    /// Parses a job file; unknown fields are refused.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}
