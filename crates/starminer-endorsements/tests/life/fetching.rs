//! Fetching: what makers publish, from servers that do as they should and from those that do not.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use rcgen::{CertificateParams, KeyPair};
use starminer_endorsements::{FetchError, Fetcher, HttpError, Limits, Politeness, ServerRoots};
use starminer_hardware::{
    dcap::{Quote, verify},
    endorsements::{Key, Marks, RimId, Snapshot, ocsp_request, take},
    snp::{self, Report},
};

use super::{
    maker::{Makers, NOW_S, PCK_CRL, QE_IDENTITY, ROOT_CRL, TCB_INFO, ages, fetcher, intel_wants, sources},
    server::{Reply, Server},
    time_and_chance::{TestClock, no_jitter},
};

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

#[tokio::test]
async fn what_is_fetched_verifies_quotes_and_reports() {
    let makers = Makers::start().await;
    let clock = TestClock::at(NOW_S);
    let fetcher = makers.fetcher(&clock);
    let mut candidates = Vec::new();
    for key in makers.keys() {
        candidates.push(fetcher.fetch(&key, None).await.unwrap());
    }
    assert!(candidates.iter().all(|one| one.source.starts_with("http://127.0.0.1:")));
    let opened = take(&candidates, &Snapshot::default(), &mut Marks::none(), &makers.trust(), clock_s(&clock));
    assert!(opened.refused.is_empty(), "{:?}", opened.refused);

    let found = opened.snapshot.dcap(&intel_wants(), &ages(), clock_s(&clock));
    assert!(found.missing.is_empty());
    let quote = Quote::parse(&makers.intel.quote(&makers.intel.body())).unwrap();
    assert!(verify(&quote, &found.endorsements, &makers.intel.roots(), clock_s(&clock)).verified.is_some());

    let found = opened.snapshot.snp(&makers.amd_wants(), &ages(), clock_s(&clock));
    assert!(found.missing.is_empty());
    let report = Report::parse(&makers.amd.report(|_| {})).unwrap();
    let verification = snp::verify(&report, &found.certificates, &found.crls, &makers.amd.roots(), clock_s(&clock));
    assert!(verification.verified.is_some(), "{:#?}", verification.checks);
}

fn clock_s(clock: &TestClock) -> u64 {
    starminer_endorsements::Clock::now_s(clock)
}

#[tokio::test]
async fn every_answer_has_a_bound_and_an_end() {
    let server = Server::start().await;
    let whole = Duration::from_millis(1500);
    let limits = Limits { connect: whole, whole };
    let list = key("amd/crl/milan/vcek");
    let path = list.location().unwrap().path;
    for (reply, code) in [
        (Reply::Silence, "fetch.timeout"),
        (Reply::Half, "fetch.timeout"),
        (Reply::Endless, "fetch.too-large"),
        (Reply::Declared(1 << 40), "fetch.too-large"),
        (Reply::Garbage, "fetch.http"),
        (Reply::Close, "fetch.http"),
        (Reply::LongHead, "fetch.http"),
        (Reply::Full(200, vec![("content-encoding", "gzip".to_owned())], vec![0; 10]), "fetch.http"),
        (Reply::Full(302, vec![("location", "http://127.0.0.1:1/".to_owned())], Vec::new()), "fetch.status"),
        (Reply::status(404), "fetch.status"),
        (Reply::status(500), "fetch.status"),
        (Reply::Full(204, Vec::new(), Vec::new()), "fetch.status"),
    ] {
        // Each with gates of its own, so that no failure postpones the next.
        let clock = TestClock::at(NOW_S);
        let roots = ServerRoots::Web;
        let fetcher =
            Fetcher::new(sources(&server.base()), &roots, Politeness::default(), limits, clock, no_jitter()).unwrap();
        server.table.set(&path, reply.clone());
        let error = fetcher.fetch(&list, None).await.unwrap_err();
        assert_eq!(error.code(), code, "{reply:?}: {error}");
    }
    drop(server);
    let gone = sources("http://127.0.0.1:1");
    let error = fetcher(gone, &TestClock::at(NOW_S), &ServerRoots::Web).fetch(&list, None).await.unwrap_err();
    assert!(matches!(error, FetchError::Http(HttpError::Connect { .. })), "{error}");
}

