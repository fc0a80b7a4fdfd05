//! How seeds are damaged: as bytes, and as JSON, down into whatever stands inside its base64 strings.
//!
//! The aim is inputs that get far: a DSSE envelope whose payload lost one member is worth more than one that is no JSON.

use data_encoding::BASE64;

use crate::json::Json;
use crate::random::Random;

/// Longest input that the mutator makes, in bytes. Longer seeds are shortened to it.
pub const MAX_INPUT_BYTES: usize = 1 << 18;

/// Deepest nesting of JSON in base64 in JSON that is followed.
const MAX_NESTING: usize = 3;

/// Integers at which lengths, counts and times go wrong.
const INTEGERS: [u64; 24] = [
    0,
    1,
    2,
    15,
    16,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    1023,
    4095,
    4096,
    65_535,
    65_536,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 53,
    1 << 62,
    i64::MAX as u64,
    u64::MAX,
];

/// Bytes that mean something in one of our formats.
const LIKELY: &[u8] = b"\n\r\t 0129afAFxX+-/=.,:;{}[]()\"\\'#_@%\x00\x01\x7f\x80\xff\xc2\xa0\xe2\x80\x94";

/// Pieces that mean something in one of our formats.
const PIECES: [&[u8]; 26] = [
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"../",
    b"/",
    b"\r\n",
    b"\n\n",
    b"\n\xe2\x80\x94 ",
    b"+",
    b"x001/",
    b".p/",
    b"1e999",
    b"-1",
    b"18446744073709551616",
    b"0x",
    b"==",
    b"\x00asm\x01\x00\x00\x00",
    b"\x00asm\x0d\x00\x01\x00",
    b"SMOBJECT",
    b"SMSCRTCH",
];

/// Scalars that take the place of others.
const SCALARS: [&str; 18] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1.5",
    "1e400",
    "18446744073709551615",
    "18446744073709551616",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"0000000000000000000000000000000000000000000000000000000000000000\"",
    "\"AA==\"",
    "[]",
    "{}",
    "[[]]",
];

/// A damaged copy of `seed`. `others` are further seeds to take pieces from.
#[must_use]
pub fn mutate(random: &mut Random, seed: &[u8], others: &[&[u8]]) -> Vec<u8> {
    let mut input = seed.to_vec();
    // Mostly one or two changes: more of them seldom get past the first check.
    for _ in 0..=*random.choose(&[0, 0, 0, 1, 1, 2, 4, 8]) {
        input = once(random, &input, others, MAX_NESTING);
    }
    input.truncate(MAX_INPUT_BYTES);
    input
}

fn once(random: &mut Random, input: &[u8], others: &[&[u8]], nesting: usize) -> Vec<u8> {
    if !random.once_in(4)
        && let Some(json) = Json::parse(input)
    {
        return mutate_json(random, json, others, nesting).to_text().into_bytes();
    }
    mutate_bytes(random, input.to_vec(), others)
}

fn mutate_bytes(random: &mut Random, mut bytes: Vec<u8>, others: &[&[u8]]) -> Vec<u8> {
    let at = random.below(bytes.len() + 1);
    let longest = *random.choose(&[1, 4, 16, 64, 1024]);
    let len = 1 + random.below(longest);
    let end = (at + len).min(bytes.len());
    match random.below(13) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        2 if at < bytes.len() => bytes[at] = *random.choose(LIKELY),
        3 if at < bytes.len() => bytes[at] = bytes[at].wrapping_add(if random.once_in(2) { 1 } else { 255 }),
        4 => drop(bytes.drain(at..end)),
        5 => bytes.truncate(at),
        6 => {
            let piece = bytes[at..end].to_vec();
            let to = random.below(bytes.len() + 1);
            bytes.splice(to..to, piece);
        }
        7 => {
            let filler = vec![if random.once_in(2) { 0 } else { *random.choose(LIKELY) }; len];
            bytes.splice(at..at, filler);
        }
        8 => {
            let piece = *random.choose(&PIECES);
            bytes.splice(at..at, piece.iter().copied());
        }
        9 => overwrite_integer(random, &mut bytes, at),
        10 => replace_decimal(random, &mut bytes),
        11 if !others.is_empty() => {
            // A piece of another seed, or its whole tail.
            let other = *random.choose(others);
            let from = random.below(other.len() + 1);
            let to = if random.once_in(2) { other.len() } else { (from + len).min(other.len()) };
            let until = if random.once_in(2) { bytes.len() } else { end };
            bytes.splice(at..until, other[from..to].iter().copied());
        }
        _ if at + 1 < bytes.len() => {
            let with = random.below(bytes.len());
            bytes.swap(at, with);
        }
        _ => bytes.push(*random.choose(LIKELY)),
    }
    bytes
}

/// Puts an integer of 1, 2, 4 or 8 bytes over what stands at `at`.
fn overwrite_integer(random: &mut Random, bytes: &mut [u8], at: usize) {
    let mut integer = *random.choose(&INTEGERS);
    if random.once_in(3) {
        integer = integer.wrapping_add(random.next_u64() % 5).wrapping_sub(2);
    }
    let width = 1 << random.below(4);
    let big_endian = &integer.to_be_bytes()[8 - width..];
    let little_endian = &integer.to_le_bytes()[..width];
    let written = if random.once_in(3) { little_endian } else { big_endian };
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..width)) {
        place.copy_from_slice(written);
    }
}

/// Puts another number in the place of one written in decimal digits.
fn replace_decimal(random: &mut Random, bytes: &mut Vec<u8>) {
    let from = random.below(bytes.len());
    let Some(start) = bytes[from.min(bytes.len())..].iter().position(u8::is_ascii_digit).map(|found| from + found)
    else {
        return;
    };
    let end = bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |len| start + len);
    bytes.splice(start..end, random.choose(&INTEGERS).to_string().into_bytes());
}

