//! `wasi:random`: a stream that follows from a seed, unless real randomness was granted.
//!
//! Programs ask for random bytes before they do anything (the hash maps of Rust and Go, the stack protector of C), so
//! refusing them is no option. The seeded stream is **not random to anyone who knows the seed**: a program must not make
//! keys from it, and one that has to needs the grant.

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use wasmtime::Result;
use zeroize::Zeroizing;

use super::TaskState;
use super::bindings::wasi::random::{insecure, insecure_seed, random};
use crate::HostFault;

/// Seed of the streams of a task.
#[derive(Clone)]
pub struct RandomSeed(Zeroizing<[u8; 32]>);

impl RandomSeed {
    /// A seed; the caller derives it from the task, so that a run repeats and two tasks differ.
    pub fn new(bytes: [u8; 32]) -> Self {
        RandomSeed(Zeroizing::new(bytes))
    }
}

impl std::fmt::Debug for RandomSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RandomSeed(..)")
    }
}

/// Where a task's random bytes come from.
#[derive(Debug, Clone)]
pub enum RandomGrant {
    /// Deterministic streams from a seed; a run repeats.
    Seeded(RandomSeed),
    /// The operating system's generator.
    Host,
}

/// Most bytes that one call may ask for.
const MAX_CALL_BYTES: u64 = 16 << 20;

/// The generators behind the three interfaces. They do not draw from one another.
pub(crate) struct RandomStreams {
    random: Generator,
    insecure: Generator,
    seed: Generator,
}

enum Generator {
    Host(SystemRandom),
    Seeded(Seeded),
}

/// SHA-256 over (domain, seed, stream name, counter): block by block.
struct Seeded {
    seed: RandomSeed,
    stream: &'static str,
    counter: u64,
    block: Zeroizing<[u8; 32]>,
    used: usize,
}

impl RandomStreams {
    pub(crate) fn new(grant: &RandomGrant) -> Self {
        let generator = |stream| match grant {
            RandomGrant::Host => Generator::Host(SystemRandom::new()),
            RandomGrant::Seeded(seed) => Generator::Seeded(Seeded {
                seed: seed.clone(),
                stream,
                counter: 0,
                block: Zeroizing::new([0; 32]),
                used: 32,
            }),
        };
        RandomStreams { random: generator("random"), insecure: generator("insecure"), seed: generator("insecure-seed") }
    }
}

impl Generator {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        match self {
            Generator::Host(system) => system.fill(buffer).map_err(|_| HostFault::RANDOM.into()),
            Generator::Seeded(seeded) => {
                seeded.fill(buffer);
                Ok(())
            }
        }
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        if len > MAX_CALL_BYTES {
            return Err(wasmtime::format_err!("more than {MAX_CALL_BYTES} random bytes asked for in one call"));
        }
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Seeded {
    fn fill(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            if self.used == self.block.len() {
                self.next_block();
            }
            let step = buffer.len().min(self.block.len() - self.used);
            buffer[..step].copy_from_slice(&self.block[self.used..self.used + step]);
            self.used += step;
            buffer = &mut buffer[step..];
        }
    }

    fn next_block(&mut self) {
        let mut hash = Context::new(&SHA256);
        hash.update(b"starminer/guest-random/v1\0");
        for field in [&self.seed.0[..], self.stream.as_bytes(), &self.counter.to_be_bytes()] {
            hash.update(&(field.len() as u32).to_be_bytes());
            hash.update(field);
        }
        self.block.copy_from_slice(hash.finish().as_ref());
        self.counter += 1;
        self.used = 0;
    }
}

impl random::Host for TaskState {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.shared.pace(usize::try_from(len).unwrap_or(usize::MAX))?;
        self.random.random.bytes(len)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        self.random.random.number()
    }
}

impl insecure::Host for TaskState {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        self.shared.pace(usize::try_from(len).unwrap_or(usize::MAX))?;
        self.random.insecure.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        self.random.insecure.number()
    }
}

impl insecure_seed::Host for TaskState {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok((self.random.seed.number()?, self.random.seed.number()?))
    }
}
