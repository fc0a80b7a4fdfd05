//! Cores, swap's presence, tracers, preloads.

use super::tree::{StandIn, check_file};
use starminer_verify::HostMeasure::{
    CoreDumpsOff, CorePatternContained, NoPreloads, NotTraced, PtraceRestricted, SwapEncrypted, SwapOff,
};
use starminer_verify::PostureState::{Absent, InForce, NotChecked};

#[test]
fn states_follow_from_files() {
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
    let swap = &[SwapOff, SwapEncrypted][..];
    for (measures, path, contents, state) in [
        (&[CorePatternContained][..], pattern, "|/bin/false\n", InForce),
        (&[CorePatternContained], pattern, "/dev/null\n", InForce),
        (&[CorePatternContained], pattern, "core\n", Absent),
        (&[CorePatternContained], pattern, "\n", Absent),
        (&[CorePatternContained], pattern, "|/usr/lib/systemd/systemd-coredump %P\n", Absent),
        (&[CorePatternContained], pattern, "|/bin/false-friend\n", Absent),
        (&[CorePatternContained], pattern, "/dev/null\0", Absent),
        (&[CorePatternContained], pattern, &long, NotChecked),
        (&[CoreDumpsOff], limits, &limits_of("0", "0"), InForce),
        (&[CoreDumpsOff], limits, &limits_of("0", "unlimited"), Absent),
        (&[CoreDumpsOff], limits, &limits_of("unlimited", "unlimited"), Absent),
        (&[CoreDumpsOff], limits, "Max core file size\n", NotChecked),
        (&[CoreDumpsOff], limits, "", NotChecked),
        (swap, swaps, swaps_heading, InForce),
        (swap, swaps, &one_swap, Absent),
        (swap, swaps, "", NotChecked),
        (swap, swaps, "/dev/sda2 partition 1000 0 -2\n", NotChecked),
        (swap, swaps, &format!("{swaps_heading}/dev/sda2\n"), NotChecked),
        (&[PtraceRestricted], yama, "0\n", Absent),
        (&[PtraceRestricted], yama, "1\n", InForce),
        (&[PtraceRestricted], yama, "3\n", InForce),
        (&[PtraceRestricted], yama, "4\n", NotChecked),
        (&[PtraceRestricted], yama, "1\0", NotChecked),
        (&[PtraceRestricted], yama, "", NotChecked),
    ] {
        check_file(measures, path, contents.as_bytes(), state);
    }
    check_file(swap, swaps, &[0xff, 0xfe], NotChecked);
    check_file(&[PtraceRestricted], yama, &[b'1', 0xff], NotChecked);
}

#[test]
fn preloads() {
    let environ = "proc/self/environ";
    let file = "etc/ld.so.preload";
    let clean = b"PATH=/bin\0HOME=/\0".as_slice();
    for (variables, preload, state, says) in [
        (clean, None, InForce, "no /etc/ld.so.preload"),
        (b"", None, InForce, ""),
        (b"LD_PRELOAD=\0A=1\0", None, InForce, ""),
        (b"XLD_PRELOAD=/x\0LD_PRELOADS=/x\0", None, InForce, ""),
        (b"A=1\0LD_PRELOAD=/tmp/x.so\0", None, Absent, "LD_PRELOAD"),
        (b"LD_AUDIT=/tmp/x.so", None, Absent, "LD_AUDIT"),
        (b"\xff\xfe=\x80\0LD_PRELOAD=\xff\0", None, Absent, "LD_PRELOAD"),
        (clean, Some(b"".as_slice()), InForce, "names nothing"),
        (clean, Some(b" \t\n# /lib/x.so\n:\n"), InForce, "names nothing"),
        (clean, Some(b"/lib/x.so"), Absent, "names libraries"),
        (clean, Some(b"# a comment\n\0"), Absent, "names libraries"),
        (clean, Some(b"\xff"), Absent, "names libraries"),
        (clean, Some(&[b' '; 70_000]), NotChecked, "cannot be read"),
    ] {
        let mut tree = StandIn::new().folder("etc").file(environ, variables);
        if let Some(preload) = preload {
            tree = tree.file(file, preload);
        }
        tree.check(NoPreloads, state, says);
    }
    StandIn::new().folder("etc").check(NoPreloads, NotChecked, "environment");
    StandIn::new().file(environ, clean).check(NoPreloads, NotChecked, "cannot be read");
    // A folder, a link to itself, a pipe, and a file outside of the tree are not read.
    let tree = || StandIn::new().file(environ, clean);
    tree().folder(file).check(NoPreloads, NotChecked, "");
    tree().link(file, "ld.so.preload").check(NoPreloads, NotChecked, "");
    let outside = StandIn::new().file("empty", "");
    tree().link(file, outside.root().join("empty")).check(NoPreloads, NotChecked, "");
    let piped = tree().folder("etc");
    let pipe = piped.root().join(file);
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    piped.check(NoPreloads, NotChecked, "");
}

