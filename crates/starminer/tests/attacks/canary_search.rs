//! An operator searches every disk for plaintext and keys, while tasks run and after: finds nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data_encoding::{BASE64, HEXLOWER};
use starminer_receipt::Outcome;

use crate::support::{Network, example, runtime, search};

const CANARY: &[u8] = b"CANARY-e2e-seventeen-herons-over-the-weir";

#[test]
fn no_disk_ever_holds_plaintext_or_keys() {
    let network = Arc::new(Network::start(2));
    network.add_broker();
    let notes: Vec<u8> = [CANARY, b" and other words\n"].concat().repeat(2000);
    let done = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (network, done) = (Arc::clone(&network), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let hits = search(&network.operator_dirs(), &[CANARY.to_vec()]);
                assert!(hits.is_empty(), "during: {hits:?}");
                rounds += 1;
            }
            rounds
        })
    };
    let mut needles = vec![CANARY.to_vec(), CANARY.to_ascii_lowercase()];
    runtime().block_on(async {
        let requester = network.requester("requester");
        let broker = network.broker(&requester).await;
        for broker in [None, Some(broker)] {
            let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("notes.txt", notes.clone())]);
            let task = requester.submit(&job, None, broker).await.unwrap();
            for secret in requester.secrets_to_search_for(&task) {
                needles.push(HEXLOWER.encode(&secret).into_bytes());
                needles.push(BASE64.encode(&secret).into_bytes());
                needles.push(secret);
            }
            let view = requester.wait(&task).await.unwrap();
            let outcome = requester.collect(view, &network.path("requester").join("out")).await.unwrap();
            assert_eq!(outcome.outcome, Some(Outcome::Completed));
            let report = std::fs::read_to_string(network.path("requester").join("out/report.csv")).unwrap();
            assert!(report.contains("notes.txt"), "the task did read the notes");
        }
    });
    done.store(true, Ordering::Relaxed);
    assert!(watcher.join().unwrap() > 0, "the search ran while tasks did");
    let hits = search(&network.operator_dirs(), &needles);
    assert!(hits.is_empty(), "after: {hits:?}");
}
