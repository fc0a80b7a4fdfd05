//! Logs of firmware and kernel.

use std::collections::BTreeSet;

use serde_json::Value;
use starminer_hardware::event_log::{EventLog, PcrValues, Registers, parse_signature_lists};
use starminer_hardware::{Verdict, event_log as uefi, ima, tpm};

use crate::Outcome;
use crate::hardware::check_reasons;
use crate::hardware::logs::{EVENT_LOGS, LISTS, file_of};

/// Digests of images that claims name.
fn images(claims: &Value) -> BTreeSet<String> {
    let all = claims["boot_applications"].as_array().into_iter().flatten();
    all.map(|image| image["digests"].to_string()).collect()
}

pub fn event_log(data: &[u8]) -> Outcome {
    let parsed = EventLog::parse(data);
    let Ok(log) = &parsed else { return Outcome::of(&parsed, |error| error.code()) };
    assert_eq!(log.events().count(), log.len());
    let alone = uefi::verify(log, Registers::NotGiven);
    check_reasons(&alone.checks);
    let mut reached = vec![("alone", alone.verified.is_some())];
    if let Some(verified) = &alone.verified {
        assert!(!verified.anchored(), "no register was given");
        let claims = verified.to_json();
        assert!(claims.is_object());
        let checks = uefi::appraise(verified, &uefi::Policy::default());
        check_reasons(&checks);
        assert!(!checks.hold(), "a log that nothing vouches for, and no reference values");
        // Under the registers that it leads to it says the same or less, but now somebody vouches for it.
        let under = uefi::verify(log, Registers::Pcrs(verified.pcrs()));
        check_reasons(&under.checks);
        reached.push(("under its own", under.verified.is_some()));
    }
    let rtmrs = [[0x5a; 48]; 4];
    assert!(uefi::verify(log, Registers::Rtmrs(&rtmrs)).verified.is_none(), "it leads to registers of nobody's choice");
    let _ = log.replay_rtmrs();
    for known in EVENT_LOGS.iter() {
        let verification = uefi::verify(log, Registers::Pcrs(&known.registers));
        check_reasons(&verification.checks);
        let Some(verified) = &verification.verified else { continue };
        reached.push(("under known registers", true));
        let claims = verified.to_json();
        // A log that was altered without altering what it leads to may say less, and nothing else.
        let (before, after) = (&known.claims["secure_boot"], &claims["secure_boot"]);
        assert!(after.is_null() || after == before, "Secure Boot was {before} and becomes {after}");
        for database in ["PK", "KEK", "db", "dbx"] {
            let (before, after) = (&known.claims["databases"][database], &claims["databases"][database]);
            assert!(after.is_null() || after == before, "{database} was {before} and becomes {after}");
        }
        assert!(images(&claims).is_superset(&images(&known.claims)), "an image that was started is gone");
    }
    Outcome::accepted(reached)
}

pub fn registers(data: &[u8]) -> Outcome {
    let values = PcrValues::from_json(data);
    if let Ok(values) = &values {
        let again = PcrValues::from_json(values.to_json().to_string().as_bytes());
        assert_eq!(again.ok().as_ref(), Some(values), "what was written reads the same");
    }
    let same = tpm::PcrValues::parse(data, &[]);
    Outcome::of(&values, |_| "form").and(Outcome::of(&same, |error| error.code()))
}

pub fn signature_list(data: &[u8]) -> Outcome {
    match parse_signature_lists(data) {
        Some(all) => {
            assert!(all.len() <= uefi::MAX_DATABASE_ENTRIES);
            let fingerprints: BTreeSet<String> = all.iter().map(uefi::Signature::fingerprint).collect();
            Outcome::accepted(fingerprints.len())
        }
        None => Outcome::refused("form"),
    }
}

pub fn ima_list(data: &[u8]) -> Outcome {
    let parsed = ima::MeasurementList::parse(data);
    let Ok(list) = &parsed else { return Outcome::of(&parsed, |error| error.code()) };
    assert_eq!(list.entries().count(), list.len());
    let alone = ima::verify(list, None);
    check_reasons(&alone.checks);
    let mut reached = vec![("alone", alone.verified.is_some())];
    if let Some(verified) = &alone.verified {
        assert!(!verified.anchored() && verified.len() == list.len());
        assert!(verified.to_json().is_object());
        let checks = ima::appraise(verified, &ima::Policy::default());
        check_reasons(&checks);
        assert!(!checks.hold(), "a list that nothing vouches for");
    }
    for known in LISTS.iter() {
        let verification = ima::verify(list, Some(&known.registers));
        check_reasons(&verification.checks);
        let failed = verification.checks.as_slice().iter().find(|check| check.verdict == Verdict::Fail);
        assert_eq!(verification.verified.is_none(), !verification.checks.hold(), "{failed:?}");
        let Some(verified) = &verification.verified else { continue };
        reached.push(("under known registers", true));
        // What the register vouches for are the files that were measured, in their order; a violation says nothing, and may be anything.
        let files: Vec<_> =
            verified.entries().filter(|entry| entry.register == 10).map(|entry| file_of(&entry)).collect();
        assert_eq!(files.len(), known.files.len());
        for (found, known) in files.iter().zip(&known.files) {
            // The template is a label that nothing covers: under another one a path or digest is not read at all, which no policy takes.
            let same = |found: &Option<Vec<u8>>, known: &Option<Vec<u8>>| found.is_none() || found == known;
            assert!(same(&found.path, &known.path) && same(&found.digest, &known.digest), "{found:?} is not {known:?}");
        }
    }
    Outcome::accepted(reached)
}
