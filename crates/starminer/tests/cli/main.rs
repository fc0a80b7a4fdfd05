//! The command line as its users see it: help, results, JSON, errors and exit codes, by real runs of the built program.
//!
//! Whatever it prints here goes to no terminal, so [`Cli::run`] also holds that nothing it prints has colour codes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/mod.rs"]
mod support;

mod appraise;
mod call;
mod demo;
mod disk;
mod doctor;
mod endorsements;
mod help;
mod image;
mod key;
mod operators;
mod reference;
mod tasks;
mod vault;
mod verify;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Exit codes, as `starminer --help` lists them.
mod exit {
    pub const OK: i32 = 0;
    pub const REFUSED: i32 = 1;
    pub const UNUSABLE: i32 = 2;
    pub const UNANCHORED: i32 = 3;
    pub const UNREACHABLE: i32 = 4;
    pub const LOCAL: i32 = 5;
}

/// A working directory of its own, which is also `$HOME`, to call the program in.
struct Cli {
    dir: tempfile::TempDir,
}

impl Cli {
    fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("starminer-cli-").tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Names in the working directory, sorted.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(support::program());
        command
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Nothing of the caller's environment may show; the width of help is fixed.
        command.env_clear().env("HOME", self.dir.path()).env("COLUMNS", "100").env("TERM", "xterm-256color");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Runs the program to its end.
    fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Said {
        Said::of(self.command(args).output().unwrap())
    }

    /// The same with bytes on standard input; standard output as bytes.
    fn pipe(&self, args: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // The program may refuse before it has read everything.
            scope.spawn(move || stdin.write_all(input).ok());
            child.wait_with_output().unwrap()
        });
        (output.status.code().unwrap(), output.stdout, String::from_utf8(output.stderr).unwrap())
    }
}

/// What a run said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: std::process::Output) -> Self {
        let said = Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!said.out.contains('\x1b') && !said.err.contains('\x1b'), "colour without a terminal: {said:?}");
        said
    }

    /// Holds the exit code; gives standard output.
    #[track_caller]
    fn exits(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{self:#?}");
        &self.out
    }

    /// The one JSON document of a run that ended with this code.
    #[track_caller]
    fn json(&self, code: i32) -> Value {
        let out = self.exits(code);
        assert_eq!(out.lines().count(), 1, "one document on one line: {out}");
        serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// An error for people: whose fault, which check, what to do, on standard error alone.
    #[track_caller]
    fn fails(&self, code: i32, check: &str, fault: &str, reason: &str) {
        self.exits(code);
        let lines: Vec<&str> = self.err.lines().collect();
        let [first, .., third_last, second_last, last] = lines.as_slice() else { panic!("not an error: {self:#?}") };
        assert!(first.starts_with("error: ") && first.contains(reason), "{reason:?} is not why: {self:#?}");
        assert_eq!(*third_last, format!("  check   {check}"), "{self:#?}");
        assert_eq!(*second_last, format!("  fault   {fault}"), "{self:#?}");
        assert!(last.starts_with("  do      ") && last.len() > 20, "{self:#?}");
    }

    /// The same error for scripts.
    #[track_caller]
    fn fails_in_json(&self, code: i32, check: &str, fault: &str, reason: &str) {
        let document = self.json(code);
        has_keys(&document, &["error", "exit_code"]);
        assert_eq!(document["exit_code"], code);
        is_refusal(&document["error"], check, fault, reason);
        assert_eq!(self.err, "", "the document says it all");
    }
}

/// A refusal as scripts see it.
#[track_caller]
fn is_refusal(refusal: &Value, check: &str, fault: &str, reason: &str) {
    has_keys(refusal, &["check", "party", "reason", "remedy"]);
    assert_eq!(refusal["check"], check, "{refusal:#}");
    assert_eq!(refusal["party"], fault, "{refusal:#}");
    assert!(refusal["reason"].as_str().unwrap().contains(reason), "{reason:?} is not why: {refusal:#}");
    assert!(refusal["remedy"].as_str().unwrap().len() > 10, "{refusal:#}");
}

/// Exactly these fields.
#[track_caller]
fn has_keys(document: &Value, keys: &[&str]) {
    let mut found: Vec<&str> = document.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut wanted = keys.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{document:#}");
}

/// A path of `examples/`.
fn example_path(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    support::text(&path.canonicalize().unwrap())
}
