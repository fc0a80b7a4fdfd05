//! Kills and failing storage: what was acknowledged is there, what was not can be sent again, and every task ends once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::world::{Life, Party, Running, World, code, releaser_feed, sign, submit, upload};
use starminer_coordinator::{Config, Environment};
use starminer_log::{Remembered, SignedCheckpoint};
use starminer_receipt::{EntryKind, LogEntry};
use starminer_store::fault::{Fault, FaultyDisk, FaultyJournal};
use starminer_store::{Database, Journal};
use starminer_verify::Digest;
use starminer_wire::{SubmitRequest, TaskState};

/// Killed after each step and started again: every party goes on where it was, from its feed.
#[tokio::test]
async fn killed_after_every_step_a_task_still_completes() {
    let world = World::new(Config::default());
    let (requester, node) = (Party::new(1), world.node(2));
    let mut running = world.start();
    let restart = |running: Running| {
        running.kill();
        world.start()
    };
    node.admit(&running.client(&node.party)).await;
    running = restart(running);
    let blob = upload(&running.client(&requester), 500).await;
    running = restart(running);
    let (spec, _) = submit(&running.client(&requester), world.spec(&requester, &blob), &requester).await;
    running = restart(running);
    // Submitted again: the same task.
    let again = SubmitRequest { spec: spec.envelope().clone(), deposit: None, objects: Vec::new() };
    assert_eq!(running.client(&requester).submit(&again).await.unwrap().state, TaskState::Queued);
    let views = node.poll(&running.client(&node.party), 1, 2000).await;
    let mut life = Life::begin(&spec, &views[0], &requester, &node);
    running = restart(running);
    let view = &releaser_feed(&running.client(&requester), 1000).await[0];
    assert_eq!((view.state, view.lease.digest()), (TaskState::Leased, life.lease.digest()));
    life.challenge(&running.client(&requester)).await.unwrap();
    running = restart(running);
    life.challenge(&running.client(&requester)).await.unwrap();
    assert!(node.poll(&running.client(&node.party), 0, 1000).await[0].challenge.is_some());
    life.attest(&running.client(&node.party)).await.unwrap();
    running = restart(running);
    life.attest(&running.client(&node.party)).await.unwrap();
    let first = life.release(&running.client(&requester), 0).await.unwrap();
    running = restart(running);
    let second = life.release(&running.client(&requester), 0).await.unwrap();
    assert_eq!(second.proof.entry, first.proof.entry, "a release is logged once");
    life.grant(&running.client(&requester)).await.unwrap();
    running = restart(running);
    life.grant(&running.client(&requester)).await.unwrap();
    assert!(node.poll(&running.client(&node.party), 0, 1000).await[0].grant.is_some());
    life.complete(&running.client(&node.party)).await.unwrap();
    running = restart(running);
    let ours = running.client(&requester);
    assert_eq!(ours.task(&spec.task, 0, 0).await.unwrap().state, TaskState::Completed);
    let parts = ours.receipt(&spec.task).await.unwrap();
    let checkpoint =
        SignedCheckpoint::parse(parts.checkpoint.as_bytes()).unwrap().verify(world.trust.log_key()).unwrap();
    for logged in &parts.entries {
        checkpoint.verify_inclusion(&logged.entry.0, &logged.inclusion).unwrap();
    }
    assert_eq!(parts.entries.len(), 7);
    running.stop().await.unwrap();
}

