//! `demo`: what it claims holds, what it leaves behind is what it says.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::{Cli, Said, exit, has_keys};

/// Where the kept network is; a name that a shell would take apart.
const KEPT: &str = "net of a user's";
const PATIENCE: Duration = Duration::from_secs(20);

fn pids(cli: &Cli) -> Vec<u32> {
    let text = std::fs::read_to_string(cli.path(KEPT).join("pids")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Whether a process of this network runs under that number, which the system may have given to another since.
fn runs(cli: &Cli, pid: u32) -> bool {
    let command = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).contains(&*cli.dir.path().to_string_lossy())
}

/// Whether any process has this in its command line.
fn any_runs(cli: &Cli) -> bool {
    let place = format!("{}/", cli.dir.path().display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut commands = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands.any(|command| String::from_utf8_lossy(&command).contains(&place))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A demonstration in a temporary directory below the test's own, under way, and that directory.
fn under_way(cli: &Cli) -> (Child, PathBuf) {
    let mut child = cli.command(["demo", "--json"]).env("TMPDIR", cli.dir.path()).spawn().unwrap();
    let mut place = None;
    wait_until("the demonstration's first node", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        place = cli.names().into_iter().find(|name| name.starts_with("starminer-demo-")).map(|name| cli.path(&name));
        place.as_ref().is_some_and(|place| place.join("node1/ready").exists())
    });
    assert!(any_runs(cli));
    (child, place.unwrap())
}

#[test]
fn asked_to_stop_it_leaves_neither_processes_nor_files() {
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        let cli = Cli::new();
        let (child, place) = under_way(&cli);
        let kill = format!("kill -{signal} {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let said = Said::of(child.wait_with_output().unwrap());
        said.fails_in_json(128 + number, "command.interrupted", "requester", "asked to stop");
        assert!(!any_runs(&cli), "{signal}: processes are left");
        assert!(!place.exists(), "{signal}: {place:?} is left");
    }
}

#[test]
fn killed_it_takes_its_processes_along() {
    let cli = Cli::new();
    let (mut child, _) = under_way(&cli);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of its processes", || !any_runs(&cli));
}

/// Ends what `--keep` left running, also when the test fails.
struct Kept<'a>(&'a Cli);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        for pid in pids(self.0).into_iter().filter(|pid| runs(self.0, *pid)) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// Whether the demonstration shows a TPM; says so where it does not.
fn has_swtpm() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ["swtpm", "swtpm_setup"]
        .iter()
        .all(|program| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        eprintln!("without a TPM: swtpm is not installed (Debian: swtpm, swtpm-tools)");
    }
    found
}

#[test]
fn it_proves_its_claims_and_cleans_up() {
    let cli = Cli::new();
    let document = cli.run(["demo", "--json", "--dir", "net"]).json(exit::OK);
    has_keys(&document, &["ok", "jobs", "search", "flipped_receipt", "seconds"]);
    assert_eq!(document["ok"], true);
    let jobs = document["jobs"].as_array().unwrap();
    let expected = [
        ("completed", "confidential"),
        ("completed", "confidential"),
        ("failed: engine.wasm.out-of-fuel (fault: requester)", "confidential"),
        ("completed", "identified"),
    ];
    assert_eq!(jobs.len(), if has_swtpm() { 4 } else { 3 });
    for (job, (ended, tier)) in jobs.iter().zip(expected) {
        has_keys(job, &["task", "ended", "receipt", "verdict", "tier", "simulated"]);
        let found = (&job["ended"], &job["verdict"], &job["tier"]);
        assert_eq!(found, (&ended.into(), &"proven".into(), &tier.into()));
        assert_eq!(job["simulated"], true);
        let receipt = job["receipt"].as_str().unwrap();
        cli.run(["verify", receipt, "--network", "net/requester/network.toml"]).exits(exit::OK);
    }
    has_keys(&document["search"], &["files", "bytes", "hits"]);
    assert_eq!(document["search"]["hits"], 0);
    assert!(document["search"]["files"].as_u64().unwrap() > 10);
    assert!(document["flipped_receipt"].as_str().unwrap().starts_with("refuted"));
    assert!(!any_runs(&cli), "nothing runs on");

    cli.run(["demo", "--dir", "net"]).fails(exit::UNUSABLE, "demo.directory", "requester", "net is not empty");
}

#[test]
fn kept_it_goes_on_and_the_commands_it_prints_work() {
    let cli = Cli::new();
    let kept = Kept(&cli);
    let said = cli.run(["demo", "--dir", KEPT, "--keep"]);
    let story = said.exits(exit::OK);
    for part in ["Job 1", "Job 2", "Job 3", "accuracy 9", "SIMULATED", "found 0", "refuted", "All of it held"] {
        assert!(story.contains(part), "{part:?} is missing: {story}");
    }
    let processes = pids(&cli);
    // With swtpm a node more, and the emulator.
    assert_eq!(processes.len(), if has_swtpm() { 7 } else { 5 });
    assert!(processes.iter().all(|pid| runs(&cli, *pid)), "all processes run");

    let commands: Vec<&str> = story.lines().skip_while(|line| !line.ends_with("Try:")).skip(1).map(str::trim).collect();
    let home = commands.iter().find(|line| line.starts_with("export STARMINER_HOME=")).unwrap();
    for wanted in [" run ", " status", " verify "] {
        let line = commands.iter().find(|line| line.contains(wanted)).unwrap();
        let script = format!("{home}\n{line}");
        let output = Command::new("sh").args(["-c", &script]).current_dir(cli.dir.path()).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
    let stop = commands.iter().find(|line| line.starts_with("kill ")).unwrap();
    assert!(Command::new("sh").args(["-c", stop]).status().unwrap().success());
    let until = Instant::now() + PATIENCE;
    while processes.iter().any(|pid| runs(&cli, *pid)) {
        assert!(Instant::now() < until, "it does not stop");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(kept);
}
