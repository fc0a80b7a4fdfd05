//! What bad input gets: a problem with a stable code, nothing lost, no panic.

use std::time::Duration;

use crate::world::{self, Life, Party, World, code, sign, submit, upload};
use bytes::Bytes;
use hyper::Method;
use hyper::header::{HeaderName, HeaderValue, RANGE};
use starminer_client::{CoordinatorClient, RequestBody, UploadSource};
use starminer_coordinator::Config;
use starminer_receipt::{Base64Bytes, Envelope};
use starminer_verify::{Challenge, Digest, NetworkId, TaskId};
use starminer_wire::{AdmissionRequest, Problem, SubmitRequest, TaskState};

/// Sends anything and returns status and code.
async fn send(client: &CoordinatorClient, method: Method, path: &str, body: RequestBody) -> (u16, String) {
    send_with(client, method, path, &[], body).await
}

async fn send_with(
    client: &CoordinatorClient,
    method: Method,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
    body: RequestBody,
) -> (u16, String) {
    let response = client.transport().request(method, path, headers, body, Duration::from_secs(20)).await.unwrap();
    let status = response.status().as_u16();
    let is_problem = response.headers().get("content-type").is_some_and(|value| value == "application/problem+json");
    let body = client.transport().read_limited(response, 1 << 20, Duration::from_secs(20)).await.unwrap();
    if status < 400 {
        return (status, String::new());
    }
    assert!(is_problem, "{path}: {}", String::from_utf8_lossy(&body));
    let problem: Problem = serde_json::from_slice(&body).unwrap();
    assert_eq!((problem.status, problem.problem_type), (status, format!("urn:starminer:problem:{}", problem.code)));
    assert!(!problem.remedy.is_empty() && !problem.detail.is_empty());
    (status, problem.code)
}

fn json(text: impl Into<String>) -> RequestBody {
    RequestBody::Json(Bytes::from(text.into()))
}