/// Killed at random moments while parties insist: nothing ends twice, nothing is lost, the log never forks.
#[tokio::test]
async fn killed_at_any_moment_every_task_ends_exactly_once() {
    let world = Arc::new(World::new(Config::default()));
    let requester = Arc::new(Party::new(1));
    let mut running = world.start();
    let ours = running.client(&requester);
    let node = world.node(2);
    node.admit(&running.client(&node.party)).await;
    let mut specs = Vec::new();
    for _ in 0..6 {
        let blob = upload(&ours, 200).await;
        specs.push(submit(&ours, world.spec(&requester, &blob), &requester).await.0);
    }
    let mut lives: Vec<Life<'_>> = Vec::new();
    let verified =
        |note: &str| SignedCheckpoint::parse(note.as_bytes()).unwrap().verify(world.trust.log_key()).unwrap();
    let mut remembered = Remembered::first(verified(&ours.consistency(0).await.unwrap().checkpoint));
    for round in 0u64..40 {
        let (ours, theirs) = (running.client(&requester), running.client(&node.party));
        let step = async {
            for view in node.poll(&theirs, 2, 50).await {
                if !view.ended && !lives.iter().any(|life| life.task() == view.task && life.attempt() == view.attempt) {
                    let spec = specs.iter().find(|spec| spec.task == view.task).unwrap();
                    lives.push(Life::begin(spec, &view, &requester, &node));
                }
            }
            for life in &mut lives {
                // Whatever comes next: all of them are idempotent, and an answer that was lost is asked for again.
                if life.challenge(&ours).await.is_ok()
                    && life.attest(&theirs).await.is_ok()
                    && life.release(&ours, 0).await.is_ok()
                    && life.grant(&ours).await.is_ok()
                {
                    let _ = life.complete(&theirs).await;
                }
            }
        };
        // The kill comes at another moment of the work in each round.
        let killed = tokio::time::timeout(Duration::from_micros(700 * (round * 7 % 40)), step).await.is_err();
        if killed {
            running.kill();
            running = world.start();
        }
        let ours = running.client(&requester);
        let proof = ours.consistency(remembered.checkpoint().size()).await.unwrap();
        // Refuses a fork and a log that is smaller than it was.
        remembered.advance(verified(&proof.checkpoint), &proof.consistency.unwrap()).unwrap();
    }
    let ours = running.client(&requester);
    for spec in &specs {
        let theirs = running.client(&node.party);
        loop {
            let view = ours.task(&spec.task, 0, 0).await.unwrap();
            if view.state.is_final() {
                assert_eq!(view.state, TaskState::Completed);
                break;
            }
            for view in node.poll(&theirs, 2, 50).await {
                if let Some(life) =
                    lives.iter_mut().find(|life| life.task() == view.task && life.attempt() == view.attempt)
                {
                    life.until_granted(&ours, &theirs).await;
                    life.complete(&theirs).await.unwrap();
                } else if !view.ended {
                    let spec = specs.iter().find(|spec| spec.task == view.task).unwrap();
                    lives.push(Life::begin(spec, &view, &requester, &node));
                }
            }
        }
        let parts = ours.receipt(&spec.task).await.unwrap();
        let kinds: Vec<EntryKind> =
            parts.entries.iter().map(|logged| LogEntry::parse(&logged.entry.0).unwrap().kind).collect();
        for once in [EntryKind::Submitted, EntryKind::Released, EntryKind::Granted, EntryKind::Reported] {
            assert_eq!(kinds.iter().filter(|kind| **kind == once).count(), 1, "{once:?} in {kinds:?}");
        }
    }
    running.stop().await.unwrap();
}

/// The journal of a coordinator under test.
struct Storage(Arc<OnceLock<Arc<FaultyJournal<Arc<Database>>>>>);

impl Storage {
    fn environment() -> (Self, Environment) {
        let journal = Arc::new(OnceLock::new());
        let slot = journal.clone();
        let wrap = move |database: Arc<Database>| {
            let faulty = Arc::new(FaultyJournal::new(database));
            let _ = slot.set(faulty.clone());
            faulty as Arc<dyn Journal>
        };
        (Self(journal), Environment { journal: Box::new(wrap), ..Environment::default() })
    }

    fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.get().unwrap().commits.plan(faults);
    }

    fn plan_reads(&self, faults: impl IntoIterator<Item = Fault>) {
        self.0.get().unwrap().reads.plan(faults);
    }
}

