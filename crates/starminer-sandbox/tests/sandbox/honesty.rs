//! What a task claims is what the kernel says, also where the kernel refuses parts of it.

use std::fs;
use std::process::Stdio;

use starminer_sandbox::{InForce, Protection, State};

use crate::Test;
use crate::support::{PATIENCE, helper, in_force, is_root, sealed, spawn, state, status_of};

pub const TESTS: &[Test] = &[
    ("claims_agree_with_the_kernel", claims_agree_with_the_kernel),
    ("what_is_skipped_is_absent", what_is_skipped_is_absent),
    ("what_is_required_must_be_there", what_is_required_must_be_there),
    ("a_host_without_user_namespaces", a_host_without_user_namespaces),
    ("a_host_that_refuses_everything", a_host_that_refuses_everything),
    ("a_host_without_landlock", a_host_without_landlock),
    ("a_host_without_lockable_memory", a_host_without_lockable_memory),
    ("a_hardened_supervisor_can_start_tasks", a_hardened_supervisor_can_start_tasks),
];

fn claims_agree_with_the_kernel() {
    for arguments in [&[][..], &["skip=user-namespace"], &["skip=pid-namespace"], &["threads=2"]] {
        let (process, _channel, posture) = sealed("idle", arguments);
        check_against_kernel(process.pid(), &posture);
    }
}

/// Compares each claim with `/proc/PID`, as far as this user may look.
fn check_against_kernel(pid: u32, posture: &InForce) {
    let status = status_of(pid);
    let claims = |name| in_force(name, posture);
    assert_eq!(claims("no-new-privileges"), status["NoNewPrivs"] == "1");
    assert_eq!(claims("seccomp"), status["Seccomp"] == "2");
    let no_caps =
        ["CapInh", "CapPrm", "CapEff", "CapAmb"].iter().all(|set| u64::from_str_radix(&status[*set], 16).unwrap() == 0);
    assert_eq!(claims("capabilities-dropped"), no_caps);
    assert_eq!(claims("ptrace-refused"), status["TracerPid"] == "0");
    assert_eq!(status["Threads"], "1");
    let ids: Vec<_> = status["NSpid"].split_whitespace().collect();
    assert_eq!(claims("pid-namespace"), ids.len() > 1 && ids.last() == Some(&"1"));
    // The kernel gives the files of a non-dumpable process to root.
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{pid}/mem")).unwrap());
    assert_eq!(claims("non-dumpable"), owner == 0);
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let hard = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(hard("Max core file size"), "0");
    assert!(claims("core-dumps-off") && claims("rlimits"));
    assert_eq!(hard("Max data size"), (8u64 << 30).to_string());
    assert_eq!(hard("Max open files"), "128");
    assert_eq!(hard("Max address space"), "unlimited");
    if is_root() {
        check_as_root(pid, posture, &status["Uid"]);
    }
}

/// What only root may see of a task.
fn check_as_root(pid: u32, posture: &InForce, users: &str) {
    let users: Vec<u32> = users.split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert!(users.iter().all(|user| (0x7000_0000..0x7fff_0000).contains(user)), "{users:?}");
    let groups = &status_of(pid)["Groups"];
    assert_eq!(groups, "", "supplementary groups of root");
    let of = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let separate = |kind| of(&pid.to_string(), kind) != of("self", kind);
    assert_eq!(in_force("user-namespace", posture), separate("user"));
    assert_eq!(in_force("pid-namespace", posture), separate("pid"));
    assert!(separate("net") && separate("ipc") && separate("uts"));
    assert!(in_force("mount-namespace", posture) && separate("mnt"));
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec") && mounts.contains("tmpfs"), "{mounts}");
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count(), 0);
    let interfaces = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    // Two header lines and the loopback interface, which is down.
    assert!(interfaces.lines().skip(2).all(|line| line.trim_start().starts_with("lo:")), "{interfaces}");
}

