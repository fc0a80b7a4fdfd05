//! Objects through the public API: every path agrees with every other, and whatever is not the sealed object is refused
//! before a byte of the bad chunk is given out.

#![allow(clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use starminer_vault::keys::NAME_BYTES_MAX;
use starminer_vault::object::parallel::{self, Workers};
use starminer_vault::object::{
    ChunkSize, ContentId, ContentIdMode, Digests, HEADER_LEN, Header, Layout, OpenError, PlainDigestMode, SealError,
    SealOptions, SealedSummary, open_bytes, open_stream, seal_bytes, seal_stream, sealed_len,
};
use starminer_vault::{ObjectContext, ObjectReader, Purpose, ReadAt, Salt, TaskSecret, WriteAt};

const CONTEXT: ObjectContext<'static> =
    ObjectContext { task: [7; 16], name: "input/data.csv", purpose: Purpose::Input };
const ALL_DIGESTS: Digests = Digests { content_id: ContentIdMode::Compute, plain_sha256: PlainDigestMode::Compute };
const SMALL: SealOptions = SealOptions { chunk_size: ChunkSize::MIN, digests: ALL_DIGESTS };
const CHUNK: usize = 4096;

fn secret() -> TaskSecret {
    TaskSecret::from_bytes([42; 32])
}

fn salt(byte: u8) -> Salt {
    Salt::from_random([byte; 32])
}

/// Bytes in which every chunk differs from every other.
fn plaintext(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / CHUNK * 31 + i % 251) as u8).collect()
}

fn seal(plain: &[u8]) -> Vec<u8> {
    seal_bytes(&secret(), &CONTEXT, salt(1), SMALL, plain).unwrap().0
}

fn workers(threads: usize) -> Workers<'static> {
    Workers { threads: NonZeroUsize::new(threads).unwrap(), progress: &|_| () }
}

/// What each way of opening made of an object.
struct Opened {
    memory: Result<Vec<u8>, OpenError>,
    /// The bytes that were given out count even when it failed.
    stream: (Result<SealedSummary, OpenError>, Vec<u8>),
    /// `Err` of opening, or what each chunk read as.
    reader: Result<Vec<Result<Vec<u8>, OpenError>>, OpenError>,
    parallel: (Result<SealedSummary, OpenError>, Vec<u8>),
}

fn open_all_ways(sealed: &[u8], context: &ObjectContext<'_>, secret: &TaskSecret) -> Opened {
    let digests = ALL_DIGESTS;
    let mut streamed = Vec::new();
    let stream = open_stream(secret, context, digests, sealed, &mut streamed);
    let written = Mutex::new(Vec::new());
    let len = sealed.len() as u64;
    let parallel = parallel::open(secret, context, digests, workers(2), sealed, len, &written);
    // Not a slice, so that the reader's own buffer is used too.
    let store = Mutex::new(sealed.to_vec());
    let reader = ObjectReader::open(secret, context, &store, len).map(|reader| {
        (0..reader.len().div_ceil(CHUNK as u64))
            .map(|index| {
                let mut buf = vec![0xee; CHUNK];
                let read = reader.read_at(index * CHUNK as u64, &mut buf);
                if read.is_err() {
                    assert!(buf.iter().all(|b| *b == 0 || *b == 0xee), "a byte of a bad chunk");
                }
                read.map(|n| buf[..n].to_vec())
            })
            .collect()
    });
    Opened {
        memory: open_bytes(secret, context, digests, sealed).map(|(plain, _)| plain),
        stream: (stream, streamed),
        reader,
        parallel: (parallel, written.into_inner().unwrap()),
    }
}

/// Every way refuses `sealed`, and gives out nothing but chunks of `plain` that come before the first bad one.
fn check_refused(what: &str, sealed: &[u8], plain: &[u8]) {
    check_refused_as(what, sealed, plain, &CONTEXT, &secret());
}

