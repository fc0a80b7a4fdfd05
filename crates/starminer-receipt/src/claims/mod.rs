//! Offline verification of a receipt: bytes, the verifier's own trust and a time in; claims out.
//!
//! Each claim has a verdict and names who vouches for it. *Proven* and *refuted* speak for themselves; *unanchored* is a
//! claim whose signatures hold but whose root the verifier's trust file does not name; *not claimed* is what the receipt does not
//! speak of. Nothing is skipped in silence: what could not be checked because an earlier part is broken is refuted with it.
//!
//! Time is the log's: evidence is judged at the log time of its release entry, and once more at the verifier's `now`.

mod attestation;
mod log;
mod report;

use std::fmt;

use starminer_verify::{Digest, NodeId, Provenance, Tier, UnixTime};

use crate::dsse::{Envelope, Signed, Statement, VerifiedEnvelopes};
use crate::endorsement_set::OpenedSet;
use crate::entry::EntryKind;
use crate::network::NetworkTrust;
use crate::receipt::Receipt;
use crate::report::Outcome;
use crate::spec::TaskSpec;
use crate::statements::Lease;
use attestation::Run;

/// What is known of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimVerdict {
    /// It holds.
    Proven,
    /// The receipt does not speak of it.
    NotClaimed,
    /// It would hold if a key counted that the verifier's trust does not name.
    Unanchored,
    /// It does not hold.
    Refuted,
}

impl ClaimVerdict {
    /// The name in JSON and on terminals.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::NotClaimed => "not-claimed",
            Self::Unanchored => "unanchored",
            Self::Refuted => "refuted",
        }
    }
}

/// Who vouches for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voucher {
    /// The requester's signature.
    Requester,
    /// The releaser's signature.
    Releaser,
    /// The coordinator's signature.
    Coordinator,
    /// The node's hardware, down to a root.
    Hardware,
    /// The attested task process.
    TaskProcess,
    /// The attested agent.
    Agent,
    /// The node's own key, which the lease names, before it had proven itself.
    Node,
    /// Whoever enrolled the node.
    Enroller,
    /// The public log.
    Log,
    /// Witnesses of the log.
    Witnesses,
    /// An EVM chain.
    Chain,
    /// The verifier's own trust file.
    Verifier,
    /// Nobody.
    Nobody,
}

impl Voucher {
    /// The name in JSON and on terminals.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Requester => "requester",
            Self::Releaser => "releaser",
            Self::Coordinator => "coordinator",
            Self::Hardware => "hardware",
            Self::TaskProcess => "task process",
            Self::Agent => "agent",
            Self::Node => "node",
            Self::Enroller => "enroller",
            Self::Log => "log",
            Self::Witnesses => "witnesses",
            Self::Chain => "chain",
            Self::Verifier => "your trust file",
            Self::Nobody => "nobody",
        }
    }
}

/// One claim of a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Stable name.
    pub name: &'static str,
    /// What is known.
    pub verdict: ClaimVerdict,
    /// Who vouches.
    pub voucher: Voucher,
    /// In words: what is claimed, or why it does not hold.
    pub statement: String,
}

/// The verdict over all claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overall {
    /// Every claim that is made is proven.
    Proven,
    /// At least one is unanchored, none refuted.
    Unanchored,
    /// At least one is refuted.
    Refuted,
}

impl Overall {
    /// The name in JSON and on terminals.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Unanchored => "unanchored",
            Self::Refuted => "refuted",
        }
    }
}

/// Whether evidence holds at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validity {
    /// It does.
    Valid,
    /// It does not, and why.
    Invalid(String),
}

/// What verification found.
#[derive(Debug, Clone)]
pub struct ReceiptVerdict {
    /// Every claim, in the order of a task's life.
    pub claims: Vec<Claim>,
    /// What stands behind the evidence; absent where there is none that verifies.
    pub provenance: Option<Provenance>,
    /// The tier that was reached.
    pub tier: Option<Tier>,
    /// The spec's digest, if the spec verifies.
    pub spec: Option<Digest>,
    /// The node.
    pub node: Option<NodeId>,
    /// How the task ended, as the report says.
    pub outcome: Option<Outcome>,
    /// Log time of the release entry.
    pub log_time: Option<UnixTime>,
    /// Whether the evidence held at that time.
    pub valid_then: Option<Validity>,
    /// Whether it holds now: certificates expire, so that this turns false with time.
    pub valid_now: Option<Validity>,
}

