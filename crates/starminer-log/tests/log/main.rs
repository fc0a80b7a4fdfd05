//! The public API of `starminer-log`: vectors, the tree against a naive one, notes and memory, damaged input.

#![allow(clippy::unwrap_used)]

mod naive;
mod notes;
mod strangers;
mod tree;
mod vectors;
mod world;
