//! A scratch through the public API: against a model, under an owner of the store who alters it, and through crashes at
//! every write.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use starminer_vault::scratch::{FILE_BYTES_MAX, Opening, PAGE_BYTES, ScratchError, ScratchOptions};
use starminer_vault::{FileId, PageStore, ReadAt, Salt, Scratch, ScratchContext, Sequence, TaskSecret, WriteAt};

type Memory = Arc<Mutex<Vec<u8>>>;

const CONTEXT: ScratchContext<'static> = ScratchContext { task: [7; 16], name: "work" };
const PAGE: u64 = PAGE_BYTES as u64;

fn secret() -> TaskSecret {
    TaskSecret::from_bytes([42; 32])
}

fn opening(attempt: u32) -> Opening {
    let mut salt = [0; 32];
    salt[..4].copy_from_slice(&attempt.to_be_bytes());
    Opening { salt: Salt::from_random(salt), attempt }
}

fn options(cache_pages: usize) -> ScratchOptions {
    ScratchOptions { cache_pages, ..ScratchOptions::default() }
}

fn create<S: PageStore>(store: S, cache_pages: usize) -> Scratch<S> {
    Scratch::create(store, &secret(), &CONTEXT, opening(1), options(cache_pages)).unwrap()
}

fn reopen<S: PageStore>(store: S, attempt: u32, at_least: Sequence) -> Result<Scratch<S>, ScratchError> {
    Scratch::reopen(store, &secret(), &CONTEXT, opening(attempt), at_least, options(4))
}

fn code<T>(result: Result<T, ScratchError>) -> &'static str {
    match result {
        Ok(_) => "no error",
        Err(error) => error.code(),
    }
}

fn read_all<S: PageStore>(scratch: &mut Scratch<S>, file: FileId) -> Result<Vec<u8>, ScratchError> {
    let mut bytes = vec![0; scratch.len(file)? as usize];
    let read = scratch.read(file, 0, &mut bytes)?;
    assert_eq!(read, bytes.len());
    Ok(bytes)
}

#[test]
fn files_hold_what_was_written_and_holes_read_as_zeros() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 2);
    let file = scratch.create_file().unwrap();
    assert_eq!(file, FileId(1));
    scratch.write(file, 10 * PAGE - 3, b"across a border").unwrap();
    assert_eq!(scratch.len(file).unwrap(), 10 * PAGE + 12);
    assert_eq!(scratch.held_bytes(), 2 * PAGE);
    let mut buf = [0xee; 20];
    assert_eq!(scratch.read(file, 10 * PAGE - 8, &mut buf).unwrap(), 20);
    assert_eq!(&buf, b"\0\0\0\0\0across a border");
    assert_eq!(scratch.read(file, 10 * PAGE + 10, &mut buf).unwrap(), 2);
    assert_eq!(scratch.read(file, 10 * PAGE + 12, &mut buf).unwrap(), 0);
    assert_eq!(scratch.read(file, u64::MAX, &mut buf).unwrap(), 0);

    // What was cut away does not come back.
    scratch.set_len(file, 10 * PAGE + 2).unwrap();
    scratch.set_len(file, 30 * PAGE).unwrap();
    let mut buf = [0xee; 8];
    scratch.read(file, 10 * PAGE - 1, &mut buf).unwrap();
    assert_eq!(&buf, b"ros\0\0\0\0\0");

    let other = scratch.create_file().unwrap();
    assert_eq!(scratch.files().collect::<Vec<_>>(), [(file, 30 * PAGE), (other, 0)]);
    scratch.remove(file).unwrap();
    assert_eq!(scratch.held_bytes(), 0);
    assert_eq!(code(scratch.len(file)), "vault.scratch.no-such-file");
    assert_eq!(code(scratch.remove(file)), "vault.scratch.no-such-file");
    assert_eq!(scratch.create_file().unwrap(), FileId(3));
}

#[test]
fn no_plaintext_reaches_the_store() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 1);
    let file = scratch.create_file().unwrap();
    let canary = b"canary-canary-canary-canary";
    for page in 0..5 {
        scratch.write(file, page * PAGE + 100, canary).unwrap();
    }
    scratch.checkpoint().unwrap();
    let bytes = store.lock().unwrap().clone();
    assert!(bytes.len() > 5 * PAGE_BYTES);
    assert!(!bytes.windows(8).any(|window| window == &canary[..8]));
}

