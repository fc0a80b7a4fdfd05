//! Commits that are cut off at every write, and checkpoints that are not what they were.

#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::Mutex;

use starminer_runtime::fs::{Descriptor, FsError, Grant, OpenHow};
use starminer_vault::{ReadAt, WriteAt};
use starminer_verify::PublicKey;

use super::super::files::create_scratch;
use super::*;

const SECRET: [u8; 32] = [7; 32];
const NODE: NodeId = NodeId(PublicKey([1; 32]));
const OTHER_NODE: NodeId = NodeId(PublicKey([2; 32]));

/// A disk that keeps what was written, and stops at a chosen write, sync or cut: what comes then is lost, or half of it is there.
#[derive(Default)]
struct Disk {
    bytes: Mutex<Vec<u8>>,
    /// Writes, syncs and cuts so far, and with which one the power goes.
    steps: Mutex<(usize, Option<(usize, Torn)>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Torn {
    /// Nothing of the last write is there.
    Before,
    /// Its first half is.
    Half,
    /// All of it is, and nobody was told.
    After,
}

impl Disk {
    fn with(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(bytes), ..Self::default() })
    }

    fn image(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    fn step(&self) -> Option<Torn> {
        let mut steps = self.steps.lock().unwrap();
        steps.0 += 1;
        let (now, end) = *steps;
        match end {
            Some((last, torn)) if now == last => Some(torn),
            // Without power nothing more happens.
            Some((last, _)) if now > last => Some(Torn::Before),
            _ => None,
        }
    }
}

fn power_gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl ReadAt for Disk {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.bytes.read_at(buf, offset)
    }
    fn byte_len(&self) -> io::Result<u64> {
        self.bytes.byte_len()
    }
}

impl WriteAt for Disk {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match self.step() {
            None => self.bytes.write_all_at(buf, offset),
            Some(torn) => {
                let written = match torn {
                    Torn::Before => 0,
                    Torn::Half => buf.len() / 2,
                    Torn::After => buf.len(),
                };
                self.bytes.write_all_at(&buf[..written], offset)?;
                Err(power_gone())
            }
        }
    }
}

impl PageStore for Disk {
    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        match self.step() {
            None => self.bytes.set_len(len_bytes),
            Some(_) => Err(power_gone()),
        }
    }
    fn sync(&self) -> io::Result<()> {
        match self.step() {
            None => Ok(()),
            Some(_) => Err(power_gone()),
        }
    }
}

/// A task's files over a disk, and the checkpoints that it made.
struct Opened {
    fs: TaskFs,
    root: Descriptor,
    resumed: Option<CheckpointId>,
    made: Arc<Mutex<Vec<CheckpointId>>>,
}

fn place(attempt: u32) -> Place {
    Place { task: TaskId([9; 16]), attempt: Attempt(attempt), node: NODE, state_bytes: 1 << 20 }
}