fn what_is_skipped_is_absent() {
    for name in ["user-namespace", "mount-namespace", "pid-namespace", "landlock", "keys-locked"] {
        let (process, _channel, posture) = sealed("idle", &[&format!("skip={name}")]);
        assert_eq!(state(name, &posture), &State::Absent("switched off by the profile".into()));
        check_rest(name, &posture);
        assert_eq!(status_of(process.pid())["Seccomp"], "2");
    }
    // The system call filter still refuses every socket.
    let (_process, _channel, posture) = sealed("idle", &["skip=no-network"]);
    assert!(in_force("no-network", &posture));
    // What is not optional cannot be skipped.
    for name in ["seccomp", "no-new-privileges", "non-dumpable", "capabilities-dropped", "rlimits"] {
        let (_process, _channel, posture) = sealed("idle", &[&format!("skip={name}")]);
        assert!(in_force(name, &posture), "{name}");
    }
}

/// Without a user namespace an unprivileged process gets no other; everything else has to hold.
fn check_rest(skipped: &str, posture: &InForce) {
    for (name, state) in posture.iter() {
        let depends = skipped == "user-namespace" && !is_root() && name.ends_with("-namespace");
        if name != skipped && !depends {
            assert_eq!(state, &State::InForce, "{name} when {skipped} is skipped");
        }
    }
}

fn what_is_required_must_be_there() {
    let everything: Vec<String> = Protection::ALL.map(|protection| format!("require={protection}")).into();
    let everything: Vec<&str> = everything.iter().map(String::as_str).collect();
    let (_process, _channel, posture) = sealed("idle", &everything);
    assert!(posture.iter().all(|(_, state)| state.is_in_force()), "{posture:?}");

    let (mut process, mut channel) = spawn("idle", &["require=landlock", "skip=landlock"]).unwrap();
    let said = channel.recv_timeout(PATIENCE).unwrap().bytes;
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("sandbox.missing: ") && said.contains("landlock"), "{said}");
    assert!(!process.wait().unwrap().status.success());
}

/// The posture of a task on a host as `helpers::host` arranges it.
fn posture_on(host: &[&str]) -> InForce {
    let arguments: Vec<_> = ["host"].into_iter().chain(host.iter().copied()).collect();
    let output = helper(&arguments).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{host:?}: {}", String::from_utf8_lossy(&output.stdout));
    InForce::decode(&output.stdout).unwrap()
}

/// Checks that exactly `absent` is absent, for reasons that say `why`.
fn check_absent(posture: &InForce, absent: &[(&str, &str)]) {
    for (name, state) in posture.iter() {
        match (state, absent.iter().find(|(listed, _)| *listed == name)) {
            (State::InForce, None) => {}
            (State::Absent(reason), Some((_, why))) => {
                assert!(reason.contains(why), "{name}: {reason} does not say {why}");
            }
            (state, expected) => panic!("{name} is {state:?}, expected absence: {expected:?}"),
        }
    }
}

fn a_host_without_user_namespaces() {
    // Root of a namespace that allows no further user namespace can still make all the others.
    let posture = posture_on(&["no-user-namespaces"]);
    // In a namespace of one mapped id that id cannot be left, and it reads as 0.
    check_absent(&posture, &[("user-namespace", "max_user_namespaces"), ("capabilities-dropped", "still user 0")]);
    // Without capabilities none at all can be made.
    let posture = posture_on(&["no-user-namespaces", "no-capabilities"]);
    check_absent(
        &posture,
        &[
            ("user-namespace", "max_user_namespaces"),
            ("mount-namespace", "not permitted"),
            ("pid-namespace", "not permitted"),
            ("capabilities-dropped", "still user 0"),
        ],
    );
}

fn a_host_that_refuses_everything() {
    // As the default filters of container engines do.
    let posture = posture_on(&["refuse-unshare"]);
    check_absent(
        &posture,
        &[
            ("user-namespace", "refuses user namespaces"),
            ("mount-namespace", "not permitted"),
            ("pid-namespace", "not permitted"),
        ],
    );
}

fn a_host_without_landlock() {
    check_absent(&posture_on(&["refuse-landlock"]), &[("landlock", "no Landlock")]);
}

fn a_host_without_lockable_memory() {
    // Only in a user namespace does root of this test lose the right to lock regardless of the limit.
    let posture = posture_on(&["own-namespace", "no-capabilities", "no-locked-memory"]);
    let State::Absent(reason) = state("keys-locked", &posture) else { panic!("claims locked keys") };
    assert!(reason.contains("RLIMIT_MEMLOCK"), "{reason}");
}

fn a_hardened_supervisor_can_start_tasks() {
    check_absent(&posture_on(&["harden"]), &[]);
}
