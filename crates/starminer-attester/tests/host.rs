//! Host posture from stand-in trees, and that the machine of the test itself can be read without an error.

#![allow(clippy::unwrap_used)]

mod host {
    mod cpu;
    mod devices;
    mod kernel;
    mod keys;
    mod process;
    mod start;
    mod storage;
    pub mod tree;
    mod watch;
}

use starminer_attester::HostTree;
use starminer_verify::{HostMeasure, Posture, PostureState};

#[test]
fn the_machine_itself_states_every_measure_once() {
    let folder = tempfile::tempdir().unwrap();
    let posture = Posture::new(vec![], HostTree::machine().with_job_storage(folder.path()).collect()).unwrap();
    assert_eq!(posture.host().len(), HostMeasure::ALL.len());
    for read in [HostMeasure::CoreDumpsOff, HostMeasure::NoPreloads, HostMeasure::JobStorageLocked] {
        assert_ne!(posture.host_state(read), PostureState::NotChecked, "every Linux has what {read} is read from");
    }
}

#[test]
fn an_empty_tree_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for root in [folder.path().to_owned(), folder.path().join("missing")] {
        let items = HostTree::at(root).with_job_storage("/var/lib/starminer").collect();
        assert_eq!(items.len(), HostMeasure::ALL.len());
        for item in items {
            assert_eq!(item.state(), PostureState::NotChecked, "{}: {}", item.name(), item.detail());
        }
    }
}
