//! A node alters its outputs or lies in its report: refused by the coordinator, or refuted in the requester's receipt, or it does not
//! open; nothing of it is ever written as a result.

use std::path::Path;

use starminer_receipt::*;
use starminer_requester::{Requester, RequesterError, TaskOutcome, random_bytes};
use starminer_verify::{Digest, Party, Refusal, TaskId};
use starminer_wire::{ReportRequest, TaskState};

use crate::evil_node::EvilNode;
use crate::forged::{Granted, Produced, one_bit};
use crate::support::{Network, files_below, runtime, text};
use crate::world::key;

const OUTPUT: &[(&str, &[u8])] = &[("result.txt", b"forty-two")];

/// A requester, and a network whose only node is the attacker's.
struct Scene {
    network: Network,
    requester: Requester,
    node: EvilNode,
}

impl Scene {
    async fn new() -> Self {
        let network = Network::coordinator_only();
        let requester = network.requester("requester");
        let node = EvilNode::join(&network).await;
        Self { network, requester, node }
    }

    async fn task(&self) -> Granted {
        // What the program is does not matter: this node runs nothing.
        let job = self.network.wasm_job(b"\0asm\x01\0\0\0".to_vec(), &[("a", b"input".to_vec())]);
        let task = self.requester.submit(&job, None, None).await.unwrap();
        self.node.take(task).await
    }

    async fn collect(&self, task: TaskId, out: &Path) -> Result<TaskOutcome, RequesterError> {
        let view = self.requester.wait(&task).await.unwrap();
        self.requester.collect(view, out).await
    }

    /// Runs a task that ends with this report; what the requester makes of it, and what it wrote besides the receipt.
    async fn ends_with(
        &self,
        request: impl AsyncFnOnce(&Granted) -> ReportRequest,
    ) -> (Result<TaskOutcome, RequesterError>, Vec<String>) {
        let granted = self.task().await;
        let request = request(&granted).await;
        assert_eq!(self.node.report(&granted, &request).await, Ok(TaskState::Completed));
        let out = self.network.path("requester").join(granted.spec.task.to_string());
        let outcome = self.collect(granted.spec.task, &out).await;
        let written =
            files_below(&[out]).into_iter().map(|file| text(&file)).filter(|file| !file.ends_with(".receipt"));
        (outcome, written.collect())
    }

    async fn upload(&self, produced: &Produced) {
        for blob in &produced.blobs {
            self.node.upload(blob).await;
        }
    }
}

#[test]
fn the_coordinator_refuses_what_is_not_of_this_attempt() {
    runtime().block_on(async {
        let scene = Scene::new().await;
        let node = &scene.node;
        let (other, granted) = (scene.task().await, scene.task().await);
        let (theirs, ours) = (other.produce(OUTPUT), granted.produce(OUTPUT));
        scene.upload(&theirs).await;
        let honest = node.request(&granted, &ours);
        let altered = |change: &dyn Fn(&mut ReportPredicate)| {
            let mut predicate = granted.predicate(&ours, node.report_key.public_key());
            change(&mut predicate);
            node.request_of(&granted, predicate, &node.report_key)
        };

        // It reports an output and uploads none, or another one.
        assert_eq!(node.report(&granted, &honest).await, Err("report.blob-missing".into()));
        scene.upload(&ours).await;
        let mut longer = ours.objects[0];
        longer.sealed_bytes += 1;
        let cases: Vec<(&str, &str, ReportRequest)> = vec![
            ("another length", "blob.size", altered(&|report| report.outputs = vec![longer])),
            ("the report of another task", "statement.mismatch", node.request(&other, &theirs)),
            ("another task's spec", "statement.mismatch", altered(&|report| report.spec = other.spec.digest())),
            ("another evidence", "statement.mismatch", altered(&|report| report.evidence = Some(Digest([1; 32])))),
            ("no evidence", "statement.mismatch", altered(&|report| report.evidence = None)),
            ("another grant", "statement.mismatch", altered(&|report| report.grant = Some(other.grant.digest()))),
            ("an agent's success", "statement.mismatch", altered(&|report| report.author = ReportAuthor::Agent)),
            (
                "the requester's own word",
                "statement.mismatch",
                altered(&|report| report.author = ReportAuthor::Releaser),
            ),
            ("no word of the agent", "statement.mismatch", ReportRequest { agent_statement: None, ..honest.clone() }),
            (
                "the agent's word over another report",
                "statement.mismatch",
                ReportRequest { agent_statement: node.request(&other, &theirs).agent_statement, ..honest.clone() },
            ),
            (
                "another exit status than was countersigned",
                "statement.bad-signature",
                ReportRequest { agent_statement: honest.agent_statement.as_ref().map(one_bit), ..honest.clone() },
            ),
            (
                "a report that was altered after it was signed",
                "statement.bad-signature",
                ReportRequest { report: one_bit(&honest.report), ..honest.clone() },
            ),
            (
                "closing evidence that is none",
                "evidence.malformed",
                ReportRequest { closing_evidence: Some(b"{}".to_vec().into()), ..honest.clone() },
            ),
        ];
        for (what, code, request) in cases {
            assert_eq!(node.report(&granted, &request).await, Err(code.into()), "{what}");
        }
        let state = scene.requester.client().task(&granted.spec.task, 0, 0).await.unwrap().state;
        assert_eq!(state, TaskState::Granted, "none of it changed anything");

        // The control: the honest report is taken, proven, and opens.
        assert_eq!(node.report(&granted, &honest).await, Ok(TaskState::Completed));
        let out = scene.network.path("requester").join("out");
        let outcome = scene.collect(granted.spec.task, &out).await.unwrap();
        assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
        assert_eq!(std::fs::read(out.join("result.txt")).unwrap(), OUTPUT[0].1);
        // And another one after it comes too late, whatever it says.
        let second = altered(&|report| report.outputs.clear());
        assert_eq!(node.report(&granted, &second).await, Err("lease.fenced".into()));
    });
}

