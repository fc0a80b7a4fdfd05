//! Calls that cannot be used, and what holds for every command.

use crate::{Cli, exit};

#[test]
fn a_call_that_cannot_be_used_says_so_in_both_forms() {
    let cli = Cli::new();
    for (args, reason) in [
        (&["nonsense"][..], "nonsense"),
        (&["vault", "seal"], "--key-file"),
        (&["run", "--max", "2"], "--max"),
        (&["run", "--wasm", "a", "--onnx", "b"], "--onnx"),
        (&["logs"], "<TASK>"),
        (&["key", "new", "k", "--log", "a=b=c"], "--log"),
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
