//! The log as an auditor and a client see it: tiles, bundles and proofs over HTTP, before and after a restart; what entries say.

use std::time::Duration;

use crate::world::{self, Party, World, audit, cancel, checkpoint, fetch, submit, upload};
use starminer_coordinator::Config;
use starminer_log::{SignedCheckpoint, TILE_WIDTH, TileSet, VerifiedCheckpoint, inclusion_reads, prove_inclusion};
use starminer_receipt::{EntryKind, LogEntry};
use starminer_verify::Digest;

#[tokio::test]
async fn an_auditor_reads_the_same_log_before_and_after_a_restart() {
    let world = World::new(Config::default());
    let mut running = world.start();
    let requester = Party::new(1);
    let ours = running.client(&requester);
    let blob = upload(&ours, 100).await;
    // More than one bundle, and several runs of stored hashes.
    let before = world::now();
    for _ in 0..170 {
        let (spec, _) = submit(&ours, world.spec(&requester, &blob), &requester).await;
        ours.cancel(&spec.task, &cancel(&spec, &requester)).await.unwrap();
    }
    let entries = audit(&ours, &world).await;
    assert!(entries.len() > usize::from(TILE_WIDTH));
    assert_eq!(entries[0].kind, EntryKind::Genesis);
    assert_eq!(entries[0].statement, Digest::of(world.trust.encode().unwrap().as_bytes()));
    assert!(entries.windows(2).all(|pair| pair[0].at <= pair[1].at), "time goes back");
    assert!(entries[1].at >= before);
    assert!(
        entries[1..]
            .iter()
            .zip([EntryKind::Submitted, EntryKind::Cancelled].iter().cycle())
            .all(|(entry, kind)| entry.kind == *kind)
    );

    running.kill();
    running = world.start();
    let ours = running.client(&requester);
    assert_eq!(audit(&ours, &world).await, entries);

    // Proofs of old and new entries, from the coordinator and out of tiles.
    let (spec, _) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    ours.cancel(&spec.task, &cancel(&spec, &requester)).await.unwrap();
    let signed = checkpoint(&ours, &world).await;
    for index in [0, 1, 100, 255, 256, 300, signed.size() - 1] {
        let reads = inclusion_reads(signed.size(), index).unwrap();
        let mut tiles = TileSet::new(signed.size());
        for tile in TileSet::needed(signed.size(), &reads).unwrap() {
            tiles.insert(tile, &fetch(&ours, &tile.path()).await).unwrap();
        }
        let proof = prove_inclusion(signed.size(), index, &tiles).unwrap();
        let entry = match entries.get(usize::try_from(index).unwrap()) {
            Some(entry) => entry.encode(),
            None => ours.receipt(&spec.task).await.unwrap().entries.last().unwrap().entry.0.clone(),
        };
        signed.verify_inclusion(&entry, &proof).unwrap();
    }
    let parts = ours.receipt(&spec.task).await.unwrap();
    for logged in &parts.entries {
        signed.verify_inclusion(&logged.entry.0, &logged.inclusion).unwrap();
    }
    for size in [0, 1, 100, 256, 257, signed.size()] {
        let proof = ours.consistency(size).await.unwrap();
        assert_eq!(proof.checkpoint, signed.signed().as_str());
        if size == 257 {
            // Against a root of that size that the auditor computes.
            let mut replay = starminer_log::Frontier::empty();
            let first: Vec<Vec<u8>> = entries[..257].iter().map(LogEntry::encode).collect();
            replay = replay.append(&first).unwrap().into_frontier();
            let known = starminer_log::Checkpoint::new(signed.origin().clone(), 257, replay.root()).unwrap();
            let known = known.sign(&World::log_signer()).unwrap().verify(world.trust.log_key()).unwrap();
            signed.verify_consistency(&known, &proof.consistency.unwrap()).unwrap();
        }
    }
    running.stop().await.unwrap();
}

/// Checkpoints of several moments are shown to be of one history in one answer.
#[tokio::test]
async fn a_chain_joins_checkpoints_of_several_moments() {
    let world = World::new(Config::default());
    let running = world.start();
    let requester = Party::new(1);
    let ours = running.client(&requester);
    let blob = upload(&ours, 100).await;
    let mut known = vec![checkpoint(&ours, &world).await];
    for _ in 0..4 {
        submit(&ours, world.spec(&requester, &blob), &requester).await;
        known.push(checkpoint(&ours, &world).await);
    }
    let newest = known.pop().unwrap();
    let sizes: Vec<u64> = known.iter().map(VerifiedCheckpoint::size).collect();
    let chain = ours.log_chain(&sizes).await.unwrap();
    assert_eq!((chain.checkpoint.as_str(), chain.steps.len()), (newest.signed().as_str(), sizes.len()));
    for ((older, newer), step) in known.iter().zip(known.iter().skip(1).chain([&newest])).zip(&chain.steps) {
        newer.verify_consistency(older, step).unwrap();
    }
    assert_eq!(world::code(ours.log_chain(&[newest.size() + 1]).await), "log.size-unknown");
    assert_eq!(world::code(ours.log_chain(&[2, 1]).await), "log.sizes");
    assert_eq!(world::code(ours.log_chain(&vec![1; 129]).await), "log.sizes");
    let task = submit(&ours, world.spec(&requester, &blob), &requester).await.0.task;
    let parts = ours.receipt_continuing(&task, newest.size()).await.unwrap();
    let later = SignedCheckpoint::parse(parts.checkpoint.as_bytes()).unwrap().verify(world.trust.log_key()).unwrap();
    later.verify_consistency(&newest, &parts.consistency.unwrap()).unwrap();
    assert_eq!(world::code(ours.receipt_continuing(&task, later.size() + 1).await), "log.size-unknown");
    running.stop().await.unwrap();
}

