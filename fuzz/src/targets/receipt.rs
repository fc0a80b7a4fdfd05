//! Targets of `starminer-receipt`.

use starminer_receipt::*;
use starminer_verify::{Digest, UnixTime};

use super::{json_round_trip, taken};
use crate::world::{self, NETWORK, NOW, Story, world};
use crate::{Outcome, forge};

/// A minute after everything happened.
const LATER: UnixTime = UnixTime(NOW.0 + 60_000);

/// Opens an envelope as every statement there is; the code of the first refusal that is not about the type.
fn open_as_any(envelope: &Envelope, check: &impl StatementCheck) -> Result<&'static str, &'static str> {
    let mut refused = "statement.wrong-type";
    macro_rules! try_each {
        ($($statement:ty),*) => {$(
            match envelope.clone().open::<$statement>() {
                Ok(signed) => {
                    assert_eq!(signed.digest(), envelope.digest());
                    assert_eq!(signed.envelope(), envelope);
                    assert_eq!(envelope.payload_type(), <$statement>::PAYLOAD_TYPE);
                    check.opened(&signed);
                    return Ok(<$statement>::PAYLOAD_TYPE);
                }
                Err(EnvelopeError::WrongType { .. }) => {}
                Err(error) => refused = error.code(),
            }
        )*};
    }
    try_each!(
        TaskSpec,
        Lease,
        ChallengeStatement,
        CheckpointStatement,
        ReleaseStatement,
        Grant,
        DenyStatement,
        CancelStatement,
        Report,
        AgentStatement
    );
    Err(refused)
}

/// What must hold of a statement that opened.
trait StatementCheck {
    fn opened<T: Statement + PartialEq + std::fmt::Debug + Clone>(&self, signed: &Signed<T>);
}

/// It is one of the world's own: nobody else can sign.
struct OnlyKnown;

impl StatementCheck for OnlyKnown {
    fn opened<T: Statement + PartialEq + std::fmt::Debug + Clone>(&self, signed: &Signed<T>) {
        let known = world().stories.iter().flat_map(envelopes).any(|known| known == signed.envelope());
        // A stranger may sign with a key of its own; what bears a key of this world was made here.
        assert!(known || world::key_of(&signed.signer()).is_none(), "a signature that nobody made");
    }
}

/// It reads back as itself once signed anew.
struct RoundTrip;

impl StatementCheck for RoundTrip {
    fn opened<T: Statement + PartialEq + std::fmt::Debug + Clone>(&self, signed: &Signed<T>) {
        assert_eq!(signed.check(), Ok(()));
        let Some(key) = world::key_of(&signed.signer()) else { return };
        match Envelope::sign(signed.statement().clone(), &key) {
            Ok(again) => {
                let reread = again.into_envelope().open::<T>().expect("what was signed opens");
                assert_eq!(reread.statement(), signed.statement());
            }
            Err(error) => panic!("what opened cannot be signed: {error}"),
        }
    }
}

fn envelopes(story: &Story) -> impl Iterator<Item = &Envelope> {
    let receipt = &story.receipt;
    let parts = [
        Some(&receipt.spec),
        // A lease that was never given is signed all the same.
        Some(story.lease.envelope()),
        receipt.challenge.as_ref(),
        receipt.release.as_ref(),
        receipt.grant.as_ref(),
        receipt.denial.as_ref(),
        receipt.cancel.as_ref(),
        receipt.report.as_ref(),
        receipt.agent_statement.as_ref(),
    ];
    parts.into_iter().flatten()
}

pub fn envelope(data: &[u8]) -> Outcome {
    let parsed = match Envelope::parse(data) {
        Ok(parsed) => parsed,
        Err(error) => return Outcome::refused(error.code()),
    };
    let again = Envelope::parse(&parsed.encode());
    // White space may have held the envelope under its bound; more than that a second reading does not change.
    if parsed.encode().len() <= MAX_ENVELOPE_BYTES {
        assert_eq!(again.as_ref(), Ok(&parsed));
    }
    Outcome::of(&open_as_any(&parsed, &OnlyKnown), |code| *code)
}

pub fn statement(data: &[u8]) -> Outcome {
    let Ok(parsed) = Envelope::parse(data) else { return Outcome::refused("no envelope") };
    match open_as_any(&forge::resign(&parsed), &RoundTrip) {
        Ok(kind) => Outcome::accepted(kind),
        Err(code) => Outcome::refused(code),
    }
}

pub fn entry(data: &[u8]) -> Outcome {
    let parsed = LogEntry::parse(data);
    match &parsed {
        Ok(entry) => {
            assert_eq!(entry.encode(), data, "one encoding");
            Outcome::accepted((entry.kind, entry.task.is_some(), entry.attempt.is_some(), entry.node.is_some()))
        }
        Err(why) => Outcome::refused(*why),
    }
}

/// What may be told of a verdict: every claim with its verdict.
fn told(verdict: &ReceiptVerdict) -> Vec<(&'static str, u8)> {
    verdict.claims.iter().map(|claim| (claim.name, claim.verdict as u8)).collect()
}