fn check_refused_as(what: &str, sealed: &[u8], plain: &[u8], context: &ObjectContext<'_>, secret: &TaskSecret) {
    let opened = open_all_ways(sealed, context, secret);
    assert!(opened.memory.is_err(), "{what}: opened in memory");
    let (stream, given) = opened.stream;
    assert!(stream.is_err(), "{what}: opened as a stream");
    assert!(plain.starts_with(&given), "{what}: the stream gave out other bytes");
    assert_eq!(given.len() % CHUNK, 0, "{what}: the stream gave out part of a chunk");
    let (parallel, written) = opened.parallel;
    assert!(parallel.is_err(), "{what}: opened in parallel");
    for (index, chunk) in written.chunks(CHUNK).enumerate() {
        let original = &plain[(index * CHUNK).min(plain.len())..];
        let hole = chunk.iter().all(|byte| *byte == 0);
        assert!(hole || original.starts_with(chunk), "{what}: other bytes in parallel");
    }
    if let Ok(chunks) = opened.reader {
        let mut bad = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            match chunk {
                Ok(chunk) => assert!(plain[index * CHUNK..].starts_with(chunk), "{what}"),
                Err(_) => bad += 1,
            }
        }
        assert!(bad > 0, "{what}: read at random without refusal");
    }
}

#[test]
fn every_way_of_sealing_gives_the_same_bytes_and_every_way_of_opening_the_plaintext() {
    for log2 in [12, 13, 16, 20] {
        let chunk_size = ChunkSize::from_log2(log2).unwrap();
        let c = chunk_size.bytes();
        let groups = 256 * 1024;
        for len in [0, 1, c - 1, c, c + 1, 3 * c + 17, groups, groups + 1, 2 * groups + 3 * c + 5] {
            let plain = plaintext(len);
            let options = SealOptions { chunk_size, digests: ALL_DIGESTS };
            let (sealed, summary) = seal_bytes(&secret(), &CONTEXT, salt(1), options, &plain).unwrap();
            assert_eq!(Some(sealed.len() as u64), sealed_len(len as u64, chunk_size));
            assert_eq!(summary.content_id, Some(ContentId::of(&sealed)));
            let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &plain);
            assert_eq!(summary.plain_sha256.unwrap(), sha256.as_ref());

            let mut streamed = Vec::new();
            let source = Dribble(&plain);
            let of_stream = seal_stream(&secret(), &CONTEXT, salt(1), options, source, &mut streamed).unwrap();
            assert_eq!((&of_stream, &streamed), (&summary, &sealed), "{log2} {len}");

            for threads in [1, 2, 7] {
                let sink = Mutex::new(Vec::new());
                let done = AtomicU64::new(0);
                let workers = Workers {
                    threads: NonZeroUsize::new(threads).unwrap(),
                    progress: &|more| {
                        done.fetch_add(more, Ordering::Relaxed);
                    },
                };
                let of_parallel =
                    parallel::seal(&secret(), &CONTEXT, salt(1), options, workers, &plain, &sink).unwrap();
                assert_eq!(of_parallel, summary);
                assert_eq!(done.load(Ordering::Relaxed), len as u64);
                assert!(sink.into_inner().unwrap() == sealed, "{log2} {len} on {threads}");
            }

            let opened = open_all_ways(&sealed, &CONTEXT, &secret());
            assert!(opened.memory.unwrap() == plain);
            assert_eq!(opened.stream.0.unwrap(), summary);
            assert!(opened.stream.1 == plain);
            assert_eq!(opened.parallel.0.unwrap(), summary);
            assert!(opened.parallel.1 == plain);
            let chunks: Result<Vec<_>, _> = opened.reader.unwrap().into_iter().collect();
            assert!(chunks.unwrap().concat() == plain);
        }
    }
}

#[test]
fn digests_are_computed_only_when_asked_for() {
    let options = SealOptions::default();
    let (_, summary) = seal_bytes(&secret(), &CONTEXT, salt(1), options, b"x").unwrap();
    assert_eq!((summary.content_id, summary.plain_sha256), (None, None));
}

