//! From the bytes of a model to something that runs a batch of rows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid as _;
use tract_onnx::tract_hir::internal::DimLike as _;

use super::scan::scan;
use crate::Refusal;

/// Most features of one row.
pub const MAX_FEATURES: usize = 1 << 16;

/// A model that was parsed and found fit for this engine.
pub(super) struct Model {
    parsed: InferenceModel,
    features: usize,
    /// Rows that the graph asks for, where it fixes them.
    fixed_rows: Option<usize>,
    memory_bytes: u64,
    plans: Vec<(usize, Arc<TypedSimplePlan>)>,
}

/// Two plans at most are ever of use: one for full batches, one for the last.
const MAX_PLANS: usize = 2;

/// Results of one batch.
pub(super) struct Batch {
    /// One for each row, where the model has an integer output.
    pub(super) labels: Option<Vec<i64>>,
    /// `columns` for each row, where the model has a float output.
    pub(super) scores: Option<Scores>,
}

pub(super) struct Scores {
    pub(super) columns: usize,
    pub(super) values: Vec<f32>,
}

/// Whether the engine takes a model, and how many features it asks for: for a requester who wants to know before sealing it.
///
/// # Errors
/// The refusal that a run would end with, as far as it can be known without data.
pub fn check_model(bytes: &[u8], memory_bytes: u64) -> Result<usize, Refusal> {
    let mut model = Model::parse(bytes, memory_bytes)?;
    model.plan(model.batch_rows(1))?;
    Ok(model.features())
}

/// Refuses to look anywhere outside the model; `scan` has already refused a model that asks for it.
struct NoOtherFiles;

impl ModelDataResolver for NoOtherFiles {
    fn read_bytes_from_path(&self, _: &mut Vec<u8>, _: &Path, _: usize, _: Option<usize>) -> TractResult<()> {
        Err(TractError::msg("tensors outside the model file are not supported"))
    }
}

impl Model {
    /// Parses a model. `memory_bytes` bounds what its tensors may take for one batch.
    pub(super) fn parse(bytes: &[u8], memory_bytes: u64) -> Result<Model, Refusal> {
        let mut onnx = tract_onnx::onnx();
        onnx.provider = Arc::new(NoOtherFiles);
        scan(bytes, &|operator| onnx.op_register.0.contains_key(operator))?;
        let parsed = contained(|| onnx.model_for_read(&mut &*bytes))?;
        let inputs = parsed.input_outlets().map_err(|error| unusable(&error))?;
        let &[input] = inputs else {
            return Err(shape(format_args!("{} inputs instead of one", inputs.len())));
        };
        let fact = parsed.outlet_fact(input).map_err(|error| unusable(&error))?;
        if fact.datum_type.concretize().is_some_and(|kind| kind != f32::datum_type()) {
            return Err(shape("an input that is not float32"));
        }
        let dimensions: Vec<Option<usize>> = fact
            .shape
            .dims()
            .map(|dimension| dimension.concretize().and_then(|dimension| dimension.to_usize().ok()))
            .collect();
        let (fixed_rows, features) = match dimensions[..] {
            [rows, Some(features)] if !fact.shape.is_open() => (rows, features),
            _ => return Err(shape("an input that is not [N, F] with F given")),
        };
        if !(1..=MAX_FEATURES).contains(&features) {
            return Err(shape(format_args!("{features} features")));
        }
        if fixed_rows == Some(0) {
            return Err(shape("an input of no rows"));
        }
        Ok(Model { parsed, features, fixed_rows, memory_bytes, plans: Vec::new() })
    }

    pub(super) fn features(&self) -> usize {
        self.features
    }

    /// Rows to give in one batch, `usual` unless the graph fixes another number.
    pub(super) fn batch_rows(&self, usual: usize) -> usize {
        self.fixed_rows.unwrap_or(usual)
    }

    /// Runs `rows` rows of features, one after another.
    pub(super) fn run(&mut self, rows: usize, features: Vec<f32>) -> Result<Batch, Refusal> {
        let plan = self.plan(rows)?;
        let outputs = contained(|| {
            let input = tract_ndarray::Array2::from_shape_vec((rows, features.len() / rows.max(1)), features)?;
            plan.run(tvec![Tensor::from(input).into_tvalue()])
        })?;
        let mut batch = Batch { labels: None, scores: None };
        for output in outputs {
            let per_row = |len: usize| {
                (len.is_multiple_of(rows) && len > 0)
                    .then_some(len / rows)
                    .ok_or_else(|| shape("an output without a value for each row"))
            };
            if batch.labels.is_none() && output.datum_type().is_integer() {
                let labels = output.cast_to::<i64>().map_err(|error| unusable(&error))?;
                let labels = labels.to_plain_array_view::<i64>().map_err(|error| unusable(&error))?;
                if per_row(labels.len())? != 1 {
                    return Err(shape("more than one label for a row"));
                }
                batch.labels = Some(labels.iter().copied().collect());
            } else if batch.scores.is_none() && output.datum_type().is_float() {
                let values = output.cast_to::<f32>().map_err(|error| unusable(&error))?;
                let values = values.to_plain_array_view::<f32>().map_err(|error| unusable(&error))?;
                let columns = per_row(values.len())?;
                if columns > MAX_FEATURES || output.shape().first() != Some(&rows) {
                    return Err(shape("an output that is not [N] or [N, K]"));
                }
                batch.scores = Some(Scores { columns, values: values.iter().copied().collect() });
            }
        }
        if batch.labels.is_none() && batch.scores.is_none() {
            return Err(shape("neither a label nor a score among its outputs"));
        }
        Ok(batch)
    }

    fn plan(&mut self, rows: usize) -> Result<Arc<TypedSimplePlan>, Refusal> {
        if let Some((_, plan)) = self.plans.iter().find(|(of, _)| *of == rows) {
            return Ok(plan.clone());
        }
        let model = self.parsed.clone();
        let features = self.features;
        let optimized = contained(|| {
            model.with_input_fact(0, InferenceFact::dt_shape(f32::datum_type(), [rows, features]))?.into_optimized()
        })?;
        let mut needed: u64 = 0;
        for node in optimized.nodes() {
            for output in &node.outputs {
                let elements = output.fact.shape.iter().fold(1, |elements: u64, dimension| {
                    elements.saturating_mul(dimension.to_usize().map_or(u64::MAX, |dimension| dimension as u64))
                });
                needed = needed.saturating_add(elements.saturating_mul(output.fact.datum_type.size_of() as u64));
            }
        }
        if needed > self.memory_bytes {
            return Err(Refusal::new("engine.onnx.memory-limit", "the model's tensors exceed the task's memory limit"));
        }
        let plan = contained(|| optimized.into_runnable())?;
        if self.plans.len() == MAX_PLANS {
            self.plans.remove(0);
        }
        self.plans.push((rows, plan.clone()));
        Ok(plan)
    }
}

/// Runs code of tract over a stranger's model: an error or a panic in it is the model's refusal.
fn contained<T>(work: impl FnOnce() -> TractResult<T>) -> Result<T, Refusal> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| unusable(&error)),
        Err(_) => {
            Err(Refusal::new("engine.onnx.unsupported-model", "the model uses what this engine does not support"))
        }
    }
}

fn unusable(error: &TractError) -> Refusal {
    Refusal::new("engine.onnx.unsupported-model", "the model uses what this engine does not support")
        .with_detail(format_args!("{error:#}"))
}

fn shape(found: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        "engine.onnx.shape-mismatch",
        "the model must map one float32 tensor [N, F] to a label or scores for each of N rows",
    )
    .with_detail(format_args!("it has {found}"))
}
