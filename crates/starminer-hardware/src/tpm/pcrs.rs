//! PCR values that somebody says a quote is about. They are worth nothing until their digest is the quote's.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{HashAlg, ParseError, PcrSelection, hex};

/// Longer than any file of PCR values: four banks of 32 in JSON.
const PCRS_BYTES_MAX: usize = 64 * 1024;

const WHAT: &str = "the PCR values";

/// A PCR's number: 0 to 31, of which hardware has 24. In maps it is written as a string (`"7"`), in lists as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcrIndex(u8);

impl PcrIndex {
    /// `None` above 31.
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if index < 32 { Some(Self(index)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    fn from_name(name: &str) -> Option<Self> {
        // One name for each: no sign, no leading zero.
        let index = name.parse().ok().and_then(Self::new)?;
        (index.0.to_string() == name).then_some(index)
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for PcrIndex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for PcrIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = PcrIndex;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a PCR, 0 to 31")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<PcrIndex, E> {
                PcrIndex::from_name(name).ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
            }
            fn visit_u64<E: de::Error>(self, index: u64) -> Result<PcrIndex, E> {
                u8::try_from(index)
                    .ok()
                    .and_then(PcrIndex::new)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(index), &self))
            }
            fn visit_i64<E: de::Error>(self, index: i64) -> Result<PcrIndex, E> {
                u64::try_from(index)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(index), &self))
                    .and_then(|index| self.visit_u64(index))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A JSON object that names nothing twice.
struct Once<K, V>(BTreeMap<K, V>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Once<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> de::Visitor<'de> for Visitor<K, V> {
            type Value = Once<K, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that names nothing twice")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Once<K, V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = entries.next_entry()? {
                    if map.insert(key, value).is_some() {
                        return Err(de::Error::custom("named twice"));
                    }
                }
                Ok(Once(map))
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData))
    }
}

/// Values by bank and PCR.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<HashAlg, BTreeMap<u8, Vec<u8>>>);

impl PcrValues {
    /// Reads PCR values in one of three forms, told apart by content: JSON (`{"sha256": {"0": "hex", …}, …}`), the file that
    /// `tpm2_quote -o` writes, or the bare values one after the other in the order of the quote (`tpm2_quote -o … -F values`).
    ///
    /// # Errors
    /// Where the bytes are none of these, or values have another size than their bank's hash.
    pub fn parse(bytes: &[u8], quoted: &[PcrSelection]) -> Result<Self, ParseError> {
        if bytes.len() > PCRS_BYTES_MAX {
            return Err(ParseError::TooLong { what: WHAT, most: PCRS_BYTES_MAX });
        }
        if bytes.trim_ascii_start().first() == Some(&b'{') {
            return Self::from_json(bytes);
        }
        if let Some((selections, values)) = tpm2_tools(bytes) {
            return Self::in_order(&selections, values.into_iter().map(Some));
        }
        let mut rest = bytes;
        let sizes = quoted.iter().flat_map(|selection| selection.indices().map(|_| selection.bank.len_bytes()));
        let values: Vec<_> = sizes.map(|size| rest.split_off(..size)).collect();
        if !rest.is_empty() {
            return Err(ParseError::Malformed {
                what: WHAT,
                why: "neither JSON, nor tpm2-tools' form, nor values in the order of the quote",
            });
        }
        Self::in_order(quoted, values.into_iter())
    }

    fn from_json(bytes: &[u8]) -> Result<Self, ParseError> {
        let json: Once<String, Once<PcrIndex, String>> =
            serde_json::from_slice(bytes).map_err(|_| ParseError::Malformed {
                what: WHAT,
                why: "not of the form {\"sha256\": {\"0\": \"hex\"}}, each bank and PCR once",
            })?;
        let mut values = Self::default();
        for (bank, pcrs) in json.0 {
            // What no quote that is accepted can be about.
            if bank == "sm3_256" {
                continue;
            }
            let bank =
                HashAlg::from_name(&bank).ok_or(ParseError::Malformed { what: WHAT, why: "of an unknown bank" })?;
            for (index, value) in pcrs.0 {
                let value = data_encoding::HEXLOWER_PERMISSIVE
                    .decode(value.as_bytes())
                    .map_err(|_| ParseError::Malformed { what: WHAT, why: "a value is not hexadecimal" })?;
                values.insert(bank, index, value)?;
            }
        }
        Ok(values)
    }

    fn in_order<'a>(
        selections: &[PcrSelection],
        mut values: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Self, ParseError> {
        const COUNT: ParseError = ParseError::Malformed { what: WHAT, why: "another number of values than selected" };
        let mut all = Self::default();
        for selection in selections {
            for index in selection.indices() {
                let value = values.next().flatten().ok_or(COUNT)?;
                all.insert(selection.bank, PcrIndex(index), value.to_vec())?;
            }
        }
        if values.next().is_some() { Err(COUNT) } else { Ok(all) }
    }

