//! What a commit of `/state` costs, next to writing the same bytes to a file and syncing it: `cargo bench -p starminer-runtime --bench commit`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use starminer_runtime::fs::{Grant, OpenHow};
use support::{State, task_fs};

const ROUNDS: u32 = 30;

/// The middle of several rounds: disks have outliers.
fn median(mut round: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            round();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    // Where cargo builds, which is a disk; a temporary folder may be memory.
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    println!("rewritten and committed   raw write + fdatasync   commit of /state   ratio");
    for bytes in [100, 64 << 10, 1 << 20, 16 << 20] {
        let data = vec![7; bytes];
        let raw =
            File::options().create(true).truncate(true).read(true).write(true).open(dir.join("commit-raw")).unwrap();
        raw.write_all_at(&data, 0).unwrap();
        raw.sync_all().unwrap();
        let raw_time = median(|| {
            raw.write_all_at(&data, 0).unwrap();
            raw.sync_data().unwrap();
        });
        let store =
            File::options().create(true).truncate(true).read(true).write(true).open(dir.join("commit-state")).unwrap();
        let mut fs = task_fs(&[], 1 << 20);
        fs.add_state(State::open(store, 1), 64 << 20).unwrap();
        let state = fs.open_grant(Grant::State).unwrap();
        let how = OpenHow { create: true, write: true, ..OpenHow::default() };
        let file = fs.open_at(&state, "data", how).unwrap();
        let mut commit = || {
            fs.write(&file, 0, &data).unwrap();
            fs.sync(&state).unwrap();
        };
        // Until both halves of the store are there.
        (0..4).for_each(|_| commit());
        let commit_time = median(&mut commit);
        println!(
            "{bytes:>20} bytes   {:>18.2} ms   {:>13.2} ms   {:>5.2}",
            raw_time.as_secs_f64() * 1e3,
            commit_time.as_secs_f64() * 1e3,
            commit_time.as_secs_f64() / raw_time.as_secs_f64()
        );
    }
    for name in ["commit-raw", "commit-state"] {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
}
