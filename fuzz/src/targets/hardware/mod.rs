//! Targets of `starminer-hardware`: every parser, and behind it the verifier, under makers' own roots.
//!
//! What is asserted throughout: evidence verifies only if its signed bytes are those that real keys signed ([`crate::hardware`]), what it then claims is the
//! same, no policy by default accepts it, and every reason that a check gives is safe to show.

mod certificates;
mod endorsements;
mod evidence;
mod images;
mod logs;
mod policies;

pub use certificates::{certificates, endorsement_key, revocation_lists};
pub use endorsements::{bundle as endorsement_bundle, endorsement, names as endorsement_names};
pub use evidence::{
    dcap_endorsements, dcap_quote, gpu_evidence, gpu_manifest, gpu_report, snp_evidence, snp_report, tpm_forms,
    tpm_quote,
};
pub use images::{boot_program, firmware};
pub use logs::{event_log, ima_list, registers, signature_list};
pub use policies::policies;

use data_encoding::BASE64;
use serde_json::{Value, json};
use starminer_hardware::endorsements::{Marks, Snapshot, encode as encode_snapshot};

use crate::hardware::endorsements::{HONEST, NOW_S as ENDORSED_S, TRUST, encode as encode_candidate};
use crate::hardware::images::{FirmwareBuilder, pe};
use crate::hardware::logs::{self as known_logs, made_event_logs, made_lists, signature_lists};
use crate::hardware::{DCAP, GPUS, MADE_QUOTES, MANIFESTS, SNP, TPM, own, vector};
use crate::seeds::Seed;

/// Members of JSON, in base64.
fn members<const N: usize>(data: &[u8], names: [&str; N]) -> Option<[Vec<u8>; N]> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let parts = names.map(|name| BASE64.decode(value[name].as_str()?.as_bytes()).ok());
    parts.iter().all(Option::is_some).then(|| parts.map(Option::unwrap_or_default))
}

fn bundle(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let members = parts.iter().map(|(name, bytes)| ((*name).to_owned(), BASE64.encode(bytes).into()));
    Value::Object(members.collect()).to_string().into_bytes()
}

fn ders(certificates: &[starminer_hardware::cert::Certificate]) -> Vec<u8> {
    certificates.iter().flat_map(|certificate| certificate.der().to_vec()).collect()
}

