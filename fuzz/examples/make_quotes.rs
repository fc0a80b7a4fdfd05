//! Writes `data/`: quotes of Intel's form with endorsements, and a few of other makers, by test authorities whose keys end with this process.
//!
//! `cargo run --release -p starminer-fuzz --example make_quotes`, after the form of endorsements has changed, and then `make_corpus`. A quote with certificates
//! of a root that is not compiled in shows as simulated, so that nothing is lost with the keys.

#![allow(clippy::unwrap_used)]

#[path = "../../crates/starminer-hardware/tests/dcap/pki.rs"]
#[allow(dead_code, missing_docs)] // the tests use more of it
mod pki;
#[path = "../../crates/starminer-hardware/tests/endorsements/responder.rs"]
#[allow(dead_code, missing_docs)] // likewise
mod responder;

use std::fs;
use std::path::Path;

use data_encoding::{BASE64, HEXLOWER};
use pki::{Form, World};
use rcgen::ExtendedKeyUsagePurpose;
use responder::{Answer, Party, params};
use serde_json::json;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    fs::create_dir_all(&folder).unwrap();
    for (name, form) in starminer_fuzz::hardware::MADE_QUOTES.into_iter().zip([Form::Sgx3, Form::Td10v4, Form::Td15v5])
    {
        let world = World::new(form);
        let write = |kind: &str, bytes: &[u8]| fs::write(folder.join(format!("{name}.{kind}")), bytes).unwrap();
        write("quote", &world.quote(&world.body()));
        write("json", &world.json());
        write("root", world.root.certificate.der());
        assert!(world.verify().verified.is_some(), "{form:?}");
    }
    fs::write(folder.join("others.json"), others()).unwrap();
}

/// Of a maker of TPMs its authority and that one's list, and of a maker of GPUs that a device's certificate is good, by a responder that its issuer named.
fn others() -> Vec<u8> {
    let maker = Party::root("maker root");
    let authority = maker.issue(params("maker authority", true));
    let root = Party::root("device root");
    let issuer = root.issue(params("device issuer", true));
    let device = issuer.issue(params("device", false));
    let mut responder = params("responder", false);
    responder.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
    let responder = issuer.issue(responder);
    let serial = device.certificate.serial().to_vec();
    let hex = |bytes: &[u8]| HEXLOWER.encode(bytes);
    let key = format!("nvidia/ocsp/{}/{}", hex(&issuer.certificate.fingerprint()), hex(&serial));
    let answer = Answer {
        about: (&issuer.certificate, serial),
        status: vec![0x80, 0],
        days: (-1, Some(1)),
        by: &responder,
        with: vec![responder.certificate.clone()],
    };
    let base64 = |bytes: &[u8]| BASE64.encode(bytes);
    let chain = [issuer.certificate.der(), root.certificate.der()].concat();
    json!({
        "tpm_root": base64(maker.certificate.der()),
        "nvidia_root": base64(root.certificate.der()),
        "endorsements": [
            {
                "key": "tpm/authority/https://maker.example/authority.cer",
                "content": base64(authority.certificate.der()),
                "chain": "",
            },
            {"key": "tpm/crl/http://maker.example/list.crl", "content": base64(&authority.list(5, -1)), "chain": ""},
            {"key": key, "content": base64(&answer.encode()), "chain": base64(&chain)},
        ],
    })
    .to_string()
    .into_bytes()
}