/// A long poll ends when the coordinator stops, what was acknowledged is there, and nothing more is taken.
#[tokio::test]
async fn stopping_answers_those_who_wait() {
    let world = World::new(Config::default());
    let running = world.start();
    let requester = Party::new(1);
    let ours = running.client(&requester);
    let blob = upload(&ours, 100).await;
    let (spec, view) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    let waiting = tokio::spawn({
        let (ours, task) = (ours.clone(), spec.task);
        async move { ours.task(&task, view.version, 30_000).await.map(|view| view.version) }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = std::time::Instant::now();
    running.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(waiting.await.unwrap().unwrap(), view.version);
    let running = world.start();
    assert_eq!(running.client(&requester).task(&spec.task, 0, 0).await.unwrap().version, view.version);
    running.stop().await.unwrap();
}

/// Blobs go some time after their task, unless another task uses them; the quota comes back.
#[tokio::test]
async fn blobs_of_ended_tasks_are_swept() {
    let mut config = Config::default();
    config.keep.ended_blobs_seconds = 0;
    config.keep.sweep_every_seconds = 1;
    config.identity.blob_bytes = 250_000;
    let world = World::new(config);
    let running = world.start();
    let requester = Party::new(1);
    let ours = running.client(&requester);
    let (small, large, shared) = (upload(&ours, 500).await, upload(&ours, 100_000).await, upload(&ours, 100_000).await);
    let mut spec = world.spec(&requester, &small);
    spec.inputs = vec![large, shared];
    let (spec, _) = submit(&ours, spec, &requester).await;
    let mut other = world.spec(&requester, &shared);
    other.inputs = vec![shared];
    submit(&ours, other, &requester).await;
    let file = |id: &Digest| world.data().join(format!("blobs/complete/{}/{id}", &id.to_string()[..2]));
    assert!(file(&large.content_id).exists() && file(&shared.content_id).exists());
    ours.cancel(&spec.task, &cancel(&spec, &requester)).await.unwrap();
    let gone = async {
        while ours.blob_status(&large.content_id).await.unwrap().complete {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    assert!(!ours.blob_status(&small.content_id).await.unwrap().complete);
    assert!(ours.blob_status(&shared.content_id).await.unwrap().complete);
    // The file goes after its row.
    let gone = async {
        while file(&large.content_id).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    assert!(file(&shared.content_id).exists());
    upload(&ours, 149_000).await;
    // The task itself is still there for its requester.
    assert_eq!(ours.receipt(&spec.task).await.unwrap().entries.len(), 2);
    running.stop().await.unwrap();
}

/// A file whose row was not reached before a crash is removed at the next start.
#[tokio::test]
async fn files_without_a_row_are_removed_at_the_start() {
    let world = World::new(Config::default());
    let running = world.start();
    let ours = running.client(&Party::new(1));
    let kept = upload(&ours, 100_000).await;
    running.stop().await.unwrap();
    let orphan = world.data().join("blobs/complete/ab").join("ab".repeat(32));
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, b"left behind").unwrap();
    let running = world.start();
    let gone = async {
        while orphan.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    assert!(running.client(&Party::new(1)).blob_status(&kept.content_id).await.unwrap().complete);
    running.stop().await.unwrap();
}

/// Who comes back with an old epoch, or after its changes were forgotten, gets everything that is under way under a new epoch.
#[tokio::test]
async fn feeds_begin_anew_where_they_must() {
    let world = World::new(Config::default());
    let running = world.start();
    let (requester, node) = (Party::new(1), world.node(2));
    let (ours, theirs) = (running.client(&requester), running.client(&node.party));
    node.admit(&theirs).await;
    let blob = upload(&ours, 100).await;
    let (spec, _) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    let first = node.poll_after(&theirs, (0, 0), 1, 1000).await.unwrap();
    assert_eq!(first.attempts.len(), 1);
    // Nothing new.
    let second = node.poll_after(&theirs, (first.epoch, first.version), 0, 100).await.unwrap();
    assert_eq!((second.epoch, second.attempts.len()), (first.epoch, 0));
    running.kill();
    let running = world.start();
    let theirs = running.client(&node.party);
    let third = node.poll_after(&theirs, (second.epoch, second.version), 0, 100).await.unwrap();
    assert_ne!(third.epoch, first.epoch);
    assert_eq!(third.attempts.len(), 1);
    let ours = running.client(&requester);
    ours.cancel(&spec.task, &cancel(&spec, &requester)).await.unwrap();
    let fourth = node.poll_after(&theirs, (third.epoch, third.version), 0, 100).await.unwrap();
    assert!(fourth.attempts[0].ended);
    let anew = node.poll_after(&theirs, (third.epoch, 0), 0, 0).await.unwrap();
    assert!(anew.attempts.is_empty(), "what has ended is not listed from the beginning");
    // Longer away than ended attempts are kept: a new epoch.
    tokio::time::sleep(Duration::from_secs(16)).await;
    let fifth = node.poll_after(&theirs, (third.epoch, third.version), 0, 0).await.unwrap();
    assert_ne!(fifth.epoch, third.epoch);
    assert!(fifth.attempts.is_empty());
    let sixth = node.poll_after(&theirs, (fifth.epoch, fifth.version), 0, 0).await.unwrap();
    assert_eq!(sixth.epoch, fifth.epoch);
    running.stop().await.unwrap();
}