#[test]
fn every_flipped_byte_is_refused() {
    for len in [0, 1, 40, CHUNK + 40] {
        let plain = plaintext(len);
        let sealed = seal(&plain);
        for at in 0..sealed.len() {
            // All bits of the small parts, one bit of each byte elsewhere.
            let masks: &[u8] = if at < HEADER_LEN + 64 { &[1, 2, 4, 8, 16, 32, 64, 128] } else { &[0x10] };
            for mask in masks {
                let mut altered = sealed.clone();
                altered[at] ^= mask;
                check_refused(&format!("byte {at} of {len} flipped by {mask}"), &altered, &plain);
            }
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let plain = plaintext(2 * CHUNK + 100);
    let sealed = seal(&plain);
    for len in (0..HEADER_LEN + 80).chain((HEADER_LEN + 80..sealed.len()).step_by(7)) {
        check_refused(&format!("cut to {len}"), &sealed[..len], &plain);
    }
    for boundary in [HEADER_LEN + CHUNK + 16, HEADER_LEN + 2 * (CHUNK + 16), sealed.len()] {
        for len in boundary - 18..(boundary + 18).min(sealed.len()) {
            check_refused(&format!("cut to {len}"), &sealed[..len], &plain);
        }
    }
}

#[test]
fn every_extension_is_refused() {
    for len in [0, 100, CHUNK, CHUNK + 100] {
        let plain = plaintext(len);
        let sealed = seal(&plain);
        for more in [1, 15, 16, 17, 100, CHUNK - 100, CHUNK, CHUNK + 16, 2 * CHUNK] {
            let mut extended = sealed.clone();
            extended.resize(sealed.len() + more, 0);
            check_refused(&format!("{len} extended by {more} zeros"), &extended, &plain);
            let mut doubled = sealed.clone();
            doubled.extend(sealed[HEADER_LEN..].iter().cycle().take(more));
            check_refused(&format!("{len} extended by {more} of its own"), &doubled, &plain);
        }
    }
}

#[test]
fn reordered_repeated_and_dropped_chunks_are_refused() {
    let plain = plaintext(4 * CHUNK);
    let sealed = seal(&plain);
    let (header, body) = sealed.split_at(HEADER_LEN);
    let chunks: Vec<&[u8]> = body.chunks(CHUNK + 16).collect();
    for order in [
        &[1, 0, 2, 3][..],
        &[0, 2, 1, 3],
        &[0, 1, 3, 2],
        &[3, 2, 1, 0],
        &[0, 0, 2, 3],
        &[0, 1, 1, 3],
        &[0, 1, 3],
        &[1, 2, 3],
        &[0, 1, 2],
        &[3],
        &[0, 1, 2, 3, 3],
        &[0, 1, 2, 2, 3],
    ] {
        let mut altered = header.to_vec();
        order.iter().for_each(|index| altered.extend_from_slice(chunks[*index]));
        check_refused(&format!("chunks {order:?}"), &altered, &plain);
    }
}

#[test]
fn splices_of_two_objects_are_refused() {
    let plain = plaintext(3 * CHUNK);
    let sealed = seal(&plain);
    let other_name = ObjectContext { name: "input/other.csv", ..CONTEXT };
    let others = [
        seal_bytes(&secret(), &CONTEXT, salt(2), SMALL, &plain).unwrap().0,
        seal_bytes(&secret(), &other_name, salt(1), SMALL, &plain).unwrap().0,
        // The same keys: a retry with the salt of the first must still not mix with it at another length.
        seal_bytes(&secret(), &CONTEXT, salt(1), SMALL, &plain[..2 * CHUNK]).unwrap().0,
    ];
    for (number, other) in others.iter().enumerate() {
        for chunk in 0..2 {
            let range = HEADER_LEN + chunk * (CHUNK + 16)..HEADER_LEN + (chunk + 1) * (CHUNK + 16);
            let mut spliced = sealed.clone();
            spliced[range.clone()].copy_from_slice(&other[range]);
            if spliced != sealed {
                check_refused(&format!("chunk {chunk} of other {number}"), &spliced, &plain);
            }
        }
        let mut spliced = sealed.clone();
        spliced[..HEADER_LEN].copy_from_slice(&other[..HEADER_LEN]);
        if spliced != sealed {
            check_refused(&format!("header of other {number}"), &spliced, &plain);
        }
    }
}

#[test]
fn another_key_task_name_or_purpose_is_refused_by_the_commitment() {
    let plain = plaintext(CHUNK + 1);
    let sealed = seal(&plain);
    let check = |what: &str, context: ObjectContext<'_>, secret: &TaskSecret| {
        check_refused_as(what, &sealed, &plain, &context, secret);
        let refused = ObjectReader::open(secret, &context, sealed.as_slice(), sealed.len() as u64);
        assert_eq!(refused.err().unwrap().code(), "vault.object.key", "{what}");
    };
    check("secret", CONTEXT, &TaskSecret::from_bytes([43; 32]));
    check("task", ObjectContext { task: [8; 16], ..CONTEXT }, &secret());
    check("name", ObjectContext { name: "input/data.cs", ..CONTEXT }, &secret());
    check("no name", ObjectContext { name: "", ..CONTEXT }, &secret());
    for purpose in [Purpose::Output, Purpose::Scratch, Purpose::File] {
        check("purpose", ObjectContext { purpose, ..CONTEXT }, &secret());
    }
}

#[test]
fn refusals_have_their_codes() {
    let plain = plaintext(2 * CHUNK + 9);
    let sealed = seal(&plain);
    let check = |at: usize, value: u8, code: &str, stream_code: &str| {
        let mut altered = sealed.clone();
        altered[at] = value;
        let opened = open_all_ways(&altered, &CONTEXT, &secret());
        assert_eq!(opened.stream.0.unwrap_err().code(), stream_code);
        assert_eq!(opened.memory.unwrap_err().code(), stream_code);
        if let Err(error) = opened.reader {
            assert_eq!(error.code(), code);
        }
    };
    check(0, b'X', "vault.object.not-an-object", "vault.object.not-an-object");
    check(9, 2, "vault.object.version", "vault.object.version");
    check(10, 11, "vault.object.chunk-size", "vault.object.chunk-size");
    check(10, 13, "vault.object.key", "vault.object.key");
    check(15, 1, "vault.object.reserved", "vault.object.reserved");
    check(20, sealed[20] ^ 1, "vault.object.key", "vault.object.key");
    check(79, sealed[79] ^ 1, "vault.object.key", "vault.object.key");
    check(100, sealed[100] ^ 1, "vault.object.chunk", "vault.object.chunk");
    let last = sealed.len() - 1;
    check(last, sealed[last] ^ 1, "vault.object.end", "vault.object.end");

    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let context = ObjectContext { name: &long, ..CONTEXT };
    let refused = seal_bytes(&secret(), &context, salt(1), SMALL, b"");
    assert_eq!(refused.unwrap_err().code(), "vault.seal.name-too-long");
    let refused = open_bytes(&secret(), &context, ALL_DIGESTS, &sealed);
    assert_eq!(refused.unwrap_err().code(), "vault.object.name-too-long");
}

#[test]
fn a_cut_object_is_known_when_it_is_opened_for_random_access() {
    let plain = plaintext(8 * CHUNK);
    let sealed = seal(&plain);
    for chunks in 1..8 {
        let len = HEADER_LEN + chunks * (CHUNK + 16);
        let refused = ObjectReader::open(&secret(), &CONTEXT, &sealed[..len], len as u64);
        assert_eq!(refused.err().unwrap().code(), "vault.object.end");
        // The store is shorter than it is said to be.
        let refused = ObjectReader::open(&secret(), &CONTEXT, &sealed[..len], sealed.len() as u64);
        assert_eq!(refused.err().unwrap().code(), "vault.object.end");
    }
}

#[test]
fn random_reads_agree_with_the_plaintext() {
    let plain = plaintext(9 * CHUNK + 123);
    let sealed = seal(&plain);
    for cache in [1, 2, 100] {
        let store = Mutex::new(sealed.clone());
        let reader =
            ObjectReader::open(&secret(), &CONTEXT, &store, sealed.len() as u64).unwrap().with_cache_chunks(cache);
        assert_eq!(reader.len(), plain.len() as u64);
        let mut state = 1_u64;
        for _ in 0..500 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let offset = (state >> 33) as usize % (plain.len() + 50);
            let len = (state >> 7) as usize % (3 * CHUNK);
            let mut buf = vec![0xee; len];
            let read = reader.read_at(offset as u64, &mut buf).unwrap();
            let start = offset.min(plain.len());
            let expected = &plain[start..(start + len).min(plain.len())];
            assert_eq!(&buf[..read], expected);
            assert!(buf[read..].iter().all(|byte| *byte == 0xee));
        }
        assert_eq!(reader.read_at(u64::MAX, &mut [0; 8]).unwrap(), 0);
        assert_eq!(reader.read_at(3, &mut []).unwrap(), 0);
    }
}

