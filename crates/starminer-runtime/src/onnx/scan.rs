//! A look at a model before anything is decoded: is it one, is it within bounds, and does it ask for what this engine
//! does not do. Decoding can take a hundred times a message's bytes in memory, so the counting comes first.
//!
//! Field numbers are those of `onnx.proto3`, IR version 13.

use super::wire::{Fields, Malformed, Value};
use crate::Refusal;

/// Largest model file, in bytes.
pub const MAX_MODEL_BYTES: u64 = 256 << 20;
/// Most operators in a model: planning compares each with each.
pub const MAX_NODES: usize = 10_000;
/// Most names, attributes, tensors and other parts of a graph together.
const MAX_PARTS: usize = 1_000_000;

/// Operators that draw random numbers: their results are not the model's alone.
const RANDOM_OPERATORS: [&str; 6] =
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

struct Scan<'k> {
    parts: usize,
    nodes: usize,
    knows: &'k dyn Fn(&str) -> bool,
}

enum Found {
    Malformed,
    Refused(Refusal),
}

impl From<Malformed> for Found {
    fn from(Malformed: Malformed) -> Self {
        Found::Malformed
    }
}

/// Checks `model`. `knows` says whether the engine has an operator of a name.
pub(super) fn scan(model: &[u8], knows: &dyn Fn(&str) -> bool) -> Result<(), Refusal> {
    let mut scan = Scan { parts: 0, nodes: 0, knows };
    scan.model(model).map_err(|found| match found {
        Found::Malformed => Refusal::new("engine.onnx.not-a-model", "the file is not an ONNX model"),
        Found::Refused(refusal) => refusal,
    })
}

impl Scan<'_> {
    fn model(&mut self, bytes: &[u8]) -> Result<(), Found> {
        let mut has_version = false;
        let mut graph = None;
        for field in Fields(bytes) {
            match self.count(field)? {
                (1, Value::Varint(version)) => has_version = version > 0,
                (7, Value::Bytes(found)) if graph.is_none() => graph = Some(found),
                // A second graph would be merged into the first on decoding, past this check.
                (7, _) => return Err(Found::Malformed),
                (20, _) => return Err(unsupported("training information")),
                (25, _) => return Err(unsupported("functions of its own")),
                _ => {}
            }
        }
        let graph = graph.filter(|_| has_version).ok_or(Found::Malformed)?;
        for field in Fields(graph) {
            match self.count(field)? {
                (1, Value::Bytes(node)) => self.node(node)?,
                (5, Value::Bytes(tensor)) => self.tensor(tensor)?,
                (15, _) => return Err(unsupported("sparse tensors")),
                _ => {}
            }
        }
        if self.nodes == 0 { Err(Found::Malformed) } else { Ok(()) }
    }

    fn node(&mut self, bytes: &[u8]) -> Result<(), Found> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(too_large("it has more than 10,000 operators"));
        }
        let mut operator = "";
        for field in Fields(bytes) {
            match self.count(field)? {
                (4, Value::Bytes(name)) => operator = std::str::from_utf8(name).map_err(|_| Malformed)?,
                (7, Value::Bytes(domain)) if !matches!(domain, b"" | b"ai.onnx" | b"ai.onnx.ml") => {
                    return Err(unsupported_operator(String::from_utf8_lossy(domain)));
                }
                (5, Value::Bytes(attribute)) => self.attribute(attribute)?,
                _ => {}
            }
        }
        if !(self.knows)(operator) || RANDOM_OPERATORS.contains(&operator) {
            return Err(unsupported_operator(operator));
        }
        Ok(())
    }

    fn attribute(&mut self, bytes: &[u8]) -> Result<(), Found> {
        for field in Fields(bytes) {
            match self.count(field)? {
                (5 | 10, Value::Bytes(tensor)) => self.tensor(tensor)?,
                (6 | 11, _) => return Err(unsupported_operator("If, Loop or Scan")),
                (22 | 23, _) => return Err(unsupported("sparse tensors")),
                _ => {}
            }
        }
        Ok(())
    }

    fn tensor(&mut self, bytes: &[u8]) -> Result<(), Found> {
        let mut elements: u64 = 1;
        for field in Fields(bytes) {
            match self.count(field)? {
                (1, Value::Varint(dimension)) => elements = elements.checked_mul(dimension).ok_or(Malformed)?,
                (1, Value::Bytes(packed)) => {
                    // Packed numbers are varints without tags; as fields they read with a tag put before each.
                    for dimension in packed_varints(packed) {
                        elements = elements.checked_mul(dimension?).ok_or(Malformed)?;
                    }
                }
                (13, _) | (14, Value::Varint(1)) => return Err(unsupported("tensors outside the model file")),
                _ => {}
            }
        }
        // The densest element takes half a byte: a tensor cannot have more than two in each byte of its message.
        if elements > 2 * bytes.len() as u64 { Err(Found::Malformed) } else { Ok(()) }
    }

    /// Counts a field that will be an allocation of its own when decoded.
    fn count<'b>(&mut self, field: Result<(u64, Value<'b>), Malformed>) -> Result<(u64, Value<'b>), Found> {
        let field = field?;
        if matches!(field.1, Value::Bytes(_)) {
            self.parts += 1;
            if self.parts > MAX_PARTS {
                return Err(too_large("it has more than a million parts"));
            }
        }
        Ok(field)
    }
}

fn packed_varints(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64, Malformed>> {
    std::iter::from_fn(move || {
        let end = bytes.iter().position(|byte| *byte < 0x80);
        let (number, rest) = match (bytes.is_empty(), end) {
            (true, _) => return None,
            (_, Some(end)) if end < 10 => bytes.split_at(end + 1),
            _ => {
                bytes = &[];
                return Some(Err(Malformed));
            }
        };
        bytes = rest;
        let value = number.iter().rev().fold(0_u64, |value, byte| (value << 7) | u64::from(byte & 0x7f));
        Some(Ok(value))
    })
}

fn too_large(detail: &str) -> Found {
    Found::Refused(
        Refusal::new("engine.onnx.too-large", "the model exceeds the engine's bounds on size").with_detail(detail),
    )
}

fn unsupported(what: &str) -> Found {
    Found::Refused(
        Refusal::new("engine.onnx.unsupported-model", "the model uses what this engine does not support")
            .with_detail(what),
    )
}

fn unsupported_operator(name: impl std::fmt::Display) -> Found {
    Found::Refused(
        Refusal::new("engine.onnx.unsupported-op", "the model uses an operator that this engine does not run")
            .with_detail(name),
    )
}
