//! What a task leaves behind in `/out`, for the caller to seal.

use std::io;

use super::tree::{Kind, NodeId, Place};
use super::{FsError, Grant, TaskFs};

/// One file below `/out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Path below `/out`, without a leading slash: `predictions.csv`, `maps/a.png`.
    pub path: String,
    /// Bytes in the file.
    pub size_bytes: u64,
}

impl TaskFs {
    /// All files below `/out`, in byte order of their paths. Empty directories are not outputs.
    pub fn outputs(&self) -> Vec<Output> {
        let mut found = Vec::new();
        let mut waiting = vec![(String::new(), self.grants[Grant::Outputs as usize])];
        while let Some((path, node)) = waiting.pop() {
            match &self.tree.node(node).kind {
                Kind::Directory { entries } => waiting.extend(entries.iter().map(|(name, &below)| {
                    let separator = if path.is_empty() { "" } else { "/" };
                    (format!("{path}{separator}{name}"), below)
                })),
                Kind::Input { len, .. } | Kind::Scratch { len, .. } => {
                    found.push(Output { path, size_bytes: *len });
                }
            }
        }
        found.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
        found
    }

    /// Reads the output at `path` (as in [`Output::path`]) from its beginning.
    pub fn read_output(&mut self, path: &str) -> Result<OutputReader<'_>, FsError> {
        match self.tree.walk(self.grants[Grant::Outputs as usize], path)? {
            Place::Entry { node: Some(node), .. } => Ok(OutputReader { fs: self, node, offset: 0 }),
            Place::Entry { node: None, .. } => Err(FsError::NoEntry),
            Place::Directory(_) => Err(FsError::IsDirectory),
        }
    }
}

/// Plaintext of one output, page by page.
pub struct OutputReader<'fs> {
    fs: &'fs mut TaskFs,
    node: NodeId,
    offset: u64,
}

impl OutputReader<'_> {
    /// Reads on into `buffer`; 0 at the end. The only error is a host fault.
    pub fn read_chunk(&mut self, buffer: &mut [u8]) -> Result<usize, FsError> {
        let count = self.fs.read_node(self.node, self.offset, buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl io::Read for OutputReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_chunk(buffer).map_err(io::Error::other)
    }
}