#[test]
fn what_the_evidence_does_not_bind_is_refuted() {
    runtime().block_on(async {
        let scene = Scene::new().await;
        let node = &scene.node;
        let stranger = key(99);
        let refuted = async |claim: &str, request: &dyn Fn(&Granted, &Produced) -> ReportRequest| {
            let (outcome, written) = scene
                .ends_with(async |granted| {
                    let produced = granted.produce(OUTPUT);
                    scene.upload(&produced).await;
                    request(granted, &produced)
                })
                .await;
            let outcome = outcome.unwrap();
            let found: Vec<_> =
                outcome.verdict.claims.iter().filter(|claim| claim.verdict == ClaimVerdict::Refuted).collect();
            assert!(found.iter().any(|found| found.name == claim), "{claim}: {found:#?}");
            assert!(written.is_empty() && outcome.outputs.is_empty(), "{claim}: {written:?}");
        };
        refuted("report", &|granted, produced| {
            node.request_of(granted, granted.predicate(produced, stranger.public_key()), &stranger)
        })
        .await;
        refuted("agent-statement", &|granted, produced| {
            let request = node.request(granted, produced);
            let statement = granted.agent_statement(request.report.digest(), &stranger);
            let statement = Envelope::sign(statement, &stranger).unwrap().into_envelope();
            ReportRequest { agent_statement: Some(statement), ..request }
        })
        .await;
        refuted("closing-evidence", &|granted, produced| {
            let request = node.request(granted, produced);
            ReportRequest { closing_evidence: Some(node.closing(granted, Digest([9; 32])).into()), ..request }
        })
        .await;
        refuted("inputs", &|granted, produced| {
            let mut predicate = granted.predicate(produced, node.report_key.public_key());
            predicate.workload = Some(Digest([8; 32]));
            node.request_of(granted, predicate, &node.report_key)
        })
        .await;
        refuted("inputs", &|granted, produced| {
            let mut predicate = granted.predicate(produced, node.report_key.public_key());
            predicate.inputs.clear();
            node.request_of(granted, predicate, &node.report_key)
        })
        .await;
    });
}

