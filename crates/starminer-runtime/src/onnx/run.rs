//! The loop: read rows, run a batch, write predictions; ask between batches whether to go on, and keep what is done in `/state` where the task has one.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::csv::{CsvError, CsvProblem, Lines, number, split};
use super::plan::Model;
use super::predictions::Predictions;
use super::scan::MAX_MODEL_BYTES;
use crate::fs::{Descriptor, FsError, Grant, OpenHow, TaskFs};
use crate::wasm::RunEnd;
use crate::{HostFault, Refusal, Stop, StopSignal};

/// Rows in a batch, unless the model fixes another number.
pub const BATCH_ROWS: usize = 256;
/// Bytes read from the input at a time.
const READ_BYTES: usize = 64 * 1024;

/// What a specification says about an ONNX task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxConfig {
    /// Name of the input that is the model: `model.onnx`.
    pub model: String,
    /// Name of the input that is the data: `patients.csv`.
    pub input: String,
    /// Name of the output: `predictions.csv`.
    pub output: String,
    /// Column that names a row. It is copied to the output and kept from the model. Without it rows are numbered from 1.
    pub id_column: Option<String>,
    /// Columns that are no features. All others are, in the order of the file.
    pub ignore_columns: Vec<String>,
}

/// Everything about a run.
#[derive(Debug)]
pub struct OnnxRequest {
    /// Names of files and columns.
    pub config: OnnxConfig,
    /// The task's files. They come back in the outcome.
    pub fs: TaskFs,
    /// Bound on the model's tensors for one batch.
    pub memory_bytes: u64,
    /// Asked between batches whether to go on.
    pub stop: StopSignal,
    /// How long to work between two commits of `/state`, where the task has one.
    pub commit_every: Duration,
}

/// What a run left.
#[derive(Debug)]
pub struct OnnxOutcome {
    /// How it ended: completed with code 0, refused, stopped, or a host fault.
    pub end: RunEnd,
    /// Rows predicted and written.
    pub rows: u64,
    /// The task's files, to read the output from. After any end but completion the output may be incomplete.
    pub fs: TaskFs,
}

/// Runs a model over a CSV file. Yields to the runtime after each batch; dropping the future ends the run and loses the
/// file system.
pub async fn run(request: OnnxRequest) -> OnnxOutcome {
    let OnnxRequest { config, mut fs, memory_bytes, stop, commit_every } = request;
    let mut rows = 0;
    let end = match predict(&config, &mut fs, (memory_bytes, commit_every), &stop, &mut rows).await {
        Ok(()) => RunEnd::Completed { exit_code: 0 },
        Err(End::Refused(refusal)) => RunEnd::Refused(refusal),
        Err(End::Stopped(stop)) => RunEnd::Stopped(stop),
        Err(End::Fault(fault)) => RunEnd::HostFault(fault),
    };
    OnnxOutcome { end, rows, fs }
}

enum End {
    Refused(Refusal),
    Stopped(Stop),
    Fault(HostFault),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        End::Refused(refusal)
    }
}
impl From<CsvError> for End {
    fn from(error: CsvError) -> Self {
        End::Refused(error.into())
    }
}
impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        End::Stopped(stop)
    }
}
impl From<FsError> for End {
    fn from(error: FsError) -> Self {
        match error {
            FsError::Host(fault) => End::Fault(fault),
            FsError::NoSpace => End::Refused(Refusal::new(
                "engine.onnx.output-quota",
                "the predictions exceed the task's quota of output bytes",
            )),
            // A file this engine opened itself answers nothing else.
            _ => End::Fault(HostFault::ENGINE),
        }
    }
}

async fn predict(
    config: &OnnxConfig,
    fs: &mut TaskFs,
    (memory_bytes, commit_every): (u64, Duration),
    stop: &StopSignal,
    rows: &mut u64,
) -> Result<(), End> {
    go_on(stop)?;
    let mut model = {
        let bytes = read_model(fs, &config.model)?;
        Model::parse(&bytes, memory_bytes)?
    };
    go_on(stop)?;
    let mut table = Table::open(fs, config, model.features())?;
    let output = create_output(fs, &config.output)?;
    let batch_rows = model.batch_rows(BATCH_ROWS);
    let mut predictions = Predictions::new(&table.id_header);
    let mut text = Zeroizing::new(Vec::new());
    let mut kept = Kept::find(fs, commit_every)?;
    if let Some(kept) = &mut kept {
        *rows = kept.restore(fs, &output)?;
        table.skip(fs, *rows)?;
        predictions.go_on(*rows > 0);
    }
    loop {
        let (ids, features) = table.read_batch(fs, batch_rows)?;
        if ids.is_empty() {
            break;
        }
        let (given, wanted) = (ids.len(), model.batch_rows(ids.len()));
        let batch = model.run(wanted, padded(features, given, wanted))?;
        text.clear();
        predictions.append(&mut text, &ids, &batch);
        fs.append(&output, &text)?;
        *rows += given as u64;
        kept = match kept {
            Some(kept) => kept.keep(fs, &output, *rows)?,
            None => None,
        };
        go_on(stop)?;
        tokio::task::yield_now().await;
    }
    if let Some(kept) = kept {
        kept.close(fs)?;
    }
    table.close(fs)?;
    Ok(fs.close(output)?)
}

