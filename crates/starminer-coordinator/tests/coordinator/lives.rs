//! Whole lives of tasks over real TLS: completed, failed, cancelled, retried, fenced; and what the parties see at each step.

use crate::world::{self, Life, Party, World, cancel, code, releaser_feed, sign, submit, upload};
use starminer_client::CoordinatorClient;
use starminer_coordinator::Config;
use starminer_log::SignedCheckpoint;
use starminer_receipt::{Base64Bytes, EntryKind, LogEntry, ObjectRef, Outcome, ReportAuthor};
use starminer_verify::{Digest, Party as Fault, Refusal, TaskId};
use starminer_wire::{FeedRole, SubmitRequest, TaskState, TaskView};

#[tokio::test]
async fn a_task_completes_and_its_receipt_has_every_step_proven() {
    let world = World::new(Config::default());
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    let blob = upload(&ours, 500).await;
    let (spec, view) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    assert_eq!((view.state, view.queue_position), (TaskState::Queued, Some(0)));

    let views = node.poll(&theirs, 2, 1000).await;
    assert_eq!(views.len(), 1);
    assert_eq!(views[0].state, TaskState::Leased);
    let mut life = Life::begin(&spec, &views[0], &requester, &node);
    assert_eq!(releaser_feed(&ours, 0).await.len(), 1);
    life.challenge(&ours).await.unwrap();
    let views = node.poll(&theirs, 0, 1000).await;
    assert_eq!(views[0].challenge.as_ref().unwrap().digest(), life.challenge.as_ref().unwrap().digest());
    life.attest(&theirs).await.unwrap();
    let seen = &releaser_feed(&ours, 0).await[0];
    assert_eq!(seen.evidence.as_ref().unwrap().0, life.evidence);
    assert!(node.poll(&theirs, 0, 0).await[0].evidence.is_none(), "evidence is for the releaser");

    let released = life.release(&ours, 1).await.unwrap();
    let checkpoint =
        SignedCheckpoint::parse(released.proof.checkpoint.as_bytes()).unwrap().verify(world.trust.log_key()).unwrap();
    let entry = released.proof.entry.unwrap();
    checkpoint.verify_inclusion(&entry.0, released.proof.inclusion.as_ref().unwrap()).unwrap();
    let entry = LogEntry::parse(&entry.0).unwrap();
    assert_eq!((entry.kind, entry.statement), (EntryKind::Released, life.release.as_ref().unwrap().digest()));

    life.grant(&ours).await.unwrap();
    let granted = node.poll(&theirs, 0, 0).await;
    assert_eq!(granted[0].grant.as_ref().unwrap().digest(), life.grant.as_ref().unwrap().digest());
    let output = upload(&theirs, 300).await;
    let mut predicate = life.predicate(ReportAuthor::Task, Outcome::Completed);
    predicate.outputs = vec![output];
    let report = life.report_request(predicate);
    assert_eq!(life.report(&theirs, &report).await.unwrap().state, TaskState::Completed);
    // Again is the same as once.
    assert_eq!(life.report(&theirs, &report).await.unwrap().state, TaskState::Completed);
    life.grant(&ours).await.unwrap();

    let view = ours.task(&spec.task, 0, 0).await.unwrap();
    assert_eq!((view.state, view.refusal), (TaskState::Completed, None));
    let parts = ours.receipt(&spec.task).await.unwrap();
    let checkpoint =
        SignedCheckpoint::parse(parts.checkpoint.as_bytes()).unwrap().verify(world.trust.log_key()).unwrap();
    let mut kinds = Vec::new();
    for logged in &parts.entries {
        checkpoint.verify_inclusion(&logged.entry.0, &logged.inclusion).unwrap();
        kinds.push(LogEntry::parse(&logged.entry.0).unwrap().kind);
    }
    use EntryKind::{Attested, Challenged, Granted, Leased, Released, Reported, Submitted};
    assert_eq!(kinds, [Submitted, Leased, Challenged, Attested, Released, Granted, Reported]);
    assert_eq!(parts.report.unwrap().digest(), report.report.digest());
    assert_eq!(parts.evidence.unwrap().0, life.evidence);
    assert_eq!(parts.attestation_result.unwrap().0, life.result);

    let nodes = ours.nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].running), (1, 0));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_waiting_node_gets_a_task_as_it_is_submitted() {
    let world = World::new(Config::default());
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    let blob = upload(&ours, 100).await;
    let polling = node.poll(&theirs, 1, 10_000);
    let submitting = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        submit(&ours, world.spec(&requester, &blob), &requester).await.1
    };
    let (views, view) = tokio::join!(polling, submitting);
    assert_eq!(views.len(), 1);
    assert_eq!(view.state, TaskState::Leased, "leased in the batch of the submission");
    running.stop().await.unwrap();
}

