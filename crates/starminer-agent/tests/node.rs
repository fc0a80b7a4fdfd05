//! A whole node against a coordinator in memory: what it makes of good fortune and of bad.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use starminer_agent::NodeLimits;
use starminer_agent::testing::{Parts, serve};
use starminer_attester::{AttestError, Attester, HostTree};
use starminer_receipt::{Envelope, Outcome};
use starminer_verify::{Binding, BootId, EvidenceKind, HostMeasure, Party, Posture, PostureState, SandboxMeasure};
use support::coordinator::{Coordinator, Grants, Line, Misfortune, parts};
use support::{Job, World, example, key};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A node that runs until it is dropped.
struct Node {
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start(coordinator: &Arc<Coordinator>, places: u32) -> Self {
        Self::start_with(coordinator, places, |_| {})
    }

    fn start_with(coordinator: &Arc<Coordinator>, places: u32, adjust: impl FnOnce(&mut NodeLimits)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_path_buf();
        Self::start_in(coordinator, places, adjust, &path, dir)
    }

    fn start_in(
        coordinator: &Arc<Coordinator>,
        places: u32,
        adjust: impl FnOnce(&mut NodeLimits),
        path: &Path,
        dir: tempfile::TempDir,
    ) -> Self {
        let mut parts = parts(&coordinator.world, Line::Direct(Arc::clone(coordinator)), path, places);
        adjust(&mut parts.limits);
        Self::run(parts, dir)
    }

    fn run(parts: Parts<Line>, dir: tempfile::TempDir) -> Self {
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            serve(parts, async {
                let _ = stopped.await;
            })
            .await
            .unwrap();
        });
        Self { stop: Some(stop), running, _dir: dir }
    }

    async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        tokio::time::timeout(Duration::from_secs(10), self.running).await.expect("stops in time").unwrap();
    }
}

/// Looks at the coordinator without holding up the node's runtime.
async fn ask<T: Send + 'static>(
    coordinator: &Arc<Coordinator>,
    question: impl FnOnce(&Coordinator) -> T + Send + 'static,
) -> T {
    let coordinator = Arc::clone(coordinator);
    tokio::task::spawn_blocking(move || question(&coordinator)).await.unwrap()
}

fn wordcount() -> Job {
    Job::wasm(example("wordcount/wordcount.wasm")).input("clinic-notes.txt", example("wordcount/clinic-notes.txt"))
}

