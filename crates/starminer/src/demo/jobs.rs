//! The jobs of the demonstration: three, and one for a TPM.

use std::collections::HashMap;
use std::path::Path;

use starminer_receipt::{
    Determinism, Limits, NetworkTrust, OnnxManifest, Outcome, OutputName, Sensitivity, WasmGrants, WasmManifest,
};
use starminer_requester::{InputSource, JobPlan, TaskOutcome};
use starminer_verify::{OperatorMayReadMemory, Policy, Tier};

use crate::cli::demo_support::{Failure, Style, Terminal};

const MODEL: &[u8] = include_bytes!("../../../../examples/diagnosis/model.onnx");
const PATIENTS: &[u8] = include_bytes!("../../../../examples/diagnosis/patients.csv");
const DIAGNOSIS: &str = include_str!("../../../../examples/diagnosis/diagnosis.csv");
/// The program in C.
pub const WORDCOUNT: &[u8] = include_bytes!("../../../../examples/wordcount/wordcount.wasm");
/// What it counts the words of.
pub const NOTES: &[u8] = include_bytes!("../../../../examples/wordcount/clinic-notes.txt");
const RUNAWAY: &[u8] = include_bytes!("../../../../examples/runaway/runaway.wasm");

/// Fuel of the job that runs out of it: about a tenth of a second.
const LITTLE_FUEL: u64 = 50_000_000;
/// How long after submission keys may be released.
const VALID_FOR_MS: u64 = 10 * 60 * 1000;

/// Who releases a job's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Releases {
    /// The requester.
    Requester,
    /// The broker.
    Broker,
}

/// One job.
pub struct DemoJob {
    /// Title.
    pub title: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Who releases its key.
    pub releases: Releases,
    /// What its node reaches.
    pub tier: Tier,
    kind: Kind,
    root_name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Diagnosis,
    WordCount,
    Runaway,
}

impl DemoJob {
    /// All of them; the names are those of the simulated roots that their policies name.
    pub fn all(root_name: &str, tpm_root_name: Option<&str>) -> Vec<Self> {
        let job = |title, about, releases, kind| Self {
            title,
            about,
            releases,
            tier: Tier::Confidential,
            kind,
            root_name: root_name.into(),
        };
        let mut jobs = vec![
            job(
                "private diagnosis",
                "an ONNX classifier over the measurements of 569 patients; model and data are both secret",
                Releases::Requester,
                Kind::Diagnosis,
            ),
            job(
                "a program in C, through WASI",
                "counts the words of confidential notes; a broker releases the key, the requester could be offline",
                Releases::Broker,
                Kind::WordCount,
            ),
            job(
                "a job that fails",
                "a loop without end on a small ration of fuel; it ends in a receipt, too",
                Releases::Requester,
                Kind::Runaway,
            ),
        ];
        jobs.extend(tpm_root_name.map(|root_name| Self {
            title: "for a machine that its TPM names",
            about: "counts the words of the notes on a node without a TEE: its operator could read memory, and the policy says so",
            releases: Releases::Requester,
            tier: Tier::Identified,
            kind: Kind::WordCount,
            root_name: root_name.into(),
        }));
        jobs
    }

    /// The plan to submit.
    pub fn plan(&self, trust: &NetworkTrust) -> Result<JobPlan, Failure> {
        let bytes = |bytes: &'static [u8]| InputSource::Bytes(bytes::Bytes::from_static(bytes));
        let (workload, inputs, wasm, onnx) = match self.kind {
            Kind::Diagnosis => {
                let onnx = OnnxManifest {
                    input: "patients.csv".into(),
                    output: "predictions.csv".into(),
                    id_column: Some("patient".into()),
                    ignore_columns: Vec::new(),
                };
                (MODEL, vec![("patients.csv".to_string(), bytes(PATIENTS))], None, Some(onnx))
            }
            Kind::WordCount => {
                (WORDCOUNT, vec![("clinic-notes.txt".to_string(), bytes(NOTES))], Some(WasmManifest::default()), None)
            }
            Kind::Runaway => (RUNAWAY, Vec::new(), Some(WasmManifest::default()), None),
        };
        let mut fields = Policy::confidential().fields().clone();
        fields.accepted_simulated_roots =
            trust.simulated_roots.iter().filter(|entry| entry.name == self.root_name).map(|entry| entry.root).collect();
        if self.tier < Tier::Confidential {
            fields.minimum_tier = self.tier;
            fields.operator_may_read_memory = OperatorMayReadMemory::Yes;
        }
        let policy = Policy::new(fields).map_err(|error| Failure::local(error.code(), error, "report this defect"))?;
        let mut limits = Limits::default();
        if self.kind == Kind::Runaway {
            limits.fuel = LITTLE_FUEL;
        }
        Ok(JobPlan {
            workload: bytes(workload),
            inputs,
            wasm,
            onnx,
            determinism: Determinism::Native,
            grants: WasmGrants::default(),
            limits,
            sensitivity: Sensitivity::Confidential,
            policy,
            reference_values: trust.reference_values.clone(),
            enrollers: trust.enrollers.clone(),
            facilities: trust.facilities.clone(),
            max_attempts: 3,
            valid_for_ms: VALID_FOR_MS,
        })
    }

