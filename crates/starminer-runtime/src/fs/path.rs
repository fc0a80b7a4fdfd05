//! Splitting of guest paths. Only the text is judged here; the walk over directories is in `tree.rs`.

use super::FsError;

/// Longest path a guest may pass, in bytes.
pub const MAX_PATH_BYTES: usize = 4096;
/// Longest name of one directory entry, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'p> {
    /// `.`: stay.
    Here,
    /// `..`: one directory up, never above the base.
    Up,
    /// An entry of the current directory.
    Into(&'p str),
}

/// A relative path that is well-formed. It has at least one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RelativePath<'p> {
    pub(super) steps: Vec<Step<'p>>,
    /// The path ended in `/`, so it can only mean a directory (POSIX.1-2017, 4.13).
    pub(super) must_be_directory: bool,
}

impl<'p> RelativePath<'p> {
    pub(super) fn parse(path: &'p str) -> Result<Self, FsError> {
        if path.is_empty() {
            return Err(FsError::NoEntry);
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(FsError::NameTooLong);
        }
        if path.contains('\0') {
            return Err(FsError::Invalid);
        }
        if path.starts_with('/') {
            return Err(FsError::NotPermitted);
        }
        let mut steps = Vec::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            steps.push(match part {
                "." => Step::Here,
                ".." => Step::Up,
                name if name.len() > MAX_NAME_BYTES => return Err(FsError::NameTooLong),
                name => Step::Into(name),
            });
        }
        Ok(RelativePath { steps, must_be_directory: path.ends_with('/') })
    }
}

/// Whether `name` can be an entry of a directory.
pub(super) fn is_entry_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name != "." && name != ".." && !name.contains(['/', '\0'])
}
