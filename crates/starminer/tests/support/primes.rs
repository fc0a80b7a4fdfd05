//! `examples/primes`, which keeps its progress in `/state`.

use starminer_receipt::Limits;
use starminer_requester::JobPlan;

use super::{Network, example};

/// Counts the primes below `limit`, and commits every `step` numbers.
pub fn primes_job(network: &Network, limit: u64, step: u64) -> JobPlan {
    let mut job = network.wasm_job(example("primes/primes.wasm"), &[]);
    job.wasm.as_mut().unwrap().args = vec![limit.to_string(), step.to_string()];
    job.limits = Limits { state_bytes: 1 << 20, ..job.limits };
    job.max_attempts = 20;
    job
}

/// What it writes, by another way.
pub fn primes_text(limit: u64) -> String {
    let size = usize::try_from(limit).unwrap();
    let mut composite = vec![false; size];
    let (mut count, mut sum) = (0_u64, 0_u64);
    for n in 2..size {
        if !composite[n] {
            (count, sum) = (count + 1, sum + n as u64);
            (n * n..size).step_by(n).for_each(|multiple| composite[multiple] = true);
        }
    }
    format!("{count} primes below {limit}, sum {sum}\n")
}
