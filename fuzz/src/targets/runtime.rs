//! Targets of `starminer-runtime`: a stranger's programs, models, tables and file names.

use std::sync::{Mutex, OnceLock};

use starminer_runtime::StopSignal;
use starminer_runtime::fs::{Descriptor, FileKind, FsError, Grant, MAX_FILE_BYTES, MAX_OPEN, OpenHow, TaskFs};
use starminer_runtime::onnx::{OnnxConfig, OnnxOutcome, OnnxRequest};
use starminer_runtime::wasm::{CompileError, Determinism, EngineSettings, RunEnd, WasmEngine};
use starminer_sandbox::enable_cpu_flags;
use starminer_vault::object::{ObjectReader, SealOptions, seal_bytes};
use starminer_vault::scratch::{Opening, ScratchOptions};
use starminer_vault::{ObjectContext, Purpose, Salt, Scratch, ScratchContext, TaskSecret};

use crate::Outcome;
use crate::seeds::Seed;

const QUOTA_BYTES: u64 = 1 << 20;
const TASK: [u8; 16] = [7; 16];

fn engine() -> &'static WasmEngine {
    static ENGINE: OnceLock<WasmEngine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let settings = EngineSettings { determinism: Determinism::Native };
        WasmEngine::new(settings, enable_cpu_flags).expect("a processor of x86-64-v3")
    })
}

pub fn wasm(data: &[u8]) -> Outcome {
    let compiled = engine().compile(data);
    match &compiled {
        Ok(compiled) => {
            assert_eq!(compiled.module_sha256, starminer_verify::Digest::of(data).0);
            assert_eq!(compiled.compiled_sha256, starminer_verify::Digest::of(&compiled.serialized).0);
        }
        Err(CompileError::Host(fault)) => panic!("a stranger's bytes became a fault of the host: {fault}"),
        Err(CompileError::Refused(_)) => {}
    }
    Outcome::of(&compiled, CompileError::code)
}

fn task_fs(inputs: &[(&str, &[u8])]) -> TaskFs {
    let secret = || TaskSecret::from_bytes([1; 32]);
    let context = ScratchContext { task: TASK, name: "scratch" };
    let opening = Opening { salt: Salt::from_random([3; 32]), attempt: 1 };
    let store = Mutex::new(Vec::new());
    let scratch = Scratch::create(store, &secret(), &context, opening, ScratchOptions::default()).expect("in memory");
    let mut fs = TaskFs::new(scratch, QUOTA_BYTES);
    for (name, plain) in inputs {
        let context = ObjectContext { task: TASK, name: "input", purpose: Purpose::Input };
        let salt = Salt::from_random([2; 32]);
        let (sealed, _) = seal_bytes(&secret(), &context, salt, SealOptions::default(), plain).expect("short");
        let len = sealed.len() as u64;
        let reader = ObjectReader::open(&secret(), &context, sealed, len).expect("its own object");
        fs.add_input(name, reader).expect("few inputs with plain names");
    }
    fs
}

