//! The demonstration's proofs: a search of the operators' disks, and a receipt with one bit flipped.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use starminer_receipt::{Overall, Receipt, verify_receipt};

use super::jobs::DemoJob;
use crate::cli::demo_support::{Failure, Home, Terminal, clock_now, home_failure};

/// What a search found.
pub struct Search {
    /// Files that were read.
    pub files: usize,
    /// Their length together.
    pub bytes: u64,
    /// Canaries that were found in a file.
    pub hits: usize,
}

/// Everything to search for: plaintext as it is, secrets raw, in hexadecimal and in base64.
pub fn canaries(jobs: &[DemoJob], secrets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = jobs.iter().flat_map(DemoJob::plaintexts).collect();
    for secret in secrets {
        all.push(secret.clone());
        all.push(HEXLOWER.encode(secret).into_bytes());
        all.push(BASE64.encode(secret).into_bytes());
    }
    all
}

/// Searches every file below `dirs`.
pub fn search(terminal: &Terminal, dirs: &[PathBuf], canaries: &[Vec<u8>]) -> Result<Search, Failure> {
    let mut files = Vec::new();
    for dir in dirs {
        collect_files(dir, &mut files).map_err(|error| local(dir, &error))?;
    }
    let total = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|meta| meta.len()).sum();
    let bar = terminal.bytes_bar("searching", total);
    let finder = Finder::new(canaries);
    let mut search = Search { files: 0, bytes: 0, hits: 0 };
    for file in files {
        // A file that a running process removes meanwhile is no hit.
        let Ok(content) = fs::read(&file) else { continue };
        search.files += 1;
        search.bytes += content.len() as u64;
        let hits = finder.count(&content);
        if hits > 0 {
            tracing::error!(file = %file.display(), hits, "canaries found");
        }
        search.hits += hits;
        bar.inc(content.len() as u64);
    }
    bar.finish_and_clear();
    Ok(search)
}

fn collect_files(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect_files(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// Finds many needles in one pass: by their first four bytes, then by comparison.
struct Finder<'a> {
    needles: std::collections::HashMap<[u8; 4], Vec<&'a [u8]>>,
}

impl<'a> Finder<'a> {
    fn new(canaries: &'a [Vec<u8>]) -> Self {
        let mut needles: std::collections::HashMap<[u8; 4], Vec<&'a [u8]>> = std::collections::HashMap::new();
        for canary in canaries {
            if let Some(first) = canary.first_chunk::<4>() {
                needles.entry(*first).or_default().push(canary);
            }
        }
        Self { needles }
    }

    fn count(&self, content: &[u8]) -> usize {
        content
            .windows(4)
            .enumerate()
            .filter_map(|(start, window)| {
                let first: [u8; 4] = window.try_into().ok()?;
                let candidates = self.needles.get(&first)?;
                Some(candidates.iter().filter(|needle| content[start..].starts_with(needle)).count())
            })
            .sum()
    }
}

/// What became of a receipt with one bit flipped.
pub struct Flip {
    /// Which byte.
    pub byte: usize,
    /// Which bit of it.
    pub bit: u8,
    /// Whether it was refuted.
    pub refuted: bool,
    /// The verdict in words.
    pub verdict: String,
}

/// Flips one bit in the report inside a receipt, so that the file still reads as a receipt, and verifies that.
pub fn flip_one_bit(receipt: &Path, trust: &Path) -> Result<Flip, Failure> {
    let bytes = fs::read(receipt).map_err(|error| local(receipt, &error))?;
    let trust = Home::read_network(trust).map_err(|error| home_failure(&error))?;
    let report = find(&bytes, b"\"report\"")
        .and_then(|at| find(&bytes[at..], b"\"payload\": \"").map(|offset| at + offset + 12));
    let start = report.unwrap_or(bytes.len() / 2) + 200;
    for byte in start..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[byte] ^= 1;
        // Some flips leave no base64 behind; the file is then unusable rather than refuted. The next byte shows the point better.
        let Ok(parsed) = Receipt::parse(&flipped) else { continue };
        let tampered = receipt.with_extension("tampered.receipt");
        fs::write(&tampered, &flipped).map_err(|error| local(&tampered, &error))?;
        let verdict = verify_receipt(&parsed, Some(&trust), clock_now());
        let refuted = verdict.overall() == Overall::Refuted;
        let first = verdict.claims.iter().find(|claim| claim.verdict.name() == "refuted");
        let why = first.map_or_else(String::new, |claim| format!(" ({}: {})", claim.name, claim.statement));
        return Ok(Flip { byte, bit: 0, refuted, verdict: format!("{}{why}", verdict.overall().name()) });
    }
    Err(Failure::local("demo.flip", "no bit could be flipped", "report this defect"))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn local(path: &Path, error: &std::io::Error) -> Failure {
    Failure::local("demo.io", format!("{}: {error}", path.display()), "check free space and permissions")
}
