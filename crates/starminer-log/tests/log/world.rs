//! A log in memory with known keys, for tests.

use starminer_log::*;

pub const ORIGIN: &str = "log.example/test";

pub fn name(text: &str) -> KeyName {
    KeyName::parse(text).unwrap()
}

pub fn log_signer() -> LogSigner {
    LogSigner::from_seed(name(ORIGIN), &[1; 32])
}

pub fn witness_signer(number: u8) -> WitnessSigner {
    WitnessSigner::from_seed(name(&format!("witness.example/w{number}")), &[100 + number; 32])
}

pub fn entries(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| format!("entry {n}").into_bytes()).collect()
}

pub fn sign(size: u64, root: Hash) -> VerifiedCheckpoint {
    let signer = log_signer();
    let checkpoint = Checkpoint::new(name(ORIGIN), size, root).unwrap();
    checkpoint.sign(&signer).unwrap().verify(&signer.key()).unwrap()
}

/// Stored hashes and frontier of a tree of these entries.
pub fn build(entries: &[Vec<u8>]) -> (Vec<Hash>, Frontier) {
    let batch = Frontier::empty().append(entries).unwrap();
    (batch.hashes().to_vec(), batch.into_frontier())
}

pub fn checkpoint_of(entries: &[Vec<u8>]) -> VerifiedCheckpoint {
    let (_, frontier) = build(entries);
    sign(frontier.size(), frontier.root())
}
