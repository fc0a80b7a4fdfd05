//! `starminer verify`: receipts, offline, by the verifier's own trust.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use starminer_receipt::{
    ClaimVerdict, EntryKind, LogEntry, MAX_RECEIPT_BYTES, NetworkTrust, Outcome, Overall, Receipt, ReceiptVerdict,
    Validity, verify_receipt,
};
use starminer_requester::open_regular;
use starminer_verify::{Provenance, PublicKey, UnixTime, ear_jwt};

use super::args::VerifyArgs;
use super::exit::{self, Failure};
use super::files;
use super::key::load_identity;
use super::terminal::{Style, Terminal, printable};
use super::{reference, service};

/// Verifies every receipt; the worst verdict decides the exit code.
pub fn verify(terminal: &Terminal, args: &VerifyArgs) -> Result<u8, Failure> {
    let trust = match &args.network {
        Some(path) => Some(service::read_trust(path)?),
        None => None,
    };
    if args.token.is_some() && args.receipts.len() != 1 {
        return Err(Failure::usage("verify.token", "a token is of one receipt", "name one receipt with --token"));
    }
    let mut documents = Vec::new();
    let mut code = exit::OK;
    for path in &args.receipts {
        let with_trust = |receipt| Ok((trust_for(&receipt, trust.as_ref(), args.references.as_deref())?, receipt));
        match read_receipt(path).and_then(with_trust) {
            Ok((trust, receipt)) => {
                let verdict = verify_receipt(&receipt, trust.as_deref(), now());
                code = worse(code, exit_code(&verdict));
                if let (Some(out), Some(key)) = (&args.token, &args.key) {
                    write_token(terminal, out, key, &receipt, &verdict)?;
                }
                if !terminal.is_quiet() {
                    show(terminal, path, &verdict);
                }
                documents.push(document(path, &verdict));
            }
            Err(failure) => {
                code = worse(code, exit::UNUSABLE);
                terminal.say(format!("{}  {}", terminal.style(Style::Red, "UNUSABLE"), printable(path.display())));
                for line in failure.lines() {
                    terminal.say(line);
                }
                documents.push(json!({
                    "file": path.display().to_string(),
                    "verdict": "unusable",
                    "error": failure.document(),
                }));
            }
        }
    }
    terminal.document(&json!({ "receipts": documents, "exit_code": code }));
    Ok(code)
}

/// Signs the attestation result of a receipt, where every claim of it is proven.
fn write_token(
    terminal: &Terminal,
    out: &Path,
    key: &Path,
    receipt: &Receipt,
    verdict: &ReceiptVerdict,
) -> Result<(), Failure> {
    let key = load_identity(key)?;
    if verdict.overall() != Overall::Proven {
        terminal.say("no token: not every claim of the receipt is proven");
        return Ok(());
    }
    let Some(result) = &receipt.attestation_result else {
        terminal.say("no token: the receipt has no attestation result, because no key was released");
        return Ok(());
    };
    let token = ear_jwt(&result.0, &PublicKey(key.public()), |bytes| key.sign(bytes));
    files::replace(out, token.as_bytes(), files::PUBLIC).map_err(|error| {
        files::not_written("verify.token-not-written", out, &error, "name a file in a directory where you may write")
    })
}

/// The trust that a receipt is verified by: the caller's own, and published values that counted when its node was judged.
fn trust_for<'t>(
    receipt: &Receipt,
    trust: Option<&'t NetworkTrust>,
    references: Option<&Path>,
) -> Result<Option<Cow<'t, NetworkTrust>>, Failure> {
    let (Some(trust), Some(path)) = (trust, references) else { return Ok(trust.map(Cow::Borrowed)) };
    let entries = receipt.entries.iter().filter_map(|logged| LogEntry::parse(&logged.entry.0).ok());
    // What these entries say is not verified yet. A time that is not that of the log refutes the receipt.
    let judged = entries.filter(|entry| matches!(entry.kind, EntryKind::Granted | EntryKind::Denied));
    let judged_at = judged.map(|entry| entry.at).max().unwrap_or_else(now);
    let mut joined = trust.clone();
    joined.reference_values = reference::values_at(path, trust, judged_at)?;
    Ok(Some(Cow::Owned(joined)))
}

/// The exit code of one receipt.
pub fn exit_code(verdict: &ReceiptVerdict) -> u8 {
    match verdict.overall() {
        Overall::Proven => exit::OK,
        Overall::Refuted => exit::REFUSED,
        Overall::Unanchored => exit::UNANCHORED,
    }
}

