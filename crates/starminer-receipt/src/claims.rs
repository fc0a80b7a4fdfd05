//! Offline verification of a receipt: bytes, the verifier's own trust and a time in; claims out.
//!
//! Each claim has a verdict and names who vouches for it. *Proven* and *refuted* speak for themselves; *unanchored* is a
//! claim whose signatures hold but whose root the verifier's trust file does not name; *not claimed* is what the receipt does not
//! speak of. Nothing is skipped in silence: what could not be checked because an earlier part is broken is refuted with it.
//!
//! Time is the log's: evidence is judged at the log time of its release entry, and once more at the verifier's `now`.

use std::fmt;

use starminer_log::{SignedCheckpoint, VerifiedCheckpoint};
use starminer_verify::{
    Attempt, AttestationResult, Challenge, Context, Decision, Digest, Evidence, Expect, Expected, ExpectedPurpose,
    NodeId, Provenance, Refusal, Tier, TrustAnchors, UnixTime, Verdict, Verified, Weight, appraise, verify,
};

use crate::dsse::{Base64Bytes, Envelope, Signed, Statement, VerifiedEnvelopes};
use crate::endorsement_set::{EndorsementSet, EndorsementSetError, OpenedSet};
use crate::entry::{EntryKind, LogEntry};
use crate::network::NetworkTrust;
use crate::receipt::Receipt;
use crate::report::{AgentStatement, Outcome, Report, ReportAuthor, ReportPredicate};
use crate::spec::TaskSpec;
use crate::statements::{
    CancelStatement, ChallengeStatement, CheckpointId, DenyStatement, Grant, Lease, LeastCheckpoint, ReleaseStatement,
};

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

/// The log entries of the receipt, in the order of the log.
struct Entries(Vec<(u64, LogEntry)>);

impl Entries {
    fn find(&self, kind: EntryKind, statement: Digest) -> Option<&(u64, LogEntry)> {
        self.0.iter().find(|(_, entry)| entry.kind == kind && entry.statement == statement)
    }

    /// The statement of the last checkpoint that was logged before this attempt.
    fn newest_checkpoint_before(&self, attempt: Attempt) -> Option<Digest> {
        let before = |entry: &LogEntry| entry.attempt.is_some_and(|of| of < attempt);
        let mut newest = self.0.iter().rev().map(|(_, entry)| entry);
        newest.find(|entry| entry.kind == EntryKind::Checkpointed && before(entry)).map(|entry| entry.statement)
    }

    fn has(&self, kind: EntryKind, attempt: Attempt) -> bool {
        self.0.iter().any(|(_, entry)| entry.kind == kind && entry.attempt == Some(attempt))
    }
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