#[test]
fn a_bad_chunk_does_not_spoil_the_reader() {
    let plain = plaintext(3 * CHUNK);
    let mut sealed = seal(&plain);
    sealed[HEADER_LEN + CHUNK + 16 + 5] ^= 1;
    let reader = ObjectReader::open(&secret(), &CONTEXT, &sealed, sealed.len() as u64).unwrap();
    let mut buf = vec![0; 10];
    for _ in 0..3 {
        let refused = reader.read_at(CHUNK as u64 + 1, &mut buf).unwrap_err();
        assert!(matches!(refused, OpenError::Chunk { index: 1 }));
        assert_eq!(buf, [0; 10]);
        assert_eq!(reader.read_at(1, &mut buf).unwrap(), 10);
        assert_eq!(buf, plain[1..11]);
        buf.fill(0);
    }
}

#[test]
fn failing_sources_and_sinks_end_the_work() {
    let plain = plaintext(3 << 20);
    let error = seal_stream(&secret(), &CONTEXT, salt(1), SMALL, Failing(1 << 20), io::sink());
    assert_eq!(error.unwrap_err().code(), "vault.seal.source");
    let error = seal_stream(&secret(), &CONTEXT, salt(1), SMALL, &plain[..], Failing(1 << 20));
    assert_eq!(error.unwrap_err().code(), "vault.seal.sink");
    for threads in [1, 2, 5] {
        let broken = FailingStore::after(1 << 20);
        let error = parallel::seal(&secret(), &CONTEXT, salt(1), SMALL, workers(threads), &plain, &broken);
        assert_eq!(error.unwrap_err().code(), "vault.seal.sink");
        let error = parallel::seal(
            &secret(),
            &CONTEXT,
            salt(1),
            SMALL,
            workers(threads),
            &Shrunk(&plain),
            &Mutex::new(Vec::new()),
        );
        assert_eq!(error.unwrap_err().code(), "vault.seal.source-shrank");
        let sealed = seal(&plain);
        let error = parallel::open(
            &secret(),
            &CONTEXT,
            ALL_DIGESTS,
            workers(threads),
            &sealed,
            sealed.len() as u64,
            &FailingStore::after(1 << 20),
        );
        assert_eq!(error.unwrap_err().code(), "vault.object.sink");
    }
}

