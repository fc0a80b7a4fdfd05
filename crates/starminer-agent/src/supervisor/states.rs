//! Checkpoints of tasks, as files by task: ciphertext that outlives the agent (`specs/checkpoint.md`, section 2).
//!
//! The only thing of a task that does. A file belongs to one attempt at a time, until its process is gone, whoever started that; it is removed when its task is over. What is in it
//! is the task process's to judge: this directory knows names.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starminer_verify::TaskId;
use starminer_wire::MAX_HELD;
use tokio::sync::Notify;

use super::pinned::PinnedDir;
use crate::error::AgentError;

/// What a file is called: the task, and this.
const SUFFIX: &str = ".state";
/// There while an agent runs: who finds it at its start knows that the one before did not stop, but ended.
const RUNNING_MARK: &str = "running";

/// Between two looks whether the process of an earlier attempt is gone.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Free,
    Taken,
}

/// The checkpoints on this node.
#[derive(Debug)]
pub(crate) struct StateDir {
    dir: PinnedDir,
    known: Mutex<BTreeMap<TaskId, Use>>,
    freed: Notify,
}

/// One task's, for one attempt.
#[derive(Debug)]
pub(crate) struct StateFile {
    pub(crate) file: File,
    _taken: Taken,
}

#[derive(Debug)]
struct Taken {
    dir: Arc<StateDir>,
    task: TaskId,
}

impl StateDir {
    /// Opens the directory `states` below `data_dir`, which this agent has to itself.
    ///
    /// # Errors
    /// [`AgentError::File`].
    pub(crate) fn open(data_dir: &Path) -> Result<Arc<Self>, AgentError> {
        let path = data_dir.join("states");
        let error = |source| AgentError::File { path: path.clone(), source };
        let dir = PinnedDir::open(&path).map_err(error)?;
        sync_dir(data_dir).map_err(error)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(dir.path()).map_err(error)? {
            let entry = entry.map_err(error)?;
            match entry.file_name().to_str().and_then(task_of) {
                Some(task) if known.len() < MAX_HELD => {
                    known.insert(task, Use::Free);
                }
                // Not ours, or more than anybody may hold.
                _ => fs::remove_file(entry.path()).map_err(error)?,
            }
        }
        Ok(Arc::new(Self { dir, known: Mutex::new(known), freed: Notify::new() }))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<TaskId, Use>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tasks of which there are checkpoints that no attempt here is using.
    pub(crate) fn held(&self) -> Vec<TaskId> {
        self.known().iter().filter(|(_, state)| **state == Use::Free).map(|(task, _)| *task).collect()
    }

    /// The file of a task, empty where there was none. Waits while an earlier attempt's process may still have it open.
    ///
    /// # Errors
    /// The disk's, and [`io::ErrorKind::QuotaExceeded`] where as many tasks as may have checkpoints here.
    pub(crate) async fn take(self: &Arc<Self>, task: TaskId) -> io::Result<StateFile> {
        loop {
            let freed = self.freed.notified();
            {
                let mut known = self.known();
                match known.get(&task) {
                    Some(Use::Taken) => {}
                    None if known.len() >= MAX_HELD => return Err(io::ErrorKind::QuotaExceeded.into()),
                    Some(Use::Free) | None => {
                        known.insert(task, Use::Taken);
                        break;
                    }
                }
            }
            freed.await;
        }
        // From here on in a guard, also for who stops waiting.
        let taken = Taken { dir: Arc::clone(self), task };
        let file = self.open_locked(task).await?;
        Ok(StateFile { file, _taken: taken })
    }

    /// The lock is of the opening, which the task process shares: until that one is gone too, also where the agent that started it is, nobody gets the
    /// file.
    async fn open_locked(&self, task: TaskId) -> io::Result<File> {
        let file = self.open_file(task)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn open_file(&self, task: TaskId) -> io::Result<File> {
        let path = self.file_path(task);
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = options.create_new(true).open(&path)?;
                // The name has to be as durable as what is committed under it.
                sync_dir(self.dir.path())?;
                Ok(file)
            }
            result => result,
        }
    }

