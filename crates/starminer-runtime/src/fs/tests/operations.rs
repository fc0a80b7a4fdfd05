//! What each operation answers, in a tree that every case finds the same.

use super::store::{input, task_fs};
use crate::fs::*;

/// `/in/data.csv` (7 bytes), `/out/file` ("hello"), `/out/empty/`, `/out/full/x/deep`, `/scratch/` empty.
fn sample() -> (TaskFs, Descriptor, Descriptor, Descriptor) {
    let mut fs = task_fs(1 << 20);
    fs.add_input("data.csv", input(b"a,b\n1,2")).unwrap();
    let [inputs, out, scratch] = Grant::ALWAYS.map(|grant| fs.open_grant(grant).unwrap());
    for path in ["empty", "full", "full/x", "full/x/deep"] {
        fs.create_directory_at(&out, path).unwrap();
    }
    let file = fs.open_at(&out, "file", CREATE).unwrap();
    fs.write(&file, 0, b"hello").unwrap();
    fs.close(file).unwrap();
    (fs, inputs, out, scratch)
}

const READ: OpenHow =
    OpenHow { create: false, exclusive: false, directory: false, truncate: false, read: true, write: false };
const WRITE: OpenHow = OpenHow { write: true, ..READ };
const CREATE: OpenHow = OpenHow { create: true, ..WRITE };
const CREATE_NEW: OpenHow = OpenHow { exclusive: true, ..CREATE };
const TRUNCATE: OpenHow = OpenHow { truncate: true, ..WRITE };
const DIRECTORY: OpenHow = OpenHow { directory: true, ..READ };

fn check_open(grant: Grant, path: &str, how: OpenHow, expected: Result<FileKind, FsError>) {
    let (mut fs, inputs, out, scratch) = sample();
    let base = [&inputs, &out, &scratch][grant as usize];
    let opened = fs.open_at(base, path, how);
    let kind = opened.map(|descriptor| fs.stat(&descriptor).kind);
    assert_eq!(kind, expected, "open {path:?} in {grant:?} with {how:?}");
}

#[test]
fn open_answers() {
    use FileKind::{Directory, File};
    use Grant::{Inputs, Outputs};
    for (grant, path, how, expected) in [
        (Inputs, "data.csv", READ, Ok(File)),
        (Inputs, "./data.csv", READ, Ok(File)),
        (Inputs, ".", READ, Ok(Directory)),
        (Inputs, "missing", READ, Err(FsError::NoEntry)),
        (Inputs, "data.csv", WRITE, Err(FsError::ReadOnly)),
        (Inputs, "data.csv", TRUNCATE, Err(FsError::ReadOnly)),
        (Inputs, "data.csv", CREATE, Err(FsError::ReadOnly)),
        (Inputs, "new", CREATE, Err(FsError::ReadOnly)),
        (Inputs, "data.csv", CREATE_NEW, Err(FsError::Exists)),
        // Nothing is above a grant.
        (Inputs, "..", READ, Err(FsError::NotPermitted)),
        (Inputs, "../out/file", READ, Err(FsError::NotPermitted)),
        (Inputs, "../../etc/passwd", READ, Err(FsError::NotPermitted)),
        (Inputs, "/etc/passwd", READ, Err(FsError::NotPermitted)),
        (Inputs, "/in/data.csv", READ, Err(FsError::NotPermitted)),
        (Outputs, "full/../../in/data.csv", READ, Err(FsError::NotPermitted)),
        (Outputs, "full/x/../../..", READ, Err(FsError::NotPermitted)),
        (Outputs, "full/x/../../file", READ, Ok(File)),
        (Outputs, "full/../file", READ, Ok(File)),
        (Outputs, "missing/../file", READ, Err(FsError::NoEntry)),
        (Outputs, "file/../file", READ, Err(FsError::NotDirectory)),
        (Outputs, "", READ, Err(FsError::NoEntry)),
        (Outputs, "a\0b", CREATE, Err(FsError::Invalid)),
        (Outputs, "file", DIRECTORY, Err(FsError::NotDirectory)),
        (Outputs, "file/", READ, Err(FsError::NotDirectory)),
        (Outputs, "full", DIRECTORY, Ok(Directory)),
        (Outputs, "full//x/", DIRECTORY, Ok(Directory)),
        (Outputs, "full", WRITE, Err(FsError::IsDirectory)),
        (Outputs, "full", CREATE, Err(FsError::IsDirectory)),
        (Outputs, "full", CREATE_NEW, Err(FsError::Exists)),
        (Outputs, "file", CREATE_NEW, Err(FsError::Exists)),
        (Outputs, "new", CREATE_NEW, Ok(File)),
        (Outputs, "new/", CREATE, Err(FsError::IsDirectory)),
        (Outputs, "missing/new", CREATE, Err(FsError::NoEntry)),
        (Outputs, "file/new", CREATE, Err(FsError::NotDirectory)),
        (Outputs, "new", OpenHow { directory: true, ..CREATE }, Err(FsError::Invalid)),
    ] {
        check_open(grant, path, how, expected);
    }
    check_open(Outputs, &"n".repeat(MAX_NAME_BYTES), CREATE, Ok(File));
    check_open(Outputs, &"n".repeat(MAX_NAME_BYTES + 1), CREATE, Err(FsError::NameTooLong));
    check_open(Outputs, &"./".repeat(MAX_PATH_BYTES), READ, Err(FsError::NameTooLong));
}

