//! The ONNX engine: one model, one CSV file in, one CSV file out, in batches.
//!
//! The model is a graph from a float32 tensor `[N, F]` to a label for each row (int64 `[N]`), to scores for each row
//! (float32 `[N, K]`), or both; which output is which is told by its type. Preparation of the data, such as
//! standardisation, belongs into the graph. The contract is in `specs/engines.md`.
//!
//! Fuel does not apply; a stop is kept between batches. Results are what tract computes with the kernels of this CPU:
//! they are **not** claimed to be bit-comparable across machines. Control flow, randomness and data outside the model
//! file are refused, so that a batch ends and a run needs nothing but its inputs.

mod csv;
mod plan;
mod predictions;
mod run;
mod scan;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use csv::read_all as read_all_csv;
pub use csv::{MAX_COLUMNS, MAX_LINE_BYTES};
pub use plan::{MAX_FEATURES, check_model};
pub use run::{BATCH_ROWS, OnnxConfig, OnnxOutcome, OnnxRequest, run};
pub use scan::{MAX_MODEL_BYTES, MAX_NODES};
