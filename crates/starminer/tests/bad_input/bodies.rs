//! Bodies that are too long, endless, too slow, cut off or not of the protocol: refused with a code, within bounds of time and memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};
use starminer_client::{CoordinatorClient, RequestBody, UploadSource};
use starminer_requester::random_bytes;
use starminer_tls::IdentityKey;
use starminer_verify::Digest;
use starminer_wire::{MAX_JSON_BODY_BYTES, Problem, paths};
use tokio::sync::mpsc;

use crate::support::{Network, runtime};

/// Longest that any answer may take: all bounds of the coordinator are shorter.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a body; the status, and the code where it is a problem.
async fn send(client: &CoordinatorClient, method: Method, path: &str, body: RequestBody) -> (u16, String) {
    let response = client.transport().request(method, path, &[], body, PATIENCE).await.unwrap();
    let status = response.status().as_u16();
    let body = client.transport().read_limited(response, 1 << 20, PATIENCE).await.unwrap();
    let code = serde_json::from_slice::<Problem>(&body).map(|problem| problem.code).unwrap_or_default();
    (status, code)
}

/// A body of which one piece after another comes for as long as somebody takes them, `pause` apart.
fn endless(piece: usize, pause: Duration) -> RequestBody {
    let (pieces, body) = mpsc::channel::<io::Result<Bytes>>(1);
    tokio::spawn(async move {
        let piece = Bytes::from(vec![b' '; piece]);
        while pieces.send(Ok(piece.clone())).await.is_ok() {
            tokio::time::sleep(pause).await;
        }
    });
    RequestBody::Stream(body)
}

/// A body that breaks off, or falls silent for good.
fn breaks_off(begun: Bytes, silent: bool) -> RequestBody {
    let (pieces, body) = mpsc::channel::<io::Result<Bytes>>(1);
    tokio::spawn(async move {
        let _ = pieces.send(Ok(begun)).await;
        if silent {
            pieces.closed().await;
        } else {
            let _ = pieces.send(Err(io::ErrorKind::ConnectionReset.into())).await;
        }
    });
    RequestBody::Stream(body)
}

fn kilobytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn someone(network: &Network) -> CoordinatorClient {
    network.client(&Arc::new(IdentityKey::generate().unwrap()))
}

#[test]
fn endless_bodies_are_cut_and_cost_no_memory() {
    const LARGEST: u64 = 4 << 20;
    let network = Network::with_limits(&[
        (&["identity", "largest_blob_bytes"], LARGEST.try_into().unwrap()),
        (&["waits", "body_idle_ms"], 3_000),
    ]);
    let pid = network.pid("coordinator");
    let before = kilobytes(pid, "VmHWM");
    runtime().block_on(async {
        let client = someone(&network);
        let blob = |total: u64| format!("/v1/blobs/{}?offset=0&total={total}", Digest(random_bytes()).to_hex());
        let fast = Duration::ZERO;
        // So slow that each piece comes in time, and all of them never: as JSON the whole must be there within a time of its own.
        let slow = tokio::spawn({
            let client = someone(&network);
            async move { send(&client, Method::POST, paths::TASKS, endless(1, Duration::from_millis(200))).await }
        });

        let mut under_way = tokio::task::JoinSet::new();
        for _ in 0..16 {
            for (path, body, expected) in [
                (paths::TASKS.to_string(), endless(64 * 1024, fast), (413, "body.too-large")),
                (blob(1000), endless(64 * 1024, fast), (413, "body.too-large")),
                (blob(LARGEST), endless(64 * 1024, fast), (413, "blob.too-long")),
                (blob(LARGEST + 1), endless(64 * 1024, fast), (413, "blob.too-large")),
                (blob(u64::MAX), endless(64 * 1024, fast), (413, "blob.too-large")),
                (blob(LARGEST), breaks_off(vec![1; 70_000].into(), true), (400, "body.timeout")),
                (blob(1000), breaks_off(vec![1; 500].into(), true), (400, "body.timeout")),
            ] {
                let client = client.clone();
                under_way.spawn(async move {
                    let method = if path == paths::TASKS { Method::POST } else { Method::PUT };
                    let found = send(&client, method, &path, body).await;
                    assert_eq!(found, (expected.0, expected.1.to_string()), "{path}");
                });
            }
        }
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
        let long = Bytes::from(vec![b'{'; MAX_JSON_BODY_BYTES + 1]);
        let found = send(&client, Method::POST, paths::TASKS, RequestBody::Json(long)).await;
        assert_eq!(found, (413, "body.too-large".into()));
        assert_eq!(slow.await.unwrap(), (400, "body.timeout".into()));
        client.network().await.unwrap();
    });
    // A hundred bodies without end; what the coordinator ever held is bounded by windows and named limits.
    let grown = kilobytes(pid, "VmHWM") - before;
    eprintln!("the coordinator's memory grew by {grown} KiB");
    assert!(grown < 64 * 1024, "{grown} KiB");
}

