//! What the log costs, as a multiple of the SHA-256 work that no implementation can avoid, taken in the same run.
//!
//! For each case the baseline hashes the same number of leaves and inner nodes with AWS-LC, one call each and nothing
//! else. Rounds of baseline and case alternate, so that a change of clock speed hits both; the medians are compared.
//! Run with `cargo bench -p starminer-log`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use starminer_log::{
    Checkpoint, Frontier, Hash, InclusionProof, KeyName, LogSigner, VerifiedCheckpoint, prove_inclusion,
};

/// Size of the tree that is appended to and proven against: 20 levels, as after two hours at full rate.
const TREE_SIZE: u64 = 1_000_000;
/// A typical entry: a commitment with its names and times.
const ENTRY_LEN: usize = 400;
const ROUNDS: usize = 31;

fn main() {
    // `cargo test --benches` runs this too, with an argument of its own; one short round shows that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let (rounds, calls) = if measured { (ROUNDS, 2000) } else { (1, 1) };

    let mut stored = Vec::new();
    let mut frontier = Frontier::empty();
    while frontier.size() < TREE_SIZE {
        let first = frontier.size();
        let entries: Vec<_> = (first..TREE_SIZE.min(first + 1000)).map(entry).collect();
        let batch = frontier.append(&entries).expect("entries are short");
        stored.extend_from_slice(batch.hashes());
        frontier = batch.into_frontier();
    }

    println!("{:<28} {:>10} {:>10} {:>7}", "case", "raw", "ours", "ratio");
    for size in [1, 6, 64] {
        let entries = vec![vec![0x5a; ENTRY_LEN]; size];
        let nodes = frontier.append(&entries).expect("entries are short").hashes().len() - size;
        // The new root costs one node for each peak but one.
        let nodes = nodes + frontier.append(&entries).expect("entries are short").frontier().peaks().len() - 1;
        let raw = || hash_raw(size, nodes);
        let ours = || consume(black_box(frontier.append(black_box(&entries)).expect("entries are short")));
        report(&format!("append, batch of {size}"), rounds, calls, raw, ours);
    }

    let checkpoint = signed(&frontier);
    let entry = entry(123_456);
    let proof: InclusionProof = prove_inclusion(TREE_SIZE, 123_456, &stored).expect("the tree has it");
    let raw = || hash_raw(1, proof.hashes().len());
    let ours = || consume(black_box(checkpoint.verify_inclusion(black_box(&entry), &proof).expect("it is included")));
    report("verify inclusion, 20 levels", rounds, calls, raw, ours);

    let note = checkpoint.signed().clone();
    let key = checkpoint.key().clone();
    let raw = || hash_raw(1, 0);
    let ours = || consume(black_box(note.verify(black_box(&key)).expect("it is signed")));
    report("verify a checkpoint (Ed25519)", rounds, calls.min(200), raw, ours);
}

fn entry(index: u64) -> [u8; ENTRY_LEN] {
    let mut entry = [0x5a; ENTRY_LEN];
    entry[..8].copy_from_slice(&index.to_be_bytes());
    entry
}

fn signed(frontier: &Frontier) -> VerifiedCheckpoint {
    let origin = KeyName::parse("log.example/bench").expect("a name");
    let signer = LogSigner::from_seed(origin.clone(), &[7; 32]);
    let checkpoint = Checkpoint::new(origin, frontier.size(), frontier.root()).expect("a size within bounds");
    checkpoint.sign(&signer).expect("its own log").verify(&signer.key()).expect("its own key")
}

/// The hashing of `leaves` entries and `nodes` inner nodes, each from a buffer that is already laid out.
fn hash_raw(leaves: usize, nodes: usize) {
    let (leaf, node) = ([0u8; 1 + ENTRY_LEN], [1u8; 1 + 2 * size_of::<Hash>()]);
    for _ in 0..leaves {
        black_box(digest(&SHA256, black_box(&leaf)));
    }
    for _ in 0..nodes {
        black_box(digest(&SHA256, black_box(&node)));
    }
}

fn report(case: &str, rounds: usize, calls: u32, raw: impl Fn(), ours: impl Fn()) {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        times[0].push(time(calls, &raw));
        times[1].push(time(calls, &ours));
    }
    let [raw, ours] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    let ratio = ours.as_secs_f64() / raw.as_secs_f64();
    println!("{case:<28} {raw:>10.2?} {ours:>10.2?} {ratio:>7.2}");
}

/// Ends a result's life inside the measured call.
fn consume<T>(_: T) {}

/// Mean time of a call.
fn time(calls: u32, work: &impl Fn()) -> Duration {
    let start = Instant::now();
    (0..calls).for_each(|_| work());
    start.elapsed() / calls
}
