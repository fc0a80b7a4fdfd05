//! Sealing and opening from store to store on several threads, in bounded memory.
//!
//! Each thread takes the next group of chunks, reads it, works on it and writes it. What has an order (the digests) is
//! done behind a turnstile, while the group is still in that core's cache.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use zeroize::Zeroizing;

use crate::at::{ReadAt, WriteAt};
use crate::keys::{Salt, TAG_LEN, TaskSecret};
use crate::object::cipher::ChunkCipher;
use crate::object::digests::{ContentHasher, Digests, PlainHasher, SealedSummary};
use crate::object::error::{OpenError, SealError};
use crate::object::header::HEADER_LEN;
use crate::object::layout::Layout;
use crate::object::reader::open_header;
use crate::object::sealer::{ChunkRange, ObjectSealer};
use crate::object::{ObjectContext, SealOptions};

/// Most threads that work on one object. Each holds one group of chunks, 256 KiB or one larger chunk.
pub const THREADS_MAX: usize = 64;

/// How many threads work, and who hears of their progress.
#[derive(Clone, Copy)]
pub struct Workers<'a> {
    /// Threads, cut to [`THREADS_MAX`]. With one, everything happens on the caller's.
    pub threads: NonZeroUsize,
    /// Called with how many more bytes of plaintext are done, from any thread.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// Seals all of `source` into an object at the start of `sink`. The bytes are those of [`crate::object::seal_stream`].
///
/// The source must not change meanwhile; each of its bytes is read once, so that a change can spoil the object but not
/// reuse a nonce. A sink that was longer keeps its tail: give an empty one.
///
/// # Errors
/// [`SealError`]; what the sink then has is not an object.
pub fn seal<R, W>(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    salt: Salt,
    options: SealOptions,
    workers: Workers<'_>,
    source: &R,
    sink: &W,
) -> Result<SealedSummary, SealError>
where
    R: ReadAt + Sync + ?Sized,
    W: WriteAt + Sync + ?Sized,
{
    let plain_len = source.byte_len().map_err(SealError::Source)?;
    let sealer = ObjectSealer::new(secret, context, salt, options.chunk_size, plain_len)?;
    let layout = *sealer.layout();
    let digests = OrderedDigests::new(options.digests, sealer.header());
    sink.write_all_at(sealer.header(), 0).map_err(SealError::Sink)?;
    run(workers, layout.chunks(), layout.chunk_size().per_group(), &digests, |failed| {
        let mut buffer = group_buffer(&layout);
        while let Some(range) = sealer.claim() {
            if failed() {
                return Ok(());
            }
            match seal_group(range, &layout, &digests, &mut buffer, source, sink)? {
                Some(done) => (workers.progress)(done),
                None => return Ok(()),
            }
        }
        Ok(())
    })?;
    Ok(digests.finish(&layout))
}

/// Seals one group; `None` when another thread has failed meanwhile, otherwise how much plaintext it was.
fn seal_group<R, W>(
    range: ChunkRange<'_>,
    layout: &Layout,
    digests: &OrderedDigests,
    buffer: &mut [u8],
    source: &R,
    sink: &W,
) -> Result<Option<u64>, SealError>
where
    R: ReadAt + ?Sized,
    W: WriteAt + ?Sized,
{
    let (turn, plain_offset, sealed_offset) = (range.turn(), range.plain_offset(), range.sealed_offset());
    let plain_len = range.plain_len() as u64;
    let slots = &mut buffer[..range.sealed_len()];
    let mut offset = plain_offset;
    for slot in slots.chunks_mut(layout.chunk_size().sealed_bytes()) {
        let plain_len = slot.len() - TAG_LEN;
        let got = source.read_full_at(&mut slot[..plain_len], offset).map_err(SealError::Source)?;
        if got < plain_len {
            return Err(SealError::SourceShrank);
        }
        offset += plain_len as u64;
    }
    let passed = digests.plain_slots(turn, slots, layout);
    range.seal_in_place(slots);
    if !passed {
        return Ok(None);
    }
    sink.write_all_at(slots, sealed_offset).map_err(SealError::Sink)?;
    if !digests.sealed(turn, slots) {
        return Ok(None);
    }
    Ok(Some(plain_len))
}