#[test]
fn an_upload_that_breaks_off_is_resumed() {
    let network = Network::with_limits(&[(&["waits", "body_idle_ms"], 3_000)]);
    runtime().block_on(async {
        let identity = Arc::new(IdentityKey::generate().unwrap());
        let client = network.client(&identity);
        let blob: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).take(1_000_000).collect();
        let (blob, total) = (Bytes::from(blob), 1_000_000);
        let id = Digest(*blake3::hash(&blob).as_bytes());
        let path = |offset: u64| format!("/v1/blobs/{}?offset={offset}&total={total}", id.to_hex());

        // The client goes away in the middle.
        let broken = breaks_off(blob.slice(..400_000), false);
        assert!(client.transport().request(Method::PUT, &path(0), &[], broken, PATIENCE).await.is_err());
        // It falls silent: the coordinator does not wait for ever, and keeps what came.
        let answer = loop {
            let stored = client.blob_status(&id).await.unwrap().stored_bytes;
            let silent = breaks_off(blob.slice(usize::try_from(stored).unwrap()..700_000), true);
            let answer = send(&client, Method::PUT, &path(stored), silent).await;
            // For a moment the coordinator may not know yet that the first request is over.
            if !matches!(answer.1.as_str(), "blob.busy" | "blob.wrong-offset") {
                break answer;
            }
        };
        assert_eq!(answer, (400, "body.timeout".into()));
        assert_eq!(client.blob_status(&id).await.unwrap().stored_bytes, 700_000);
        // Nobody continues it at another place, or for another identity, or before it is complete.
        let wrong = send(&client, Method::PUT, &path(1), RequestBody::Bytes(blob.slice(1..))).await;
        assert_eq!(wrong, (409, "blob.wrong-offset".into()));
        assert_eq!(someone(&network).blob_status(&id).await.unwrap().stored_bytes, 0);
        let get = format!("/v1/blobs/{}", id.to_hex());
        assert_eq!(send(&client, Method::GET, &get, RequestBody::Empty).await, (404, "blob.not-found".into()));

        // Killed in between, the coordinator still has it; the rest is sent and nothing else.
        network.restart("coordinator");
        let client = network.client(&identity);
        assert_eq!(client.blob_status(&id).await.unwrap().stored_bytes, 700_000);
        let rest = RequestBody::Bytes(blob.slice(700_000..));
        assert_eq!(send(&client, Method::PUT, &path(700_000), rest).await.0, 200);
        let mut back = Vec::new();
        let sink = |piece: &[u8]| {
            back.extend_from_slice(piece);
            Ok(())
        };
        client.download(&id, total, sink).await.unwrap();
        assert_eq!(back, blob);

        // What turns out to be something else at the end is thrown away, and the true one can still come.
        let other = Digest(*blake3::hash(b"something else").as_bytes());
        let path = format!("/v1/blobs/{}?offset=0&total={total}", other.to_hex());
        let found = send(&client, Method::PUT, &path, RequestBody::Bytes(blob.clone())).await;
        assert_eq!(found, (422, "blob.wrong-content".into()));
        assert_eq!(client.blob_status(&other).await.unwrap().stored_bytes, 0);
        let source = UploadSource::Bytes(Bytes::from_static(b"something else"));
        client.upload(&other, 14, source, |_| {}).await.unwrap();
    });
}

/// Every body of the API with a field that it does not have.
#[test]
fn unknown_fields_are_refused() {
    let network = Network::coordinator_only();
    runtime().block_on(async {
        let client = someone(&network);
        let (task, id) = ("00".repeat(16), "ab".repeat(32));
        let envelope = json!({ "payloadType": "x", "payload": "AAAA", "signatures": [{ "keyid": id, "sig": "AAAA" }] });
        let attempt = |action: &str| format!("/v1/tasks/{task}/attempts/1/{action}");
        let bodies: Vec<(String, Value)> = vec![
            (paths::TASKS.into(), json!({ "spec": envelope })),
            (format!("/v1/tasks/{task}/cancel"), json!({ "cancel": envelope })),
            (attempt("challenge"), json!({ "challenge": envelope })),
            (attempt("evidence"), json!({ "evidence": "AAAA" })),
            (attempt("release"), json!({ "release": envelope, "remembered_size": 0 })),
            (attempt("grant"), json!({ "grant": envelope, "attestation_result": "AAAA" })),
            (attempt("deny"), json!({ "denial": envelope })),
            (attempt("report"), json!({ "report": envelope, "agent_statement": null, "closing_evidence": null })),
            (paths::NODE_FEED.into(), json!({ "epoch": 0, "after": 0, "wait_ms": 0, "free_places": 1, "boot": task })),
            (paths::NODE_ADMISSION.into(), json!({ "evidence": "AAAA" })),
            (paths::BROKER_EVIDENCE.into(), json!({ "broker": id, "challenge": id })),
            (paths::BROKER_ANSWERS.into(), json!({ "challenge": id, "evidence": "AAAA" })),
        ];
        for (path, body) in bodies {
            let post = |body: &Value| send(&client, Method::POST, &path, RequestBody::Json(body.to_string().into()));
            let (status, known) = post(&body).await;
            assert!(status >= 400 && known != "body.malformed", "{path}: without it the body is read: {known}");
            let mut more = body.clone();
            more["more"] = json!(1);
            let mut deeper = body.clone();
            let envelope = body.as_object().unwrap().iter().find(|(_, value)| value.is_object());
            if let Some((name, _)) = envelope {
                deeper[name]["more"] = json!(1);
            } else {
                deeper = json!([body]);
            }
            for body in [more, deeper] {
                assert_eq!(post(&body).await, (400, "body.malformed".into()), "{path}: {body}");
            }
        }
    });
}
