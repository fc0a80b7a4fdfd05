//! Who gets a key, and how often.

use starminer_broker::{Decision, Ledger, MAX_CHALLENGE_AGE_MS, ReleaseContext};
use starminer_receipt::{EntryKind, GRANT_INFO, Grant};
use starminer_verify::*;

use crate::world::{NOW, SECRET, World, key, lease_for, posture, tee_under};

fn first_reason(decision: &Decision) -> String {
    match decision {
        Decision::Deny(denial) => denial.reasons[0].check().to_string(),
        Decision::Release(_) => "released".into(),
    }
}

#[test]
fn a_grant_opens_for_the_attested_task_key_alone() {
    let mut world = World::new();
    let challenge = world.challenge();
    let evidence = world.evidence(&challenge);
    let approved = world.approve(&evidence);
    let index = world.log_release(&approved);
    let logged = world.logged(approved, index).unwrap();
    let grant = world.grant(&logged).unwrap();
    let aad = |attempt| Grant::aad(&grant.spec, &grant.lease, attempt, &grant.evidence, &grant.policy);
    let opened = grant.secret.open(&world.task_key, GRANT_INFO, aad(Attempt(1)).as_bytes()).unwrap();
    assert_eq!(opened.as_slice(), SECRET);
    assert!(grant.secret.open(&world.task_key, GRANT_INFO, aad(Attempt(2)).as_bytes()).is_err(), "another attempt");
}

#[test]
fn asked_again_the_ledger_gives_the_same_bytes_and_never_a_second_release() {
    let mut world = World::new();
    let challenge = world.challenge();
    assert_eq!(world.challenge().digest(), challenge.digest(), "one challenge an attempt");
    let evidence = world.evidence(&challenge);
    let approved = world.approve(&evidence);
    let again = world.approve(&evidence);
    assert_eq!(approved.release().digest(), again.release().digest());
    assert_eq!(approved.attestation_result(), again.attestation_result());

    // Other evidence for the same challenge: the challenge is consumed.
    let mut other = world.binding(&challenge, Purpose::Task);
    other.tls_key = PublicKey([99; 32]);
    let other = world.attest(other);
    assert_eq!(world.decide(&other).unwrap_err().check(), "release.attempt-consumed");

    let index = world.log_release(&approved);
    let logged = world.logged(approved, index).unwrap();
    let grant = world.grant(&logged).unwrap();
    assert_eq!(world.grant(&logged).unwrap().digest(), grant.digest(), "the very bytes again");
    assert_eq!(world.decide(&evidence).unwrap_err().check(), "release.attempt-consumed");
}

#[test]
fn a_ledger_rebuilt_from_its_records_refuses_what_the_one_before_refused() {
    let mut world = World::new();
    let challenge = world.challenge();
    let evidence = world.evidence(&challenge);
    let approved = world.approve(&evidence);
    let index = world.log_release(&approved);
    let logged = world.logged(approved, index).unwrap();
    let grant = world.grant(&logged).unwrap();
    for kept in 0..=world.records.len() {
        let mut rebuilt = Ledger::replay(world.records[..kept].to_vec()).unwrap();
        std::mem::swap(&mut world.ledger, &mut rebuilt);
        let outcome = world.decide(&evidence);
        match kept {
            // Rolled back to before the challenge: evidence for it finds nothing to answer.
            0 => assert_eq!(outcome.unwrap_err().check(), "release.no-challenge"),
            // Crashed between steps: it goes on with the same evidence.
            1 => assert!(matches!(outcome.unwrap(), Decision::Release(_))),
            2 => {
                let Decision::Release(again) = outcome.unwrap() else { panic!("denied") };
                assert_eq!(again.release().digest(), grant.release);
            }
            _ => {
                assert_eq!(outcome.unwrap_err().check(), "release.attempt-consumed");
                assert_eq!(world.ledger.granted(&world.spec.task, Attempt(1)).unwrap().digest(), grant.digest());
                assert!(world.ledger.attestation_result(&world.spec.task, Attempt(1)).is_some());
            }
        }
    }
}

#[test]
fn evidence_that_is_not_for_this_attempt_is_denied() {
    type Change = fn(&mut Binding);
    let cases: &[(&str, Change)] = &[
        ("another challenge", |binding| binding.challenge = Challenge([1; 32])),
        ("another spec", |binding| binding.spec = Some(Digest([1; 32]))),
        ("another node", |binding| binding.node = NodeId(PublicKey([1; 32]))),
        ("another attempt", |binding| binding.attempt = Some(Attempt(2))),
        ("another network", |binding| binding.network = NetworkId([9; 32])),
        ("closing evidence", |binding| {
            binding.purpose = Purpose::ClosingTask;
            binding.subject = Some(Digest([1; 32]));
        }),
    ];
    for (name, change) in cases {
        let mut world = World::new();
        let challenge = world.challenge();
        let mut binding = world.binding(&challenge, Purpose::Task);
        change(&mut binding);
        let evidence = world.attest(binding);
        let decision = world.decide(&evidence).unwrap();
        assert!(matches!(decision, Decision::Deny(_)), "{name}");
        // Denied is denied: the honest evidence that comes after finds the challenge consumed.
        let honest = world.attest(world.binding(&challenge, Purpose::Task));
        assert!(matches!(world.decide(&honest).unwrap(), Decision::Deny(_)), "{name}, then honest");
    }
}

