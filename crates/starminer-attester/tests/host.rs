//! Host posture from stand-in trees, and that the machine of the test itself can be read without an error.

#![allow(clippy::unwrap_used)]

use std::fs;

use starminer_attester::HostTree;
use starminer_verify::{HostMeasure, Posture, PostureState};

use PostureState::{Absent, InForce, NotChecked};

/// State of `measure` on a machine where the one file at `path` holds `contents`.
#[track_caller]
fn check(measure: HostMeasure, path: &str, contents: &[u8], state: PostureState) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, contents).unwrap();
    let items = HostTree::at(folder.path()).collect();
    let item = items.iter().find(|item| item.name() == measure).unwrap();
    assert_eq!(item.state(), state, "{} in {path}: {}", measure.name(), item.detail());
    // Every other file is missing, and so not checked.
    assert!(items.iter().all(|other| other.name() == measure || other.state() == NotChecked));
}

#[test]
fn states_follow_from_files() {
    use HostMeasure::{CoreDumpsOff, CorePatternContained, PtraceRestricted, SwapOff};
    let pattern = "proc/sys/kernel/core_pattern";
    let limits = "proc/self/limits";
    let swaps = "proc/swaps";
    let yama = "proc/sys/kernel/yama/ptrace_scope";
    let swaps_heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    let one_swap = format!("{swaps_heading}/dev/sda2 partition 1000 0 -2\n");
    let limits_of = |soft: &str, hard: &str| {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max cpu time              unlimited            unlimited            seconds   \n\
             Max core file size        {soft:<20} {hard:<20} bytes     \n"
        )
    };
    let long = "x".repeat(100_000);
    let cases: &[(HostMeasure, &str, &str, PostureState)] = &[
        (CorePatternContained, pattern, "|/bin/false\n", InForce),
        (CorePatternContained, pattern, "/dev/null\n", InForce),
        (CorePatternContained, pattern, "core\n", Absent),
        (CorePatternContained, pattern, "\n", Absent),
        (CorePatternContained, pattern, "|/usr/lib/systemd/systemd-coredump %P\n", Absent),
        (CorePatternContained, pattern, "|/bin/false-friend\n", Absent),
        (CorePatternContained, pattern, &long, NotChecked),
        (CoreDumpsOff, limits, &limits_of("0", "0"), InForce),
        (CoreDumpsOff, limits, &limits_of("0", "unlimited"), Absent),
        (CoreDumpsOff, limits, &limits_of("unlimited", "unlimited"), Absent),
        (CoreDumpsOff, limits, "Max core file size\n", NotChecked),
        (CoreDumpsOff, limits, "", NotChecked),
        (SwapOff, swaps, swaps_heading, InForce),
        (SwapOff, swaps, &one_swap, Absent),
        (SwapOff, swaps, "", NotChecked),
        (SwapOff, swaps, "/dev/sda2 partition 1000 0 -2\n", NotChecked),
        (PtraceRestricted, yama, "0\n", Absent),
        (PtraceRestricted, yama, "1\n", InForce),
        (PtraceRestricted, yama, "3\n", InForce),
        (PtraceRestricted, yama, "4\n", NotChecked),
        (PtraceRestricted, yama, "", NotChecked),
    ];
    for (measure, path, contents, state) in cases {
        check(*measure, path, contents.as_bytes(), *state);
    }
    check(SwapOff, swaps, &[0xff, 0xfe], NotChecked);
}

#[test]
fn the_machine_itself_states_every_measure_once() {
    let posture = Posture::new(vec![], HostTree::machine().collect()).unwrap();
    assert_eq!(posture.host().len(), HostMeasure::ALL.len());
    assert_ne!(posture.host_state(HostMeasure::CoreDumpsOff), NotChecked, "Linux always has limits");
}