    /// Verifies the checkpoint and every entry under it.
    fn log(&mut self, spec: &Signed<TaskSpec>) -> (Option<VerifiedCheckpoint>, Entries) {
        let empty = || Entries(Vec::new());
        let signed = match SignedCheckpoint::parse(self.receipt.checkpoint.as_bytes()) {
            Ok(signed) => signed,
            Err(error) => {
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, error);
                return (None, empty());
            }
        };
        let Some(trust) = self.trust else {
            self.claim("log", ClaimVerdict::Unanchored, Voucher::Log, "no trust file of this network names a log key");
            // Entries still have to be entries of this task, so that nothing nonsensical is shown as merely unanchored.
            return (None, self.parse_entries(spec).unwrap_or_else(empty));
        };
        if signed.claimed_origin() != trust.log_key().name() {
            self.claim(
                "log",
                ClaimVerdict::Unanchored,
                Voucher::Log,
                "the checkpoint is of a log that your trust file does not name",
            );
            return (None, self.parse_entries(spec).unwrap_or_else(empty));
        }
        let checkpoint = match signed.verify(trust.log_key()) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, error);
                return (None, empty());
            }
        };
        let Some(entries) = self.parse_entries(spec) else { return (Some(checkpoint), empty()) };
        for logged in &self.receipt.entries {
            if let Err(error) = checkpoint.verify_inclusion(&logged.entry.0, &logged.inclusion) {
                self.claim(
                    "log",
                    ClaimVerdict::Refuted,
                    Voucher::Log,
                    format!("entry {}: {error}", logged.inclusion.index()),
                );
                return (Some(checkpoint), empty());
            }
        }
        let statement = format!(
            "all {} entries of this task are in the log of {} entries, checkpoint signed by {}",
            entries.0.len(),
            checkpoint.size(),
            trust.log_key().name().as_str()
        );
        self.claim("log", ClaimVerdict::Proven, Voucher::Log, statement);
        (Some(checkpoint), entries)
    }

    fn parse_entries(&mut self, spec: &Signed<TaskSpec>) -> Option<Entries> {
        let mut entries: Vec<(u64, LogEntry)> = Vec::with_capacity(self.receipt.entries.len());
        for logged in &self.receipt.entries {
            let index = logged.inclusion.index();
            let entry = match LogEntry::parse(&logged.entry.0) {
                Ok(entry) if entry.task == Some(spec.task) => entry,
                Ok(_) => {
                    self.claim("log", ClaimVerdict::Refuted, Voucher::Log, format!("entry {index} is of another task"));
                    return None;
                }
                Err(reason) => {
                    self.claim("log", ClaimVerdict::Refuted, Voucher::Log, format!("entry {index}: {reason}"));
                    return None;
                }
            };
            if entries.last().is_some_and(|(last, before)| *last >= index || before.at > entry.at) {
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, "entries are not in the order of the log");
                return None;
            }
            let expected = entries.len();
            if entry.step.is_none_or(|step| step as usize != expected) {
                let statement = format!("entry {index} is not number {expected} of this task: others are missing");
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, statement);
                return None;
            }
            if entries.last().is_some_and(|(_, before)| before.ends) {
                let statement = format!("entry {index} comes after the one that ended the task");
                self.claim("log", ClaimVerdict::Refuted, Voucher::Log, statement);
                return None;
            }
            entries.push((index, entry));
        }
        if entries.last().is_none_or(|(_, last)| !last.ends) {
            self.claim("log", ClaimVerdict::Refuted, Voucher::Log, "the entry that ended this task is missing");
            return None;
        }
        Some(Entries(entries))
    }

    /// Whether a statement is in the log, as far as the log is anchored.
    fn logged(&mut self, name: &'static str, entries: &Entries, kind: EntryKind, statement: Digest) {
        let anchored = self.log_anchored();
        match entries.find(kind, statement) {
            Some((index, entry)) => {
                let verdict = if anchored { ClaimVerdict::Proven } else { ClaimVerdict::Unanchored };
                self.claim(name, verdict, Voucher::Log, format!("entry {index}, {}", at(entry.at)));
            }
            None => self.claim(name, ClaimVerdict::Refuted, Voucher::Log, "the log has no such entry"),
        }
    }

    fn log_anchored(&self) -> bool {
        self.verdict.claims.iter().any(|claim| claim.name == "log" && claim.verdict == ClaimVerdict::Proven)
    }

    /// Challenge, evidence, appraisal, release and grant of the attempt.
    fn attestation(&mut self, run: &Run<'_>) -> Option<Verified> {
        let receipt = self.receipt;
        let (spec, lease) = (run.spec, run.lease);
        let challenge =
            self.open::<ChallengeStatement>("challenge", Voucher::Releaser, receipt.challenge.as_ref(), |challenge| {
                if challenge.lease != lease.digest()
                    || challenge.task != spec.task
                    || challenge.attempt != lease.attempt
                {
                    return Err("the challenge is for another attempt".into());
                }
                if challenge.releaser != spec.releaser {
                    return Err("the challenge is not signed by the releaser that the spec names".into());
                }
                Ok("a fresh challenge was issued for this attempt alone".into())
            })?;
        let Some(Base64Bytes(evidence_bytes)) = &receipt.evidence else {
            self.claim("evidence", ClaimVerdict::NotClaimed, Voucher::Hardware, "no evidence in this receipt");
            return None;
        };
        let evidence_digest = Digest::of(evidence_bytes);
        self.logged("evidence-logged", run.entries, EntryKind::Attested, evidence_digest);
        self.endorsements(spec)?;

        let release =
            self.open::<ReleaseStatement>("release", Voucher::Releaser, receipt.release.as_ref(), |release| {
                let result = receipt.attestation_result.as_ref();
                release_links(release, run, evidence_digest, &challenge, result, receipt.grant.is_some())
            });
        // A denied attempt has no release entry: its evidence is judged at the time of the denial, else of the challenge.
        let log_time = match &release {
            Some(release) => {
                self.logged("release-logged", run.entries, EntryKind::Released, release.digest());
                run.entries.find(EntryKind::Released, release.digest()).map(|(_, entry)| entry.at)
            }
            None => run.entries.find(EntryKind::Attested, evidence_digest).map(|(_, entry)| entry.at),
        };
        self.verdict.log_time = log_time;
        let then = log_time.unwrap_or(challenge.issued_at);
        let issued_at = release.as_ref().map_or(challenge.issued_at, |release| issued_by_log(release, then));
        let challenge = (challenge.challenge, issued_at);
        let verified = self.evidence(run, evidence_bytes, challenge, then, release.is_some())?;
        if release.is_some() {
            self.grant(run, &verified, release.as_ref());
        }
        Some(verified)
    }

    /// What the evidence is verified with: it has to be what the releaser used. `None` where it is broken.
    fn endorsements(&mut self, spec: &TaskSpec) -> Option<()> {
        const NAME: &str = "endorsements";
        let receipt = self.receipt;
        let opened = receipt.endorsements.as_ref().map(|bytes| {
            let set = EndorsementSet::parse(&bytes.0)?;
            Ok::<_, EndorsementSetError>((set.open(spec.network, spec.counts())?, set.enrollers()))
        });
        let enrollers = match opened.transpose() {
            Ok(Some((opened, enrollers))) => {
                self.support = opened;
                enrollers
            }
            Ok(None) => Vec::new(),
            Err(error) => {
                self.claim(NAME, ClaimVerdict::Refuted, Voucher::Releaser, error);
                return None;
            }
        };
        let used = receipt.attestation_result.as_ref().and_then(|result| endorsements_of(&result.0));
        let digest = self.support.endorsements.digest();
        match (used, &receipt.endorsements) {
            (Some(used), _) if used != digest => {
                let statement = "the releaser's attestation result names other endorsements than these";
                self.claim(NAME, ClaimVerdict::Refuted, Voucher::Releaser, statement);
                return None;
            }
            (_, None) => self.claim(NAME, ClaimVerdict::NotClaimed, Voucher::Releaser, "the evidence came without any"),
            (Some(_), Some(_)) => {
                let statement = format!("the releaser used these very endorsements, digest {digest}");
                self.check(NAME, Voucher::Releaser, Ok(statement));
            }
            (None, Some(_)) => {
                let statement = "makers' endorsements and enrolments came with the evidence";
                self.check(NAME, Voucher::Coordinator, Ok(statement.into()));
            }
        }
        let own = self.trust.map_or(&[][..], |trust| &trust.enrollers);
        let counted: Vec<_> = enrollers.iter().filter(|key| spec.enrollers.contains(key)).collect();
        if let Some(stranger) = counted.iter().find(|key| !own.contains(key)) {
            let statement =
                format!("enrolled by {stranger}, whom the requester's spec names and your trust file does not");
            self.claim("enrolment", ClaimVerdict::Unanchored, Voucher::Enroller, statement);
        } else if let Some(enroller) = counted.first() {
            let statement = format!("enrolled by {enroller}, whom your trust file names");
            self.claim("enrolment", ClaimVerdict::Proven, Voucher::Enroller, statement);
        }
        Some(())
    }

    fn evidence(
        &mut self,
        run: &Run<'_>,
        bytes: &[u8],
        (challenge, challenge_issued_at): (Challenge, UnixTime),
        then: UnixTime,
        released: bool,
    ) -> Option<Verified> {
        let expected = Expected {
            network: run.spec.network,
            challenge,
            challenge_issued_at,
            purpose: ExpectedPurpose::Task { spec: run.spec.digest(), attempt: run.lease.attempt },
            node: run.lease.node,
            boot: Expect::Any,
            task_key: Expect::Any,
            report_key: Expect::Any,
            agent_key: Expect::Any,
            tls_key: Expect::Any,
            posture: Expect::Any,
        };
        let verified = self.verify_evidence("evidence", run.spec, bytes, &expected, then)?;
        self.verdict.valid_now = Some(match verified.check_at(self.now) {
            Ok(()) => Validity::Valid,
            Err(refusal) => Validity::Invalid(refusal.reason().to_string()),
        });
        self.verdict.provenance = Some(verified.provenance());
        let result = appraise(&verified, &run.spec.reference_values, &run.spec.policy);
        self.verdict.tier = Some(result.tier());
        self.appraisal(&result, released);
        self.reference_values(run, &verified);
        Some(verified)
    }

    /// Verifies evidence at a time. A root that only the spec names makes it, and whatever rests on it, unanchored.
    fn verify_evidence(
        &mut self,
        name: &'static str,
        spec: &TaskSpec,
        bytes: &[u8],
        expected: &Expected,
        then: UnixTime,
    ) -> Option<Verified> {
        let own = own_anchors(self.trust);
        let support = &self.support;
        let (result, anchored) = match verify_at(bytes, expected, &own, support, then) {
            Err(refusal) if refusal.check() == ROOT_UNKNOWN => {
                (verify_at(bytes, expected, &own_and_spec_anchors(self.trust, spec), support, then), false)
            }
            result => (result, true),
        };
        match result {
            Ok(verified) => {
                self.verdict.valid_then = Some(Validity::Valid);
                self.evidence_anchored &= anchored;
                if anchored {
                    let statement = format!(
                        "node {} signed for this very attempt and these very keys; provenance {}",
                        expected.node,
                        verified.provenance()
                    );
                    self.claim(name, ClaimVerdict::Proven, Voucher::Hardware, statement);
                } else {
                    let statement = "the evidence chains to a root that the spec names and your trust file does not";
                    self.claim(name, ClaimVerdict::Unanchored, Voucher::Hardware, statement);
                }
                Some(verified)
            }
            Err(refusal) if refusal.check() == ROOT_UNKNOWN => {
                let statement = "the evidence chains to a root that neither the spec nor your trust file names";
                self.claim(name, ClaimVerdict::Refuted, Voucher::Hardware, statement);
                None
            }
            Err(refusal) => {
                self.verdict.valid_then = Some(Validity::Invalid(refusal.reason().to_string()));
                let statement = format!("{}: {}", refusal.check(), refusal.reason());
                self.claim(name, ClaimVerdict::Refuted, Voucher::Hardware, statement);
                None
            }
        }
    }

    /// The spec's policy, applied again. The result is worth what the evidence is worth.
    fn appraisal(&mut self, result: &AttestationResult, released: bool) {
        let (verdict, voucher) = match (self.evidence_anchored, self.trust) {
            (true, Some(_)) => (ClaimVerdict::Proven, Voucher::Verifier),
            (true, None) => (ClaimVerdict::Proven, Voucher::Hardware),
            (false, _) => (ClaimVerdict::Unanchored, Voucher::Requester),
        };
        match result.decision() {
            Decision::Meets => {
                let statement = format!("the evidence meets the requester's policy: tier {}", result.tier());
                self.claim("appraisal", verdict, voucher, statement);
            }
            Decision::Fails(reasons) => {
                let first = reasons
                    .first()
                    .map_or_else(String::new, |reason| format!("{}: {}", reason.check(), reason.reason()));
                if released {
                    let statement =
                        format!("released although the evidence does not meet the requester's policy ({first})");
                    self.claim("appraisal", ClaimVerdict::Refuted, voucher, statement);
                } else {
                    self.claim("appraisal", verdict, voucher, format!("rightly denied ({first})"));
                }
            }
        }
    }

    fn reference_values(&mut self, run: &Run<'_>, verified: &Verified) {
        let Some(trust) = self.trust else { return };
        let own = appraise(verified, &trust.reference_values, &run.spec.policy);
        // The measurement alone: evidence that was rightly denied for something else may still be of a known agent.
        let measurement = own.checks().iter().find(|check| check.name() == MEASUREMENT);
        let is_named = measurement.is_some_and(|check| check.verdict() == Verdict::Pass);
        if !is_named && measurement.is_some_and(|check| check.weight() == Weight::Informative) {
            let statement = "the policy asks for nothing about what runs on the node";
            self.claim("reference-values", ClaimVerdict::NotClaimed, Voucher::Verifier, statement);
        } else if is_named {
            let statement = "the agent's measurement is one that your reference values name";
            self.claim("reference-values", ClaimVerdict::Proven, Voucher::Verifier, statement);
        } else {
            let statement =
                "the agent's measurement is not one that your reference values name; the requester's spec alone does";
            self.claim("reference-values", ClaimVerdict::Unanchored, Voucher::Requester, statement);
        }
    }

    fn grant(&mut self, run: &Run<'_>, verified: &Verified, release: Option<&Signed<ReleaseStatement>>) {
        let entries = run.entries;
        let task_key = verified.binding().task_key.as_ref().map(starminer_verify::TaskKey::digest);
        let grant = self.open::<Grant>("grant", Voucher::Releaser, self.receipt.grant.as_ref(), |grant| {
            let Some(release) = release else { return Err("a grant without a release".into()) };
            let links = grant.release == release.digest()
                && grant.spec == run.spec.digest()
                && grant.lease == run.lease.digest()
                && grant.task == run.spec.task
                && grant.attempt == run.lease.attempt
                && grant.evidence == release.evidence
                && grant.policy == release.policy;
            if !links {
                return Err("the grant is for another release".into());
            }
            if grant.releaser != run.spec.releaser {
                return Err("the grant is not signed by the releaser that the spec names".into());
            }
            if Some(release.task_key) != task_key {
                return Err("the release names another task key than the evidence".into());
            }
            match entries.find(EntryKind::Released, release.digest()) {
                Some((index, _)) if *index == grant.release_index => {
                    Ok("the key was sealed to the attested task key, after the release was in the log".into())
                }
                _ => Err("the grant names another place in the log than its release has".into()),
            }
        });
        if let Some(grant) = grant {
            self.logged("grant-logged", entries, EntryKind::Granted, grant.digest());
        }
    }

    fn report(
        &mut self,
        spec: &Signed<TaskSpec>,
        lease: Option<&Signed<Lease>>,
        entries: &Entries,
        evidence: Option<&Verified>,
    ) -> Option<Signed<Report>> {
        let receipt = self.receipt;
        let coordinator = self.trust.map(|trust| trust.coordinator.key);
        let report =
            self.open_by::<Report>("report", Voucher::Nobody, receipt.report.as_ref(), report_voucher, |report| {
                report_links(report, spec, lease, receipt, evidence, coordinator)
            })?;
        self.report_logged(entries, report.digest());
        self.verdict.outcome = Some(report.predicate.outcome.clone());
        if report.predicate.author == ReportAuthor::Task {
            let inputs: Vec<Digest> = spec.inputs.iter().map(|input| input.commitment).collect();
            let opened =
                report.predicate.inputs == inputs && report.predicate.workload == Some(spec.workload.commitment);
            let failed = matches!(report.predicate.outcome, Outcome::Failed { .. });
            let result = if opened {
                Ok("the workload and the inputs that ran are the ones committed to in the spec".to_string())
            } else if failed {
                Ok("the run ended before every input was opened".to_string())
            } else {
                Err("another workload or other inputs than the spec commits to".to_string())
            };
            self.check("inputs", Voucher::TaskProcess, result);
        }
        Some(report)
    }

    /// From which checkpoint the attempt went on: it has to be what the grant asks for, and the grant has to ask for what the log has. Not claimed of
    /// a task without a state.
    fn resume(
        &mut self,
        spec: &Signed<TaskSpec>,
        lease: Option<&Signed<Lease>>,
        entries: &Entries,
        report: Option<&Signed<Report>>,
    ) {
        const NAME: &str = "resume";
        let (Some(lease), Some(report)) = (lease, report) else { return };
        let grant = self.receipt.grant.clone();
        let least = grant
            .and_then(|grant| grant.open_remembering::<Grant>(self.memory).ok())
            .and_then(|grant| grant.statement().resume);
        let resumed = report.predicate.resumed;
        if spec.limits.state_bytes == 0 && least.is_none() && resumed.is_none() {
            return;
        }
        if report.predicate.author != ReportAuthor::Task {
            let statement = "nobody says from which checkpoint the attempt went on, if it came so far";
            self.claim(NAME, ClaimVerdict::NotClaimed, Voucher::Nobody, statement);
            return;
        }
        let linked = resume_links(spec, lease, entries, report, least.as_ref());
        if !self.check(NAME, Voucher::TaskProcess, linked) {
            return;
        }
        let of_log = entries.newest_checkpoint_before(lease.attempt);
        if of_log != least.map(|least| least.statement)
            && let Some(claim) = self.verdict.claims.last_mut()
        {
            claim.verdict = ClaimVerdict::Unanchored;
            claim.voucher = Voucher::Log;
            claim.statement = format!(
                "{}; but the log had a newer checkpoint than the grant asks for: the releaser was shown less, or had lost its records",
                claim.statement
            );
        }
    }

    /// The report that ended the task, with what came with it.
    fn report_logged(&mut self, entries: &Entries, report: Digest) {
        let receipt = self.receipt;
        let annex = LogEntry::annex_of(
            receipt.agent_statement.as_ref().map(Envelope::digest),
            receipt.closing_evidence.as_ref().map(|bytes| Digest::of(&bytes.0)),
        );
        let wrong = match entries.find(EntryKind::Reported, report) {
            Some((_, entry)) if !entry.ends => "the log has this report, but the task went on after it",
            Some((_, entry)) if entry.annex != annex => {
                "the log has this report with another agent's statement or closing evidence, or with one that is missing here"
            }
            _ => return self.logged("report-logged", entries, EntryKind::Reported, report),
        };
        self.claim("report-logged", ClaimVerdict::Refuted, Voucher::Log, wrong);
    }

    /// What only the agent saw, closing evidence, denials and cancellations.
    fn ending(
        &mut self,
        spec: &Signed<TaskSpec>,
        lease: Option<&Signed<Lease>>,
        entries: &Entries,
        evidence: Option<&Verified>,
        report: Option<&Signed<Report>>,
    ) {
        let receipt = self.receipt;
        let agent_key = evidence.map(|evidence| evidence.binding().agent_key);
        let report_digest = report.map(Signed::digest);
        let completed = report.is_some_and(|report| report.predicate.outcome == Outcome::Completed);
        self.open::<AgentStatement>("agent-statement", Voucher::Agent, receipt.agent_statement.as_ref(), |statement| {
            if Some(statement.report) != report_digest || statement.task != spec.task {
                return Err("the agent's statement is over another report".into());
            }
            match agent_key {
                Some(key) if key == statement.agent => Ok(format!(
                    "the agent saw the process end ({:?}) between {} and {}",
                    statement.exit,
                    at(statement.started_at),
                    at(statement.ended_at)
                )),
                Some(_) => Err("signed by another agent key than the evidence binds".into()),
                None => Err("no verified evidence binds the agent's key".into()),
            }
        });
        self.closing(spec, lease, evidence, report_digest);
        if completed {
            self.not_to_be_left_out("agent-statement", "how the process ended is nobody's word");
            self.not_to_be_left_out(
                CLOSING,
                "nothing shows that boot, posture and keys stayed the same during the run",
            );
        }
        if let Some(denial) =
            self.open::<DenyStatement>("denial", Voucher::Releaser, receipt.denial.as_ref(), |denial| {
                let evidence = receipt.evidence.as_ref().map(|bytes| Digest::of(&bytes.0));
                if denial.task != spec.task
                    || lease.is_none_or(|lease| lease.attempt != denial.attempt)
                    || denial.releaser != spec.releaser
                {
                    return Err("the denial is of another attempt or releaser".into());
                }
                if denial.evidence.is_some() && denial.evidence != evidence {
                    return Err("the denial is of other evidence".into());
                }
                Ok(denial.reasons.iter().map(|reason| reason.check().to_string()).collect::<Vec<_>>().join(", "))
            })
        {
            self.logged("denial-logged", entries, EntryKind::Denied, denial.digest());
        }
        if let Some(cancel) =
            self.open::<CancelStatement>("cancellation", Voucher::Requester, receipt.cancel.as_ref(), |cancel| {
                if cancel.spec == spec.digest() && cancel.requester == spec.requester {
                    Ok("the requester cancelled the task".into())
                } else {
                    Err("the cancellation is of another task or requester".into())
                }
            })
        {
            self.logged("cancellation-logged", entries, EntryKind::Cancelled, cancel.digest());
        }
    }

    /// What every node gives with a completed run: without it, a receipt that it was taken out of could not be told from one of a node that
    /// never gave it.
    fn not_to_be_left_out(&mut self, name: &str, lost: &str) {
        let unclaimed = |claim: &&mut Claim| claim.name == name && claim.verdict == ClaimVerdict::NotClaimed;
        if let Some(claim) = self.verdict.claims.iter_mut().find(unclaimed) {
            claim.verdict = ClaimVerdict::Unanchored;
            claim.voucher = Voucher::Nobody;
            claim.statement =
                format!("missing, which a completed run has to have, or taken out of this receipt: {lost}");
        }
    }

    fn closing(
        &mut self,
        spec: &Signed<TaskSpec>,
        lease: Option<&Signed<Lease>>,
        evidence: Option<&Verified>,
        report: Option<Digest>,
    ) {
        let name = CLOSING;
        let (Some(bytes), Some(first), Some(lease), Some(subject)) =
            (self.receipt.closing_evidence.as_ref(), evidence, lease, report)
        else {
            let (verdict, statement) = if self.receipt.closing_evidence.is_some() {
                (ClaimVerdict::Unanchored, "closing evidence cannot be judged without verified evidence and report")
            } else {
                (ClaimVerdict::NotClaimed, "nothing shows that boot, posture and keys stayed the same during the run")
            };
            self.claim(name, verdict, Voucher::Hardware, statement);
            return;
        };
        let binding = first.binding();
        let challenge_issued_at = first.challenge_issued_at();
        let expected = Expected {
            network: spec.network,
            challenge: binding.challenge,
            challenge_issued_at,
            purpose: ExpectedPurpose::ClosingTask { spec: spec.digest(), attempt: lease.attempt, subject },
            node: lease.node,
            boot: Expect::Exactly(binding.boot),
            task_key: binding.task_key.clone().map_or(Expect::Any, Expect::Exactly),
            report_key: binding.report_key.map_or(Expect::Any, Expect::Exactly),
            agent_key: Expect::Exactly(binding.agent_key),
            tls_key: Expect::Any,
            posture: Expect::Exactly(binding.posture),
        };
        let then = self.verdict.log_time.unwrap_or(challenge_issued_at);
        let before = self.verdict.valid_then.clone();
        if let Some(closing) = self.verify_evidence(name, spec, &bytes.0, &expected, then)
            && let Some(claim) = self.verdict.claims.last_mut()
        {
            match closing.continues(first) {
                Err(refusal) => {
                    claim.verdict = ClaimVerdict::Refuted;
                    claim.statement = format!("{}: {}", refusal.check(), refusal.reason());
                }
                Ok(()) if claim.verdict == ClaimVerdict::Proven => {
                    claim.statement =
                        "after the run the node signed over the report: same boot, same devices, same posture, same keys"
                            .into();
                }
                Ok(()) => {}
            }
        }
        self.verdict.valid_then = before;
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

    /// What the log has of the last attempt and of the task's end, and this receipt has not: it cannot be told what it said.
    fn left_out(&mut self, entries: &Entries) {
        let receipt = self.receipt;
        let last = entries.0.iter().filter_map(|(_, entry)| entry.attempt).max();
        let of_end = entries.0.iter().filter(|(_, entry)| entry.attempt == last || entry.ends);
        let missing: Vec<&'static str> = of_end
            .filter_map(|(_, entry)| {
                let (name, present) = match entry.kind {
                    EntryKind::Leased => ("lease", receipt.lease.is_some()),
                    EntryKind::Challenged => ("challenge", receipt.challenge.is_some()),
                    EntryKind::Attested => ("evidence", receipt.evidence.is_some()),
                    EntryKind::Released => ("release", receipt.release.is_some()),
                    EntryKind::Granted => ("grant", receipt.grant.is_some()),
                    EntryKind::Denied => ("denial", receipt.denial.is_some()),
                    EntryKind::Reported => ("report", receipt.report.is_some()),
                    EntryKind::Cancelled => ("cancellation", receipt.cancel.is_some()),
                    EntryKind::Genesis
                    | EntryKind::Admitted
                    | EntryKind::Enrolled
                    | EntryKind::Suspended
                    | EntryKind::Rules
                    | EntryKind::Published
                    | EntryKind::Checkpointed
                    | EntryKind::Submitted
                    | EntryKind::Expired => {
                        return None;
                    }
                };
                (!present).then_some(name)
            })
            .collect();
        for name in missing {
            let statement = "the log has it, and this receipt has not: what it said cannot be told";
            match self.verdict.claims.iter_mut().find(|claim| claim.name == name) {
                Some(claim) => {
                    claim.verdict = claim.verdict.max(ClaimVerdict::Unanchored);
                    claim.voucher = Voucher::Nobody;
                    claim.statement = statement.into();
                }
                None => self.claim(name, ClaimVerdict::Unanchored, Voucher::Nobody, statement),
            }
        }
    }

    fn order(&mut self, entries: &Entries) {
        let last = entries.0.iter().filter_map(|(_, entry)| entry.attempt).max();
        let step = |kind: EntryKind| match kind {
            EntryKind::Leased => Some((1, "lease")),
            EntryKind::Challenged => Some((2, "challenge")),
            EntryKind::Attested => Some((3, "evidence")),
            EntryKind::Released => Some((4, "release")),
            EntryKind::Granted => Some((5, "grant")),
            EntryKind::Reported => Some((6, "report")),
            _ => None,
        };
        let steps: Vec<(u8, &str)> = entries
            .0
            .iter()
            .filter(|(_, entry)| entry.attempt == last)
            .filter_map(|(_, entry)| step(entry.kind))
            .collect();
        let names = steps.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
        let (verdict, statement) = if steps.is_empty() {
            (ClaimVerdict::NotClaimed, "this receipt has no step of an attempt".into())
        } else if !steps.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            (
                ClaimVerdict::Refuted,
                format!("the log has the steps of the last attempt in an impossible order: {names}"),
            )
        } else if self.log_anchored() {
            (ClaimVerdict::Proven, format!("the steps of the last attempt stand in the log in their order: {names}"))
        } else {
            (ClaimVerdict::Unanchored, "the order is that of a log your trust does not name".into())
        };
        self.claim("order", verdict, Voucher::Log, statement);
    }

    fn witnesses(&mut self, checkpoint: Option<&VerifiedCheckpoint>) {
        let Some(trust) = self.trust.filter(|trust| trust.log.witness_quorum > 0) else {
            let statement = "no witness is named: time and order are the coordinator's word";
            self.claim("witnesses", ClaimVerdict::NotClaimed, Voucher::Coordinator, statement);
            return;
        };
        let Some(checkpoint) = checkpoint else {
            self.claim("witnesses", ClaimVerdict::Unanchored, Voucher::Nobody, "no verified checkpoint to cosign");
            return;
        };
        match checkpoint.verify_witnesses(trust.witness_keys(), trust.log.witness_quorum) {
            Ok(cosignatures) => {
                let statement = format!("{} witnesses cosigned the checkpoint", cosignatures.len());
                self.claim("witnesses", ClaimVerdict::Proven, Voucher::Witnesses, statement);
            }
            Err(error) => self.claim("witnesses", ClaimVerdict::Unanchored, Voucher::Coordinator, error),
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

/// The attempt that a receipt is about.
struct Run<'a> {
    spec: &'a Signed<TaskSpec>,
    lease: &'a Signed<Lease>,
    entries: &'a Entries,
}

/// The appraisal's check of the agent's measurement against reference values.
const MEASUREMENT: &str = "device.measurement";
/// The claim of closing evidence.
const CLOSING: &str = "closing-evidence";
/// The code of a refusal for a root that is not among the anchors.
const ROOT_UNKNOWN: &str = "evidence.root-unknown";

/// The makers' roots and those simulated ones that the verifier's trust file names.
fn own_anchors(trust: Option<&NetworkTrust>) -> TrustAnchors {
    let roots = trust.into_iter().flat_map(NetworkTrust::simulated_root_ids);
    TrustAnchors::makers().with_simulated_roots(roots).unwrap_or_else(|_| TrustAnchors::makers())
}

/// The same and those that the requester's signed policy names: enough to check links by, never to prove a claim.
fn own_and_spec_anchors(trust: Option<&NetworkTrust>, spec: &TaskSpec) -> TrustAnchors {
    let own = own_anchors(trust);
    let named = spec.policy.fields().accepted_simulated_roots.iter().copied();
    own.clone().with_simulated_roots(named).unwrap_or(own)
}

fn verify_at(
    bytes: &[u8],
    expected: &Expected,
    anchors: &TrustAnchors,
    support: &OpenedSet,
    now: UnixTime,
) -> Result<Verified, Refusal> {
    let evidence = Evidence::parse(bytes).map_err(Refusal::from)?;
    verify(
        evidence,
        &Context {
            expected: expected.clone(),
            endorsements: &support.endorsements,
            trust_anchors: anchors,
            enrolments: &support.enrolments,
            now,
        },
    )
}

/// Which endorsements an attestation result (EAR JSON) says were used.
fn endorsements_of(ear: &[u8]) -> Option<Digest> {
    let ear: serde_json::Value = serde_json::from_slice(ear).ok()?;
    let submodule = ear.get("submods")?.as_object()?.values().next()?;
    serde_json::from_value(submodule.get("ear_starminer_endorsements")?.clone()).ok()
}

/// When the challenge was issued, on the log's clock: as long before the release was logged as, by the releaser's clock, the decision came
/// after the challenge. The two clocks are never compared, so that a coordinator whose clock is wrong refutes nobody's receipt.
fn issued_by_log(release: &ReleaseStatement, logged_at: UnixTime) -> UnixTime {
    match release.decided_at.since(release.challenge_issued_at) {
        Some(age) => UnixTime(logged_at.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))),
        // Decided before it was asked for: no age is right.
        None => UnixTime(u64::MAX),
    }
}

