//! A diagnosis for people and for scripts.

use serde_json::{Value, json};
use starminer_hardware::endorsements::{Ending, Hands};
use starminer_verify::Tier;

use super::judge::{Diagnosis, Group, Line, Mark, Next};
use crate::cli::endorsements::day;
use crate::cli::terminal::{Style, Terminal, printable};

/// The widest line of text for people.
const WIDTH: usize = 100;
/// Where reasons and texts of what to do begin.
const INDENT: &str = "               ";

/// For people: groups of checks, each with what to do, and what it comes to.
pub fn people(terminal: &Terminal, diagnosis: &Diagnosis) {
    let needed = diagnosis.next.as_ref().map(|next| next.missing.as_slice()).unwrap_or_default();
    let shown = |line: &&Line| line.is_headline || needed.contains(&line.name) || is_unmet(diagnosis, line);
    let width = diagnosis.lines.iter().filter(shown).map(|line| short(&line.name).len()).max().unwrap_or(0);
    for group in Group::ALL {
        let lines: Vec<&Line> = diagnosis.lines.iter().filter(|line| line.group == group).collect();
        if lines.is_empty() {
            continue;
        }
        terminal.result(terminal.style(Style::Cyan, title(group)));
        lines.iter().copied().filter(shown).for_each(|line| one(terminal, line, width));
        let rest: Vec<&&Line> = lines.iter().filter(|line| !shown(line)).collect();
        if !rest.is_empty() {
            let pass = rest.iter().filter(|line| line.mark == Mark::Pass).count();
            let more = format!("  {} more checks, of which {pass} pass: --json lists them", rest.len());
            terminal.result(terminal.style(Style::Dim, more));
        }
    }
    terminal.result("");
    conclusion(terminal, diagnosis);
}

fn is_unmet(diagnosis: &Diagnosis, line: &Line) -> bool {
    diagnosis.unmet.as_ref().is_some_and(|unmet| unmet.contains(&line.name))
}

const fn title(group: Group) -> &'static str {
    match group {
        Group::Tee => "TEE",
        Group::Tpm => "TPM",
        Group::Boot => "Boot",
        Group::Storage => "Storage",
        Group::Kernel => "Kernel",
        Group::Cpu => "CPU and memory",
        Group::Endorsements => "Endorsements",
    }
}

/// What a group's title says already.
fn short(name: &str) -> &str {
    name.strip_prefix("posture.host.").unwrap_or(name)
}

fn one(terminal: &Terminal, line: &Line, width: usize) {
    let (style, word) = match line.mark {
        Mark::Pass => (Style::Green, "pass"),
        Mark::Missing => (Style::Red, "missing"),
        Mark::NotChecked => (Style::Yellow, "not checked"),
    };
    let mark = terminal.style(style, format!("{word:<11}"));
    let name = format!("{:<width$}", short(&line.name));
    let room = WIDTH.saturating_sub(INDENT.len() + width + 2).max(20);
    let mut reason = wrapped(&printable(&line.reason), room).into_iter();
    terminal.result(format!("  {mark}  {name}  {}", reason.next().unwrap_or_default()));
    reason.for_each(|more| terminal.result(format!("{INDENT}{:width$}  {more}", "")));
    if !line.fix.is_empty() {
        for (at, text) in wrapped(&printable(&line.fix), WIDTH - INDENT.len() - 4).into_iter().enumerate() {
            terminal.result(format!("{INDENT}{} {text}", if at == 0 { "do:" } else { "   " }));
        }
    }
}

/// Words in lines of at most so many characters; a longer word has a line of its own.
fn wrapped(text: &str, most_chars: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= most_chars => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn conclusion(terminal: &Terminal, diagnosis: &Diagnosis) {
    let provenance = diagnosis.provenance.map(|provenance| format!(" ({})", provenance.name())).unwrap_or_default();
    let style = if diagnosis.is_enough() { Style::Green } else { Style::Yellow };
    let tier = terminal.style(style, format!("{}{provenance}", diagnosis.tier));
    terminal.result(format!("tier reached: {tier}"));
    if diagnosis.would_reach > diagnosis.tier {
        terminal.result(format!("would reach:  {}, if the network named what runs here:", diagnosis.would_reach));
        for (kind, measurement) in &diagnosis.measurements {
            terminal.result(format!(
                "  {:<10}  {}",
                kind.name(),
                data_encoding::HEXLOWER.encode(measurement.as_bytes())
            ));
        }
    }
    if let Some(Next { tier, missing }) = &diagnosis.next {
        terminal.result(format!("next tier:    {tier} needs: {}", missing.join(", ")));
    }
    match &diagnosis.unmet {
        Some(unmet) if unmet.is_empty() => terminal.result("policy:       met"),
        Some(unmet) => terminal.result(format!("policy:       not met: {}", unmet.join(", "))),
        None => {}
    }
    forecast(terminal, diagnosis);
}

fn forecast(terminal: &Terminal, diagnosis: &Diagnosis) {
    if diagnosis.tier == Tier::None && diagnosis.forecast.first().is_none() {
        return;
    }
    let told = |what: &str, ending: &Ending| {
        terminal.result(format!("{what}{}: {}", day(ending.at_s), printable(&ending.reason)));
        terminal.result(format!("{INDENT}do: {}", printable(&ending.remedy)));
    };
    match diagnosis.forecast.first_for_provider() {
        Some(ending) => told("holds until:  ", ending),
        None => terminal.result("holds until:  nothing is known to end it, as long as endorsements are renewed"),
    }
    if let Some(ending) = diagnosis.forecast.first().filter(|ending| ending.hands == Hands::Refresh) {
        told("to renew by:  ", ending);
    }
}

/// For scripts.
pub fn document(diagnosis: &Diagnosis, exit_code: u8) -> Value {
    let check = |line: &Line| {
        json!({
            "name": line.name,
            "group": line.group.name(),
            "verdict": line.mark.name(),
            "reason": line.reason,
            "fix": if line.fix.is_empty() { None } else { Some(&line.fix) },
        })
    };
    let measurement = |(kind, value): &(starminer_verify::EvidenceKind, starminer_verify::Measurement)| json!({ "kind": kind.name(), "measurement": data_encoding::HEXLOWER.encode(value.as_bytes()) });
    json!({
        "tier": diagnosis.tier.name(),
        "provenance": diagnosis.provenance.map(|provenance| provenance.to_string()),
        "would_reach": diagnosis.would_reach.name(),
        "next": diagnosis.next.as_ref().map(|next| json!({ "tier": next.tier.name(), "missing": next.missing })),
        "policy": diagnosis.unmet.as_ref().map(|unmet| json!({ "met": unmet.is_empty(), "unmet": unmet })),
        "checks": diagnosis.lines.iter().map(check).collect::<Vec<_>>(),
        "measurements": diagnosis.measurements.iter().map(measurement).collect::<Vec<_>>(),
        "forecast": diagnosis.forecast.to_json(),
        "exit_code": exit_code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_at_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a-word-that-is-long b", 5), ["a-word-that-is-long", "b"]);
        assert_eq!(wrapped("", 5), [""; 0]);
    }
}
