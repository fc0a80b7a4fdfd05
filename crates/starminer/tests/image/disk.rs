//! The node's disk: what opens it, what does not, and with which word each start is refused. The power is cut each time, as a machine's process is killed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use starminer_receipt::{Outcome, Overall};
use starminer_verify::{HostMeasure, OperatorMayReadMemory, Policy, Tier};

use crate::emulator::Swtpm;
use crate::machine::{Data, Firmware, Lab, Machine, Storage};
use crate::support::{copy_dir, example, must, runtime, text};
use crate::{coordinator_for, rules};

/// What a machine says whose disk is open.
const OPEN: &str = "starminer-init: the disk is ";
/// What it says when it is not.
const REFUSED: &str = "starminer-init: the disk is not opened";
/// Of the node's disk: sparse, so that it takes what is written.
const DISK_BYTES: u64 = 512 << 20;
/// A coordinator that nobody reaches: the disk is opened before anybody is asked.
const NOWHERE: &str = "no trust file";

/// A blank disk.
pub fn blank(lab: &Lab, name: &str) -> PathBuf {
    let disk = lab.path(name);
    File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
    disk
}

pub fn signed(image: &Path) -> PathBuf {
    image.join("starminer-node.signed.efi")
}

/// Starts a machine, waits for its word about the disk, and cuts the power.
fn word(lab: &Lab, image: &Path, firmware: Firmware, disk: &Path, tpm: &Path) -> String {
    let mut machine = lab.boot_with(&signed(image), firmware, Some(NOWHERE), Some(Data { disk, tpm, writes: None }));
    machine.wait_for("starminer-init: the disk is ")
}

/// The code of a refusal.
#[track_caller]
fn refused(said: &str) -> &str {
    assert!(said.contains(REFUSED), "{said}");
    said.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(code, _)| code).expect("a code in brackets")
}

#[track_caller]
fn opened(said: &str, how: &str) {
    assert!(said.contains(OPEN) && said.contains(how), "{said}");
}

/// A copy of a file that keeps its holes.
pub fn copy(from: &Path, to: &Path) {
    must_run("cp", &["--sparse=always", &text(from), &text(to)]);
}

fn must_run(program: &str, arguments: &[&str]) {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

/// Whether these bytes stand anywhere in a file.
fn holds(file: &Path, wanted: &[u8]) -> bool {
    let file = File::open(file).unwrap();
    let mut buffer = vec![0; 8 << 20];
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at).unwrap();
        if buffer[..read].windows(wanted.len()).any(|window| window == wanted) {
            return true;
        }
        if read < wanted.len() {
            return false;
        }
        // What begins in this piece and ends in the next.
        at += (read - wanted.len() + 1) as u64;
    }
}

/// The node's identity, as its agent says it at its start.
fn node(machine: &mut Machine) -> String {
    let said = machine.wait_for("the node starts node=");
    let (_, rest) = said.split_once("node=").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

/// First start, a job, second start as the same node, and whatever was kept put back.
#[test]
fn a_disk_keeps_the_node_and_none_of_its_tasks_plaintext_and_does_not_go_back() {
    let Some(lab) = Lab::new() else { return };
    let image = lab.build("image", "db", &[]);
    let (disk, tpm) = (blank(&lab, "data.img"), lab.path("state"));
    // The coordinator admits a node only if all of this is in force: job storage on the disk among it.
    use HostMeasure::{DiskKeysGuarded, EndedInOrder, JobStorageEncrypted, JobStorageLocked, JobStorageUnshadowed};
    let posture = [DiskKeysGuarded, JobStorageEncrypted, JobStorageLocked, JobStorageUnshadowed];
    let (network, trust) = coordinator_for(&lab, &image, Storage::Disk, &posture);
    let data = Data { disk: &disk, tpm: &tpm, writes: None };
    let boot = || lab.boot_with(&signed(&image), Firmware::ChecksKeys, Some(&trust), Some(data));

    let mut machine = boot();
    opened(&machine.wait_for(OPEN), "formatted: start 1");
    let first = node(&mut machine);
    assert_eq!(first.len(), 64, "{first}");
    machine.wait_for("the node is admitted");
    let canary = b"canary-5e0f2f7a8c";
    runtime().block_on(async {
        let requester = network.requester("requester");
        let input = [&b"one two "[..], canary, b" two\n"].concat();
        let mut job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("text.txt", input)]);
        let mut fields = job.policy.fields().clone();
        (fields.minimum_tier, fields.operator_may_read_memory) = (Tier::Measured, OperatorMayReadMemory::Yes);
        fields.hardware = Some(Box::new(rules()));
        // Of a first start, nothing was cut off before.
        fields.minimum_posture.host = [&posture[..], &[EndedInOrder]].concat();
        job.policy = Policy::new(fields).unwrap();
        let task = requester.submit(&job, None, None).await.unwrap();
        let view = requester.wait(&task).await.unwrap();
        let outcome = requester.collect(view, &network.path("requester").join("out")).await.unwrap();
        assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
        assert_eq!(outcome.outcome, Some(Outcome::Completed));
        assert!(!outcome.outputs.is_empty());
    });
    drop(machine);
    let told = must(["node", "disk", "status", &text(&disk)]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("a node's disk") && told.contains("aes-xts-plain64, a key of 512 bits"), "{told}");
    assert!(told.contains("registers 0, 7 and 11") && !told.contains("not taken"), "{told}");
    let (old_disk, old_tpm) = (lab.path("old.img"), lab.path("old-state"));
    copy(&disk, &old_disk);
    copy_dir(&tpm, &old_tpm);

    let mut machine = boot();
    opened(&machine.wait_for(OPEN), "opened: start 2, the last start did not end in order");
    assert_eq!(node(&mut machine), first, "another node came back");
    machine.wait_for("the node is admitted");
    // Its TPM was enrolled, and that is kept.
    assert!(!machine.console().contains("the node's TPM is enrolled"), "{}", machine.console());
    drop(machine);
    assert!(holds(&disk, b"starminer-tpm2"), "the search finds what is there");
    assert!(!holds(&disk, canary), "plaintext of a task stands on the disk");
    assert!(!holds(&disk, b"this disk is being formatted"), "a file system overwrites the mark");
    // Nor does anything else of what is in the file system.
    assert!(
        !holds(&disk, b"starminer-starts/1") && !holds(&disk, b"node.key"),
        "the file system stands there in the clear"
    );

    let put_back = lab.path("put-back.img");
    copy(&old_disk, &put_back);
    let said = word(&lab, &image, Firmware::ChecksKeys, &put_back, &tpm);
    assert_eq!(refused(&said), "disk.old-disk", "{said}");
    let said = word(&lab, &image, Firmware::ChecksKeys, &disk, &old_tpm);
    assert_eq!(refused(&said), "disk.old-tpm", "{said}");
    // What was refused has harmed nothing.
    opened(&word(&lab, &image, Firmware::ChecksKeys, &disk, &tpm), "opened: start 3");
}

