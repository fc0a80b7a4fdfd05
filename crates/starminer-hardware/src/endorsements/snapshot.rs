//! Sets of verified endorsements, with a digest that a receipt can commit to, and marks behind which nothing goes back.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::{
    admit::{self, Refusal},
    age::Ages,
    item::{Absence, Candidate, Item, Missing, Number, Parsed, Trust, sha256},
    key::Key,
};
use crate::cert::{Certificate, Crl, Provenance};

/// The most items of a snapshot.
pub const MAX_ITEMS: usize = 8192;
/// The most bytes of all items together.
pub const MAX_SNAPSHOT_BYTES: usize = 64 * 1024 * 1024;
/// The most marks.
pub const MAX_MARKS: usize = 2 * MAX_ITEMS;
/// What the text that is hashed begins with.
pub(super) const TITLE: &str = "starminer endorsement snapshot v1\n";

/// Verified endorsements, at most one for each key. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    items: Arc<BTreeMap<String, Arc<Item>>>,
    bytes: usize,
    // Made when it is first asked for, and shared by all clones since the last change.
    digest: Arc<OnceLock<[u8; 32]>>,
}

/// What is known of an endorsement and must not go back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// CRL number, or evaluation data number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<Number>,
    /// When it was issued, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) issued_s: Option<u64>,
    /// SHA-256 of the issuer's name, of revocation lists.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex_digest")]
    pub(super) issuer: Option<[u8; 32]>,
}

mod hex_digest {
    use data_encoding::HEXLOWER;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    #[allow(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(digest: &Option<[u8; 32]>, serializer: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => serializer.serialize_str(&HEXLOWER.encode(digest)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 32]>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        bytes.try_into().map(Some).map_err(|_| D::Error::custom("32 bytes of hex are expected"))
    }
}

/// Marks by the text form of keys. They outlive the endorsements: what expired or was lost does not come back in an older form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Marks(BTreeMap<String, Mark>);

impl Marks {
    /// None: for whoever looks at a snapshot for the first time.
    #[must_use]
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over whatever is higher in others.
    pub fn raise(&mut self, others: &Self) {
        for (key, other) in &others.0 {
            if self.0.len() < MAX_MARKS || self.0.contains_key(key) {
                self.0.entry(key.clone()).or_default().raise(other);
            }
        }
    }
}

impl Mark {
    fn raise(&mut self, other: &Self) {
        self.number = self.number.take().max(other.number.clone());
        self.issued_s = self.issued_s.max(other.issued_s);
        self.issuer = self.issuer.or(other.issuer);
    }
}

/// A line of what is hashed.
pub(super) fn line(key: &str, content: &[u8; 32], chain: Option<&[u8; 32]>, fetched_s: u64, source: &str) -> String {
    let chain = chain.map_or_else(|| "-".to_owned(), |chain| HEXLOWER.encode(chain));
    let source = if source.is_empty() { "-" } else { source };
    format!("{key} {} {chain} {fetched_s} {source}\n", HEXLOWER.encode(content))
}

/// Bytes of an item.
fn size(item: &Item) -> usize {
    item.content.bytes().len() + item.chain.as_ref().map_or(0, |chain| chain.bytes().len())
}

