//! The plug is pulled at random moments while a node works on a job that keeps a state: the machine comes back as the same node, from what its disk had really taken, goes on from a
//! checkpoint, and the result is right, once. Five times in the tests, twenty in `cargo xtask soak`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use starminer_receipt::{ClaimVerdict, EntryKind, LogEntry, Outcome, Overall, Receipt};
use starminer_verify::{OperatorMayReadMemory, Policy, Tier};

use crate::disk::{blank, copy, signed};
use crate::machine::{Data, Firmware, Lab, Storage};
use crate::power_loss::lose_power;
use crate::support::moments::Moments;
use crate::support::primes::{primes_job, primes_text};
use crate::support::runtime;
use crate::{coordinator_for, rules};

/// What the program counts up to, in steps of what it commits: about a minute in a machine in software.
const LIMIT: u64 = 6_000_000;
const STEP: u64 = 20_000;
/// From a node's admission to the cut, at most.
const MOMENTS_MS: u64 = 6_000;
/// For everything.
const TIMEOUT: Duration = Duration::from_secs(3_000);

/// At this cut, the superblock is torn besides, which happens by itself now and then.
const TORN: u32 = 0;

/// The superblock is two sectors of a disk whose sectors have 512 bytes, and its checksum is in the second (`specs/disk.md`; ext4, "Super Block").
fn tear_superblock(disk: &Path) {
    const SECOND_SECTOR: u64 = (16 << 20) + 1024 + 512;
    let disk = File::options().write(true).open(disk).unwrap();
    disk.write_all_at(&[0; 512], SECOND_SECTOR).unwrap();
}

fn survives(cuts: u32) {
    let Some(lab) = Lab::new() else { return };
    let mut moments = Moments::new();
    let image = lab.build("image", "db", &[]);
    let (network, trust) = coordinator_for(&lab, &image, Storage::Disk, &[]);
    let (disk, running, log) = (blank(&lab, "data.img"), lab.path("running.img"), lab.path("writes.log"));
    let tpm = lab.path("state");

    runtime().block_on(async {
        let requester = network.requester("requester");
        let mut job = primes_job(&network, LIMIT, STEP);
        let mut fields = job.policy.fields().clone();
        (fields.minimum_tier, fields.operator_may_read_memory) = (Tier::Measured, OperatorMayReadMemory::Yes);
        fields.hardware = Some(Box::new(rules()));
        job.policy = Policy::new(fields).unwrap();
        job.max_attempts = cuts + 5;
        job.limits.wall_limit_ms = 600_000;
        let task = requester.submit(&job, None, None).await.unwrap();
        let machines = async {
            tokio::task::block_in_place(|| {
                for cut in 0..cuts {
                    copy(&disk, &running);
                    File::create(&log).unwrap();
                    let data = Data { disk: &running, tpm: &tpm, writes: Some(&log) };
                    let mut machine = lab.boot_with(&signed(&image), Firmware::ChecksKeys, Some(&trust), Some(data));
                    let admitted = machine.wait_for("the node is admitted");
                    let repaired = machine.console().contains("its file system repaired");
                    assert!(repaired || cut != TORN + 1, "{}", machine.console());
                    assert!(admitted.contains(r#"tier="measured""#), "no task comes here: {admitted}");
                    let after = Duration::from_millis(moments.below(MOMENTS_MS));
                    std::thread::sleep(after);
                    drop(machine);
                    let kept = lose_power(&disk, &log, &mut moments);
                    eprintln!("cut {cut} after {} ms: {kept:?}", after.as_millis());
                    if cut == TORN {
                        tear_superblock(&disk);
                    }
                }
                let data = Data { disk: &disk, tpm: &tpm, writes: None };
                lab.boot_with(&signed(&image), Firmware::ChecksKeys, Some(&trust), Some(data))
            })
        };
        let ends = async { tokio::time::timeout(TIMEOUT, requester.wait(&task)).await.expect("the task has an end") };
        let (view, _machine) = tokio::join!(ends, machines);
        let out = network.path("requester").join("out");
        let outcome = requester.collect(view.unwrap(), &out).await.unwrap();
        check(&outcome, &out);
    });
}

/// Completed, once, with the right result and a receipt that proves from where it went on.
fn check(outcome: &starminer_requester::TaskOutcome, out: &Path) {
    assert_eq!(outcome.outcome, Some(Outcome::Completed));
    assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
    assert_eq!(fs::read_to_string(out.join("primes.txt")).unwrap(), primes_text(LIMIT));
    let receipt = Receipt::parse(&fs::read(&outcome.receipt_path).unwrap()).unwrap();
    let kinds: Vec<_> = receipt.entries.iter().map(|entry| LogEntry::parse(&entry.entry.0).unwrap().kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == EntryKind::Reported).count(), 1, "{kinds:?}");
    let resume = outcome.verdict.claims.iter().find(|claim| claim.name == "resume").unwrap();
    assert_eq!(resume.verdict, ClaimVerdict::Proven, "{}", resume.statement);
    let entries = fs::read_to_string(out.join("entries.txt")).unwrap();
    eprintln!("entered {} times; {}", entries.trim(), resume.statement);
}

#[test]
fn five_power_cuts() {
    survives(5);
}

#[test]
#[ignore = "cargo xtask soak"]
fn twenty_power_cuts() {
    survives(20);
}
