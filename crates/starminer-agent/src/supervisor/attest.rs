//! Evidence for bindings, one device signature for all that wait at the same time.
//!
//! A device signs one batch at a time, and what arrives meanwhile makes the next batch: a batch of one when the node is
//! idle, and under load no binding waits longer than one signature takes. The host's posture is read for each batch anew.

use std::sync::Arc;

use starminer_attester::{Attester, HostTree, MAX_ATTEST_BATCH, Note};
use starminer_verify::{Binding, Posture, PostureItem, SandboxMeasure};
use tokio::sync::{mpsc, oneshot};

use crate::error::with_causes;

/// Bindings that wait for the device at most; whoever comes then waits to be let in.
const QUEUE: usize = 1024;

/// No evidence was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no evidence was made: {0}")]
pub(crate) struct NoEvidence(String);

struct Request {
    binding: Binding,
    sandbox: Vec<PostureItem<SandboxMeasure>>,
    answer: oneshot::Sender<Result<Vec<u8>, NoEvidence>>,
}

/// Makes evidence. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Evidences {
    requests: mpsc::Sender<Request>,
}

impl Evidences {
    /// Starts the work on `device`. It ends with the last clone. Call within a tokio runtime.
    pub(crate) fn new(device: Arc<dyn Attester>, host: HostTree) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        tokio::spawn(serve(device, host, queue));
        Self { requests }
    }

    /// Evidence for `binding`, whose TPM key and posture are filled in here: the key that quotes, what is stated of the task's process, and what
    /// the host is seen to be at this moment.
    pub(crate) async fn make(
        &self,
        binding: Binding,
        sandbox: Vec<PostureItem<SandboxMeasure>>,
    ) -> Result<Vec<u8>, NoEvidence> {
        let gone = || NoEvidence("the device is gone".into());
        let (answer, made) = oneshot::channel();
        self.requests.send(Request { binding, sandbox, answer }).await.map_err(|_| gone())?;
        made.await.map_err(|_| gone())?
    }
}

async fn serve(device: Arc<dyn Attester>, host: HostTree, mut queue: mpsc::Receiver<Request>) {
    let mut waiting = Vec::new();
    let mut told = Vec::new();
    while queue.recv_many(&mut waiting, MAX_ATTEST_BATCH).await > 0 {
        let (asked, host, batch) = (Arc::clone(&device), host.clone(), std::mem::take(&mut waiting));
        // Devices block. A device that panics has no answers for this batch; the next one may fare better.
        let _ = tokio::task::spawn_blocking(move || attest_all(asked.as_ref(), &host, batch)).await;
        tell(device.notes(), &mut told);
    }
}

/// Says what evidence is made without, when that changes.
fn tell(notes: Vec<Note>, told: &mut Vec<Note>) {
    for note in notes.iter().filter(|note| !told.iter().any(|told| told.code == note.code && told.kind == note.kind)) {
        tracing::warn!(%note, code = note.code, "evidence is made without a part that was asked for");
    }
    *told = notes;
}

/// One signature for each posture among the requests: processes of one node mostly share theirs.
fn attest_all(device: &dyn Attester, host: &HostTree, mut requests: Vec<Request>) {
    let host = host.collect();
    while let Some(first) = requests.first() {
        let sandbox = first.sandbox.clone();
        let (batch, rest): (Vec<_>, Vec<_>) = requests.into_iter().partition(|request| request.sandbox == sandbox);
        requests = rest;
        let posture = match Posture::new(sandbox, host.clone()) {
            Ok(posture) => posture,
            Err(error) => {
                answer_all(batch, Err(NoEvidence(error.to_string())));
                continue;
            }
        };
        let digest = posture.digest();
        let ak_name = device.ak_name();
        let complete =
            |request: &Request| Binding { ak_name: ak_name.clone(), posture: digest, ..request.binding.clone() };
        let bindings: Vec<Binding> = batch.iter().map(complete).collect();
        match device.attest(&bindings, &posture) {
            Ok(evidence) => {
                for (request, evidence) in batch.into_iter().zip(evidence) {
                    // Whoever asked may have given up.
                    let _ = request.answer.send(Ok(evidence));
                }
            }
            Err(error) => answer_all(batch, Err(NoEvidence(with_causes(&error)))),
        }
    }
}