impl Snapshot {
    /// SHA-256 of the list of all items: their keys, digests, times and sources. Changes when any of them does.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| {
            let mut text = TITLE.to_owned();
            for (key, item) in &*self.items {
                let chain = item.chain.as_ref().map(super::item::Object::sha256);
                text.push_str(&line(key, item.content.sha256(), chain, item.fetched_s, &item.source));
            }
            sha256(text.as_bytes())
        })
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items, by the text form of their keys.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values().map(|item| &**item)
    }

    /// The item of this key, however old.
    #[must_use]
    pub fn item(&self, key: &Key) -> Option<&Item> {
        self.items.get(&key.to_string()).map(|item| &**item)
    }

    /// The item of this key, if it may be used at this time.
    ///
    /// # Errors
    /// What is missing and where to fetch it.
    pub fn find(&self, key: &Key, ages: &Ages, now_s: u64) -> Result<&Item, Missing> {
        let missing = |why| Missing { what: key.clone(), why };
        let item = self.item(key).ok_or_else(|| missing(Absence::NotFetched))?;
        item.state(ages, now_s).map_err(missing)?;
        Ok(item)
    }

    /// Verifies a candidate, so that it can be added. What is here already serves: authorities, and the list of Intel's root.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn verify(&self, candidate: &Candidate, trust: &Trust, now_s: u64) -> Result<Item, Refusal> {
        admit::verify(self, candidate, trust, now_s)
    }

    /// This snapshot with an item more, or in place of one of the same key. The marks rise with it.
    ///
    /// What is fetched again and was there before becomes younger, never older.
    ///
    /// # Errors
    /// It goes back behind a mark, or there is no room.
    pub fn with(&self, item: Item, marks: &mut Marks) -> Result<Self, Refusal> {
        let mut next = self.clone();
        next.insert(item, marks)?;
        Ok(next)
    }

    /// As [`Self::with`], in place.
    pub(super) fn insert(&mut self, item: Item, marks: &mut Marks) -> Result<(), Refusal> {
        let name = item.key.to_string();
        if let Some(mark) = marks.0.get(&name) {
            admit::monotonic(&item, mark)?;
        }
        let known = self.items.get(&name);
        if let Some(known) = known {
            admit::monotonic(&item, &mark_of(known))?;
        }
        let bytes = self.bytes - known.map_or(0, |known| size(known)) + size(&item);
        let full = known.is_none() && (self.items.len() >= MAX_ITEMS || marks.0.len() >= MAX_MARKS);
        if full || bytes > MAX_SNAPSHOT_BYTES {
            return Err(Refusal::Full);
        }
        let mark = mark_of(&item);
        // What was had earlier is no news, unless its maker's own numbers say so.
        let had_before = |known: &Arc<Item>| known.fetched_s >= item.fetched_s;
        let same = |known: &Arc<Item>| known.content == item.content && known.chain == item.chain;
        let no_news = known.is_some_and(|known| had_before(known) && (same(known) || mark_of(known) == mark));
        if mark != Mark::default() {
            marks.0.entry(name.clone()).or_default().raise(&mark);
        }
        if no_news {
            return Ok(());
        }
        Arc::make_mut(&mut self.items).insert(name, Arc::new(item));
        self.bytes = bytes;
        self.digest = Arc::default();
        Ok(())
    }

    /// This snapshot without the item of this key.
    #[must_use]
    pub fn without(&self, key: &Key) -> Self {
        let mut next = self.clone();
        if let Some(item) = Arc::make_mut(&mut next.items).remove(&key.to_string()) {
            next.bytes -= size(&item);
            next.digest = Arc::default();
        }
        next
    }

    /// The certificates of the item of this key; none where it is not there.
    pub(super) fn certificates(&self, key: &Key) -> &[Certificate] {
        match self.item(key).map(|item| &item.parsed) {
            Some(Parsed::Certificates(certificates)) => certificates,
            _ => &[],
        }
    }

    pub(super) fn tpm_items(&self) -> impl Iterator<Item = &Item> {
        self.items.range("tpm/".to_owned().."tpm0".to_owned()).map(|(_, item)| &**item)
    }

    pub(super) fn tpm_authorities_with_provenance(&self) -> Vec<(Certificate, Provenance)> {
        let authorities = self.tpm_items().filter_map(|item| match &item.parsed {
            Parsed::Certificates(certificates) => Some((certificates.first()?.clone(), item.facts.provenance)),
            _ => None,
        });
        authorities.collect()
    }

    pub(super) fn tpm_authorities(&self) -> Vec<Certificate> {
        self.tpm_authorities_with_provenance().into_iter().map(|(certificate, _)| certificate).collect()
    }
}

fn mark_of(item: &Item) -> Mark {
    Mark { number: item.facts.number.clone(), issued_s: item.facts.issued_s, issuer: item.facts.issuer }
}

/// A list of an item, for lookups.
pub(super) fn crl(item: &Item) -> Option<&Crl> {
    match &item.parsed {
        Parsed::Crl(list) => Some(list),
        _ => None,
    }
}