fn release_links(
    release: &ReleaseStatement,
    run: &Run<'_>,
    evidence: Digest,
    challenge: &ChallengeStatement,
    attestation_result: Option<&Base64Bytes>,
    granted: bool,
) -> Result<String, String> {
    let links = release.task == run.spec.task
        && release.attempt == run.lease.attempt
        && release.node == run.lease.node
        && release.spec == run.spec.digest()
        && release.lease == run.lease.digest()
        && release.challenge == challenge.challenge
        && release.challenge_issued_at == challenge.issued_at
        && release.evidence == evidence
        && release.policy == run.spec.policy.digest();
    if !links {
        return Err("the release is of another attempt, evidence or policy".into());
    }
    if release.releaser != run.spec.releaser {
        return Err("the release is not signed by the releaser that the spec names".into());
    }
    match attestation_result {
        Some(result) if Digest::of(&result.0) == release.attestation_result => {
            Ok("the releaser appraised this very evidence by the spec's policy and released".into())
        }
        Some(_) => Err("the attestation result is not the one that the release names".into()),
        // It is handed over with the grant: a releaser that ended in between leaves a release of which nothing came.
        None if !granted && !run.entries.has(EntryKind::Granted, run.lease.attempt) => {
            Ok("the releaser approved this very evidence; it ended before it granted anything".into())
        }
        None => Err("the attestation result that the release names is missing".into()),
    }
}

