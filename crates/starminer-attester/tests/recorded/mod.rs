//! Recorded evidence, read in place, and how it becomes an answer to other report data.
//!
//! The recorded reports are over report data of their time. A stand-in for a device puts that of the request in its
//! place, as a device would; the signature then is none, which is nothing to a collector.

#![allow(dead_code)] // each test program needs its own part

use std::path::PathBuf;

/// Offsets of report data.
pub const SNP_DATA: usize = 0x50;
pub const TDX_V4_DATA: usize = 48 + 520;
pub const SGX_DATA: usize = 48 + 320;
pub const SGX_ENCLAVE: usize = 48 + 64;

/// A shared vector; `None`, said aloud, where there are none.
pub fn vector(path: &str) -> Option<Vec<u8>> {
    let shared = std::env::var_os("STARMINER_VECTORS").map(PathBuf::from);
    let root = shared.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"));
    let file = root.join(path);
    if !root.is_dir() {
        eprintln!("skipped: no shared vectors at {}", root.display());
        return None;
    }
    Some(std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
}

/// With other report data.
pub fn over(mut report: Vec<u8>, offset: usize, data: &[u8]) -> Vec<u8> {
    report[offset..offset + data.len()].copy_from_slice(data);
    report
}

/// An entry of a certificate table.
pub fn table(entries: &[(u128, &[u8])]) -> Vec<u8> {
    let mut offset = (entries.len() + 1) * 24;
    let mut list = Vec::new();
    for (guid, bytes) in entries {
        list.extend_from_slice(&guid.to_be_bytes());
        list.extend_from_slice(&(offset as u32).to_le_bytes());
        list.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        offset += bytes.len();
    }
    list.extend_from_slice(&[0; 24]);
    entries.iter().fold(list, |list, (_, bytes)| [&list[..], bytes].concat())
}

pub const VCEK: u128 = 0x63da758d_e664_4564_adc5_f4b93be8accd;
pub const ASK: u128 = 0x4ab7b379_bbac_4fe4_a02f_05aef327c782;
pub const ARK: u128 = 0xc0b406a4_a803_4952_9743_3fb6014cd0ae;
