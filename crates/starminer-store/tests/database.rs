//! The database: batches are whole or not there, the checkpoint is swapped by compare, a full disk loses nothing.
#![allow(clippy::unwrap_used)]

use starminer_store::{
    Batch, BlobRow, BlobUseRow, CheckpointRow, CommitError, Database, EventRow, HashRun, Journal as _, NodeRow,
    OpenedTask,
};

fn checkpoint(version: u64, size: u64) -> CheckpointRow {
    CheckpointRow { version, size, note: format!("note {version}"), open_run: vec![9; 32] }
}

fn batch(version: u64, first: u64, count: u64) -> Batch {
    Batch {
        checkpoint: Some(checkpoint(version, first + count)),
        events: (first..first + count)
            .map(|index| EventRow {
                index,
                task: Some([1; 16]),
                kind: 3,
                at: 1000 + index,
                entry: format!("entry {index}").into_bytes(),
                statement: Some(vec![7; 10]),
                extra: (index % 2 == 0).then(|| vec![8; 5]),
            })
            .collect(),
        hashes: vec![HashRun { run: version, hashes: vec![9; 32 * 256] }],
        ..Batch::default()
    }
}

async fn open(dir: &tempfile::TempDir) -> Database {
    Database::open(&dir.path().join("test.db")).await.unwrap()
}

#[tokio::test]
async fn what_was_committed_is_read_back_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir).await;
    assert_eq!(database.checkpoint().await.unwrap(), None);
    // Sizes that need several groups of rows.
    let mut next = 0;
    for (version, count) in [(1, 1), (2, 3), (3, 75), (4, 32)] {
        database.commit(&batch(version, next, count)).await.unwrap();
        next += count;
    }
    let mut task = Batch {
        opened: vec![OpenedTask { task: [1; 16], requester: [2; 32], submitted_index: 0 }],
        nodes: vec![NodeRow { node: [3; 32], valid_until: 500, standing: vec![1, 2] }],
        ..Batch::default()
    };
    database.commit(&task).await.unwrap();
    task = Batch { nodes: vec![NodeRow { node: [3; 32], valid_until: 900, standing: vec![3] }], ..Batch::default() };
    database.commit(&task).await.unwrap();
    database.close().await;

    let database = open(&dir).await;
    assert_eq!(database.checkpoint().await.unwrap(), Some(checkpoint(4, 111)));
    assert_eq!(database.last_event_at().await.unwrap(), Some(1110));
    let entries = database.entries(100, 256).await.unwrap();
    assert_eq!((entries.len(), &entries[0].entry[..]), (11, &b"entry 100"[..]));
    let events = database.task_events(&[1; 16]).await.unwrap();
    assert_eq!(events.len(), 111);
    assert_eq!(events[4], batch(1, 4, 1).events[0]);
    assert_eq!(database.hash_run(4).await.unwrap().unwrap().hashes.len(), 256 * 32);
    assert_eq!(database.hash_run(5).await.unwrap(), None);
    assert_eq!(database.open_tasks().await.unwrap(), [[1; 16]]);
    assert_eq!(database.nodes(600).await.unwrap(), task.nodes);
    assert!(database.nodes(0).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_newest_event_of_a_kind_is_found_among_those_of_no_task() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir).await;
    let mut events = batch(1, 0, 8);
    for (event, kind) in events.events.iter_mut().zip([5, 6, 5, 6, 5, 5]) {
        (event.task, event.kind) = (None, kind);
    }
    // Of a task: of no interest here, whatever its kind.
    events.events[7].kind = 5;
    database.commit(&events).await.unwrap();
    let newest =
        async |kind, below| database.newest_event(kind, below).await.unwrap().map(|event| (event.index, event.kind));
    assert_eq!(newest(5, 100).await, Some((5, 5)));
    assert_eq!(newest(5, 5).await, Some((4, 5)));
    assert_eq!(newest(5, 4).await, Some((2, 5)));
    assert_eq!(newest(5, 0).await, None);
    assert_eq!(newest(6, 100).await, Some((3, 6)));
    assert_eq!(newest(7, 100).await, None);
    assert_eq!(database.newest_event(6, 100).await.unwrap().unwrap(), events.events[3]);
}

#[tokio::test]
async fn the_checkpoint_is_swapped_only_from_the_version_it_builds_on() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir).await;
    let conflict = async |version: u64| {
        let refused = database.commit(&batch(version, 50, 1)).await.unwrap_err();
        assert!(matches!(refused, CommitError::Conflict { expected } if expected == version - 1), "{refused}");
    };
    conflict(2).await;
    database.commit(&batch(1, 0, 2)).await.unwrap();
    conflict(1).await;
    conflict(3).await;
    // A conflict leaves nothing behind.
    assert!(database.entries(50, 10).await.unwrap().is_empty());
    assert_eq!(database.checkpoint().await.unwrap(), Some(checkpoint(1, 2)));

    // A second connection to the same file sees the swap.
    let other = open(&dir).await;
    other.commit(&batch(2, 2, 1)).await.unwrap();
    conflict(2).await;
    database.commit(&batch(3, 3, 1)).await.unwrap();
}

