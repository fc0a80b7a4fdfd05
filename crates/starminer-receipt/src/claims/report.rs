//! What ended the task: the report, from where the attempt went on, closing evidence, denials and cancellations.

use starminer_verify::{Digest, Expect, Expected, ExpectedPurpose, Verified};

use super::log::{Entries, at};
use super::{Claim, ClaimVerdict, Verifier, Voucher};
use crate::dsse::{Base64Bytes, Envelope, Signed};
use crate::entry::{EntryKind, LogEntry};
use crate::receipt::Receipt;
use crate::report::{AgentStatement, Outcome, Report, ReportAuthor, ReportPredicate};
use crate::spec::TaskSpec;
use crate::statements::{CancelStatement, CheckpointId, DenyStatement, Grant, Lease, LeastCheckpoint};

/// The claim of closing evidence.
const CLOSING: &str = "closing-evidence";

impl Verifier<'_> {
    pub(super) fn report(
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
    pub(super) fn resume(
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
    pub(super) fn ending(
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
