//! The table, and the targets in one module for each crate.

mod attester;
mod broker;
mod cli;
mod disk;
mod hardware;
mod image;
mod log;
mod receipt;
mod tls;
mod vault;
mod verify;
mod wire;

#[cfg(feature = "edges")]
mod agent;
#[cfg(feature = "edges")]
mod requester;
#[cfg(feature = "edges")]
mod runtime;
#[cfg(feature = "edges")]
mod sandbox;

pub(crate) use broker::known_deposit;
pub(crate) use cli::seeds as cli_seeds;
pub(crate) use disk::seeds as disk_seeds;
pub(crate) use hardware::{found_seeds as found_hardware_seeds, seeds as hardware_seeds};
pub(crate) use image::seeds as image_seeds;
pub(crate) use tls::{known_proof, server_identity_certificate};
pub(crate) use vault::seeds as vault_seeds;

/// Seeds of the targets that come with the feature.
#[cfg(feature = "edges")]
pub(crate) fn edge_seeds() -> Vec<crate::seeds::Seed> {
    [agent::seeds(), sandbox::seeds(), runtime::seeds(), requester::seeds()].concat()
}

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Outcome, Target};

macro_rules! table {
    ($($(#[$attribute:meta])* $name:literal, $runs:literal, $function:path, $about:literal;)*) => {
        /// Every target there is.
        pub static TARGETS: &[Target] = &[
            $($(#[$attribute])* Target { name: $name, about: $about, runs: $runs, function: $function },)*
        ];
    };
}

table! {
    "log-keys", 20_000, log::keys, "a text as vkey of log and witness, key name and hash; one spelling each";
    "log-checkpoint", 20_000, log::checkpoint, "a signed note; one encoding, and only the log's own statement verifies";
    "log-cosignatures", 10_000, log::cosignatures, "lines that a witness answered; only its own are taken";
    "log-tile", 20_000, log::tile, "a line with a tile's path, then its content; one encoding each";
    "log-bundle", 20_000, log::bundle, "a byte with the width, then entries; one encoding, and replay takes each once";
    "log-proofs", 10_000, log::proofs, "two sizes and a JSON proof, under checkpoints of any size that the log signs";
    "log-fork", 10_000, log::fork, "JSON of a fork; what verifies are two roots of one size";

    "verify-evidence", 10_000, verify::evidence, "evidence; only the world's own verifies";
    "verify-report", 20_000, verify::report, "the report of a software TEE, under the root it names itself";
    "verify-parts", 20_000, verify::parts, "a part of evidence that is made of fields; one encoding";
    "verify-appraise", 5_000, verify::appraise_claims, "JSON of claims, policy and reference values, attested and appraised";
    "verify-policy", 20_000, verify::policy, "JSON of a policy; reads back as itself";
    "verify-reference-values", 20_000, verify::reference_values, "JSON of reference values; reads back as itself";
    "verify-posture", 20_000, verify::posture, "JSON of a posture; reads back as itself";
    "verify-refusal", 20_000, verify::refusal, "JSON of a refusal; safe to show on a terminal";
    "verify-ids", 20_000, verify::ids, "a text as every identifier; one spelling each";

    "receipt-envelope", 10_000, receipt::envelope, "JSON of an envelope; nothing opens that its key did not sign";
    "receipt-statement", 10_000, receipt::statement, "JSON of an envelope, signed again: every statement reads back as itself";
    "receipt-entry", 20_000, receipt::entry, "a log entry; one encoding";
    "receipt-file", 1_500, receipt::file, "a receipt; only the world's own parts are ever proven";
    "receipt-collusion", 500, receipt::collusion, "a receipt that all parties sign again; verification ends, and stays simulated";
    "receipt-network", 10_000, receipt::network, "network.toml; reads back as itself";
    "receipt-endorsements", 4_000, receipt::endorsements, "endorsements beside evidence; only what an enroller signed counts";
    "receipt-references", 4_000, receipt::references, "published reference values; only what enough release keys signed counts";
    "receipt-sealed", 4_000, receipt::sealed, "JSON of a sealed secret; only what was sealed opens, and only in its context";
    "receipt-manifest", 20_000, receipt::manifest, "the sealed JSON of a task: manifest, details, resources";

    "vault-object", 5_000, vault::object, "an object; nothing but its own plaintext is ever given out, by four ways of opening";
    "vault-scratch", 1_000, vault::scratch, "changes to a store; what reopens is one of its checkpoints, and pages are right or refused";
    "vault-directory", 20_000, vault::directory, "a directory and a superblock, believed as if they were authentic";

    "wire-messages", 10_000, wire::messages, "JSON as every message of the API; each reads back as itself";

    "tls-key-file", 5_000, tls::key_file, "a key file; one form";
    "tls-texts", 20_000, tls::texts, "a text as identity and as channel-binding proof; one spelling each";
    "tls-chain", 1_500, tls::chain, "certificates of a server in a real handshake; only its own chain is taken";

    "broker-evidence", 4_000, broker::evidence, "evidence for a decision and of a broker; only the world's own is good for either";
    "broker-logged", 5_000, broker::logged, "JSON of an entry and its proof; only the release's own lets it be granted";
    "broker-ledger", 2_000, broker::ledger, "JSON of a journal, signed again; what was granted or denied stays so";
    "broker-deposit", 4_000, broker::deposit, "JSON of a deposit; only the one for this spec and broker opens";

    "cli-job", 10_000, cli::job, "a job file; unknown fields are refused, and errors point into the text";

    "hardware-certificates", 5_000, hardware::certificates, "certificates in PEM or DER; only what makers signed chains to their roots";
    "hardware-crl", 10_000, hardware::revocation_lists, "revocation lists; only what their issuer signed counts";
    "hardware-ek", 5_000, hardware::endorsement_key, "the certificate of a TPM's endorsement key; only makers' own verify";
    "hardware-snp-report", 5_000, hardware::snp_report, "a report of AMD's, under keys verified before; only the chips' own verify";
    "hardware-snp", 2_000, hardware::snp_evidence, "JSON of a report, its certificates and lists; only the chips' own verify";
    "hardware-quote", 2_000, hardware::dcap_quote, "a quote of SGX or TDX; what verifies claims what was signed";
    "hardware-endorsements", 500, hardware::dcap_endorsements, "JSON of Intel's endorsements; only what was signed is believed";
    "hardware-tpm-quote", 5_000, hardware::tpm_quote, "JSON of a TPM's quote, key and registers; only recorded ones verify";
    "hardware-tpm-forms", 20_000, hardware::tpm_forms, "bytes as every structure of a TPM's, in every form";
    "hardware-event-log", 3_000, hardware::event_log, "a log of firmware; altered under the same registers it may say less, never else";
    "hardware-registers", 20_000, hardware::registers, "JSON of register values; reads back as itself";
    "hardware-firmware", 2_000, hardware::firmware, "a firmware image; what its launch will measure";
    "hardware-boot-program", 5_000, hardware::boot_program, "a PE image; its digest and its sections";
    "hardware-signature-list", 20_000, hardware::signature_list, "a UEFI signature database; bounded";
    "hardware-ima", 5_000, hardware::ima_list, "a measurement list, binary or text; a register vouches for its own files alone";
    "hardware-gpu", 1_000, hardware::gpu_evidence, "NVIDIA's JSON of evidence; only genuine GPUs verify";
    "hardware-gpu-report", 2_000, hardware::gpu_report, "a GPU's report, in chains that are known; only genuine ones verify";
    "hardware-gpu-manifest", 2_000, hardware::gpu_manifest, "a manifest of NVIDIA's; only its own verify";
    "hardware-endorsement", 1_000, hardware::endorsement, "JSON of one endorsement, OCSP responses among them; only what was signed enters a snapshot";
    "hardware-endorsement-names", 20_000, hardware::endorsement_names, "a text as key, address, manifest's id and marks; one spelling each";
    "hardware-bundle", 200, hardware::endorsement_bundle, "a bundle, its digests made to fit again; only what was signed is taken out of it";
    "hardware-policy", 3_000, hardware::policies, "policies of every kind in TOML and JSON; what is not set denies";

    "disk-header", 10_000, disk::header, "metadata of a LUKS2 header, whose checksum is made to hold; what is taken is encrypted, and by one key";
    "disk-policy", 20_000, disk::policy, "what an image says of its disk; one form";
    "image-firmware", 5_000, image::firmware, "OVMF's code; the volumes that it measures, unpacked within bounds";
    "image-variables", 10_000, image::variables, "a store of firmware's variables; Secure Boot is not on without a key";

    "attester-key-files", 5_000, attester::key_files, "key files of root and device; what loads is saved the same";

    #[cfg(feature = "edges")]
    "agent-messages", 20_000, agent::messages, "JSON of messages between agent and task process; each reads back as itself";
    #[cfg(feature = "edges")]
    "sandbox-channel", 5_000, sandbox::channel, "bytes on the channel's socket; frames come out whole or the channel ends";
    #[cfg(feature = "edges")]
    "sandbox-in-force", 20_000, sandbox::in_force, "what a task process says is in force; reads back as itself";
    #[cfg(feature = "edges")]
    "runtime-wasm", 300, runtime::wasm, "a module or component; compiled or refused, never a host fault";
    #[cfg(feature = "edges")]
    "runtime-onnx-model", 1_000, runtime::onnx_model, "a model, run on a small table; never a host fault";
    #[cfg(feature = "edges")]
    "runtime-onnx-csv", 500, runtime::onnx_csv, "a table for a small model; a prediction for each row, or none";
    #[cfg(feature = "edges")]
    "runtime-fs", 5_000, runtime::file_system, "calls of a guest on its files; nothing leaves its grant or its quota";
    #[cfg(feature = "edges")]
    "runtime-state", 20_000, runtime::state, "a number of committed files, then the tree over them; taken up as it is or refused";
    #[cfg(feature = "edges")]
    "requester-journal", 2_000, requester::journal, "a journal file; its records or a refusal, and the same again";
    #[cfg(feature = "edges")]
    "requester-result", 2_000, requester::result, "JSON of a node's details; no output is placed outside its directory";
}

/// Reads JSON as a `T` and asserts that what was read writes and reads back as itself.
fn json_round_trip<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, value, "reading what was written gives the same");
    Some(value)
}

/// The first line of `data` as text, without its line break, and what follows.
fn line_and_rest(data: &[u8]) -> (Option<&str>, &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    (std::str::from_utf8(&data[..end]).ok(), data.get(end + 1..).unwrap_or_default())
}

/// A directory of this thread's, in memory where there is such a place: thousands of files are written and synced.
fn scratch_directory() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

/// Gives `check` the path of a file with these bytes, readable by its owner alone. The file is this thread's, and is written
/// again each time.
fn with_file<T>(data: &[u8], check: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static DIRECTORY: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    DIRECTORY.with_borrow_mut(|directory| {
        let directory = directory.get_or_insert_with(scratch_directory);
        let path = directory.path().join("input");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).expect("a file");
        file.write_all(data).expect("room for the input");
        drop(file);
        check(&path)
    })
}

/// Outcome of several readings of one input: which of them took it.
fn taken(readings: &[bool]) -> Outcome {
    if readings.contains(&true) { Outcome::accepted(readings) } else { Outcome::refused("none") }
}
