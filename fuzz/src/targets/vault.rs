//! Targets of `starminer-vault`.

use std::sync::{Mutex, OnceLock};

use starminer_vault::object::{
    ChunkSize, Digests, HEADER_LEN, Header, Layout, ObjectReader, OpenError, SealOptions, open_bytes, open_stream,
    parallel, seal_bytes,
};
use starminer_vault::scratch::{Opening, PAGE_BYTES, ScratchError, ScratchOptions, Superblock, parse_directory};
use starminer_vault::{FileId, ObjectContext, Purpose, Salt, Scratch, ScratchContext, Sequence, TaskSecret};

use crate::Outcome;
use crate::random::Random;
use crate::seeds::Seed;

pub(crate) const OBJECT: ObjectContext<'static> =
    ObjectContext { task: [7; 16], name: "input/data.csv", purpose: Purpose::Input };
const SCRATCH: ScratchContext<'static> = ScratchContext { task: [7; 16], name: "work" };

pub(crate) fn secret() -> TaskSecret {
    TaskSecret::from_bytes([42; 32])
}

/// Byte `offset` of every plaintext that was ever sealed here: any piece that is given out can be checked by its place.
fn plain_byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// The first `len` bytes of that plaintext.
pub(crate) fn plaintext(len: usize) -> Vec<u8> {
    (0..len as u64).map(plain_byte).collect()
}

fn is_plaintext(bytes: &[u8], offset: u64) -> bool {
    bytes.iter().zip(offset..).all(|(byte, offset)| *byte == plain_byte(offset))
}

pub fn object(data: &[u8]) -> Outcome {
    let secret = secret();
    let header = Header::parse(data);
    if let Ok(header) = &header {
        assert_eq!(header.encode(), data[..HEADER_LEN], "one encoding");
        // Lengths that a stranger makes up determine a layout or none, and the layout determines the length.
        let made_up = data.iter().rev().take(8).fold(0_u64, |len, byte| (len << 8) | u64::from(*byte));
        for len in [made_up, made_up >> 20, data.len() as u64] {
            if let Some(layout) = Layout::for_sealed(header.chunk_size, len) {
                assert_eq!(layout.sealed_len(), len);
            }
        }
    }
    let opened = open_bytes(&secret, &OBJECT, Digests::default(), data);
    if let (Ok((plain, _)), Ok(header)) = (&opened, &header) {
        assert!(is_plaintext(plain, 0));
        let options = SealOptions { chunk_size: header.chunk_size, ..SealOptions::default() };
        let (again, _) =
            seal_bytes(&secret, &OBJECT, Salt::from_random(header.salt), options, plain).expect("its own length");
        assert_eq!(again, data, "what opens is what was sealed, byte for byte");
    }

    let mut streamed = Vec::new();
    let stream = open_stream(&secret, &OBJECT, Digests::default(), data, &mut streamed);
    assert!(is_plaintext(&streamed, 0), "a bad chunk was given out");
    assert_eq!(stream.is_ok(), opened.is_ok());

    let stored = Mutex::new(Vec::new());
    let workers = parallel::Workers { threads: std::num::NonZeroUsize::MIN, progress: &|_| {} };
    let in_parallel = parallel::open(&secret, &OBJECT, Digests::default(), workers, data, data.len() as u64, &stored);
    assert_eq!(in_parallel.is_ok(), opened.is_ok());
    assert!(in_parallel.is_err() || stored.into_inner().is_ok_and(|bytes| is_plaintext(&bytes, 0)));

    // Random access proves chunk by chunk: what it gives of a damaged object is still right at its place.
    let reader = ObjectReader::open(&secret, &OBJECT, data, data.len() as u64);
    if let Ok(reader) = &reader {
        let mut random = Random::new(crate::fnv1a(data));
        let mut buffer = [0; 5000];
        let mut all = true;
        for _ in 0..4 {
            let offset = random.next_u64() % (reader.len() + 10);
            match reader.read_at(offset, &mut buffer) {
                Ok(count) => assert!(is_plaintext(&buffer[..count], offset)),
                Err(OpenError::Chunk { .. } | OpenError::End) => all = false,
                Err(error) => panic!("reading from memory: {error}"),
            }
        }
        assert!(all || opened.is_err());
    }
    assert!(reader.is_ok() || opened.is_err());
    let code = |error: &OpenError| error.code();
    Outcome::of(&opened, code).and(Outcome::of(&stream, code)).and(Outcome::of(&reader, code))
}

