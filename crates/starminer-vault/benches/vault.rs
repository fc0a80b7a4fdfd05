//! What the vault's formats cost over the cipher itself, and how `vault seal` from file to file compares with `cp`
//! and `age`.
//!
//! Machines are noisy, so that only ratios count: all sides run in turn, round after round, and the median of the
//! rounds' ratios is printed beside what it must reach. From file to file that verdict is on the ratio of the fastest
//! rounds, and the median stands beside it.
//!
//! `--quick` shows that everything runs, on small sizes; the words `memory`, `scratch` and `file` choose parts. Files
//! lie in /dev/shm where there is one. `age` is Debian's package; without it its row is left out, with a word.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::fs::{self, File};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use starminer_vault::object::parallel::{self, Workers};
use starminer_vault::object::{
    ChunkSize, ContentIdMode, Digests, HEADER_LEN, ObjectSealer, PlainDigestMode, SealOptions, open_into, seal_into,
    sealed_len,
};
use starminer_vault::scratch::{Opening, PAGE_BYTES, ScratchOptions};
use starminer_vault::{ObjectContext, Purpose, Salt, Scratch, ScratchContext, TaskSecret};

const CONTEXT: ObjectContext<'static> = ObjectContext { task: [7; 16], name: "input/bench", purpose: Purpose::Input };

fn main() {
    // `cargo bench` says so; `cargo test --benches` does not, and only wants to see that everything runs.
    let asked = |flag: &str| std::env::args().any(|arg| arg == flag);
    let quick = asked("--quick") || !asked("--bench");
    let sizes = if quick {
        Sizes { memory: 2 << 20, file: 4 << 20, rounds: 3 }
    } else {
        Sizes { memory: 16 << 20, file: 1 << 30, rounds: 9 }
    };
    let parts: [(&str, Part); 3] = [("memory", in_memory), ("scratch", scratch), ("file", file_to_file)];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|want| want == name) {
            part(&sizes);
        }
    }
}

/// What one word on the command line chooses.
type Part = fn(&Sizes);

struct Sizes {
    memory: usize,
    file: usize,
    rounds: usize,
}

fn secret() -> TaskSecret {
    TaskSecret::from_bytes([42; 32])
}

fn salt() -> Salt {
    Salt::from_random([9; 32])
}

/// One side of a comparison.
struct Side<'a> {
    name: &'a str,
    run: Box<dyn FnMut() + 'a>,
    /// The file it makes, which is removed before the clock starts again.
    made: Option<PathBuf>,
}

impl Side<'_> {
    fn making(self, made: &Path) -> Self {
        Self { made: Some(made.to_owned()), ..self }
    }
}

fn side<'a>(name: &'a str, run: impl FnMut() + 'a) -> Side<'a> {
    Side { name, run: Box::new(run), made: None }
}