/// What an attempt says that it went on from, against what it was granted to.
fn resume_links(
    spec: &TaskSpec,
    lease: &Lease,
    entries: &Entries,
    report: &Report,
    least: Option<&LeastCheckpoint>,
) -> Result<String, String> {
    let completed = report.predicate.outcome == Outcome::Completed;
    let shown = |checkpoint: &CheckpointId| {
        format!("checkpoint {}.{}", checkpoint.attempt(), checkpoint.sequence & 0xffff_ffff)
    };
    if spec.limits.state_bytes == 0 {
        return Err("a checkpoint of a task that the spec gives no state".into());
    }
    if let Some(least) = least
        && entries.find(EntryKind::Checkpointed, least.statement).is_none()
    {
        return Err("the grant names a checkpoint that the log does not have".into());
    }
    match (report.predicate.resumed, least) {
        (Some(resumed), _) if resumed.attempt() >= lease.attempt => {
            Err(format!("it went on from {}, which no attempt before it made", shown(&resumed)))
        }
        (Some(resumed), Some(least)) if !resumed.is_at_least(&least.checkpoint) => {
            Err(format!("it went on from {}, and the grant asks for {}", shown(&resumed), shown(&least.checkpoint)))
        }
        (None, Some(least)) if least.node == lease.node && completed => {
            Err(format!("it began anew on the node that had acknowledged {}", shown(&least.checkpoint)))
        }
        (Some(resumed), Some(least)) => Ok(format!(
            "attempt {} went on from {}; the grant asks for {} at least",
            lease.attempt,
            shown(&resumed),
            shown(&least.checkpoint)
        )),
        (Some(resumed), None) => {
            Ok(format!("attempt {} went on from {}; the releaser knew of none", lease.attempt, shown(&resumed)))
        }
        (None, _) => Ok(format!("attempt {} began anew", lease.attempt)),
    }
}