#[test]
fn limits_are_kept() {
    let limited = ScratchOptions { limit_bytes: 3 * PAGE, cache_pages: 1 };
    let store = Memory::default();
    let mut scratch = Scratch::create(store, &secret(), &CONTEXT, opening(1), limited).unwrap();
    let file = scratch.create_file().unwrap();
    scratch.write(file, 0, &[1; 2 * PAGE_BYTES]).unwrap();
    // Two more pages are one too many, and then none is written.
    let full = scratch.write(file, 2 * PAGE + 5, &[2; PAGE_BYTES]);
    assert_eq!(code(full), "vault.scratch.quota");
    assert_eq!(scratch.len(file).unwrap(), 2 * PAGE);
    assert_eq!(scratch.held_bytes(), 2 * PAGE);
    scratch.write(file, 9 * PAGE, &[2; PAGE_BYTES]).unwrap();
    assert_eq!(code(scratch.write(file, 20 * PAGE, &[1])), "vault.scratch.quota");
    // What is there may be rewritten, and what is removed makes room.
    scratch.write(file, PAGE, &[3; PAGE_BYTES]).unwrap();
    scratch.set_len(file, PAGE).unwrap();
    scratch.write(file, 20 * PAGE, &[1]).unwrap();

    assert_eq!(code(scratch.set_len(file, FILE_BYTES_MAX + 1)), "vault.scratch.file-too-long");
    assert_eq!(code(scratch.write(file, FILE_BYTES_MAX, &[1])), "vault.scratch.file-too-long");
    assert_eq!(code(scratch.write(file, u64::MAX, &[1])), "vault.scratch.file-too-long");
    scratch.set_len(file, FILE_BYTES_MAX).unwrap();
    scratch.write(file, FILE_BYTES_MAX - 1, &[9]).unwrap();
    let mut buf = [0; 2];
    assert_eq!(scratch.read(file, FILE_BYTES_MAX - 1, &mut buf).unwrap(), 1);
    assert_eq!(buf, [9, 0]);
}

#[test]
fn rewriting_and_checkpointing_does_not_grow_the_store_without_end() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 2);
    let file = scratch.create_file().unwrap();
    for round in 0..50 {
        scratch.write(file, 0, &vec![round; 8 * PAGE_BYTES]).unwrap();
        scratch.checkpoint().unwrap();
    }
    // Two superblocks; current and last pages; current and last directory; one slot in hand.
    let len = store.lock().unwrap().len();
    assert!(len <= (2 + 16 + 2 + 1) * PAGE_BYTES, "{} slots", len / PAGE_BYTES);
    scratch.remove(file).unwrap();
    scratch.checkpoint().unwrap();
    scratch.checkpoint().unwrap();
    scratch.trim().unwrap();
    assert!(store.lock().unwrap().len() <= 5 * PAGE_BYTES);
    let sequence = scratch.checkpoint().unwrap();
    assert_eq!(reopen(store, 2, sequence).unwrap().files().count(), 0);
}

#[test]
fn reopening_restores_the_checkpoint_and_nothing_later() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 2);
    let files: Vec<FileId> = (0..3).map(|_| scratch.create_file().unwrap()).collect();
    for (i, file) in files.iter().enumerate() {
        scratch.write(*file, i as u64 * 100_000, &vec![i as u8 + 1; 200_000]).unwrap();
    }
    scratch.remove(files[1]).unwrap();
    let before = read_all(&mut scratch, files[2]).unwrap();
    let sequence = scratch.checkpoint().unwrap();
    scratch.write(files[2], 0, &[0xcc; 300_000]).unwrap();
    scratch.remove(files[0]).unwrap();
    drop(scratch);

    let mut scratch = reopen(store.clone(), 2, sequence).unwrap();
    assert_eq!(scratch.files().collect::<Vec<_>>(), [(files[0], 200_000), (files[2], 400_000)]);
    assert_eq!(read_all(&mut scratch, files[2]).unwrap(), before);
    assert_eq!(scratch.create_file().unwrap(), FileId(4));
    // Openings follow openings, each with pages of its own in the store.
    for attempt in 3_u32..10 {
        scratch.write(files[0], u64::from(attempt) * PAGE, &attempt.to_be_bytes()).unwrap();
        let sequence = scratch.checkpoint().unwrap();
        scratch = reopen(store.clone(), attempt, sequence).unwrap();
    }
    for attempt in 3_u32..10 {
        let mut buf = [0; 4];
        scratch.read(files[0], u64::from(attempt) * PAGE, &mut buf).unwrap();
        assert_eq!(buf, attempt.to_be_bytes());
    }
}