/// What one file of the scratch held at a checkpoint: its length, and the bytes that were written.
struct Held {
    sequence: Sequence,
    len: u64,
    written: Vec<(u64, Vec<u8>)>,
}

/// A store with two checkpoints, and what each of them holds of the one file.
struct Store {
    bytes: Vec<u8>,
    file: FileId,
    checkpoints: Vec<Held>,
}

fn store() -> &'static Store {
    static STORE: OnceLock<Store> = OnceLock::new();
    STORE.get_or_init(|| {
        let options = ScratchOptions { cache_pages: 2, ..ScratchOptions::default() };
        let opening = Opening { salt: Salt::from_random([1; 32]), attempt: 1 };
        let mut scratch =
            Scratch::create(Mutex::new(Vec::new()), &secret(), &SCRATCH, opening, options).expect("in memory");
        let file = scratch.create_file().expect("the first file");
        let mut written = Vec::new();
        let mut checkpoints = Vec::new();
        for (page, byte) in [(0, 0x11), (2, 0x22)] {
            let (offset, data) = (page * PAGE_BYTES as u64 + 100, vec![byte; 300]);
            scratch.write(file, offset, &data).expect("within every limit");
            written.push((offset, data));
            let sequence = scratch.checkpoint().expect("in memory");
            checkpoints.push(Held { sequence, len: scratch.len(file).expect("it is there"), written: written.clone() });
        }
        let bytes = scratch.into_store().into_inner().expect("nobody panicked");
        Store { bytes, file, checkpoints }
    })
}

/// Length of one change to the store: offset, and up to eight bytes.
const CHANGE_BYTES: usize = 4 + 8;

/// A byte of flags, then changes of the store: an offset of four bytes and eight bytes to put there; offset `0xffff_ffff`
/// cuts the store to the length that follows.
pub fn scratch(data: &[u8]) -> Outcome {
    let Some((flags, changes)) = data.split_first() else { return Outcome::refused("empty") };
    let known = store();
    let mut bytes = known.bytes.clone();
    for change in changes.chunks(CHANGE_BYTES) {
        let Some((offset, put)) = change.split_first_chunk::<4>() else { break };
        let offset = u32::from_be_bytes(*offset);
        if offset == u32::MAX {
            let len = put.iter().take(3).fold(0_usize, |len, byte| (len << 8) | usize::from(*byte));
            bytes.resize(len.min(2 * known.bytes.len()), 0);
            continue;
        }
        let place = offset as usize % bytes.len().max(1);
        for (place, byte) in bytes.iter_mut().skip(place).zip(put) {
            *place = *byte;
        }
    }
    let newest = &known.checkpoints[known.checkpoints.len() - 1];
    let at_least = if flags & 1 == 1 { newest.sequence } else { Sequence::default() };
    let opening = Opening { salt: Salt::from_random([2; 32]), attempt: 2 };
    let options = ScratchOptions { cache_pages: 2, ..ScratchOptions::default() };
    let reopened = Scratch::reopen(Mutex::new(bytes), &secret(), &SCRATCH, opening, at_least, options);
    let mut scratch = match reopened {
        Ok(scratch) => scratch,
        Err(error) => return Outcome::refused(error.code()),
    };
    let files: Vec<_> = scratch.files().collect();
    let [(file, len)] = files[..] else { panic!("another set of files than was ever stored") };
    assert_eq!(file, known.file);
    let held = known.checkpoints.iter().find(|held| held.len == len).expect("a length that was never stored");
    assert!(held.sequence >= at_least, "an older checkpoint than the caller remembers");
    let mut right = 0_u32;
    for (offset, written) in &held.written {
        let mut buffer = vec![0; written.len()];
        match scratch.read(file, *offset, &mut buffer) {
            Ok(count) => {
                assert_eq!(&buffer[..count], written.as_slice(), "a page that was altered was given out");
                right += 1;
            }
            Err(ScratchError::Page { .. } | ScratchError::Truncated) => assert!(buffer.iter().all(|byte| *byte == 0)),
            Err(error) => panic!("a store in memory: {error}"),
        }
    }
    // Life goes on: a page of its own can be written and made durable, whatever became of the others.
    scratch.write(file, 9 * PAGE_BYTES as u64, b"next").expect("room");
    let sequence = scratch.checkpoint().expect("a store in memory");
    assert!(sequence > newest.sequence, "a checkpoint's place was given out twice");
    let mut buffer = [0; 4];
    assert_eq!(scratch.read(file, 9 * PAGE_BYTES as u64, &mut buffer).map_err(|error| error.code()), Ok(4));
    assert_eq!(&buffer, b"next");
    Outcome::accepted((held.len, right))
}