    /// Sets a value.
    ///
    /// # Errors
    /// Where it has another size than the bank's hash.
    pub fn insert(&mut self, bank: HashAlg, index: PcrIndex, value: Vec<u8>) -> Result<(), ParseError> {
        if value.len() != bank.len_bytes() {
            return Err(ParseError::Malformed { what: WHAT, why: "a value of another size than its bank's hash" });
        }
        self.0.entry(bank).or_default().insert(index.0, value);
        Ok(())
    }

    /// The value of one PCR.
    #[must_use]
    pub fn value(&self, bank: HashAlg, index: u8) -> Option<&[u8]> {
        self.0.get(&bank)?.get(&index).map(Vec::as_slice)
    }

    /// Bank, PCR and value, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlg, u8, &[u8])> {
        self.0.iter().flat_map(|(bank, pcrs)| pcrs.iter().map(|(index, value)| (*bank, *index, value.as_slice())))
    }

    /// Those that a quote selects. The error is the first that is missing.
    pub(super) fn selected(&self, selections: &[PcrSelection]) -> Result<Self, (HashAlg, u8)> {
        let mut selected = Self::default();
        for selection in selections {
            for index in selection.indices() {
                let value = self.value(selection.bank, index).ok_or((selection.bank, index))?;
                selected.0.entry(selection.bank).or_default().insert(index, value.to_vec());
            }
        }
        Ok(selected)
    }

    /// The hash over the values in the order of the quote (Part 1, 17.8), of which all have to be there.
    pub(super) fn digest(&self, selections: &[PcrSelection], hash: HashAlg) -> Option<Vec<u8>> {
        let mut values = Vec::new();
        for selection in selections {
            for index in selection.indices() {
                values.push(self.value(selection.bank, index)?);
            }
        }
        Some(hash.digest(&values).as_ref().to_vec())
    }

    /// The form that is also read.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let pcrs = |pcrs: &BTreeMap<u8, Vec<u8>>| {
            pcrs.iter().map(|(index, value)| (index.to_string(), hex(value).into())).collect::<serde_json::Map<_, _>>()
        };
        self.0
            .iter()
            .map(|(bank, values)| (bank.name().to_owned(), pcrs(values).into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// The form of `tpm2_quote -o`: `TPML_PCR_SELECTION`, a count, and as many `TPML_DIGEST`, all as they stand in memory, numbers
/// little-endian.
fn tpm2_tools(bytes: &[u8]) -> Option<(Vec<PcrSelection>, Vec<&[u8]>)> {
    const SELECTIONS: usize = 16;
    const LISTS_MAX: u32 = 64;
    const DIGESTS: usize = 8;
    const DIGEST_BYTES_MAX: usize = 64;
    let mut rest = bytes;
    let count = usize::try_from(u32_le(&mut rest)?).ok().filter(|count| *count <= SELECTIONS)?;
    let mut selections = Vec::with_capacity(count);
    for slot in 0..SELECTIONS {
        let entry = rest.split_off(..8)?;
        if slot >= count {
            continue;
        }
        let (alg, size) = (u16::from_le_bytes([entry[0], entry[1]]), entry[2]);
        let bank = [HashAlg::Sha1, HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512]
            .into_iter()
            .find(|bank| bank.id() == alg);
        let mut bits = [0; 4];
        bits.get_mut(..usize::from(size))?.copy_from_slice(entry.get(3..3 + usize::from(size))?);
        match (bank, u32::from_le_bytes(bits)) {
            (Some(bank), bits) => selections.push(PcrSelection { bank, bits }),
            (None, 0) => {}
            (None, _) => return None,
        }
    }
    let lists = u32_le(&mut rest).filter(|lists| *lists <= LISTS_MAX)?;
    let mut values = Vec::new();
    for _ in 0..lists {
        let count = usize::try_from(u32_le(&mut rest)?).ok().filter(|count| *count <= DIGESTS)?;
        for slot in 0..DIGESTS {
            let size = rest.split_off(..2)?;
            let value = rest.split_off(..DIGEST_BYTES_MAX)?;
            if slot < count {
                values.push(value.get(..usize::from(u16::from_le_bytes([size[0], size[1]])))?);
            }
        }
    }
    rest.is_empty().then_some((selections, values))
}

fn u32_le(bytes: &mut &[u8]) -> Option<u32> {
    let number = bytes.split_off(..4)?;
    Some(u32::from_le_bytes(number.try_into().ok()?))
}