/// Times every side once a round; returns each one's times.
fn alternate(rounds: usize, sides: &mut [Side<'_>]) -> Vec<Vec<Duration>> {
    let mut times = vec![Vec::new(); sides.len()];
    for round in 0..=rounds {
        for (side, times) in sides.iter_mut().zip(&mut times) {
            if let Some(made) = &side.made {
                let _ = fs::remove_file(made);
            }
            let start = Instant::now();
            (side.run)();
            // The first round warms up.
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    times
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median over the rounds of `a`'s time divided by `b`'s.
fn time_ratio(a: &[Duration], b: &[Duration]) -> f64 {
    median(a.iter().zip(b).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect())
}

fn speed(bytes: usize, times: &[Duration]) -> f64 {
    bytes as f64 / median(times.iter().map(Duration::as_secs_f64).collect()) / 1e9
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "MISSED" }
}

/// Seal and open on one core against raw AES-256-GCM over chunks of the same size, each in place or from buffer to
/// buffer as the raw side it is held against: the memory they touch is the same.
fn in_memory(sizes: &Sizes) {
    println!("in memory, one core, {} MiB, against raw AES-256-GCM", sizes.memory >> 20);
    for log2 in [16, 18, 20] {
        let chunk_size = ChunkSize::from_log2(log2).unwrap();
        let secret = secret();
        let options = |content_id| SealOptions {
            chunk_size,
            digests: Digests { content_id, plain_sha256: PlainDigestMode::Skip },
        };
        let (fast, named) = (options(ContentIdMode::Skip), options(ContentIdMode::Compute));
        let plain = vec![7; sizes.memory];
        let len = plain.len();
        let object_len = sealed_len(len as u64, chunk_size).unwrap() as usize;
        let raw_key = raw_key();
        let (mut object, mut raw_object) = (vec![0; object_len], vec![0; len]);
        seal_into(&secret, &CONTEXT, salt(), fast, &plain, &mut object).unwrap();
        let tags = raw_seal(&raw_key, chunk_size, &plain, &mut raw_object);
        // One buffer for all that is written, so that no side has a warmer one.
        let out = RefCell::new(vec![0; object_len]);
        let seal = |options| {
            let out = &mut out.borrow_mut()[..];
            black_box(seal_into(&secret, &CONTEXT, salt(), options, &plain, out).unwrap());
        };
        let open = |digests| {
            let out = &mut out.borrow_mut()[..len];
            black_box(open_into(&secret, &CONTEXT, digests, &object, out).unwrap());
        };
        let times = alternate(
            sizes.rounds * 3,
            &mut [
                side("raw in place", || {
                    raw_seal_in_place(&raw_key, chunk_size, &mut out.borrow_mut()[..len]);
                }),
                side("seal in place", || {
                    let out = &mut out.borrow_mut()[..];
                    seal_in_place(&secret, chunk_size, len, out);
                }),
                side("raw seal", || {
                    let out = &mut out.borrow_mut()[..len];
                    black_box(raw_seal(&raw_key, chunk_size, &plain, out));
                }),
                side("seal", || seal(fast)),
                side("seal with content id", || seal(named)),
                side("raw open", || {
                    let out = &mut out.borrow_mut()[..len];
                    raw_open(&raw_key, chunk_size, &tags, &raw_object, out);
                }),
                side("open", || open(fast.digests)),
                side("open with content id", || open(named.digests)),
            ],
        );
        for (name, at, raw, goal) in [
            ("seal in place", 1, 0, 0.85),
            ("seal", 3, 2, 0.85),
            ("seal with content id", 4, 2, 0.28),
            ("open", 6, 5, 0.85),
            ("open with content id", 7, 5, 0.28),
        ] {
            let ratio = 1.0 / time_ratio(&times[at], &times[raw]);
            println!(
                "  {:4} KiB  {name:22} {:6.2} GB/s  raw {:6.2} GB/s  {ratio:5.2} x of raw (at least {goal}: {})",
                chunk_size.bytes() >> 10,
                speed(len, &times[at]),
                speed(len, &times[raw]),
                verdict(ratio >= goal),
            );
        }
    }
}

/// Seals an object whose plaintext already lies where its chunks will be.
fn seal_in_place(secret: &TaskSecret, chunk_size: ChunkSize, plain_len: usize, slots: &mut [u8]) {
    let plain_len = plain_len as u64;
    let sealer = ObjectSealer::new(secret, &CONTEXT, salt(), chunk_size, plain_len).unwrap();
    let (header, mut rest) = slots.split_at_mut(HEADER_LEN);
    header.copy_from_slice(sealer.header());
    while let Some(range) = sealer.claim() {
        let (slots, later) = rest.split_at_mut(range.sealed_len());
        range.seal_in_place(slots);
        rest = later;
    }
}

fn raw_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[3; 32]).unwrap())
}

fn nonce(index: usize) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(index as u64).to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn raw_seal_in_place(key: &LessSafeKey, size: ChunkSize, data: &mut [u8]) {
    for (index, chunk) in data.chunks_mut(size.bytes()).enumerate() {
        let tag = key.seal_in_place_separate_tag(nonce(index), Aad::empty(), chunk);
        let _ = black_box(tag.unwrap());
    }
}

fn raw_seal(key: &LessSafeKey, size: ChunkSize, plain: &[u8], out: &mut [u8]) -> Vec<[u8; 16]> {
    plain
        .chunks(size.bytes())
        .zip(out.chunks_mut(size.bytes()))
        .enumerate()
        .map(|(index, (plain, out))| {
            let mut tag = [0; 16];
            key.seal_out_of_place_scatter(nonce(index), Aad::empty(), plain, out, &[], &mut tag).unwrap();
            tag
        })
        .collect()
}

fn raw_open(key: &LessSafeKey, size: ChunkSize, tags: &[[u8; 16]], sealed: &[u8], plain: &mut [u8]) {
    let chunks = sealed.chunks(size.bytes()).zip(plain.chunks_mut(size.bytes()));
    for (index, ((sealed, plain), tag)) in chunks.zip(tags).enumerate() {
        key.open_separate_gather(nonce(index), Aad::empty(), sealed, tag, plain).unwrap();
    }
}

/// Sequential and random work on a scratch in memory: no goal, a figure to watch.
fn scratch(sizes: &Sizes) {
    println!("scratch over a store in memory, {} MiB", sizes.memory >> 20);
    let context = ScratchContext { task: [7; 16], name: "bench" };
    let opening = Opening { salt: salt(), attempt: 1 };
    let store = std::sync::Mutex::new(Vec::new());
    let options = ScratchOptions::default();
    let mut scratch = Scratch::create(store, &secret(), &context, opening, options).unwrap();
    let file = scratch.create_file().unwrap();
    let data = vec![5; 1 << 20];
    let pages = (sizes.memory / PAGE_BYTES) as u64;
    let timed = |name: &str, bytes: usize, run: &mut dyn FnMut()| {
        let times = alternate(sizes.rounds, &mut [side(name, run)]);
        println!("  {name:30} {:6.2} GB/s", speed(bytes, &times[0]));
    };
    let mut buf = vec![0; 1 << 20];
    let scratch = RefCell::new(&mut scratch);
    timed("write, 1 MiB at a time", sizes.memory, &mut || {
        for offset in (0..sizes.memory as u64).step_by(data.len()) {
            scratch.borrow_mut().write(file, offset, &data).unwrap();
        }
    });
    timed("checkpoint, nothing new", sizes.memory, &mut || {
        scratch.borrow_mut().checkpoint().unwrap();
    });
    timed("read, 1 MiB at a time", sizes.memory, &mut || {
        for offset in (0..sizes.memory as u64).step_by(buf.len()) {
            scratch.borrow_mut().read(file, offset, &mut buf).unwrap();
        }
    });
    let mut small = [0; 4096];
    timed("read 4 KiB of random pages", 4096 * 1000, &mut || {
        for i in 0..1000 {
            let offset = (i * 7919 % pages) * PAGE_BYTES as u64 + 512;
            scratch.borrow_mut().read(file, offset, &mut small).unwrap();
        }
    });
}