#[test]
fn reopening_refuses_what_it_must() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 2);
    let never = reopen(store.clone(), 2, Sequence::default());
    assert_eq!(code(never), "vault.scratch.no-checkpoint");
    let file = scratch.create_file().unwrap();
    scratch.write(file, 0, &[1; 100_000]).unwrap();
    let first = scratch.checkpoint().unwrap();
    let image = store.lock().unwrap().clone();
    scratch.write(file, 0, &[2; 100_000]).unwrap();
    let second = scratch.checkpoint().unwrap();
    assert!(second > first);

    // The store as it was at the first checkpoint.
    let old = Memory::new(Mutex::new(image));
    assert_eq!(code(reopen(old.clone(), 2, second)), "vault.scratch.rolled-back");
    assert_eq!(code(reopen(old, 2, first)), "no error");
    // Only the newer superblock destroyed: the older checkpoint is known to be older.
    let half = Memory::new(Mutex::new(store.lock().unwrap().clone()));
    half.write_all_at(&[0; 200], PAGE).unwrap();
    assert_eq!(code(reopen(half.clone(), 2, second)), "vault.scratch.rolled-back");
    assert_eq!(code(reopen(half, 2, first)), "no error");

    assert_eq!(code(reopen(store.clone(), 1, second)), "vault.scratch.attempt");
    let same_salt = Opening { attempt: 2, ..opening(1) };
    let refused = Scratch::reopen(store.clone(), &secret(), &CONTEXT, same_salt, second, options(4));
    assert_eq!(code(refused), "vault.scratch.salt-reused");
    let as_other = |secret: &TaskSecret, context: &ScratchContext<'_>| {
        code(Scratch::reopen(store.clone(), secret, context, opening(2), second, options(4)))
    };
    assert_eq!(as_other(&TaskSecret::from_bytes([1; 32]), &CONTEXT), "vault.scratch.key");
    let task = ScratchContext { task: [8; 16], ..CONTEXT };
    assert_eq!(as_other(&secret(), &task), "vault.scratch.key");
    let name = ScratchContext { name: "other", ..CONTEXT };
    assert_eq!(as_other(&secret(), &name), "vault.scratch.key");
    let long = "x".repeat(2000);
    let name = ScratchContext { name: &long, ..CONTEXT };
    assert_eq!(as_other(&secret(), &name), "vault.scratch.name-too-long");
    assert_eq!(as_other(&secret(), &CONTEXT), "no error");
}

/// A checkpoint that an attempt left behind unacknowledged must not pass for a later attempt's.
#[test]
fn a_fork_left_by_an_earlier_attempt_is_older_than_any_checkpoint_of_a_later_one() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 2);
    scratch.create_file().unwrap();
    let known = scratch.checkpoint().unwrap();
    let image = store.lock().unwrap().clone();
    for _ in 0..5 {
        scratch.checkpoint().unwrap();
    }
    let fork = store.lock().unwrap().clone();
    // The next attempt starts from what is known, and makes one checkpoint.
    let store = Memory::new(Mutex::new(image));
    let mut scratch = reopen(store, 2, known).unwrap();
    let newer = scratch.checkpoint().unwrap();
    let fork = Memory::new(Mutex::new(fork));
    assert_eq!(code(reopen(fork, 3, newer)), "vault.scratch.rolled-back");
}

