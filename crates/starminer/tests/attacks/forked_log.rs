//! A coordinator shows a requester a log that does not continue the one it showed before: nothing more is released, the fork is told.

use std::time::Duration;

use crate::evil::{Evil, Lie};
use crate::support::{Network, copy_dir, example, runtime};

/// An operator puts an older copy of a real coordinator's directory back: whoever saw more of its log does not go on with it.
#[test]
fn a_coordinator_that_was_put_back_is_refused_at_once() {
    runtime().block_on(async {
        let network = Network::start(1);
        let job = network.wasm_job(example("empty/empty.wasm"), &[]);
        let out = network.path("requester").join("out");
        let requester = network.requester("requester");
        requester.run(&job, &out).await.unwrap();
        network.kill("coordinator");
        let (own, older) = (network.path("coordinator"), network.path("older"));
        copy_dir(&own, &older);
        network.start_process("coordinator");
        for _ in 0..3 {
            requester.run(&job, &out).await.unwrap();
        }
        drop(requester);
        network.kill("coordinator");
        std::fs::remove_dir_all(&own).unwrap();
        std::fs::rename(&older, &own).unwrap();
        network.start_process("coordinator");

        let requester = network.requester("requester");
        let run = tokio::time::timeout(Duration::from_secs(60), requester.run(&job, &out));
        let told = run.await.expect("it is told before any lease is over").unwrap_err().to_string();
        assert!(told.contains("log.rolled-back"), "{told}");
    });
}

#[test]
fn a_receipt_under_another_history_is_refused() {
    runtime().block_on(async {
        let evil = Evil::start(Lie::ForkedReceipt).await;
        let dir = tempfile::tempdir().unwrap();
        let requester = evil.requester(dir.path());
        let out = dir.path().join("out");
        requester.run(&evil.job(), &out).await.expect("the first history is honest");
        let told = requester.run(&evil.job(), &out).await.unwrap_err().to_string();
        assert!(told.starts_with("log."), "{told}");
        let receipts = std::fs::read_dir(&out).unwrap().flatten();
        let receipts = receipts.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "receipt"));
        assert_eq!(receipts.count(), 1, "that of the first task");
    });
}

#[test]
fn a_fork_shows_and_stops_the_releaser() {
    runtime().block_on(async {
        let evil = Evil::start(Lie::Fork).await;
        let dir = tempfile::tempdir().unwrap();
        let requester = evil.requester(dir.path());
        let first = requester.submit(&evil.job(), None, None).await.unwrap();
        for _ in 0..500 {
            if evil.granted(&first) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(evil.granted(&first), "the first history is honest");
        let second = requester.submit(&evil.job(), None, None).await.unwrap();
        let told = tokio::time::timeout(Duration::from_secs(10), requester.wait(&second)).await.unwrap().unwrap_err();
        assert!(!evil.granted(&second));
        assert!(told.to_string().contains("log."), "{told}");
        drop(requester);

        // The memory outlives the process: started again, it still knows the first history.
        let again = evil.requester(dir.path());
        let told = tokio::time::timeout(Duration::from_secs(10), async {
            let third = again.submit(&evil.job(), None, None).await.unwrap();
            let told = again.wait(&third).await.unwrap_err();
            assert!(!evil.granted(&third));
            told
        })
        .await
        .unwrap();
        assert!(told.to_string().contains("log."), "{told}");
    });
}