fn answer_all(batch: Vec<Request>, answer: Result<Vec<u8>, NoEvidence>) {
    for request in batch {
        let _ = request.answer.send(answer.clone());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use starminer_attester::{SimulatedRoot, SoftwareTee};
    use starminer_verify::software_tee::ChipId;
    use starminer_verify::{
        BootId, Challenge, Context, Digest, Endorsements, Enrolments, Evidence, Expect, Expected, ExpectedPurpose,
        NetworkId, NodeId, PostureState, PublicKey, Purpose, TrustAnchors, UnixTime, verify,
    };
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts signatures and takes its time for each.
    struct Slow {
        tee: SoftwareTee,
        signatures: AtomicUsize,
    }

    impl Attester for Slow {
        fn kind(&self) -> starminer_verify::EvidenceKind {
            self.tee.kind()
        }
        fn boot(&self) -> BootId {
            self.tee.boot()
        }
        fn attest(
            &self,
            bindings: &[Binding],
            posture: &Posture,
        ) -> Result<Vec<Vec<u8>>, starminer_attester::AttestError> {
            std::thread::sleep(std::time::Duration::from_millis(30));
            self.signatures.fetch_add(1, Ordering::SeqCst);
            self.tee.attest(bindings, posture)
        }
    }

    fn binding(challenge: u8) -> Binding {
        Binding {
            network: NetworkId([1; 32]),
            challenge: Challenge([challenge; 32]),
            purpose: Purpose::Admission,
            spec: None,
            node: NodeId(PublicKey([2; 32])),
            attempt: None,
            boot: BootId([3; 16]),
            task_key: None,
            report_key: None,
            agent_key: PublicKey([4; 32]),
            tls_key: PublicKey([5; 32]),
            ak_name: None,
            posture: Digest([0; 32]),
            subject: None,
        }
    }

    #[tokio::test]
    async fn what_waits_together_is_signed_together() {
        let root = SimulatedRoot::generate(&[1; 32]);
        let certificate =
            root.certify(&SoftwareTee::request(&[2; 32], ChipId([3; 32])), UnixTime(0), UnixTime(u64::MAX)).unwrap();
        let settings = crate::config::software_tee_settings(BootId([3; 16]), Digest([9; 32]));
        let tee = SoftwareTee::new(&[2; 32], certificate, settings).unwrap();
        let device = Arc::new(Slow { tee, signatures: AtomicUsize::new(0) });
        let evidences = Evidences::new(device.clone(), HostTree::machine());
        let item = PostureItem::new(SandboxMeasure::Seccomp, PostureState::InForce, "");

        let requests = (0..40).map(|challenge| {
            let (evidences, item) = (evidences.clone(), item.clone());
            tokio::spawn(async move { evidences.make(binding(challenge), vec![item]).await.unwrap() })
        });
        let requests: Vec<_> = requests.collect();
        for (challenge, request) in (0..40).zip(requests) {
            let evidence = Evidence::parse(&request.await.unwrap()).unwrap();
            let expected = Expected {
                network: NetworkId([1; 32]),
                challenge: Challenge([challenge; 32]),
                challenge_issued_at: UnixTime(5),
                purpose: ExpectedPurpose::Admission,
                node: NodeId(PublicKey([2; 32])),
                boot: Expect::Exactly(BootId([3; 16])),
                task_key: Expect::Any,
                report_key: Expect::Any,
                agent_key: Expect::Any,
                tls_key: Expect::Any,
                posture: Expect::Any,
            };
            let anchors = TrustAnchors::makers().with_simulated_roots([root.id()]).unwrap();
            let endorsements = Endorsements::none();
            let context = Context {
                expected,
                endorsements: &endorsements,
                trust_anchors: &anchors,
                enrolments: &Enrolments::none(),
                now: UnixTime(10),
            };
            let verified = verify(evidence, &context).unwrap();
            assert_eq!(verified.posture().sandbox_state(SandboxMeasure::Seccomp), PostureState::InForce);
        }
        let signatures = device.signatures.load(Ordering::SeqCst);
        assert!(signatures <= 4, "{signatures} signatures for 40 bindings");
    }
}