#[test]
fn an_older_page_a_moved_page_and_a_foreign_page_are_refused() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 1);
    let file = scratch.create_file().unwrap();
    for page in 0..4 {
        scratch.write(file, page * PAGE, &[page as u8; PAGE_BYTES]).unwrap();
    }
    scratch.checkpoint().unwrap();
    let old = store.lock().unwrap().clone();
    for page in 0..4 {
        scratch.write(file, page * PAGE, &[0x10 + page as u8; PAGE_BYTES]).unwrap();
    }
    let sequence = scratch.checkpoint().unwrap();
    let new = store.lock().unwrap().clone();
    assert_eq!(code(read_all(&mut scratch, file).map(|_| ())), "no error");

    let slots = new.len() / PAGE_BYTES;
    // Whatever can be read is what was written last.
    let check = |what: &str, altered: Vec<u8>| {
        let mut scratch = match reopen(Memory::new(Mutex::new(altered)), 2, sequence) {
            // A slot of the directory.
            Err(error) => return assert_eq!(error.code(), "vault.scratch.directory", "{what}"),
            Ok(scratch) => scratch,
        };
        for page in 0..4 {
            for len in [PAGE_BYTES, 100] {
                let mut buf = vec![0; len];
                match scratch.read(file, page * PAGE, &mut buf) {
                    Ok(_) => assert!(buf.iter().all(|byte| *byte == 0x10 + page as u8), "{what}"),
                    Err(error) => {
                        assert_eq!(error.code(), "vault.scratch.page", "{what}");
                        assert!(buf.iter().all(|byte| *byte == 0), "{what}");
                    }
                }
            }
        }
    };
    let at = |slot: usize| slot * PAGE_BYTES..(slot + 1) * PAGE_BYTES;
    let mut refused = 0;
    for slot in 2..slots {
        for other in 2..slots {
            let mut altered = new.clone();
            altered.copy_within(at(other), slot * PAGE_BYTES);
            check(&format!("slot {other} in {slot}"), altered);
        }
        if old.len() >= at(slot).end {
            let mut altered = new.clone();
            altered[at(slot)].copy_from_slice(&old[at(slot)]);
            check(&format!("old slot {slot}"), altered);
        }
        for byte in [0, 1, PAGE_BYTES / 2, PAGE_BYTES - 1] {
            let mut altered = new.clone();
            altered[slot * PAGE_BYTES + byte] ^= 0x40;
            check(&format!("byte {byte} of slot {slot}"), altered);
        }
        // Which slots matter: exactly five are in use (four pages and the directory).
        let mut altered = new.clone();
        altered[at(slot)].fill(0);
        let noticed = match reopen(Memory::new(Mutex::new(altered)), 2, sequence) {
            Err(_) => true,
            Ok(mut scratch) => read_all(&mut scratch, file).is_err(),
        };
        refused += usize::from(noticed);
    }
    assert_eq!(refused, 5);
}

#[test]
fn within_one_opening_an_older_page_is_refused_too() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 1);
    let file = scratch.create_file().unwrap();
    scratch.write(file, 0, &[1; PAGE_BYTES]).unwrap();
    scratch.write(file, PAGE, &[1; PAGE_BYTES]).unwrap();
    let old = store.lock().unwrap().clone();
    scratch.write(file, 0, &[2; PAGE_BYTES]).unwrap();
    scratch.write(file, PAGE, &[2; PAGE_BYTES]).unwrap();
    // The first version of page 0, wherever its second may lie.
    for slot in 2..6 {
        store.write_all_at(&old[2 * PAGE_BYTES..], slot * PAGE).unwrap();
    }
    assert_eq!(code(scratch.read(file, 0, &mut vec![0; PAGE_BYTES])), "vault.scratch.page");
    store.lock().unwrap().truncate(2 * PAGE_BYTES);
    assert_eq!(code(scratch.read(file, 0, &mut vec![0; PAGE_BYTES])), "vault.scratch.truncated");
}

#[test]
fn every_flipped_byte_of_a_superblock_and_every_truncation_is_refused() {
    let store = Memory::default();
    let mut scratch = create(store.clone(), 1);
    let file = scratch.create_file().unwrap();
    scratch.write(file, 0, b"small").unwrap();
    let sequence = scratch.checkpoint().unwrap();
    let image = store.lock().unwrap().clone();
    // The first checkpoint has the only superblock, which ends after header, root of one page, and tag.
    for at in 0..100 + 12 + 28 + 16 {
        let mut altered = image.clone();
        altered[at] ^= 1 << (at % 8);
        let refused = code(reopen(Memory::new(Mutex::new(altered)), 2, sequence));
        let expected: &[&str] = match at {
            0..8 => &["vault.scratch.no-checkpoint"],
            8..10 => &["vault.scratch.version"],
            10..16 => &["vault.scratch.superblock"],
            16..80 => &["vault.scratch.key"],
            _ => &["vault.scratch.superblock"],
        };
        assert!(expected.contains(&refused), "byte {at}: {refused}");
    }
    for len in (0..image.len()).step_by(997).chain([image.len() - 1]) {
        let cut = Memory::new(Mutex::new(image[..len].to_vec()));
        assert_ne!(code(reopen(cut, 2, sequence)), "no error", "cut to {len}");
    }
    let mut longer = image;
    longer.resize(longer.len() + 100_000, 0xff);
    assert_eq!(code(reopen(Memory::new(Mutex::new(longer)), 2, sequence)), "no error");
}

