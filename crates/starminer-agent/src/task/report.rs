//! The task process's own word about its run: sealed details, and a signed report around them.

use starminer_receipt::{
    Base64Bytes, CheckpointId, EngineRecord, Envelope, Lease, MAX_ENVELOPE_BYTES, OUTPUT_INFO, Outcome, Report,
    ReportAuthor, ReportPredicate, RunDetails, SealedSecret, Signed, Signer as _, SigningKey, TaskSpec,
};
use starminer_vault::object::{ObjectContext, SealOptions, seal_bytes};
use starminer_vault::{Purpose, TaskSecret};
use starminer_verify::{Digest, Party, Refusal, SandboxMeasure};
use zeroize::Zeroizing;

use super::Broken;
use super::keys::{random_secret, salt, secret_of};
use super::outputs::Sealed;

/// Name of the detail record in the vault.
const DETAILS_OBJECT_NAME: &str = "details";

/// The secret that this run's outputs are sealed under, and the same sealed to the requester.
pub(crate) struct OutputSecret {
    pub secret: TaskSecret,
    sealed: SealedSecret,
}

impl OutputSecret {
    /// A fresh secret, sealed to the result key that the spec names.
    ///
    /// # Errors
    /// The spec's result key is no key: nobody could open a result.
    pub(crate) fn make(
        spec: &Signed<TaskSpec>,
        lease: &Lease,
        evidence: &Digest,
    ) -> Result<Result<Self, Refusal>, Broken> {
        let bytes = random_secret::<32>()?;
        let aad = Report::output_aad(&spec.digest(), lease.attempt, evidence);
        let randomness = random_secret::<64>()?;
        let sealed = SealedSecret::seal(&spec.result_key.0, OUTPUT_INFO, aad.as_bytes(), bytes.as_slice(), &randomness);
        Ok(match sealed {
            Ok(sealed) => Ok(Self { secret: secret_of(&bytes), sealed }),
            Err(error) => Err(Refusal::new(
                Party::Requester,
                "task.result-key",
                format!("nothing can be sealed to the result key of the spec: {error}"),
                "make the result key with a current starminer",
            )),
        })
    }
}

/// Everything a report says that its run filled in.
#[derive(Debug)]
pub(crate) struct Facts {
    pub grant: Digest,
    pub evidence: Digest,
    pub engine: Option<EngineRecord>,
    /// The commitment of the workload, once it was checked.
    pub workload: Option<Digest>,
    /// The commitments of the inputs that were checked.
    pub inputs: Vec<Digest>,
    pub exit_code: Option<i32>,
    pub fuel_used: Option<u64>,
    pub peak_memory_bytes: u64,
    /// What was in force around this process.
    pub sandbox: Vec<SandboxMeasure>,
    /// The checkpoint that the run went on from.
    pub resumed: Option<CheckpointId>,
}

impl Facts {
    pub(crate) fn new(grant: Digest, evidence: Digest, sandbox: Vec<SandboxMeasure>) -> Self {
        Self {
            grant,
            evidence,
            engine: None,
            workload: None,
            inputs: Vec::new(),
            exit_code: None,
            fuel_used: None,
            peak_memory_bytes: 0,
            sandbox,
            resumed: None,
        }
    }
}

/// Signs the report. One that outgrew its envelope, which [`super::outputs::Plain::check`] should have foreseen, becomes
/// a failure without outputs.
pub(crate) fn sign(
    spec: &Signed<TaskSpec>,
    lease: &Signed<Lease>,
    facts: &Facts,
    outcome: Outcome,
    output_secret: Option<&OutputSecret>,
    sealed: Sealed,
    key: &SigningKey,
) -> Result<Envelope, Broken> {
    let envelope = build(spec, lease, facts, outcome, output_secret, sealed, key)?;
    if envelope.encode().len() <= MAX_ENVELOPE_BYTES {
        return Ok(envelope);
    }
    let refusal = Refusal::new(
        Party::Requester,
        "limits.output-count",
        "the outputs do not fit into one report",
        "write fewer files to /out, for instance as one archive",
    );
    build(spec, lease, facts, Outcome::Failed { refusal }, output_secret, Sealed::default(), key)
}

fn build(
    spec: &Signed<TaskSpec>,
    lease: &Signed<Lease>,
    facts: &Facts,
    outcome: Outcome,
    output_secret: Option<&OutputSecret>,
    sealed: Sealed,
    key: &SigningKey,
) -> Result<Envelope, Broken> {
    let sealed_details = match output_secret {
        Some(output) => Some(seal_details(spec, facts, &output.secret, sealed.manifest)?),
        None => None,
    };
    let predicate = ReportPredicate {
        author: ReportAuthor::Task,
        signer: key.public_key(),
        network: spec.network,
        task: spec.task,
        spec: spec.digest(),
        node: Some(lease.node),
        attempt: Some(lease.attempt),
        lease: Some(lease.digest()),
        evidence: Some(facts.evidence),
        grant: Some(facts.grant),
        engine: facts.engine.clone(),
        workload: facts.workload,
        inputs: facts.inputs.clone(),
        outcome,
        output_secret: output_secret.map(|output| output.sealed.clone()),
        outputs: sealed.objects,
        sealed_details,
        sandbox: facts.sandbox.iter().map(|measure| measure.name().to_owned()).collect(),
        resumed: facts.resumed,
    };
    Envelope::sign(Report::new(predicate), key).map(Signed::into_envelope).map_err(|_| Broken)
}

fn seal_details(
    spec: &TaskSpec,
    facts: &Facts,
    secret: &TaskSecret,
    outputs: Vec<starminer_receipt::OutputManifest>,
) -> Result<Base64Bytes, Broken> {
    let details = RunDetails {
        exit_code: facts.exit_code,
        fuel_used: facts.fuel_used,
        peak_memory_bytes: facts.peak_memory_bytes,
        outputs,
    };
    let plain = Zeroizing::new(serde_json::to_vec(&details).map_err(|_| Broken)?);
    let context = ObjectContext { task: spec.task.0, name: DETAILS_OBJECT_NAME, purpose: Purpose::Output };
    let (sealed, _) = seal_bytes(secret, &context, salt()?, SealOptions::default(), &plain).map_err(|_| Broken)?;
    Ok(Base64Bytes(sealed))
}
