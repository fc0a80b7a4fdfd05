//! Disks that fill, a node's, the coordinator's and the requester's: said with a code, nothing that was acknowledged is lost, and when there is room again
//! everything goes on.

use hyper::Method;
use starminer_client::RequestBody;
use starminer_requester::random_bytes;
use starminer_verify::{Digest, Party};
use starminer_wire::{Problem, TaskState};

use crate::homes::{User, json, refused};
use crate::support::guests::counts_then_writes;
use crate::support::{Network, SmallDisk, example, runtime, text};
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

/// A requester's disk is nobody else's fault: it is said which one is full, nothing is lost, and what it says to do works.
#[test]
fn a_full_requester_blames_no_node_and_loses_nothing() {
    const WRITTEN: u32 = 64 * (64 << 10);
    let network = Network::start(1);
    let user = User::of(&network);
    let place = |name: &str| user.home.join(name);
    let Some(staging) = SmallDisk::over(&place("staging"), 2) else { return };
    let wasm = user.file("guest.wasm", &counts_then_writes(1, WRITTEN >> 16));
    let large = user.file("large", &random_bytes::<1024>().repeat(8 << 10));
    let own_fault = |output: &std::process::Output, check: &str| {
        let said = refused(output, 5, check);
        let error = json(output)["error"].clone();
        assert_eq!((&error["check"], &error["party"]), (&check.into(), &"requester".into()), "{said}");
        said
    };
    let run = |more: &[&str]| {
        let args = user.run_args(&wasm, &place("out")).into_iter().chain(["--json".into()]);
        crate::support::starminer(args.chain(more.iter().map(|word| (*word).into())))
    };
    own_fault(&run(&["-i", &text(&large)]), "home.io");
    assert!(user.tasks().is_empty(), "nothing was sent");

    let journals = SmallDisk::over(&place("journal"), 1).unwrap();
    journals.fill();
    own_fault(&run(&[]), "journal.io");
    assert!(user.tasks().is_empty());
    drop(journals);

    // The node did its work; each of the disks that its output passes is full in turn.
    own_fault(&run(&[]), "home.io");
    let task = user.tasks()[0]["task"].as_str().unwrap().to_owned();
    let result = |dir: &str| user.with_home(&["result", &task, "-o", &text(&place(dir))]);
    drop(staging);
    let disk = SmallDisk::over(&place("small"), 2).unwrap();
    let said = own_fault(&result("small"), "result.io");
    assert!(said.contains("starminer result TASK -o DIR"), "{said}");
    let left = crate::support::files_below(&[place("small")]);
    assert_eq!(left, [place("small").join(format!("{task}.receipt"))], "no half of an output");
    disk.fill();
    own_fault(&result("small"), "receipt.unwritable");
    assert!(result("elsewhere").status.success());
    assert_eq!(std::fs::metadata(place("elsewhere").join("big.bin")).unwrap().len(), u64::from(WRITTEN));
    assert!(user.tasks().is_empty());
}
