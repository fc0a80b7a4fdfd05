//! Endorsements in a directory: objects by their digest, a list of items, and marks behind which nothing goes back.
//!
//! ```text
//! objects/<sha256>   what makers published, and chains
//! index              items: key, objects, when and from where
//! marks              numbers and times of issue that were seen
//! damaged/           what was found damaged, set aside
//! ```
//!
//! Files are replaced as a whole and are durable before they count. Nothing is served that was not verified by this process. The directory is
//! believed about nothing but marks and times of fetching: whoever can put an older copy of it in place can take those back.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use starminer_hardware::endorsements::{
    Bundle, BundleError, Candidate, Key, MAX_ITEMS, MAX_OBJECT_BYTES, Marks, Object, Refusal, Snapshot, Trust, encode,
    take,
};

/// The longest list of items or marks.
const MAX_LIST_BYTES: u64 = (MAX_ITEMS * 2 * 1024) as u64;
/// The most damaged files that are kept.
const MAX_DAMAGED: usize = 64;
/// How often a directory is read that changes meanwhile.
const LOOKS_MAX: usize = 8;
const INDEX: &str = "index";
const MARKS: &str = "marks";
const OBJECTS: &str = "objects";
const DAMAGED: &str = "damaged";

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the store of endorsements at {path}")]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

/// Why an endorsement is not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It does not verify, or goes back.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be written. Nothing changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was found in the directory.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Files that were damaged, by their names within the directory. What was in them has to be fetched again.
    pub damaged: Vec<String>,
    /// Items that hold no more, with the reason: they ended, or nobody vouches for them.
    pub dropped: Vec<(Key, Refusal)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: Key,
    content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    fetched_s: u64,
    source: String,
}

/// Endorsements on disk and in memory. Cheap to clone; all clones are the same store.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    trust: Trust,
    // What is served. Written for the blink of a swap alone.
    snapshot: RwLock<Snapshot>,
    // Held by whoever writes, disk included.
    marks: Mutex<Marks>,
    // The lock on the directory, until the last clone is gone.
    _lock: File,
}

impl Store {
    /// Opens a directory, or makes it, and verifies everything in it as of this time. Blocks.
    ///
    /// # Errors
    /// It cannot be read or written, or another process has it.
    pub fn open(directory: &Path, trust: Trust, now_s: u64) -> Result<(Self, Loaded), StoreError> {
        let fault = |source| StoreError { path: directory.to_owned(), source };
        for made in [directory, &directory.join(OBJECTS), &directory.join(DAMAGED)] {
            DirBuilder::new().recursive(true).mode(0o700).create(made).map_err(fault)?;
        }
        let lock = private(&directory.join("lock")).map_err(fault)?;
        lock.try_lock().map_err(|error| fault(error.into()))?;
        let mut loaded = Loaded::default();
        let (snapshot, marks) = load(directory, Damaged::SetAside, &trust, now_s, &mut loaded).map_err(fault)?;
        for name in &loaded.damaged {
            tracing::warn!(directory = %directory.display(), name, "damaged, set aside: it has to be fetched again");
        }
        let inner = Inner {
            directory: directory.to_owned(),
            trust,
            snapshot: RwLock::new(snapshot),
            marks: Mutex::new(marks),
            _lock: lock,
        };
        Ok((Self(Arc::new(inner)), loaded))
    }

    /// What is in a directory as of this time, verified, without taking it from whoever has it: nothing is written, moved or locked. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or is no store.
    pub fn look(directory: &Path, trust: &Trust, now_s: u64) -> Result<(Snapshot, Loaded), StoreError> {
        let fault = |source| StoreError { path: directory.to_owned(), source };
        let index = || read(&directory.join(INDEX), MAX_LIST_BYTES).map_err(fault);
        let mut before = index()?;
        if before.is_none() {
            // A store that never held anything has no list; what has no objects either is none.
            fs::metadata(directory.join(OBJECTS)).map_err(fault)?;
        }
        for _ in 0..LOOKS_MAX {
            let mut loaded = Loaded::default();
            let (snapshot, _) = load(directory, Damaged::Leave, trust, now_s, &mut loaded).map_err(fault)?;
            let after = index()?;
            if after == before {
                return Ok((snapshot, loaded));
            }
            before = after;
        }
        Err(fault(io::Error::other("it changed each time it was read")))
    }

