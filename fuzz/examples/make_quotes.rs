//! Writes `data/`: quotes of Intel's form with endorsements, by a test authority whose keys end with this process.
//!
//! `cargo run --release -p starminer-fuzz --example make_quotes`, after the form of endorsements has changed, and then `make_corpus`. A quote with certificates
//! of a root that is not compiled in shows as simulated, so that nothing is lost with the keys.

#![allow(clippy::unwrap_used)]

#[path = "../../crates/starminer-hardware/tests/dcap/pki.rs"]
#[allow(dead_code, missing_docs)] // the tests use more of it
mod pki;

use std::fs;
use std::path::Path;

use pki::{Form, World};

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
}
