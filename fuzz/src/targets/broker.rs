//! Targets of `starminer-broker`: what a releaser is told by others, and its own journal.

use serde_json::Value;
use starminer_broker::*;
use starminer_receipt::{LoggedEntry, Signer as _};
use starminer_verify::{Attempt, Digest, UnixTime};
use starminer_wire::Deposit;

use super::json_round_trip;
use crate::world::{self, BROKER_CHALLENGE, Ending, NETWORK, NOW, Story, world};
use crate::{Outcome, forge};

fn story() -> &'static Story {
    world().story(Ending::Completed)
}

fn context() -> ReleaseContext<'static> {
    ReleaseContext { spec: &story().spec, lease: &story().lease }
}

/// A ledger that has asked the known node for evidence.
fn challenged() -> Ledger {
    Ledger::replay(story().records.iter().take(1).cloned()).expect("its own records")
}

pub fn evidence(data: &[u8]) -> Outcome {
    let trust = world().releaser_trust();
    let broker = world::broker().public_key();
    let asked = (BROKER_CHALLENGE, NOW);
    let (values, policy) = (world::reference_values(), world::policy());
    let of_broker = verify_broker_evidence(data, NETWORK, broker, asked, &trust, &values, &policy, NOW);
    match &of_broker {
        Ok((verified, _)) => {
            assert_eq!(data, world().broker_evidence, "other bytes than the broker's device made");
            assert_eq!(verified.binding().report_key, Some(broker));
        }
        Err(reasons) => assert!(!reasons.is_empty()),
    }
    let mut ledger = challenged();
    let (decision, record) = ledger
        .decide(context(), data, None, &trust, &world::requester(), NOW)
        .expect("an attempt that is open for a decision");
    assert!(record.is_some(), "what was decided is made durable");
    let released = match decision {
        Decision::Release(approved) => {
            let known = story().receipt.evidence.as_ref().map(|bytes| bytes.0.as_slice());
            assert_eq!(Some(data), known, "other bytes than the node's device made");
            assert_eq!(approved.release().evidence, Digest::of(data));
            Ok(())
        }
        Decision::Deny(denial) => {
            assert!(ledger.denied(&denial.task, denial.attempt).is_some());
            assert!(!denial.reasons.is_empty());
            Err(denial.reasons[0].check().to_owned())
        }
    };
    Outcome::of(&of_broker, |reasons| reasons[0].check().to_owned()).and(Outcome::of(&released, String::clone))
}

pub fn logged(data: &[u8]) -> Outcome {
    let Some(logged) = json_round_trip::<LoggedEntry>(data) else { return Outcome::refused("form") };
    let evidence = &story().receipt.evidence.as_ref().expect("it completed").0;
    let trust = world().releaser_trust();
    let decision = challenged().decide(context(), evidence, None, &trust, &world::requester(), NOW);
    let Ok((Decision::Release(approved), _)) = decision else { panic!("honest evidence is approved") };
    let release = approved.release().digest();
    let result = approved.logged(world::checkpoint(), &logged.entry.0, &logged.inclusion);
    if result.is_ok() {
        assert!(story().receipt.entries.contains(&logged), "an entry or a proof that the log never had");
        assert!(String::from_utf8_lossy(&logged.entry.0).contains(&release.to_string()));
    }
    Outcome::of(&result, |refusal| refusal.check().to_owned())
}

pub fn ledger(data: &[u8]) -> Outcome {
    let Ok(mut value) = serde_json::from_slice::<Value>(data) else { return Outcome::refused("json") };
    forge::resign_all(&mut value);
    let Ok(records) = serde_json::from_value::<Vec<LedgerRecord>>(value) else { return Outcome::refused("records") };
    let replayed = Ledger::replay(records.clone());
    let mut ledger = match replayed {
        Ok(ledger) => ledger,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert!(ledger.len() <= records.len());
    let again = Ledger::replay(records).expect("it replayed a moment ago");

    let (task, attempt) = (story().spec.task, Attempt(1));
    let granted = ledger.granted(&task, attempt).cloned();
    let denied = ledger.denied(&task, attempt).cloned();
    assert_eq!(again.granted(&task, attempt), granted.as_ref());
    assert_eq!(again.denied(&task, attempt), denied.as_ref());
    assert!(granted.is_none() || denied.is_none());
    let _ = ledger.attestation_result(&task, attempt);

    // Whatever the journal said, a decision that it holds is not made again.
    let evidence = &story().receipt.evidence.as_ref().expect("it completed").0;
    let (trust, signer) = (world().releaser_trust(), world::requester());
    let challenge = ledger.challenge(context(), &signer, [7; 32], NOW);
    let decision = ledger.decide(context(), evidence, None, &trust, &signer, UnixTime(NOW.0 + 1));
    if granted.is_some() {
        assert!(challenge.is_err() && decision.is_err(), "an attempt that was granted is asked or decided again");
        assert_eq!(ledger.granted(&task, attempt), granted.as_ref());
    }
    if denied.is_some() {
        assert!(challenge.is_err());
        assert!(matches!(decision, Ok((Decision::Deny(_), None))), "a denial was taken back");
    }
    let decided = match &decision {
        Ok((Decision::Release(_), record)) => (1, record.is_some()),
        Ok((Decision::Deny(_), record)) => (2, record.is_some()),
        Err(_) => (3, false),
    };
    Outcome::accepted((granted.is_some(), denied.is_some(), challenge.is_ok(), decided))
}

pub fn deposit(data: &[u8]) -> Outcome {
    let Some(deposit) = json_round_trip::<Deposit>(data) else { return Outcome::refused("form") };
    let own = Digest::of(&world().broker_evidence);
    let opened = open_deposit(
        &deposit.secret,
        &deposit.broker_evidence,
        |digest| *digest == own,
        &story().spec,
        world::broker_key(),
    );
    if let Ok(secret) = &opened {
        assert_eq!(deposit, known_deposit(), "other bytes than the requester sealed");
        assert_eq!(*secret.expose(), world::TASK_SECRET);
    }
    Outcome::of(&opened, std::mem::discriminant)
}

/// The deposit that the requester of the first story could have made.
pub(crate) fn known_deposit() -> Deposit {
    use starminer_receipt::{DEPOSIT_INFO, SealedSecret};
    let randomness = zeroize::Zeroizing::new([0x88; 64]);
    let aad = story().spec.digest();
    let key = world::broker_key().public_key();
    let secret = SealedSecret::seal(key, DEPOSIT_INFO, aad.as_bytes(), &world::TASK_SECRET, &randomness);
    Deposit { broker_evidence: Digest::of(&world().broker_evidence), secret: secret.expect("a key of the suite") }
}
