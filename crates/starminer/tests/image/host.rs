//! The image under `starminer host run`, as a provider runs it: what it composes starts, and measures what was told of it before.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::coordinator_told;
use crate::machine::{FIRMWARE_CODE, Lab, Storage};
use crate::support::{must, program, starminer, text};

/// How long it may take until the node is admitted: a machine in software on a busy machine is slow.
const TIMEOUT: Duration = Duration::from_secs(300);

#[test]
fn host_run_starts_a_node_that_is_measured() {
    let Some(lab) = Lab::new() else { return };
    let image = lab.build("image", "db", &[]);
    let state = lab.tpm_state_in("host");
    let (network, told) = coordinator_told(&lab, &image, Storage::Disk, &[]);
    let disk = format!("{}:256M", state.join("data.raw").display());
    let arguments = [
        "host",
        "run",
        &text(&image),
        "--state",
        &text(&state),
        "--tee",
        "none",
        "--accel",
        "tcg",
        "--firmware",
        FIRMWARE_CODE,
        "--vars",
        &text(&lab.variables()),
        "--credentials",
        &text(&told),
        "--disk",
        &disk,
    ];
    let shown = must(arguments.iter().chain(&["--dry-run"]));
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.lines().any(|line| line.starts_with("qemu-system-x86_64 -machine q35,accel=tcg ")), "{shown}");
    assert!(!state.join("data.raw").exists(), "a dry run makes no disk");

    let console = state.join("console.txt");
    let said = || fs::read_to_string(&console).unwrap_or_default();
    let start = || {
        let child = Command::new(program())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&console).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut host = Host(child);
        let until = Instant::now() + TIMEOUT;
        while !said().contains("the node is admitted") {
            let ended = host.0.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "{ended:?}\n{}\n{}", said(), network.log("coordinator"));
            std::thread::sleep(Duration::from_millis(100));
        }
        host
    };
    let mut host = start();
    let admitted = said().lines().find(|line| line.contains("the node is admitted")).unwrap().to_owned();
    assert!(
        admitted.contains(r#"tier="measured" provenance="simulated""#),
        "{admitted}\n{}",
        network.log("coordinator")
    );
    assert!(!said().contains('\u{1b}'), "what firmware draws does not reach the terminal");
    assert!(said().contains("starminer-init: the disk is formatted: start 1"), "{}", said());
    assert_eq!(fs::metadata(state.join("data.raw")).unwrap().len(), 256 << 20);

    // One machine at a time has a state, and what it runs on ends with it.
    let second = starminer(arguments);
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("host.state-in-use"), "{second:?}");
    let ask = |host: &mut Host| {
        let asked = Command::new("kill").args(["-INT", &host.0.id().to_string()]).status().unwrap();
        assert!(asked.success());
        assert_eq!(host.0.wait().unwrap().code(), Some(130));
        assert!(said().contains("starminer-init: the power button is pressed"), "{}", said());
    };
    ask(&mut host);
    // It went down in order.
    let mut host = start();
    let opened = said().lines().find(|line| line.contains("the disk is ")).unwrap().to_owned();
    assert!(opened.contains("opened: start 2 (in "), "{opened}");
    // Killed, it takes all with it.
    host.0.kill().unwrap();
    host.0.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let left = || Command::new("pgrep").args(["-f", &text(&state)]).output().unwrap().stdout;
    while !left().is_empty() {
        assert!(Instant::now() < until, "left behind: {}", String::from_utf8_lossy(&left()));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends with this.
struct Host(std::process::Child);

impl Drop for Host {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // Asked to, it ends what it started in order.
            let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
            let _ = self.0.wait();
        }
    }
}