/// One step of a random life.
#[derive(Clone, Debug)]
enum Step {
    Create,
    Remove(usize),
    Write { file: usize, offset: u64, len: usize, byte: u8 },
    SetLen { file: usize, len: u64 },
    Read { file: usize, offset: u64, len: usize },
    Checkpoint,
    Crash,
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = || 0..6 * PAGE;
    let len = || prop_oneof![0..200_usize, 60_000..70_000_usize, 0..3 * PAGE_BYTES];
    prop_oneof![
        2 => Just(Step::Create),
        1 => any::<usize>().prop_map(Step::Remove),
        10 => (any::<usize>(), offset(), len(), any::<u8>())
            .prop_map(|(file, offset, len, byte)| Step::Write { file, offset, len, byte }),
        3 => (any::<usize>(), offset()).prop_map(|(file, len)| Step::SetLen { file, len }),
        6 => (any::<usize>(), offset(), len())
            .prop_map(|(file, offset, len)| Step::Read { file, offset, len }),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        1 => Just(Step::Trim),
    ]
}

type Model = BTreeMap<FileId, Vec<u8>>;

fn pick(model: &Model, at: usize) -> Option<FileId> {
    let count = model.len().max(1);
    model.keys().nth(at % count).copied()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any life of a scratch against vectors of bytes, with crashes that fall back to the last checkpoint.
    #[test]
    fn a_scratch_is_a_set_of_byte_vectors(
        steps in prop::collection::vec(step(), 1..80),
        cache_pages in 1..5_usize,
    ) {
        let store = Memory::default();
        let mut attempt = 1;
        let mut scratch = create(store.clone(), cache_pages);
        let mut model = Model::new();
        let mut saved: Option<(Sequence, Model)> = None;
        for step in steps {
            match step {
                Step::Create => {
                    let file = scratch.create_file().unwrap();
                    model.insert(file, Vec::new());
                }
                Step::Remove(at) => {
                    if let Some(file) = pick(&model, at) {
                        scratch.remove(file).unwrap();
                        model.remove(&file);
                    }
                }
                Step::Write { file, offset, len, byte } => {
                    if let Some(file) = pick(&model, file) {
                        let data: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
                        scratch.write(file, offset, &data).unwrap();
                        let bytes = model.get_mut(&file).unwrap();
                        let end = offset as usize + len;
                        if len > 0 && bytes.len() < end {
                            bytes.resize(end, 0);
                        }
                        if len > 0 {
                            bytes[offset as usize..end].copy_from_slice(&data);
                        }
                    }
                }
                Step::SetLen { file, len } => {
                    if let Some(file) = pick(&model, file) {
                        scratch.set_len(file, len).unwrap();
                        model.get_mut(&file).unwrap().resize(len as usize, 0);
                    }
                }
                Step::Read { file, offset, len } => {
                    if let Some(file) = pick(&model, file) {
                        let mut buf = vec![0xee; len];
                        let read = scratch.read(file, offset, &mut buf).unwrap();
                        let bytes = &model[&file];
                        let start = (offset as usize).min(bytes.len());
                        let end = (start + len).min(bytes.len());
                        prop_assert!(buf[..read] == bytes[start..end]);
                        prop_assert!(buf[read..].iter().all(|byte| *byte == 0xee));
                    }
                }
                Step::Checkpoint => saved = Some((scratch.checkpoint().unwrap(), model.clone())),
                Step::Crash => {
                    if let Some((sequence, checkpointed)) = &saved {
                        attempt += 1;
                        drop(scratch);
                        scratch = reopen(store.clone(), attempt, *sequence).unwrap();
                        model = checkpointed.clone();
                    }
                }
                Step::Trim => scratch.trim().unwrap(),
            }
            let held: usize = scratch.files().count();
            prop_assert_eq!(held, model.len());
        }
        for (file, bytes) in &model {
            prop_assert!(read_all(&mut scratch, *file).unwrap() == *bytes);
        }
    }
}

