//! A lease that expires while its node is out, and a node that finishes late: fenced, and the task completes once, elsewhere.

use starminer_receipt::EntryKind;
use starminer_wire::TaskState;

use crate::support::guests::counts_then_writes;
use crate::support::{Network, example, runtime};
use crate::{completed, entries};

#[test]
fn a_late_node_is_fenced_and_the_task_completes_elsewhere() {
    let network = Network::with_limits(&[(&["waits", "report_margin_ms"], 300)]);
    network.add_node("node1");
    network.init_node("node2");
    runtime().block_on(async {
        let requester = network.requester("requester");
        let out = |name: &str| network.path("requester").join(name);
        let mut slow = network.wasm_job(counts_then_writes(1_500_000_000, 1), &[]);
        slow.limits.wall_limit_ms = 10_000;
        let task = requester.submit(&slow, None, None).await.unwrap();
        tokio::task::block_in_place(|| {
            network.wait_guest_runs("node1");
            // Its guest goes on and ends; nobody hears of it.
            network.pause("node1");
            network.start_process("node2");
        });
        let view = requester.wait(&task).await.unwrap();
        assert_eq!((view.state, view.attempt.unwrap().0), (TaskState::Completed, 2));
        let second = view.node.unwrap();

        // The first node comes back with a report of its own: nothing changes.
        network.resume("node1");
        let before = requester.client().receipt(&task).await.unwrap();
        let outcome = requester.collect(view, &out("slow")).await.unwrap();
        completed(&outcome);
        assert_eq!(entries(&outcome, EntryKind::Leased).len(), 2);
        assert_eq!(outcome.verdict.node, Some(second));

        // It is a node like any other again, and by then has been told that its attempt is over.
        network.kill("node2");
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"words".to_vec())]);
        let next = requester.run(&job, &out("next")).await.unwrap();
        completed(&next);
        assert_ne!(next.verdict.node, Some(second));
        let after = requester.client().receipt(&task).await.unwrap();
        assert_eq!((before.report, before.entries.len()), (after.report, after.entries.len()));
    });
}