/// What holds of every verdict, whoever signed.
fn check_verdict(receipt: &Receipt, verdict: &ReceiptVerdict) {
    assert!(!verdict.claims.is_empty());
    assert!(verdict.is_simulated(), "no maker's root vouches for anything here");
    if receipt.stamp != Receipt::SIMULATED {
        assert_ne!(verdict.overall(), Overall::Proven, "stamped as what it is not");
    }
    assert!(verdict.claims.iter().all(|claim| !claim.statement.is_empty()));
    assert!(verdict.spec.is_some() || verdict.overall() == Overall::Refuted);
}

fn verify_both(receipt: &Receipt) -> [ReceiptVerdict; 2] {
    let with = verify_receipt(receipt, Some(&world().trust), LATER);
    let without = verify_receipt(receipt, None, LATER);
    check_verdict(receipt, &with);
    check_verdict(receipt, &without);
    assert_ne!(without.overall(), Overall::Proven, "nothing that needs a root is proven without one");
    [with, without]
}

pub fn file(data: &[u8]) -> Outcome {
    let receipt = match Receipt::parse(data) {
        Ok(receipt) => receipt,
        Err(error) => return Outcome::refused(error.code()),
    };
    if receipt.encode().len() <= MAX_RECEIPT_BYTES {
        assert_eq!(Receipt::parse(&receipt.encode()).as_ref(), Ok(&receipt));
    }
    let [with, without] = verify_both(&receipt);
    if with.overall() == Overall::Proven {
        // Parts may be left out, which then says "not claimed"; none can be other than it was.
        let story = world().stories.iter().find(|story| Some(story.spec.digest()) == with.spec);
        let known = &story.expect("a spec that nobody signed").receipt;
        fn same<T: PartialEq>(found: &Option<T>, known: &Option<T>) -> bool {
            found.is_none() || found == known
        }
        let unchanged = receipt.spec == known.spec
            && same(&receipt.lease, &known.lease)
            && same(&receipt.challenge, &known.challenge)
            && same(&receipt.evidence, &known.evidence)
            && same(&receipt.release, &known.release)
            && same(&receipt.grant, &known.grant)
            && same(&receipt.denial, &known.denial)
            && same(&receipt.cancel, &known.cancel)
            && same(&receipt.report, &known.report)
            && same(&receipt.agent_statement, &known.agent_statement)
            && same(&receipt.closing_evidence, &known.closing_evidence)
            && receipt.entries.iter().all(|entry| known.entries.contains(entry));
        assert!(unchanged, "a changed receipt was proven: {:#?}", with.claims);
        if receipt.release.is_some() {
            assert_eq!(receipt.attestation_result, known.attestation_result);
        }
    }
    let reached = (told(&with), told(&without));
    if with.overall() == Overall::Proven { Outcome::accepted(reached) } else { Outcome::refused(reached) }
}

pub fn collusion(data: &[u8]) -> Outcome {
    let Ok(receipt) = Receipt::parse(data) else { return Outcome::refused("no receipt") };
    let receipt = forge::collude(&receipt);
    let [with, _] = verify_both(&receipt);
    if with.overall() == Overall::Proven {
        // Even where everybody colludes, what is proven is a whole: each link was looked at.
        let lease = receipt.lease.clone().map(|lease| lease.open::<Lease>().expect("a proven lease opens"));
        if let Some(lease) = &lease {
            assert_eq!(Some(lease.spec), with.spec);
            assert_eq!(lease.coordinator, world().trust.coordinator.key);
        }
        if let (Some(grant), Some(evidence)) = (receipt.grant.clone(), &receipt.evidence) {
            let grant = grant.open::<Grant>().expect("a proven grant opens");
            assert_eq!(Some(grant.spec), with.spec);
            assert_eq!(Some(grant.attempt), lease.as_ref().map(|lease| lease.attempt));
            assert_eq!(grant.evidence, Digest::of(&evidence.0));
        }
        return Outcome::accepted(told(&with));
    }
    Outcome::refused(told(&with))
}

pub fn network(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else { return Outcome::refused("utf-8") };
    match NetworkTrust::parse(text) {
        Ok(trust) => {
            let encoded = trust.encode().expect("what was read can be written");
            let again = NetworkTrust::parse(&encoded).expect("what was written can be read");
            assert_eq!(again.encode().as_ref(), Ok(&encoded));
            assert_eq!(again.log_key().encode(), trust.log.key, "one spelling of a key");
            assert_eq!(again.witness_keys().len(), trust.log.witnesses.len());
            assert!(trust.log.witness_quorum <= trust.log.witnesses.len());
            assert_eq!(again.simulated_root_ids().collect::<Vec<_>>(), trust.simulated_root_ids().collect::<Vec<_>>());
            Outcome::accepted((trust.log.witnesses.len(), trust.simulated_roots.len(), trust.log.witness_quorum))
        }
        Err(error) => Outcome::refused(std::mem::discriminant(&error)),
    }
}