fn open_as(
    disk: &Arc<Disk>,
    secret: [u8; 32],
    place: Place,
    least: Option<&LeastCheckpoint>,
) -> Result<Opened, String> {
    let secret = TaskSecret::from_bytes(secret);
    let full = StorageFull::default();
    let scratch =
        create_scratch(tempfile::tempfile().unwrap(), &secret, place.task, place.attempt, 1 << 20, full.clone());
    let mut fs = TaskFs::new(scratch.unwrap().unwrap(), 1 << 20);
    let made = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&made);
    let announce: Announce = Box::new(move |checkpoint| heard.lock().unwrap().push(checkpoint));
    match open(&mut fs, (Arc::clone(disk), &full), &secret, place, least, announce) {
        Ok(resumed) => {
            let root = fs.open_grant(Grant::State).unwrap();
            Ok(Opened { fs, root, resumed, made })
        }
        Err(Halt::End(Ending::Refused(refusal))) => {
            assert_eq!(refusal.party(), Party::Node, "{refusal:?}");
            Err(refusal.check().to_owned())
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn open_at(disk: &Arc<Disk>, attempt: u32, least: Option<&LeastCheckpoint>) -> Result<Opened, String> {
    open_as(disk, SECRET, place(attempt), least)
}

impl Opened {
    fn write(&mut self, name: &str, text: &[u8]) -> Result<(), FsError> {
        let how = OpenHow { create: true, truncate: true, write: true, ..OpenHow::default() };
        let file = self.fs.open_at(&self.root, name, how)?;
        let written = self.fs.write(&file, 0, text);
        self.fs.close(file)?;
        written
    }

    fn read(&mut self, name: &str) -> Option<Vec<u8>> {
        let how = OpenHow { read: true, ..OpenHow::default() };
        let file = self.fs.open_at(&self.root, name, how).ok()?;
        let mut bytes = vec![0; usize::try_from(self.fs.stat(&file).size_bytes).unwrap()];
        self.fs.read(&file, 0, &mut bytes).unwrap();
        self.fs.close(file).unwrap();
        Some(bytes)
    }

    fn commit(&mut self) -> Result<(), FsError> {
        self.fs.sync(&self.root)
    }

    fn last(&self) -> CheckpointId {
        *self.made.lock().unwrap().last().unwrap()
    }
}

fn least(checkpoint: CheckpointId, node: NodeId) -> LeastCheckpoint {
    LeastCheckpoint { checkpoint, statement: Digest([3; 32]), node }
}

/// What a program does between two commits: a file replaced, one renamed over another, one removed, directories.
fn second_change(state: &mut Opened) -> Result<(), FsError> {
    state.write("a", &[2; 100_000])?;
    state.write("b.new", b"second")?;
    let Opened { fs, root, .. } = state;
    fs.rename_at(root, "b.new", root, "b")?;
    fs.unlink_file_at(root, "gone")?;
    fs.create_directory_at(root, "d")?;
    fs.create_directory_at(root, "d/e")?;
    state.write("d/e/f", b"deep")
}

/// The first commit, with room for a second.
fn first(disk: &Arc<Disk>) -> Opened {
    let mut state = open_at(disk, 1, None).unwrap();
    assert_eq!(state.resumed, None);
    state.write("a", &[1; 70_000]).unwrap();
    state.write("b", b"first").unwrap();
    state.write("gone", b"gone").unwrap();
    state.commit().unwrap();
    state
}

fn is_first(state: &mut Opened) -> bool {
    let first = state.read("b").unwrap() == b"first";
    assert_eq!(state.read("a").unwrap(), if first { vec![1; 70_000] } else { vec![2; 100_000] });
    assert_eq!(state.read("gone").is_some(), first);
    assert_eq!(state.read("d/e/f").as_deref(), (!first).then_some(&b"deep"[..]));
    assert_eq!(state.read("b.new"), None);
    first
}

#[test]
fn whatever_write_the_power_goes_in_the_state_is_old_or_new() {
    // How many steps a second commit has.
    let disk = Disk::with(Vec::new());
    let mut state = first(&disk);
    let before = disk.steps.lock().unwrap().0;
    second_change(&mut state).unwrap();
    state.commit().unwrap();
    let steps = disk.steps.lock().unwrap().0 - before;
    assert!(steps >= 5, "{steps} steps cannot be a commit");

    let (mut old, mut new) = (0, 0);
    for step in 1..=steps {
        for torn in [Torn::Before, Torn::Half, Torn::After] {
            let disk = Disk::with(Vec::new());
            let mut state = first(&disk);
            let acknowledged = state.last();
            {
                let mut steps = disk.steps.lock().unwrap();
                steps.1 = Some((steps.0 + step, torn));
            }
            // The last step of all gives room back, after the commit.
            let done = second_change(&mut state).and_then(|()| state.commit());
            let claimed = state.last() != acknowledged;
            assert_eq!(done.is_ok(), claimed, "step {step} {torn:?}");
            let disk = Disk::with(disk.image());
            let mut again = open_at(&disk, 2, Some(&least(acknowledged, NODE)))
                .unwrap_or_else(|check| panic!("step {step} {torn:?}: {check}"));
            let is_old = is_first(&mut again);
            assert!(!(claimed && is_old), "step {step} {torn:?}: a commit that returned is lost");
            let resumed = again.resumed.unwrap();
            assert_eq!(resumed == acknowledged, is_old, "what it says that it went on from is what it has");
            (old, new) = (old + u32::from(is_old), new + u32::from(!is_old));
            // And it can be gone on from.
            again.write("b", b"third").unwrap();
            again.commit().unwrap();
            let mut third = open_at(&disk, 3, Some(&least(again.last(), NODE))).unwrap();
            assert_eq!(third.read("b").unwrap(), b"third");
        }
    }
    assert!(old > 0 && new > 0, "{old} old, {new} new: the cuts are all on one side");
}

#[test]
fn nothing_is_there_before_the_first_commit() {
    let disk = Disk::with(Vec::new());
    let mut state = open_at(&disk, 1, None).unwrap();
    // More than the cache holds, so that pages are on the disk.
    state.write("a", &[1; 900_000]).unwrap();
    drop(state);
    let mut again = open_at(&Disk::with(disk.image()), 2, None).unwrap();
    assert_eq!((again.resumed, again.read("a")), (None, None));
}

#[test]
fn what_is_not_committed_is_not_there_and_any_descriptor_of_the_state_commits_all_of_it() {
    let disk = Disk::with(Vec::new());
    let mut state = first(&disk);
    state.write("b", b"second").unwrap();
    let out = state.fs.open_grant(Grant::Outputs).unwrap();
    state.fs.sync(&out).unwrap();
    assert_eq!(state.made.lock().unwrap().len(), 1, "what is elsewhere commits nothing");
    let mut again = open_at(&Disk::with(disk.image()), 2, None).unwrap();
    assert_eq!(again.read("b").unwrap(), b"first");
    assert_eq!(again.resumed, Some(state.last()));

    let how = OpenHow { read: true, ..OpenHow::default() };
    let file = state.fs.open_at(&state.root, "a", how).unwrap();
    state.fs.sync(&file).unwrap();
    state.fs.close(file).unwrap();
    let mut again = open_at(&Disk::with(disk.image()), 2, None).unwrap();
    assert_eq!(again.read("b").unwrap(), b"second", "committed with another file");
}

#[test]
fn an_older_checkpoint_is_refused_and_so_is_another_of_the_same_number() {
    let disk = Disk::with(Vec::new());
    let mut state = first(&disk);
    let (old_image, old) = (disk.image(), state.last());
    second_change(&mut state).unwrap();
    state.commit().unwrap();
    let new = state.last();
    let check =
        |image: &[u8], place: Place, wanted: Option<LeastCheckpoint>, expected: Result<Option<CheckpointId>, &str>| {
            let opened = open_as(&Disk::with(image.to_vec()), SECRET, place, wanted.as_ref());
            let found = opened.as_ref().map(|opened| opened.resumed).map_err(String::as_str);
            assert_eq!(found, expected, "{wanted:?}");
        };
    let here = |checkpoint| Some(least(checkpoint, NODE));
    check(&disk.image(), place(2), here(new), Ok(Some(new)));
    check(&disk.image(), place(2), here(old), Ok(Some(new)));
    check(&old_image, place(2), here(old), Ok(Some(old)));
    check(&old_image, place(2), here(new), Err("checkpoint.rolled-back"));
    check(&[], place(2), here(new), Err("checkpoint.missing"));
    check(&[], place(2), None, Ok(None));
    let forged = CheckpointId { digest: Digest([0; 32]), ..new };
    check(&disk.image(), place(2), here(forged), Err("checkpoint.other"));
    // A newer one of this attempt itself cannot have come about.
    check(&disk.image(), place(1), here(new), Err("checkpoint.attempt"));
    // Another node's is no promise of this one: it begins anew, or goes on from what is newer.
    let elsewhere = Some(least(CheckpointId { sequence: 2 << 32 | 1, digest: Digest([0; 32]) }, OTHER_NODE));
    check(&disk.image(), place(3), elsewhere, Ok(None));
    check(&[], place(3), elsewhere, Ok(None));
    check(&disk.image(), place(3), Some(least(old, OTHER_NODE)), Ok(Some(new)));
}

#[test]
fn another_tasks_checkpoint_and_another_secret_do_not_open() {
    let disk = Disk::with(Vec::new());
    drop(first(&disk));
    let other_task = Place { task: TaskId([8; 16]), ..place(2) };
    let check = |secret, place| open_as(&Disk::with(disk.image()), secret, place, None).err();
    assert_eq!(check(SECRET, other_task).as_deref(), Some("checkpoint.key"));
    assert_eq!(check([6; 32], place(2)).as_deref(), Some("checkpoint.key"));
    assert_eq!(check(SECRET, place(2)), None);
}

/// One bit in every class of bytes: each part of the superblock, its tag, the directory, the tree, contents; and the file cut at every page.
#[test]
fn a_checkpoint_with_one_bit_changed_is_refused() {
    let disk = Disk::with(Vec::new());
    let state = first(&disk);
    let acknowledged = least(state.last(), NODE);
    let image = disk.image();
    // Slot 0 has the one checkpoint, slot 1 none; every page in use changes nothing unseen.
    let header = [0_usize, 9, 10, 12, 16, 47, 48, 79, 80, 87, 88, 95, 99, 100, 130];
    let pages = (2..image.len() / PAGE_BYTES).flat_map(|slot| [slot * PAGE_BYTES, (slot + 1) * PAGE_BYTES - 1]);
    let mut codes = std::collections::BTreeMap::new();
    for at in header.into_iter().chain(pages) {
        let mut bytes = image.clone();
        bytes[at] ^= 1;
        let refused = open_at(&Disk::with(bytes), 2, Some(&acknowledged)).err();
        let refused = refused.unwrap_or_else(|| panic!("byte {at} of {} does not count", image.len()));
        assert!(refused.starts_with("checkpoint."), "byte {at}: {refused}");
        *codes.entry(refused).or_insert(0) += 1;
    }
    assert!(codes.keys().eq(["checkpoint.damaged", "checkpoint.key", "checkpoint.missing"]), "{codes:?}");
    for slots in 1..image.len() / PAGE_BYTES {
        let refused = open_at(&Disk::with(image[..slots * PAGE_BYTES].to_vec()), 2, Some(&acknowledged)).err();
        assert!(refused.is_some_and(|check| check.starts_with("checkpoint.")), "cut to {slots} slots");
    }
}

#[test]
fn a_full_state_is_no_space_and_can_still_be_committed() {
    let disk = Disk::with(Vec::new());
    let mut state = open_at(&disk, 1, None).unwrap();
    for file in 0..16 {
        state.write(&format!("{file}"), &[1; 65_536]).unwrap();
    }
    assert_eq!(state.write("one more", b"x"), Err(FsError::NoSpace));
    state.commit().unwrap();
    // Small files take whole pages.
    let disk = Disk::with(Vec::new());
    let mut small = open_at(&disk, 1, None).unwrap();
    let made = (0..100).take_while(|file| small.write(&format!("{file}"), b"x").is_ok()).count();
    assert_eq!(made, 16);
    small.commit().unwrap();
    let mut again = open_at(&disk, 2, Some(&least(small.last(), NODE))).unwrap();
    assert_eq!(again.read("15").unwrap(), b"x");
}

#[test]
fn a_program_that_commits_for_ever_holds_one_checkpoint_and_the_next() {
    let disk = Disk::with(Vec::new());
    let mut state = open_at(&disk, 1, None).unwrap();
    for round in 0..50_u8 {
        state.write("a", &[round; 65_536]).unwrap();
        state.commit().unwrap();
    }
    assert_eq!(state.made.lock().unwrap().len(), 50);
    assert!(disk.image().len() <= 12 * PAGE_BYTES, "{} bytes for one page", disk.image().len());
}

#[test]
fn nothing_goes_into_the_state_or_out_of_it_but_by_copy() {
    let disk = Disk::with(Vec::new());
    let mut state = first(&disk);
    let Opened { fs, root, .. } = &mut state;
    let out = fs.open_grant(Grant::Outputs).unwrap();
    assert_eq!(fs.rename_at(root, "b", &out, "b"), Err(FsError::CrossDevice));
    let how = OpenHow { create: true, write: true, ..OpenHow::default() };
    let file = fs.open_at(&out, "result", how).unwrap();
    fs.close(file).unwrap();
    assert_eq!(fs.rename_at(&out, "result", root, "result"), Err(FsError::CrossDevice));
    // A task without a state has none.
    assert_eq!(fs.grants().count(), 4);
}
