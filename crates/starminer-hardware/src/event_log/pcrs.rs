//! Values of registers, by bank and index: what a quote signs, what a policy expects, what a log replays to.
//!
//! In JSON: `{"sha256": {"0": "hex", "7": "hex"}, "sha1": {…}}`, indices as strings, digests in hex of the bank's length.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::bank::{Bank, Digest};
use super::parse::REGISTERS;

/// The longest JSON of values: five banks of 24 registers have less than 12 KiB.
pub const MAX_JSON_BYTES: usize = 64 << 10;

/// Values of registers by bank and index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<Bank, BTreeMap<u32, Digest>>);

impl PcrValues {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Reads the JSON form. What it names twice, or with a digest of another length, is refused, and what has more than `MAX_JSON_BYTES`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        if bytes.len() > MAX_JSON_BYTES {
            return Err(serde_json::Error::custom(format_args!("more than {MAX_JSON_BYTES} bytes")));
        }
        serde_json::from_slice(bytes)
    }

    /// Adds a value; whether there was none before and the index is one that TPMs have.
    pub fn insert(&mut self, index: u32, value: Digest) -> bool {
        index < REGISTERS && self.0.entry(value.bank()).or_default().insert(index, value).is_none()
    }

    /// The value of one register.
    #[must_use]
    pub fn value(&self, bank: Bank, index: u32) -> Option<&Digest> {
        self.0.get(&bank)?.get(&index)
    }

    /// The banks of which there are values.
    pub fn banks(&self) -> impl Iterator<Item = Bank> + '_ {
        self.0.keys().copied()
    }

    /// The values of a bank by index.
    pub fn of_bank(&self, bank: Bank) -> impl Iterator<Item = (u32, &Digest)> + '_ {
        self.0.get(&bank).into_iter().flatten().map(|(index, value)| (*index, value))
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeMap::is_empty)
    }

    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.0
            .iter()
            .map(|(bank, values)| {
                let values: serde_json::Map<_, _> =
                    values.iter().map(|(index, value)| (index.to_string(), value.to_hex().into())).collect();
                (bank.name().to_owned(), values.into())
            })
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// A map whose keys come once each, in the order in which they come.
struct Unique<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of banks, or of registers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if entries.len() == REGISTERS as usize || entries.iter().any(|(other, _)| *other == key) {
                        return Err(A::Error::custom(format_args!("{key:?} is there twice, or there are too many")));
                    }
                    entries.push((key, value));
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for PcrValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::new();
        for (bank, values) in Unique::<Unique<String>>::deserialize(deserializer)?.0 {
            let bank = Bank::from_name(&bank).ok_or_else(|| D::Error::custom(format_args!("{bank:?} is no bank")))?;
            for (index, value) in values.0 {
                let number = index.parse::<u32>().ok().filter(|number| number.to_string() == index);
                let digest = data_encoding::HEXLOWER_PERMISSIVE
                    .decode(value.strip_prefix("0x").unwrap_or(&value).as_bytes())
                    .ok()
                    .and_then(|bytes| Digest::new(bank, &bytes));
                let added = number.zip(digest).is_some_and(|(index, digest)| all.insert(index, digest));
                if !added {
                    return Err(D::Error::custom(format_args!("register {index:?} of {}: {value:?}", bank.name())));
                }
            }
        }
        Ok(all)
    }
}
