//! `key new` and `key show`: permissions, no overwriting, nothing secret on the screen.

use std::os::unix::fs::PermissionsExt as _;

use crate::{Cli, exit, has_keys};

/// The hexadecimal digits at the end of a key file: what must never be printed.
fn secret_of(cli: &Cli, name: &str) -> String {
    let text = String::from_utf8(cli.read(name)).unwrap();
    let secret = text.split_whitespace().last().unwrap().to_string();
    assert_eq!(secret.len(), 64);
    secret
}

#[test]
fn an_identity_is_made_once_and_shown_in_public() {
    let cli = Cli::new();
    let made = cli.run(["key", "new", "me.key"]);
    let public = made.exits(exit::OK).split_whitespace().nth(1).unwrap().to_string();
    let secret = secret_of(&cli, "me.key");
    assert_ne!(public, secret);
    assert!(!format!("{made:?}").contains(&secret));
    assert_eq!(cli.path("me.key").metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let shown = cli.run(["key", "show", "me.key"]);
    assert_eq!(shown.exits(exit::OK).trim_end(), public);
    let shown = cli.run(["key", "show", "me.key", "--json"]).json(exit::OK);
    has_keys(&shown, &["file", "kind", "public"]);
    assert_eq!((shown["kind"].as_str(), shown["public"].as_str()), (Some("identity"), Some(public.as_str())));

    let before = cli.read("me.key");
    cli.run(["key", "new", "me.key"]).fails(exit::UNUSABLE, "key-file.io", "requester", "File exists");
    let again = cli.run(["key", "new", "--secret", "me.key", "--json"]);
    again.fails_in_json(exit::UNUSABLE, "key.not-created", "requester", "File exists");
    assert_eq!(cli.read("me.key"), before, "a key is never overwritten");

    let made = cli.run(["key", "new", "other.key", "--json"]).json(exit::OK);
    has_keys(&made, &["file", "kind", "public"]);
    assert!(!made.to_string().contains(&secret_of(&cli, "other.key")));
}

#[test]
fn a_secret_is_made_once_and_never_shown() {
    let cli = Cli::new();
    for args in [&["key", "new", "--secret", "text.key"][..], &["key", "new", "--secret", "json.key", "--json"]] {
        let made = cli.run(args);
        made.exits(exit::OK);
        let secret = secret_of(&cli, args[3]);
        assert!(!format!("{made:?}").contains(&secret));
        assert_eq!(cli.path(args[3]).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let shown = cli.run(["key", "show", args[3]]);
        shown.fails(exit::UNUSABLE, "key-file.malformed", "requester", args[3]);
        assert!(!format!("{shown:?}").contains(&secret));
    }
    assert_ne!(cli.read("text.key"), cli.read("json.key"));
    let before = cli.read("text.key");
    cli.run(["key", "new", "--secret", "text.key"]).fails(exit::UNUSABLE, "key.not-created", "requester", "text.key");
    assert_eq!(cli.read("text.key"), before);
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let cli = Cli::new();
    cli.run(["key", "new", "me.key"]).exits(exit::OK);
    cli.run(["key", "new", "--secret", "vault.key"]).exits(exit::OK);
    for name in ["me.key", "vault.key"] {
        std::fs::set_permissions(cli.path(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    cli.run(["key", "show", "me.key"]).fails(exit::UNUSABLE, "key-file.open-to-others", "requester", "0644");
    cli.write("plain", "text");
    let said = cli.run(["vault", "seal", "--key-file", "vault.key", "plain", "sealed"]);
    said.fails(exit::UNUSABLE, "key.unusable", "requester", "others can read it");
    cli.run(["key", "show", "absent"]).fails(exit::UNUSABLE, "key-file.io", "requester", "No such file");
    cli.run(["key", "new", "no/such/dir/k"]).fails(exit::UNUSABLE, "key-file.io", "requester", "No such file");
}
