//! Commands of operators: `coordinator`, `node` and `broker`, where they begin and where they refuse to.

use std::net::TcpListener;

use crate::support::{Network, text};
use crate::{Cli, exit, has_keys};

#[test]
fn init_says_what_it_made_and_never_overwrites() {
    let cli = Cli::new();
    let init = ["coordinator", "init", "c", "--name", "lab", "--listen", "127.0.0.1:7443", "--software-tee"];
    let document = cli.run(init.iter().chain(&["--json"])).json(exit::OK);
    has_keys(&document, &["dir", "network", "coordinator", "log", "measurement"]);
    cli.run(init).fails(exit::UNUSABLE, "init.not-empty", "requester", "c is not empty");
    cli.run(init.iter().chain(&["--json"])).fails_in_json(
        exit::UNUSABLE,
        "init.not-empty",
        "requester",
        "c is not empty",
    );

    let said = cli.run(["coordinator", "init", "c2", "--name", "other"]);
    assert!(said.exits(exit::OK).contains("starminer coordinator run c2"), "the next command: {}", said.out);
    assert!(!cli.path("c2/software-tee-root.key").exists(), "a simulated root only where it was asked for");

    for kind in ["node", "broker"] {
        let bare = [kind, "init", "n", "--network", "c/network.toml"];
        cli.run(bare).fails(exit::UNUSABLE, "node.no-tee", "requester", "no TEE");
        let no_trust =
            [kind, "init", "n", "--network", "absent.toml", "--software-tee-root", "c/software-tee-root.key"];
        cli.run(no_trust).fails(exit::UNUSABLE, "network.unusable", "requester", "absent.toml");
        assert!(!cli.path("n").exists(), "a refused init makes nothing");
        let init =
            [kind, "init", kind, "--network", "c/network.toml", "--software-tee-root", "c/software-tee-root.key"];
        let document = cli.run(init.iter().chain(&["--json"])).json(exit::OK);
        has_keys(&document, &["dir", kind]);
        cli.run(init).fails(exit::UNUSABLE, "init.not-empty", "requester", "is not empty");
    }
}

#[test]
fn a_trust_file_names_an_address_that_others_can_go_to() {
    let cli = Cli::new();
    for (flags, check, says) in [
        (&["--listen", "0.0.0.0:7443"][..], "network.no-address", "0.0.0.0:7443"),
        (&["--listen", "[::]:7443"], "network.no-address", "[::]:7443"),
        (&["--listen", "127.0.0.1:0"], "network.no-address", "127.0.0.1:0"),
        (&["--address", "lab.example.org"], "network.bad-address", "not HOST:PORT"),
        (&["--address", "lab example:7443"], "network.bad-address", "not HOST:PORT"),
        (&["--address", ":7443"], "network.bad-address", "not HOST:PORT"),
        (&["--address", "lab.example.org:0"], "network.bad-address", "not HOST:PORT"),
        (&["--address", "[lab]:7443"], "network.bad-address", "not HOST:PORT"),
        (&["--name", " "], "network.bad-name", "no name for people"),
        (&["--name", "a\u{1b}[2Jb"], "network.bad-name", "no name for people"),
    ] {
        let init = ["coordinator", "init", "c"].iter().chain(flags);
        cli.run(init).fails(exit::UNUSABLE, check, "requester", says);
        assert!(!cli.path("c").exists(), "a refused init makes nothing");
    }
    for (dir, address) in [("a", "lab.example.org:7443"), ("b", "[2001:db8::1]:7443")] {
        cli.run(["coordinator", "init", dir, "--listen", "0.0.0.0:7443", "--address", address]).exits(exit::OK);
        let trust = std::fs::read_to_string(cli.path(dir).join("network.toml")).unwrap();
        assert!(trust.contains(&format!("address = \"{address}\"")), "{trust}");
    }
}

#[test]
fn run_refuses_a_directory_that_init_did_not_make() {
    let cli = Cli::new();
    cli.run(["coordinator", "run", "absent"]).fails(exit::UNUSABLE, "settings.unusable", "coordinator", "absent");
    cli.run(["broker", "run", "absent"]).fails(exit::UNUSABLE, "network.unusable", "broker", "absent");
    let said = cli.run(["node", "run", "absent", "--json"]);
    said.exits(exit::UNUSABLE);
    assert_eq!(said.json(exit::UNUSABLE)["error"]["party"], "node");
    assert!(said.json(exit::UNUSABLE)["error"]["reason"].as_str().unwrap().contains("absent"), "{said:?}");

    cli.run(["coordinator", "init", "c"]).exits(exit::OK);
    let settings = String::from_utf8(cli.read("c/coordinator.toml")).unwrap();
    cli.write("c/coordinator.toml", format!("surprise = 1\n{settings}"));
    let said = cli.run(["coordinator", "run", "c"]);
    said.fails(exit::UNUSABLE, "settings.unusable", "coordinator", "line 1, column 1: unknown field `surprise`");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let cli = Cli::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    cli.run(["coordinator", "init", "c", "--listen", &address]).exits(exit::OK);
    let said = cli.run(["coordinator", "run", "c"]);
    said.fails(exit::LOCAL, "coordinator.address", "coordinator", &format!("{address}: Address already in use"));
}

#[test]
fn a_directory_belongs_to_one_process() {
    let network = Network::start(1);
    network.add_broker();
    let cli = Cli::new();
    // The address does not keep two coordinators apart.
    let settings = network.path("coordinator").join("coordinator.toml");
    let text_of = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text_of.replace(&network.address, "127.0.0.1:0")).unwrap();
    for (kind, name) in [("coordinator", "coordinator"), ("node", "node1"), ("broker", "broker")] {
        let dir = text(&network.path(name));
        let check = format!("{kind}.in-use");
        cli.run([kind, "run", &dir]).fails(exit::LOCAL, &check, kind, "in use by another");
        cli.run([kind, "run", &dir, "--json"]).fails_in_json(exit::LOCAL, &check, kind, "in use by another");
    }
    // A process that was killed leaves nothing behind that has to be tidied up.
    std::fs::write(&settings, text_of).unwrap();
    for name in ["coordinator", "node1", "broker"] {
        network.restart(name);
    }
}

#[test]
fn a_database_that_is_lost_or_damaged_is_not_called_whole() {
    let network = Network::coordinator_only();
    network.kill("coordinator");
    let cli = Cli::new();
    let dir = text(&network.path("coordinator"));
    let database = network.path("coordinator").join("data/coordinator.db");
    let refused = |check: &str, says: &str| {
        let said = cli.run(["coordinator", "run", &dir]);
        said.fails(exit::LOCAL, check, "coordinator", says);
        assert!(!said.err.contains("nothing acknowledged is lost"), "{said:?}");
        cli.run(["coordinator", "run", &dir, "--json"]).fails_in_json(exit::LOCAL, check, "coordinator", says);
        said
    };
    // The killed process left a write-ahead log, from which SQLite would bring the damaged pages back.
    std::fs::remove_file(database.with_extension("db-wal")).unwrap();
    std::fs::write(&database, b"this is no database, and is long enough to have a header".repeat(100)).unwrap();
    refused("storage.open", "not a database");
    std::fs::remove_file(&database).unwrap();
    let said = refused("storage.lost", "would fork the log");
    assert!(said.err.contains("restore the whole data directory") && said.err.contains("coordinator init"), "{said:?}");
    assert!(!database.exists());
}