#[tokio::test]
async fn malformed_requests() {
    let world = World::new(Config::default());
    let running = world.start();
    let ours = running.client(&Party::new(1));
    let (task, id) = ("00".repeat(16), "ab".repeat(32));
    let big = format!("{{\"spec\":\"{}\"}}", "x".repeat(600 * 1024));
    let deep = "[".repeat(100_000);
    let get = Method::GET;
    let post = Method::POST;
    let put = Method::PUT;
    let cases: Vec<(&Method, String, RequestBody, u16, &str)> = vec![
        (&get, "/".into(), RequestBody::Empty, 404, "endpoint.unknown"),
        (&get, "/v2/tasks".into(), RequestBody::Empty, 404, "endpoint.unknown"),
        (&get, "/v1/tasks".into(), RequestBody::Empty, 400, "endpoint.method"),
        (&Method::DELETE, format!("/v1/tasks/{task}"), RequestBody::Empty, 400, "endpoint.method"),
        (&get, "/v1/tasks/zz".into(), RequestBody::Empty, 400, "path.malformed"),
        (
            &get,
            format!("/v1/tasks/{}", task.to_uppercase().replace('0', "A")),
            RequestBody::Empty,
            400,
            "path.malformed",
        ),
        (&get, format!("/v1/tasks/{task}"), RequestBody::Empty, 404, "task.unknown"),
        (&get, format!("/v1/tasks/{task}?after=-1"), RequestBody::Empty, 400, "query.malformed"),
        (&get, format!("/v1/tasks/{task}?afterwards=1"), RequestBody::Empty, 400, "query.malformed"),
        (&get, "/v1/feed".into(), RequestBody::Empty, 400, "query.malformed"),
        (&get, "/v1/feed?role=king".into(), RequestBody::Empty, 400, "query.malformed"),
        (&post, "/v1/tasks".into(), RequestBody::Empty, 400, "body.malformed"),
        (&post, "/v1/tasks".into(), json("{}"), 400, "body.malformed"),
        (&post, "/v1/tasks".into(), json("{\"spec\":1,\"deposit\":null}"), 400, "body.malformed"),
        (&post, "/v1/tasks".into(), json(deep), 400, "body.malformed"),
        (&post, "/v1/tasks".into(), json(big), 413, "body.too-large"),
        (&post, "/v1/node/feed".into(), json("{\"epoch\":0}"), 400, "body.malformed"),
        (
            &post,
            "/v1/node/feed".into(),
            json(format!("{{\"epoch\":0,\"after\":0,\"wait_ms\":0,\"free_places\":1,\"boot\":\"{task}\",\"more\":1}}")),
            400,
            "body.malformed",
        ),
        (
            &post,
            "/v1/node/feed".into(),
            json(format!("{{\"epoch\":0,\"after\":0,\"wait_ms\":0,\"free_places\":1,\"boot\":\"{task}\"}}")),
            403,
            "node.not-admitted",
        ),
        (&post, format!("/v1/tasks/{task}/attempts/-1/deny"), json("{}"), 400, "path.malformed"),
        (&post, format!("/v1/tasks/{task}/attempts/1/dance"), json("{}"), 404, "endpoint.unknown"),
        (&get, format!("/v1/blobs/{id}"), RequestBody::Empty, 404, "blob.not-found"),
        (&get, "/v1/blobs/ab".into(), RequestBody::Empty, 400, "path.malformed"),
        (&put, format!("/v1/blobs/{id}"), RequestBody::Empty, 400, "query.malformed"),
        (&put, format!("/v1/blobs/{id}?offset=0&total=0"), RequestBody::Empty, 400, "blob.empty"),
        (&put, format!("/v1/blobs/{id}?offset=0&total={}", 1u64 << 50), RequestBody::Empty, 413, "blob.too-large"),
        (&put, format!("/v1/blobs/{id}?offset=0&total={}", u64::MAX), RequestBody::Empty, 413, "blob.too-large"),
        (&put, format!("/v1/blobs/{id}?offset=5&total=10"), RequestBody::Empty, 409, "blob.wrong-offset"),
        (&put, format!("/v1/blobs/{id}?offset=5&total=1000000"), RequestBody::Empty, 409, "blob.wrong-offset"),
        (
            &put,
            format!("/v1/blobs/{id}?offset=0&total=3"),
            RequestBody::Bytes(Bytes::from_static(b"abcd")),
            413,
            "body.too-large",
        ),
        (
            &put,
            format!("/v1/blobs/{id}?offset=0&total=3"),
            RequestBody::Bytes(Bytes::from_static(b"ab")),
            400,
            "blob.too-short",
        ),
        (
            &put,
            format!("/v1/blobs/{id}?offset=0&total=3"),
            RequestBody::Bytes(Bytes::from_static(b"abc")),
            422,
            "blob.wrong-content",
        ),
        (
            &put,
            format!("/v1/blobs/{id}?offset=0&total=70000"),
            RequestBody::Bytes(vec![0; 70_001].into()),
            413,
            "blob.too-long",
        ),
        (
            &put,
            format!("/v1/blobs/{id}?offset=0&total=80000"),
            RequestBody::Bytes(vec![0; 80_000].into()),
            422,
            "blob.wrong-content",
        ),
        (&get, "/v1/log/tile/0/001".into(), RequestBody::Empty, 404, "log.tile-unknown"),
        (&get, "/v1/log/tile/0/000/../000".into(), RequestBody::Empty, 404, "log.tile-unknown"),
        (&get, "/v1/log/tile/x".into(), RequestBody::Empty, 404, "log.tile-unknown"),
        (&get, "/v1/log/consistency?from=1000".into(), RequestBody::Empty, 409, "log.size-unknown"),
        (&get, "/v1/log/consistency?from=99999999999999999999".into(), RequestBody::Empty, 400, "query.malformed"),
        (
            &post,
            "/v1/broker/evidence".into(),
            json(format!("{{\"broker\":\"{id}\",\"challenge\":\"{id}\"}}")),
            503,
            "coordinator.starting",
        ),
        (
            &post,
            "/v1/broker/answers".into(),
            json(format!("{{\"challenge\":\"{id}\",\"evidence\":\"AAAA\"}}")),
            404,
            "broker.request-unknown",
        ),
    ];
    for (method, path, body, status, expected) in cases {
        assert_eq!(send(&ours, method.clone(), &path, body).await, (status, expected.to_owned()), "{method} {path}");
    }
    // After all that, it still works.
    upload(&ours, 100).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_statements() {
    let world = World::new(Config::default());
    let running = world.start();
    let (requester, other, node) = (Party::new(1), Party::new(5), world.node(2));
    let (ours, others, theirs) = (running.client(&requester), running.client(&other), running.client(&node.party));
    let blob = upload(&ours, 100).await;
    let request = |envelope: Envelope| SubmitRequest { spec: envelope, deposit: None, objects: Vec::new() };
    let good = sign(world.spec(&requester, &blob), &requester);

    // Signed by the right key, sent by another identity.
    assert_eq!(code(others.submit(&request(good.envelope().clone())).await), "identity.forbidden");
    // One bit of payload or signature.
    let mut altered: serde_json::Value = serde_json::from_slice(&good.envelope().encode()).unwrap();
    let payload = altered["payload"].as_str().unwrap().to_owned();
    altered["payload"] = format!("{}A{}", &payload[..100], &payload[101..]).into();
    let altered = serde_json::from_value::<Envelope>(altered).unwrap();
    assert_eq!(code(ours.submit(&request(altered)).await), "statement.bad-signature");
    // Another key's signature under the requester's name.
    let mut forged: serde_json::Value = serde_json::from_slice(&good.envelope().encode()).unwrap();
    let foreign = sign(world.spec(&other, &blob), &other);
    let foreign_json: serde_json::Value = serde_json::from_slice(&foreign.envelope().encode()).unwrap();
    forged["signatures"] = foreign_json["signatures"].clone();
    assert_eq!(code(ours.submit(&request(serde_json::from_value(forged).unwrap())).await), "statement.bad-signature");
    // Another kind of statement.
    let cancel = world::cancel(&good, &requester).cancel;
    assert_eq!(code(ours.submit(&request(cancel)).await), "statement.wrong-type");
    // Another network, an expired spec, blobs that are not there or of another length.
    let mut spec = world.spec(&requester, &blob);
    spec.network = NetworkId([9; 32]);
    assert_eq!(code(ours.submit(&request(sign(spec, &requester).into_envelope())).await), "network.other");
    let mut spec = world.spec(&requester, &blob);
    spec.created_at.0 -= 100_000;
    spec.expires_at.0 = spec.created_at.0 + 1;
    assert_eq!(code(ours.submit(&request(sign(spec, &requester).into_envelope())).await), "spec.expired");
    let mut spec = world.spec(&requester, &blob);
    spec.inputs = vec![starminer_receipt::ObjectRef { content_id: Digest([8; 32]), ..blob }];
    assert_eq!(code(ours.submit(&request(sign(spec, &requester).into_envelope())).await), "submit.blob-missing");
    let mut spec = world.spec(&requester, &blob);
    spec.workload.sealed_bytes += 1;
    assert_eq!(code(ours.submit(&request(sign(spec, &requester).into_envelope())).await), "blob.size");

    // The same task id with another spec.
    ours.submit(&request(good.envelope().clone())).await.unwrap();
    let mut spec = world.spec(&requester, &blob);
    spec.task = good.task;
    assert_eq!(code(ours.submit(&request(sign(spec, &requester).into_envelope())).await), "task.conflict");
    // To others the task does not exist.
    assert_eq!(code(others.task(&good.task, 0, 0).await), "task.unknown");
    assert_eq!(code(others.receipt(&good.task).await), "task.unknown");
    assert_eq!(code(others.cancel(&good.task, &world::cancel(&good, &requester)).await), "task.unknown");
    assert_eq!(code(ours.receipt(&TaskId([0; 16])).await), "task.unknown");

    // Admission: without a challenge, with another's, and twice with one.
    let evidence = |challenge| AdmissionRequest {
        evidence: Base64Bytes(node.admission_evidence(challenge)),
        enrolments: Vec::new(),
        activation: None,
    };
    assert_eq!(code(theirs.admit(&evidence(Challenge([1; 32]))).await), "admission.challenge");
    theirs.admission_challenge().await.unwrap();
    assert_eq!(code(theirs.admit(&evidence(Challenge([1; 32]))).await), "evidence.challenge");
    let challenge = theirs.admission_challenge().await.unwrap().challenge;
    others.admission_challenge().await.unwrap();
    assert_eq!(code(others.admit(&evidence(challenge)).await), "evidence.challenge");
    theirs.admit(&evidence(challenge)).await.unwrap();
    assert_eq!(code(theirs.admit(&evidence(challenge)).await), "admission.challenge");
    theirs.admission_challenge().await.unwrap();
    let garbage = AdmissionRequest { evidence: Base64Bytes(b"{}".to_vec()), enrolments: Vec::new(), activation: None };
    assert_eq!(code(theirs.admit(&garbage).await), "evidence.malformed");
    // Its own bad evidence takes a node out; good evidence takes it in again.
    let offer = starminer_wire::NodeFeedRequest {
        epoch: 0,
        after: 0,
        wait_ms: 0,
        free_places: 1,
        boot: node.boot,
        holds: Vec::new(),
        unclean: false,
    };
    assert_eq!(code(theirs.node_feed(&offer).await), "node.not-admitted");
    node.admit(&theirs).await;

    // Evidence that is none, and steps out of turn or by others.
    let views = node.poll(&theirs, 1, 1000).await;
    let mut life = Life::begin(&good, &views[0], &requester, &node);
    life.make_challenge();
    assert_eq!(code(life.attest(&theirs).await), "attempt.wrong-state");
    assert_eq!(code(life.challenge(&others).await), "identity.forbidden");
    life.challenge(&ours).await.unwrap();
    let request =
        starminer_wire::EvidenceRequest { evidence: Base64Bytes(b"not evidence".to_vec()), enrolments: Vec::new() };
    assert_eq!(code(theirs.evidence(&life.task(), life.attempt(), &request).await), "evidence.malformed");
    assert_eq!(code(life.attest(&others).await), "identity.forbidden");
    life.attest(&theirs).await.unwrap();
    assert_eq!(code(life.release(&ours, 1 << 40).await), "log.size-unknown");
    assert_eq!(ours.task(&good.task, 0, 0).await.unwrap().state, TaskState::Attested, "a bad size takes nothing");
    life.release(&ours, 0).await.unwrap();
    life.grant(&ours).await.unwrap();
    let mut predicate = life.predicate(starminer_receipt::ReportAuthor::Task, starminer_receipt::Outcome::Completed);
    predicate.outputs = vec![starminer_receipt::ObjectRef { content_id: Digest([7; 32]), ..blob }];
    assert_eq!(code(life.report(&theirs, &life.report_request(predicate)).await), "report.blob-missing");
    life.complete(&theirs).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn without_the_proof_of_the_connection_nothing_is_answered() {
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use starminer_tls::{Connector, PeerIdentity, RotatingCertificate, Rotation, Side, SystemClock};
    use std::sync::Arc;

    let world = World::new(Config::default());
    let running = world.start();
    let party = Party::new(1);
    let now = world::now().as_seconds();
    let certificate = RotatingCertificate::new(party.identity.clone(), Side::Client, Rotation::default(), now).unwrap();
    let connector = Connector::new(Arc::new(certificate), Arc::new(SystemClock));
    let server = PeerIdentity(world.coordinator.key().0);
    let connect = async || connector.connect(running.address, server).await.unwrap();
    let elsewhere = connect().await.session().prove(&party.identity).unwrap();
    let connection = connect().await;
    let good = connection.session().prove(&party.identity).unwrap();
    let (mut sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await.unwrap();
    let driver = tokio::spawn(driver);
    for (proof, expected) in [
        (None, "tls.channel-binding.malformed"),
        (Some("abc".to_owned()), "tls.channel-binding.malformed"),
        (Some("ab".repeat(64)), "tls.channel-binding.invalid"),
        (Some(elsewhere.to_string()), "tls.channel-binding.invalid"),
        (Some(good.to_string()), ""),
        // Proven once, the connection stays proven.
        (None, ""),
    ] {
        let mut request = hyper::Request::get("https://coordinator/v1/network");
        if let Some(proof) = &proof {
            request = request.header(starminer_wire::CHANNEL_BINDING_HEADER, proof);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if expected.is_empty() {
            assert_eq!(status, 200);
        } else {
            let problem: Problem = serde_json::from_slice(&body).unwrap();
            assert_eq!((status, problem.code.as_str()), (401, expected), "{proof:?}");
        }
    }
    drop(sender);
    let _ = driver.await;
    running.stop().await.unwrap();
}

/// An upload that is cut off goes on where it stopped, after a kill too; what is not the content is removed.
#[tokio::test]
async fn uploads_resume() {
    let world = World::new(Config::default());
    let mut running = world.start();
    let party = Party::new(1);
    let mut ours = running.client(&party);
    let bytes: Bytes =
        (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>().into();
    let id = Digest(*blake3::hash(&bytes).as_bytes());
    let path = |offset: u64| format!("/v1/blobs/{id}?offset={offset}&total={}", bytes.len());
    // The body ends early.
    let part = RequestBody::Bytes(bytes.slice(..1_000_000));
    assert_eq!(send(&ours, Method::PUT, &path(0), part).await.0, 200);
    let status = ours.blob_status(&id).await.unwrap();
    assert_eq!((status.stored_bytes, status.complete), (1_000_000, false));
    // To others it is not there.
    let other = running.client(&Party::new(5));
    assert_eq!(other.blob_status(&id).await.unwrap().stored_bytes, 0);
    assert_eq!(send(&ours, Method::PUT, &path(0), RequestBody::Empty).await, (409, "blob.wrong-offset".into()));
    running.kill();
    running = world.start();
    ours = running.client(&party);
    assert_eq!(ours.blob_status(&id).await.unwrap().stored_bytes, 1_000_000);
    let part = RequestBody::Bytes(bytes.slice(1_000_000..2_500_000));
    assert_eq!(send(&ours, Method::PUT, &path(1_000_000), part).await.0, 200);
    ours.upload(&id, bytes.len() as u64, UploadSource::Bytes(bytes.clone()), |_| {}).await.unwrap();
    assert!(ours.blob_status(&id).await.unwrap().complete);
    // Complete for everybody, and again is the same as once.
    let other = running.client(&Party::new(5));
    other.upload(&id, bytes.len() as u64, UploadSource::Bytes(bytes.clone()), |_| {}).await.unwrap();

    let read = async |range: &'static str| {
        let headers = [(RANGE, HeaderValue::from_static(range))];
        let path = format!("/v1/blobs/{id}");
        let response = other
            .transport()
            .request(Method::GET, &path, &headers, RequestBody::Empty, Duration::from_secs(5))
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, other.transport().read_limited(response, 4 << 20, Duration::from_secs(5)).await.unwrap())
    };
    assert_eq!(read("bytes=2999990-").await, (206, bytes.slice(2_999_990..)));
    assert_eq!(read("bytes=1000-1999").await, (206, bytes.slice(1000..2000)));
    assert_eq!(read("bytes=1000-99999999").await, (206, bytes.slice(1000..)));
    for bad in ["bytes=3000000-", "bytes=5-4", "bytes=-5", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4"] {
        assert_eq!(read(bad).await.0, 400, "{bad}");
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn limits_of_an_identity() {
    let mut config = Config::default();
    config.identity.open_tasks = 2;
    config.identity.largest_blob_bytes = 200_000;
    config.identity.blob_bytes = 300_000;
    config.identity.partial_uploads = 2;
    config.waits.body_idle_ms = 3_000;
    let world = World::new(config);
    let running = world.start();
    let party = Party::new(1);
    let ours = running.client(&party);
    let blob = upload(&ours, 100).await;
    for _ in 0..2 {
        submit(&ours, world.spec(&party, &blob), &party).await;
    }
    let spec = sign(world.spec(&party, &blob), &party);
    let request = SubmitRequest { spec: spec.into_envelope(), deposit: None, objects: Vec::new() };
    assert_eq!(code(ours.submit(&request).await), "task.too-many-open");
    let put = |seed: u8, total: u64| format!("/v1/blobs/{}?offset=0&total={total}", Digest([seed; 32]));
    let part = || RequestBody::Bytes(Bytes::from_static(&[1; 10]));
    assert_eq!(send(&ours, Method::PUT, &put(1, 200_001), part()).await, (413, "blob.too-large".into()));
    upload(&ours, 150_000).await;
    assert_eq!(send(&ours, Method::PUT, &put(4, 150_000), part()).await, (429, "blob.quota".into()));
    assert_eq!(send(&ours, Method::PUT, &put(1, 100_000), part()).await.0, 200);
    assert_eq!(send(&ours, Method::PUT, &put(2, 100_000), part()).await.0, 200);
    assert_eq!(send(&ours, Method::PUT, &put(3, 100_000), part()).await, (429, "blob.too-many-partial".into()));

    // A body that never goes on: ended after the idle time, what came is kept.
    let other = running.client(&Party::new(5));
    let (pieces, receiver) = tokio::sync::mpsc::channel(4);
    pieces.send(Ok(Bytes::from(vec![7; 1000]))).await.unwrap();
    let stalled = send(&other, Method::PUT, &put(6, 100_000), RequestBody::Stream(receiver)).await;
    assert_eq!(stalled, (400, "body.timeout".into()));
    assert_eq!(other.blob_status(&Digest([6; 32])).await.unwrap().stored_bytes, 1000);
    // A body without end: cut at the announced length.
    let (pieces, receiver) = tokio::sync::mpsc::channel(4);
    let endless = tokio::spawn(async move { while pieces.send(Ok(Bytes::from(vec![7; 50_000]))).await.is_ok() {} });
    let cut = send(&other, Method::PUT, &put(7, 100_000), RequestBody::Stream(receiver)).await;
    assert_eq!(cut, (413, "blob.too-long".into()));
    endless.await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_flood_is_slowed_down_for_the_identity_that_floods() {
    let mut config = Config::default();
    config.identity.requests_per_second = 1;
    config.identity.request_burst = 20;
    let world = World::new(config);
    let running = world.start();
    let (ours, others) = (running.client(&Party::new(1)), running.client(&Party::new(5)));
    let mut refused = 0;
    for _ in 0..40 {
        let answer = send(&ours, Method::GET, "/v1/network", RequestBody::Empty).await;
        assert!(answer == (200, String::new()) || answer == (429, "rate.requests".into()), "{answer:?}");
        refused += u32::from(answer.0 == 429);
    }
    assert!(refused >= 10, "{refused} of 40");
    assert_eq!(send(&others, Method::GET, "/v1/network", RequestBody::Empty).await.0, 200);
    running.stop().await.unwrap();
}
