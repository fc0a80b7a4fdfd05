//! Keeps the disk bounded: blobs of tasks that ended long ago, blobs that nothing ever used, uploads that nobody continued.
//!
//! A row goes before its file, so that a crash in between leaves a file without a row; those are looked for once after a start.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use starminer_verify::UnixTime;
use tokio::sync::watch;

use crate::shared::Shared;

/// Most rows that one round looks at; the next round goes on.
const ROUND_BOUND: u32 = 64;
/// Pause between rounds while there is more.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

/// Sweeps until the coordinator stops.
pub(crate) async fn run(shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let started = SystemTime::now();
    remove_orphans(&shared, started).await;
    loop {
        let more = sweep(&shared).await;
        let pause = if more { ROUND_PAUSE } else { Duration::from_secs(shared.config.keep.sweep_every_seconds.max(1)) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

fn before(now: UnixTime, seconds: u64) -> u64 {
    now.as_millis().saturating_sub(seconds.saturating_mul(1000))
}

/// One round; whether there may be more to do.
async fn sweep(shared: &Shared) -> bool {
    let now = shared.clock.now();
    let keep = &shared.config.keep;
    shared.blobs.expire_partials(before(now.wall, keep.partial_uploads_seconds)).await;
    shared.brokers.forget(|broker| shared.broker_presence.is_present(broker, now));
    let tasks = shared.database.unswept_tasks(before(now.wall, keep.ended_blobs_seconds), ROUND_BOUND).await;
    let unused = shared.database.unused_blobs(before(now.wall, keep.unused_blobs_seconds), ROUND_BOUND).await;
    let (tasks, unused) = match (tasks, unused) {
        (Ok(tasks), Ok(unused)) => (tasks, unused),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "expired blobs cannot be looked for");
            return false;
        }
    };
    if tasks.is_empty() && unused.is_empty() {
        return false;
    }
    let more = tasks.len() == ROUND_BOUND as usize || unused.len() == ROUND_BOUND as usize;
    let blobs: Vec<_> = tasks.iter().flat_map(|task| task.blobs.iter().copied()).chain(unused).collect();
    for blob in &blobs {
        shared.known_blobs.take_out(blob);
    }
    let committed = match shared.writer.sweep(tasks.iter().map(|task| task.task).collect(), blobs).await {
        Ok(committed) => committed,
        Err(refused) => {
            tracing::warn!(code = refused.code(), "expired blobs were not dropped");
            return false;
        }
    };
    for (id, owner, size_bytes) in committed.dropped {
        shared.quotas.give_back(owner, size_bytes);
        if let Err(error) = shared.blobs.remove(&id).await {
            tracing::warn!(%error, "a dropped blob's file was not removed; the next start removes it");
        }
    }
    more
}

/// Removes files that no row names, left by a crash between file and row.
async fn remove_orphans(shared: &Shared, started: SystemTime) {
    let files = match shared.blobs.files_before(started).await {
        Ok(files) => files,
        Err(error) => {
            tracing::warn!(%error, "files of blobs cannot be listed");
            return;
        }
    };
    for id in files {
        // An upload of this very blob may be about to get its row: it pins nothing, but it renames a newer file.
        if let Ok(None) = shared.database.blob_size(&id).await
            && let Err(error) = shared.blobs.remove(&id).await
        {
            tracing::warn!(%error, "a file without a row was not removed");
        }
    }
}