fn mutate_json(random: &mut Random, mut json: Json, others: &[&[u8]], nesting: usize) -> Json {
    let count = json.count();
    let donor = match others.is_empty() || random.once_in(2) {
        true => Some(json.clone()),
        false => Json::parse(random.choose::<&[u8]>(others)),
    };
    let donor = donor.and_then(|mut donor| {
        let index = random.below(donor.count());
        donor.nth(index).map(|part| part.clone())
    });
    // Large base64 strings hold most of what there is to find; do not let a crowd of small members hide them.
    let index = random.below(count);
    let index = if nesting > 0 && random.once_in(3) { heaviest_string(random, &json).unwrap_or(index) } else { index };
    let Some(place) = json.nth(index) else { return json };
    match place {
        _ if random.once_in(8) => *place = Json::Scalar((*random.choose(&SCALARS)).to_owned()),
        _ if random.once_in(10) => {
            if let Some(donor) = donor {
                *place = donor;
            }
        }
        _ if random.once_in(40) => *place = Json::Array(vec![place.clone()]),
        Json::Array(items) => mutate_list(random, items, donor),
        Json::Object(members) => {
            let donor = donor.map(|donor| match members.is_empty() || random.once_in(3) {
                true => ("\"x\"".to_owned(), donor),
                false => (random.choose(members).0.clone(), donor),
            });
            mutate_list(random, members, donor);
        }
        Json::Scalar(text) if text.starts_with('"') => *text = mutate_string(random, text, others, nesting),
        Json::Scalar(text) => *text = mutate_number(random, text),
    }
    json
}

/// One of the longest strings, by its place in the tree.
fn heaviest_string(random: &mut Random, json: &Json) -> Option<usize> {
    let mut lengths = json.strings();
    lengths.retain(|(length, _)| *length > 100);
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.truncate(16);
    (!lengths.is_empty()).then(|| random.choose(&lengths).1)
}

fn mutate_list<T: Clone>(random: &mut Random, items: &mut Vec<T>, donor: Option<T>) {
    let at = random.below(items.len());
    match random.below(6) {
        0 | 1 if !items.is_empty() => drop(items.remove(at)),
        2 if !items.is_empty() => items.insert(at, items[at].clone()),
        3 if items.len() > 1 => {
            let with = random.below(items.len());
            items.swap(at, with);
        }
        4 if !items.is_empty() && items.len() < 64 => {
            let again = vec![items[at].clone(); 1 + random.below(80)];
            items.splice(at..at, again);
        }
        _ => items.extend(donor),
    }
}

fn mutate_number(random: &mut Random, text: &str) -> String {
    match (text.parse::<u64>(), random.below(4)) {
        (Ok(number), 0) => number.wrapping_add(1).to_string(),
        (Ok(number), 1) => number.wrapping_sub(1).to_string(),
        (_, 2) => (*random.choose(&SCALARS)).to_owned(),
        _ => random.choose(&INTEGERS).to_string(),
    }
}

/// Changes a string with its quotes: what is inside of it where that is base64, else its characters.
fn mutate_string(random: &mut Random, quoted: &str, others: &[&[u8]], nesting: usize) -> String {
    let text = &quoted[1..quoted.len().max(2) - 1];
    if nesting > 0
        && text.len() >= 8
        && !random.once_in(6)
        && let Ok(inner) = BASE64.decode(text.as_bytes())
    {
        let inner = once(random, &inner, others, nesting - 1);
        return format!("\"{}\"", BASE64.encode(&inner));
    }
    let mut bytes = text.as_bytes().to_vec();
    let at = random.below(bytes.len());
    match random.below(5) {
        // Another digit: hexadecimal stays hexadecimal.
        0 | 1 if !bytes.is_empty() => bytes[at] = *random.choose(b"0123456789abcdef"),
        2 => bytes.truncate(at),
        3 => bytes = text.to_uppercase().into_bytes(),
        _ => bytes = mutate_bytes(random, bytes, &[]),
    }
    // What would end the string early is escaped: that is another mutation's work.
    let text = String::from_utf8_lossy(&bytes).replace('"', "\\\"").replace(|c: char| c.is_ascii_control(), "\\n");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every change must stay within bounds, differ often enough to be of use, and come again from the same seed.
    #[test]
    fn mutation_is_bounded_varied_and_repeatable() {
        let payload = BASE64.encode(br#"{"attempt":1,"task":"00ff"}"#);
        let envelope = format!(r#"{{"payload":"{payload}","signatures":[{{"keyid":"ab","sig":"AAAA"}}]}}"#);
        let others: [&[u8]; 2] = [b"", b"tile/0/x001/234.p/8"];
        for seed in [envelope.as_bytes(), b"", b"log.example\n8\n", &[0xff; 300], b"\"", b"[\"\"]"] {
            let run = |start| {
                let mut random = Random::new(start);
                (0..500).map(|_| mutate(&mut random, seed, &others)).collect::<Vec<_>>()
            };
            let all = run(7);
            assert_eq!(all, run(7));
            assert!(all.iter().all(|input| input.len() <= MAX_INPUT_BYTES));
            assert!(all.iter().filter(|input| input.as_slice() != seed).count() > 250, "{seed:?}");
        }
        let mut random = Random::new(1);
        let reached = (0..500).any(|_| {
            let input = mutate(&mut random, envelope.as_bytes(), &others);
            serde_json::from_slice::<serde_json::Value>(&input).is_ok_and(|value| {
                let inner = value["payload"].as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
                inner.is_some_and(|inner| inner.starts_with(br#"{"attempt":2,"#))
            })
        });
        assert!(reached, "a number inside the payload was changed and nothing else");
    }
}