pub fn directory(data: &[u8]) -> Outcome {
    let superblock = Superblock::parse(data);
    let files = parse_directory(data);
    let code = |error: &ScratchError| match error {
        ScratchError::Malformed { what } => what,
        other => other.code(),
    };
    Outcome::of(&superblock, code).and(Outcome::of(&files, code))
}

/// Objects of several chunk sizes and lengths, changes of the store, and a directory and a superblock taken from it.
pub(crate) fn seeds() -> Vec<Seed> {
    let mut all: Vec<Seed> = Vec::new();
    for (name, log2, len) in [
        ("empty", 12, 0),
        ("short", 12, 100),
        ("one-chunk", 12, 4096),
        ("three-chunks", 12, 9000),
        ("large-chunk", 16, 500),
    ] {
        let options =
            SealOptions { chunk_size: ChunkSize::from_log2(log2).expect("12 to 20"), ..SealOptions::default() };
        let salt = Salt::from_random([log2; 32]);
        let (sealed, _) = seal_bytes(&secret(), &OBJECT, salt, options, &plaintext(len)).expect("short");
        all.push(("vault-object", name.into(), sealed));
    }
    let at = |offset: usize, bytes: &[u8; 8]| [&(offset as u32).to_be_bytes()[..], bytes].concat();
    let cut = |len: usize| [&u32::MAX.to_be_bytes()[..], &(len as u32).to_be_bytes()[1..], &[0; 5]].concat();
    let end = store().bytes.len();
    for (name, flags, changes) in [
        ("unchanged", 0, Vec::new()),
        ("newest-or-nothing", 1, Vec::new()),
        ("first-superblock", 0, at(90, b"damaged!")),
        ("second-superblock", 1, at(PAGE_BYTES + 90, b"damaged!")),
        ("a-page", 0, at(2 * PAGE_BYTES + 100, b"damaged!")),
        ("cut", 0, cut(end - 1)),
        ("cut-to-superblocks", 0, cut(2 * PAGE_BYTES)),
        ("longer", 0, cut(end + 100)),
    ] {
        all.push(("vault-scratch", name.into(), [vec![flags], changes].concat()));
    }
    all.push(("vault-directory", "superblock".into(), store().bytes[..200].to_vec()));
    // One opening, next file 3, files 1 (two pages) and 2 (empty): specs/vault.md, section 4.4.
    let page = |number: u64, slot: u32| {
        [&number.to_be_bytes()[..], &slot.to_be_bytes(), &7_u64.to_be_bytes(), &[9; 16]].concat()
    };
    let directory = [
        &1_u32.to_be_bytes()[..],
        &1_u64.to_be_bytes(),
        &[5; 32],
        &3_u64.to_be_bytes(),
        &2_u32.to_be_bytes(),
        &1_u64.to_be_bytes(),
        &(3 * PAGE_BYTES as u64).to_be_bytes(),
        &2_u64.to_be_bytes(),
        &page(0, 2),
        &page(2, 3),
        &2_u64.to_be_bytes(),
        &0_u64.to_be_bytes(),
        &0_u64.to_be_bytes(),
    ]
    .concat();
    all.push(("vault-directory", "directory".into(), directory));
    all
}
