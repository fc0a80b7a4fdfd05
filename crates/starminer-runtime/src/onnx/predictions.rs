//! The CSV that a run writes: an identifier, the label, the scores of each row.

use super::csv::push_field;
use super::plan::Batch;

/// Builds `predictions.csv` batch by batch.
pub(super) struct Predictions {
    id_header: Vec<u8>,
    header_written: bool,
}

impl Predictions {
    /// `id_header` is the name of the input's id column, or `row`.
    pub(super) fn new(id_header: &[u8]) -> Self {
        Predictions { id_header: id_header.to_vec(), header_written: false }
    }

    /// Goes on where the header may stand already.
    pub(super) fn go_on(&mut self, header_written: bool) {
        self.header_written = header_written;
    }

    /// Appends a batch to `out`; the first one brings the header, which depends on the outputs.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, ids: &[Vec<u8>], batch: &Batch) {
        if !self.header_written {
            self.header(out, batch);
        }
        for (row, id) in ids.iter().enumerate() {
            push_field(out, id);
            if let Some(labels) = &batch.labels {
                out.push(b',');
                out.extend_from_slice(labels[row].to_string().as_bytes());
            }
            if let Some(scores) = &batch.scores {
                for score in &scores.values[row * scores.columns..(row + 1) * scores.columns] {
                    out.push(b',');
                    // The shortest decimal that reads back as the same float32.
                    out.extend_from_slice(score.to_string().as_bytes());
                }
            }
            out.push(b'\n');
        }
    }

    fn header(&mut self, out: &mut Vec<u8>, batch: &Batch) {
        self.header_written = true;
        push_field(out, &self.id_header);
        if batch.labels.is_some() {
            out.extend_from_slice(b",label");
        }
        match &batch.scores {
            None => {}
            Some(scores) if scores.columns == 1 => out.extend_from_slice(b",probability"),
            Some(scores) => {
                for column in 0..scores.columns {
                    out.extend_from_slice(format!(",probability_{column}").as_bytes());
                }
            }
        }
        out.push(b'\n');
    }
}
