//! A snapshot as one file, for machines without a network and for receipts.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;

use super::{
    admit::Refusal,
    item::{Candidate, Item, MAX_OBJECT_BYTES, MAX_SOURCE_BYTES, Object, Trust, sha256},
    key::{Key, MAX_KEY_BYTES},
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
    /// Not the one form in which bundles are written.
    #[error("the bundle is no JSON of the expected form: {0}")]
    Json(String),
    /// A version that is not known.
    #[error("the bundle is of version {0}")]
    Version(u64),
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

#[derive(Serialize)]
struct File {
    version: u32,
    digest: String,
    items: Vec<Entry>,
    objects: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Entry {
    key: Key,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// Reads the one form that [`encode`] writes, and stops at the first byte that is of another: whoever made the file, no text in it is taken that is
/// longer than such a text can be.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn fault(&self, expected: &str) -> BundleError {
        BundleError::Json(format!("{expected} is expected at byte {}", self.at))
    }

    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn takes(&mut self, literal: &str) -> bool {
        let found = self.rest().starts_with(literal.as_bytes());
        self.at += if found { literal.len() } else { 0 };
        found
    }

    fn literal(&mut self, literal: &str) -> Result<(), BundleError> {
        if self.takes(literal) { Ok(()) } else { Err(self.fault(literal)) }
    }

    /// A text up to its closing quotation mark. None of them has an escape.
    fn text(&mut self, most_bytes: usize, what: &str) -> Result<&'a str, BundleError> {
        let rest = self.rest();
        let window = &rest[..rest.len().min(most_bytes + 1)];
        let length = window.iter().position(|&byte| byte == b'"').ok_or_else(|| self.fault(what))?;
        let text = &window[..length];
        if !text.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(self.fault(what));
        }
        let text = str::from_utf8(text).map_err(|_| self.fault(what))?;
        self.at += length + 1;
        Ok(text)
    }

    /// SHA-256 in hexadecimal.
    fn digest(&mut self) -> Result<&'a str, BundleError> {
        const WHAT: &str = "SHA-256 in lower-case hexadecimal";
        let text = self.text(64, WHAT)?;
        let fits = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if fits { Ok(text) } else { Err(self.fault(WHAT)) }
    }

    fn number(&mut self) -> Result<u64, BundleError> {
        const WHAT: &str = "a number";
        let length = self.rest().iter().take(21).take_while(|byte| byte.is_ascii_digit()).count();
        let digits = str::from_utf8(&self.rest()[..length]).map_err(|_| self.fault(WHAT))?;
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(self.fault(WHAT));
        }
        let number = digits.parse().map_err(|_| self.fault(WHAT))?;
        self.at += length;
        Ok(number)
    }

    fn entry(&mut self) -> Result<Entry, BundleError> {
        self.literal("{\"key\":\"")?;
        let key = self.text(MAX_KEY_BYTES, "the name of an endorsement")?;
        let key = key.parse().map_err(|_| self.fault("the name of an endorsement before what"))?;
        self.literal(",\"content\":\"")?;
        let content = self.digest()?.to_owned();
        let chain = if self.takes(",\"chain\":\"") { Some(self.digest()?.to_owned()) } else { None };
        self.literal(",\"fetched_s\":")?;
        let fetched_s = self.number()?;
        self.literal(",\"source\":\"")?;
        let source = self.text(MAX_SOURCE_BYTES, "an address")?.to_owned();
        self.literal("}")?;
        Ok(Entry { key, content, chain, fetched_s, source })
    }

    /// The items, in the order of their names.
    fn entries(&mut self) -> Result<BTreeMap<String, Entry>, BundleError> {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        if self.takes("]") {
            return Ok(entries);
        }
        loop {
            if entries.len() >= MAX_ITEMS {
                return Err(BundleError::TooMany);
            }
            let entry = self.entry()?;
            let name = entry.key.to_string();
            if entries.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(item(&name, "it stands twice, or not in its place"));
            }
            entries.insert(name, entry);
            if !self.takes(",") {
                self.literal("]")?;
                return Ok(entries);
            }
        }
    }

    /// The objects, in the order of their names: those that items are about, and no other. Each has the digest that names it.
    fn objects(&mut self, wanted: &BTreeSet<&str>) -> Result<BTreeMap<&'a str, Vec<u8>>, BundleError> {
        let mut objects: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        if self.takes("}") {
            return Ok(objects);
        }
        loop {
            self.literal("\"")?;
            let name = self.digest()?;
            if !wanted.contains(name) {
                return Err(item(name, "no item is about this object"));
            }
            if objects.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(item(name, "it stands twice, or not in its place"));
            }
            self.literal(":\"")?;
            let base64 = self.text(MAX_OBJECT_BYTES / 3 * 4 + 4, "an object in base64, not larger than any can be,")?;
            let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| item(name, "an object is no base64"))?;
            if HEXLOWER.encode(&sha256(&bytes)) != name {
                return Err(item(name, "an object does not have the digest that names it"));
            }
            objects.insert(name, bytes);
            if !self.takes(",") {
                self.literal("}")?;
                return Ok(objects);
            }
        }
    }
}

/// A digest that was read as one.
fn named(name: &str) -> [u8; 32] {
    let bytes = HEXLOWER.decode(name.as_bytes()).unwrap_or_default();
    bytes.try_into().unwrap_or_default()
}

impl Bundle {
    /// Reads a file. The list of items has to have the stated digest before any object is looked at.
    ///
    /// # Errors
    /// It is not of the form, an object does not have the digest that names it, or the list not the digest that is stated.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge);
        }
        let mut reader = Reader { bytes, at: 0 };
        reader.literal("{\"version\":")?;
        let version = reader.number()?;
        if version != u64::from(VERSION) {
            return Err(BundleError::Version(version));
        }
        reader.literal(",\"digest\":\"")?;
        let stated = reader.digest()?;
        reader.literal(",\"items\":[")?;
        let entries = reader.entries()?;
        let mut text = TITLE.to_owned();
        for (name, entry) in &entries {
            let chain = entry.chain.as_deref().map(named);
            text.push_str(&line(name, &named(&entry.content), chain.as_ref(), entry.fetched_s, &entry.source));
        }
        let digest = sha256(text.as_bytes());
        if stated != HEXLOWER.encode(&digest) {
            return Err(BundleError::Digest);
        }
        reader.literal(",\"objects\":{")?;
        let wanted = entries.values().flat_map(|entry| [Some(&entry.content), entry.chain.as_ref()]);
        let wanted: BTreeSet<&str> = wanted.flatten().map(String::as_str).collect();
        let objects = reader.objects(&wanted)?;
        reader.literal("}")?;
        if !reader.rest().is_empty() {
            return Err(reader.fault("the end"));
        }
        let mut total = 0;
        let mut candidates = Vec::with_capacity(entries.len());
        for (name, entry) in &entries {
            let mut object = |digest: &str| -> Result<Vec<u8>, BundleError> {
                let bytes = objects.get(digest).ok_or_else(|| item(name, "its object is not in the file"))?;
                total += bytes.len();
                if total > MAX_SNAPSHOT_BYTES {
                    return Err(BundleError::TooLarge);
                }
                Ok(bytes.clone())
            };
            let content = object(&entry.content)?;
            let chain = entry.chain.as_deref().map(object).transpose()?;
            let (key, fetched_s, source) = (entry.key.clone(), entry.fetched_s, entry.source.clone());
            candidates.push(Candidate { key, content, chain, fetched_s, source });
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