/// Its evidence arrives, and it fails before it hears so: it then signs with the key that its lease names. That it failed is proven by that,
/// and nothing else.
#[test]
fn a_node_can_fail_by_its_own_word_beside_its_evidence() {
    runtime().block_on(async {
        let scene = Scene::new().await;
        let mut job = scene.network.wasm_job(b"\0asm\x01\0\0\0".to_vec(), &[]);
        job.max_attempts = 1;
        let ends = async |key: &SigningKey| {
            let task = scene.requester.submit(&job, None, None).await.unwrap();
            let (spec, lease, ..) = scene.node.prove(task).await;
            let refusal = Refusal::new(Party::Node, "node.storage-full", "no room", "another node may have some");
            let predicate = ReportPredicate {
                author: ReportAuthor::Agent,
                signer: key.public_key(),
                network: spec.network,
                task,
                spec: spec.digest(),
                node: Some(lease.node),
                attempt: Some(lease.attempt),
                lease: Some(lease.digest()),
                evidence: None,
                grant: None,
                engine: None,
                workload: None,
                inputs: Vec::new(),
                outcome: Outcome::Failed { refusal },
                output_secret: None,
                outputs: Vec::new(),
                sealed_details: None,
                sandbox: Vec::new(),
                resumed: None,
            };
            let report = Envelope::sign(Report::new(predicate), key).unwrap().into_envelope();
            let request = ReportRequest { report, agent_statement: None, closing_evidence: None };
            scene.node.client.report(&task, lease.attempt, &request).await.unwrap();
            let out = scene.network.path("requester").join(task.to_string());
            scene.collect(task, &out).await.unwrap().verdict
        };
        let honest = ends(&scene.node.identity).await;
        assert_eq!(honest.overall(), Overall::Proven, "{:#?}", honest.claims);
        let report = honest.claims.iter().find(|claim| claim.name == "report").unwrap();
        assert_eq!((report.verdict, report.voucher), (ClaimVerdict::Proven, Voucher::Node));
        assert!(honest.claims.iter().any(|claim| claim.name == "evidence" && claim.verdict == ClaimVerdict::Proven));
        assert_eq!(ends(&key(98)).await.overall(), Overall::Refuted, "a stranger's word");
    });
}

#[test]
fn outputs_that_are_not_what_the_report_says_do_not_open() {
    runtime().block_on(async {
        let scene = Scene::new().await;
        let node = &scene.node;
        let other = scene.task().await;
        let others = other.produce(&[("result.txt", b"another task's result")]);
        scene.upload(&others).await;
        let fails = async |what: &str, code: &str, change: &dyn Fn(&Granted, &mut Produced)| {
            let (outcome, written) = scene
                .ends_with(async |granted| {
                    let mut produced = granted.produce(OUTPUT);
                    change(granted, &mut produced);
                    scene.upload(&produced).await;
                    node.request(granted, &produced)
                })
                .await;
            match outcome {
                Err(RequesterError::Outputs(error)) => assert_eq!(error.code(), code, "{what}"),
                other => panic!("{what}: {other:?}"),
            }
            assert!(written.is_empty(), "{what}: {written:?}");
        };
        let replace = |produced: &mut Produced, blob: Vec<u8>| {
            produced.objects[0].content_id = Digest(*blake3::hash(&blob).as_bytes());
            produced.objects[0].sealed_bytes = blob.len() as u64;
            produced.blobs[0] = blob;
        };
        fails("bytes that nobody sealed", "result.output", &|_, produced| {
            replace(produced, random_bytes::<300>().to_vec());
        })
        .await;
        fails("one bit of the ciphertext", "result.output", &|_, produced| {
            let mut blob = produced.blobs[0].clone();
            *blob.last_mut().unwrap() ^= 1;
            replace(produced, blob);
        })
        .await;
        fails("another output under the same digest", "result.contradiction", &|granted, produced| {
            let (_, blob) = granted.seal(&produced.secret, 0, b"forty-one");
            replace(produced, blob);
        })
        .await;
        fails("another digest", "result.contradiction", &|_, produced| {
            produced.objects[0].commitment = Digest([7; 32]);
        })
        .await;
        fails("another digest in the details", "result.contradiction", &|_, produced| {
            produced.details.outputs[0].sha256 = Digest::of(b"forty-one");
        })
        .await;
        fails("another length in the details", "result.contradiction", &|_, produced| {
            produced.details.outputs[0].plain_bytes += 1;
        })
        .await;
        fails("an output left out", "result.contradiction", &|_, produced| {
            produced.objects.clear();
            produced.blobs.clear();
        })
        .await;
        fails("another task's output, as that task names it", "result.contradiction", &|_, produced| {
            produced.objects = others.objects.clone();
        })
        .await;
        fails("another task's ciphertext under the own digest", "result.output", &|_, produced| {
            replace(produced, others.blobs[0].clone());
        })
        .await;
        fails("another task's secret", "result.secret", &|_, produced| {
            produced.sealed_secret = others.sealed_secret.clone();
        })
        .await;
        fails("a name that climbs", "result.name", &|_, produced| {
            produced.details.outputs[0].name = OutputName::File("../climbs.txt".into());
        })
        .await;
        assert!(!scene.network.path("requester").join("climbs.txt").exists());
    });
}
