//! Stand-in trees written as tables: path and contents, folders, links.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use starminer_attester::HostTree;
use starminer_verify::{HostMeasure, PostureItem, PostureState};

/// A tree in a temporary folder.
pub struct StandIn {
    folder: tempfile::TempDir,
    job_storage: Option<String>,
}

impl StandIn {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), job_storage: None }
    }

    fn place(&self, path: &str) -> std::path::PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(self, path: &str, contents: impl AsRef<[u8]>) -> Self {
        fs::write(self.place(path), contents).unwrap();
        self
    }

    pub fn files(self, files: &[(&str, &str)]) -> Self {
        files.iter().fold(self, |tree, (path, contents)| tree.file(path, contents))
    }

    pub fn folder(self, path: &str) -> Self {
        fs::create_dir_all(self.place(path)).unwrap();
        self
    }

    pub fn link(self, path: &str, target: impl AsRef<Path>) -> Self {
        symlink(target, self.place(path)).unwrap();
        self
    }

    /// Makes the folder and names it as job storage.
    pub fn job_storage(mut self, path: &str) -> Self {
        self = self.folder(path.trim_start_matches('/'));
        self.job_storage = Some(path.into());
        self
    }

    /// Writes a file later, whole, as the kernel gives it.
    pub fn put(&self, path: &str, contents: impl AsRef<[u8]>) {
        let (path, new) = (self.place(path), self.folder.path().join("new"));
        fs::write(&new, contents).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub fn host(&self) -> HostTree {
        let tree = HostTree::at(self.folder.path());
        match &self.job_storage {
            Some(path) => tree.with_job_storage(path),
            None => tree,
        }
    }

    pub fn collect(&self) -> Vec<PostureItem<HostMeasure>> {
        self.host().collect()
    }

    pub fn item(&self, measure: HostMeasure) -> PostureItem<HostMeasure> {
        item_of(&self.host(), measure)
    }

    /// The state, and a part of what is said about it.
    #[track_caller]
    pub fn check(&self, measure: HostMeasure, state: PostureState, says: &str) -> &Self {
        let item = self.item(measure);
        assert_eq!(item.state(), state, "{measure}: {}", item.detail());
        assert!(item.detail().contains(says), "{measure} says {:?}, not {says:?}", item.detail());
        self
    }
}

pub fn item_of(host: &HostTree, measure: HostMeasure) -> PostureItem<HostMeasure> {
    host.collect().into_iter().find(|item| item.name() == measure).unwrap()
}

/// One file alone, and what follows from it. `both` are the measures that are read from it.
#[track_caller]
pub fn check_file(both: &[HostMeasure], path: &str, contents: &[u8], state: PostureState) {
    let tree = StandIn::new().file(path, contents);
    let measure = both[0];
    for item in tree.collect() {
        if item.name() == measure {
            assert_eq!(item.state(), state, "{measure} in {path}: {}", item.detail());
        } else if !both.contains(&item.name()) {
            // Every other file is missing, and so not checked.
            assert_eq!(item.state(), PostureState::NotChecked, "{} from {path}: {}", item.name(), item.detail());
        }
    }
}