fn go_on(stop: &StopSignal) -> Result<(), Stop> {
    stop.stop().map_or(Ok(()), Err)
}

/// Zero rows up to the number that a graph fixes; their results are not looked at.
fn padded(mut features: Vec<f32>, given: usize, wanted: usize) -> Vec<f32> {
    let width = features.len() / given.max(1);
    features.resize(width * wanted, 0.0);
    features
}

fn open_input(fs: &mut TaskFs, name: &str) -> Result<Descriptor, End> {
    let inputs = fs.open_grant(Grant::Inputs)?;
    let opened = fs.open_at(&inputs, name, OpenHow { read: true, ..OpenHow::default() });
    fs.close(inputs)?;
    opened.map_err(|error| match error {
        FsError::Host(fault) => End::Fault(fault),
        _ => End::Refused(
            Refusal::new("engine.onnx.input-missing", "the task has no input of the name that its configuration gives")
                .with_detail(name),
        ),
    })
}

fn create_output(fs: &mut TaskFs, name: &str) -> Result<Descriptor, End> {
    let outputs = fs.open_grant(Grant::Outputs)?;
    let how = OpenHow { create: true, exclusive: true, read: true, write: true, ..OpenHow::default() };
    let opened = fs.open_at(&outputs, name, how);
    fs.close(outputs)?;
    opened.map_err(|error| match error {
        FsError::Host(fault) => End::Fault(fault),
        _ => End::Refused(
            Refusal::new("engine.onnx.bad-output-name", "the output's name is not that of a new file in /out")
                .with_detail(name),
        ),
    })
}

/// What is done so far, in `/state`: the predictions, and of how many rows they are. Both change at once, with a commit.
struct Kept {
    predictions: Descriptor,
    position: Descriptor,
    every: Duration,
    last: Instant,
}

/// Name of the predictions so far, and of the number of their rows (`u64`, big-endian), in `/state`.
const KEPT: [&str; 2] = ["predictions", "position"];

impl Kept {
    fn find(fs: &mut TaskFs, every: Duration) -> Result<Option<Self>, End> {
        if !fs.grants().any(|grant| grant == Grant::State) {
            return Ok(None);
        }
        let state = fs.open_grant(Grant::State)?;
        let how = OpenHow { create: true, read: true, write: true, ..OpenHow::default() };
        let [predictions, position] = KEPT.map(|name| fs.open_at(&state, name, how));
        fs.close(state)?;
        Ok(Some(Self { predictions: predictions?, position: position?, every, last: Instant::now() }))
    }

    /// Puts the predictions of an earlier attempt into the output, and returns of how many rows they are.
    fn restore(&mut self, fs: &mut TaskFs, output: &Descriptor) -> Result<u64, End> {
        let mut rows = [0; 8];
        if fs.read(&self.position, 0, &mut rows)? < rows.len() {
            return Ok(0);
        }
        copy(fs, &self.predictions, output, 0)?;
        Ok(u64::from_be_bytes(rows))
    }

    /// Commits what is done, if the last time is long enough ago. What does not fit into `/state` is not kept from then on: the run goes on
    /// without, and an attempt after this one from the last commit.
    fn keep(mut self, fs: &mut TaskFs, output: &Descriptor, rows: u64) -> Result<Option<Self>, End> {
        if self.last.elapsed() < self.every {
            return Ok(Some(self));
        }
        let kept_bytes = fs.stat(&self.predictions).size_bytes;
        match copy(fs, output, &self.predictions, kept_bytes)
            .and_then(|()| fs.write(&self.position, 0, &rows.to_be_bytes()))
        {
            Err(FsError::NoSpace) => {
                self.close(fs)?;
                return Ok(None);
            }
            result => result?,
        }
        fs.commit_state()?;
        self.last = Instant::now();
        Ok(Some(self))
    }

    fn close(self, fs: &mut TaskFs) -> Result<(), End> {
        fs.close(self.predictions)?;
        Ok(fs.close(self.position)?)
    }
}

/// Appends what stands in `from` at `offset` and after it to `to`.
fn copy(fs: &mut TaskFs, from: &Descriptor, to: &Descriptor, mut offset: u64) -> Result<(), FsError> {
    let mut piece = Zeroizing::new(vec![0; READ_BYTES]);
    loop {
        let count = fs.read(from, offset, &mut piece)?;
        if count == 0 {
            return Ok(());
        }
        fs.append(to, &piece[..count])?;
        offset += count as u64;
    }
}

