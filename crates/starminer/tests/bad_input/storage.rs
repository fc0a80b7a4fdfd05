//! Disks that fill, a node's and the coordinator's: said with a code, nothing that was acknowledged is lost, and when there is room again
//! everything goes on.

use hyper::Method;
use starminer_client::RequestBody;
use starminer_requester::random_bytes;
use starminer_verify::{Digest, Party};
use starminer_wire::{Problem, TaskState};

use crate::support::guests::counts_then_writes;
use crate::support::{Network, SmallDisk, example, runtime};
use crate::{completed, failed};

#[test]
fn a_full_node_leaves_the_task_to_another() {
    let network = Network::coordinator_only();
    network.init_node("node1");
    let Some(_disk) = SmallDisk::over(&network.path("node1").join("data"), 3) else { return };
    network.start_process("node1");
    runtime().block_on(async {
        let requester = network.requester("requester");
        let out = |name: &str| network.path("requester").join(name);
        let input = random_bytes::<1024>().repeat(8 << 10);
        let mut large = network.wasm_job(example("empty/empty.wasm"), &[("large", input)]);
        large.max_attempts = 1;
        failed(&requester.run(&large, &out("inputs")).await.unwrap(), Party::Node, "node.storage-full");
        let mut writes = network.wasm_job(counts_then_writes(0, 200), &[]);
        writes.max_attempts = 1;
        failed(&requester.run(&writes, &out("scratch")).await.unwrap(), Party::Node, "node.storage-full");
        // What fits still runs here, and what does not runs where there is room.
        let small = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"words".to_vec())]);
        completed(&requester.run(&small, &out("small")).await.unwrap());
        network.add_node("node2");
        large.max_attempts = 5;
        completed(&requester.run(&large, &out("elsewhere")).await.unwrap());
    });
}

#[test]
fn a_full_coordinator_takes_nothing_and_loses_nothing() {
    let network = Network::prepared();
    let Some(disk) = SmallDisk::over(&network.path("coordinator").join("data"), 24) else { return };
    network.start_process("coordinator");
    network.add_node("node1");
    runtime().block_on(async {
        let requester = network.requester("requester");
        let out = |name: &str| network.path("requester").join(name);
        let client = requester.client();
        let put = async |bytes: Vec<u8>| {
            let id = Digest(*blake3::hash(&bytes).as_bytes());
            let path = format!("/v1/blobs/{}?offset=0&total={}", id.to_hex(), bytes.len());
            let patience = std::time::Duration::from_secs(30);
            let body = RequestBody::Bytes(bytes.into());
            let response = client.transport().request(Method::PUT, &path, &[], body, patience).await.unwrap();
            let answer = client.transport().read_limited(response, 1 << 16, patience).await.unwrap();
            serde_json::from_slice::<Problem>(&answer).map_or_else(|_| "stored".into(), |problem| problem.code)
        };
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"words".to_vec())]);
        let before = requester.run(&job, &out("before")).await.unwrap();
        completed(&before);

        // A task whose report comes while there is no room.
        let slow = network.wasm_job(counts_then_writes(1_500_000_000, 1), &[]);
        let task = requester.submit(&slow, None, None).await.unwrap();
        tokio::task::block_in_place(|| network.wait_guest_runs("node1"));
        disk.fill();
        assert_eq!(put(random_bytes::<1024>().repeat(1 << 10)).await, "storage.full", "a file");
        // Rows may find room in what the database holds already, but not for ever.
        let mut last = String::new();
        for _ in 0..400 {
            last = put(random_bytes::<1024>().repeat(60)).await;
            if last != "stored" {
                break;
            }
        }
        assert_eq!(last, "storage.full", "a row");
        while network.guest_runs("node1") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // What was acknowledged is there, and can be read.
        client.network().await.unwrap();
        assert!(client.receipt(&before.task).await.unwrap().report.is_some());
        assert_eq!(client.task(&task, 0, 0).await.unwrap().state, TaskState::Granted);

        disk.free();
        let view = requester.wait(&task).await.unwrap();
        completed(&requester.collect(view, &out("slow")).await.unwrap());
        completed(&requester.run(&job, &out("after")).await.unwrap());
        network.restart("coordinator");
        completed(&requester.run(&job, &out("again")).await.unwrap());
    });
}
