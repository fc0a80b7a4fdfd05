//! What the long-running commands share: directories, settings, hardening, signals, readiness.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use starminer_receipt::{NetworkTrust, toml_reason};
use starminer_requester::{Home, open_regular};

use super::exit::Failure;
use super::home::with_sources;

/// Largest settings file.
const MAX_SETTINGS_BYTES: u64 = 256 * 1024;

/// Makes a directory for `init`; one with something in it is refused.
pub fn new_dir(dir: &Path) -> Result<(), Failure> {
    let unusable = |error: &std::io::Error| {
        Failure::usage("init.directory", format!("{}: {error}", dir.display()), "name a directory that you can make")
    };
    if dir.exists() && fs::read_dir(dir).map_err(|error| unusable(&error))?.next().is_some() {
        return Err(Failure::usage(
            "init.not-empty",
            format!("{} is not empty", dir.display()),
            "name a new directory",
        ));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| unusable(&error))
}

/// Writes a file that does not exist yet.
pub fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| {
            Failure::local("init.write", format!("{}: {error}", path.display()), "check free space and permissions")
        })
}

/// Takes a directory for this process alone, until the file is dropped; `in_use` is the check that fails while another has it.
pub fn take(dir: &Path, in_use: &'static str) -> Result<fs::File, Failure> {
    let path = dir.join("lock");
    let unusable = |error: std::io::Error| {
        Failure::local("service.lock", format!("{}: {error}", path.display()), "check free space and permissions")
    };
    let mut options = fs::OpenOptions::new();
    let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(Failure::local(
            in_use,
            format!("{} is in use by another process", dir.display()),
            "stop the one that runs there, or leave it to it",
        )),
        Err(fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// Reads settings that `init` wrote.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    read_toml_at(path, "give the directory that `init` made")
}

/// Reads settings that the caller named.
pub fn read_toml_at<T: DeserializeOwned>(path: &Path, remedy: &str) -> Result<T, Failure> {
    let unusable = |reason: &dyn std::fmt::Display| {
        Failure::usage("settings.unusable", format!("{}: {reason}", path.display()), remedy)
    };
    let text = read_text(path, MAX_SETTINGS_BYTES).map_err(|error| unusable(&error))?;
    toml::from_str(&text).map_err(|error| unusable(&toml_reason(&text, &error)))
}

/// Reads a text file of at most `max_bytes`; of a longer one nothing is used.
pub fn read_text(path: &Path, max_bytes: u64) -> std::io::Result<String> {
    let mut text = String::new();
    open_regular(path)?.take(max_bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > max_bytes {
        return Err(std::io::Error::other(format!("more than {max_bytes} bytes")));
    }
    Ok(text)
}

/// Reads a trust file that the caller named.
pub fn read_trust(path: &Path) -> Result<NetworkTrust, Failure> {
    Home::read_network(path).map_err(|error| {
        let remedy = "give the network.toml that the network's `coordinator init` wrote";
        Failure::usage("network.unusable", with_sources(&error), remedy)
    })
}

/// Makes this process hard to look into: no core dumps, no tracing, nothing preloaded.
pub fn harden() -> Result<(), Failure> {
    starminer_sandbox::harden_supervisor().map(drop).map_err(|error| {
        Failure::local(error.code(), &error, "start it without a debugger and without preloaded libraries")
    })
}

/// Tells whoever started this process that it serves now: an empty file `ready` in its directory.
pub fn ready(dir: &Path) -> Result<(), Failure> {
    fs::write(dir.join("ready"), b"").map_err(|error| {
        Failure::local("service.ready", format!("{}: {error}", dir.display()), "check free space and permissions")
    })
}

/// Resolves when the process is asked to stop; with `until_stdin_ends` also when nobody holds the other end of its standard input
/// any more, which is so once whoever started it is gone, however that came.
pub async fn shutdown_signal(until_stdin_ends: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(signal) => signal,
        // Without signals the process can still be killed; that loses nothing.
        Err(_) => return std::future::pending().await,
    };
    let mut interrupt = match signal(SignalKind::interrupt()) {
        Ok(signal) => signal,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_ends(), if until_stdin_ends => {}
    }
}

async fn stdin_ends() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread that nothing waits for: a read of standard input cannot be called off.
    let reader = std::thread::Builder::new().name("stdin".into()).spawn(move || {
        // What comes means nothing, and an error is an end, too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    match reader {
        Ok(_) => end.await.unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "the end of standard input is not watched for");
            std::future::pending().await
        }
    }
}
