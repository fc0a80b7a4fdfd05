//! Recorded requests are sent again, by the same identity, another identity, or after the task has ended: nothing changes, or refused.

use starminer_client::ClientError;
use starminer_receipt::{Envelope, Outcome, Receipt, TaskSpec};
use starminer_verify::Attempt;
use starminer_wire::{ChallengeRequest, EvidenceRequest, GrantRequest, ReleaseRequest, ReportRequest, SubmitRequest};

use crate::support::{Network, example, runtime};

#[test]
fn replayed_statements_change_nothing() {
    let network = Network::start(1);
    runtime().block_on(async {
        let requester = network.requester("requester");
        let out = network.path("requester").join("out");
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"some words".to_vec())]);
        let outcome = requester.run(&job, &out).await.unwrap();
        assert_eq!(outcome.outcome, Some(Outcome::Completed));
        let receipt = Receipt::parse(&std::fs::read(&outcome.receipt_path).unwrap()).unwrap();
        let (task, attempt) = (outcome.task, Attempt(1));
        let (_, stranger) = network.home("requester-stranger");
        let stranger = network.client(&stranger);
        let before = requester.client().receipt(&task).await.unwrap();

        let spec = SubmitRequest { spec: receipt.spec.clone(), deposit: None, objects: Vec::new() };
        let view = requester.client().submit(&spec).await.unwrap();
        assert!(view.state.is_final(), "the same spec again is the same task, which has ended");
        assert!(matches!(stranger.submit(&spec).await, Err(ClientError::Refused { .. })), "another identity's spec");

        for client in [requester.client(), &stranger] {
            let challenge = ChallengeRequest { challenge: receipt.challenge.clone().unwrap() };
            let release = ReleaseRequest { release: receipt.release.clone().unwrap(), remembered_size: 0 };
            let grant = GrantRequest {
                grant: receipt.grant.clone().unwrap(),
                attestation_result: receipt.attestation_result.clone().unwrap(),
            };
            let evidence = EvidenceRequest { evidence: receipt.evidence.clone().unwrap(), enrolments: Vec::new() };
            let report = ReportRequest {
                report: receipt.report.clone().unwrap(),
                agent_statement: receipt.agent_statement.clone(),
                closing_evidence: receipt.closing_evidence.clone(),
            };
            // Refused or answered as before; either way the state below is the same.
            let _ = client.challenge(&task, attempt, &challenge).await;
            let _ = client.release(&task, attempt, &release).await;
            let _ = client.grant(&task, attempt, &grant).await;
            assert!(client.evidence(&task, attempt, &evidence).await.is_err(), "only the node may");
            assert!(client.report(&task, attempt, &report).await.is_err(), "only the node may");
        }
        assert!(stranger.receipt(&task).await.is_err(), "another identity sees nothing of the task");
        let after = requester.client().receipt(&task).await.unwrap();
        assert_eq!(before.entries.len(), after.entries.len(), "the log has no new entry of the task");

        // Evidence and grant of the first task, put into a second: a new challenge is out, so both are refused.
        let second = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"other words".to_vec())]);
        let second = requester.submit(&second, None, None).await.unwrap();
        let grant = GrantRequest {
            grant: receipt.grant.clone().unwrap(),
            attestation_result: receipt.attestation_result.clone().unwrap(),
        };
        assert!(requester.client().grant(&second, attempt, &grant).await.is_err(), "a grant of another task");
        let view = requester.wait(&second).await.unwrap();
        assert_eq!(view.state.name(), "completed");
        requester.collect(view, &out).await.unwrap();
        let spec = Envelope::open::<TaskSpec>(receipt.spec).unwrap();
        assert_eq!(spec.task, task);
    });
}