fn endless() -> Job {
    let mut job = Job::wasm(example("runaway/runaway.wasm"));
    job.limits.fuel = u64::MAX / 2;
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_goes_from_lease_to_countersigned_report() {
    let coordinator = Coordinator::new();
    let node = Node::start(&coordinator, 2);
    let name = coordinator.submit(&wordcount());
    let result = ask(&coordinator, move |coordinator| coordinator.open(name)).await;
    assert_eq!(result.report.predicate.outcome, Outcome::Completed);
    assert_eq!(result.file("report.csv"), example("wordcount/expected/report.csv"));
    let verified = ask(&coordinator, move |coordinator| coordinator.verified(name)).await;
    let posture = verified.posture();
    for measure in [SandboxMeasure::Seccomp, SandboxMeasure::NoNetwork, SandboxMeasure::SingleUse] {
        assert_eq!(posture.sandbox_state(measure), PostureState::InForce, "{measure}");
        assert!(result.report.predicate.sandbox.contains(&measure.name().to_owned()));
    }
    assert_ne!(posture.host_state(starminer_verify::HostMeasure::SwapOff), PostureState::NotChecked);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_few_places() {
    let coordinator = Coordinator::new();
    let node = Node::start(&coordinator, 3);
    let names: Vec<_> = (0..24).map(|_| coordinator.submit(&Job::wasm(example("empty/empty.wasm")))).collect();
    for name in names {
        let result = ask(&coordinator, move |coordinator| coordinator.open(name)).await;
        assert_eq!(result.report.predicate.outcome, Outcome::Completed);
    }
    assert_eq!(coordinator.evidence_calls(), 24);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_fail_for_a_while_are_made_again() {
    let coordinator = Coordinator::new();
    coordinator.misfortune(Misfortune { evidence_unavailable: 3, report_unavailable: 3, ..Misfortune::default() });
    let node = Node::start(&coordinator, 1);
    let name = coordinator.submit(&Job::wasm(example("empty/empty.wasm")));
    ask(&coordinator, move |coordinator| coordinator.open(name)).await;
    assert_eq!(coordinator.evidence_calls(), 4);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_attempt_ends_without_a_word_and_frees_its_place() {
    let coordinator = Coordinator::new();
    let node = Node::start(&coordinator, 1);
    let fenced = coordinator.submit(&endless());
    ask(&coordinator, move |coordinator| coordinator.wait_evidence(fenced)).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    coordinator.fence(fenced);
    let next = coordinator.submit(&Job::wasm(example("empty/empty.wasm")));
    ask(&coordinator, move |coordinator| coordinator.open(next)).await;
    assert!(!coordinator.has_report(fenced));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ends_ends_its_task() {
    let mut world = World::new();
    world.lease_ms = 3_000;
    let coordinator = Coordinator::with(world);
    let node = Node::start(&coordinator, 1);
    let late = coordinator.submit(&endless());
    let started = Instant::now();
    let next = coordinator.submit(&Job::wasm(example("empty/empty.wasm")));
    ask(&coordinator, move |coordinator| coordinator.open(next)).await;
    assert!(started.elapsed() >= Duration::from_millis(2_500), "the place was free too early");
    assert!(!coordinator.has_report(late));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_nobody_wants_is_given_up() {
    let coordinator = Coordinator::new();
    coordinator.misfortune(Misfortune { report_conflict: true, ..Misfortune::default() });
    let node = Node::start(&coordinator, 1);
    let lost = coordinator.submit(&Job::wasm(example("empty/empty.wasm")));
    ask(&coordinator, Coordinator::wait_report_refused).await;
    coordinator.misfortune(Misfortune::default());
    let next = coordinator.submit(&Job::wasm(example("empty/empty.wasm")));
    ask(&coordinator, move |coordinator| coordinator.open(next)).await;
    assert!(!coordinator.has_report(lost));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_gives_its_tasks_up_with_a_report() {
    let coordinator = Coordinator::new();
    let node = Node::start(&coordinator, 2);
    let running = coordinator.submit(&endless());
    ask(&coordinator, move |coordinator| coordinator.wait_evidence(running)).await;
    node.stop().await;
    let refusal = coordinator.refusal(running);
    assert_eq!((refusal.party(), refusal.check()), (Party::Node, "node.stopping"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_nearly_done_may_end_before_the_node_stops() {
    let coordinator = Coordinator::new();
    let node = Node::start_with(&coordinator, 2, |limits| limits.shutdown_ms = 30_000);
    let mut job = endless();
    job.limits.wall_limit_ms = 1_500;
    let running = coordinator.submit(&job);
    ask(&coordinator, move |coordinator| coordinator.wait_evidence(running)).await;
    node.stop().await;
    let result = coordinator.open(running);
    let Outcome::Failed { refusal } = result.report.predicate.outcome else { panic!("completed") };
    assert_eq!(refusal.check(), "limits.wall-time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_cannot_be_had_are_reported() {
    let wrong = Coordinator::new();
    wrong.misfortune(Misfortune { blob_instead: Some(vec![1; 100]), ..Misfortune::default() });
    let missing = Coordinator::new();
    for (coordinator, party, code) in
        [(wrong, Party::Storage, "input.content-id"), (missing, Party::Requester, "input.missing")]
    {
        // The node starts after the blobs are gone, and no grant comes: the task fails while it prepares.
        let name = coordinator.lease(Arc::new(coordinator.world.seal(&wordcount())), 1, Grants::ByHand);
        coordinator.forget_blobs();
        let node = Node::start(&coordinator, 1);
        let refusal = ask(&coordinator, move |coordinator| coordinator.refusal(name)).await;
        assert_eq!((refusal.party(), refusal.check()), (party, code), "{refusal}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_that_cannot_be_delivered_are_reported_instead() {
    let coordinator = Coordinator::new();
    coordinator.misfortune(Misfortune { upload_refused: true, ..Misfortune::default() });
    let node = Node::start(&coordinator, 1);
    let name = coordinator.submit(&wordcount());
    let refusal = ask(&coordinator, move |coordinator| coordinator.refusal(name)).await;
    assert_eq!((refusal.party(), refusal.check()), (Party::Node, "node.outputs-lost"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_too_large_is_left_to_others() {
    let coordinator = Coordinator::new();
    let node = Node::start_with(&coordinator, 1, |limits| limits.memory_bytes = 64 << 20);
    let name = coordinator.submit(&wordcount());
    let refusal = ask(&coordinator, move |coordinator| coordinator.refusal(name)).await;
    assert_eq!((refusal.party(), refusal.check()), (Party::Node, "node.too-small"));
    node.stop().await;
}

/// Statements of somebody else's making move nothing; the true ones that come later do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_challenges_and_grants_are_passed_over() {
    let coordinator = Coordinator::new();
    let node = Node::start(&coordinator, 1);
    let job = Arc::new(coordinator.world.seal(&Job::wasm(example("empty/empty.wasm"))));
    let name = coordinator.lease(job, 1, Grants::ByHand);
    let challenge = coordinator.challenge_of(name);
    let mut forged = challenge.statement().clone();
    forged.releaser = starminer_receipt::Signer::public_key(&coordinator.world.coordinator);
    let forged = Envelope::sign(forged, &coordinator.world.coordinator).unwrap();
    coordinator.set_challenge(name, Some(forged));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(coordinator.evidence_calls(), 0, "evidence for a forged challenge");
    coordinator.set_challenge(name, Some(challenge));
    let evidence = ask(&coordinator, move |coordinator| coordinator.wait_evidence(name)).await;

    let verified = coordinator.verified(name);
    let task_key = verified.binding().task_key.clone().unwrap();
    let lease = coordinator.lease_of(name);
    let other = coordinator.world.seal(&Job::wasm(example("empty/empty.wasm")));
    let mut forged = coordinator.world.grant(&other, &lease, &evidence, &task_key, &[0; 32]);
    forged.releaser = starminer_receipt::Signer::public_key(&key(77));
    coordinator.set_grant(name, Envelope::sign(forged, &key(77)).unwrap().into_envelope());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!coordinator.has_report(name));
    ask(&coordinator, move |coordinator| coordinator.grant(name)).await;
    let result = ask(&coordinator, move |coordinator| coordinator.open(name)).await;
    assert_eq!(result.report.predicate.outcome, Outcome::Completed);
    node.stop().await;
}

/// A coordinator that starts anew tells everything again; what ran or runs is not begun a second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_coordinator_starts_nothing_twice() {
    let coordinator = Coordinator::new();
    let node = Node::start(&coordinator, 4);
    let first = coordinator.submit(&Job::wasm(example("empty/empty.wasm")));
    ask(&coordinator, move |coordinator| coordinator.open(first)).await;
    let mut job = endless();
    job.limits.wall_limit_ms = 1_500;
    let second = coordinator.submit(&job);
    ask(&coordinator, move |coordinator| coordinator.wait_evidence(second)).await;
    coordinator.restart();
    ask(&coordinator, move |coordinator| coordinator.open(second)).await;
    coordinator.restart();
    let third = coordinator.submit(&Job::wasm(example("empty/empty.wasm")));
    ask(&coordinator, move |coordinator| coordinator.open(third)).await;
    assert_eq!(coordinator.evidence_calls(), 3);
    node.stop().await;
}

/// A disk without room is the node's fault and says so. Needs root, to mount a small file system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_the_nodes_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(&path)
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("skipped: this test may not mount a file system");
        return;
    }
    let coordinator = Coordinator::new();
    let node = Node::start_in(&coordinator, 1, |_| {}, &path, dir);
    // On the way in.
    let large = coordinator.submit(&Job::wasm(example("empty/empty.wasm")).input("large", vec![1; 4 << 20]));
    let refusal = ask(&coordinator, move |coordinator| coordinator.refusal(large)).await;
    assert_eq!((refusal.party(), refusal.check()), (Party::Node, "node.storage-full"));
    // In the scratch of a running task.
    let mut job = Job::wasm(example("hostile/hugeout.wasm"));
    job.limits.fuel = 20_000_000_000;
    let scratch = coordinator.submit(&job);
    let result = ask(&coordinator, move |coordinator| coordinator.open(scratch)).await;
    let Outcome::Failed { refusal } = result.report.predicate.outcome else { panic!("completed") };
    assert_eq!((refusal.party(), refusal.check()), (Party::Node, "node.storage-full"));
    // Afterwards there is room again.
    let next = coordinator.submit(&wordcount());
    ask(&coordinator, move |coordinator| coordinator.open(next)).await;
    node.stop().await;
    let unmounted = std::process::Command::new("umount").arg(&path).status().unwrap();
    assert!(unmounted.success(), "something was left open");
}

/// A device that signs nothing while it is broken.
struct Breaking {
    device: Arc<dyn Attester>,
    broken: Arc<AtomicBool>,
}

impl Attester for Breaking {
    fn kind(&self) -> EvidenceKind {
        self.device.kind()
    }

    fn boot(&self) -> BootId {
        self.device.boot()
    }

    fn attest(&self, bindings: &[Binding], posture: &Posture) -> Result<Vec<Vec<u8>>, AttestError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(AttestError::SoftwareTee);
        }
        self.device.attest(bindings, posture)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_device_fails_offers_no_places_until_it_works_again() {
    let coordinator = Coordinator::new();
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let mut parts = parts(&coordinator.world, Line::Direct(Arc::clone(&coordinator)), dir.path(), 1);
    parts.device = Arc::new(Breaking { device: parts.device, broken: Arc::clone(&broken) });
    let node = Node::run(parts, dir);
    ask(&coordinator, |coordinator| coordinator.wait_offer(1)).await;

    broken.store(true, Ordering::SeqCst);
    let first = coordinator.submit(&wordcount());
    let refusal = ask(&coordinator, move |coordinator| coordinator.refusal(first)).await;
    assert_eq!((refusal.party(), refusal.check()), (Party::Node, "node.no-evidence"));
    ask(&coordinator, |coordinator| coordinator.wait_offer(0)).await;
    let second = coordinator.submit(&wordcount());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!coordinator.is_leased(second), "the node offers a place that it cannot fill");
    assert_eq!(coordinator.admissions(), 1);

    broken.store(false, Ordering::SeqCst);
    ask(&coordinator, move |coordinator| coordinator.open(second)).await;
    assert_eq!(coordinator.admissions(), 2);
    node.stop().await;
}

/// Has the host lose a measure while the node has nothing to do, mends it, and does so again while a task runs. Each time the evidence says so, no
/// task is taken meanwhile and none goes on, and afterwards the node is one like any other.
async fn falls_and_is_mended(parts: Parts<Line>, coordinator: &Arc<Coordinator>, dir: tempfile::TempDir, host: &Host) {
    let measure = host.measure;
    let node = Node::run(parts, dir);
    let states = |state| ask(coordinator, move |coordinator| coordinator.wait_posture(measure, state));
    ask(coordinator, |coordinator| coordinator.wait_offer(1)).await;
    for is_busy in [false, true] {
        states(PostureState::InForce).await;
        let first = is_busy.then(|| coordinator.submit(&endless()));
        if let Some(name) = first {
            ask(coordinator, move |coordinator| coordinator.wait_evidence(name)).await;
        }
        (host.fell)();
        if let Some(name) = first {
            let refusal = ask(coordinator, move |coordinator| coordinator.refusal(name)).await;
            let check = format!("node.posture-{measure}");
            assert_eq!((refusal.party(), refusal.check()), (Party::Node, check.as_str()), "{}", refusal.reason());
        }
        states(PostureState::Absent).await;
        ask(coordinator, |coordinator| coordinator.wait_offer(0)).await;
        let second = coordinator.submit(&wordcount());
        // It was admitted as what it is, and that changes nothing.
        let admissions = coordinator.admissions();
        assert!(!coordinator.is_leased(second), "a node whose host fell asks for tasks");
        (host.mended)();
        ask(coordinator, move |coordinator| coordinator.open(second)).await;
        assert!(coordinator.admissions() > admissions, "it takes tasks again by fresh evidence");
    }
    node.stop().await;
}

struct Host {
    measure: HostMeasure,
    fell: Box<dyn Fn()>,
    mended: Box<dyn Fn()>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_host_falls_gives_its_tasks_up_until_it_is_mended() {
    let coordinator = Coordinator::new();
    let (dir, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(tree.path().join("proc")).unwrap();
    let swaps = tree.path().join("proc/swaps");
    // As whole files, as the kernel gives them.
    let write = move |areas: &str| {
        let text = format!("Filename\tType\tSize\tUsed\tPriority\n{areas}");
        std::fs::write(swaps.with_extension("new"), text).unwrap();
        std::fs::rename(swaps.with_extension("new"), &swaps).unwrap();
    };
    write("");
    let mut parts = parts(&coordinator.world, Line::Direct(Arc::clone(&coordinator)), dir.path(), 1);
    parts.host = HostTree::at(tree.path());
    let other = write.clone();
    let host = Host {
        measure: HostMeasure::SwapOff,
        fell: Box::new(move || write("/dev/sda2 partition 1000 0 -2\n")),
        mended: Box::new(move || other("")),
    };
    falls_and_is_mended(parts, &coordinator, dir, &host).await;
}

/// Somebody mounts a folder of his own over that of the jobs. Needs root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_job_storage_is_mounted_over_gives_its_tasks_up() {
    let coordinator = Coordinator::new();
    let (dir, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let jobs = dir.path().to_path_buf();
    let succeeds = |command: &mut std::process::Command| command.output().is_ok_and(|output| output.status.success());
    let (mount, unmount) = (
        move |on: &Path| succeeds(std::process::Command::new("mount").arg("--bind").arg(foreign.path()).arg(on)),
        move |from: &Path| succeeds(std::process::Command::new("umount").arg("-l").arg(from)),
    );
    if !mount(&jobs) {
        eprintln!("skipped: this test may not mount a file system");
        return;
    }
    assert!(unmount(&jobs));
    let parts = parts(&coordinator.world, Line::Direct(Arc::clone(&coordinator)), dir.path(), 1);
    let on = jobs.clone();
    let host = Host {
        measure: HostMeasure::JobStorageUnshadowed,
        fell: Box::new(move || assert!(mount(&on))),
        mended: Box::new(move || assert!(unmount(&jobs))),
    };
    falls_and_is_mended(parts, &coordinator, dir, &host).await;
}