/// Who vouches for a report, by what it says itself; that the right key signed is checked in [`report_links`].
fn report_voucher(report: &Report) -> Voucher {
    match report.predicate.author {
        ReportAuthor::Agent if report.predicate.evidence.is_none() => Voucher::Node,
        ReportAuthor::Task => Voucher::TaskProcess,
        ReportAuthor::Agent => Voucher::Agent,
        ReportAuthor::Releaser => Voucher::Releaser,
        ReportAuthor::Coordinator => Voucher::Coordinator,
    }
}

fn report_links(
    report: &Signed<Report>,
    spec: &Signed<TaskSpec>,
    lease: Option<&Signed<Lease>>,
    receipt: &Receipt,
    evidence: Option<&Verified>,
    coordinator: Option<starminer_verify::PublicKey>,
) -> Result<String, String> {
    let said = &report.predicate;
    if said.spec != spec.digest() || said.task != spec.task || said.network != spec.network {
        return Err("the report is of another task".into());
    }
    if said.outcome == Outcome::Completed && said.author != ReportAuthor::Task {
        return Err("nobody but the task process can say that it completed".into());
    }
    let by = match said.author {
        ReportAuthor::Coordinator => {
            if coordinator.is_some_and(|key| key != said.signer) {
                return Err("signed by another coordinator than your trust file names".into());
            }
            "the coordinator"
        }
        ReportAuthor::Releaser if said.signer == spec.releaser => "the releaser",
        ReportAuthor::Releaser => return Err("not signed by the releaser that the spec names".into()),
        ReportAuthor::Task | ReportAuthor::Agent => {
            let Some(lease) = lease else { return Err("a run without a lease".into()) };
            if said.lease != Some(lease.digest())
                || said.attempt != Some(lease.attempt)
                || said.node != Some(lease.node)
            {
                return Err("the report is of another attempt".into());
            }
            let digest_of = |bytes: &Option<Base64Bytes>| bytes.as_ref().map(|bytes| Digest::of(&bytes.0));
            if said.evidence.is_some() && said.evidence != digest_of(&receipt.evidence) {
                return Err("the report names other evidence".into());
            }
            if said.grant.is_some() && said.grant != receipt.grant.as_ref().map(Envelope::digest) {
                return Err("the report names another grant".into());
            }
            // A node that fails before it knows that its evidence arrived signs with the key that the lease names. It
            // then claims nothing but the failure, so it counts beside evidence that did arrive too.
            let claims_nothing = said.evidence.is_none()
                && said.grant.is_none()
                && said.engine.is_none()
                && said.workload.is_none()
                && said.inputs.is_empty()
                && said.outputs.is_empty()
                && said.output_secret.is_none()
                && said.sealed_details.is_none();
            let failed = matches!(said.outcome, Outcome::Failed { .. });
            if said.author == ReportAuthor::Agent && claims_nothing && failed && said.signer == lease.node.0 {
                return Ok(summary("the node that the lease names, by itself and not by evidence,", said));
            }
            let Some(evidence) = evidence else {
                return Err("no verified evidence binds the key that signed it".into());
            };
            let (key, by) = if said.author == ReportAuthor::Task {
                if said.evidence.is_none() || said.grant.is_none() {
                    return Err("a task process that was granted nothing has nothing to report".into());
                }
                (evidence.binding().report_key, "the attested task process")
            } else {
                (Some(evidence.binding().agent_key), "the attested agent")
            };
            if key != Some(said.signer) {
                return Err("signed by another key than the evidence binds".into());
            }
            by
        }
    };
    Ok(summary(by, said))
}

fn summary(by: &str, said: &ReportPredicate) -> String {
    match &said.outcome {
        Outcome::Completed => format!("{by} reports: completed, {} outputs", said.outputs.len()),
        Outcome::Failed { refusal } => {
            format!("{by} reports: failed, {} ({}): {}", refusal.check(), refusal.party().name(), refusal.reason())
        }
    }
}

/// A log time for people.
fn at(time: UnixTime) -> String {
    let nanos = i128::from(time.as_millis()) * 1_000_000;
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| format!("{time} ms"))
}