/// Opens the object that is the first `sealed_len` bytes of `source` into `sink`, from its start.
///
/// Key and length are proven before anything is written, each chunk before it is. On an error the sink may have other,
/// authentic chunks: throw it away. A sink that was longer keeps its tail: give an empty one.
///
/// # Errors
/// [`OpenError`]; of several bad chunks, the one that was found first.
pub fn open<R, W>(
    secret: &TaskSecret,
    context: &ObjectContext<'_>,
    digests: Digests,
    workers: Workers<'_>,
    source: &R,
    sealed_len: u64,
    sink: &W,
) -> Result<SealedSummary, OpenError>
where
    R: ReadAt + Sync + ?Sized,
    W: WriteAt + Sync + ?Sized,
{
    let (cipher, layout) = open_header(secret, context, &source, sealed_len)?;
    let digests = OrderedDigests::new(digests, cipher.header());
    let last = layout.chunks() - 1;
    {
        let mut slot = Zeroizing::new(vec![0; layout.chunk_plain_len(last) + TAG_LEN]);
        read_sealed(source, &mut slot, layout.sealed_offset(last))?;
        cipher.open_in_place(last, layout.position(last), &mut slot)?;
    }
    let next_group = AtomicU64::new(0);
    let per_group = layout.chunk_size().per_group() as u64;
    run(workers, layout.chunks(), layout.chunk_size().per_group(), &digests, |failed| {
        let mut sealed = group_buffer(&layout);
        loop {
            let turn = next_group.fetch_add(1, Ordering::Relaxed);
            let first = turn * per_group;
            if first >= layout.chunks() || failed() {
                return Ok(());
            }
            let count = per_group.min(layout.chunks() - first);
            let group = Group { turn, first, count };
            match open_group(&group, &cipher, &layout, &digests, &mut sealed, source, sink)? {
                Some(done) => (workers.progress)(done),
                None => return Ok(()),
            }
        }
    })?;
    Ok(digests.finish(&layout))
}

/// Consecutive chunks that one thread opens.
struct Group {
    turn: u64,
    first: u64,
    count: u64,
}

fn open_group<R, W>(
    group: &Group,
    cipher: &ChunkCipher,
    layout: &Layout,
    digests: &OrderedDigests,
    buffer: &mut [u8],
    source: &R,
    sink: &W,
) -> Result<Option<u64>, OpenError>
where
    R: ReadAt + ?Sized,
    W: WriteAt + ?Sized,
{
    let plain_len = layout.range_plain_len(group.first, group.count);
    let slots = &mut buffer[..plain_len + group.count as usize * TAG_LEN];
    read_sealed(source, slots, layout.sealed_offset(group.first))?;
    if !digests.sealed(group.turn, slots) {
        return Ok(None);
    }
    let size = layout.chunk_size();
    for (index, slot) in (group.first..).zip(slots.chunks_mut(size.sealed_bytes())) {
        cipher.open_in_place(index, layout.position(index), slot)?;
    }
    if !digests.plain_slots(group.turn, slots, layout) {
        return Ok(None);
    }
    let mut offset = layout.plain_offset(group.first);
    for slot in slots.chunks(size.sealed_bytes()) {
        let plain = &slot[..slot.len() - TAG_LEN];
        sink.write_all_at(plain, offset).map_err(OpenError::Sink)?;
        offset += plain.len() as u64;
    }
    Ok(Some(plain_len as u64))
}

fn read_sealed<R: ReadAt + ?Sized>(source: &R, slots: &mut [u8], offset: u64) -> Result<(), OpenError> {
    let got = source.read_full_at(slots, offset).map_err(OpenError::Source)?;
    if got < slots.len() {
        return Err(OpenError::End);
    }
    Ok(())
}

