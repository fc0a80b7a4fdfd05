//! Grants that do not hold: each is refused, consumes nothing, and a valid one afterwards still runs the task.

#![allow(clippy::unwrap_used)]

mod support;

use starminer_agent::testing::FromTask;
use starminer_receipt::{ChallengeStatement, Envelope, Grant, Lease, Outcome, Signed};
use starminer_verify::{Attempt, Binding, Challenge, Digest, Purpose};
use support::{Job, Keys, NOW, Process, SealedJob, World, example, grant_in, key, lease_in, open_result};

/// Everything that is sent with a grant, valid as made.
struct Parts {
    challenge: Envelope,
    evidence: Vec<u8>,
    grant: Envelope,
}

/// One attempt up to its grant.
struct Scene<'a> {
    world: &'a World,
    job: &'a SealedJob,
    lease: &'a Signed<Lease>,
    keys: &'a Keys,
}

impl Scene<'_> {
    fn valid(&self) -> Parts {
        self.with(&|_| {}, &|_| {}, &|_| {})
    }

    /// The parts with challenge, binding or grant altered before they are signed.
    fn with(
        &self,
        challenge: &dyn Fn(&mut ChallengeStatement),
        binding: &dyn Fn(&mut Binding),
        grant: &dyn Fn(&mut Grant),
    ) -> Parts {
        let world = self.world;
        let mut statement = world.challenge(self.lease).statement().clone();
        challenge(&mut statement);
        let signer = if statement.releaser == world.releaser_key() { &world.releaser } else { &world.coordinator };
        let challenge = Envelope::sign(statement, signer).unwrap();
        let mut bound = world.binding(&self.job.spec, self.lease, &challenge, self.keys);
        binding(&mut bound);
        let task_key = bound.task_key.clone().unwrap_or(self.keys.task_key.clone());
        let evidence = world.evidence(bound);
        let mut statement = world.grant(self.job, self.lease, &evidence, &task_key, self.job.secret.expose());
        grant(&mut statement);
        let signer = if statement.releaser == world.releaser_key() { &world.releaser } else { &world.coordinator };
        let grant = Envelope::sign(statement, signer).unwrap();
        Parts { challenge: challenge.into_envelope(), evidence, grant: grant.into_envelope() }
    }
}

type Spoiled<'a> = (&'static str, Box<dyn Fn(&Scene<'_>) -> Parts + 'a>);

