//! Where the results of collected tasks are, so that `logs`, `result` and `status` still know them.
//!
//! A task's journal ends when it is collected. What is kept is one symbolic link a task, `HOME/collected/TASK`, to the
//! directory with its outputs and receipt; links are free to delete.

use std::io;
use std::path::{Path, PathBuf};

use starminer_requester::HomeError;
use starminer_verify::TaskId;

/// The links of one home.
#[derive(Debug, Clone)]
pub struct Collected {
    dir: PathBuf,
}

impl Collected {
    /// Those below a home directory.
    pub fn of(home: &Path) -> Self {
        Self { dir: home.join("collected") }
    }

    /// Keeps where a task's result is. The directory's path is absolute.
    pub fn remember(&self, task: &TaskId, output_dir: &Path) -> Result<(), HomeError> {
        let link = self.dir.join(task.to_string());
        let linked = || {
            std::fs::create_dir_all(&self.dir)?;
            match std::fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::os::unix::fs::symlink(output_dir, &link)
        };
        linked().map_err(|source| HomeError::Local { path: link.clone(), source })
    }

    /// The tasks whose ids begin like this, with the directories of their results.
    pub fn beginning_with(&self, prefix: &str) -> io::Result<Vec<(TaskId, PathBuf)>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let task = name.to_str().filter(|name| name.starts_with(prefix)).and_then(|name| name.parse().ok());
            if let Some(task) = task {
                found.push((task, std::fs::read_link(entry.path())?));
            }
        }
        Ok(found)
    }
}
