//! A node with a TPM, from its configuration to its evidence: the conversation by which the TPM is enrolled, with a coordinator that gets each step of it
//! wrong once, and what is kept over a restart. The TPM is a running emulator; skipped, with a printed word, where it is not installed.

#![allow(clippy::unwrap_used)]

#[path = "../../starminer-attester/tests/joined/boot.rs"]
#[allow(dead_code)]
mod boot;
#[path = "../../starminer-attester/tests/tpm/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "../../starminer-hardware/tests/event_log/builder.rs"]
#[allow(dead_code)]
mod log_builder;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use emulator::Swtpm;
use starminer_agent::testing::{KeptEnrolment, devices, serve};
use starminer_agent::{AgentConfig, AgentError, CONFIG_FILE};
use starminer_attester::Attester as _;
use starminer_attester::tpm::KnownEk;
use starminer_hardware::cert::Certificate;
use starminer_receipt::{EnrolmentStatement, Envelope, FacilityStatement, Outcome, Signer as _};
use starminer_verify::{Digest, EvidenceKind, NetworkId, UnixTime};
use support::coordinator::{Coordinator, Grants, Line, parts};
use support::enroller::{Enroller, Mood};
use support::{Job, example, key};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

/// A node's directory: configuration, the TPM's authorities, what a facility says, and a tree for the logs.
struct Machine {
    dir: tempfile::TempDir,
}

fn authorities(tpm: &Swtpm) -> Vec<Certificate> {
    let files = ["ca/issuer.pem", "ca/swtpm-localca-rootca-cert.pem"];
    files.into_iter().flat_map(|name| Certificate::read(&tpm.file(name)).unwrap()).collect()
}

impl Machine {
    fn new(coordinator: &Coordinator, tpm: &Swtpm) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in ["data", "tree"] {
            fs::create_dir(dir.path().join(file)).unwrap();
        }
        coordinator.world.device().save(&dir.path().join("software-tee.key")).unwrap();
        let facility = FacilityStatement {
            network: coordinator.world.network,
            chip: Digest([3; 32]),
            not_before: UnixTime(1),
            not_after: UnixTime(2),
            facility: key(30).public_key(),
        };
        let envelope = Envelope::sign(facility, &key(30)).unwrap().into_envelope();
        fs::write(dir.path().join("facility.json"), serde_json::to_vec(&envelope).unwrap()).unwrap();
        let machine = Self { dir };
        machine.attach(tpm);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has this TPM in it from now on.
    fn attach(&self, tpm: &Swtpm) {
        let pem = ["ca/issuer.pem", "ca/swtpm-localca-rootca-cert.pem"].map(|name| tpm.file(name)).concat();
        fs::write(self.path("authorities.pem"), pem).unwrap();
        self.configure(tpm, "software_tee = \"software-tee.key\"\n", "tee = \"auto\"", "");
    }

    fn configure(&self, tpm: &Swtpm, top: &str, hardware: &str, more: &str) {
        let text = format!(
            "network = \"network.toml\"\nidentity = \"node.key\"\ndata_dir = \"data\"\n{top}\
             [hardware]\n{hardware}\nroot = \"tree\"\nfacility_statements = [\"facility.json\"]\n\
             [hardware.tpm]\naddress = \"unix:{}\"\ncertificates = [\"authorities.pem\"]\n{more}",
            tpm.socket().display()
        );
        fs::write(self.path(CONFIG_FILE), text).unwrap();
    }

    fn config(&self) -> AgentConfig {
        AgentConfig::load(&self.path(CONFIG_FILE)).unwrap()
    }

    fn kept(&self) -> Option<KeptEnrolment> {
        KeptEnrolment::load(&self.path("enrolment.json")).unwrap()
    }

    async fn devices(
        &self,
        coordinator: &Coordinator,
    ) -> Result<(starminer_attester::JoinedAttester, starminer_agent::testing::Statements), AgentError> {
        let (config, network, node) = (self.config(), coordinator.world.network, coordinator.world.node);
        tokio::task::spawn_blocking(move || devices(&config, network, node)).await.unwrap()
    }
}

/// A node that runs until it is stopped.
struct Node {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Node {
    /// Starts it and waits until it is admitted.
    async fn admitted(coordinator: &Arc<Coordinator>, machine: &Machine) -> Self {
        let (device, statements) = machine.devices(coordinator).await.unwrap();
        let mut parts = parts(&coordinator.world, Line::Direct(Arc::clone(coordinator)), &machine.path("data"), 2);
        let (told, admitted) = oneshot::channel();
        parts.device = Arc::new(device);
        parts.statements = statements;
        parts.admitted = Box::new(move || {
            let _ = told.send(());
        });
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            serve(parts, async {
                let _ = stopped.await;
            })
            .await
            .unwrap();
        });
        tokio::time::timeout(PATIENCE, admitted).await.expect("admitted in time").unwrap();
        Self { stop, running }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.running).await.expect("stops in time").unwrap();
    }
}

