//! Posture while it is watched: over a tree, and over the machine's own mounts.

use std::process::Command;
use std::thread;

use super::tree::StandIn;
use starminer_attester::{HostTree, PostureWatch};
use starminer_verify::HostMeasure::{
    self, CorePatternContained, JobStorageUnshadowed, PtraceRestricted, SwapEncrypted, SwapOff,
};
use starminer_verify::PostureItem;
use starminer_verify::PostureState::{Absent, NotChecked};

const SWAPS: &str = "proc/swaps";
const NO_SWAP: &str = "Filename Type Size Used Priority\n";
const PATTERN: &str = "proc/sys/kernel/core_pattern";

fn names(items: &[PostureItem<HostMeasure>]) -> Vec<HostMeasure> {
    items.iter().map(PostureItem::name).collect()
}

#[test]
fn what_gets_worse_and_better_is_told_once() {
    let tree = StandIn::new().file(SWAPS, NO_SWAP).file(PATTERN, "|/bin/false\n");
    let (mut watch, _stop) = PostureWatch::start(tree.host()).unwrap();
    assert!(watch.lost().is_empty());

    tree.put(PATTERN, "|/usr/lib/systemd/systemd-coredump %P\n");
    let change = watch.next_change().unwrap();
    assert_eq!((names(&change.worse), names(&change.better)), (vec![CorePatternContained], vec![]));
    assert!(change.worse[0].detail().contains("systemd-coredump"), "{}", change.worse[0].detail());
    assert_eq!(watch.lost(), change.worse);

    // It stays so, and plain swap comes on top; a measure that was never in force comes into force.
    tree.put(SWAPS, format!("{NO_SWAP}/dev/sda2 partition 1000 0 -2\n"));
    tree.put("proc/sys/kernel/yama/ptrace_scope", "1\n");
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    while worse.len() + better.len() < 3 {
        let change = watch.next_change().unwrap();
        worse.extend(names(&change.worse));
        better.extend(names(&change.better));
    }
    assert_eq!((worse, better), (vec![SwapOff, SwapEncrypted], vec![PtraceRestricted]));
    assert_eq!(names(&watch.lost()), [CorePatternContained, SwapOff, SwapEncrypted]);

    // What cannot be told any more is lost; what was seen in force once is missed from then on.
    std::fs::remove_file(tree.root().join("proc/sys/kernel/yama/ptrace_scope")).unwrap();
    tree.put(PATTERN, "/dev/null\n");
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    while worse.len() + better.len() < 2 {
        let change = watch.next_change().unwrap();
        worse.extend(change.worse);
        better.extend(names(&change.better));
    }
    assert_eq!((worse[0].name(), worse[0].state()), (PtraceRestricted, NotChecked));
    assert_eq!(better, [CorePatternContained]);
    let lost = watch.lost();
    assert_eq!(names(&lost), [SwapOff, PtraceRestricted, SwapEncrypted]);
    assert_eq!(lost[0].state(), Absent);
}

#[test]
fn it_ends_when_it_is_told_to() {
    for host in [HostTree::machine(), StandIn::new().host()] {
        let (mut watch, stop) = PostureWatch::start(host).unwrap();
        let watching = thread::spawn(move || while watch.next_change().is_some() {});
        drop(stop);
        watching.join().unwrap();
    }
}

/// Somebody mounts a folder over the jobs, and takes it away again. Needs root.
#[test]
fn the_kernel_tells_of_mounts() {
    let (jobs, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut watch, _stop) = PostureWatch::start(HostTree::machine().with_job_storage(jobs.path())).unwrap();
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !run(Command::new("mount").arg("--bind").arg(foreign.path()).arg(jobs.path())) {
        return eprintln!("skipped: this test may not mount a file system");
    }
    let began = std::time::Instant::now();
    let mut told = |is_lost: bool| loop {
        let change = watch.next_change().unwrap();
        let of = if is_lost { change.worse } else { change.better };
        if let Some(item) = of.iter().find(|item| item.name() == JobStorageUnshadowed) {
            assert_eq!(watch.lost().iter().any(|item| item.name() == JobStorageUnshadowed), is_lost);
            break item.detail().to_owned();
        }
    };
    let detail = told(true);
    eprintln!("told {} ms after the mount", began.elapsed().as_millis());
    assert!(detail.contains("another folder"), "{detail}");
    assert!(run(Command::new("umount").arg(jobs.path())), "something is left open");
    told(false);
}
