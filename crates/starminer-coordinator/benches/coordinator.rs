//! What the coordinator can do: whole lives of tasks a second, with real statements, log, signatures and waits for the disk.
//!
//! `writer`: commands straight to the writer, as after the handlers' checks. `api`: the same lives over TLS by a client and a node in this
//! process; the coordinator has threads of its own, so that its CPU time is told apart. `blob`: memory to pass a large blob up and down.
//! Nothing runs inside an enclave here: the time of sealing, attesting and running is not in these figures.
//!
//! `cargo bench -p starminer-coordinator [-- writer|api|append|blob]`
#![allow(clippy::unwrap_used)]

#[path = "../tests/coordinator/world/mod.rs"]
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use starminer_client::{CoordinatorClient, UploadSource};
use starminer_coordinator::tasks::{Command, Offer, Standing, Step};
use starminer_coordinator::writer::WriterHandle;
use starminer_coordinator::{Config, Coordinator, Environment, Options};
use starminer_log::{Checkpoint, Frontier, KeyName, LogSigner};
use starminer_receipt::{ObjectRef, Outcome, ReportAuthor, Signed};
use starminer_verify::{Digest, Tier, UnixTime};
use starminer_wire::{NodeFeedRequest, SubmitRequest, TaskState};
use world::{Life, Node, Party, World};

/// Tasks under way at a time.
const IN_FLIGHT: usize = 64;
/// How long each figure is measured.
const MEASURE: Duration = Duration::from_secs(8);
/// Bytes of the large blob; `STARMINER_BENCH_BLOB_BYTES` sets another.
const BLOB_BYTES: u64 = 4 << 30;

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("parties")
        .enable_all()
        .build()
        .unwrap();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    if wanted("append") {
        append();
    }
    if wanted("writer") {
        runtime.block_on(writer());
    }
    if wanted("api") {
        runtime.block_on(api());
    }
    if wanted("blob") {
        runtime.block_on(blob());
    }
}