fn coordinator(tpm: &Swtpm, moods: &[Mood]) -> Arc<Coordinator> {
    Coordinator::enrolling(Enroller::new(authorities(tpm), moods.iter().copied()))
}

fn enroller(coordinator: &Coordinator) -> &Enroller {
    coordinator.enroller.as_ref().unwrap()
}

async fn ask<T: Send + 'static>(
    coordinator: &Arc<Coordinator>,
    question: impl FnOnce(&Coordinator) -> T + Send + 'static,
) -> T {
    let coordinator = Arc::clone(coordinator);
    tokio::task::spawn_blocking(move || question(&coordinator)).await.unwrap()
}

const LONG_ENTRIES: usize = 4;

/// With more in its list than a frame to a task process holds.
fn boot_with_a_long_list(tpm: &Swtpm, root: &Path) {
    boot::boot(tpm, root);
    let mut list = fs::read(root.join(boot::IMA)).unwrap();
    for _ in 0..LONG_ENTRIES {
        list.extend(boot::measure(tpm, &"/long".repeat(45_000), Digest([8; 32])));
    }
    boot::put(root, boot::IMA, &list);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_is_enrolled_once_and_takes_part_in_all_evidence() {
    let Some(tpm) = Swtpm::start() else { return };
    let coordinator = coordinator(&tpm, &[]);
    let machine = Machine::new(&coordinator, &tpm);
    boot_with_a_long_list(&tpm, &machine.path("tree"));
    let node = Node::admitted(&coordinator, &machine).await;
    assert_eq!((enroller(&coordinator).offers(), coordinator.admissions()), (1, 1));
    let mode = fs::metadata(machine.path("enrolment.json")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    let job = Job::wasm(example("wordcount/wordcount.wasm")).input("notes", example("wordcount/clinic-notes.txt"));
    let job = Arc::new(coordinator.world.seal(&job));
    let name = coordinator.lease(job, 1, Grants::AtOnce);
    // Evidence, closing evidence and report are verified there.
    let result = ask(&coordinator, move |coordinator| coordinator.open(name)).await;
    assert_eq!(result.report.predicate.outcome, Outcome::Completed);
    let found = ask(&coordinator, move |coordinator| coordinator.verified(name)).await;
    assert_eq!(found.device().kind(), EvidenceKind::SoftwareTee);
    let claims = found.tpm().unwrap();
    assert!(claims.enrolment().is_some(), "the enrolment is of the key that quoted");
    assert_eq!(claims.ima().map(|ima| ima.entries()), Some(2 + LONG_ENTRIES));
    assert!(claims.boot_log().is_some());
    let evidence = ask(&coordinator, move |coordinator| coordinator.wait_evidence(name)).await;
    assert!(evidence.len() > 1 << 20, "{} bytes", evidence.len());
    let along = coordinator.enrolments_of(name);
    assert_eq!(along.len(), 2);
    assert_eq!(along[0].clone().open::<EnrolmentStatement>().unwrap().node, coordinator.world.node);
    assert!(along[1].clone().open::<FacilityStatement>().is_ok());
    node.stop().await;

    // After a restart nothing is asked anew, and no other TPM would be taken for it.
    let kept = machine.kept().unwrap();
    let ek_name = {
        let (device, _) = machine.devices(&coordinator).await.unwrap();
        device.tpm().unwrap().ek_name().to_vec()
    };
    assert_eq!(kept.known_ek(), KnownEk::Name(ek_name));
    let node = Node::admitted(&coordinator, &machine).await;
    assert_eq!((enroller(&coordinator).offers(), coordinator.admissions()), (1, 2));
    node.stop().await;

    // A coordinator that does not know it any more is asked once more.
    enroller(&coordinator).forget();
    let node = Node::admitted(&coordinator, &machine).await;
    assert_eq!((enroller(&coordinator).offers(), coordinator.admissions()), (2, 3));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_is_asked_again_and_nothing_wrong_is_kept() {
    let Some(tpm) = Swtpm::start() else { return };
    let moods = [
        Mood::Refuses,
        Mood::OtherKey,
        Mood::TakesNoAnswer,
        Mood::GivesNone,
        Mood::OtherNode,
        Mood::OtherCertificate,
        Mood::Forged,
    ];
    let coordinator = coordinator(&tpm, &moods);
    let machine = Machine::new(&coordinator, &tpm);
    // Without a CPU TEE, and without logs.
    machine.configure(
        &tpm,
        "",
        "tee = \"none\"",
        "key = \"rsapss-2048\"\nendorsement_key = \"rsa-2048\"\nlogs = \"none\"\n",
    );
    let node = Node::admitted(&coordinator, &machine).await;
    assert_eq!(enroller(&coordinator).offers(), 8);
    // The answers that could be given: all but to the refusal, to the credential of another key, and to the answer that was refused.
    assert_eq!(coordinator.admissions(), 5);
    assert!(machine.kept().is_some());
    node.stop().await;
    let node = Node::admitted(&coordinator, &machine).await;
    assert_eq!(enroller(&coordinator).offers(), 8);
    node.stop().await;

    // Another attestation key of the same TPM is enrolled anew.
    machine.configure(
        &tpm,
        "",
        "tee = \"none\"",
        "key = \"ecdsa-p256\"\nendorsement_key = \"rsa-2048\"\nlogs = \"none\"\n",
    );
    let node = Node::admitted(&coordinator, &machine).await;
    assert_eq!(enroller(&coordinator).offers(), 9);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tpm_is_not_taken_for_the_one_that_was_enrolled() {
    let (Some(tpm), Some(other)) = (Swtpm::start(), Swtpm::start()) else { return };
    let coordinator = coordinator(&tpm, &[]);
    let machine = Machine::new(&coordinator, &tpm);
    Node::admitted(&coordinator, &machine).await.stop().await;
    machine.attach(&other);
    let refused = machine.devices(&coordinator).await.unwrap_err();
    assert!(matches!(&refused, AgentError::OtherTpm { path, .. } if *path == machine.path("enrolment.json")));
    assert_eq!(refused.code(), "tpm.device.other-endorsement-key");

    machine.attach(&tpm);
    machine.devices(&coordinator).await.unwrap();
    for damaged in [&b""[..], b"{}", b"[1]", &[b' '; 70_000]] {
        fs::write(machine.path("enrolment.json"), damaged).unwrap();
        let refused = machine.devices(&coordinator).await.unwrap_err();
        assert!(matches!(refused.code(), "node.enrolment-file" | "node.file"), "{refused}");
    }
    fs::remove_file(machine.path("enrolment.json")).unwrap();
    machine.attach(&other);
    machine.devices(&coordinator).await.unwrap();
}

/// No TPM takes part in these.
#[tokio::test(flavor = "multi_thread")]
async fn devices_and_statements_that_are_not_there() {
    let coordinator = Coordinator::new();
    let (network, node) = (coordinator.world.network, coordinator.world.node);
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    coordinator.world.device().save(&dir.path().join("software-tee.key")).unwrap();
    let check = |lines: &str, wanted: Result<EvidenceKind, &str>| {
        let path = dir.path().join(CONFIG_FILE);
        let head = "network = \"n\"\nidentity = \"k\"\ndata_dir = \"d\"\n";
        fs::write(&path, format!("{head}{lines}")).unwrap();
        let found = devices(&AgentConfig::load(&path).unwrap(), network, node);
        match (found, wanted) {
            (Ok((device, _)), Ok(kind)) => assert_eq!((device.kind(), device.ak_name()), (kind, None), "{lines}"),
            (Err(error), Err(code)) => assert_eq!(error.code(), code, "{lines}: {error}"),
            (found, _) => panic!("{lines}: {found:?}"),
        }
    };
    let software = "software_tee = \"software-tee.key\"\n";
    check(software, Ok(EvidenceKind::SoftwareTee));
    check("software_tee = \"nothing\"\n", Err("node.device-file"));
    check(&format!("{software}[hardware]\nroot = \"tree\"\n"), Ok(EvidenceKind::SoftwareTee));
    check("[hardware]\nroot = \"tree\"\n", Err("device.none"));
    check("[hardware]\nroot = \"tree\"\ntee = \"tsm\"\n", Err("tsm.missing"));
    check("[hardware]\nroot = \"tree\"\ntee = \"sev-guest\"\n", Err("sev-guest.missing"));
    check("[hardware]\nroot = \"tree\"\ntee = \"gramine\"\n", Err("gramine.missing"));
    check("[hardware.tpm]\naddress = \"unix:/nowhere/tpm.sock\"\n", Err("tpm.device.absent"));
    check(
        &format!("{software}[hardware]\nroot = \"tree\"\n[hardware.tpm]\ncertificates = [\"nothing\"]\n"),
        Err("node.file"),
    );

    let facility = |network: NetworkId| FacilityStatement {
        network,
        chip: Digest([3; 32]),
        not_before: UnixTime(1),
        not_after: UnixTime(2),
        facility: key(30).public_key(),
    };
    let with = format!("{software}[hardware]\nroot = \"tree\"\nfacility_statements = [\"f\"]\n");
    check(&with, Err("node.file"));
    let write = |network| {
        let envelope = Envelope::sign(facility(network), &key(30)).unwrap().into_envelope();
        fs::write(dir.path().join("f"), serde_json::to_vec(&envelope).unwrap()).unwrap();
    };
    write(network);
    check(&with, Ok(EvidenceKind::SoftwareTee));
    write(NetworkId([0; 32]));
    check(&with, Err("node.config"));
    fs::write(dir.path().join("f"), b"{}").unwrap();
    check(&with, Err("node.config"));
}
