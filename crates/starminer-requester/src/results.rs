//! What a collected task leaves in its output directory: its outputs, its receipt, and a list of what was put there.
//!
//! The list is what makes a directory usable again: the outputs of the task before are taken away with its list, so that none of them
//! is taken for the new task's. What somebody else put there, or changed since, is never touched: where it stands in the way of
//! an output, nothing is placed at all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use starminer_receipt::OutputName;
use starminer_verify::TaskId;

use crate::home::{OWNER, replace_file};
use crate::outputs::{OpenedOutput, OutputsError};

/// What names in an output directory begin with that are no outputs.
pub(crate) const RESERVED: &str = ".starminer-";
const LIST: &str = ".starminer-results";
const MAX_LIST_BYTES: u64 = 16 << 20;

/// The list of what a task left in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// The task.
    pub task: TaskId,
    outputs: Vec<Placed>,
}

/// One output, as it was when it was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Placed {
    name: OutputName,
    /// Below the directory.
    place: PathBuf,
    bytes: u64,
    modified: (i64, i64),
}

impl Results {
    /// The list of a directory; `None` where the last task left no outputs, or none is there that can be understood.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Self> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        File::open(dir.join(LIST)).ok()?.take(MAX_LIST_BYTES).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Where an output of this name was put, below the directory.
    #[must_use]
    pub fn place(&self, name: &OutputName) -> Option<&Path> {
        self.outputs.iter().find(|placed| placed.name == *name).map(|placed| placed.place.as_path())
    }
}

impl Placed {
    fn is_unchanged(&self, dir: &Path) -> bool {
        fs::symlink_metadata(dir.join(&self.place)).is_ok_and(|meta| {
            meta.is_file() && meta.len() == self.bytes && (meta.mtime(), meta.mtime_nsec()) == self.modified
        })
    }
}

/// Outputs that are opened and authenticated, on their way to their places.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
    staging: PathBuf,
    task: TaskId,
    staged: Vec<(OutputName, PathBuf, u64)>,
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.staging);
    }
}

