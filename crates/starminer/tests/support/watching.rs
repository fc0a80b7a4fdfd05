//! What everybody can see of a network's nodes: who is admitted, and what the log says of those that were taken out.

use std::time::{Duration, Instant};

use hyper::Method;
use starminer_client::{CoordinatorClient, RequestBody};
use starminer_log::{Replay, SignedCheckpoint, bundles_between};
use starminer_receipt::{EntryKind, LogEntry, Outcome, Overall};
use starminer_requester::TaskOutcome;

use super::Network;

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until so many nodes are admitted, and says how long that took.
pub async fn admitted(client: &CoordinatorClient, count: usize) -> Duration {
    let began = Instant::now();
    while client.nodes().await.unwrap().len() != count {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {count} admitted nodes");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// The whole log, verified.
pub async fn log(network: &Network, client: &CoordinatorClient) -> Vec<LogEntry> {
    let fetch = async |path: String| {
        let path = format!("/v1/log/{path}");
        let sent = client.transport().request(Method::GET, &path, &[], RequestBody::Empty, PATIENCE);
        client.transport().read_limited(sent.await.unwrap(), 32 << 20, PATIENCE).await.unwrap()
    };
    let checkpoint = SignedCheckpoint::parse(&fetch("checkpoint".into()).await).unwrap();
    let checkpoint = checkpoint.verify(network.trust().log_key()).unwrap();
    let (mut replay, mut entries) = (Replay::start(), Vec::new());
    for bundle in bundles_between(0, checkpoint.size()).unwrap() {
        let content = fetch(bundle.path()).await;
        let parsed = bundle.parse(&content).unwrap();
        let new = replay.push(&parsed).unwrap();
        entries.extend(parsed.entries()[new].iter().map(|entry| LogEntry::parse(entry).unwrap()));
    }
    replay.verify(&checkpoint).unwrap();
    entries
}

/// Why nodes were taken out, in order.
pub fn suspensions(log: &[LogEntry]) -> Vec<String> {
    let suspended = log.iter().filter(|entry| entry.kind == EntryKind::Suspended);
    suspended.map(|entry| entry.why.clone().unwrap()).collect()
}

/// The task went well, and its receipt proves it.
#[track_caller]
pub fn completed(outcome: &TaskOutcome) {
    assert_eq!(outcome.outcome, Some(Outcome::Completed));
    assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
}
