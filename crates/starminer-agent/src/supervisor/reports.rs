//! What the agent says over its own key: the countersignature of a report, and reports where no process could speak.

use starminer_receipt::{
    AgentStatement, DETAILS_INFO, Envelope, ExitStatus as SaidExit, Lease, Outcome, Report, ReportAuthor,
    ReportPredicate, Resources, SealedSecret, Signed, Signer as _, SigningKey, TaskSpec,
};
use starminer_sandbox::{Exit, ExitStatus};
use starminer_verify::{Digest, Refusal, UnixTime};
use zeroize::Zeroizing;

/// When a run began and ended, by this node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// When the grant was taken.
    pub started_at: UnixTime,
    /// When the report was there.
    pub ended_at: UnixTime,
    /// Between the two, on the monotonic clock.
    pub wall_ms: u64,
}

/// How a process ended, as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub exit: Exit,
    /// The agent ended it, because it did not end by itself after its report.
    pub killed: bool,
}

/// The agent's word over a report: exit status in clear, resources sealed to the requester. `None` where nothing can be
/// sealed to the spec's result key.
pub(crate) fn countersign(
    spec: &TaskSpec,
    lease: &Lease,
    report: Digest,
    seen: Seen,
    times: Times,
    agent: &SigningKey,
) -> Option<Envelope> {
    let resources = Resources {
        cpu_ms: millis(seen.exit.cpu_user + seen.exit.cpu_system),
        peak_resident_bytes: seen.exit.peak_resident_bytes,
        wall_ms: times.wall_ms,
    };
    let resources = serde_json::to_vec(&resources).ok()?;
    let randomness = Zeroizing::new(crate::random::bytes::<64>().ok()?);
    let resources =
        SealedSecret::seal(&spec.result_key.0, DETAILS_INFO, report.as_bytes(), &resources, &randomness).ok()?;
    let statement = AgentStatement {
        network: lease.network,
        task: lease.task,
        attempt: lease.attempt,
        node: lease.node,
        report,
        exit: said(seen),
        started_at: times.started_at,
        ended_at: times.ended_at,
        resources,
        agent: agent.public_key(),
    };
    Envelope::sign(statement, agent).ok().map(Signed::into_envelope)
}

fn said(seen: Seen) -> SaidExit {
    match seen.exit.status {
        _ if seen.killed => SaidExit::Ended,
        ExitStatus::Code(code) => SaidExit::Exited { code },
        ExitStatus::Signal(signal) => SaidExit::Signalled { signal },
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A report of a run that did not report itself, signed with the agent's key, or with the node's where no evidence binds that one. It claims nothing about what was opened: only the process knew.
pub(crate) fn failure(
    spec: &Signed<TaskSpec>,
    lease: &Signed<Lease>,
    evidence: Option<Digest>,
    grant: Option<Digest>,
    sandbox: Vec<String>,
    refusal: Refusal,
    key: &SigningKey,
) -> Option<Signed<Report>> {
    let predicate = ReportPredicate {
        author: ReportAuthor::Agent,
        signer: key.public_key(),
        network: spec.network,
        task: spec.task,
        spec: spec.digest(),
        node: Some(lease.node),
        attempt: Some(lease.attempt),
        lease: Some(lease.digest()),
        evidence,
        grant,
        engine: None,
        workload: None,
        inputs: Vec::new(),
        outcome: Outcome::Failed { refusal },
        output_secret: None,
        outputs: Vec::new(),
        sealed_details: None,
        sandbox,
        resumed: None,
    };
    Envelope::sign(Report::new(predicate), key).ok()
}