/// Hashing a group of entries and signing its checkpoint.
fn append() {
    let signer = LogSigner::from_seed(KeyName::parse("log.bench/starminer").unwrap(), &[1; 32]);
    for group in [1, 8, 64] {
        let entries = vec![vec![7; 220]; group];
        let mut frontier = Frontier::empty();
        let started = Instant::now();
        let mut groups = 0;
        while started.elapsed() < Duration::from_secs(1) {
            let batch = frontier.append(&entries).unwrap();
            Checkpoint::new(signer.name().clone(), batch.size(), batch.root()).unwrap().sign(&signer).unwrap();
            frontier = batch.into_frontier();
            groups += 1;
        }
        let each = started.elapsed().as_secs_f64() * 1e6 / f64::from(groups);
        println!(
            "append    groups of {group:>2}: {each:>7.1} us a group, {:>9.0} entries/s",
            1e6 / each * group as f64
        );
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

fn report(name: &str, elapsed: Duration, mut lives: Vec<Duration>) {
    lives.sort_unstable();
    println!(
        "{name} {:>6.0} lives/s   p50 {:>6.2} ms   p99 {:>6.2} ms   ({} lives)",
        lives.len() as f64 / elapsed.as_secs_f64(),
        percentile(&lives, 50),
        percentile(&lives, 99),
        lives.len()
    );
}

/// Straight to the writer.
async fn writer() {
    let mut config = Config::default();
    // No node polls here.
    config.waits.node_silence_ms = u64::MAX;
    let world = World::new(config);
    let options = Options {
        config: world.config.clone(),
        directory: world.data(),
        marker: world.marker(),
        trust: world.trust.clone(),
        identity: world.coordinator.identity.clone(),
        log: LogSigner::from_seed(KeyName::parse("log.test/starminer").unwrap(), &[0x22; 32]),
        rotation: starminer_tls::Rotation::default(),
        environment: Environment::default(),
    };
    let coordinator = Coordinator::open_with(options).await.unwrap();
    let writer = coordinator.writer();
    let (requester, node) = (Party::new(1), world.node(2));
    let stored =
        starminer_store::BlobRow { id: [9; 32], owner: [1; 32], size_bytes: 10, stored_at: 0, body: Some(vec![0; 10]) };
    writer.blob(stored).await.unwrap();
    let standing = Standing {
        tier: Tier::Confidential,
        simulated_root: world.trust.simulated_roots.first().map(|root| root.root),
        admitted_at: UnixTime(0),
        valid_until: UnixTime(u64::MAX),
        valid_until_ms: u64::MAX,
        tpm: Vec::new(),
        rollback_said: false,
    };
    writer.execute(Command::Admit { node: node.id(), evidence: Digest([0; 32]), standing }).await.unwrap();
    for in_flight in [1, IN_FLIGHT] {
        let started = Instant::now();
        let lives: Vec<Vec<Duration>> = futures_util::stream::iter(0..in_flight)
            .map(|_| async {
                let mut times = Vec::new();
                while started.elapsed() < MEASURE {
                    let begun = Instant::now();
                    writer_life(&world, &writer, &requester, &node).await;
                    times.push(begun.elapsed());
                }
                times
            })
            .buffer_unordered(in_flight)
            .collect()
            .await;
        report(&format!("writer    {in_flight:>2} in flight:"), started.elapsed(), lives.concat());
    }
}

async fn writer_life(world: &World, writer: &WriterHandle, requester: &Party, node: &Node) {
    let blob = ObjectRef { content_id: Digest([9; 32]), sealed_bytes: 10, commitment: Digest([0; 32]) };
    let spec = world::sign(world.spec(requester, &blob), requester);
    let offer = Offer { boot: node.boot, poll: 0, free_places: 128, holds: Arc::from([]), unclean: false };
    writer.execute(Command::Offer { node: node.id(), offer, seen: u64::MAX }).await.unwrap();
    let submit = Command::Submit { spec: Arc::new(spec.clone()), deposit: None };
    let task = writer.execute(submit).await.unwrap().task.unwrap();
    let live = task.live().expect("the node has places");
    let mut life = Life {
        spec,
        lease: Signed::clone(&live.lease),
        releaser: requester,
        node,
        challenge: None,
        evidence: Vec::new(),
        release: None,
        release_index: 0,
        grant: None,
        result: vec![b'r'; 2000],
    };
    let (id, attempt) = (life.task(), life.attempt());
    let run = async |peer: &Party, step: Step| {
        let command = Command::Step { peer: peer.key(), task: id, attempt, step };
        writer.execute(command).await.unwrap().task.unwrap()
    };
    let challenge = life.make_challenge();
    let nonce = challenge.challenge;
    run(requester, Step::Challenge(Arc::new(challenge))).await;
    life.evidence = node.evidence(life.spec.digest(), attempt, nonce);
    let evidence = Arc::new(life.evidence.clone());
    run(&node.party, Step::Evidence { digest: Digest::of(&evidence), evidence, endorsements: None, report_key: None })
        .await;
    let release = life.make_release();
    let released = run(requester, Step::Release(Arc::new(release))).await;
    life.release_index = released.attempt(attempt).and_then(|record| record.release_index).unwrap();
    let grant = life.make_grant();
    run(requester, Step::Grant { grant: Arc::new(grant), attestation_result: Arc::new(life.result.clone()) }).await;
    let request = life.report_request(life.predicate(ReportAuthor::Task, Outcome::Completed));
    let step = Step::Report {
        report: Arc::new(request.report.open().unwrap()),
        agent_statement: request.agent_statement.map(|envelope| Arc::new(envelope.open().unwrap())),
        closing_evidence: request.closing_evidence.map(|evidence| Arc::new(evidence.0)),
    };
    assert_eq!(run(&node.party, step).await.state(), TaskState::Completed);
}

/// CPU time of the coordinator's threads, in milliseconds.
fn coordinator_cpu_ms() -> f64 {
    let mut ticks = 0u64;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        if name.contains(world::THREAD_NAME) || name.contains("sqlx") {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    // USER_HZ is 100 on Linux.
    ticks as f64 * 10.0
}

fn resident_mib(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Over TLS, everything but the work inside the enclave.
async fn api() {
    let world = World::new(Config::default());
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    for in_flight in [1, IN_FLIGHT] {
        let (cpu, started) = (coordinator_cpu_ms(), Instant::now());
        let (leases, _) = tokio::sync::broadcast::channel(4096);
        let polling = poll_leases(&theirs, &node, leases.clone());
        let running_lives = futures_util::stream::iter(0..in_flight)
            .map(|_| async {
                let mut times = Vec::new();
                while started.elapsed() < MEASURE {
                    let begun = Instant::now();
                    api_life(&world, (&ours, &requester), (&theirs, &node), leases.subscribe()).await;
                    times.push(begun.elapsed());
                }
                times
            })
            .buffer_unordered(in_flight)
            .collect::<Vec<_>>();
        let lives = tokio::select! {
            lives = running_lives => lives.concat(),
            () = polling => unreachable!("the node polls on"),
        };
        let count = lives.len() as f64;
        report(&format!("api       {in_flight:>2} in flight:"), started.elapsed(), lives);
        println!(
            "          coordinator {:.2} CPU ms a life; this process {:.0} MiB resident, parties included",
            (coordinator_cpu_ms() - cpu) / count,
            resident_mib("VmRSS")
        );
    }
    running.stop().await.unwrap();
}

async fn poll_leases(
    client: &CoordinatorClient,
    node: &Node,
    leases: tokio::sync::broadcast::Sender<starminer_wire::AttemptView>,
) {
    let (mut epoch, mut after) = (0, 0);
    loop {
        let request = NodeFeedRequest {
            epoch,
            after,
            wait_ms: 5_000,
            free_places: 256,
            boot: node.boot,
            holds: Vec::new(),
            unclean: false,
        };
        let response = client.node_feed(&request).await.unwrap();
        (epoch, after) = (response.epoch, response.version);
        for view in response.attempts.into_iter().filter(|view| view.state == TaskState::Leased) {
            let _ = leases.send(view);
        }
    }
}

async fn api_life(
    world: &World,
    (ours, requester): (&CoordinatorClient, &Party),
    (theirs, node): (&CoordinatorClient, &Node),
    mut leases: tokio::sync::broadcast::Receiver<starminer_wire::AttemptView>,
) {
    let blob = world::upload(ours, 400).await;
    let spec = world::sign(world.spec(requester, &blob), requester);
    ours.submit(&SubmitRequest { spec: spec.envelope().clone(), deposit: None, objects: Vec::new() }).await.unwrap();
    let view = loop {
        let view = leases.recv().await.unwrap();
        if view.task == spec.task {
            break view;
        }
    };
    let mut life = Life::begin(&spec, &view, requester, node);
    life.result = vec![b'r'; 2000];
    life.challenge(ours).await.unwrap();
    life.attest(theirs).await.unwrap();
    life.release(ours, 1).await.unwrap();
    life.grant(ours).await.unwrap();
    let mut predicate = life.predicate(ReportAuthor::Task, Outcome::Completed);
    predicate.outputs = vec![world::upload(theirs, 300).await];
    life.report(theirs, &life.report_request(predicate)).await.unwrap();
    assert_eq!(ours.task(&spec.task, 0, 0).await.unwrap().state, TaskState::Completed);
    ours.receipt(&spec.task).await.unwrap();
}

/// One large blob, up and down, by a client in this process that keeps nothing: peak memory of both together over idle.
async fn blob() {
    let length =
        std::env::var("STARMINER_BENCH_BLOB_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(BLOB_BYTES);
    let world = World::new(Config::default());
    let running = world.start();
    let ours = running.client(&Party::new(1));
    world::upload(&ours, 100).await;
    let piece =
        Bytes::from((0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 7) as u8).collect::<Vec<_>>());
    let mut hasher = blake3::Hasher::new();
    let file = tempfile::NamedTempFile::new_in(world.dir.path()).unwrap();
    {
        use std::io::Write as _;
        let mut writer = file.as_file();
        let mut left = length;
        while left > 0 {
            let part = &piece[..piece.len().min(usize::try_from(left).unwrap())];
            writer.write_all(part).unwrap();
            hasher.update(part);
            left -= part.len() as u64;
        }
    }
    let id = Digest(*hasher.finalize().as_bytes());
    let idle = resident_mib("VmRSS");
    // The kernel's own peak counter begins anew.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let started = Instant::now();
    ours.upload(&id, length, UploadSource::File(file.path().into()), |_| {}).await.unwrap();
    let up = started.elapsed();
    let started = Instant::now();
    ours.download(&id, length, |_| Ok(())).await.unwrap();
    let down = started.elapsed();
    let mib = length as f64 / f64::from(1 << 20);
    println!(
        "blob      {mib:.0} MiB: up {:.0} MiB/s, down {:.0} MiB/s; peak {:.1} MiB over idle (client and coordinator together)",
        mib / up.as_secs_f64(),
        mib / down.as_secs_f64(),
        resident_mib("VmHWM") - idle
    );
    running.stop().await.unwrap();
}