fn check_rename(from: &str, to: &str, expected: Result<(), FsError>) {
    let (mut fs, _, out, _) = sample();
    let before = fs.outputs();
    let result = fs.rename_at(&out, from, &out, to);
    assert_eq!(result, expected, "rename {from:?} {to:?}");
    if result.is_err() {
        assert_eq!(fs.outputs(), before, "rename {from:?} {to:?} is all or nothing");
    }
}

#[test]
fn rename_answers() {
    for (from, to, expected) in [
        ("file", "file2", Ok(())),
        ("file", "file", Ok(())),
        ("file", "full/x/file", Ok(())),
        ("file", "full", Err(FsError::IsDirectory)),
        ("file", "empty", Err(FsError::IsDirectory)),
        ("file", "file2/", Err(FsError::NotDirectory)),
        ("missing", "file2", Err(FsError::NoEntry)),
        ("file", "missing/file", Err(FsError::NoEntry)),
        ("empty", "file", Err(FsError::NotDirectory)),
        ("empty", "full", Err(FsError::NotEmpty)),
        ("full", "empty", Ok(())),
        ("full", "renamed/", Ok(())),
        ("full", "full/x/y", Err(FsError::Invalid)),
        ("full", "full", Ok(())),
        ("full/x", "full", Err(FsError::NotEmpty)),
        (".", "y", Err(FsError::Invalid)),
        ("file", "../in/file", Err(FsError::NotPermitted)),
    ] {
        check_rename(from, to, expected);
    }
}