impl ReceiptVerdict {
    /// The verdict over all claims.
    #[must_use]
    pub fn overall(&self) -> Overall {
        match self.claims.iter().map(|claim| claim.verdict).max() {
            Some(ClaimVerdict::Refuted) | None => Overall::Refuted,
            Some(ClaimVerdict::Unanchored) => Overall::Unanchored,
            Some(ClaimVerdict::Proven | ClaimVerdict::NotClaimed) => Overall::Proven,
        }
    }

    /// Whether the receipt has to be shown as simulated: always, unless genuine evidence verified.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        !matches!(self.provenance, Some(Provenance::Genuine))
    }
}

/// Verifies a receipt. Without trust of the verifier's own, whatever needs a root is unanchored.
#[must_use]
pub fn verify_receipt(receipt: &Receipt, trust: Option<&NetworkTrust>, now: UnixTime) -> ReceiptVerdict {
    verify_receipt_remembering(receipt, trust, now, &mut VerifiedEnvelopes::default())
}

/// The same for a party to the task, which has verified or made some of the signatures itself: the verdict is the same, and `memory`
/// then has all of them that hold.
#[must_use]
pub fn verify_receipt_remembering(
    receipt: &Receipt,
    trust: Option<&NetworkTrust>,
    now: UnixTime,
    memory: &mut VerifiedEnvelopes,
) -> ReceiptVerdict {
    let mut verifier = Verifier {
        receipt,
        trust,
        now,
        memory,
        evidence_anchored: true,
        support: OpenedSet::empty(),
        verdict: ReceiptVerdict {
            claims: Vec::new(),
            provenance: None,
            tier: None,
            spec: None,
            node: None,
            outcome: None,
            log_time: None,
            valid_then: None,
            valid_now: None,
        },
    };
    verifier.run();
    verifier.verdict
}

struct Verifier<'a> {
    receipt: &'a Receipt,
    trust: Option<&'a NetworkTrust>,
    now: UnixTime,
    memory: &'a mut VerifiedEnvelopes,
    /// Whether every root that evidence chained to so far is one that the verifier names.
    evidence_anchored: bool,
    /// What evidence is verified with, as the receipt brings it along.
    support: OpenedSet,
    verdict: ReceiptVerdict,
}