#[test]
fn a_node_that_does_not_meet_the_policy_gets_nothing() {
    type Change = fn(&mut World);
    let cases: &[(&str, Change)] = &[
        ("a root that nobody named", |world| {
            world.tee =
                tee_under(&starminer_attester::SimulatedRoot::generate(&[99; 32]), world.measurement, false, NOW);
        }),
        ("debug on", |world| world.tee = tee_under(&world.root, world.measurement, true, NOW)),
        ("another agent", |world| world.tee = tee_under(&world.root, Digest([0x66; 32]), false, NOW)),
        ("no sandbox", |world| world.posture = posture(PostureState::Absent)),
        ("sandbox not checked", |world| world.posture = posture(PostureState::NotChecked)),
    ];
    for (name, change) in cases {
        let mut world = World::new();
        change(&mut world);
        let challenge = world.challenge();
        let evidence = world.evidence(&challenge);
        assert!(matches!(world.decide(&evidence).unwrap(), Decision::Deny(_)), "{name}");
    }
    let mut world = World::with_policy(|fields| fields.accepted_simulated_roots.clear());
    let challenge = world.challenge();
    let evidence = world.evidence(&challenge);
    let decision = world.decide(&evidence).unwrap();
    assert_eq!(first_reason(&decision), "device.root", "the trust file names the root, the policy does not");
}

#[test]
fn a_release_that_is_not_in_the_log_grants_nothing() {
    let mut world = World::new();
    let challenge = world.challenge();
    let evidence = world.evidence(&challenge);
    let approved = world.approve(&evidence);
    let task = Some(world.spec.task);
    let other = world.log.append(EntryKind::Released, task, Some(Attempt(1)), Digest([5; 32]));
    assert_eq!(world.logged(approved.clone(), other).unwrap_err().check(), "release.entry-mismatch");
    let wrong_kind = world.log.append(EntryKind::Granted, task, Some(Attempt(1)), approved.release().digest());
    assert_eq!(world.logged(approved.clone(), wrong_kind).unwrap_err().check(), "release.entry-mismatch");
    let index = world.log_release(&approved);
    let mut entry = world.log.logged(index);
    let checkpoint = world.log.checkpoint();
    entry.inclusion = world.log.logged(other).inclusion;
    let refused = approved.clone().logged(&checkpoint, &entry.entry.0, &entry.inclusion).unwrap_err();
    assert_eq!(refused.check(), "release.not-logged");
    assert_eq!(refused.party(), Party::Coordinator);
    assert!(world.logged(approved, index).is_ok());
}

#[test]
fn leases_that_are_not_for_the_task_are_refused() {
    let mut world = World::new();
    let (spec, requester, stranger) = (world.spec.clone(), key(10), key(12));
    let mut check = |lease: &starminer_receipt::Signed<starminer_receipt::Lease>, signer, now, expected: &str| {
        let context = ReleaseContext { spec: &spec, lease };
        let refusal = world.ledger.challenge(context, signer, [0; 32], now).unwrap_err();
        assert_eq!(refusal.check(), expected);
    };
    let good = lease_for(&spec, Attempt(1), &key(11));
    check(&good, &stranger, NOW, "release.not-the-releaser");
    check(&good, &requester, UnixTime(NOW.0 + 700_000), "release.lease-expired");
    check(&good, &requester, UnixTime(NOW.0 - 120_000), "release.lease-from-the-future");
    check(&lease_for(&spec, Attempt(4), &key(11)), &requester, NOW, "release.too-many-attempts");
    let other = World::with_policy(|fields| fields.evidence_max_age_ms = 1);
    check(&lease_for(&other.spec, Attempt(1), &key(11)), &requester, NOW, "release.lease-mismatch");
}

#[test]
fn a_later_attempt_fences_off_the_earlier_one() {
    let mut world = World::new();
    let first = world.challenge();
    let evidence = world.evidence(&first);
    let earlier = world.lease.clone();
    world.lease = lease_for(&world.spec, Attempt(2), &world.coordinator);
    world.challenge();
    world.lease = earlier;
    assert_eq!(world.decide(&evidence).unwrap_err().check(), "release.fenced");
}

#[test]
fn a_late_answer_is_denied_and_may_be_tried_elsewhere() {
    let mut world = World::new();
    let challenge = world.challenge();
    let evidence = world.evidence(&challenge);
    let (spec, lease, trust) = (world.spec.clone(), world.lease.clone(), world.releaser_trust());
    let context = ReleaseContext { spec: &spec, lease: &lease };
    let late = UnixTime(NOW.0 + MAX_CHALLENGE_AGE_MS + 1);
    let (decision, _) = world.ledger.decide(context, &evidence, None, &trust, &world.requester, late).unwrap();
    let Decision::Deny(denial) = decision else { panic!("released") };
    assert_eq!(denial.reasons[0].check(), "release.challenge-expired");
    assert!(denial.retry);
}
