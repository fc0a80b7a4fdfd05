//! The file system by itself: tables of single operations, and long random runs against a plain model.

#![allow(clippy::unwrap_used)]

mod damage;
mod model;
mod operations;
mod random_runs;
mod store;