impl Verifier<'_> {
    fn claim(&mut self, name: &'static str, verdict: ClaimVerdict, voucher: Voucher, statement: impl fmt::Display) {
        self.verdict.claims.push(Claim { name, verdict, voucher, statement: statement.to_string() });
    }

    /// Records a check; tells whether it held.
    fn check(&mut self, name: &'static str, voucher: Voucher, result: Result<String, String>) -> bool {
        let anchored = match voucher {
            Voucher::TaskProcess | Voucher::Agent => self.evidence_anchored,
            // A node's key counts because the coordinator's lease names it.
            Voucher::Coordinator | Voucher::Node => self.trust.is_some(),
            _ => true,
        };
        let (verdict, statement) = match result {
            Ok(statement) if anchored => (ClaimVerdict::Proven, statement),
            Ok(statement) => (ClaimVerdict::Unanchored, statement),
            Err(statement) => (ClaimVerdict::Refuted, statement),
        };
        self.claim(name, verdict, voucher, statement);
        verdict != ClaimVerdict::Refuted
    }

    fn open<T: Statement>(
        &mut self,
        name: &'static str,
        voucher: Voucher,
        envelope: Option<&Envelope>,
        links: impl FnOnce(&Signed<T>) -> Result<String, String>,
    ) -> Option<Signed<T>> {
        self.open_by(name, voucher, envelope, |_| voucher, links)
    }

    /// The same where the statement itself says who vouches for it.
    fn open_by<T: Statement>(
        &mut self,
        name: &'static str,
        unread: Voucher,
        envelope: Option<&Envelope>,
        voucher: impl FnOnce(&T) -> Voucher,
        links: impl FnOnce(&Signed<T>) -> Result<String, String>,
    ) -> Option<Signed<T>> {
        let Some(envelope) = envelope else {
            self.claim(name, ClaimVerdict::NotClaimed, unread, "not in this receipt");
            return None;
        };
        match envelope.clone().open_remembering::<T>(self.memory) {
            Ok(signed) => {
                let linked = links(&signed);
                self.check(name, voucher(&signed), linked).then_some(signed)
            }
            Err(error) => {
                self.claim(name, ClaimVerdict::Refuted, unread, error);
                None
            }
        }
    }

    fn run(&mut self) {
        let receipt = self.receipt;
        let Some(spec) = self.open::<TaskSpec>("spec", Voucher::Requester, Some(&receipt.spec), |spec| {
            Ok(format!("requester {} asked for task {} with engine {}", spec.requester, spec.task, spec.engine.name()))
        }) else {
            return;
        };
        self.verdict.spec = Some(spec.digest());
        self.network(&spec);
        let (checkpoint, entries) = self.log(&spec);
        self.logged("spec-logged", &entries, EntryKind::Submitted, spec.digest());

        let coordinator = self.trust.map(|trust| trust.coordinator.key);
        let lease = self.open::<Lease>("lease", Voucher::Coordinator, receipt.lease.as_ref(), |lease| {
            if lease.spec != spec.digest() || lease.task != spec.task || lease.network != spec.network {
                return Err("the lease is for another task".into());
            }
            if coordinator.is_some_and(|key| key != lease.coordinator) {
                return Err("the lease is signed by another coordinator than your trust file names".into());
            }
            Ok(format!("attempt {} was leased to node {}", lease.attempt, lease.node))
        });
        if let Some(lease) = &lease {
            self.verdict.node = Some(lease.node);
            self.logged("lease-logged", &entries, EntryKind::Leased, lease.digest());
        }
        let run = lease.as_ref().map(|lease| Run { spec: &spec, lease, entries: &entries });
        let evidence = run.as_ref().and_then(|run| self.attestation(run));
        let report = self.report(&spec, lease.as_ref(), &entries, evidence.as_ref());
        self.resume(&spec, lease.as_ref(), &entries, report.as_ref());
        self.ending(&spec, lease.as_ref(), &entries, evidence.as_ref(), report.as_ref());
        self.unexamined();
        self.left_out(&entries);
        self.order(&entries);
        self.witnesses(checkpoint.as_ref());
        self.claim("chain-anchor", ClaimVerdict::NotClaimed, Voucher::Chain, "no chain anchors this checkpoint");
        self.stamp();
    }

    fn network(&mut self, spec: &TaskSpec) {
        match self.trust {
            None => self.claim("network", ClaimVerdict::Unanchored, Voucher::Nobody, "no trust file was given"),
            Some(trust) if trust.network == spec.network => {
                let statement = format!("the network is {}, as your trust file has it", trust.name);
                self.claim("network", ClaimVerdict::Proven, Voucher::Verifier, statement);
            }
            Some(_) => {
                self.claim(
                    "network",
                    ClaimVerdict::Unanchored,
                    Voucher::Nobody,
                    "the receipt is of another network than your trust file, which says nothing of it then",
                );
                // Other keys in it are no contradiction: they are another network's.
                self.trust = None;
            }
        }
    }

    /// Refutes what the receipt has and no check came to: with the lease left out, anything could stand for the evidence.
    fn unexamined(&mut self) {
        let receipt = self.receipt;
        let examined = |verdict: &ReceiptVerdict, name| verdict.claims.iter().any(|claim| claim.name == name);
        let parts = [
            ("challenge", receipt.challenge.is_some()),
            ("evidence", receipt.evidence.is_some()),
            ("release", receipt.release.is_some()),
            ("grant", receipt.grant.is_some()),
            // The release examines it; it is no claim of its own.
            ("attestation-result", receipt.attestation_result.is_some() && receipt.release.is_none()),
        ];
        for (name, present) in parts {
            if present && !examined(&self.verdict, name) {
                let statement = "it is in this receipt, but what it rests on is missing or broken";
                self.claim(name, ClaimVerdict::Refuted, Voucher::Nobody, statement);
            }
        }
    }

    /// The stamp must not say less than the evidence.
    fn stamp(&mut self) {
        let simulated = self.verdict.is_simulated();
        let stamped = self.receipt.stamp == Receipt::SIMULATED;
        let result = match (simulated, stamped) {
            (true, true) => Ok("stamped SIMULATED: nothing here vouches for silicon".to_string()),
            (false, false) if self.receipt.stamp == Receipt::GENUINE => {
                Ok("the evidence chains to a maker's root".to_string())
            }
            _ => Err("the stamp says something else than the evidence".to_string()),
        };
        self.check("stamp", Voucher::Hardware, result);
    }
}
