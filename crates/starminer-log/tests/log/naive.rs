//! The tree of RFC 6962 section 2.1 by its recursive definitions: slow, obvious, and independent of the crate.

use aws_lc_rs::digest::{SHA256, digest};
use starminer_log::Hash;

fn sha256(parts: &[&[u8]]) -> Hash {
    Hash(digest(&SHA256, &parts.concat()).as_ref().try_into().unwrap())
}

/// The largest power of two smaller than `n`, for `n` of 2 and more.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

pub fn root(entries: &[Vec<u8>]) -> Hash {
    match entries {
        [] => sha256(&[]),
        [entry] => sha256(&[&[0], entry]),
        _ => {
            let (left, right) = entries.split_at(split(entries.len()));
            sha256(&[&[1], &root(left).0, &root(right).0])
        }
    }
}

pub fn inclusion(index: usize, entries: &[Vec<u8>]) -> Vec<Hash> {
    if entries.len() == 1 {
        return Vec::new();
    }
    let (left, right) = entries.split_at(split(entries.len()));
    let (mut path, sibling) = if index < left.len() {
        (inclusion(index, left), root(right))
    } else {
        (inclusion(index - left.len(), right), root(left))
    };
    path.push(sibling);
    path
}

pub fn consistency(older: usize, entries: &[Vec<u8>]) -> Vec<Hash> {
    if older == 0 { Vec::new() } else { subproof(older, entries, true) }
}

fn subproof(older: usize, entries: &[Vec<u8>], whole: bool) -> Vec<Hash> {
    if older == entries.len() {
        return if whole { Vec::new() } else { vec![root(entries)] };
    }
    let (left, right) = entries.split_at(split(entries.len()));
    let (mut proof, sibling) = if older <= left.len() {
        (subproof(older, left, whole), root(right))
    } else {
        (subproof(older - left.len(), right, false), root(left))
    };
    proof.push(sibling);
    proof
}