/// How a task ends, by what is done with its first attempts.
#[tokio::test]
async fn endings() {
    let world = World::new(Config::default());
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    let blob = upload(&ours, 100).await;
    let lease = async |spec: starminer_receipt::TaskSpec| {
        let (spec, _) = submit(&ours, spec, &requester).await;
        let views = node.poll(&theirs, 1, 1000).await;
        let view = views.iter().find(|view| view.task == spec.task).unwrap();
        Life::begin(&spec, view, &requester, &node)
    };

    // Denied for good.
    let life = lease(world.spec(&requester, &blob)).await;
    ours.deny(&life.task(), life.attempt(), &life.denial(false, "broker.restarted")).await.unwrap();
    let view = ours.task(&life.task(), 0, 0).await.unwrap();
    assert_eq!(
        (view.state, view.refusal.unwrap().check().to_owned()),
        (TaskState::Failed, "broker.restarted".to_owned())
    );
    let parts = ours.receipt(&life.task()).await.unwrap();
    let report = parts.report.unwrap().open::<starminer_receipt::Report>().unwrap();
    assert_eq!(
        (report.predicate.author, report.predicate.signer),
        (ReportAuthor::Coordinator, world.coordinator.key())
    );
    assert!(parts.denial.is_some());

    // Denied with another try: the attempt is fenced, the next one completes.
    let mut first = lease(world.spec(&requester, &blob)).await;
    first.challenge(&ours).await.unwrap();
    ours.deny(&first.task(), first.attempt(), &first.denial(true, "evidence.tcb")).await.unwrap();
    assert_eq!(code(first.attest(&theirs).await), "lease.fenced");
    let views = node.poll(&theirs, 1, 1000).await;
    let second = views.iter().find(|view| view.task == first.task() && !view.ended).unwrap();
    assert_eq!(second.attempt.0, 2);
    let mut second = Life::begin(&first.spec, second, &requester, &node);
    second.until_granted(&ours, &theirs).await;
    assert_eq!(code(first.complete(&theirs).await), "lease.fenced");
    second.complete(&theirs).await.unwrap();

    // A failure of the machine is tried again, up to the spec's number of attempts; then it is the answer.
    let mut spec = world.spec(&requester, &blob);
    spec.max_attempts = 2;
    let first = lease(spec).await;
    let refusal = Refusal::new(Fault::Node, "node.disk-full", "test", "test");
    let failed = |life: &Life<'_>| {
        life.report_request(life.predicate(ReportAuthor::Agent, Outcome::Failed { refusal: refusal.clone() }))
    };
    assert_eq!(first.report(&theirs, &failed(&first)).await.unwrap().state, TaskState::Queued);
    let views = node.poll(&theirs, 1, 1000).await;
    let second = views.iter().find(|view| view.task == first.task() && !view.ended).unwrap();
    let second = Life::begin(&first.spec, second, &requester, &node);
    assert_eq!(second.report(&theirs, &failed(&second)).await.unwrap().state, TaskState::Failed);
    assert_eq!(ours.task(&first.task(), 0, 0).await.unwrap().refusal.unwrap(), refusal);

    // A failure of the workload is final at once.
    let mut life = lease(world.spec(&requester, &blob)).await;
    life.until_granted(&ours, &theirs).await;
    let refusal = Refusal::new(Fault::Workload, "engine.wasm.trap", "test", "test");
    let request = life.report_request(life.predicate(ReportAuthor::Task, Outcome::Failed { refusal }));
    assert_eq!(life.report(&theirs, &request).await.unwrap().state, TaskState::Failed);

    // Cancelled in the run: the node sees that it is over.
    let mut life = lease(world.spec(&requester, &blob)).await;
    life.until_granted(&ours, &theirs).await;
    let before = node.poll_after(&theirs, (0, 0), 0, 0).await.unwrap();
    let request = cancel(&life.spec, &requester);
    assert_eq!(ours.cancel(&life.task(), &request).await.unwrap().state, TaskState::Cancelled);
    assert_eq!(ours.cancel(&life.task(), &request).await.unwrap().state, TaskState::Cancelled);
    let after = node.poll_after(&theirs, (before.epoch, before.version), 0, 1000).await.unwrap();
    assert!(
        after.attempts.iter().any(|view| view.task == life.task() && view.ended && view.state == TaskState::Cancelled)
    );
    assert_eq!(code(life.complete(&theirs).await), "lease.fenced");
    running.stop().await.unwrap();
}