    fn free(&self, task: TaskId) {
        self.known().insert(task, Use::Free);
        self.freed.notify_waiters();
    }

    /// Removes what there is of a task, unless an attempt is using it.
    pub(crate) fn forget(&self, task: TaskId) {
        let mut known = self.known();
        if known.get(&task) != Some(&Use::Free) {
            return;
        }
        // What cannot be removed is tried again at the next start, and not asked about with every poll until then.
        known.remove(&task);
        match fs::remove_file(self.file_path(task)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%task, %error, "the checkpoint of a task that is over could not be removed");
            }
            _ => tracing::info!(%task, "the checkpoint of a task that is over was removed"),
        }
    }

    fn file_path(&self, task: TaskId) -> PathBuf {
        self.dir.path().join(format!("{task}{SUFFIX}"))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.dir.free(self.task);
    }
}

/// The task that a file is of.
fn task_of(name: &str) -> Option<TaskId> {
    let task: TaskId = name.strip_suffix(SUFFIX)?.parse().ok()?;
    // One spelling of each.
    (format!("{task}{SUFFIX}") == name).then_some(task)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The mark of a running agent.
#[derive(Debug)]
pub(crate) struct RunningMark {
    path: PathBuf,
    /// Whether it was there already.
    pub(crate) unclean: bool,
}

impl RunningMark {
    /// Sets it.
    ///
    /// # Errors
    /// [`AgentError::File`].
    pub(crate) fn set(data_dir: &Path) -> Result<Self, AgentError> {
        let path = data_dir.join(RUNNING_MARK);
        let error = |source| AgentError::File { path: path.clone(), source };
        let unclean = path.try_exists().map_err(error)?;
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.sync_all())
            .and_then(|()| sync_dir(data_dir))
            .map_err(error)?;
        Ok(Self { path, unclean })
    }

    /// Takes it away: the agent stops, and nothing of a task runs any more.
    pub(crate) fn clear(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the mark of a running agent could not be removed: the next start will say that this one crashed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const TASK: TaskId = TaskId([5; 16]);

    #[tokio::test]
    async fn a_file_has_one_user_outlives_the_agent_and_goes_with_its_task() {
        let dir = tempfile::tempdir().unwrap();
        let states = StateDir::open(dir.path()).unwrap();
        let mut taken = states.take(TASK).await.unwrap();
        taken.file.write_all(b"ciphertext").unwrap();
        assert!(states.held().is_empty(), "an attempt has it");
        states.forget(TASK);
        let next = tokio::spawn({
            let states = Arc::clone(&states);
            async move { states.take(TASK).await.unwrap() }
        });
        tokio::task::yield_now().await;
        assert!(!next.is_finished(), "two attempts have the same file");
        drop(taken);
        let next = next.await.unwrap();
        assert_eq!(next.file.metadata().unwrap().len(), 10, "forgotten while it was used");
        drop(next);

        let again = StateDir::open(dir.path()).unwrap();
        assert_eq!(again.held(), [TASK]);
        again.forget(TASK);
        assert!(again.held().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("states")).unwrap().count(), 0);
        again.forget(TASK);
    }

    #[test]
    fn what_is_no_checkpoint_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let states = dir.path().join("states");
        fs::create_dir(&states).unwrap();
        let names =
            ["notes.txt", "05050505050505050505050505050505", "AB050505050505050505050505050505.state", ".state"];
        for name in names {
            fs::write(states.join(name), b"").unwrap();
        }
        fs::write(states.join("05050505050505050505050505050505.state"), b"x").unwrap();
        assert_eq!(StateDir::open(dir.path()).unwrap().held(), [TASK]);
        assert_eq!(fs::read_dir(&states).unwrap().count(), 1);
    }

    #[test]
    fn a_start_knows_how_the_one_before_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunningMark::set(dir.path()).unwrap();
        assert!(!first.unclean);
        drop(first);
        let second = RunningMark::set(dir.path()).unwrap();
        assert!(second.unclean, "the first one did not stop");
        second.clear();
        assert!(!RunningMark::set(dir.path()).unwrap().unclean);
    }
}