/// Seeds of these targets: of the repository's own evidence.
pub fn seeds() -> Vec<Seed> {
    let mut all: Vec<Seed> = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| all.push((target, name.to_owned(), bytes));
    let milan = &SNP[0];
    add("hardware-certificates", "milan-vcek", ders(&milan.certificates));
    add("hardware-certificates", "turin-vcek", own("tests/data/amd/vcek_turin.der"));
    add("hardware-certificates", "milan-ask.pem", own("roots/amd/milan_ask.pem"));
    add("hardware-certificates", "nuvoton", own("tests/tpm/data/nuvoton-ek-rsa.der"));
    add("hardware-certificates", "swtpm", own("tests/tpm/data/swtpm-ca.pem"));
    add("hardware-crl", "turin", own("tests/data/amd/turin.crl"));
    add("hardware-snp-report", "milan-v2", milan.report.clone());
    let certificates = ders(&milan.certificates);
    add(
        "hardware-snp",
        "milan-v2",
        bundle(&[("report", &milan.report), ("certificates", &certificates), ("crls", b"")]),
    );
    for (name, known) in MADE_QUOTES.iter().zip(DCAP.iter()) {
        add("hardware-quote", name, known.quote.clone());
        add("hardware-endorsements", name, known.json.clone());
    }
    for (name, known) in ["rsassa", "rsapss", "ecdsa"].into_iter().zip(TPM.iter()) {
        let parts: [(&str, &[u8]); 4] =
            [("attest", &known.attest), ("signature", &known.signature), ("key", &known.public), ("pcrs", &known.pcrs)];
        add("hardware-tpm-quote", name, bundle(&parts));
        for (kind, bytes) in parts {
            add("hardware-tpm-forms", &format!("{name}-{kind}"), bytes.to_vec());
        }
    }
    for name in ["ek-rsa2048.pub", "ek-p384.pub"] {
        add("hardware-tpm-forms", name, own(&format!("tests/tpm/data/{name}")));
    }
    for name in ["nuvoton-ek-rsa.der", "stmicro-ek-rsa-padded.der", "stmicro-ek-ecc.der", "swtpm-ek.der"] {
        add("hardware-ek", name, own(&format!("tests/tpm/data/{name}")));
    }
    for (name, log) in made_event_logs() {
        add("hardware-event-log", name, log);
    }
    let registers = json!({"sha256": {"0": "00".repeat(32), "23": "ff".repeat(32)}, "sha1": {"7": "7a".repeat(20)}});
    add("hardware-registers", "two-banks", registers.to_string().into_bytes());
    add("hardware-registers", "none", b"{}".to_vec());
    add("hardware-signature-list", "two", signature_lists());
    add("hardware-firmware", "both", FirmwareBuilder::new().build());
    let sections: [(&str, &[u8], usize); 3] =
        [(".linux", b"MZ", 0x1000), (".initrd", &[7; 600], 600), (".cmdline", b"quiet", 5)];
    add("hardware-boot-program", "image", pe(&sections, b"", b""));
    add("hardware-boot-program", "signed", pe(&sections[..1], b"trailing", &[0, 0, 0, 0, 0, 2, 2, 0]));
    for (name, list) in made_lists() {
        add("hardware-ima", name, list);
    }
    let hopper = &GPUS[0];
    add("hardware-gpu", "hopper", hopper.json(&hopper.report));
    add("hardware-gpu-report", "hopper", hopper.report.clone());
    add("hardware-gpu-manifest", "vbios", MANIFESTS[0].clone());
    for (name, set) in HONEST.iter() {
        let file = set.iter().map(|one| (one.key.to_string(), encode_candidate(one)));
        for (at, (key, bytes)) in file.enumerate() {
            add("hardware-endorsement", &format!("{name}-{at}"), bytes);
            if name == "amd" || name == "others" || name == "sgx3" {
                add("hardware-endorsement-names", &format!("{name}-{at}"), key.into_bytes());
            }
        }
    }
    // One of Intel's, and all kinds together.
    for (name, sets) in [("small", &HONEST[..2]), ("all", &HONEST[..3])] {
        let (mut snapshot, mut marks) = (Snapshot::default(), Marks::none());
        for candidate in sets.iter().flat_map(|(_, set)| set) {
            let item = snapshot.verify(candidate, &TRUST, ENDORSED_S).expect("it holds");
            snapshot = snapshot.with(item, &mut marks).expect("it is the first of its key");
        }
        add("hardware-bundle", name, encode_snapshot(&snapshot));
        add("hardware-endorsement-names", &format!("marks-{name}"), serde_json::to_vec(&marks).expect("JSON"));
    }
    add("hardware-endorsement-names", "rim", b"nvidia/rim/NV_GPU_DRIVER_GH100_550.144.03".to_vec());
    add("hardware-endorsement-names", "address", b"https://ftpm.amd.com/pki/aia/264D?a=b".to_vec());
    for (name, text) in policies::SEEDS {
        add("hardware-policy", name, text.as_bytes().to_vec());
    }
    all
}

/// Further seeds, of vectors and samples that are on this machine and stay where they are.
pub fn found_seeds(target: &str) -> Vec<Vec<u8>> {
    let found = |names: &[&str]| names.iter().filter_map(|name| vector(name)).collect::<Vec<_>>();
    match target {
        "hardware-certificates" => {
            found(&["snp/milan_vcek.pem", "snp/genoa_ask.pem", "nvidia/rim_root.crt", "tpm-ek/nuvoton_ek.pem"])
        }
        "hardware-crl" => found(&["dcap/gt_pck.crl", "dcap/gt_root.crl"]),
        "hardware-snp-report" => SNP.iter().skip(1).map(|known| known.report.clone()).collect(),
        "hardware-snp" => SNP
            .iter()
            .skip(1)
            .map(|known| {
                let certificates = ders(&known.certificates);
                bundle(&[("report", &known.report), ("certificates", &certificates), ("crls", b"")])
            })
            .collect(),
        "hardware-quote" => {
            let samples = DCAP.iter().skip(MADE_QUOTES.len()).map(|known| known.quote.clone());
            samples.chain(vector("dcap/go_tdx_guest_spr_v4.dat")).collect()
        }
        "hardware-endorsements" => DCAP.iter().skip(MADE_QUOTES.len()).map(|known| known.json.clone()).collect(),
        "hardware-ek" => found(&["tpm-ek/nuvoton_ek.pem"]),
        "hardware-event-log" => {
            known_logs::VECTOR_LOGS.iter().filter_map(|name| vector(&format!("eventlog/{name}"))).collect()
        }
        "hardware-ima" => known_logs::LISTS.iter().skip(made_lists().len()).map(|known| known.list.clone()).collect(),
        "hardware-gpu" => GPUS.iter().skip(1).map(|known| known.json(&known.report)).collect(),
        "hardware-gpu-report" => GPUS.iter().skip(1).map(|known| known.report.clone()).collect(),
        "hardware-gpu-manifest" => MANIFESTS.iter().skip(1).cloned().collect(),
        _ => Vec::new(),
    }
}
