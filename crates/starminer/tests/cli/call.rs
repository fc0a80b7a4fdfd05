//! Calls that cannot be used, and what holds for every command.

use std::process::Stdio;

use crate::support::{Network, text};
use crate::{Cli, Said, example_path, exit};

#[test]
fn a_call_that_cannot_be_used_says_so_in_both_forms() {
    let cli = Cli::new();
    for (args, reason) in [
        (&["nonsense"][..], "nonsense"),
        (&["vault", "seal"], "--key-file"),
        (&["run", "--max", "2"], "--max"),
        (&["run", "--wasm", "a", "--onnx", "b"], "--onnx"),
        (&["logs"], "<TASK>"),
        (&["key", "new", "k", "--diagnostics", "a=b=c"], "--diagnostics"),
        (&["node", "run", "n", "--places", "many"], "many"),
    ] {
        let said = cli.run(args);
        assert_eq!(said.exits(exit::UNUSABLE), "", "{args:?}");
        assert!(said.err.starts_with("error: ") && said.err.contains(reason), "{args:?}: {said:?}");
        assert!(said.err.contains("--help"), "it names the help: {said:?}");
        let in_json: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        cli.run(in_json).fails_in_json(exit::UNUSABLE, "call.unusable", "requester", reason);
    }
    assert!(cli.names().is_empty(), "nothing was made: {:?}", cli.names());
}

#[test]
fn no_command_shows_the_help_and_fails() {
    let cli = Cli::new();
    for args in [&[][..], &["vault"], &["key"], &["coordinator"], &["broker"], &["node"]] {
        let said = cli.run(args);
        assert_eq!(said.exits(exit::UNUSABLE), "");
        assert!(said.err.contains("Usage: starminer") && said.err.contains("Examples:"), "{said:?}");
    }
}

#[test]
fn the_version_is_a_result() {
    let cli = Cli::new();
    for args in [&["--version"][..], &["vault", "seal", "--version"]] {
        assert!(cli.run(args).exits(exit::OK).contains(env!("CARGO_PKG_VERSION")));
    }
}

/// A home without a trust file can do nothing, and says which file is missing.
#[test]
fn commands_that_need_a_network_say_which_file_is_missing() {
    let cli = Cli::new();
    for args in [
        &["run", "--wasm", "app.wasm"][..],
        &["submit", "--detach", "job.toml"],
        &["status"],
        &["logs", "3f2a"],
        &["result", "3f2a"],
        &["cancel", "3f2a"],
    ] {
        cli.run(args).fails(exit::UNUSABLE, "home.unusable", "requester", ".starminer/network.toml");
        let in_json: Vec<&str> = args.iter().copied().chain(["--json", "--home", "elsewhere"]).collect();
        cli.run(in_json).fails_in_json(exit::UNUSABLE, "home.unusable", "requester", "elsewhere/network.toml");
    }
    cli.write("network.toml", "name = \"n\"\nsurprise = 1\n");
    let said = cli.run(["status", "--network", "network.toml"]);
    said.fails(exit::UNUSABLE, "home.unusable", "requester", "network.toml: not a network trust file");
}

/// What is no regular file is refused and not waited for: a pipe without a writer, a device without end.
#[test]
fn pipes_and_devices_are_no_files() {
    let network = Network::coordinator_only();
    let cli = Cli::new();
    let home = cli.path("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::copy(network.path("coordinator").join("network.toml"), home.join("network.toml")).unwrap();
    let home = text(&home);
    for pipe in ["pipe", "pipe.toml"] {
        assert!(std::process::Command::new("mkfifo").arg(cli.path(pipe)).status().unwrap().success());
    }
    std::os::unix::fs::symlink("/dev/zero", cli.path("link")).unwrap();
    cli.write("data", "words");
    cli.run(["key", "new", "--secret", "key"]).exits(exit::OK);
    let wasm = example_path("empty/empty.wasm");
    let run = ["run", "--home", &home, "-o", "out", "--wasm"];
    let refused: [(&[&str], &str); 11] = [
        (&[&run[..], &[&wasm, "-i", "pipe"]].concat(), "job.no-input"),
        (&[&run[..], &[&wasm, "-i", "/dev/zero"]].concat(), "job.no-input"),
        (&[&run[..], &[&wasm, "-i", "link"]].concat(), "job.no-input"),
        (&[&run[..], &["pipe"]].concat(), "job.unreadable"),
        (&[&run[..], &["link"]].concat(), "job.unreadable"),
        (&["run", "pipe.toml", "--home", &home], "job.unusable-file"),
        (&["run", "--wasm", &wasm, "--home", &home, "--network", "pipe"], "home.unusable"),
        (&["verify", "data", "--network", "pipe"], "network.unusable"),
        (&["vault", "seal", "--key-file", "pipe", "data", "sealed"], "key.unusable"),
        (&["vault", "seal", "--key-file", "/dev/zero", "data", "sealed"], "key.unusable"),
        (&["key", "show", "pipe"], "key-file.not-a-file"),
    ];
    // Bounded, so that what waits or goes on without end fails and no test does.
    let ends = |args: &[&str]| {
        let program = cli.command(args);
        let mut command = std::process::Command::new("timeout");
        command.arg("30").arg(program.get_program()).args(program.get_args()).current_dir(cli.dir.path());
        Said::of(command.stdin(Stdio::null()).output().unwrap())
    };
    for (args, check) in refused {
        ends(args).fails(exit::UNUSABLE, check, "requester", "");
    }
    let verified = ends(&["verify", "pipe", "--json"]).json(exit::UNUSABLE);
    assert_eq!(verified["receipts"][0]["error"]["check"], "receipt.unreadable");

    // To stream is what a vault's input is for.
    let script = "cat data > pipe & exec \"$0\" vault seal --key-file key pipe sealed";
    let mut sealed = std::process::Command::new("sh");
    let sealed = sealed.args(["-c", script, crate::support::program()]).current_dir(cli.dir.path()).status().unwrap();
    assert!(sealed.success());
    cli.run(["vault", "open", "--key-file", "key", "sealed", "opened"]).exits(exit::OK);
    assert_eq!(cli.read("opened"), b"words");
}