/// Refuted is worse than unusable, unusable worse than unanchored.
fn worse(a: u8, b: u8) -> u8 {
    let rank = |code| match code {
        exit::REFUSED => 3,
        exit::UNUSABLE => 2,
        exit::UNANCHORED => 1,
        _ => 0,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// Reads a receipt file or, for `-`, standard input, bounded. The caller says which file failed.
pub fn read_receipt(path: &Path) -> Result<Receipt, Failure> {
    let unusable = |check: &'static str, reason: String| {
        Failure::usage(check, reason, "give a file that `starminer run` or `result` wrote")
    };
    let file: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(open_regular(path).map_err(|error| unusable("receipt.unreadable", error.to_string()))?)
    };
    let mut bytes = Vec::new();
    file.take(MAX_RECEIPT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unusable("receipt.unreadable", error.to_string()))?;
    Receipt::parse(&bytes).map_err(|error| unusable(error.code(), error.to_string()))
}

/// This machine's clock.
pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Shows a verdict to people.
pub fn show(terminal: &Terminal, path: &Path, verdict: &ReceiptVerdict) {
    let (style, word) = match verdict.overall() {
        Overall::Proven => (Style::Green, "PROVEN"),
        Overall::Unanchored => (Style::Yellow, "UNANCHORED"),
        Overall::Refuted => (Style::Red, "REFUTED"),
    };
    let stamp = match verdict.provenance {
        Some(Provenance::Genuine) => terminal.style(Style::Green, "genuine hardware"),
        Some(Provenance::Simulated { .. }) => terminal.style(Style::Yellow, "SIMULATED"),
        None => terminal.style(Style::Yellow, "SIMULATED (no evidence that verifies)"),
    };
    terminal.result(format!("{}  {}  {stamp}", terminal.style(style, word), printable(path.display())));
    for claim in &verdict.claims {
        let (style, mark) = match claim.verdict {
            ClaimVerdict::Proven => (Style::Green, "proven"),
            ClaimVerdict::NotClaimed => (Style::Dim, "not claimed"),
            ClaimVerdict::Unanchored => (Style::Yellow, "unanchored"),
            ClaimVerdict::Refuted => (Style::Red, "refuted"),
        };
        terminal.result(format!(
            "  {} {:<18} {:<16} {}",
            terminal.style(style, format!("{mark:<11}")),
            claim.name,
            claim.voucher.name(),
            claim.statement
        ));
    }
    if let (Some(then), Some(now)) = (&verdict.valid_then, &verdict.valid_now) {
        terminal.result(format!("  evidence valid then: {}; valid now: {}", validity(then), validity(now)));
    }
}

fn validity(validity: &Validity) -> String {
    match validity {
        Validity::Valid => "yes".into(),
        Validity::Invalid(reason) => format!("no ({reason})"),
    }
}

/// A verdict for scripts.
pub fn document(path: &Path, verdict: &ReceiptVerdict) -> Value {
    let claims: Vec<Value> = verdict
        .claims
        .iter()
        .map(|claim| {
            json!({
                "name": claim.name,
                "verdict": claim.verdict.name(),
                "voucher": claim.voucher.name(),
                "statement": claim.statement,
            })
        })
        .collect();
    let outcome = verdict.outcome.as_ref().map(|outcome| match outcome {
        Outcome::Completed => json!({ "kind": "completed" }),
        Outcome::Failed { refusal } => {
            let mut failed = exit::document(refusal);
            failed["kind"] = "failed".into();
            failed
        }
    });
    json!({
        "file": path.display().to_string(),
        "verdict": verdict.overall().name(),
        "simulated": verdict.is_simulated(),
        "provenance": verdict.provenance.as_ref().map(ToString::to_string),
        "tier": verdict.tier.as_ref().map(ToString::to_string),
        "spec": verdict.spec.as_ref().map(ToString::to_string),
        "node": verdict.node.as_ref().map(ToString::to_string),
        "outcome": outcome,
        "log_time_ms": verdict.log_time.map(|time| time.as_millis()),
        "valid_then": verdict.valid_then.as_ref().map(|valid| *valid == Validity::Valid),
        "valid_now": verdict.valid_now.as_ref().map(|valid| *valid == Validity::Valid),
        "claims": claims,
    })
}
