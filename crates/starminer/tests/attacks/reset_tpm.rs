//! Somebody resets the TPM while a task runs, to measure into it what was never started: the receipt is refuted (`tpm.reset-count`).

use starminer_receipt::{ClaimVerdict, Overall};
use starminer_verify::{OperatorMayReadMemory, Policy, Tier};

use crate::emulator::Swtpm;
use crate::support::{example, runtime};
use crate::with_tpm::network_with;

#[test]
fn a_tpm_that_was_reset_during_the_run_refutes_the_receipt() {
    let Some(mut tpm) = Swtpm::start() else { return };
    let network = network_with(&tpm);
    network.start_process("node");
    runtime().block_on(async {
        let requester = network.requester("requester");
        let mut job = network.wasm_job(example("runaway/runaway.wasm"), &[]);
        let mut fields = job.policy.fields().clone();
        (fields.minimum_tier, fields.operator_may_read_memory) = (Tier::Identified, OperatorMayReadMemory::Yes);
        job.policy = Policy::new(fields).unwrap();
        (job.limits.wall_limit_ms, job.limits.fuel) = (3_000, u64::MAX / 2);

        // Left alone, the same run is proven.
        for resets in [false, true] {
            let task = requester.submit(&job, None, None).await.unwrap();
            let ends = requester.wait(&task);
            let reset = async {
                tokio::task::block_in_place(|| network.wait_guest_runs("node"));
                if resets {
                    tpm.reset();
                }
            };
            let (view, ()) = tokio::join!(ends, reset);
            let out = network.path("requester").join(format!("out-{resets}"));
            let outcome = requester.collect(view.unwrap(), &out).await.unwrap();
            let verdict = &outcome.verdict;
            let closing = verdict.claims.iter().find(|claim| claim.name == "closing-evidence");
            let closing = closing.unwrap_or_else(|| panic!("{:#?}", verdict.claims));
            if resets {
                assert_eq!(verdict.overall(), Overall::Refuted, "{:#?}", verdict.claims);
                assert_eq!(closing.verdict, ClaimVerdict::Refuted);
                assert!(closing.statement.starts_with("tpm.reset-count: "), "{}", closing.statement);
            } else {
                assert_eq!(verdict.overall(), Overall::Proven, "{:#?}", verdict.claims);
            }
        }
    });
}