/// The agent with two threads, one of which started a process that started another.
fn family() -> StandIn {
    let status = "Name:\tx\nTracerPid:\t0\nUid:\t0\n";
    StandIn::new().files(&[
        ("proc/self/task/1/status", status),
        ("proc/self/task/1/children", ""),
        ("proc/self/task/2/status", status),
        ("proc/self/task/2/children", "30 "),
        ("proc/30/task/30/status", status),
        ("proc/30/task/30/children", "40 41 "),
        ("proc/40/task/40/status", status),
        ("proc/40/task/40/children", ""),
    ])
}

#[test]
fn tracers() {
    // 41 has ended meanwhile.
    family().check(NotTraced, InForce, "no thread is traced");
    for (path, status, state, says) in [
        ("proc/self/task/1/status", "TracerPid:\t7\n", Absent, "the agent is traced"),
        ("proc/self/task/2/status", "TracerPid:\t4194304\n", Absent, "the agent is traced"),
        ("proc/30/task/30/status", "TracerPid:\t7\n", Absent, "a process of the agent is traced"),
        ("proc/40/task/40/status", "TracerPid:\t7\n", Absent, "a process of the agent is traced"),
        ("proc/40/task/40/status", "TracerPid:\t\n", NotChecked, "not understood"),
        ("proc/40/task/40/status", "TracerPid:\t-1\n", NotChecked, "not understood"),
        ("proc/40/task/40/status", "Name:\tTracerPid: 0\n", NotChecked, "not understood"),
        ("proc/self/task/2/children", "x", InForce, ""),
    ] {
        family().file(path, status).check(NotTraced, state, says);
    }
    family().file("proc/self/task/2/children", [0xff]).check(NotTraced, NotChecked, "children");
    family().file("proc/self/task/3/status", "TracerPid:\t0\n").check(NotTraced, NotChecked, "cannot be listed");
    StandIn::new().folder("proc/self").check(NotTraced, NotChecked, "threads");
    // Two that are each other's children.
    let circle = family().file("proc/40/task/40/children", "30 ");
    circle.check(NotTraced, NotChecked, "more processes");
}

/// A debugger at a process of this one. Skipped where there is none, or where none may attach.
#[test]
fn a_real_tracer_is_seen() {
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let machine = starminer_attester::HostTree::machine();
    let before = super::tree::item_of(&machine, NotTraced);
    let id = child.id().to_string();
    let strace = std::process::Command::new("strace").args(["-o", "/dev/null", "-p", &id]).spawn();
    let end = |mut child: std::process::Child| {
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let Ok(mut strace) = strace else {
        end(child);
        return eprintln!("skipped: strace is not installed");
    };
    let path = format!("/proc/{id}/status");
    let attached = || !std::fs::read_to_string(&path).unwrap().contains("TracerPid:\t0\n");
    while !attached() && strace.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    if !attached() {
        end(child);
        return eprintln!("skipped: strace may not attach");
    }
    let during = super::tree::item_of(&machine, NotTraced);
    end(strace);
    assert_eq!((before.state(), during.state()), (InForce, Absent), "{} / {}", before.detail(), during.detail());
    assert_eq!(super::tree::item_of(&machine, NotTraced).state(), InForce);
    child.kill().unwrap();
    child.wait().unwrap();
}