/// Waits for a state of a task.
async fn until(client: &CoordinatorClient, task: &TaskId, holds: impl Fn(TaskState) -> bool) -> TaskView {
    let mut version = 0;
    loop {
        let view = client.task(task, version, 5_000).await.unwrap();
        if holds(view.state) {
            break view;
        }
        version = view.version;
    }
}

/// How a task ends, why, and in which attempt.
async fn ending(client: &CoordinatorClient, task: &TaskId) -> (TaskState, String, u32) {
    let view = until(client, task, TaskState::is_final).await;
    (view.state, view.refusal.unwrap().check().to_owned(), view.attempt.unwrap().0)
}

#[tokio::test]
async fn silence_ends_attempts_and_tasks() {
    let mut config = Config::default();
    config.waits.releaser_ms = 600;
    config.waits.node_ms = 300;
    config.waits.node_silence_ms = 5_000;
    let world = World::new(config);
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    let blob = upload(&ours, 100).await;
    let ending = async |task: &TaskId| ending(&ours, task).await;

    // Nobody challenges.
    let (silent, _) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    assert_eq!(node.poll(&theirs, 1, 1000).await.len(), 1);
    assert_eq!(ending(&silent.task).await, (TaskState::Failed, "releaser.silent".into(), 1));

    // The node never answers: every attempt is given to it again, as there is no other, until none is left.
    let mut spec = world.spec(&requester, &blob);
    spec.max_attempts = 2;
    let (spec, _) = submit(&ours, spec, &requester).await;
    for attempt in 1..=2 {
        let views = node.poll(&theirs, 1, 2000).await;
        let view = views.iter().find(|view| view.task == spec.task && !view.ended).unwrap();
        assert_eq!(view.attempt.0, attempt);
        Life::begin(&spec, view, &requester, &node).challenge(&ours).await.unwrap();
        until(&ours, &spec.task, |state| state == TaskState::Queued || state.is_final()).await;
    }
    assert_eq!(ending(&spec.task).await, (TaskState::Failed, "node.silent".into(), 2));

    // A spec that expires in the queue.
    let mut spec = world.spec(&requester, &blob);
    spec.expires_at = world::now().saturating_add_millis(2_000);
    let (spec, _) = submit(&ours, spec, &requester).await;
    let view = ours.task(&spec.task, u64::MAX, 10_000).await.unwrap();
    assert_eq!((view.state, view.refusal.unwrap().check().to_owned()), (TaskState::Failed, "spec.expired".into()));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_late_report_is_refused_and_changes_nothing() {
    let mut config = Config::default();
    config.waits.report_margin_ms = 300;
    let world = World::new(config);
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    let blob = upload(&ours, 100).await;
    let ending = async |task: &TaskId| ending(&ours, task).await;
    let mut spec = world.spec(&requester, &blob);
    spec.max_attempts = 1;
    spec.limits.wall_limit_ms = 200;
    let (spec, _) = submit(&ours, spec, &requester).await;
    let views = node.poll(&theirs, 1, 2000).await;
    let view = views.iter().find(|view| view.task == spec.task).unwrap();
    let mut life = Life::begin(&spec, view, &requester, &node);
    life.until_granted(&ours, &theirs).await;
    assert_eq!(ending(&spec.task).await, (TaskState::Failed, "lease.expired".into(), 1));
    assert_eq!(code(life.complete(&theirs).await), "lease.fenced");
    assert_eq!(ending(&spec.task).await, (TaskState::Failed, "lease.expired".into(), 1));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn nodes_that_go_away_or_restart_give_their_attempts_up() {
    let mut config = Config::default();
    config.waits.node_silence_ms = 3_000;
    let world = World::new(config);
    let running = world.start();
    let (requester, node, other) = (Party::new(1), world.node(2), world.node(3));
    let (ours, theirs, others) =
        (running.client(&requester), running.client(&node.party), running.client(&other.party));
    node.admit(&theirs).await;
    other.admit(&others).await;
    let blob = upload(&ours, 100).await;
    let (spec, _) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    assert_eq!(node.poll(&theirs, 1, 1000).await[0].attempt.0, 1);

    // Restarted: its new start gets the task again only if nobody else is free.
    let node = world.node(2);
    let (first, second) = tokio::join!(other.poll(&others, 1, 1500), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        node.poll(&theirs, 1, 300).await
    });
    assert_eq!((first.len(), first[0].attempt.0), (1, 2));
    assert!(second.is_empty());

    // Gone: after the silence, the task goes to whoever polls.
    let views = loop {
        let views = node.poll(&theirs, 1, 1000).await;
        if !views.is_empty() {
            break views;
        }
    };
    assert_eq!(views[0].attempt.0, 3);
    let mut life = Life::begin(&spec, &views[0], &requester, &node);
    life.until_granted(&ours, &theirs).await;
    life.complete(&theirs).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn until_brokers_had_time_to_return_none_is_called_absent() {
    let mut config = Config::default();
    config.waits.broker_return_ms = u64::MAX;
    let world = World::new(config);
    let running = world.start();
    let (requester, broker) = (Party::new(1), Party::new(4));
    let (ours, brokers) = (running.client(&requester), running.client(&broker));
    let ask = async |broker: &Party| {
        let challenge = starminer_verify::Challenge(world::random());
        ours.broker_evidence(&starminer_wire::BrokerEvidenceRequest { broker: broker.key(), challenge }).await
    };
    for refused in [ours.brokers().await.unwrap_err(), ask(&broker).await.unwrap_err()] {
        assert!(refused.is_transient(), "{refused}");
        let starminer_client::ClientError::Refused { status: 503, refusal, retry_after_ms: Some(_), .. } = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!(refusal.check(), "coordinator.starting");
    }
    // One is back; others may still come.
    brokers.broker_requests(0).await.unwrap();
    assert_eq!(ours.brokers().await.unwrap(), [broker.key()]);
    assert_eq!(code(ask(&Party::new(5)).await), "coordinator.starting");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_broker_is_asked_for_evidence_and_gets_deposits() {
    let mut config = Config::default();
    config.waits.broker_return_ms = 0;
    let world = World::new(config);
    let running = world.start();
    let (requester, broker, node) = (Party::new(1), Party::new(4), world.node(2));
    let (ours, theirs, brokers) = (running.client(&requester), running.client(&node.party), running.client(&broker));
    let request = starminer_wire::BrokerEvidenceRequest {
        broker: broker.key(),
        challenge: starminer_verify::Challenge(world::random()),
    };
    assert_eq!(code(ours.broker_evidence(&request).await), "broker.absent");
    assert_eq!(ours.brokers().await.unwrap(), []);
    let answering = async {
        loop {
            if let Some(asked) = brokers.broker_requests(5_000).await.unwrap().into_iter().next() {
                assert_eq!(asked, request);
                let evidence = starminer_receipt::Base64Bytes(vec![42; 100]);
                brokers
                    .broker_answer(&starminer_wire::BrokerEvidenceView { challenge: asked.challenge, evidence })
                    .await
                    .unwrap();
                return;
            }
        }
    };
    let asking = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(ours.network().await.unwrap().brokers, [broker.key()]);
        ours.broker_evidence(&request).await.unwrap()
    };
    let ((), answer) = tokio::join!(answering, asking);
    assert_eq!((answer.challenge, answer.evidence.0.len()), (request.challenge, 100));

    node.admit(&theirs).await;
    let blob = upload(&ours, 100).await;
    let mut spec = world.spec(&requester, &blob);
    spec.releaser = broker.key();
    let spec = sign(spec, &requester);
    let mut request = SubmitRequest { spec: spec.envelope().clone(), deposit: None, objects: Vec::new() };
    assert_eq!(code(ours.submit(&request).await), "submit.deposit-missing");
    let deposit =
        starminer_wire::Deposit { broker_evidence: starminer_verify::Digest([1; 32]), secret: world::sealed_secret() };
    request.deposit = Some(deposit.clone());
    ours.submit(&request).await.unwrap();
    let views = node.poll(&theirs, 1, 1000).await;
    assert!(views[0].deposit.is_none(), "a deposit is for the broker");
    assert!(releaser_feed(&ours, 0).await.is_empty(), "the requester is not the releaser");
    let seen = releaser_feed(&brokers, 0).await;
    assert_eq!(seen[0].deposit, Some(deposit));
    let mut life = Life::begin(&spec, &views[0], &broker, &node);
    assert_eq!(code(life.challenge(&ours).await), "identity.forbidden");
    life.until_granted(&brokers, &theirs).await;
    life.complete(&theirs).await.unwrap();
    running.stop().await.unwrap();
}

fn object(bytes: &[u8]) -> ObjectRef {
    let content_id = Digest(*blake3::hash(bytes).as_bytes());
    ObjectRef { content_id, sealed_bytes: bytes.len() as u64, commitment: Digest([3; 32]) }
}

/// Small objects may come along with a spec: they are there with it, or not at all.
#[tokio::test]
async fn objects_that_come_along_are_kept_with_the_spec_or_not_at_all() {
    let world = World::new(Config::default());
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    let bytes = [7; 3000];
    let own = object(&bytes);
    let spec = sign(world.spec(&requester, &own), &requester);
    let request = |objects: Vec<Vec<u8>>| SubmitRequest {
        spec: spec.envelope().clone(),
        deposit: None,
        objects: objects.into_iter().map(Base64Bytes).collect(),
    };
    assert_eq!(code(ours.submit(&request(vec![])).await), "submit.blob-missing");
    let refused = ours.submit(&request(vec![bytes.to_vec(), vec![8; 3000]])).await;
    assert_eq!(code(refused), "submit.object-unexpected");
    let refused = ours.submit(&request(vec![vec![7; 2999]])).await;
    assert_eq!(code(refused), "submit.object-unexpected");
    let refused = ours.submit(&request(vec![vec![7; 100_000], vec![8; 100_000]])).await;
    assert_eq!(code(refused), "submit.objects-too-large");
    assert!(!ours.blob_status(&own.content_id).await.unwrap().complete, "refused specs leave nothing");

    ours.submit(&request(vec![bytes.to_vec(), bytes.to_vec()])).await.unwrap();
    ours.submit(&request(vec![bytes.to_vec()])).await.unwrap();
    let mut kept = Vec::new();
    let sink = |piece: &[u8]| {
        kept.extend_from_slice(piece);
        Ok(())
    };
    theirs.download(&own.content_id, own.sealed_bytes, sink).await.unwrap();
    assert_eq!(kept, bytes);
    assert_eq!(node.poll(&theirs, 1, 1000).await.len(), 1);
    running.kill();

    // Durable as the spec is.
    let running = world.start();
    let ours = running.client(&requester);
    assert!(ours.blob_status(&own.content_id).await.unwrap().complete);
    running.stop().await.unwrap();
}

/// A feed shows an attempt again when there is something for its reader to do, and not for steps of others.
#[tokio::test]
async fn feeds_show_what_their_reader_acts_upon() {
    let world = World::new(Config::default());
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    let blob = upload(&ours, 100).await;
    let (spec, _) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    let views = node.poll(&theirs, 1, 1000).await;
    let mut life = Life::begin(&spec, &views[0], &requester, &node);
    let mut seen = (0, 0);
    let mut states = Vec::new();
    let mut look = async |states: &mut Vec<TaskState>| {
        let page = ours.feed(FeedRole::Releaser, seen.0, seen.1, 0).await.unwrap();
        seen = (page.epoch, page.version);
        states.extend(page.attempts.iter().map(|view| view.state));
    };
    look(&mut states).await;
    life.challenge(&ours).await.unwrap();
    look(&mut states).await;
    life.attest(&theirs).await.unwrap();
    look(&mut states).await;
    life.release(&ours, 1).await.unwrap();
    look(&mut states).await;
    life.grant(&ours).await.unwrap();
    look(&mut states).await;
    // Somebody who waits for the end hears of nothing before it.
    let (ended, ()) = tokio::join!(ours.task_end(&spec.task, 10_000), async {
        life.complete(&theirs).await.unwrap();
    });
    assert_eq!(ended.unwrap().state, TaskState::Completed);
    look(&mut states).await;
    assert_eq!(states, [TaskState::Leased, TaskState::Attested, TaskState::Completed]);
    running.stop().await.unwrap();
}
