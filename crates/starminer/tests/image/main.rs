//! The measured image in a machine of its own: QEMU in software, OVMF with Secure Boot and keys of the test's own, a TPM by swtpm. Nothing is simulated but the silicon, and
//! so the tier that is reached is `measured (simulated)`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod disk;
#[path = "../../../starminer-attester/tests/tpm/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "../../../starminer-hardware/tests/predict/builder.rs"]
#[allow(dead_code, clippy::cast_possible_truncation, clippy::new_without_default)]
mod firmware;
mod host;
mod launch;
mod machine;
mod power;
mod power_loss;
#[path = "../support/mod.rs"]
mod support;
mod tamper;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use starminer_hardware::tpm::PcrIndex;
use starminer_receipt::{Outcome, Overall};
use starminer_verify::{HardwarePolicy, HostMeasure, OperatorMayReadMemory, Policy, Provenance, ReferenceValues, Tier};

use machine::{Firmware, Lab, Storage};
use support::{Network, assert_diagnosis, runtime, text};

/// Firmware, image, keys, and what the kernel was started with, all told before any machine has started.
const REGISTERS: [u8; 6] = [0, 2, 4, 7, 9, 11];

/// The strict rules, with reference values over [`REGISTERS`].
fn rules() -> HardwarePolicy {
    let mut rules = HardwarePolicy::strict();
    rules.tpm.pcrs = REGISTERS.into_iter().filter_map(PcrIndex::new).collect::<BTreeSet<_>>();
    rules
}

/// A coordinator that knows what nodes measure which start this image, and nothing else; and its trust file as a guest needs it.
fn coordinator(lab: &Lab, image: &Path) -> (Network, String) {
    coordinator_for(lab, image, Storage::Memory, &[])
}

/// The same for nodes with such storage, each of which has to show these measures of its host.
fn coordinator_for(lab: &Lab, image: &Path, storage: Storage, posture: &[HostMeasure]) -> (Network, String) {
    let (network, told) = coordinator_told(lab, image, storage, posture);
    (network, fs::read_to_string(told.join("network.toml.cred")).unwrap())
}

/// The same, and the directory of all that a node is told.
fn coordinator_told(lab: &Lab, image: &Path, storage: Storage, posture: &[HostMeasure]) -> (Network, PathBuf) {
    let network = Network::prepared_with(&["--tpm-root", &text(&lab.tpm_root())]);
    let coordinator = network.path("coordinator");
    let trust_file = coordinator.join("network.toml");
    let mut trust: toml::Table = fs::read_to_string(&trust_file).unwrap().parse().unwrap();
    // To the guest, this machine's loopback is the gateway. It is told no reference values: they are over what it is told.
    let for_guest = trust.to_string().replace(&network.address, &network.address.replace("127.0.0.1", "10.0.2.2"));
    let told = lab.credentials(&for_guest, storage);
    let values = ReferenceValues::parse(&lab.predict(image, &told)).unwrap();
    trust.insert("reference_values".into(), toml::Value::try_from(&values).unwrap());
    fs::write(&trust_file, trust.to_string()).unwrap();
    let settings_file = coordinator.join("coordinator.toml");
    let mut settings: toml::Table = fs::read_to_string(&settings_file).unwrap().parse().unwrap();
    let hardware = toml::Value::try_from(rules()).unwrap();
    let limits = settings["limits"].as_table_mut().unwrap();
    limits.insert("hardware".into(), hardware);
    limits.insert("required_posture".into(), toml::Value::try_from(posture).unwrap());
    fs::write(&settings_file, settings.to_string()).unwrap();
    network.start_process("coordinator");
    (network, told)
}

#[test]
fn a_signed_image_reaches_tier_measured_and_runs_a_job() {
    let Some(lab) = Lab::new() else { return };
    let image = lab.build("image", "db", &[]);
    let (network, trust) = coordinator(&lab, &image);
    let mut machine = lab.boot(&image.join("starminer-node.signed.efi"), Firmware::ChecksKeys, Some(&trust));
    let admitted = machine.wait_for("the node is admitted");
    assert!(
        admitted.contains(r#"tier="measured" provenance="simulated""#),
        "{admitted}\n{}",
        network.log("coordinator")
    );
    eprintln!("figures: {} ms from power on to first evidence that counts, in software", machine.age().as_millis());

    let receipt = runtime().block_on(async {
        let requester = network.requester("requester");
        let mut job = network.diagnosis_job();
        let mut fields = job.policy.fields().clone();
        (fields.minimum_tier, fields.operator_may_read_memory) = (Tier::Measured, OperatorMayReadMemory::Yes);
        fields.hardware = Some(Box::new(rules()));
        job.policy = Policy::new(fields).unwrap();
        let task = requester.submit(&job, None, None).await.unwrap();
        let view = requester.wait(&task).await.unwrap();
        let out = network.path("requester").join("out");
        let outcome = requester.collect(view, &out).await.unwrap();
        assert_eq!(outcome.outcome, Some(Outcome::Completed));
        assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
        assert_eq!(outcome.verdict.tier, Some(Tier::Measured));
        assert!(matches!(outcome.verdict.provenance, Some(Provenance::Simulated { .. })));
        assert_diagnosis(&out.join("predictions.csv"));
        outcome.receipt_path
    });
    tamper::second_opinion(&receipt);
    tamper::memory_shows_plaintext(&network, &machine);
}

/// What the operator may change without anybody's key: the node comes, and is not `measured`.
#[test]
fn firmware_that_checks_nothing_is_not_measured() {
    let Some(lab) = Lab::new() else { return };
    let image = lab.build("image", "db", &[]);
    let (_network, trust) = coordinator(&lab, &image);
    let mut machine = lab.boot(&image.join("starminer-node.signed.efi"), Firmware::ChecksNothing, Some(&trust));
    let admitted = machine.wait_for("the node is admitted");
    assert!(admitted.contains(r#"tier="identified" provenance="simulated""#), "{admitted}");
}

#[test]
fn firmware_starts_no_image_that_its_keys_did_not_sign() {
    let Some(lab) = Lab::new() else { return };
    // `other` is a key as good as `db`, of which the firmware does not know.
    let image = lab.build("image", "other", &[]);
    for refused in ["starminer-node.efi", "starminer-node.signed.efi"] {
        let mut machine = lab.boot(&image.join(refused), Firmware::ChecksKeys, None);
        let said = machine.wait_for("BdsDxe: failed to load");
        assert!(said.contains("Access Denied"), "{refused}: {said}");
        assert!(!machine.console().contains("Linux version"), "{refused}: {}", machine.console());
    }
}

#[test]
fn an_image_is_the_same_from_the_same_inputs() {
    let Some(lab) = Lab::new() else { return };
    let [first, second] = ["first", "second"].map(|name| lab.build(name, "db", &[]));
    for name in ["starminer-node.efi", "manifest.json"] {
        assert!(fs::read(first.join(name)).unwrap() == fs::read(second.join(name)).unwrap(), "{name} differs");
    }
    let size = fs::metadata(first.join("starminer-node.efi")).unwrap().len();
    assert!(size <= 64 << 20, "the image has {size} bytes");
    let agent = lab.agent_bytes();
    assert!(agent <= 48 << 20, "the agent has {agent} bytes");
    eprintln!("figures: image {size} bytes, agent {agent} bytes");
}