    /// Plaintexts to search the operators' disks for: lines long enough not to occur by chance.
    pub fn plaintexts(&self) -> Vec<Vec<u8>> {
        let lines = |text: &[u8], every: usize| -> Vec<Vec<u8>> {
            text.split(|byte| *byte == b'\n')
                .filter(|line| line.len() >= 24)
                .step_by(every)
                .map(<[u8]>::to_vec)
                .collect()
        };
        match self.kind {
            Kind::Diagnosis => {
                let mut all = lines(PATIENTS, 20);
                // The weights in the middle of the model, and the canary in its metadata.
                all.push(MODEL[MODEL.len() / 2..MODEL.len() / 2 + 32].to_vec());
                all.push(b"CANARY-MODEL-7c1e-heron-on-the-weir".to_vec());
                all
            }
            Kind::WordCount => {
                let mut all = lines(NOTES, 4);
                all.push(WORDCOUNT[WORDCOUNT.len() / 2..WORDCOUNT.len() / 2 + 64].to_vec());
                all
            }
            Kind::Runaway => vec![RUNAWAY[..64.min(RUNAWAY.len())].to_vec()],
        }
    }

    /// Whether it ended as it should.
    pub fn went_as_expected(&self, outcome: &TaskOutcome) -> bool {
        match (&outcome.outcome, self.kind) {
            (Some(Outcome::Completed), Kind::Diagnosis | Kind::WordCount) => true,
            (Some(Outcome::Failed { refusal }), Kind::Runaway) => refusal.check().contains("fuel"),
            _ => false,
        }
    }

    /// Tells what came of it.
    pub fn tell(&self, terminal: &Terminal, outcome: &TaskOutcome) -> Result<(), Failure> {
        if let Some(Outcome::Failed { refusal }) = &outcome.outcome {
            let say = |label: &str, text: &str| {
                terminal.say(format!("  {} {text}", terminal.style(Style::Yellow, format!("{label:<9}"))))
            };
            say("failed", refusal.reason());
            say("check", refusal.check());
            say("fault", refusal.party().name());
            say("do", refusal.remedy());
            return Ok(());
        }
        match self.kind {
            Kind::Diagnosis => {
                let (right, all) = accuracy(&output(outcome, "predictions.csv")?)?;
                terminal.say(format!(
                    "  {} {all} predictions; {right} agree with the diagnosis: accuracy {:.1} %",
                    terminal.style(Style::Green, "result   "),
                    100.0 * f64::from(right) / f64::from(all)
                ));
            }
            Kind::WordCount => {
                let top = output(outcome, "top-words.txt")?;
                let words: Vec<&str> =
                    top.lines().skip(1).take(5).filter_map(|line| line.split('\t').next_back()).collect();
                terminal.say(format!(
                    "  {} most frequent words: {}",
                    terminal.style(Style::Green, "result   "),
                    words.join(", ")
                ));
            }
            Kind::Runaway => {}
        }
        Ok(())
    }
}

fn output(outcome: &TaskOutcome, name: &str) -> Result<String, Failure> {
    let found = outcome.outputs.iter().find(|output| output.name == OutputName::File(name.into()));
    let missing = |reason: &dyn std::fmt::Display| {
        Failure::local("demo.output", format!("{name}: {reason}"), "report this defect")
    };
    let path: &Path = &found.ok_or_else(|| missing(&"not among the outputs"))?.path;
    std::fs::read_to_string(path).map_err(|error| missing(&error))
}

/// How many of the predictions agree with the diagnosis, of how many.
fn accuracy(predictions: &str) -> Result<(u32, u32), Failure> {
    let malformed =
        |reason: &str| Failure::local("demo.predictions", format!("predictions.csv: {reason}"), "report this defect");
    let diagnosis: HashMap<&str, &str> = DIAGNOSIS.lines().skip(1).filter_map(|line| line.split_once(',')).collect();
    let header: Vec<&str> = predictions.lines().next().unwrap_or_default().split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let (Some(id), Some(label)) = (column("patient"), column("label")) else {
        return Err(malformed("it has no columns patient and label"));
    };
    let (mut right, mut all) = (0, 0);
    for line in predictions.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let (Some(id), Some(label)) = (cells.get(id), cells.get(label)) else {
            return Err(malformed("a row is short"));
        };
        all += 1;
        if diagnosis.get(id) == Some(label) {
            right += 1;
        }
    }
    if all == 0 { Err(malformed("it is empty")) } else { Ok((right, all)) }
}
