//! Gramine's `/dev/attestation`, served by a folder.

#![allow(clippy::unwrap_used)]

mod recorded;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use recorded::{SGX_DATA, SGX_ENCLAVE, over};
use starminer_attester::{Gramine, GramineAttestation, MAX_QUOTE_BYTES};

const FILES: [&str; 4] = ["attestation_type", "my_target_info", "user_report_data", "quote"];

struct StandIn {
    root: tempfile::TempDir,
}

impl StandIn {
    /// An enclave `ee…` with a quote over `07…`, in the layout of version 3.
    fn new() -> Self {
        let quote = over(over([vec![3, 0], vec![0; 4598]].concat(), SGX_DATA, &[7; 64]), SGX_ENCLAVE, &[0xee; 32]);
        let target = [[0xee; 32].as_slice(), &[0; 480]].concat();
        let tree = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(tree.path("")).unwrap();
        let contents: [&[u8]; 4] = [b"dcap", &target, &[0; 64], &quote];
        FILES.iter().zip(contents).fold(tree, |tree, (file, contents)| tree.with(file, contents))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.root.path().join("dev/attestation").join(file)
    }

    fn with(self, file: &str, contents: &[u8]) -> Self {
        fs::write(self.path(file), contents).unwrap();
        self
    }

    fn gramine(&self) -> Gramine {
        Gramine::at(self.root.path())
    }
}

#[test]
fn report_data_goes_in_and_a_quote_comes_out() {
    // Whatever stood there before is replaced and not overwritten in part.
    let tree = StandIn::new().with("user_report_data", &[1; 100]);
    let quote = tree.gramine().quote([7; 64]).unwrap();
    assert_eq!(fs::read(tree.path("user_report_data")).unwrap(), [7; 64]);
    assert_eq!((quote.quote.len(), quote.enclave), (4600, [0xee; 32]));
    // A quote over what another request wrote.
    assert_eq!(tree.gramine().quote([8; 64]).unwrap_err().code(), "gramine.report-data");
}

/// The recorded quote of the crate `dcap-qvl` is of this layout.
#[test]
fn a_recorded_quote() {
    let Some(quote) = recorded_sgx_quote() else { return };
    let data: [u8; 64] = quote[SGX_DATA..][..64].try_into().unwrap();
    let target = [&quote[SGX_ENCLAVE..][..32], &[0; 480]].concat();
    let tree = StandIn::new().with("quote", &quote).with("my_target_info", &target);
    assert_eq!(tree.gramine().quote(data).unwrap().quote, quote);
    let tree = StandIn::new().with("quote", &quote);
    assert_eq!(tree.gramine().quote(data).unwrap_err().code(), "gramine.other-enclave");
}

fn recorded_sgx_quote() -> Option<Vec<u8>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))?;
    let sources = fs::read_dir(home.join("registry/src")).ok()?;
    let found = sources.flatten().find_map(|index| fs::read(index.path().join("dcap-qvl-0.7.1/sample/sgx_quote")).ok());
    if found.is_none() {
        eprintln!("skipped: the sources of dcap-qvl 0.7.1 are not there");
    }
    found
}

#[test]
fn types() {
    use GramineAttestation::{Dcap, Epid, None};
    for (text, kind) in [("dcap", Dcap), ("dcap\n", Dcap), ("epid", Epid), ("none", None)] {
        let tree = StandIn::new().with("attestation_type", text.as_bytes());
        assert_eq!(tree.gramine().attestation().unwrap(), kind);
        if kind != Dcap {
            assert_eq!(tree.gramine().quote([7; 64]).unwrap_err().code(), "gramine.not-dcap");
        }
    }
    for text in [&b""[..], b"DCAP", b"dcap\0", b"\xff", &[b'd'; 100]] {
        let tree = StandIn::new().with("attestation_type", text);
        assert_eq!(tree.gramine().quote([7; 64]).unwrap_err().code(), "gramine.malformed");
    }
}

#[test]
fn what_goes_wrong_has_a_code() {
    let nowhere = tempfile::tempdir().unwrap();
    assert_eq!(Gramine::at(nowhere.path()).quote([7; 64]).unwrap_err().code(), "gramine.missing");
    for (file, contents, code) in [
        ("my_target_info", vec![0xee; 511], "gramine.malformed"),
        ("my_target_info", vec![0xee; 513], "gramine.malformed"),
        ("my_target_info", vec![], "gramine.malformed"),
        ("my_target_info", vec![0xef; 512], "gramine.other-enclave"),
        ("quote", vec![], "gramine.malformed"),
        ("quote", [vec![3, 0], vec![7; 400]].concat(), "gramine.malformed"),
        ("quote", [vec![4, 0], vec![7; 4598]].concat(), "gramine.malformed"),
        ("quote", [vec![3, 0], vec![7; MAX_QUOTE_BYTES]].concat(), "gramine.malformed"),
    ] {
        let tree = StandIn::new().with(file, &contents);
        assert_eq!(tree.gramine().quote([7; 64]).unwrap_err().code(), code, "{file} of {} bytes", contents.len());
    }
    for file in FILES {
        let tree = StandIn::new();
        fs::remove_file(tree.path(file)).unwrap();
        let code = if file == "attestation_type" { "gramine.missing" } else { "gramine.io" };
        assert_eq!(tree.gramine().quote([7; 64]).unwrap_err().code(), code, "without {file}");
        assert!(!tree.path(file).exists(), "nothing is made that was not there");
    }
}

/// A pipe stands in for a quoting enclave that never answers: opening it waits for a writer.
#[test]
fn a_quote_that_never_comes() {
    let tree = StandIn::new();
    fs::remove_file(tree.path("quote")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(tree.path("quote")).status().unwrap().success());
    let gramine = tree.gramine().with_patience(Duration::from_millis(1));
    assert_eq!(gramine.quote([7; 64]).unwrap_err().code(), "gramine.timed-out");
    // Only one request is under way, whoever asks.
    assert_eq!(gramine.clone().quote([7; 64]).unwrap_err().code(), "gramine.busy");
    // The writer comes and goes; what was read is no quote, and the next request is served.
    let opened = fs::OpenOptions::new().write(true).open(tree.path("quote")).unwrap();
    drop(opened);
    let patient = gramine.with_patience(Duration::from_secs(600));
    assert_eq!(patient.attestation().unwrap(), GramineAttestation::Dcap);
}