/// A disk with a volatile cache: writes since the last sync may be lost, kept or torn at a crash, each for itself.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    durable: Vec<u8>,
    cached: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    /// Operations that may still succeed.
    left: Option<u32>,
    done: u32,
}

/// What becomes of the writes that were not synced.
#[derive(Clone, Copy, Debug)]
enum Fate {
    AllLost,
    AllKept,
    /// Of the last write, the first three quarters are on the disk.
    LastTorn,
    /// Of the last write, the second half is on the disk.
    LastTornInFront,
    FirstLost,
    OnlyLastKept,
    OddKept,
}

const FATES: [Fate; 7] = [
    Fate::AllLost,
    Fate::AllKept,
    Fate::LastTorn,
    Fate::LastTornInFront,
    Fate::FirstLost,
    Fate::OnlyLastKept,
    Fate::OddKept,
];

impl DiskState {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => return Err(io::Error::other("the machine is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.done += 1;
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset as usize..end].copy_from_slice(data);
}

impl Disk {
    /// What is on the disk after a crash.
    fn crash(&self, fate: Fate) -> Memory {
        let state = self.0.lock().unwrap();
        let mut bytes = state.durable.clone();
        let last = state.unsynced.len().wrapping_sub(1);
        for (number, (offset, data)) in state.unsynced.iter().enumerate() {
            let whole = 0..data.len();
            let none = 0..0;
            let is_last = number == last;
            let kept = match fate {
                Fate::AllLost => none,
                Fate::AllKept => whole,
                Fate::LastTorn if is_last => 0..data.len() / 4 * 3,
                Fate::LastTornInFront if is_last => data.len() / 2..data.len(),
                Fate::LastTorn | Fate::LastTornInFront => whole,
                Fate::FirstLost if number == 0 => none,
                Fate::FirstLost => whole,
                Fate::OnlyLastKept if is_last => whole,
                Fate::OnlyLastKept => none,
                Fate::OddKept if number % 2 == 1 => whole,
                Fate::OddKept => none,
            };
            put(&mut bytes, offset + kept.start as u64, &data[kept]);
        }
        Memory::new(Mutex::new(bytes))
    }
}

impl ReadAt for Disk {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.lock().unwrap().cached.read_at(buf, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        self.0.lock().unwrap().cached.byte_len()
    }
}

impl WriteAt for Disk {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        // The write in which the machine dies is under way: it may be torn.
        let alive = state.left != Some(0);
        if alive || state.unsynced.last().is_none_or(|last| last.0 != offset) {
            state.unsynced.push((offset, buf.to_vec()));
        }
        state.spend()?;
        put(&mut state.cached, offset, buf);
        Ok(())
    }
}

impl PageStore for Disk {
    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.spend()?;
        state.cached.resize(len_bytes as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.spend()?;
        state.durable = state.cached.clone();
        state.unsynced.clear();
        Ok(())
    }
}

/// A life of three checkpoints with rewrites, growth and removal between them; stops at the first error. Returns the
/// content after each checkpoint that was tried, and how many were acknowledged.
fn life(disk: &Disk) -> (Vec<Model>, Vec<Sequence>) {
    let (mut tried, mut acknowledged) = (vec![Model::new()], Vec::new());
    let _ = (|| -> Result<(), ScratchError> {
        let mut scratch = Scratch::create(disk.clone(), &secret(), &CONTEXT, opening(1), options(2))?;
        let mut model = Model::new();
        for round in 0..3_u8 {
            let file = scratch.create_file()?;
            model.insert(file, Vec::new());
            for (number, file) in model.keys().copied().collect::<Vec<_>>().into_iter().enumerate() {
                let data = vec![round * 16 + number as u8 + 1; PAGE_BYTES + 5000];
                let offset = number * 30_000;
                scratch.write(file, offset as u64, &data)?;
                let bytes = model.get_mut(&file).unwrap();
                put(bytes, offset as u64, &data);
            }
            if round == 2 {
                scratch.remove(FileId(1))?;
                model.remove(&FileId(1));
            }
            tried.push(model.clone());
            acknowledged.push(scratch.checkpoint()?);
        }
        Ok(())
    })();
    (tried, acknowledged)
}