#[tokio::test]
async fn a_batch_with_one_bad_row_is_not_there_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir).await;
    database.commit(&batch(1, 0, 2)).await.unwrap();
    // An entry twice, and a use of a blob that does not exist.
    let mut twice = batch(2, 2, 2);
    twice.events.push(twice.events[0].clone());
    let mut unknown = batch(2, 2, 2);
    unknown.uses.push(BlobUseRow { blob: [1; 32], task: [1; 16] });
    for bad in [twice, unknown] {
        assert!(matches!(database.commit(&bad).await.unwrap_err(), CommitError::Failed(_)));
        assert_eq!(database.checkpoint().await.unwrap(), Some(checkpoint(1, 2)));
        assert_eq!(database.entries(0, 10).await.unwrap().len(), 2);
    }
    database.commit(&batch(2, 2, 2)).await.unwrap();
}

/// The file may not grow: SQLite's own error of a full disk, after which writing goes on when there is space.
#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir).await;
    database.commit(&batch(1, 0, 2)).await.unwrap();
    database.limit_pages_for_tests(40).await;
    let mut large = batch(2, 2, 2);
    large.events[0].statement = Some(vec![1; 1 << 20]);
    for _ in 0..2 {
        let refused = database.commit(&large).await.unwrap_err();
        assert!(matches!(refused, CommitError::Full), "{refused:?}");
        assert_eq!(database.checkpoint().await.unwrap(), Some(checkpoint(1, 2)));
    }
    database.limit_pages_for_tests(1 << 20).await;
    database.commit(&large).await.unwrap();
    assert_eq!(database.task_events(&[1; 16]).await.unwrap()[2].statement.as_ref().unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn blobs_live_as_long_as_a_task_uses_them() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir).await;
    let blob = |id: u8, stored_at| BlobRow {
        id: [id; 32],
        owner: [9; 32],
        size_bytes: 10,
        stored_at,
        body: (id == 1).then(|| vec![1; 10]),
    };
    let opened = |task: u8| OpenedTask { task: [task; 16], requester: [9; 32], submitted_index: u64::from(task) };
    let used = |blob: u8, task: u8| BlobUseRow { blob: [blob; 32], task: [task; 16] };
    let setup = Batch {
        blobs: vec![blob(1, 100), blob(2, 100), blob(3, 100), blob(4, 900)],
        opened: vec![opened(1), opened(2)],
        uses: vec![used(1, 1), used(2, 1), used(2, 2), used(2, 2)],
        ..Batch::default()
    };
    database.commit(&setup).await.unwrap();
    // Stored again: the first row stays.
    database
        .commit(&Batch { blobs: vec![BlobRow { owner: [8; 32], ..blob(1, 500) }], ..Batch::default() })
        .await
        .unwrap();
    assert_eq!(database.blob(&[1; 32]).await.unwrap(), Some(blob(1, 100)));
    assert_eq!(database.blob_size(&[2; 32]).await.unwrap(), Some(10));
    assert_eq!(database.blob_size(&[7; 32]).await.unwrap(), None);
    assert_eq!(database.bytes_by_owner().await.unwrap(), [([9; 32], 40)]);
    assert_eq!(database.unused_blobs(500, 10).await.unwrap(), [[3; 32]]);
    assert!(database.unswept_tasks(u64::MAX, 10).await.unwrap().is_empty());
    database.commit(&Batch { ended: vec![([1; 16], 1000)], ..Batch::default() }).await.unwrap();
    assert!(database.unswept_tasks(1000, 10).await.unwrap().is_empty());
    let due = database.unswept_tasks(1001, 10).await.unwrap();
    assert_eq!((due.len(), due[0].task, due[0].blobs.len()), (1, [1; 16], 2));
    let sweep = Batch { swept: vec![[1; 16]], dropped: vec![[1; 32], [2; 32], [3; 32], [6; 32]], ..Batch::default() };
    let committed = database.commit(&sweep).await.unwrap();
    // Task 2 still uses blob 2.
    assert_eq!(committed.dropped, [([1; 32], [9; 32], 10), ([3; 32], [9; 32], 10)]);
    assert!(database.unswept_tasks(u64::MAX, 10).await.unwrap().is_empty());
    assert_eq!(database.open_tasks().await.unwrap(), [[2; 16]]);
}

/// A file of a newer version, or one that is not a database, is not touched.
#[tokio::test]
async fn foreign_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.db");
    std::fs::write(&path, b"not a database, but long enough to look at".repeat(100)).unwrap();
    assert_eq!(Database::open(&path).await.unwrap_err().code(), "storage.open");
    std::fs::remove_file(&path).unwrap();
    open(&dir).await.close().await;
    let url = format!("sqlite://{}", path.display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'newer', 1, x'00', 0)";
    sqlx::query(newer).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    assert_eq!(Database::open(&path).await.unwrap_err().code(), "storage.schema");
}
