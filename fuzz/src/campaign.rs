//! A seeded run of one target: every seed of its corpus, then damaged copies, bounded by count and never by time, so that
//! the same numbers give the same inputs on every machine.
//!
//! Stable Rust gives no coverage. In its place a target says what an input led to ([`Outcome::reached`]: an error's code,
//! the verdicts of claims), and an input that led somewhere new joins the seeds. Not here: finding the smallest failing
//! input; libFuzzer does that (`README.md`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;

use crate::mutate::mutate;
use crate::random::Random;
use crate::{Outcome, Target};

/// Most inputs that are kept beside the corpus.
const MAX_KEPT: usize = 512;
/// An input that takes longer than this is a failure: every parser is bounded.
pub const MAX_TIME_PER_INPUT: Duration = Duration::from_secs(20);
/// Longest input that a failure prints in full; a longer one is in the file that the failure names.
const MAX_PRINTED_BYTES: usize = 8 * 1024;

/// What a run did.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Inputs that were run, the corpus included.
    pub inputs: u64,
    /// Seeds of the corpus that were accepted.
    pub accepted_seeds: usize,
    /// Damaged copies that were accepted.
    pub accepted_mutants: u64,
    /// Different outcomes that were reached.
    pub outcomes: usize,
    /// The longest time that one input took.
    pub slowest: Duration,
    /// Time of the whole run.
    pub elapsed: Duration,
}

/// An input that made a target panic, or that took too long.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The target.
    pub target: &'static str,
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said and where, or how long the input took.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "target {} failed on an input of {} bytes: {}", self.target, self.input.len(), self.what)?;
        let file = std::env::temp_dir().join(format!("starminer-fuzz-{}.input", self.target));
        let kept = std::fs::write(&file, &self.input).is_ok();
        let replay = |input: &str| {
            format!(
                "STARMINER_FUZZ_TARGET={} STARMINER_FUZZ_INPUT={input} cargo test --release -p starminer-fuzz --test corpus",
                self.target
            )
        };
        if self.input.len() <= MAX_PRINTED_BYTES {
            let hex = HEXLOWER.encode(&self.input);
            writeln!(f, "input: {hex}")?;
            writeln!(f, "replay: {}", replay(&hex))?;
        }
        if kept {
            writeln!(f, "replay: {}", replay(&format!("@{}", file.display())))?;
        }
        Ok(())
    }
}

thread_local! {
    /// `Some` while this thread runs a target: the panic's message goes here and not to the terminal.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one input and catches a panic.
///
/// # Errors
/// The input panicked or took longer than [`MAX_TIME_PER_INPUT`].
pub fn run_once(target: &'static Target, input: &[u8]) -> Result<(Outcome, Duration), Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = CAUGHT.with_borrow_mut(|caught| match caught {
                Some(text) => {
                    *text = info.to_string();
                    true
                }
                None => false,
            });
            if !ours {
                usual(info);
            }
        }));
    });
    let failure = |what| Failure { target: target.name, input: input.to_vec(), what };
    CAUGHT.set(Some(String::new()));
    let started = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| target.run(input)));
    let elapsed = started.elapsed();
    let said = CAUGHT.take().unwrap_or_default();
    match result {
        Err(_) => Err(failure(said)),
        Ok(_) if elapsed > MAX_TIME_PER_INPUT => Err(failure(format!("it took {:.1} s", elapsed.as_secs_f64()))),
        Ok(outcome) => Ok((outcome, elapsed)),
    }
}

/// Runs the corpus and then `runs` damaged copies made from `seed`.
///
/// # Errors
/// The first input that fails.
pub fn run(target: &'static Target, corpus: &[Vec<u8>], runs: u64, seed: u64) -> Result<Summary, Failure> {
    let started = Instant::now();
    let mut summary = Summary {
        inputs: 0,
        accepted_seeds: 0,
        accepted_mutants: 0,
        outcomes: 0,
        slowest: Duration::ZERO,
        elapsed: Duration::ZERO,
    };
    let mut reached = BTreeSet::new();
    let mut pool: Vec<Vec<u8>> = corpus.to_vec();
    for input in corpus {
        let (outcome, elapsed) = run_once(target, input)?;
        reached.insert(outcome.reached);
        summary.accepted_seeds += usize::from(outcome.accepted);
        summary.slowest = summary.slowest.max(elapsed);
    }
    // The name goes into the seed, so that two targets with one corpus do not try the same inputs.
    let mut random = Random::new(seed ^ crate::fnv1a(target.name.as_bytes()));
    for _ in 0..runs {
        // Of two, the shorter: inputs otherwise grow, and long ones take most of the time.
        let (one, other) = (random.choose(&pool), random.choose(&pool));
        let parent = if one.len() <= other.len() { one } else { other };
        let donor = random.below(pool.len());
        let input = mutate(&mut random, parent, &[pool[donor].as_slice()]);
        let (outcome, elapsed) = run_once(target, &input)?;
        summary.accepted_mutants += u64::from(outcome.accepted);
        summary.slowest = summary.slowest.max(elapsed);
        if reached.insert(outcome.reached) && pool.len() < corpus.len() + MAX_KEPT {
            pool.push(input);
        }
    }
    summary.inputs = corpus.len() as u64 + runs;
    summary.outcomes = reached.len();
    summary.elapsed = started.elapsed();
    Ok(summary)
}