fn content<S: PageStore>(scratch: &mut Scratch<S>) -> Model {
    let files: Vec<FileId> = scratch.files().map(|(file, _)| file).collect();
    files.into_iter().map(|file| (file, read_all(scratch, file).unwrap())).collect()
}

#[test]
fn a_crash_at_any_write_leaves_the_old_or_the_new_checkpoint() {
    let whole = Disk::default();
    assert_eq!(life(&whole).1.len(), 3);
    let operations = whole.0.lock().unwrap().done;
    assert!(operations > 20);
    for left in 0..operations {
        for fate in FATES {
            let disk = Disk::default();
            disk.0.lock().unwrap().left = Some(left);
            let (tried, acknowledged) = life(&disk);
            let known = acknowledged.last().copied().unwrap_or_default();
            let what = format!("operation {left}, {fate:?}");
            match reopen(disk.crash(fate), 2, known) {
                Ok(mut scratch) => {
                    let found = content(&mut scratch);
                    let (new, old) = (tried.last().unwrap(), &tried[acknowledged.len()]);
                    assert!(found == *new || found == *old, "{what}: neither old nor new");
                    // And life goes on.
                    let file = scratch.create_file().unwrap();
                    scratch.write(file, 0, b"after").unwrap();
                    scratch.checkpoint().unwrap();
                }
                // Only where no checkpoint was ever acknowledged may there be none.
                Err(error) => assert!(acknowledged.is_empty(), "{what}: {error}"),
            }
        }
    }
}

/// The store fails for a while and the machine does not die: the scratch must neither lose nor mix anything, and a
/// crash afterwards must find a complete checkpoint, be it one whose publication was reported as failed.
#[test]
fn a_store_that_fails_for_a_while_spoils_nothing() {
    let whole = Disk::default();
    life(&whole);
    let operations = whole.0.lock().unwrap().done;
    for left in 1..operations {
        let disk = Disk::default();
        let mut scratch = Scratch::create(disk.clone(), &secret(), &CONTEXT, opening(1), options(2)).unwrap();
        let file = scratch.create_file().unwrap();
        disk.0.lock().unwrap().left = Some(left);
        let mut complete = vec![Model::new()];
        let mut failed = 0;
        let check_crashes = |complete: &[Model], round: u8| {
            for fate in FATES {
                match reopen(disk.crash(fate), 2, Sequence::default()) {
                    Ok(mut found) => {
                        let found = content(&mut found);
                        assert!(complete.contains(&found), "{left} {round} {fate:?}");
                    }
                    Err(error) => assert!(complete[0].is_empty(), "{left} {round}: {error}"),
                }
            }
        };
        for round in 0..12_u8 {
            let data = vec![round + 1; 3 * PAGE_BYTES];
            if scratch.write(file, 0, &data).is_err() {
                failed += 1;
                disk.0.lock().unwrap().left = None;
                scratch.write(file, 0, &data).unwrap();
            }
            check_crashes(&complete, round);
            complete.push(Model::from([(file, data)]));
            if let Err(error) = scratch.checkpoint() {
                assert_eq!(error.code(), "vault.scratch.store");
                failed += 1;
                disk.0.lock().unwrap().left = None;
            } else {
                complete.drain(..complete.len() - 1);
            }
            check_crashes(&complete, round);
        }
        assert!(failed <= 1);
        assert_eq!(content(&mut scratch), *complete.last().unwrap());
    }
}

#[test]
fn a_file_larger_than_the_cache_works_on_a_real_file() {
    let store = tempfile::tempfile().unwrap();
    let mut scratch = create(&store, 3);
    let file = scratch.create_file().unwrap();
    let block = |i: u64| -> Vec<u8> { (0..40_000_u64).map(|j| (i * 7 + j % 249) as u8).collect() };
    for i in 0..300 {
        scratch.write(file, i * 40_000, &block(i)).unwrap();
    }
    let sequence = scratch.checkpoint().unwrap();
    drop(scratch);
    let mut scratch = reopen(&store, 2, sequence).unwrap();
    let mut buf = vec![0; 40_000];
    for i in (0..300).rev() {
        scratch.read(file, i * 40_000, &mut buf).unwrap();
        assert!(buf == block(i), "block {i}");
    }
}