/// The same file sealed by the vault and by `age`, and copied by `cp`.
fn file_to_file(sizes: &Sizes) {
    let shm = Path::new("/dev/shm");
    let directory = if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        println!("no /dev/shm: the files lie on a disk, and its speed is in every figure");
        tempfile::tempdir().unwrap()
    };
    let path = |name: &str| directory.path().join(name);
    let (source, object) = (path("plain"), path("object"));
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&source, block.repeat(sizes.file >> 20)).unwrap();
    let threads = std::thread::available_parallelism().unwrap();
    println!("file to file, {} MiB, {threads} threads", sizes.file >> 20);

    let seal = |threads, content_id| {
        let options = SealOptions {
            digests: Digests { content_id, plain_sha256: PlainDigestMode::Skip },
            ..SealOptions::default()
        };
        let (plain, sealed) = (File::open(&source).unwrap(), File::create(&object).unwrap());
        let workers = Workers { threads, progress: &|_| () };
        parallel::seal(&secret(), &CONTEXT, salt(), options, workers, &plain, &sealed).unwrap();
    };
    let one = NonZeroUsize::MIN;
    seal(threads, ContentIdMode::Skip);
    let opened_object = path("kept-object");
    fs::copy(&object, &opened_object).unwrap();
    let (copied, opened) = (path("copied"), path("opened"));
    let mut sides = vec![
        side("cp", || {
            run(Command::new("cp").arg(&source).arg(&copied));
        })
        .making(&copied),
        side("vault seal", || seal(threads, ContentIdMode::Skip)).making(&object),
        side("vault seal with content id", || seal(threads, ContentIdMode::Compute)).making(&object),
        side("vault seal, one thread", || seal(one, ContentIdMode::Skip)).making(&object),
        side("vault open", || {
            let sealed = File::open(&opened_object).unwrap();
            let len = sealed.metadata().unwrap().len();
            let plain = File::create(&opened).unwrap();
            let workers = Workers { threads, progress: &|_| () };
            let digests = Digests::default();
            parallel::open(&secret(), &CONTEXT, digests, workers, &sealed, len, &plain).unwrap();
        })
        .making(&opened),
    ];
    let aged = path("aged");
    match age_recipient() {
        Some(recipient) => {
            let mut command = Command::new("age");
            command.args(["-r", &recipient, "-o"]).arg(&aged).arg(&source);
            sides.push(side("age", move || run(&mut command)).making(&aged));
        }
        None => println!("  age is not installed (Debian: apt-get install age): its row is left out"),
    }
    let rounds = sizes.rounds.min(7);
    let times = alternate(rounds, &mut sides);
    for (at, side) in sides.iter().enumerate() {
        let ratio = time_ratio(&times[at], &times[0]);
        println!("  {:28} {:6.2} GB/s  {ratio:5.2} x the time of cp", side.name, speed(sizes.file, &times[at]));
    }
    // These take half a second each, in which something else always runs. It only ever adds time, so that the fastest
    // of the rounds is what the goals are held against.
    let of_cp = best(&times[1]) / best(&times[0]);
    let typical = time_ratio(&times[1], &times[0]);
    println!(
        "  vault seal / cp: {of_cp:.2} x its time, fastest of each (at most 1.25: {}); median {typical:.2}",
        verdict(of_cp <= 1.25)
    );
    if let Some(age) = times.get(5) {
        let faster = best(age) / best(&times[1]);
        let typical = time_ratio(age, &times[1]);
        println!(
            "  vault seal / age: {faster:.2} x its speed, fastest of each (at least 2: {}); median {typical:.2}",
            verdict(faster >= 2.0)
        );
    }
}

fn best(times: &[Duration]) -> f64 {
    times.iter().min().map_or(f64::NAN, Duration::as_secs_f64)
}

/// A public key to encrypt to, or `None` without `age`.
fn age_recipient() -> Option<String> {
    Command::new("age").arg("--version").stdout(Stdio::null()).status().ok()?;
    let keys = Command::new("age-keygen").output().ok()?;
    let keys = String::from_utf8(keys.stdout).ok()?;
    let line = keys.lines().find_map(|line| line.strip_prefix("# public key: "))?;
    Some(line.to_owned())
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
