//! The target of the command line: job files, which people get from others.

use super::line_and_rest;
use crate::Outcome;
use crate::seeds::Seed;

// The program is no library; the file needs nothing else of it.
#[path = "../../../crates/starminer/src/cli/job_file.rs"]
#[allow(dead_code, unreachable_pub)] // the program uses all of it
mod job_file;

use job_file::JobFile;

pub fn job(data: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(data) else { return Outcome::refused("not text") };
    let parsed = JobFile::parse(text);
    match &parsed {
        Ok(job) => {
            assert_eq!(JobFile::parse(&format!("{text}\n# more\n")).as_ref(), Ok(job), "a comment says nothing");
            let surprised = JobFile::parse(&format!("surprise_at_the_beginning = 1\n{text}"));
            assert!(surprised.is_err(), "an unknown field is refused");
            Outcome::accepted((
                job.wasm.is_some(),
                job.onnx.is_some(),
                job.inputs.len().min(3),
                job.policy.minimum_tier,
            ))
        }
        Err(error) => {
            // What people are told points into the text.
            assert!(error.span().is_none_or(|span| span.start <= text.len()), "{error}");
            assert!(!error.message().is_empty());
            let (line, _) = line_and_rest(error.message().as_bytes());
            Outcome::refused(line.map(|line| line.split('`').next().unwrap_or_default().to_owned()))
        }
    }
}

pub fn seeds() -> Vec<Seed> {
    let job = |name: &str, text: &str| ("cli-job", name.to_owned(), text.as_bytes().to_vec());
    vec![
        job("wordcount", include_str!("../../../examples/wordcount/job.toml")),
        job("every-field", EVERY_FIELD),
        job("diagnosis", include_str!("../../../examples/diagnosis/job.toml")),
    ]
}

const EVERY_FIELD: &str = r#"wasm = "a.wasm"
onnx = "m.onnx"
inputs = ["a.csv", "b/"]
output = "out"
args = ["--top", "20"]
env = { LANG = "C" }
portable = true
grant_clock = true
grant_random = false
sensitivity = "sensitive"
max_attempts = 2
[limits]
fuel = 1_000
memory_mib = 64
timeout_seconds = 30
output_mib = 1
scratch_mib = 1
[policy]
minimum_tier = "measured"
accept_simulated = ["root"]
operator_may_read_memory = true
[table]
id_column = "id"
ignore_columns = ["x"]
output = "p.csv"
"#;
