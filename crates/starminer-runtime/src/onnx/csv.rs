//! Reading CSV (RFC 4180) line by line out of a file that may be larger than memory.
//!
//! A header row names the columns. Errors name a row and a column by number and never quote what stands there: it is a
//! stranger's data.

use std::borrow::Cow;
use std::ops::Range;

use zeroize::Zeroizing;

use crate::Refusal;

/// Longest line, in bytes.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// Most columns.
pub const MAX_COLUMNS: usize = 1 << 16;

/// Where a file cannot be read as CSV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CsvError {
    /// Line in the file, the header being 1.
    pub(super) row: u64,
    /// Column, from 1; 0 where the line as a whole is meant.
    pub(super) column: usize,
    pub(super) problem: CsvProblem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CsvProblem {
    NoHeader,
    LineTooLong,
    TooManyColumns,
    ColumnCount { expected: usize, found: usize },
    Quote,
    NotANumber,
}

impl std::fmt::Display for CsvProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CsvProblem::NoHeader => f.write_str("the file has no header row"),
            CsvProblem::LineTooLong => write!(f, "the line is longer than {MAX_LINE_BYTES} bytes"),
            CsvProblem::TooManyColumns => write!(f, "there are more than {MAX_COLUMNS} columns"),
            CsvProblem::ColumnCount { expected, found } => write!(f, "{found} columns where the header has {expected}"),
            CsvProblem::Quote => f.write_str("a quote is not closed, or stands where none can"),
            CsvProblem::NotANumber => f.write_str("not a finite decimal number"),
        }
    }
}

impl From<CsvError> for Refusal {
    fn from(error: CsvError) -> Self {
        Refusal::new("engine.onnx.csv-malformed", "the input is not the CSV that the model needs")
            .with_detail(format_args!("row {}, column {}: {}", error.row, error.column, error.problem))
    }
}

/// Cuts pieces of a file into lines. A line break inside quotes is part of the field, and of the line.
pub(super) struct Lines {
    pending: Zeroizing<Vec<u8>>,
    /// The current line within `pending`, without its line break.
    line: Range<usize>,
    /// Bytes of `pending` that are behind us, the current line included.
    taken: usize,
    /// Bytes of `pending` that were searched for a line break, and whether they left a quote open.
    searched: usize,
    in_quotes: bool,
    ended: bool,
    row: u64,
}

impl Lines {
    pub(super) fn new() -> Self {
        Lines {
            pending: Zeroizing::new(Vec::new()),
            line: 0..0,
            taken: 0,
            searched: 0,
            in_quotes: false,
            ended: false,
            row: 0,
        }
    }

    /// Adds the next piece of the file; an empty one is its end. The current line is gone.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.pending.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.line = 0..0;
        self.pending.extend_from_slice(piece);
        self.ended = piece.is_empty();
    }

    /// Whether the end was fed.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Goes to the next line that is not empty. False if more must be fed or, after the end, nothing is left.
    pub(super) fn advance(&mut self) -> Result<bool, CsvError> {
        loop {
            let start = self.taken;
            let end = match self.line_break() {
                Some(end) => {
                    self.searched = end + 1;
                    end
                }
                None if self.ended && start < self.pending.len() && !self.in_quotes => self.pending.len(),
                None => {
                    let problem = if self.pending.len() - start > MAX_LINE_BYTES {
                        CsvProblem::LineTooLong
                    } else if self.ended && self.in_quotes {
                        CsvProblem::Quote
                    } else {
                        return Ok(false);
                    };
                    return Err(CsvError { row: self.row + 1, column: 0, problem });
                }
            };
            self.taken = self.searched;
            self.row += 1;
            if end - start > MAX_LINE_BYTES {
                return Err(CsvError { row: self.row, column: 0, problem: CsvProblem::LineTooLong });
            }
            let line = &self.pending[start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                self.line = start..start + line.len();
                return Ok(true);
            }
        }
    }

    /// The current line and its number in the file.
    pub(super) fn line(&self) -> (u64, &[u8]) {
        (self.row, &self.pending[self.line.clone()])
    }

    fn line_break(&mut self) -> Option<usize> {
        while let Some(&byte) = self.pending.get(self.searched) {
            match byte {
                b'"' => self.in_quotes = !self.in_quotes,
                b'\n' if !self.in_quotes => return Some(self.searched),
                _ => {}
            }
            self.searched += 1;
        }
        None
    }
}

/// Splits a line into fields, quotes removed. `fields` is cleared first.
pub(super) fn split<'l>(row: u64, line: &'l [u8], fields: &mut Vec<Cow<'l, [u8]>>) -> Result<(), CsvError> {
    fields.clear();
    let mut rest = line;
    loop {
        let error = |problem| CsvError { row, column: fields.len() + 1, problem };
        if fields.len() == MAX_COLUMNS {
            return Err(error(CsvProblem::TooManyColumns));
        }
        let (field, after) = if rest.first() == Some(&b'"') {
            quoted(&rest[1..]).ok_or(error(CsvProblem::Quote))?
        } else {
            let end = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
            if rest[..end].contains(&b'"') {
                return Err(error(CsvProblem::Quote));
            }
            (rest[..end].into(), &rest[end..])
        };
        fields.push(field);
        match after.split_first() {
            None => return Ok(()),
            Some((_, following)) => rest = following, // the comma
        }
    }
}

/// The field whose opening quote was before `bytes`, and what follows its closing one: a comma, or nothing.
fn quoted(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut unescaped: Option<Vec<u8>> = None;
    let mut start = 0;
    loop {
        let quote = start + bytes[start..].iter().position(|&byte| byte == b'"')?;
        let part = &bytes[start..quote];
        match bytes.get(quote + 1) {
            Some(b'"') => {
                let text = unescaped.get_or_insert_default();
                text.extend_from_slice(part);
                text.push(b'"');
                start = quote + 2;
            }
            None | Some(b',') => {
                let field = match unescaped {
                    None => part.into(),
                    Some(mut text) => {
                        text.extend_from_slice(part);
                        text.into()
                    }
                };
                return Some((field, &bytes[quote + 1..]));
            }
            Some(_) => return None,
        }
    }
}

/// Reads all of `text`, fed in pieces of `piece` bytes, up to its first error.
pub(crate) fn read_all(text: &[u8], piece: usize) {
    let mut lines = Lines::new();
    let mut pieces = text.chunks(piece);
    loop {
        match lines.advance() {
            Err(_) => return,
            Ok(true) => {
                let (row, line) = lines.line();
                let mut fields = Vec::new();
                if split(row, line, &mut fields).is_err() {
                    return;
                }
                fields.iter().for_each(|field| {
                    number(field);
                });
            }
            Ok(false) if lines.has_ended() => return,
            Ok(false) => lines.feed(pieces.next().unwrap_or_default()),
        }
    }
}

/// A finite decimal number, blanks around it allowed.
pub(super) fn number(field: &[u8]) -> Option<f32> {
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\t']);
    let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|number: &f32| plain && number.is_finite())
}

/// Appends a field, quoted where it has to be.
pub(super) fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    if !field.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
        out.extend_from_slice(field);
        return;
    }
    out.push(b'"');
    for &byte in field {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}
