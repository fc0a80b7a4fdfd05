//! One fuzz target for every parser of untrusted bytes.
//!
//! [`TARGETS`] is the table: a name, what it takes, how many damaged inputs a test run tries, and a function that takes
//! any bytes and must return. A target does more than call its parser: where a format has one encoding it asserts that
//! what was read writes back to the same bytes, and where something is authenticated it asserts that nothing is accepted
//! which the keys of [`world`] did not make.
//!
//! The same table is driven twice: by `tests/corpus.rs` on stable Rust (every seed of `corpus/`, then a seeded run,
//! [`campaign`]), and by libFuzzer with coverage (`libfuzzer/`, a package of its own). `README.md` has the commands.
//!
//! Not here: properties of honest input, which the crates' own tests have.

pub mod campaign;
pub mod forge;
pub mod hardware;
pub mod json;
pub mod mutate;
pub mod random;
pub mod seeds;
mod targets;
pub mod world;

use std::hash::{Hash, Hasher};

pub use targets::TARGETS;

/// One parser, or one family of parsers that take the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its directory under `corpus/` and of its file under `libfuzzer/fuzz_targets/`.
    pub name: &'static str,
    /// What the bytes are, and what is asserted.
    pub about: &'static str,
    /// Damaged inputs of an ordinary test run: about a second's worth.
    pub runs: u64,
    /// The target itself.
    pub function: fn(&[u8]) -> Outcome,
}

impl Target {
    /// The target of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Runs it.
    ///
    /// # Panics
    /// On a defect of the parser: that is what it is for.
    pub fn run(&self, input: &[u8]) -> Outcome {
        (self.function)(input)
    }
}

/// Runs the target of that name: the one line of each file under `libfuzzer/`.
///
/// # Panics
/// On a defect of the parser, and where there is no such target.
pub fn run(name: &str, input: &[u8]) {
    Target::find(name).expect("a target of the table").run(input);
}

/// What an input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether something was accepted: a corpus with no such seed has rotted.
    pub accepted: bool,
    /// Stands for the place that was reached: equal where nothing new was seen.
    pub reached: u64,
}

impl Outcome {
    /// Accepted; `what` is what may be told of it, coarse enough that most inputs agree.
    pub fn accepted(what: impl Hash) -> Self {
        Self { accepted: true, reached: fingerprint(&(true, what)) }
    }

    /// Refused; `why` is the refusal's code.
    pub fn refused(why: impl Hash) -> Self {
        Self { accepted: false, reached: fingerprint(&(false, why)) }
    }

    /// The outcome of a result, refused by the code that `code` takes from the error.
    pub fn of<T, E, C: Hash>(result: &Result<T, E>, code: impl FnOnce(&E) -> C) -> Self {
        match result {
            Ok(_) => Self::accepted(0),
            Err(error) => Self::refused(code(error)),
        }
    }

    /// Both outcomes of one input: accepted if either was.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { accepted: self.accepted || other.accepted, reached: fingerprint(&(self.reached, other.reached)) }
    }
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = Fnv(FNV_START);
    value.hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a over `bytes`: the same in every build, unlike the standard library's hasher.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hasher = Fnv(FNV_START);
    hasher.write(bytes);
    hasher.finish()
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
