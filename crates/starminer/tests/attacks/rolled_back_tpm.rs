//! Somebody puts an old state of an (emulated) TPM back under a node: refused as `node.rolled-back`, also by a coordinator that was started anew, and the log says so once;
//! with the newest state it is back.

use std::path::Path;

use crate::emulator::Swtpm;
use crate::support::watching::{admitted, log, suspensions};
use crate::support::{copy_dir, runtime};
use crate::with_tpm::network_with;

#[test]
fn an_old_state_of_a_tpm_is_refused_and_reported() {
    let Some(mut tpm) = Swtpm::start() else { return };
    let network = network_with(&tpm);
    let exchange = |from: &Path, to: &Path| {
        let _ = std::fs::remove_dir_all(to);
        copy_dir(from, to);
    };
    let [state, old, newest] = ["state", "old", "newest"].map(|name| tpm.dir.path().join(name));
    runtime().block_on(async {
        network.start_process("node");
        let requester = network.requester("requester");
        admitted(requester.client(), 1).await;
        network.kill("node");
        tpm.kill();
        exchange(&state, &old);

        // Two more starts, each honest.
        for _ in 0..2 {
            tpm.reset();
            network.start_process("node");
            network.kill("node");
        }
        tpm.kill();
        exchange(&state, &newest);
        let before = suspensions(&log(&network, requester.client()).await);
        assert!(!before.contains(&"node.rolled-back".to_owned()), "{before:?}");

        exchange(&old, &state);
        network.restart("coordinator");
        tpm.reset();
        network.launch("node");
        let refusals = || network.log("node").matches("node.rolled-back").count();
        tokio::task::block_in_place(|| network.wait_until("a second refusal", || refusals() >= 2));
        admitted(requester.client(), 0).await;
        network.kill("node");
        let entries = log(&network, requester.client()).await;
        let said = suspensions(&entries).into_iter().filter(|why| why == "node.rolled-back").count();
        assert_eq!(said, 1, "{entries:?}");

        tpm.kill();
        exchange(&newest, &state);
        tpm.reset();
        network.start_process("node");
        admitted(requester.client(), 1).await;
    });
}
