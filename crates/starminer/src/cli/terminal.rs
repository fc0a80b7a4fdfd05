//! What the program says: text for people, JSON for scripts, progress on long work, colour only on a terminal.
//!
//! Standard output carries results and the story before them, standard error errors, progress and diagnostics. With `--json`
//! standard output has exactly one JSON document, failures included. Where standard output is the data itself (`vault open … -`),
//! all of that goes to standard error.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use super::exit::Failure;

/// A colour or weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// Good.
    Green,
    /// To be careful about.
    Yellow,
    /// Bad.
    Red,
    /// Names.
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Cyan => "36",
        }
    }
}

/// Where and how output goes.
#[derive(Debug, Clone)]
pub struct Terminal {
    json: bool,
    quiet: bool,
    colour: bool,
    stdout_is_data: bool,
}

impl Terminal {
    /// Looks at the arguments and at what standard output is.
    pub fn new(json: bool, quiet: bool, stdout_is_data: bool) -> Self {
        let colour = std::io::stdout().is_terminal()
            && !stdout_is_data
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { json, quiet, colour, stdout_is_data }
    }

    /// Starts diagnostics on standard error.
    pub fn start_diagnostics(&self, filter: &str) {
        let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
        let ansi = std::io::stderr().is_terminal();
        // A second start, as in tests, changes nothing.
        let _ =
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).try_init();
    }

    /// Whether scripts read this.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Styles a text, on a terminal.
    pub fn style<'a>(&self, style: Style, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        let text = text.into();
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", style.code()).into() } else { text }
    }

    /// A line of the story: for people who did not ask for quiet.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.json && !self.quiet {
            self.print_line(line.as_ref());
        }
    }

    /// A line of the result: for people.
    pub fn result(&self, line: impl AsRef<str>) {
        if !self.json {
            self.print_line(line.as_ref());
        }
    }

    /// The result for scripts.
    pub fn document(&self, value: &Value) {
        if self.json {
            self.print_line(&value.to_string());
        }
    }

    fn print_line(&self, line: &str) {
        if self.stdout_is_data {
            return error_line(line);
        }
        let mut out = std::io::stdout().lock();
        // A closed pipe (`| head`) is no error of ours.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Why it did not work: whose fault, which check, what to do.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            self.document(&json!({ "error": failure.document(), "exit_code": failure.exit_code() }));
            return;
        }
        let [_, rest @ ..] = failure.lines();
        error_line(&format!("error: {}", failure.refusal().reason()));
        rest.iter().for_each(|line| error_line(line));
    }

    /// A progress bar over bytes.
    pub fn bytes_bar(&self, label: &str, total_bytes: u64) -> ProgressBar {
        let bar = self.bar(total_bytes);
        let template = "  {prefix:<22} {bar:28} {bytes:>10} / {total_bytes:<10} {bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_prefix(label.to_string());
        bar
    }

    /// A spinner for work of unknown length.
    pub fn spinner(&self, label: &str) -> ProgressBar {
        let bar = self.bar(0);
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(label.to_string());
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        bar
    }

    fn bar(&self, total: u64) -> ProgressBar {
        let hidden = self.json || self.quiet || !std::io::stderr().is_terminal();
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        ProgressBar::with_draw_target(Some(total), target)
    }
}

fn error_line(line: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A length for people.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The first eight characters of an identifier.
pub fn short(id: &impl std::fmt::Display) -> String {
    id.to_string().chars().take(8).collect()
}