#[test]
fn an_invalid_grant_consumes_nothing() {
    let world = World::new();
    let job = world.seal(&Job::wasm(example("empty/empty.wasm")));
    let other_job = world.seal(&Job::wasm(example("empty/empty.wasm")));
    let none_c = |_: &mut ChallengeStatement| {};
    let none_b = |_: &mut Binding| {};
    let none_g = |_: &mut Grant| {};
    let grant = |spoil: fn(&mut Grant)| -> Box<dyn Fn(&Scene<'_>) -> Parts> {
        Box::new(move |scene| scene.with(&none_c, &none_b, &spoil))
    };
    let binding = |spoil: fn(&mut Binding)| -> Box<dyn Fn(&Scene<'_>) -> Parts> {
        Box::new(move |scene| scene.with(&none_c, &spoil, &none_g))
    };
    let challenge = |spoil: fn(&mut ChallengeStatement)| -> Box<dyn Fn(&Scene<'_>) -> Parts> {
        Box::new(move |scene| scene.with(&spoil, &none_b, &none_g))
    };

    let cases: Vec<Spoiled<'_>> = vec![
        ("grant.releaser", grant(|grant| grant.releaser = starminer_receipt::Signer::public_key(&key(12)))),
        ("grant.network", grant(|grant| grant.network.0[0] ^= 1)),
        ("grant.task", grant(|grant| grant.task.0[0] ^= 1)),
        ("grant.spec", grant(|grant| grant.spec.0[0] ^= 1)),
        ("grant.lease", grant(|grant| grant.lease.0[0] ^= 1)),
        ("grant.attempt", grant(|grant| grant.attempt = Attempt(2))),
        ("grant.policy", grant(|grant| grant.policy.0[0] ^= 1)),
        ("grant.evidence", grant(|grant| grant.evidence.0[0] ^= 1)),
        ("grant.secret", grant(|grant| grant.secret.ciphertext.0[0] ^= 1)),
        ("grant.secret", grant(|grant| grant.secret.encapsulated_key.0[0] ^= 1)),
        ("challenge.task", challenge(|challenge| challenge.task.0[0] ^= 1)),
        ("challenge.attempt", challenge(|challenge| challenge.attempt = Attempt(2))),
        ("challenge.lease", challenge(|challenge| challenge.lease = Digest([0; 32]))),
        (
            "challenge.releaser",
            challenge(|challenge| challenge.releaser = starminer_receipt::Signer::public_key(&key(12))),
        ),
        (
            "evidence.purpose",
            binding(|binding| {
                binding.purpose = Purpose::ClosingTask;
                binding.subject = Some(Digest([1; 32]));
            }),
        ),
        ("evidence.report-key", binding(|binding| binding.report_key = Some(starminer_verify::PublicKey([1; 32])))),
        (
            "evidence.task-key",
            binding(|binding| {
                let other = starminer_receipt::KemPrivateKey::from_seed(&zeroize::Zeroizing::new([3; 32])).unwrap();
                binding.task_key = starminer_verify::TaskKey::from_bytes(
                    starminer_verify::Suite::XWingSha256Aes256Gcm,
                    other.public_key(),
                );
            }),
        ),
        ("evidence.attempt", binding(|binding| binding.attempt = Some(Attempt(2)))),
        ("evidence.spec", binding(|binding| binding.spec = Some(Digest([1; 32])))),
        ("evidence.challenge", binding(|binding| binding.challenge = Challenge([1; 32]))),
        (
            "evidence.node",
            binding(|binding| binding.node = starminer_verify::NodeId(starminer_verify::PublicKey([1; 32]))),
        ),
        // Other evidence than the grant names, though as good.
        ("grant.evidence", Box::new(|scene| Parts { evidence: scene.valid().evidence, ..scene.valid() })),
        (
            "grant.evidence",
            Box::new(|scene| {
                let mut parts = scene.valid();
                parts.evidence.push(b' ');
                parts
            }),
        ),
        // Evidence that the grant names, but that no device made.
        (
            "evidence.malformed",
            Box::new(|scene| {
                let mut parts = scene.valid();
                parts.evidence = b"{}".to_vec();
                let mut grant = scene.world.grant(scene.job, scene.lease, b"{}", &scene.keys.task_key, &[1; 32]);
                grant.issued_at = NOW;
                parts.grant = Envelope::sign(grant, &scene.world.releaser).unwrap().into_envelope();
                parts
            }),
        ),
        // A secret of another length.
        (
            "grant.secret-length",
            Box::new(|scene| {
                let parts = scene.valid();
                let world = scene.world;
                let grant = world.grant(scene.job, scene.lease, &parts.evidence, &scene.keys.task_key, &[1; 31]);
                Parts { grant: Envelope::sign(grant, &world.releaser).unwrap().into_envelope(), ..parts }
            }),
        ),
        // The secret of another task, sealed with that task's associated data.
        (
            "grant.secret",
            Box::new(|scene| {
                let parts = scene.valid();
                let world = scene.world;
                let other = world.grant(&other_job, scene.lease, &parts.evidence, &scene.keys.task_key, &[1; 32]);
                let mut grant = world.grant(scene.job, scene.lease, &parts.evidence, &scene.keys.task_key, &[1; 32]);
                grant.secret = other.secret;
                Parts { grant: Envelope::sign(grant, &world.releaser).unwrap().into_envelope(), ..parts }
            }),
        ),
        // Altered after it was signed.
        (
            "grant.envelope",
            Box::new(|scene| {
                let parts = scene.valid();
                Parts { grant: altered(&parts.grant), ..parts }
            }),
        ),
        (
            "challenge.envelope",
            Box::new(|scene| {
                let parts = scene.valid();
                Parts { challenge: altered(&parts.challenge), ..parts }
            }),
        ),
        // Another statement in the grant's place.
        (
            "grant.envelope",
            Box::new(|scene| {
                let parts = scene.valid();
                Parts { grant: parts.challenge.clone(), ..parts }
            }),
        ),
    ];

    let mut process = Process::start();
    let (lease, keys) = lease_in(&world, &job, &mut process, 1);
    let scene = Scene { world: &world, job: &job, lease: &lease, keys: &keys };
    for (code, spoiled) in &cases {
        let parts = spoiled(&scene);
        match process.grant(&parts.challenge, &parts.evidence, &parts.grant) {
            FromTask::GrantRefused { refusal } => assert_eq!(refusal.check(), *code, "{refusal}"),
            other => panic!("{code}: {other:?}"),
        }
    }
    // After all of them, the same process takes the valid one.
    grant_in(&world, &job, &lease, &keys, &mut process);
    let report = process.until_report();
    let result = open_result(&job, &keys, &report, &process.sealed_outputs());
    assert_eq!(result.report.predicate.outcome, Outcome::Completed);
}