impl Staging {
    /// Below `dir`, so that every output is renamed and none copied. Whoever collects a task holds its journal: what a crash left of
    /// an earlier try is nobody else's.
    pub(crate) fn new(dir: &Path, task: TaskId) -> Result<Self, OutputsError> {
        let staging = dir.join(format!("{RESERVED}{task}"));
        match fs::remove_dir_all(&staging) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OutputsError::Io { path: staging, source });
            }
            _ => {}
        }
        Ok(Self { dir: dir.into(), staging, task, staged: Vec::new() })
    }

    /// Where the next output is written before it is placed.
    pub(crate) fn next(&self) -> Result<PathBuf, OutputsError> {
        fs::create_dir_all(&self.staging).map_err(|source| OutputsError::Io { path: self.staging.clone(), source })?;
        Ok(self.staging.join(self.staged.len().to_string()))
    }

    /// Takes what was written to [`Self::next`].
    pub(crate) fn add(&mut self, name: OutputName, place: PathBuf, plain_bytes: u64) {
        self.staged.push((name, place, plain_bytes));
    }

    /// Takes the outputs of the task before away and places these.
    pub(crate) fn place(mut self) -> Result<Vec<OpenedOutput>, OutputsError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| OutputsError::Io { path, source }
        };
        // One at a time in one directory; the lock ends with the file.
        let locked = File::open(&self.dir).map_err(io(&self.dir))?;
        locked.lock().map_err(io(&self.dir))?;
        let before = Results::read(&self.dir).map(|results| results.outputs).unwrap_or_default();
        let (own, list) = (
            |place: &Path| before.iter().any(|placed| placed.place == place && placed.is_unchanged(&self.dir)),
            self.dir.join(LIST),
        );
        for (_, place, _) in &self.staged {
            for part in place.ancestors().filter(|part| !part.as_os_str().is_empty()) {
                let path = self.dir.join(part);
                let occupied = match fs::symlink_metadata(&path) {
                    Ok(_) if own(part) => false,
                    Ok(_) => part == place || !path.is_dir(),
                    Err(_) => false,
                };
                if occupied {
                    return Err(OutputsError::Occupied { path });
                }
            }
        }
        for placed in before.iter().filter(|placed| placed.is_unchanged(&self.dir)) {
            let path = self.dir.join(&placed.place);
            fs::remove_file(&path).map_err(io(&path))?;
            for parent in placed.place.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
                // Those that are empty now.
                let _ = fs::remove_dir(self.dir.join(parent));
            }
        }
        let mut outputs = Vec::with_capacity(self.staged.len());
        let mut opened = Vec::with_capacity(self.staged.len());
        for (index, (name, place, plain_bytes)) in self.staged.drain(..).enumerate() {
            let from = self.staging.join(index.to_string());
            let meta = fs::metadata(&from).map_err(io(&from))?;
            let path = self.dir.join(&place);
            outputs.push(Placed {
                name: name.clone(),
                place,
                bytes: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
            });
            opened.push((from, OpenedOutput { name, path, plain_bytes }));
        }
        // Before the outputs: after a crash between the two they are still known to be of this task.
        if outputs.is_empty() {
            match fs::remove_file(&list) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(OutputsError::Io { path: list, source });
                }
                _ => {}
            }
        } else {
            let bytes = serde_json::to_vec(&Results { task: self.task, outputs })
                .map_err(|error| io(&list)(io::Error::other(error)))?;
            replace_file(&list, &bytes, OWNER).map_err(io(&list))?;
        }
        let mut placed = Vec::with_capacity(opened.len());
        for (from, output) in opened {
            if let Some(parent) = output.path.parent() {
                fs::create_dir_all(parent).map_err(io(parent))?;
            }
            fs::rename(&from, &output.path).map_err(io(&output.path))?;
            placed.push(output);
        }
        Ok(placed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(dir: &Path, task: u8, files: &[(&str, &str)]) -> Result<Vec<OpenedOutput>, OutputsError> {
        let mut staging = Staging::new(dir, TaskId([task; 16])).unwrap();
        for (name, text) in files {
            fs::write(staging.next().unwrap(), text).unwrap();
            staging.add(OutputName::File((*name).into()), (*name).into(), text.len() as u64);
        }
        staging.place()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != LIST);
        names.sort();
        names
    }

    #[test]
    fn a_task_replaces_the_outputs_of_the_one_before_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        fs::write(dir.join("mine"), "of the user").unwrap();
        assert_eq!(place(dir, 1, &[("a", "1"), ("deep/er/b", "1"), ("kept", "1")]).unwrap().len(), 3);
        assert_eq!(names(dir), ["a", "deep", "kept", "mine"]);
        // One that was changed since is the user's own.
        fs::write(dir.join("kept"), "edited").unwrap();
        place(dir, 2, &[("a", "2"), ("c", "2")]).unwrap();
        assert_eq!(names(dir), ["a", "c", "kept", "mine"]);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "2");
        let results = Results::read(dir).unwrap();
        assert_eq!(
            (results.task, results.place(&OutputName::File("c".into()))),
            (TaskId([2; 16]), Some(Path::new("c")))
        );
        // What is not ours and in the way: nothing is placed, nothing is lost.
        for (name, in_the_way) in [("kept", "kept"), ("mine", "mine"), ("mine/below", "mine")] {
            let refused = place(dir, 3, &[("new", "3"), (name, "3")]);
            assert!(matches!(refused, Err(OutputsError::Occupied { path }) if path == dir.join(in_the_way)), "{name}");
            assert_eq!(names(dir), ["a", "c", "kept", "mine"]);
        }
        assert_eq!(fs::read_to_string(dir.join("mine")).unwrap(), "of the user");
        // A task without outputs leaves none of another one's.
        place(dir, 4, &[]).unwrap();
        assert_eq!(names(dir), ["kept", "mine"]);
        assert_eq!(Results::read(dir), None);
    }
}