    /// What verifiers take: no disk, no network, no waiting.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Verifies an endorsement and keeps it: durable once this returns, and served from then on. Blocks.
    ///
    /// # Errors
    /// It is refused, or cannot be written. Nothing changed then.
    pub fn put(&self, candidate: &Candidate, now_s: u64) -> Result<(), PutError> {
        let mut held = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut marks = held.clone();
        let snapshot = self.snapshot();
        let item = snapshot.verify(candidate, &self.0.trust, now_s)?;
        let next = snapshot.with(item, &mut marks)?;
        self.keep(&next, &marks)?;
        *held = marks;
        Ok(())
    }

    /// Takes over what of a bundle holds, and says what does not. Blocks.
    ///
    /// # Errors
    /// It cannot be written. Nothing changed then.
    pub fn import(&self, bundle: &Bundle, now_s: u64) -> Result<Vec<(Key, Refusal)>, StoreError> {
        let mut held = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut marks = held.clone();
        let opened = bundle.open(&self.snapshot(), &mut marks, &self.0.trust, now_s);
        self.keep(&opened.snapshot, &marks)?;
        *held = marks;
        Ok(opened.refused)
    }

    /// Reads a bundle's bytes and takes it over, as [`Self::import`].
    ///
    /// # Errors
    /// It is no bundle, or cannot be written.
    pub fn import_bytes(
        &self,
        bytes: &[u8],
        now_s: u64,
    ) -> Result<Result<Vec<(Key, Refusal)>, BundleError>, StoreError> {
        match Bundle::parse(bytes) {
            Ok(bundle) => self.import(&bundle, now_s).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Everything as one file.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        encode(&self.snapshot())
    }

    /// Removes all items but these. Marks stay. Blocks.
    ///
    /// # Errors
    /// It cannot be written. Nothing changed then.
    pub fn retain(&self, wanted: impl Fn(&Key) -> bool) -> Result<(), StoreError> {
        let held = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.snapshot();
        let unwanted: Vec<Key> = next.items().map(|item| item.key().clone()).filter(|key| !wanted(key)).collect();
        for key in unwanted {
            next = next.without(&key);
        }
        self.keep(&next, &held)
    }

    /// Writes objects, then marks, then the list of items; then serves.
    fn keep(&self, next: &Snapshot, marks: &Marks) -> Result<(), StoreError> {
        let directory = &self.0.directory;
        let fault = |source| StoreError { path: directory.clone(), source };
        let before = self.snapshot();
        let objects = |snapshot: &Snapshot| -> BTreeSet<String> {
            let all = snapshot.items().flat_map(|item| [Some(item.content()), item.chain()]);
            all.flatten().map(|object| HEXLOWER.encode(object.sha256())).collect()
        };
        let kept = objects(&before);
        let mut entries = Vec::new();
        let mut written = false;
        for item in next.items() {
            for object in [Some(item.content()), item.chain()].into_iter().flatten() {
                let path = directory.join(OBJECTS).join(HEXLOWER.encode(object.sha256()));
                if !kept.contains(&HEXLOWER.encode(object.sha256())) || !path.exists() {
                    write(&path, object.bytes()).map_err(fault)?;
                    written = true;
                }
            }
            let name = |object: &Object| HEXLOWER.encode(object.sha256());
            entries.push(Entry {
                key: item.key().clone(),
                content: name(item.content()),
                chain: item.chain().map(name),
                fetched_s: item.fetched_s(),
                source: item.source().to_owned(),
            });
        }
        if written {
            sync_directory(&directory.join(OBJECTS)).map_err(fault)?;
        }
        for (name, json) in [(MARKS, serde_json::to_vec(marks)), (INDEX, serde_json::to_vec(&entries))] {
            write(&directory.join(name), &sealed(&json.expect("text and numbers are JSON"))).map_err(fault)?;
        }
        sync_directory(directory).map_err(fault)?;
        *self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
        let wanted = objects(next);
        for gone in kept.difference(&wanted) {
            // What stays behind costs room and nothing else.
            let _ = fs::remove_file(directory.join(OBJECTS).join(gone));
        }
        Ok(())
    }
}

/// A list behind its own digest, so that damage shows.
fn sealed(json: &[u8]) -> Vec<u8> {
    [HEXLOWER.encode(digest(&SHA256, json).as_ref()).as_bytes(), b"\n", json].concat()
}

fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    let (stated, json) = bytes.split_at_checked(65)?;
    let found = HEXLOWER.encode(digest(&SHA256, json).as_ref());
    (stated.strip_suffix(b"\n") == Some(found.as_bytes())).then_some(json)
}

