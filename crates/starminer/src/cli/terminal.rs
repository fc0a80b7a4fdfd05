//! What the program says: text for people, JSON for scripts, progress on long work, colour only on a terminal.
//!
//! Standard output carries results and the story before them, standard error errors, progress and diagnostics. With `--json`
//! standard output has exactly one JSON document, failures included. Where standard output is the data itself (`vault open … -`),
//! all of that goes to standard error.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
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
    /// Bars and spinners; lines are printed while they are off the screen.
    bars: MultiProgress,
}

impl Terminal {
    /// Looks at the arguments and at what standard output is.
    pub fn new(json: bool, quiet: bool, stdout_is_data: bool) -> Self {
        let colour = std::io::stdout().is_terminal()
            && !stdout_is_data
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let no_bars = json || quiet || !std::io::stderr().is_terminal();
        let target = if no_bars { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self { json, quiet, colour, stdout_is_data, bars: MultiProgress::with_draw_target(target) }
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

    /// Whether results alone are wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Something that whoever waits has to know, on standard error: scripts' documents do not change by it.
    pub fn note(&self, line: impl AsRef<str>) {
        self.error_line(line.as_ref());
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
            return self.error_line(line);
        }
        let line = harmless(line, self.colour);
        self.bars.suspend(|| {
            let mut out = std::io::stdout().lock();
            // A closed pipe (`| head`) is no error of ours.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        });
    }

    fn error_line(&self, line: &str) {
        let line = harmless(line, false);
        // Nobody is left to tell if standard error is closed.
        self.bars.suspend(|| drop(writeln!(std::io::stderr().lock(), "{line}")));
    }

    /// Why it did not work: whose fault, which check, what to do.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            self.document(&json!({ "error": failure.document(), "exit_code": failure.exit_code() }));
            return;
        }
        let [_, rest @ ..] = failure.lines();
        self.error_line(&format!("error: {}", failure.refusal().reason()));
        rest.iter().for_each(|line| self.error_line(line));
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
        self.bars.add(ProgressBar::new(total))
    }
}

/// A text without control characters but line breaks, tabs and, with `styles`, the styles of this module: names of files and
/// what programs print are strangers' and may not steer a terminal.
fn harmless(text: &str, styles: bool) -> Cow<'_, str> {
    let kept = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(kept) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let style = if styles && c == '\x1b' { style_length(rest) } else { None };
        let length = style.unwrap_or(c.len_utf8());
        if style.is_some() || kept(c) {
            out.push_str(&rest[..length]);
        } else {
            out.extend(c.escape_default());
        }
        rest = &rest[length..];
    }
    out.into()
}

/// Length of the style that the text begins with.
fn style_length(text: &str) -> Option<usize> {
    let digits = text.strip_prefix("\x1b[")?.split_once('m')?.0;
    (digits.len() <= 2 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits.len() + 3)
}

/// A name or path in one line: its line breaks are escaped, too.
pub fn printable(name: impl std::fmt::Display) -> String {
    name.to_string().chars().fold(String::new(), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    })
}

/// A word as a shell takes it.
pub fn quoted(word: impl std::fmt::Display) -> String {
    let word = word.to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_steer_the_terminal() {
        assert_eq!(harmless("a\x1b]0;title\x07\r\u{9b}2J\n\tb", true), "a\\u{1b}]0;title\\u{7}\\r\\u{9b}2J\n\tb");
        assert_eq!(harmless("\x1b[32mgood\x1b[0m \x1b[2J", true), "\x1b[32mgood\x1b[0m \\u{1b}[2J");
        assert_eq!(harmless("\x1b[32mgood", false), "\\u{1b}[32mgood");
        assert_eq!(printable("a\nerror: b"), "a\\nerror: b");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(quoted("/tmp/out-1/a.receipt"), "/tmp/out-1/a.receipt");
        assert_eq!(quoted("it's here"), "'it'\\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
