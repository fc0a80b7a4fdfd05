//! `starminer key new|show`.

use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::json;
use starminer_requester::{open_regular, random_secret};
use starminer_tls::{IdentityKey, KeyFileError};
use starminer_vault::TaskSecret;
use zeroize::Zeroizing;

use super::args::{KeyNewArgs, KeyShowArgs};
use super::exit::{self, Failure};
use super::files;
use super::home::with_sources;
use super::terminal::Terminal;

/// First word of a file with a symmetric secret; identity files have their own.
const SECRET_MAGIC: &str = "starminer-secret-v1";
/// Longest secret file.
const MAX_SECRET_FILE_BYTES: u64 = 256;
/// What to do where a key file cannot be made.
const EXISTS: &str = "name a file that does not exist, in a directory where you may write; a key is never overwritten";

/// Makes a key.
pub fn new(terminal: &Terminal, args: &KeyNewArgs) -> Result<u8, Failure> {
    let shown = args.file.display().to_string();
    if args.secret {
        let secret = random_secret::<32>();
        let text = Zeroizing::new(format!("{SECRET_MAGIC} {}\n", HEXLOWER.encode(secret.as_slice())));
        files::write_new(&args.file, text.as_bytes(), files::SECRET)
            .map_err(|error| files::not_written("key.not-created", &args.file, &error, EXISTS))?;
        terminal.result(format!("secret written to {shown}; whoever has this file opens what it sealed"));
        terminal.document(&json!({ "file": shown, "kind": "secret" }));
        return Ok(exit::OK);
    }
    let key = IdentityKey::generate()
        .map_err(|error| Failure::local("key.not-generated", error, "check the system's random source"))?;
    key.save(&args.file).map_err(|error| key_failure(&error))?;
    let public = HEXLOWER.encode(&key.public());
    terminal.result(format!("identity {public}\nwritten to {shown}"));
    terminal.document(&json!({ "file": shown, "kind": "identity", "public": public }));
    Ok(exit::OK)
}

/// Shows the public half of a key.
pub fn show(terminal: &Terminal, args: &KeyShowArgs) -> Result<u8, Failure> {
    let key = load_identity(&args.file)?;
    if args.jwks {
        let set = starminer_verify::jwks([&starminer_verify::PublicKey(key.public())]);
        terminal.result(set.to_string());
        terminal.document(&set);
        return Ok(exit::OK);
    }
    let public = HEXLOWER.encode(&key.public());
    terminal.result(&public);
    terminal.document(&json!({ "file": args.file.display().to_string(), "kind": "identity", "public": public }));
    Ok(exit::OK)
}

/// Loads an identity key.
pub fn load_identity(path: &Path) -> Result<IdentityKey, Failure> {
    IdentityKey::load(path).map_err(|error| key_failure(&error))
}

fn key_failure(error: &KeyFileError) -> Failure {
    let remedy = match error {
        KeyFileError::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => EXISTS,
        _ => "make one with `starminer key new FILE`, readable by you alone (chmod 600)",
    };
    match error {
        KeyFileError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Failure::local(error.code(), with_sources(error), "check free space")
        }
        _ => Failure::usage(error.code(), with_sources(error), remedy),
    }
}

/// Loads a symmetric secret that `key new --secret` made.
pub fn load_secret(path: &Path) -> Result<TaskSecret, Failure> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    let unusable = |reason: &dyn std::fmt::Display| {
        let remedy = "make one with `starminer key new --secret FILE`, readable by you alone (chmod 600)";
        Failure::usage("key.unusable", format!("{}: {reason}", path.display()), remedy)
    };
    let file = open_regular(path).map_err(|error| unusable(&error))?;
    let mode = file.metadata().map_err(|error| unusable(&error))?.mode();
    if mode & 0o077 != 0 {
        return Err(unusable(&"others can read it"));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_SECRET_FILE_BYTES).read_to_string(&mut text).map_err(|error| unusable(&error))?;
    let hex = text.trim_end().strip_prefix(SECRET_MAGIC).and_then(|rest| rest.strip_prefix(' '));
    let bytes = hex.and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok()).map(Zeroizing::new);
    let array: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.as_slice().try_into().ok());
    array.map(TaskSecret::from_bytes).ok_or_else(|| unusable(&"not a secret file"))
}