#[test]
fn rename_between_grants_moves_data_but_never_touches_inputs() {
    let (mut fs, inputs, out, scratch) = sample();
    assert_eq!(fs.rename_at(&inputs, "data.csv", &out, "stolen"), Err(FsError::ReadOnly));
    assert_eq!(fs.rename_at(&out, "file", &inputs, "data.csv"), Err(FsError::ReadOnly));
    assert_eq!(fs.unlink_file_at(&inputs, "data.csv"), Err(FsError::ReadOnly));
    assert_eq!(fs.create_directory_at(&inputs, "d"), Err(FsError::ReadOnly));
    fs.rename_at(&out, "file", &scratch, "moved").unwrap();
    assert_eq!(fs.outputs(), []);
    fs.rename_at(&scratch, "moved", &out, "full/x/back").unwrap();
    let outputs: Vec<_> = fs.outputs().into_iter().map(|output| (output.path, output.size_bytes)).collect();
    assert_eq!(outputs, [("full/x/back".to_owned(), 5)]);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut fs.read_output("full/x/back").unwrap(), &mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn removing_answers() {
    let (mut fs, _, out, _) = sample();
    for (path, expected) in [
        ("full", Err(FsError::NotEmpty)),
        ("file", Err(FsError::NotDirectory)),
        ("missing", Err(FsError::NoEntry)),
        (".", Err(FsError::Invalid)),
        ("full/..", Err(FsError::Invalid)),
        ("..", Err(FsError::NotPermitted)),
        ("empty/", Ok(())),
        ("empty", Err(FsError::NoEntry)),
    ] {
        assert_eq!(fs.remove_directory_at(&out, path), expected, "rmdir {path:?}");
    }
    for (path, expected) in [
        ("full", Err(FsError::IsDirectory)),
        ("file/", Err(FsError::NotDirectory)),
        ("file", Ok(())),
        ("file", Err(FsError::NoEntry)),
        (".", Err(FsError::IsDirectory)),
    ] {
        assert_eq!(fs.unlink_file_at(&out, path), expected, "unlink {path:?}");
    }
    for (path, expected) in [
        ("full", Err(FsError::Exists)),
        ("a/b", Err(FsError::NoEntry)),
        ("a", Ok(())),
        ("a/b/", Ok(())),
        (".", Err(FsError::Exists)),
    ] {
        assert_eq!(fs.create_directory_at(&out, path), expected, "mkdir {path:?}");
    }
}

#[test]
fn an_unlinked_file_lives_until_its_last_descriptor() {
    let (mut fs, _, out, _) = sample();
    let used = fs.used_bytes();
    let file = fs.open_at(&out, "file", WRITE).unwrap();
    let again = fs.reopen(&file).unwrap();
    fs.unlink_file_at(&out, "file").unwrap();
    assert!(!fs.is_linked(&file));
    fs.append(&file, b" world").unwrap();
    fs.close(file).unwrap();
    let mut text = [0; 32];
    assert_eq!(fs.read(&again, 0, &mut text), Ok(11));
    assert_eq!(&text[..11], b"hello world");
    assert_eq!(fs.used_bytes(), used + 6);
    fs.close(again).unwrap();
    assert_eq!(fs.used_bytes(), used - 5);
}

#[test]
fn a_removed_directory_takes_nothing_new() {
    let (mut fs, _, out, _) = sample();
    let empty = fs.open_at(&out, "empty", DIRECTORY).unwrap();
    fs.remove_directory_at(&out, "empty").unwrap();
    assert_eq!(fs.open_at(&empty, "new", CREATE), Err(FsError::NoEntry));
    assert_eq!(fs.create_directory_at(&empty, "new"), Err(FsError::NoEntry));
    assert_eq!(fs.rename_at(&out, "file", &empty, "file"), Err(FsError::NoEntry));
    assert_eq!(fs.next_entry(&empty, None), Ok(None));
    fs.close(empty).unwrap();
}

#[test]
fn rights_are_those_of_the_opening() {
    let (mut fs, _, out, _) = sample();
    let reader = fs.open_at(&out, "file", READ).unwrap();
    assert_eq!(fs.write(&reader, 0, b"x"), Err(FsError::BadDescriptor));
    assert_eq!(fs.set_len(&reader, 0), Err(FsError::BadDescriptor));
    let writer = fs.open_at(&out, "file", OpenHow { read: false, ..WRITE }).unwrap();
    assert_eq!(fs.read(&writer, 0, &mut [0; 4]), Err(FsError::BadDescriptor));
    assert_eq!(fs.read(&out, 0, &mut [0; 4]), Err(FsError::IsDirectory));
    assert_eq!(fs.write(&out, 0, b"x"), Err(FsError::IsDirectory));
}

#[test]
fn the_quota_counts_lengths_and_gives_back() {
    let mut fs = task_fs(1000);
    let out = fs.open_grant(Grant::Outputs).unwrap();
    let scratch = fs.open_grant(Grant::Scratch).unwrap();
    let a = fs.open_at(&out, "a", CREATE).unwrap();
    let b = fs.open_at(&scratch, "b", CREATE).unwrap();
    fs.write(&a, 0, &[1; 600]).unwrap();
    assert_eq!(fs.write(&b, 0, &[2; 401]), Err(FsError::NoSpace));
    assert_eq!(fs.stat(&b).size_bytes, 0, "a refused write changes nothing");
    fs.write(&b, 0, &[2; 400]).unwrap();
    fs.write(&b, 0, &[3; 400]).unwrap();
    assert_eq!(fs.append(&a, b"x"), Err(FsError::NoSpace));
    assert_eq!(fs.set_len(&a, 601), Err(FsError::NoSpace));
    assert_eq!(fs.write(&a, u64::MAX, b"x"), Err(FsError::FileTooLarge));
    assert_eq!(fs.set_len(&a, MAX_FILE_BYTES + 1), Err(FsError::FileTooLarge));
    fs.set_len(&a, 100).unwrap();
    fs.set_len(&b, 900).unwrap();
    let mut tail = [9; 500];
    assert_eq!(fs.read(&b, 400, &mut tail), Ok(500));
    assert_eq!(tail, [0; 500], "growth reads as zeros");
    fs.unlink_file_at(&scratch, "b").unwrap();
    assert_eq!(fs.used_bytes(), 1000, "an open file still counts");
    fs.close(b).unwrap();
    assert_eq!(fs.used_bytes(), 100);
}

#[test]
fn counts_are_bounded() {
    let mut fs = task_fs(1 << 20);
    let out = fs.open_grant(Grant::Outputs).unwrap();
    let mut open = Vec::new();
    let refused = loop {
        match fs.open_at(&out, "one", CREATE) {
            Ok(descriptor) => open.push(descriptor),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, FsError::TooManyOpen);
    assert_eq!(open.len() as u32, MAX_OPEN - 1);
    for descriptor in open {
        fs.close(descriptor).unwrap();
    }
    let made = (0..).find(|i| fs.create_directory_at(&out, &format!("d{i}")).is_err()).unwrap();
    assert_eq!(made, MAX_NODES - Grant::ALWAYS.len() - 1);
    assert_eq!(fs.create_directory_at(&out, "more"), Err(FsError::NoSpace));
    assert_eq!(fs.open_at(&out, "more", CREATE), Err(FsError::NoSpace));
    fs.remove_directory_at(&out, "d0").unwrap();
    fs.create_directory_at(&out, "more").unwrap();
}

#[test]
fn depth_is_bounded_also_by_rename() {
    let mut fs = task_fs(1 << 20);
    let out = fs.open_grant(Grant::Outputs).unwrap();
    let mut path = String::from("d");
    while fs.create_directory_at(&out, &path).is_ok() {
        path.push_str("/d");
    }
    assert_eq!(path.split('/').count(), MAX_DEPTH);
    fs.create_directory_at(&out, "e").unwrap();
    fs.create_directory_at(&out, "e/e").unwrap();
    let deepest_but_one = "d/".repeat(MAX_DEPTH - 2);
    assert_eq!(fs.rename_at(&out, "e", &out, &format!("{deepest_but_one}e")), Err(FsError::NameTooLong));
    fs.remove_directory_at(&out, "e/e").unwrap();
    assert_eq!(fs.rename_at(&out, "e", &out, &format!("{deepest_but_one}e")), Ok(()));
}

#[test]
fn listing_is_in_byte_order_and_survives_changes() {
    let mut fs = task_fs(1 << 20);
    let out = fs.open_grant(Grant::Outputs).unwrap();
    for name in ["b", "B", "ä", "a10", "a2", "~"] {
        let file = fs.open_at(&out, name, CREATE).unwrap();
        fs.close(file).unwrap();
    }
    let mut names = Vec::new();
    let mut last = None;
    while let Some(entry) = fs.next_entry(&out, last.as_deref()).unwrap() {
        if entry.name == "a10" {
            fs.unlink_file_at(&out, "a10").unwrap();
            fs.unlink_file_at(&out, "b").unwrap();
        }
        names.push(entry.name.clone());
        last = Some(entry.name);
    }
    assert_eq!(names, ["B", "a10", "a2", "~", "ä"]);
}

#[test]
fn inputs_are_checked_when_placed() {
    let mut fs = task_fs(0);
    for name in ["", ".", "..", "a/b", "/a", "a\0", &"n".repeat(256)] {
        assert_eq!(fs.add_input(name, input(b"")), Err(AddInputError::BadName), "{name:?}");
    }
    assert_eq!(fs.add_input("a", input(b"")), Ok(()));
    assert_eq!(fs.add_input("a", input(b"")), Err(AddInputError::Duplicate));
    for i in 1..MAX_INPUTS {
        fs.add_input(&format!("i{i}"), input(b"")).unwrap();
    }
    assert_eq!(fs.add_input("more", input(b"")), Err(AddInputError::TooMany));
}

#[test]
fn a_bad_input_is_a_host_fault() {
    struct Broken;
    impl InputFile for Broken {
        fn len(&self) -> u64 {
            10
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), InputError> {
            Err(InputError)
        }
    }
    let mut fs = task_fs(0);
    fs.add_input("broken", Broken).unwrap();
    let inputs = fs.open_grant(Grant::Inputs).unwrap();
    let file = fs.open_at(&inputs, "broken", READ).unwrap();
    assert_eq!(fs.read(&file, 0, &mut [0; 4]), Err(FsError::Host(crate::HostFault::INPUT)));
}