pub fn sealed(data: &[u8]) -> Outcome {
    let Some(sealed) = json_round_trip::<SealedSecret>(data) else { return Outcome::refused("form") };
    let story = &world().stories[0];
    let grant = story.receipt.grant.clone().expect("it completed").open::<Grant>().expect("its own grant");
    let aad = Grant::aad(&grant.spec, &grant.lease, grant.attempt, &grant.evidence, &grant.policy);
    let opened = sealed.open(world::task_key(), GRANT_INFO, aad.as_bytes());
    if let Ok(secret) = &opened {
        assert_eq!(sealed, grant.secret, "other bytes than the releaser sealed");
        assert_eq!(secret.as_slice(), world::TASK_SECRET);
        assert_eq!(sealed.open(world::task_key(), OUTPUT_INFO, aad.as_bytes()), Err(SealError::DoesNotOpen));
        assert_eq!(sealed.open(world::task_key(), GRANT_INFO, &aad.as_bytes()[1..]), Err(SealError::DoesNotOpen));
    }
    assert!(sealed.is_well_formed() || opened.is_err());
    Outcome::of(&opened, std::mem::discriminant)
}

pub fn manifest(data: &[u8]) -> Outcome {
    taken(&[
        json_round_trip::<JobManifest>(data).is_some(),
        json_round_trip::<RunDetails>(data).is_some(),
        json_round_trip::<Resources>(data).is_some(),
    ])
}

pub fn endorsements(data: &[u8]) -> Outcome {
    let set = match EndorsementSet::parse(data) {
        Ok(set) => set,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert_eq!(EndorsementSet::parse(&set.encode()).as_ref(), Ok(&set), "it does not read back as itself");
    let (enrollers, nobody) = ([world::requester().public_key()], []);
    let counts = Enrollers { enrollers: &enrollers, facilities: &nobody };
    let opened = set.open(NETWORK, counts);
    if let Ok(opened) = &opened {
        assert!(opened.enrolments.facilities.is_empty(), "somebody counts whom nobody named");
        let known = world::enrolment();
        for key in &opened.enrolments.keys {
            assert_eq!(
                (key.node, key.ak_name.as_bytes()),
                (known.node, known.ak_name.0.as_slice()),
                "a forged enrolment"
            );
        }
    }
    Outcome::of(&opened, |error| error.code().to_owned())
}

pub fn references(data: &[u8]) -> Outcome {
    let file = match ReferenceFile::parse(data) {
        Ok(file) => file,
        Err(error) => return Outcome::refused(error.code()),
    };
    assert_eq!(ReferenceFile::parse(&file.encode()).as_ref(), Ok(&file), "it does not read back as itself");
    let signed = file.verify_signatures(&world::releasing_trust());
    if let Ok(signed) = &signed {
        let known = world::reference_file();
        assert_eq!(signed.file().digest(), known.digest(), "values that the release keys never signed");
    }
    Outcome::of(&signed, |error| error.code().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Ending, World};

    fn check(story: &Story, verdict: &ReceiptVerdict) {
        assert_eq!(verdict.overall(), Overall::Proven, "{:?}: {:#?}", story.ending, verdict.claims);
    }

    /// A part that nothing leads to any more cannot be judged, and so does not stand in a receipt that is proven. The denied
    /// task's report does not need its lease: found by the target `receipt-file`.
    #[test]
    fn what_no_check_comes_to_is_refuted() {
        let denied = &world().story(Ending::Denied).receipt;
        let completed = &world().story(Ending::Completed).receipt;
        type Change = fn(&mut Receipt, &Receipt);
        let cases: [(&str, &[&str], Change); 4] = [
            ("lease", &["challenge", "evidence"], |receipt, _| (receipt.lease, receipt.denial) = (None, None)),
            ("challenge", &["evidence"], |receipt, _| (receipt.challenge, receipt.denial) = (None, None)),
            ("release", &["grant"], |receipt, other| receipt.grant = other.grant.clone()),
            ("release", &["attestation-result"], |receipt, other| {
                receipt.attestation_result = other.attestation_result.clone();
            }),
        ];
        for (missing, refuted, change) in cases {
            let mut receipt = denied.clone();
            change(&mut receipt, completed);
            let verdict = verify_receipt(&receipt, Some(&world().trust), LATER);
            let found: Vec<&str> = verdict
                .claims
                .iter()
                .filter(|claim| claim.verdict == ClaimVerdict::Refuted)
                .map(|claim| claim.name)
                .collect();
            assert_eq!(found, refuted, "without {missing}: {:#?}", verdict.claims);
        }
    }

    /// The world is honest, also once all of its parties have signed everything again.
    #[test]
    fn honest_receipts_are_proven_with_and_without_a_witness() {
        for story in &world().stories {
            for trust in [&world().trust, &World::trust_without_witness()] {
                check(story, &verify_receipt(&story.receipt, Some(trust), LATER));
            }
            check(story, &verify_receipt(&forge::collude(&story.receipt), Some(&world().trust), LATER));
        }
    }
}