#[tokio::test]
async fn an_answer_without_its_issuers_chain_is_none() {
    let makers = Makers::start().await;
    let clock = TestClock::at(NOW_S);
    for (at, path) in [(1, PCK_CRL), (2, TCB_INFO), (3, QE_IDENTITY)] {
        for headers in [
            vec![],
            vec![
                ("TCB-Info-Issuer-Chain", "%zz".to_owned()),
                ("SGX-PCK-CRL-Issuer-Chain", "%".to_owned()),
                ("SGX-Enclave-Identity-Issuer-Chain", "%1".to_owned()),
            ],
        ] {
            makers.server.table.set(path, Reply::Full(200, headers, b"{}".to_vec()));
            let error = makers.fetcher(&clock).fetch(&intel_wants().keys()[at], None).await.unwrap_err();
            assert_eq!(error.code(), "fetch.answer", "{error}");
        }
    }
}

#[tokio::test]
async fn a_host_is_asked_one_thing_at_a_time_with_a_pause_between() {
    let makers = Makers::start().await;
    let clock = TestClock::at(NOW_S);
    let fetcher = makers.fetcher(&clock);
    let keys = makers.keys();
    let all = futures_util::future::join_all(keys.iter().map(|key| fetcher.fetch(key, None))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(makers.server.table.most_at_once.load(Ordering::SeqCst), 1);
    let slept = clock.slept();
    assert_eq!(slept.len(), keys.len() - 1);
    assert!(slept.iter().all(|pause| *pause == Duration::from_secs(1)), "{slept:?}");
}

#[tokio::test]
async fn a_host_that_asks_for_patience_is_left_alone() {
    let makers = Makers::start().await;
    let clock = TestClock::at(NOW_S);
    let fetcher = makers.fetcher(&clock);
    let table = &makers.server.table;
    let root = Key::IntelRootCrl;
    let limited = |after: &str| Reply::Full(429, vec![("retry-after", after.to_owned())], Vec::new());
    let postponed = |error: FetchError| match error {
        FetchError::Postponed { left, .. } => left.as_secs(),
        other => panic!("{other}"),
    };
    table.set(ROOT_CRL, limited("120"));
    assert_eq!(fetcher.fetch(&root, None).await.unwrap_err().code(), "fetch.status");
    assert_eq!(table.count(), 1);
    // Nothing is asked, whatever it is.
    for key in makers.keys() {
        assert_eq!(postponed(fetcher.fetch(&key, None).await.unwrap_err()), 120);
    }
    clock.pass(Duration::from_secs(119));
    assert_eq!(postponed(fetcher.fetch(&root, None).await.unwrap_err()), 1);
    assert_eq!(table.count(), 0);
    clock.pass(Duration::from_secs(1));
    // Then waits double, as long as it fails, and end at the most that a host may ask for.
    table.set(ROOT_CRL, Reply::status(503));
    for wait_s in [10, 20, 40] {
        assert_eq!(fetcher.fetch(&root, None).await.unwrap_err().code(), "fetch.status");
        assert_eq!(postponed(fetcher.fetch(&root, None).await.unwrap_err()), wait_s);
        clock.pass(Duration::from_secs(wait_s));
    }
    table.set(ROOT_CRL, limited("99999999"));
    assert_eq!(fetcher.fetch(&root, None).await.unwrap_err().code(), "fetch.status");
    assert_eq!(postponed(fetcher.fetch(&root, None).await.unwrap_err()), 86_400);
    // A clock that jumps back does not make the wait longer.
    clock.go_back(Duration::from_secs(3600));
    makers.publish_intel();
    assert!(fetcher.fetch(&root, None).await.is_ok());
    // What there is not is no fault of the host.
    table.set(TCB_INFO, Reply::status(404));
    assert_eq!(fetcher.fetch(&intel_wants().keys()[2], None).await.unwrap_err().code(), "fetch.status");
    assert!(fetcher.fetch(&root, None).await.is_ok());
}

#[tokio::test]
async fn hosts_that_certificates_name_have_to_be_configured() {
    let makers = Makers::start().await;
    let fetcher = makers.fetcher(&TestClock::at(NOW_S));
    makers.server.table.set("/list.crl", Reply::ok("a list"));
    let candidate = fetcher.fetch(&key("tpm/crl/http://maker.example/list.crl"), None).await.unwrap();
    assert_eq!(candidate.content, b"a list");
    let port = makers.server.address.port();
    for other in
        [format!("tpm/crl/http://127.0.0.1:{port}/list.crl"), "tpm/authority/https://other.example/a".to_owned()]
    {
        let error = fetcher.fetch(&key(&other), None).await.unwrap_err();
        assert!(matches!(error, FetchError::NoPlace(_)), "{other}: {error}");
    }
    assert_eq!(makers.server.table.count(), 1);
}

#[tokio::test]
async fn manifests_and_states_of_nvidias() {
    let makers = Makers::start().await;
    let fetcher = makers.fetcher(&TestClock::at(NOW_S));
    let table = &makers.server.table;
    let rim = Key::NvidiaRim { id: RimId::new("NV_GPU_DRIVER_GH100_1.2.3").unwrap() };
    let answer =
        |id: &str, rim: &str| Reply::ok(format!("{{\"id\":\"{id}\",\"rim\":\"{rim}\",\"last_updated\":\"2026\"}}"));
    let path = "/v1/rim/NV_GPU_DRIVER_GH100_1.2.3";
    table.set(path, answer("NV_GPU_DRIVER_GH100_1.2.3", "PHg+"));
    assert_eq!(fetcher.fetch(&rim, None).await.unwrap().content, b"<x>");
    for bad in [answer("NV_GPU_DRIVER_GH100_1.2.4", "PHg+"), answer("NV_GPU_DRIVER_GH100_1.2.3", "!"), Reply::ok("<x>")]
    {
        table.set(path, bad);
        assert_eq!(fetcher.fetch(&rim, None).await.unwrap_err().code(), "fetch.answer");
    }
    let issuer = makers.amd.ark();
    let state = Key::NvidiaOcsp { issuer: issuer.fingerprint(), serial: vec![1, 2, 3] };
    assert!(matches!(fetcher.fetch(&state, None).await, Err(FetchError::NoIssuer)));
    table.count();
    table.set("/ocsp", Reply::ok("an answer"));
    let candidate = fetcher.fetch(&state, Some(issuer.der())).await.unwrap();
    assert_eq!((candidate.content.as_slice(), candidate.chain.as_deref()), (&b"an answer"[..], Some(issuer.der())));
    let asked = table.asked.lock().unwrap().pop().unwrap();
    assert_eq!(asked, ("/ocsp".to_owned(), ocsp_request(issuer, &[1, 2, 3]).unwrap()));
}

#[tokio::test]
async fn servers_are_known_by_their_roots() {
    let certified = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let at = |offset: i64| time::OffsetDateTime::from_unix_timestamp(NOW_S as i64 + offset).unwrap();
        (params.not_before, params.not_after) = (at(-1000), at(1000));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        (certificate.to_vec(), tokio_rustls::TlsAcceptor::from(Arc::new(config)))
    };
    let (root, acceptor) = certified("127.0.0.1");
    let server = Server::start_tls(acceptor).await;
    let list = key("amd/crl/milan/vcek");
    server.table.set(&list.location().unwrap().path, Reply::ok("a list"));
    let base = format!("https://{}", server.address);
    let fetch = |roots: ServerRoots, now_s: u64| {
        let (base, list) = (base.clone(), list.clone());
        async move { fetcher(sources(&base), &TestClock::at(now_s), &roots).fetch(&list, None).await }
    };
    let pinned = ServerRoots::Pinned(vec![root]);
    assert_eq!(fetch(pinned.clone(), NOW_S).await.unwrap().content, b"a list");
    assert_eq!(fetch(ServerRoots::Web, NOW_S).await.unwrap_err().code(), "fetch.connect");
    assert_eq!(fetch(pinned, NOW_S + 2000).await.unwrap_err().code(), "fetch.connect", "its certificate ended");
    let (other, _) = certified("127.0.0.1");
    assert_eq!(fetch(ServerRoots::Pinned(vec![other]), NOW_S).await.unwrap_err().code(), "fetch.connect");
    // Of another name.
    let (root, acceptor) = certified("other.example");
    let server = Server::start_tls(acceptor).await;
    let base = format!("https://{}", server.address);
    let other_name = fetcher(sources(&base), &TestClock::at(NOW_S), &ServerRoots::Pinned(vec![root]));
    assert_eq!(other_name.fetch(&list, None).await.unwrap_err().code(), "fetch.connect");
    // No certificate at all.
    let clock = TestClock::at(NOW_S);
    let roots = ServerRoots::Pinned(vec![b"nothing".to_vec()]);
    let made = Fetcher::new(sources(&base), &roots, Politeness::default(), Limits::default(), clock, no_jitter());
    assert!(made.is_err());
}
