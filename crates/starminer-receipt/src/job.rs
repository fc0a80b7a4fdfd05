//! The sealed parts of a task: the manifest that goes in, and the details that come out.
//!
//! Only the enclave and the requester read these. They are JSON inside vault objects, bounded, with unknown fields refused.

use serde::{Deserialize, Serialize};

/// Longest manifest or detail record, in bytes of plaintext JSON.
pub const MAX_MANIFEST_BYTES: usize = 32 * 1024;
/// Object name of the manifest in the vault.
pub const MANIFEST_OBJECT_NAME: &str = "manifest";
/// Object name of the workload in the vault.
pub const WORKLOAD_OBJECT_NAME: &str = "workload";

/// Object name of input `index` in the vault. The name a workload sees is in the manifest, where only the enclave reads it.
#[must_use]
pub fn input_object_name(index: usize) -> String {
    format!("input/{index}")
}

/// Object name of output `index` in the vault.
#[must_use]
pub fn output_object_name(index: usize) -> String {
    format!("output/{index}")
}

/// What to run, as the enclave reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobManifest {
    /// Names of the inputs under `/in`, in the order of the spec.
    pub inputs: Vec<String>,
    /// Settings of the wasm engine; present for it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasm: Option<WasmManifest>,
    /// Settings of the ONNX engine; present for it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onnx: Option<OnnxManifest>,
}

/// Settings of a wasm run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct WasmManifest {
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Environment variables, in order.
    pub env: Vec<(String, String)>,
}

/// Settings of an ONNX run: the workload is the model, one input is the CSV.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxManifest {
    /// Name of the input with the rows.
    pub input: String,
    /// Name of the output to write.
    pub output: String,
    /// Column that is copied to the output, not fed to the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_column: Option<String>,
    /// Columns that are left out.
    #[serde(default)]
    pub ignore_columns: Vec<String>,
}

/// What an output object is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputName {
    /// A file under `/out`, by its relative path.
    File(String),
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
}

/// One output, in the sealed details of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputManifest {
    /// What it is.
    pub name: OutputName,
    /// Length of the plaintext.
    pub plain_bytes: u64,
    /// SHA-256 of the plaintext.
    pub sha256: starminer_verify::Digest,
}