fn run_onnx(model: &[u8], table: &[u8]) -> OnnxOutcome {
    let request = OnnxRequest {
        config: OnnxConfig {
            model: "model.onnx".into(),
            input: "rows.csv".into(),
            output: "predictions.csv".into(),
            id_column: None,
            ignore_columns: Vec::new(),
        },
        fs: task_fs(&[("model.onnx", model), ("rows.csv", table)]),
        memory_bytes: 16 << 20,
        stop: StopSignal::never(),
        commit_every: std::time::Duration::ZERO,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(starminer_runtime::onnx::run(request))
}

/// The end of a run, which is never the host's fault; what a run that completed wrote has a line for each row.
fn check_onnx(mut outcome: OnnxOutcome) -> Outcome {
    assert!(outcome.fs.used_bytes() <= QUOTA_BYTES);
    match &outcome.end {
        RunEnd::Completed { .. } => {
            let mut text = String::new();
            let mut output = outcome.fs.read_output("predictions.csv").expect("it was written");
            std::io::Read::read_to_string(&mut output, &mut text).expect("text in memory");
            assert_eq!(
                text.lines().count() as u64,
                outcome.rows + u64::from(outcome.rows > 0),
                "a line for each row:\n{text}"
            );
            Outcome::accepted(outcome.rows.min(3))
        }
        RunEnd::Refused(refusal) => Outcome::refused((refusal.code(), refusal.detail())),
        end => panic!("a stranger's model or table ended as {end:?}"),
    }
}

pub fn onnx_model(data: &[u8]) -> Outcome {
    let wide = format!("{}\n{}\n", vec!["f"; 30].join(","), vec!["0.5"; 30].join(","));
    let outcome = run_onnx(data, wide.as_bytes());
    // The number of features is the model's choice; the smallest seeds have two.
    if matches!(&outcome.end, RunEnd::Refused(refusal) if refusal.code() == "engine.onnx.feature-count") {
        return check_onnx(run_onnx(data, b"a,b\n1,2\n3,4\n"));
    }
    check_onnx(outcome)
}

pub fn onnx_csv(data: &[u8]) -> Outcome {
    check_onnx(run_onnx(&small_model(), data))
}

/// The tree of a committed state: whoever wrote it had the task's key, and may have been broken into.
pub fn state(data: &[u8]) -> Outcome {
    match starminer_runtime::fuzzing::state_tree(data) {
        Ok(files) => Outcome::accepted(files.min(3)),
        Err(error) => Outcome::refused(error.to_string()),
    }
}

/// Calls of a guest, one a line: a letter for the call, a digit for the descriptor, then its argument: a path, or a number
/// and data. `x3 data/../y` calls `x` on descriptor 3.
pub fn file_system(data: &[u8]) -> Outcome {
    const INPUT: &[u8] = b"what the requester sealed";
    let mut fs = task_fs(&[("data.csv", INPUT)]);
    let mut open: Vec<Descriptor> = Vec::new();
    for grant in Grant::ALWAYS {
        open.push(fs.open_grant(grant).expect("a grant"));
    }
    let (mut done, mut answers) = (0_u32, std::collections::BTreeSet::new());
    for line in data.split(|byte| *byte == b'\n').take(200) {
        let [call, slot, argument @ ..] = line else { continue };
        let argument = argument.strip_prefix(b" ").unwrap_or(argument);
        let Ok(text) = std::str::from_utf8(argument) else { continue };
        let index = usize::from(*slot) % open.len();
        let answer = call_guest(&mut fs, &mut open, *call, index, text);
        match answer {
            Ok(()) => done += 1,
            Err(FsError::Host(fault)) => panic!("a guest's call became a fault of the host: {fault}"),
            Err(error) => drop(answers.insert(error.to_string())),
        }
        assert!(fs.used_bytes() <= QUOTA_BYTES);
        assert!(fs.open_count() <= MAX_OPEN && fs.open_count() as usize == open.len());
    }
    let outputs = fs.outputs();
    assert!(outputs.is_sorted_by(|a, b| a.path.as_bytes() < b.path.as_bytes()), "in byte order, none twice");
    for output in &outputs {
        let plain = output.path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        assert!(plain && !output.path.contains('\0'), "{:?} is no path below /out", output.path);
        assert!(output.size_bytes <= QUOTA_BYTES);
        let mut bytes = Vec::new();
        let mut reader = fs.read_output(&output.path).expect("it is listed");
        std::io::Read::read_to_end(&mut reader, &mut bytes).expect("in memory");
        assert_eq!(bytes.len() as u64, output.size_bytes);
    }
    let input = open.iter().find(|descriptor| {
        fs.next_entry(descriptor, None).is_ok_and(|entry| entry.is_some_and(|e| e.name == "data.csv"))
    });
    if let Some(directory) = input.map(|descriptor| fs.reopen(descriptor))
        && let Ok(directory) = directory
    {
        let how = OpenHow { read: true, ..OpenHow::default() };
        let file = fs.open_at(&directory, "data.csv", how).expect("inputs cannot be removed");
        let mut bytes = [0; 64];
        let count = fs.read(&file, 0, &mut bytes).expect("its own object");
        assert_eq!(&bytes[..count], INPUT, "an input was changed");
    }
    Outcome::accepted((done.min(8), outputs.len().min(4), answers))
}

fn call_guest(fs: &mut TaskFs, open: &mut Vec<Descriptor>, call: u8, index: usize, text: &str) -> Result<(), FsError> {
    let number = text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    let (first, second) = text.split_once('>').unwrap_or((text, text));
    match call {
        b'o' | b'O' => {
            let how = OpenHow { create: true, exclusive: call == b'O', read: true, write: true, ..OpenHow::default() };
            let opened = fs.open_at(&open[index], text, how)?;
            open.push(opened);
        }
        b'r' | b't' | b'd' => {
            let how = OpenHow {
                read: true,
                truncate: call == b't',
                write: call == b't',
                directory: call == b'd',
                ..OpenHow::default()
            };
            let opened = fs.open_at(&open[index], text, how)?;
            open.push(opened);
        }
        b'c' if open.len() > 3 => {
            let closed = open.remove(index.max(3));
            fs.close(closed)?;
        }
        b'm' => fs.create_directory_at(&open[index], text)?,
        b'M' => fs.remove_directory_at(&open[index], text)?,
        b'u' => fs.unlink_file_at(&open[index], text)?,
        b'n' => {
            let to = text.len() % open.len();
            fs.rename_at(&open[index], first, &open[to], second)?;
        }
        b'w' => fs.write(&open[index], number, text.as_bytes())?,
        b'a' => fs.append(&open[index], text.as_bytes())?,
        b'l' => {
            fs.set_len(&open[index], number)?;
            assert!(number <= MAX_FILE_BYTES);
        }
        b'R' => {
            let mut buffer = [0; 100];
            let count = fs.read(&open[index], number, &mut buffer)?;
            assert!(count <= buffer.len());
        }
        b's' => {
            let stat = fs.stat_at(&open[index], text)?;
            assert!(stat.kind == FileKind::File || stat.size_bytes == 0);
        }
        b'e' => {
            let entry = fs.next_entry(&open[index], (!text.is_empty()).then_some(text))?;
            if let Some(entry) = entry {
                assert!(text.is_empty() || entry.name.as_bytes() > text.as_bytes(), "entries come in byte order");
            }
        }
        _ => {}
    }
    Ok(())
}

/// A field of a protocol-buffers message that carries bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128, "one byte of length");
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// A field that carries a number.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// A model that gives back the two features of each row as its scores (`onnx.proto3`, IR version 8).
pub(crate) fn small_model() -> Vec<u8> {
    let dimensions = [field(1, &field(2, b"N")), field(1, &number(1, 2))].concat();
    let tensor = [number(1, 1), field(2, &dimensions)].concat();
    let value = |name: &[u8]| [field(1, name), field(2, &field(1, &tensor))].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(11, &value(b"x")), field(12, &value(b"y"))].concat();
    [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
}

/// Three files, two of them in a directory.
fn state_tree() -> Vec<u8> {
    let entry = |parent: u32, kind: u8, file: u64, name: &[u8]| {
        let length = name.len() as u16;
        [&parent.to_be_bytes()[..], &[kind], &length.to_be_bytes(), &file.to_be_bytes(), name].concat()
    };
    let entries = [entry(0, 0, 0, b"d"), entry(0, 1, 2, b"a"), entry(1, 1, 1, b"b"), entry(1, 1, 3, b"c")];
    [&b"\x03SMSTATE1\0\0\0\x04"[..], &entries.concat()].concat()
}

pub(crate) fn seeds() -> Vec<Seed> {
    let seed = |target, name: &str, bytes: &[u8]| (target, name.to_owned(), bytes.to_vec());
    vec![
        seed("runtime-wasm", "empty-command", include_bytes!("../../../examples/empty/empty.wasm")),
        seed("runtime-wasm", "runaway-command", include_bytes!("../../../examples/runaway/runaway.wasm")),
        seed("runtime-wasm", "socket-command", include_bytes!("../../../examples/hostile/socket.wasm")),
        seed("runtime-wasm", "smallest-component", b"\0asm\x0d\0\x01\0"),
        seed("runtime-wasm", "smallest-module", b"\0asm\x01\0\0\0"),
        seed("runtime-onnx-model", "diagnosis", include_bytes!("../../../examples/diagnosis/model.onnx")),
        seed("runtime-onnx-model", "relu", &small_model()),
        seed("runtime-onnx-csv", "plain", b"a,b\n1,2\n3.5,-4e2\n"),
        seed("runtime-onnx-csv", "quoted", b"\xef\xbb\xbf\"a\",\"b \"\"x\"\"\"\r\n\"1\", 2\r\n\r\n3,4"),
        seed("runtime-onnx-csv", "too-few", b"a,b\n1\n"),
        seed("runtime-fs", "files", b"o1 a.txt\na3 hello\nm1 d\no1 d/b\nw4 5 x\nn1 a.txt>d/c\ns1 d/../d/c\ne1 \nc4 \n"),
        seed(
            "runtime-fs",
            "escapes",
            b"o1 ../in/data.csv\nr0 data.csv\nt0 data.csv\nu0 data.csv\nr2 /etc/passwd\nl3 99\nd1 .\n",
        ),
        seed("runtime-state", "empty", b"\0SMSTATE1\0\0\0\0"),
        seed("runtime-state", "tree", &state_tree()),
        seed("runtime-fs", "quota", b"o1 big\nl3 1048576\na3 x\nw3 4611686018427387904 x\nR3 1048570\nl3 0\n"),
    ]
}