fn read_model(fs: &mut TaskFs, name: &str) -> Result<Zeroizing<Vec<u8>>, End> {
    let file = open_input(fs, name)?;
    let size = fs.stat(&file).size_bytes;
    if size > MAX_MODEL_BYTES {
        return Err(Refusal::new("engine.onnx.too-large", "the model exceeds the engine's bounds on size").into());
    }
    let mut bytes = Zeroizing::new(vec![0; size as usize]);
    fs.read(&file, 0, &mut bytes)?;
    fs.close(file)?;
    Ok(bytes)
}

/// The input file, its header understood.
struct Table {
    file: Descriptor,
    offset: u64,
    lines: Lines,
    /// What each column is, in the order of the file.
    roles: Vec<Role>,
    id_header: Vec<u8>,
    next_number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Feature,
    Id,
    Ignored,
}

impl Table {
    fn open(fs: &mut TaskFs, config: &OnnxConfig, features: usize) -> Result<Self, End> {
        let file = open_input(fs, &config.input)?;
        let mut table = Table {
            file,
            offset: 0,
            lines: Lines::new(),
            roles: Vec::new(),
            id_header: b"row".to_vec(),
            next_number: 1,
        };
        if !table.next_line(fs)? {
            return Err(CsvError { row: 1, column: 0, problem: CsvProblem::NoHeader }.into());
        }
        table.read_header(config)?;
        let found = table.roles.iter().filter(|role| **role == Role::Feature).count();
        if found != features {
            return Err(Refusal::new(
                "engine.onnx.feature-count",
                "the input has not as many feature columns as the model",
            )
            .with_detail(format_args!("the model takes {features}, the input has {found}"))
            .into());
        }
        Ok(table)
    }

    /// Goes to the next line, reading on in the file as needed. False at its end.
    fn next_line(&mut self, fs: &mut TaskFs) -> Result<bool, End> {
        while !self.lines.advance()? {
            if self.lines.has_ended() {
                return Ok(false);
            }
            let mut piece = Zeroizing::new([0; READ_BYTES]);
            let count = fs.read(&self.file, self.offset, &mut *piece)?;
            self.offset += count as u64;
            self.lines.feed(&piece[..count]);
        }
        Ok(true)
    }

    fn read_header(&mut self, config: &OnnxConfig) -> Result<(), Refusal> {
        let (row, line) = self.lines.line();
        let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        let mut names = Vec::new();
        split(row, line, &mut names)?;
        let find = |name: &String| names.iter().position(|found| **found == *name.as_bytes());
        let missing = |name: &String| {
            Refusal::new("engine.onnx.column-missing", "the input has no column of a name that the configuration gives")
                .with_detail(name)
        };
        self.roles = vec![Role::Feature; names.len()];
        for name in &config.ignore_columns {
            self.roles[find(name).ok_or_else(|| missing(name))?] = Role::Ignored;
        }
        if let Some(name) = &config.id_column {
            self.roles[find(name).ok_or_else(|| missing(name))?] = Role::Id;
            self.id_header = name.as_bytes().to_vec();
        }
        Ok(())
    }

    /// Up to `rows` rows: their ids, and their features one row after another.
    fn read_batch(&mut self, fs: &mut TaskFs, rows: usize) -> Result<(Vec<Vec<u8>>, Vec<f32>), End> {
        let mut ids = Vec::with_capacity(rows.min(BATCH_ROWS));
        let mut features = Vec::new();
        while ids.len() < rows && self.next_line(fs)? {
            let (row, line) = self.lines.line();
            let id = take_row(&self.roles, row, line, &mut features)?;
            ids.push(id.unwrap_or_else(|| self.next_number.to_string().into_bytes()));
            self.next_number += 1;
        }
        Ok((ids, features))
    }

    /// Passes over rows that were predicted before.
    fn skip(&mut self, fs: &mut TaskFs, rows: u64) -> Result<(), End> {
        for _ in 0..rows {
            if !self.next_line(fs)? {
                // The data is the same as before, so that the rows are there: whoever wrote this position was no such run.
                return Err(End::Fault(HostFault::SCRATCH));
            }
            self.next_number += 1;
        }
        Ok(())
    }

    fn close(self, fs: &mut TaskFs) -> Result<(), End> {
        Ok(fs.close(self.file)?)
    }
}

/// Adds a row's features; returns its id where there is a column for it.
fn take_row(roles: &[Role], row: u64, line: &[u8], features: &mut Vec<f32>) -> Result<Option<Vec<u8>>, CsvError> {
    let mut fields = Vec::with_capacity(roles.len());
    split(row, line, &mut fields)?;
    if fields.len() != roles.len() {
        let problem = CsvProblem::ColumnCount { expected: roles.len(), found: fields.len() };
        return Err(CsvError { row, column: 0, problem });
    }
    let mut id = None;
    for (at, (field, role)) in fields.iter().zip(roles).enumerate() {
        match role {
            Role::Ignored => {}
            Role::Id => id = Some(field.to_vec()),
            Role::Feature => {
                features.push(number(field).ok_or(CsvError {
                    row,
                    column: at + 1,
                    problem: CsvProblem::NotANumber,
                })?);
            }
        }
    }
    Ok(id)
}
