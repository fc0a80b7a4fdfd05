//! Evidence: parse, verify, appraise.
//!
//! Pure: no clock, network, file or randomness; `now` is an input.

#![forbid(unsafe_code)]

mod types;

pub use types::{
    Attempt, BootId, Challenge, Digest, NetworkId, NodeId, ParseIdError, PublicKey, TaggedHasher, TaskId, UnixTime, tagged_hash,
};