/// Each write of a life fails once, before or after it persists: the caller is told, asks again, and the outcome is the same.
#[tokio::test]
async fn every_commit_fails_once_and_nothing_is_lost_or_done_twice() {
    for (fault, refused_with) in
        [(Fault::Full, Some("storage.full")), (Fault::Before, Some("storage.failed")), (Fault::After, None)]
    {
        let world = World::new(Config::default());
        let (storage, environment) = Storage::environment();
        let running = world.start_with(environment);
        let (requester, node) = (Party::new(1), world.node(2));
        let (ours, theirs) = (running.client(&requester), running.client(&node.party));
        node.admit(&theirs).await;
        let blob = upload(&ours, 100).await;
        let spec = sign(world.spec(&requester, &blob), &requester);
        let request = SubmitRequest { spec: spec.envelope().clone(), deposit: None, objects: Vec::new() };
        macro_rules! twice {
            ($call:expr) => {{
                storage.plan([fault]);
                let first = $call.await;
                match refused_with {
                    Some(expected) => {
                        assert_eq!(code(first), expected);
                        $call.await.unwrap()
                    }
                    None => first.unwrap(),
                }
            }};
        }
        twice!(ours.submit(&request));
        storage.plan([fault]);
        let views = match node.poll_after(&theirs, (0, 0), 1, 0).await {
            Ok(response) => response.attempts,
            Err(_) => node.poll(&theirs, 1, 1000).await,
        };
        assert_eq!(views.len(), 1, "{fault:?}");
        let mut life = Life::begin(&spec, &views[0], &requester, &node);
        twice!(life.challenge(&ours));
        twice!(life.attest(&theirs));
        twice!(life.release(&ours, 0));
        twice!(life.grant(&ours));
        let report = life.report_request(
            life.predicate(starminer_receipt::ReportAuthor::Task, starminer_receipt::Outcome::Completed),
        );
        twice!(life.report(&theirs, &report));
        let parts = ours.receipt(&spec.task).await.unwrap();
        assert_eq!(parts.entries.len(), 7, "{fault:?}");
        // And a fresh start agrees with what is on disk.
        drop(storage);
        running.kill();
        let running = world.start();
        assert_eq!(running.client(&requester).task(&spec.task, 0, 0).await.unwrap().state, TaskState::Completed);
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn while_storage_cannot_be_read_nothing_is_answered_and_then_the_truth() {
    let world = World::new(Config::default());
    let (storage, environment) = Storage::environment();
    let running = world.start_with(environment);
    let requester = Party::new(1);
    let ours = running.client(&requester);
    let blob = upload(&ours, 100).await;
    storage.plan([Fault::After]);
    storage.plan_reads([Fault::Before; 4]);
    let (spec, view) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    assert_eq!(view.state, TaskState::Queued);
    assert_eq!(ours.task(&spec.task, 0, 0).await.unwrap().spec, spec.digest());
    running.stop().await.unwrap();
}

/// The other coordinator wrote in between: this one must not write again, and says why it ends.
#[tokio::test]
async fn two_coordinators_on_one_database_do_not_both_go_on() {
    let mut world = World::new(Config::default());
    let first = world.start();
    // What makers published is a directory for one process alone, and that shows at the start.
    assert!(world.try_start(Environment::default()).is_err_and(|error| error.code() == "endorsements.unusable"));
    world.config.endorsements.directory = Some(world.dir.path().join("endorsements"));
    let second = world.start();
    let requester = Party::new(1);
    let ours = first.client(&requester);
    let blob = upload(&ours, 100).await;
    submit(&ours, world.spec(&requester, &blob), &requester).await;
    let theirs = second.client(&requester);
    let spec = sign(world.spec(&requester, &blob), &requester);
    let refused =
        theirs.submit(&SubmitRequest { spec: spec.envelope().clone(), deposit: None, objects: Vec::new() }).await;
    assert!(refused.is_err());
    let ended = second.ended().await.unwrap_err();
    assert!(ended.contains("cannot go on"), "{ended}");
    submit(&ours, world.spec(&requester, &blob), &requester).await;
    first.stop().await.unwrap();
}

/// Each write of an upload fails, before and after it persists, or finds the disk full: the upload resumes and completes.
#[tokio::test]
async fn every_blob_write_fails_once_and_the_upload_resumes() {
    let world = World::new(Config::default());
    let disk = Arc::new(FaultyDisk::default());
    let running = world.start_with(Environment { disk: disk.clone(), ..Environment::default() });
    let ours = running.client(&Party::new(1));
    // Five pieces, one wait for the disk, one rename.
    let length = 5 * 256 * 1024 - 1000;
    for fault in [Fault::Full, Fault::Before, Fault::After] {
        for at in 0..7 {
            disk.writes.clear();
            disk.writes.plan(std::iter::repeat_n(Fault::None, at).chain([fault]));
            let blob = upload(&ours, length).await;
            let mut found = blake3::Hasher::new();
            ours.download(&blob.content_id, blob.sealed_bytes, |bytes| {
                found.update(bytes);
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!(Digest(*found.finalize().as_bytes()), blob.content_id, "{fault:?} at write {at}");
        }
    }
    running.stop().await.unwrap();
}

/// Runs a statement on the database of a coordinator that does not run.
async fn alter(world: &World, sql: &str) {
    use sqlx::Connection as _;
    let path = format!("sqlite://{}", world.data().join("coordinator.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&path).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Stored state that was altered is noticed at the start, not served.
#[tokio::test]
async fn an_altered_database_is_refused() {
    let world = World::new(Config::default());
    let running = world.start();
    let requester = Party::new(1);
    let ours = running.client(&requester);
    let blob = upload(&ours, 100).await;
    submit(&ours, world.spec(&requester, &blob), &requester).await;
    running.stop().await.unwrap();
    let alter = async |sql| alter(&world, sql).await;
    alter("CREATE TABLE kept AS SELECT hashes FROM checkpoint").await;
    alter("UPDATE checkpoint SET hashes = zeroblob(length(hashes))").await;
    let error = world.try_start(Environment::default()).err().unwrap();
    assert!(matches!(error, starminer_coordinator::CoordinatorError::Ledger(_)), "{error}");
    alter("UPDATE checkpoint SET hashes = (SELECT kept.hashes FROM kept)").await;
    alter("UPDATE event SET statement = CAST(replace(statement, '\"sig\":\"', '\"sig\":\"AA') AS BLOB) WHERE task IS NOT NULL").await;
    let error = world.try_start(Environment::default()).err().unwrap();
    assert!(matches!(error, starminer_coordinator::CoordinatorError::Task { .. }), "{error}");
}

/// A log that was begun is not begun again under the same key, whatever became of its database.
#[tokio::test]
async fn without_its_database_a_begun_log_is_not_begun_again() {
    let world = World::new(Config::default());
    let (data, database) = (world.data(), world.data().join("coordinator.db"));
    let size = async |running: &Running| {
        let proof = running.client(&Party::new(1)).consistency(0).await.unwrap();
        SignedCheckpoint::parse(proof.checkpoint.as_bytes()).unwrap().verify(world.trust.log_key()).unwrap().size()
    };
    let running = world.start();
    assert!(world.marker().exists(), "before anybody is served");
    let begun = size(&running).await;
    running.stop().await.unwrap();
    let is_refused = |how: &str| {
        let error = world.try_start(Environment::default()).err().unwrap_or_else(|| panic!("{how}: it started"));
        assert_eq!(error.code(), "storage.lost", "{how}: {error}");
        assert!(error.remedy().contains("restore"), "{how}");
    };
    let away = data.with_extension("away");
    std::fs::rename(&data, &away).unwrap();
    is_refused("no directory");
    assert!(!data.exists(), "nothing is in the way of what is restored");
    std::fs::create_dir(&data).unwrap();
    is_refused("no database");
    std::fs::write(&database, b"").unwrap();
    is_refused("no bytes");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(away.join("coordinator.db"), &database).unwrap();
    for table in ["checkpoint", "log_hashes", "event"] {
        alter(&world, &format!("DELETE FROM {table}")).await;
    }
    is_refused("no rows");
    assert!(!data.join("coordinator.db-wal").exists(), "nothing that would be read into a restored database");

    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&away, &data).unwrap();
    // One that was stopped between its first entry and the marker writes it when it starts again.
    std::fs::remove_file(world.marker()).unwrap();
    let running = world.start();
    assert!(world.marker().exists());
    assert_eq!(size(&running).await, begun, "the same log goes on");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_coordinator_stores_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new(Config::default());
    let running = world.start();
    // One blob is a row, the other a file.
    for length in [100, 600_000] {
        upload(&running.client(&Party::new(1)), length).await;
    }
    let mut open = vec![world.data()];
    let (mut files, mut directories) = (Vec::new(), 0);
    while let Some(path) = open.pop() {
        let found = std::fs::metadata(&path).unwrap();
        let wanted = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.permissions().mode() & 0o777, wanted, "{}", path.display());
        if found.is_dir() {
            directories += 1;
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.push(path);
        }
    }
    let ends = |end: &str| files.iter().any(|file| file.display().to_string().ends_with(end));
    assert!(ends(".db") && ends(".db-wal") && ends(".db-shm") && ends("endorsements/lock"), "{files:?}");
    assert_eq!((files.len(), directories > 3), (5, true), "{files:?}");
    running.stop().await.unwrap();
}
