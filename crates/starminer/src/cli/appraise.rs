//! `starminer appraise …`: hardware evidence in files, judged offline.
//!
//! This file reads files and shows what came out; everything that decides is `starminer_hardware::inspect`.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use starminer_hardware::Weight;
use starminer_hardware::cert::{MAX_BUNDLE_BYTES, MAX_CRL_BYTES};
use starminer_hardware::dcap::{MAX_ENDORSEMENTS_LEN, MAX_QUOTE_LEN};
use starminer_hardware::event_log::MAX_LOG_BYTES;
use starminer_hardware::ima::MAX_LIST_BYTES;
use starminer_hardware::inspect::{
    Authorities, Dcap, Eventlog, File, Ima, InputError, Inspection, MAX_POLICY_BYTES, MAX_SMALL_FILE_BYTES, NO_POLICY,
    Nvidia, Options, PolicyFile, Snp, Tpm, TpmEk, Verdict, dcap, eventlog, ima, nvidia, parse_nonce, parse_time, shown,
    snp, tpm, tpm_ek,
};
use starminer_hardware::nvidia::{MAX_EVIDENCE_LEN, MAX_RIM_LEN};
use starminer_requester::open_regular;

use super::args::{AppraiseCommand, AuthorityArgs, JudgingArgs};
use super::exit::Failure;
use super::terminal::{Style, Terminal, printable};
use super::verify::now;

/// Values longer than this are shown on scripts' side alone.
const MAX_SHOWN_CHARS: usize = 200;

/// Judges, and tells the verdict; the exit code is its.
pub fn appraise(terminal: &Terminal, command: &AppraiseCommand) -> Result<u8, Failure> {
    let inspection = judge(command).unwrap_or_else(Inspection::from);
    if let Some(error) = inspection.error().filter(|_| !terminal.is_json()) {
        return Err(Failure::usage(error.code, error, error.remedy));
    }
    if !terminal.is_quiet() {
        show(terminal, &inspection);
    }
    terminal.document(&inspection.to_json());
    Ok(inspection.verdict().exit_code())
}

