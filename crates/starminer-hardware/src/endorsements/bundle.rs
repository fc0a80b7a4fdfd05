//! A snapshot as one file, for machines without a network and for receipts.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use super::{
    admit::Refusal,
    item::{Candidate, Item, MAX_OBJECT_BYTES, MAX_SOURCE_BYTES, Object, Trust, sha256},
    key::Key,
    snapshot::{MAX_ITEMS, MAX_SNAPSHOT_BYTES, Marks, Snapshot, TITLE, line},
};

/// The largest file: the largest snapshot in base64, and its list.
pub const MAX_BUNDLE_BYTES: usize = MAX_SNAPSHOT_BYTES / 3 * 4 + MAX_ITEMS * 1024;
/// The version of the form.
const VERSION: u32 = 1;

/// Why a file is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Larger than is read.
    #[error("the bundle is larger than {MAX_BUNDLE_BYTES} bytes")]
    TooLarge,
    /// More items than a snapshot has.
    #[error("the bundle has more than {MAX_ITEMS} items")]
    TooMany,
    /// Not JSON of this form.
    #[error("the bundle is no JSON of the expected form: {0}")]
    Json(String),
    /// A version that is not known.
    #[error("the bundle is of version {0}")]
    Version(u32),
    /// An item or object does not have the form.
    #[error("{what}: {problem}")]
    Item {
        /// Which.
        what: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The list of items is not the one whose digest the file states.
    #[error("the bundle states another digest than that of its items: it is damaged")]
    Digest,
}

impl BundleError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "bundle.too-large",
            Self::TooMany => "bundle.too-many",
            Self::Json(_) => "bundle.json",
            Self::Version(_) => "bundle.version",
            Self::Item { .. } => "bundle.item",
            Self::Digest => "bundle.digest",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    digest: String,
    items: Vec<Entry>,
    objects: BTreeMap<String, String>,
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

/// A bundle that was read. Nothing of it is believed.
#[derive(Debug, Clone)]
pub struct Bundle {
    digest: [u8; 32],
    candidates: Vec<Candidate>,
}

/// What verifying a bundle came to.
#[derive(Debug)]
pub struct Opened {
    /// What of it holds.
    pub snapshot: Snapshot,
    /// What does not, and why.
    pub refused: Vec<(Key, Refusal)>,
}

/// Encodes a snapshot. The same snapshot gives the same bytes.
#[must_use]
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut objects = BTreeMap::new();
    let mut name = |object: &Object| {
        let name = HEXLOWER.encode(object.sha256());
        objects.entry(name.clone()).or_insert_with(|| BASE64.encode(object.bytes()));
        name
    };
    let items = snapshot.items().map(|item: &Item| Entry {
        key: item.key().clone(),
        content: name(item.content()),
        chain: item.chain().map(&mut name),
        fetched_s: item.fetched_s(),
        source: item.source().to_owned(),
    });
    let items = items.collect();
    let file = File { version: VERSION, digest: HEXLOWER.encode(snapshot.digest()), items, objects };
    serde_json::to_vec(&file).expect("text, numbers and maps with text keys are JSON")
}

fn item(what: &str, problem: &'static str) -> BundleError {
    BundleError::Item { what: what.chars().take(160).collect(), problem }
}

impl Bundle {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not of the form, an object does not have the digest that names it, or the list not the digest that is stated.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| BundleError::Json(error.to_string()))?;
        if file.version != VERSION {
            return Err(BundleError::Version(file.version));
        }
        if file.items.len() > MAX_ITEMS || file.objects.len() > 2 * MAX_ITEMS {
            return Err(BundleError::TooMany);
        }
        let objects = objects(file.objects)?;
        let mut used = std::collections::BTreeSet::new();
        let mut object = |what: &str, name: &str| -> Result<Vec<u8>, BundleError> {
            let bytes = objects.get(name).ok_or_else(|| item(what, "its object is not in the file"))?;
            used.insert(name.to_owned());
            Ok(bytes.clone())
        };
        let mut total = 0;
        let mut lines = BTreeMap::new();
        let mut candidates = Vec::with_capacity(file.items.len());
        for entry in file.items {
            let name = entry.key.to_string();
            if entry.source.len() > MAX_SOURCE_BYTES || !entry.source.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(item(&name, "its source is no address"));
            }
            let content = object(&name, &entry.content)?;
            let chain = entry.chain.as_deref().map(|chain| object(&name, chain)).transpose()?;
            total += content.len() + chain.as_ref().map_or(0, Vec::len);
            if total > MAX_SNAPSHOT_BYTES {
                return Err(BundleError::TooLarge);
            }
            let chain_digest = chain.as_deref().map(sha256);
            let text = line(&name, &sha256(&content), chain_digest.as_ref(), entry.fetched_s, &entry.source);
            if lines.insert(name.clone(), text).is_some() {
                return Err(item(&name, "it stands twice"));
            }
            let (fetched_s, source) = (entry.fetched_s, entry.source);
            candidates.push(Candidate { key: entry.key, content, chain, fetched_s, source });
        }
        if let Some(name) = objects.keys().find(|name| !used.contains(*name)) {
            return Err(item(name, "no item is about this object"));
        }
        let text: String = std::iter::once(TITLE).chain(lines.values().map(String::as_str)).collect();
        let digest = sha256(text.as_bytes());
        if file.digest != HEXLOWER.encode(&digest) {
            return Err(BundleError::Digest);
        }
        Ok(Self { digest, candidates })
    }

    /// The digest of the snapshot that was encoded. A receipt that commits to it means exactly these items.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What is in it.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Verifies everything in it, as of this time, beside what is in a snapshot already. What does not hold is left out and said.
    ///
    /// For a receipt the snapshot is empty, there are no marks, and the time is that of its grant; for a store both are its own.
    #[must_use]
    pub fn open(&self, into: &Snapshot, marks: &mut Marks, trust: &Trust, now_s: u64) -> Opened {
        take(&self.candidates, into, marks, trust, now_s)
    }
}

/// Verifies candidates in the order in which they rest on each other, beside what is in a snapshot already. What does not hold is left out and said.
#[must_use]
pub fn take(candidates: &[Candidate], into: &Snapshot, marks: &mut Marks, trust: &Trust, now_s: u64) -> Opened {
    let mut ordered: Vec<&Candidate> = candidates.iter().collect();
    ordered.sort_by_key(|candidate| candidate.key.rank());
    let mut opened = Opened { snapshot: into.clone(), refused: Vec::new() };
    for candidate in ordered {
        let taken = opened.snapshot.verify(candidate, trust, now_s);
        if let Err(refusal) = taken.and_then(|item| opened.snapshot.insert(item, marks)) {
            opened.refused.push((candidate.key.clone(), refusal));
        }
    }
    opened
}

/// Objects by name, each of which has the digest that names it.
fn objects(encoded: BTreeMap<String, String>) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
    let decode = |(name, base64): (String, String)| {
        if base64.len() > MAX_OBJECT_BYTES / 3 * 4 + 4 {
            return Err(item(&name, "an object is larger than any"));
        }
        let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| item(&name, "an object is no base64"))?;
        if HEXLOWER.encode(&sha256(&bytes)) != name {
            return Err(item(&name, "an object does not have the digest that names it"));
        }
        Ok((name, bytes))
    };
    encoded.into_iter().map(decode).collect()
}