fn group_buffer(layout: &Layout) -> Zeroizing<Vec<u8>> {
    let per_group = layout.chunk_size().per_group() as u64;
    let chunks = layout.chunks().min(per_group);
    Zeroizing::new(vec![0; layout.range_plain_len(0, chunks) + chunks as usize * TAG_LEN])
}

/// Runs `work` on each thread until all have returned; gives the first error. `work` is given a way to see that another
/// thread has failed.
fn run<E: Send>(
    workers: Workers<'_>,
    chunks: u64,
    per_group: usize,
    digests: &OrderedDigests,
    work: impl Fn(&dyn Fn() -> bool) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let groups = usize::try_from(chunks.div_ceil(per_group as u64)).unwrap_or(usize::MAX);
    let threads = workers.threads.get().min(THREADS_MAX).min(groups);
    let failure = Mutex::new(None);
    let worker = || {
        // Breaks the turnstiles if `work` panics, so that nobody waits for a turn that never comes.
        let mut alarm = Alarm { digests, armed: true };
        let failed = || digests.broken();
        match work(&failed) {
            Ok(()) => alarm.armed = false,
            Err(error) => {
                lock(&failure).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(worker);
        }
        worker();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Alarm<'a> {
    digests: &'a OrderedDigests,
    armed: bool,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.digests.break_all();
        }
    }
}

/// Both digests, each fed in the order of the object by whichever thread has the next group.
struct OrderedDigests {
    modes: Digests,
    content: Turnstile<ContentHasher>,
    plain: Turnstile<PlainHasher>,
    /// Set with both turnstiles, for threads that are not about to pass one.
    broken: AtomicBool,
}

impl OrderedDigests {
    fn new(modes: Digests, header: &[u8; HEADER_LEN]) -> Self {
        let mut content = ContentHasher::new(modes.content_id);
        content.update(header);
        Self {
            modes,
            content: Turnstile::new(content),
            plain: Turnstile::new(PlainHasher::new(modes.plain_sha256)),
            broken: AtomicBool::new(false),
        }
    }

    /// Hashes the sealed bytes of group `turn`; false when another thread has failed.
    fn sealed(&self, turn: u64, slots: &[u8]) -> bool {
        use crate::object::ContentIdMode::{Compute, Skip};
        match self.modes.content_id {
            Compute => self.content.pass(turn, |content| content.update(slots)),
            Skip => true,
        }
    }

    /// Hashes the plaintext in the slots of group `turn`; false when another thread has failed.
    fn plain_slots(&self, turn: u64, slots: &[u8], layout: &Layout) -> bool {
        use crate::object::PlainDigestMode::{Compute, Skip};
        match self.modes.plain_sha256 {
            Compute => self.plain.pass(turn, |plain| {
                for slot in slots.chunks(layout.chunk_size().sealed_bytes()) {
                    plain.update(&slot[..slot.len() - TAG_LEN]);
                }
            }),
            Skip => true,
        }
    }

    fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn break_all(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.content.break_open();
        self.plain.break_open();
    }

    fn finish(self, layout: &Layout) -> SealedSummary {
        SealedSummary::new(layout, self.content.into_inner(), self.plain.into_inner())
    }
}

/// Lets threads pass one at a time in the order of their turns.
struct Turnstile<T> {
    state: Mutex<Turn<T>>,
    turned: Condvar,
}

struct Turn<T> {
    next: u64,
    broken: bool,
    value: T,
}

impl<T> Turnstile<T> {
    fn new(value: T) -> Self {
        Self { state: Mutex::new(Turn { next: 0, broken: false, value }), turned: Condvar::new() }
    }

    /// Waits until all turns before `turn` have passed, and passes. False, without running `f`, once it is broken.
    fn pass(&self, turn: u64, f: impl FnOnce(&mut T)) -> bool {
        let mut state = lock(&self.state);
        while state.next != turn && !state.broken {
            state = self.turned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.broken {
            return false;
        }
        f(&mut state.value);
        state.next += 1;
        drop(state);
        self.turned.notify_all();
        true
    }

    fn break_open(&self) {
        lock(&self.state).broken = true;
        self.turned.notify_all();
    }

    fn into_inner(self) -> T {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).value
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