fn judge(command: &AppraiseCommand) -> Result<Inspection, InputError> {
    let mut reader = Reader { stdin_taken: false };
    Ok(match command {
        AppraiseCommand::Snp(args) => {
            let judging = Judging::read(&mut reader, &args.judging)?;
            let report = reader.one(&args.report, MAX_SMALL_FILE_BYTES)?;
            let certificates = reader.all(&args.certificates, MAX_BUNDLE_BYTES)?;
            let (roots, crls) = reader.authorities(&args.authorities)?;
            let authorities = Authorities { certificates: &certificates, roots: &roots, crls: &crls };
            snp(&Snp { report: &report, authorities }, &judging.options())
        }
        AppraiseCommand::Dcap(args) => {
            let judging = Judging::read(&mut reader, &args.judging)?;
            let quote = reader.one(&args.quote, MAX_QUOTE_LEN)?;
            let endorsements = reader.all(&args.endorsements, MAX_ENDORSEMENTS_LEN)?;
            let certificates = reader.all(&args.certificates, MAX_BUNDLE_BYTES)?;
            let log = reader.maybe(args.eventlog.as_deref(), MAX_LOG_BYTES)?;
            let (roots, crls) = reader.authorities(&args.authorities)?;
            let authorities = Authorities { certificates: &certificates, roots: &roots, crls: &crls };
            let eventlog = log.as_ref();
            dcap(&Dcap { quote: &quote, endorsements: &endorsements, authorities, eventlog }, &judging.options())
        }
        AppraiseCommand::TpmEk(args) => {
            let judging = Judging::read(&mut reader, &args.judging)?;
            let certificates = reader.all(&args.certificates, MAX_BUNDLE_BYTES)?;
            let (roots, crls) = reader.authorities(&args.authorities)?;
            let authorities = Authorities { certificates: &[], roots: &roots, crls: &crls };
            tpm_ek(&TpmEk { certificates: &certificates, authorities }, &judging.options())
        }
        AppraiseCommand::Tpm(args) => {
            let judging = Judging::read(&mut reader, &args.judging)?;
            let nonce = parse_nonce(&args.nonce)?;
            let [quote, signature, ak] =
                [&args.quote, &args.signature, &args.ak].map(|path| reader.one(path, MAX_SMALL_FILE_BYTES));
            let (quote, signature, ak) = (quote?, signature?, ak?);
            let pcrs = reader.maybe(args.pcrs.as_deref(), MAX_SMALL_FILE_BYTES)?;
            let eventlog = reader.maybe(args.eventlog.as_deref(), MAX_LOG_BYTES)?;
            let ima = reader.maybe(args.ima.as_deref(), MAX_LIST_BYTES)?;
            let given = Tpm {
                quote: &quote,
                signature: &signature,
                ak: &ak,
                nonce: &nonce,
                pcrs: pcrs.as_ref(),
                eventlog: eventlog.as_ref(),
                ima: ima.as_ref(),
            };
            tpm(&given, &judging.options())
        }
        AppraiseCommand::Eventlog(args) => {
            let judging = Judging::read(&mut reader, &args.judging)?;
            let log = reader.one(&args.log, MAX_LOG_BYTES)?;
            let pcrs = reader.maybe(args.pcrs.as_deref(), MAX_SMALL_FILE_BYTES)?;
            eventlog(&Eventlog { log: &log, pcrs: pcrs.as_ref() }, &judging.options())
        }
        AppraiseCommand::Ima(args) => {
            let judging = Judging::read(&mut reader, &args.judging)?;
            let log = reader.one(&args.log, MAX_LIST_BYTES)?;
            let pcrs = reader.maybe(args.pcrs.as_deref(), MAX_SMALL_FILE_BYTES)?;
            ima(&Ima { log: &log, pcrs: pcrs.as_ref() }, &judging.options())
        }
        AppraiseCommand::Nvidia(args) => {
            let judging = Judging::read(&mut reader, &args.judging)?;
            let nonce = args.nonce.as_deref().map(parse_nonce).transpose()?;
            let evidence = reader.one(&args.evidence, MAX_EVIDENCE_LEN)?;
            let rims = reader.all(&args.rims, MAX_RIM_LEN)?;
            let rim_roots = reader.all(&args.rim_roots, MAX_BUNDLE_BYTES)?;
            let (roots, crls) = reader.authorities(&args.authorities)?;
            let authorities = Authorities { certificates: &[], roots: &roots, crls: &crls };
            let nonce = nonce.as_deref();
            let given = Nvidia { evidence: &evidence, rims: &rims, nonce, authorities, rim_roots: &rim_roots };
            nvidia(&given, &judging.options())
        }
    })
}

/// Time and policy, read.
struct Judging {
    now_s: u64,
    policy: Option<PolicyFile>,
}

impl Judging {
    fn read(reader: &mut Reader, args: &JudgingArgs) -> Result<Self, InputError> {
        let now_s = match &args.at {
            Some(text) => parse_time(text)?,
            None => now().as_millis() / 1000,
        };
        let file = reader.maybe(args.policy.as_deref(), MAX_POLICY_BYTES)?;
        Ok(Self { now_s, policy: file.as_ref().map(PolicyFile::parse).transpose()? })
    }

    fn options(&self) -> Options<'_> {
        Options { now_s: self.now_s, policy: self.policy.as_ref() }
    }
}

/// Reads files, each up to its bound and a byte more, so that what judges them sees which are too long.
struct Reader {
    stdin_taken: bool,
}

