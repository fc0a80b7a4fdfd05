//! Runs every target on stable Rust: each seed of its corpus, then a seeded run of damaged copies.
//!
//! ```text
//! STARMINER_FUZZ_TARGET=name                    only this target
//! STARMINER_FUZZ_INPUT=hex, or @file            only this input of it: how a failure is replayed
//! STARMINER_FUZZ_RUNS=n  STARMINER_FUZZ_SEED=n  another number of damaged copies, another sequence of them
//! ```

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{env, fs, thread};

use data_encoding::HEXLOWER;
use starminer_fuzz::campaign::{Failure, Summary, run, run_once};
use starminer_fuzz::{TARGETS, Target, seeds};

/// The sequence of an ordinary run.
const SEED: u64 = 0x5741_524d_494e_4552;
/// Most bytes of the whole corpus: it is committed.
const MAX_CORPUS_BYTES: usize = 1 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The seeds of a target, in the order of their names.
fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = root().join("corpus").join(target.name);
    names(&directory).into_iter().map(|name| fs::read(directory.join(name)).unwrap()).collect()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn replay(target: &'static Target, input: &str) {
    let bytes = match input.strip_prefix('@') {
        Some(file) => fs::read(PathBuf::from(file)).unwrap(),
        None => HEXLOWER.decode(input.as_bytes()).unwrap(),
    };
    match run_once(target, &bytes) {
        Ok((outcome, elapsed)) => println!("{}: {outcome:?} in {elapsed:?}", target.name),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn every_target_holds() {
    let only = env::var("STARMINER_FUZZ_TARGET").ok();
    if let (Some(name), Ok(input)) = (&only, env::var("STARMINER_FUZZ_INPUT")) {
        return replay(Target::find(name).expect("a target of this name"), &input);
    }
    let chosen: Vec<&'static Target> =
        TARGETS.iter().filter(|target| only.as_ref().is_none_or(|name| name == target.name)).collect();
    assert!(!chosen.is_empty(), "no target of this name");
    let (runs, seed) = (number("STARMINER_FUZZ_RUNS"), number("STARMINER_FUZZ_SEED").unwrap_or(SEED));

    let queue = Mutex::new(chosen.into_iter());
    let results: Mutex<Vec<(&str, Result<Summary, Failure>)>> = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = queue.lock().unwrap().next();
            let Some(target) = next else { return };
            let seeds = [corpus(target), seeds::found(target.name)].concat();
            let result = run(target, &seeds, runs.unwrap_or(target.runs), seed);
            results.lock().unwrap().push((target.name, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            // Parsers recurse within their bounds; a thread's usual stack holds that, as an agent's would.
            scope.spawn(work);
        }
    });

    let mut problems = Vec::new();
    for (name, result) in results.into_inner().unwrap() {
        match result {
            Ok(summary) => {
                println!(
                    "{name:<24} {:>8} inputs {:>7} accepted {:>5} outcomes {:>8.2} ms slowest {:>7.2} s",
                    summary.inputs,
                    summary.accepted_seeds as u64 + summary.accepted_mutants,
                    summary.outcomes,
                    summary.slowest.as_secs_f64() * 1e3,
                    summary.elapsed.as_secs_f64(),
                );
                if summary.accepted_seeds == 0 {
                    problems
                        .push(format!("{name}: no seed of its corpus is accepted: make the corpus again (README.md)"));
                }
            }
            Err(failure) => problems.push(failure.to_string()),
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The three places that name targets name the same ones.
#[cfg(feature = "edges")]
#[test]
fn every_target_has_its_corpus_and_its_libfuzzer_file() {
    let all: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(all.len(), TARGETS.len(), "names are unique");
    assert_eq!(names(&root().join("corpus")), all, "directories of corpus/");
    let files = names(&root().join("libfuzzer/fuzz_targets"));
    assert_eq!(files, all.iter().map(|name| format!("{name}.rs")).collect(), "files of libfuzzer/fuzz_targets/");
    let manifest = fs::read_to_string(root().join("libfuzzer/Cargo.toml")).unwrap();
    let mut bytes = 0;
    for name in &all {
        assert!(
            manifest.contains(&format!("\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n")),
            "{name} in the manifest"
        );
        let source = fs::read_to_string(root().join(format!("libfuzzer/fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("\"{name}\"")), "{name}.rs runs another target");
        let seeds = corpus(Target::find(name).unwrap());
        assert!(!seeds.is_empty(), "{name} has no seed");
        bytes += seeds.iter().map(Vec::len).sum::<usize>();
    }
    assert!(bytes <= MAX_CORPUS_BYTES, "the corpus has grown to {bytes} bytes");
}

/// A failure must be found, caught and replayable: a target that panics on one byte value shows that the run itself works.
#[test]
fn a_defect_is_found_and_reported() {
    static BROKEN: Target = Target {
        name: "broken",
        about: "panics where a 7 follows an x",
        runs: 0,
        function: |data| {
            assert!(!data.windows(2).any(|pair| pair == b"x7"), "found");
            starminer_fuzz::Outcome::accepted(data.contains(&b'x'))
        },
    };
    let failure = run(&BROKEN, &[b"x0123456789".to_vec()], 100_000, 1).expect_err("the defect is found");
    assert!(failure.what.contains("found"), "{}", failure.what);
    assert!(failure.input.windows(2).any(|pair| pair == b"x7"));
    let shown = failure.to_string();
    assert!(shown.contains("STARMINER_FUZZ_TARGET=broken STARMINER_FUZZ_INPUT="), "{shown}");
    let again = run(&BROKEN, &[b"x0123456789".to_vec()], 100_000, 1).expect_err("and found again");
    assert_eq!(again.input, failure.input, "the same seed finds the same input");
}