/// A grant that was good for one process is worth nothing to another of the same attempt, nor to one of the next attempt.
#[test]
fn a_grant_is_good_for_one_process() {
    let world = World::new();
    let job = world.seal(&Job::wasm(example("empty/empty.wasm")));
    let mut first = Process::start();
    let (lease, keys) = lease_in(&world, &job, &mut first, 1);
    let scene = Scene { world: &world, job: &job, lease: &lease, keys: &keys };
    let parts = scene.valid();
    first.objects(&job.blobs);
    assert_eq!(first.grant(&parts.challenge, &parts.evidence, &parts.grant), FromTask::GrantTaken);
    first.until_report();

    for (attempt, code) in [(1, "evidence.task-key"), (2, "grant.lease")] {
        let mut second = Process::start();
        let (_, other_keys) = lease_in(&world, &job, &mut second, attempt);
        assert_ne!(other_keys.task_key, keys.task_key);
        assert_ne!(other_keys.report_key, keys.report_key);
        match second.grant(&parts.challenge, &parts.evidence, &parts.grant) {
            FromTask::GrantRefused { refusal } => assert_eq!(refusal.check(), code),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_lease_that_does_not_fit_its_spec_gets_no_keys() {
    let world = World::new();
    let job = world.seal(&Job::wasm(example("empty/empty.wasm")));
    let other = world.seal(&Job::wasm(example("empty/empty.wasm")));
    let good = world.lease(&job.spec, 1);
    let (spec, lease) = (job.spec.envelope(), good.envelope());
    let cases = [
        ("lease.task", spec.clone(), world.lease(&other.spec, 1).into_envelope()),
        ("lease.attempt", spec.clone(), world.lease(&job.spec, 4).into_envelope()),
        ("task.spec", altered(spec), lease.clone()),
        ("task.lease", spec.clone(), altered(lease)),
        ("task.spec", lease.clone(), lease.clone()),
        ("task.lease", spec.clone(), spec.clone()),
    ];
    for (code, spec, lease) in cases {
        let mut process = Process::start();
        match process.lease(&spec, &lease) {
            FromTask::LeaseRefused { refusal } => assert_eq!(refusal.check(), code),
            other => panic!("{code}: {other:?}"),
        }
        assert!(process.exit().status.success());
    }
}

/// The same envelope with one byte of its signed payload changed.
fn altered(envelope: &Envelope) -> Envelope {
    let mut json: serde_json::Value = serde_json::from_slice(&envelope.encode()).unwrap();
    let payload = json["payload"].as_str().unwrap().to_owned();
    let at = payload.len() / 2;
    let other = if payload.as_bytes()[at] == b'A' { "B" } else { "A" };
    json["payload"] = format!("{}{other}{}", &payload[..at], &payload[at + 1..]).into();
    Envelope::parse(&serde_json::to_vec(&json).unwrap()).unwrap()
}