#[test]
fn a_panic_in_one_thread_ends_the_others() {
    let plain = plaintext(4 << 20);
    let run = || {
        let sink = PanickingStore(AtomicU64::new(5));
        let options = SealOptions { digests: ALL_DIGESTS, ..SealOptions::default() };
        parallel::seal(&secret(), &CONTEXT, salt(1), options, workers(4), &plain, &sink)
    };
    assert!(std::panic::catch_unwind(run).is_err());
}

#[test]
fn headers_survive_the_round_trip_and_nothing_panics_on_noise() {
    let sealed = seal(b"x");
    let header = Header::parse(&sealed).unwrap();
    assert_eq!(header.encode(), sealed[..HEADER_LEN]);
    let mut state = 99_u64;
    for round in 0..2000 {
        let mut noise = sealed.clone();
        for _ in 0..round % 4 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (state >> 33) as usize % noise.len();
            noise[at] = (state >> 20) as u8;
        }
        noise.truncate(noise.len() - round % 90);
        if noise != sealed {
            check_refused("noise", &noise, b"x");
        }
    }
}

#[test]
fn an_object_too_long_is_refused_before_anything_is_read() {
    let endless = Endless;
    let refused = parallel::seal(&secret(), &CONTEXT, salt(1), SMALL, workers(2), &endless, &Mutex::new(Vec::new()));
    assert!(matches!(refused, Err(SealError::TooLong)));
    assert_eq!(Layout::for_plain(ChunkSize::MIN, 1 << 45), None);
}

/// Gives a few bytes at a time.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(self.0.len()).min(70_001);
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

/// Reads or writes so many bytes, then fails.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("broken"));
        }
        let n = buf.len().min(self.0);
        self.0 -= n;
        Ok(n)
    }
}

impl Write for Failing {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(buf.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes so many bytes at whatever offsets, then fails.
struct FailingStore(AtomicU64);

impl FailingStore {
    fn after(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }
}

impl WriteAt for FailingStore {
    fn write_all_at(&self, buf: &[u8], _: u64) -> io::Result<()> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(buf.len() as u64))
            .map(|_| ())
            .map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

/// Panics at the write that the counter says.
struct PanickingStore(AtomicU64);

impl WriteAt for PanickingStore {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        assert!(self.0.fetch_sub(1, Ordering::Relaxed) != 0, "as the test wants it");
        Ok(())
    }
}

struct Shrunk<'a>(&'a [u8]);

impl ReadAt for Shrunk<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0[..self.0.len() / 2].read_at(buf, offset)
    }

    fn byte_len(&self) -> io::Result<u64> {
        self.0.byte_len()
    }
}

struct Endless;

impl ReadAt for Endless {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        panic!("nothing of it must be read");
    }

    fn byte_len(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
