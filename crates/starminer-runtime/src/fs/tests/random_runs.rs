//! Thousands of random operations on the real file system and on the model: every answer must be the same, and so must
//! everything that can be seen at the end.

use std::collections::BTreeMap;
use std::io::Read as _;

use super::model::{Contents, Model, ModelNode};
use super::store::task_fs;
use crate::fs::*;

/// xorshift64* (Vigna 2014): a run is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn once_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn path(&mut self) -> String {
        let steps = 1 + self.roll(3);
        let mut path = String::new();
        for step in 0..steps {
            if step > 0 {
                path.push('/');
            }
            path.push_str(match self.roll(24) {
                0 => ".",
                1 => "..",
                n => ["a", "b", "c", "d"][n as usize % 4],
            });
        }
        if self.once_in(10) {
            path.push('/');
        }
        path
    }

    fn data(&mut self) -> Vec<u8> {
        let len = if self.once_in(20) { 70_000 + self.roll(70_000) } else { self.roll(600) };
        let first = self.roll(256) as u8;
        (0..len).map(|at| first.wrapping_add(at as u8)).collect()
    }

    fn how(&mut self) -> OpenHow {
        OpenHow {
            create: self.once_in(2),
            exclusive: self.once_in(4),
            directory: self.once_in(6),
            truncate: self.once_in(5),
            read: true,
            write: self.once_in(2),
        }
    }
}

/// An open file in both worlds.
struct Handle {
    real: Descriptor,
    model: Contents,
}

fn run(seed: u64, operations: usize) {
    let mut dice = Dice(seed);
    let mut fs = task_fs(1 << 40);
    let root = fs.open_grant(Grant::Outputs).unwrap();
    let mut model = Model::default();
    let mut open: Vec<Handle> = Vec::new();
    for step in 0..operations {
        let place = format!("seed {seed}, step {step}");
        match dice.roll(14) {
            0..=2 => {
                let (path, how) = (dice.path(), dice.how());
                let real = fs.open_at(&root, &path, how);
                let expected = model.open(&path, how);
                match (real, expected) {
                    (Ok(real), Ok(Some(model))) if open.len() < 8 => open.push(Handle { real, model }),
                    (Ok(real), Ok(_)) => fs.close(real).unwrap(),
                    (real, expected) => assert_eq!(real.err(), expected.err(), "open {path} {how:?}: {place}"),
                }
            }
            3 => {
                let path = dice.path();
                assert_eq!(fs.create_directory_at(&root, &path), model.mkdir(&path), "mkdir {path}: {place}");
            }
            4 => {
                let path = dice.path();
                assert_eq!(fs.remove_directory_at(&root, &path), model.rmdir(&path), "rmdir {path}: {place}");
            }
            5 => {
                let path = dice.path();
                assert_eq!(fs.unlink_file_at(&root, &path), model.unlink(&path), "unlink {path}: {place}");
            }
            6 | 7 => {
                let (from, to) = (dice.path(), dice.path());
                let real = fs.rename_at(&root, &from, &root, &to);
                assert_eq!(real, model.rename(&from, &to), "rename {from} {to}: {place}");
            }
            8 => {
                let path = dice.path();
                let real =
                    fs.stat_at(&root, &path).map(|stat| (stat.kind == FileKind::File).then_some(stat.size_bytes));
                assert_eq!(real, model.stat(&path), "stat {path}: {place}");
            }
            9 => {
                let path = dice.path();
                let real = fs.open_at(&root, &path, OpenHow { read: true, ..OpenHow::default() });
                let real = real.and_then(|directory| {
                    let names = list(&fs, &directory);
                    fs.close(directory).unwrap();
                    names
                });
                let expected = model.stat(&path).and_then(|_| model.list(&path));
                assert_eq!(real, expected, "list {path}: {place}");
            }
            _ if open.is_empty() => {}
            10 | 11 => {
                let data = dice.data();
                let handle = &open[dice.roll(open.len() as u64) as usize];
                let offset = dice.roll(100_000);
                let real = if dice.once_in(3) {
                    let end = handle.model.borrow().len();
                    (fs.append(&handle.real, &data), end as u64)
                } else {
                    (fs.write(&handle.real, offset, &data), offset)
                };
                if handle.real.is_writable() {
                    assert_eq!(real.0, Ok(()), "{place}");
                    write(&mut handle.model.borrow_mut(), real.1, &data);
                } else {
                    assert_eq!(real.0, Err(FsError::BadDescriptor), "{place}");
                }
            }
            12 => {
                let handle = &open[dice.roll(open.len() as u64) as usize];
                let len = dice.roll(120_000);
                let expected = if handle.real.is_writable() { Ok(()) } else { Err(FsError::BadDescriptor) };
                assert_eq!(fs.set_len(&handle.real, len), expected, "{place}");
                if expected.is_ok() {
                    handle.model.borrow_mut().resize(len as usize, 0);
                }
            }
            _ => {
                let at = dice.roll(open.len() as u64) as usize;
                let (offset, len) = (dice.roll(140_000), dice.roll(100_000));
                let mut buffer = vec![0xaa; len as usize];
                let count = fs.read(&open[at].real, offset, &mut buffer).unwrap();
                let contents = open[at].model.borrow();
                let from = (offset as usize).min(contents.len());
                let to = (from + len as usize).min(contents.len());
                assert_eq!(&buffer[..count], &contents[from..to], "read: {place}");
                drop(contents);
                if dice.once_in(3) {
                    fs.close(open.swap_remove(at).real).unwrap();
                }
            }
        }
    }
    for handle in open {
        fs.close(handle.real).unwrap();
    }
    let mut expected = BTreeMap::new();
    for (path, node) in &model.nodes {
        if let ModelNode::File(contents) = node {
            expected.insert(path.join("/"), contents.borrow().clone());
        }
    }
    let mut real = BTreeMap::new();
    for output in fs.outputs() {
        let mut bytes = Vec::new();
        fs.read_output(&output.path).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, output.size_bytes);
        real.insert(output.path, bytes);
    }
    assert!(real == expected, "trees differ at the end of seed {seed}");
    let total: usize = expected.values().map(Vec::len).sum();
    assert_eq!(fs.used_bytes(), total as u64, "space is accounted for: seed {seed}");
}

fn list(fs: &TaskFs, directory: &Descriptor) -> Result<Vec<String>, FsError> {
    let mut names: Vec<String> = Vec::new();
    while let Some(entry) = fs.next_entry(directory, names.last().map(String::as_str))? {
        names.push(entry.name);
    }
    Ok(names)
}

fn write(contents: &mut Vec<u8>, offset: u64, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let end = offset as usize + data.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset as usize..end].copy_from_slice(data);
}

#[test]
fn random_operations_agree_with_the_model() {
    for seed in 1..=40 {
        run(seed, 2_000);
    }
}
