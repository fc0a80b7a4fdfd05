//! What a task process and its agent say of a run, made by hand: the honest form, which every attack alters in one place.

use starminer_receipt::*;
use starminer_requester::{random_bytes, random_secret};
use starminer_vault::object::{
    ContentIdMode, Digests, ObjectContext, PlainDigestMode, SealOptions, seal_bytes as seal_object_bytes,
};
use starminer_vault::{Purpose, Salt, TaskSecret, commit};
use starminer_verify::*;

use crate::support::now;

/// One attempt, as its node knows it once the grant is there.
#[derive(Clone)]
pub struct Granted {
    pub spec: Signed<TaskSpec>,
    pub lease: Signed<Lease>,
    pub challenge: Signed<ChallengeStatement>,
    pub evidence: Vec<u8>,
    pub grant: Signed<Grant>,
}

/// What a run leaves: its own secret, sealed outputs, details of both.
pub struct Produced {
    pub secret: TaskSecret,
    pub sealed_secret: SealedSecret,
    pub objects: Vec<ObjectRef>,
    pub blobs: Vec<Vec<u8>>,
    pub details: RunDetails,
}

impl Granted {
    /// Seals outputs as an honest run does.
    pub fn produce(&self, outputs: &[(&str, &[u8])]) -> Produced {
        let secret = random_secret();
        let aad = Report::output_aad(&self.spec.digest(), self.lease.attempt, &Digest::of(&self.evidence));
        let sealed_secret = SealedSecret::seal(
            &self.spec.result_key.0,
            OUTPUT_INFO,
            aad.as_bytes(),
            secret.as_slice(),
            &random_secret(),
        )
        .unwrap();
        let details = RunDetails { exit_code: Some(0), fuel_used: Some(1), peak_memory_bytes: 1, outputs: Vec::new() };
        let secret = TaskSecret::from_bytes(*secret);
        let mut produced = Produced { secret, sealed_secret, objects: Vec::new(), blobs: Vec::new(), details };
        for (index, (name, plain)) in outputs.iter().enumerate() {
            let (object, blob) = self.seal(&produced.secret, index, plain);
            produced.objects.push(object);
            produced.blobs.push(blob);
            produced.details.outputs.push(OutputManifest {
                name: OutputName::File((*name).into()),
                plain_bytes: plain.len() as u64,
                sha256: Digest::of(plain),
            });
        }
        produced
    }

    /// Seals one output under a secret.
    pub fn seal(&self, secret: &TaskSecret, index: usize, plain: &[u8]) -> (ObjectRef, Vec<u8>) {
        let name = output_object_name(index);
        let context = ObjectContext { task: self.spec.task.0, name: &name, purpose: Purpose::Output };
        let both = Digests { content_id: ContentIdMode::Compute, plain_sha256: PlainDigestMode::Compute };
        let options = SealOptions { digests: both, ..SealOptions::default() };
        let (blob, summary) =
            seal_object_bytes(secret, &context, Salt::from_random(random_bytes()), options, plain).unwrap();
        let commitment = commit(secret, &self.spec.task.0, &name, &summary.plain_sha256.unwrap());
        let object = ObjectRef {
            content_id: Digest(summary.content_id.unwrap().0),
            sealed_bytes: blob.len() as u64,
            commitment: Digest(commitment),
        };
        (object, blob)
    }

    /// What the report says, signed by nobody yet.
    pub fn predicate(&self, produced: &Produced, signer: PublicKey) -> ReportPredicate {
        let context = ObjectContext { task: self.spec.task.0, name: "details", purpose: Purpose::Output };
        let details = serde_json::to_vec(&produced.details).unwrap();
        let salt = Salt::from_random(random_bytes());
        let (details, _) =
            seal_object_bytes(&produced.secret, &context, salt, SealOptions::default(), &details).unwrap();
        ReportPredicate {
            author: ReportAuthor::Task,
            signer,
            network: self.spec.network,
            task: self.spec.task,
            spec: self.spec.digest(),
            node: Some(self.lease.node),
            attempt: Some(self.lease.attempt),
            lease: Some(self.lease.digest()),
            evidence: Some(Digest::of(&self.evidence)),
            grant: Some(self.grant.digest()),
            engine: None,
            workload: Some(self.spec.workload.commitment),
            inputs: self.spec.inputs.iter().map(|input| input.commitment).collect(),
            outcome: Outcome::Completed,
            output_secret: Some(produced.sealed_secret.clone()),
            outputs: produced.objects.clone(),
            sealed_details: Some(details.into()),
            sandbox: vec!["seccomp".into()],
            resumed: None,
        }
    }

    /// The agent's word over a report.
    pub fn agent_statement(&self, report: Digest, agent: &SigningKey) -> AgentStatement {
        let resources = Resources { cpu_ms: 1, peak_resident_bytes: 1, wall_ms: 1 };
        let resources = serde_json::to_vec(&resources).unwrap();
        let resources =
            SealedSecret::seal(&self.spec.result_key.0, DETAILS_INFO, report.as_bytes(), &resources, &random_secret());
        AgentStatement {
            network: self.spec.network,
            task: self.spec.task,
            attempt: self.lease.attempt,
            node: self.lease.node,
            report,
            exit: ExitStatus::Exited { code: 0 },
            started_at: now(),
            ended_at: now(),
            resources: resources.unwrap(),
            agent: agent.public_key(),
        }
    }
}

/// The same envelope with one bit of its payload turned.
pub fn one_bit(envelope: &Envelope) -> Envelope {
    let mut value: serde_json::Value = serde_json::from_slice(&envelope.encode()).unwrap();
    let mut payload = data_encoding::BASE64.decode(value["payload"].as_str().unwrap().as_bytes()).unwrap();
    let middle = payload.len() / 2;
    payload[middle] ^= 1;
    value["payload"] = data_encoding::BASE64.encode(&payload).into();
    serde_json::from_value(value).unwrap()
}