/// A file for its user alone, emptied.
fn private(path: &Path) -> io::Result<File> {
    // A pipe would be waited for.
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Replaces a file as a whole. Its name is durable once its directory is synchronised.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = private(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What is no regular file has nothing in it, and so is as good as damaged: a pipe would be waited for.
fn read(path: &Path, most_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        meta if !meta.as_ref().is_ok_and(fs::Metadata::is_file) => {
            meta?;
            return Ok(Some(Vec::new()));
        }
        _ => {}
    }
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(most_bytes + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// What becomes of damaged files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damaged {
    SetAside,
    Leave,
}

/// Reads and verifies everything in a directory.
fn load(
    directory: &Path,
    damaged: Damaged,
    trust: &Trust,
    now_s: u64,
    loaded: &mut Loaded,
) -> io::Result<(Snapshot, Marks)> {
    let marks: Option<Marks> = read_list(directory, MARKS, damaged, loaded)?;
    let entries: Option<Vec<Entry>> = read_list(directory, INDEX, damaged, loaded)?;
    let mut marks = marks.unwrap_or_default();
    let mut candidates = Vec::new();
    for entry in entries.unwrap_or_default() {
        let content = object(directory, &entry.content, damaged, loaded)?;
        let chain = match &entry.chain {
            None => Some(None),
            Some(name) => object(directory, name, damaged, loaded)?.map(Some),
        };
        if let (Some(content), Some(chain)) = (content, chain) {
            let Entry { key, fetched_s, source, .. } = entry;
            candidates.push(Candidate { key, content, chain, fetched_s, source });
        }
    }
    let opened = take(&candidates, &Snapshot::default(), &mut marks, trust, now_s);
    loaded.dropped = opened.refused;
    Ok((opened.snapshot, marks))
}

/// Reads a list.
fn read_list<T: for<'de> Deserialize<'de>>(
    directory: &Path,
    name: &str,
    damaged: Damaged,
    loaded: &mut Loaded,
) -> io::Result<Option<T>> {
    let Some(bytes) = read(&directory.join(name), MAX_LIST_BYTES)? else { return Ok(None) };
    let list = unsealed(&bytes).and_then(|json| serde_json::from_slice(json).ok());
    if list.is_none() {
        found_damaged(directory, name, damaged, loaded)?;
    }
    Ok(list)
}

/// Reads an object, which has the digest that names it.
fn object(directory: &Path, name: &str, damaged: Damaged, loaded: &mut Loaded) -> io::Result<Option<Vec<u8>>> {
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let within = format!("{OBJECTS}/{name}");
    let Some(bytes) = read(&directory.join(&within), MAX_OBJECT_BYTES as u64)? else {
        loaded.damaged.push(within);
        return Ok(None);
    };
    if HEXLOWER.encode(digest(&SHA256, &bytes).as_ref()) == name {
        return Ok(Some(bytes));
    }
    found_damaged(directory, &within, damaged, loaded)?;
    Ok(None)
}

fn found_damaged(directory: &Path, within: &str, damaged: Damaged, loaded: &mut Loaded) -> io::Result<()> {
    loaded.damaged.push(within.to_owned());
    match damaged {
        Damaged::SetAside => set_aside(directory, within),
        Damaged::Leave => Ok(()),
    }
}

fn set_aside(directory: &Path, within: &str) -> io::Result<()> {
    let path = directory.join(within);
    let kept = fs::read_dir(directory.join(DAMAGED))?.count();
    if kept < MAX_DAMAGED {
        let name = within.rsplit('/').next().unwrap_or(within);
        fs::rename(&path, directory.join(DAMAGED).join(format!("{kept:02}-{name}")))?;
    } else {
        fs::remove_file(&path)?;
    }
    Ok(())
}