impl Reader {
    fn one(&mut self, path: &Path, most_bytes: usize) -> Result<File, InputError> {
        let name = printable(path.display());
        let unreadable = |error: std::io::Error| {
            InputError::new("file.unreadable", &*name, error, "give a file that can be read, or - for standard input")
        };
        let source: Box<dyn Read> = if path.as_os_str() != "-" {
            Box::new(open_regular(path).map_err(unreadable)?)
        } else if std::mem::replace(&mut self.stdin_taken, true) {
            let reason = "standard input was named twice";
            return Err(InputError::new("file.unreadable", name, reason, "give the other one as a file"));
        } else {
            Box::new(std::io::stdin().lock())
        };
        let mut bytes = Vec::new();
        source.take(most_bytes as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(File { name, bytes })
    }

    fn maybe(&mut self, path: Option<&Path>, most_bytes: usize) -> Result<Option<File>, InputError> {
        path.map(|path| self.one(path, most_bytes)).transpose()
    }

    fn all(&mut self, paths: &[PathBuf], most_bytes: usize) -> Result<Vec<File>, InputError> {
        paths.iter().map(|path| self.one(path, most_bytes)).collect()
    }

    /// Roots and revocation lists. A list in PEM is a third longer than the same in DER.
    fn authorities(&mut self, args: &AuthorityArgs) -> Result<(Vec<File>, Vec<File>), InputError> {
        Ok((self.all(&args.roots, MAX_BUNDLE_BYTES)?, self.all(&args.crls, 2 * MAX_CRL_BYTES)?))
    }
}

/// Shows an inspection to people: the verdict and why, the checks, what is claimed.
fn show(terminal: &Terminal, inspection: &Inspection) {
    let (style, word) = match inspection.verdict() {
        Verdict::Verified => (Style::Green, "VERIFIED"),
        Verdict::Refused | Verdict::Error => (Style::Red, "REFUSED"),
    };
    let stamp = match inspection.claims()["provenance"].as_str() {
        Some("genuine") => terminal.style(Style::Green, "  genuine hardware"),
        Some("simulated") => terminal.style(Style::Yellow, "  SIMULATED"),
        _ => "".into(),
    };
    terminal.result(format!("{}{stamp}", terminal.style(style, word)));
    let all = inspection.checks().as_slice();
    let of = |verdict| {
        let decide = all.iter().filter(move |check| check.weight == Weight::Required && check.verdict == verdict);
        decide.map(|check| check.name.as_ref()).collect::<Vec<&str>>()
    };
    // What was not checked because something failed before it is no reason of its own.
    let mut because = of(starminer_hardware::Verdict::Fail);
    if because.is_empty() {
        because = of(starminer_hardware::Verdict::NotChecked);
    }
    if !because.is_empty() {
        terminal.result(format!("  because of {}", because.join(", ")));
    }
    let checks: Vec<_> = inspection.checks().as_slice().iter().filter(|check| check.reason != NO_POLICY).collect();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in &checks {
        let (verdict, reason) = shown(check);
        let (style, mark) = match verdict {
            starminer_hardware::Verdict::Pass => (Style::Green, "pass"),
            starminer_hardware::Verdict::Fail => (Style::Red, "fail"),
            starminer_hardware::Verdict::NotChecked => (Style::Dim, "not checked"),
        };
        let mark = terminal.style(style, format!("{mark:<11}"));
        terminal.result(format!("  {mark}  {:<width$}  {}", check.name, printable(reason)));
    }
    let unasked = inspection.checks().as_slice().len() - checks.len();
    if unasked > 0 {
        terminal.result(format!("  {unasked} more are for a policy to judge: --policy FILE"));
    }
    let mut lines = Vec::new();
    flatten(&mut lines, String::new(), inspection.claims());
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    if !lines.is_empty() {
        terminal.result("");
    }
    for (name, value) in lines {
        terminal.result(format!("  {}  {}", terminal.style(Style::Cyan, format!("{name:<width$}")), printable(value)));
    }
}

/// Claims as lines of dotted names and values. Lists of objects are counted: `--json` has them.
fn flatten(lines: &mut Vec<(String, String)>, name: String, value: &Value) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let name = if name.is_empty() { member.clone() } else { format!("{name}.{member}") };
                flatten(lines, name, value);
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            lines.push((name, format!("{} (--json lists them)", values.len())));
        }
        Value::Array(values) => {
            let shown: Vec<String> = values.iter().map(plain).collect();
            lines.push((name, if shown.is_empty() { "none".to_owned() } else { cut(shown.join(", ")) }));
        }
        value => lines.push((name, cut(plain(value)))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "not known".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((at, _)) => format!("{}… (--json has all of it)", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_lines() {
        let mut lines = Vec::new();
        let claims = json!({
            "a": { "b": { "c": 1 }, "d": null }, "e": [{ "f": 1 }, { "f": 2 }], "g": ["h", true], "i": [], "j": "k".repeat(201),
        });
        flatten(&mut lines, String::new(), &claims);
        let lines: Vec<String> = lines.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let long = format!("j={}… (--json has all of it)", "k".repeat(200));
        let wanted = ["a.b.c=1", "a.d=not known", "e=2 (--json lists them)", "g=h, yes", "i=none", &long];
        assert_eq!(lines, wanted);
    }
}