#[test]
fn another_machine_image_or_firmware_does_not_open_a_disk() {
    let Some(lab) = Lab::new() else { return };
    let Some(mut elsewhere) = Swtpm::start_with("sha256") else { return };
    elsewhere.kill();
    let image = lab.build("image", "db", &[]);
    let command_line = starminer_image::COMMAND_LINE.replace("quiet ", "");
    let other = lab.build("other", "db", &["--command-line", &command_line]);
    let (disk, tpm, other_tpm) = (blank(&lab, "data.img"), lab.path("state"), elsewhere.dir.path().join("state"));
    let own = || word(&lab, &image, Firmware::ChecksKeys, &disk, &tpm);
    opened(&own(), "formatted: start 1");
    for (image, firmware, tpm, code, names) in [
        (&image, Firmware::ChecksKeys, &other_tpm, "disk.other-tpm", ""),
        (&other, Firmware::ChecksKeys, &tpm, "disk.registers", "registers 11 "),
        (&image, Firmware::ChecksNothing, &tpm, "disk.registers", "registers 7 "),
    ] {
        let said = word(&lab, image, firmware, &disk, tpm);
        assert_eq!(refused(&said), code, "{said}");
        assert!(said.contains(names), "{said}");
    }
    opened(&own(), "opened: start 2");
    // Whatever is on a disk stays there.
    let strange = blank(&lab, "strange.img");
    File::options().write(true).open(&strange).unwrap().write_all_at(b"something", 1 << 20).unwrap();
    let said = word(&lab, &image, Firmware::ChecksKeys, &strange, &tpm);
    assert_eq!(refused(&said), "disk.not-blank", "{said}");
    assert!(holds(&strange, b"something"));
}

#[test]
fn an_approved_successor_inherits_a_disk_and_its_predecessor_does_not_come_back() {
    let Some(lab) = Lab::new() else { return };
    let key = |name: &str| {
        let path = lab.path(name);
        let options = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &text(&path)];
        must_run("openssl", &options);
        text(&path)
    };
    let (maker, other) = (key("policy.key"), key("other-policy.key"));
    let build = |name: &str, command_line: &str, key: &str, version: &str| {
        let command_line = starminer_image::COMMAND_LINE.replace("quiet ", command_line);
        let options = ["--command-line", &command_line, "--policy-key", key, "--security-version", version];
        lab.build(name, "db", &options)
    };
    let old = build("old", "quiet ", &maker, "1");
    let new = build("new", "", &maker, "2");
    let foreign = build("foreign", "", &other, "2");
    let (disk, tpm) = (blank(&lab, "data.img"), lab.path("state"));
    let start = |image: &Path, disk: &Path| word(&lab, image, Firmware::ChecksKeys, disk, &tpm);
    opened(&start(&old, &disk), "formatted: start 1");
    let said = start(&foreign, &disk);
    assert_eq!(refused(&said), "disk.maker", "{said}");
    let header_of_old = fs::read(&disk).unwrap()[..1 << 20].to_vec();
    opened(&start(&new, &disk), "opened: start 2, taken over");
    let said = start(&old, &disk);
    assert_eq!(refused(&said), "disk.version", "{said}");
    // With the header of its own time as well.
    let put_back = lab.path("put-back.img");
    copy(&disk, &put_back);
    File::options().write(true).open(&put_back).unwrap().write_all_at(&header_of_old, 0).unwrap();
    let said = start(&old, &put_back);
    assert_eq!(refused(&said), "disk.closed", "{said}");
    opened(&start(&new, &disk), "opened: start 3");
    // The machine counts all the same.
    let said = word(&lab, &new, Firmware::ChecksNothing, &disk, &tpm);
    assert_eq!(refused(&said), "disk.registers", "{said}");
}
