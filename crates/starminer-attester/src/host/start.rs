//! How the machine's last start ended, by the first process of the measured image, which read it from the node's disk. Source: `specs/disk.md`.

use serde::Deserialize;
use starminer_verify::{HostMeasure, PostureItem};

use super::{HostTree, absent, in_force, not_checked};

/// What the first process leaves for the agent. Only root writes there, and in the image nobody else is root.
const START: &str = "run/starminer/start.json";

/// Its contents.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    /// Which start with this disk it is, from 1.
    start: u64,
    /// Whether the one before was ended by a shutdown. True of the first.
    last_ended_in_order: bool,
}

impl HostTree {
    pub(super) fn ended_in_order(&self) -> PostureItem<HostMeasure> {
        let name = HostMeasure::EndedInOrder;
        let Some(text) = self.text(START) else { return not_checked(name, "no measured image with a disk says so") };
        match serde_json::from_str(&text) {
            Ok(Start { start, last_ended_in_order: true }) => in_force(name, &format!("start {start}")),
            Ok(Start { start, last_ended_in_order: false }) => {
                absent(name, &format!("start {start}: the one before was cut off"))
            }
            Err(_) => not_checked(name, "what the first process left is not understood"),
        }
    }
}
