//! A node whose lease expired reports all the same, as often as it likes: `lease.fenced`, and nothing changes.

use starminer_receipt::{Outcome, Overall};
use starminer_wire::TaskState;

use crate::evil_node::EvilNode;
use crate::support::{Network, example, files_below, runtime};

#[test]
fn a_late_report_counts_for_nothing() {
    let network = Network::with_limits(&[(&["waits", "report_margin_ms"], 1_000)]);
    runtime().block_on(async {
        let requester = network.requester("requester");
        let node = EvilNode::join(&network).await;
        let mut job = network.wasm_job(example("empty/empty.wasm"), &[]);
        (job.limits.wall_limit_ms, job.max_attempts) = (2_000, 1);
        let task = requester.submit(&job, None, None).await.unwrap();
        let granted = node.take(task).await;
        let produced = granted.produce(&[("result.txt", b"too late")]);
        node.upload(&produced.blobs[0]).await;

        // It says nothing until its time is over, and is honest then.
        let view = requester.wait(&task).await.unwrap();
        assert_eq!(view.state, TaskState::Failed);
        let before = requester.client().receipt(&task).await.unwrap();
        for _ in 0..2 {
            let report = node.request(&granted, &produced);
            assert_eq!(node.report(&granted, &report).await, Err("lease.fenced".into()));
        }
        let after = requester.client().receipt(&task).await.unwrap();
        assert_eq!((before.report, before.entries.len()), (after.report, after.entries.len()));

        let out = network.path("requester").join("out");
        let outcome = requester.collect(view, &out).await.unwrap();
        let Some(Outcome::Failed { refusal }) = &outcome.outcome else { panic!("{:?}", outcome.outcome) };
        assert_eq!(refusal.check(), "lease.expired");
        assert!(!refusal.remedy().is_empty());
        assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
        assert_eq!(files_below(&[out]), [outcome.receipt_path], "the receipt, and nothing else");
    });
}
