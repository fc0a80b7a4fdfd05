//! The tree against a naive one: roots, stored hashes, proofs, frontiers, tiles and replays of every small size.

use std::collections::BTreeMap;

use proptest::prelude::*;
use starminer_log::*;

use crate::naive;
use crate::world::{build, checkpoint_of, entries, sign};

/// Sizes whose trees have every shape that matters around tile and level borders.
const SIZES: [usize; 22] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 64, 127, 129, 255, 256, 257, 300];

/// A reader that counts its calls and hashes.
struct Counting<'a>(&'a Vec<Hash>, std::cell::Cell<(usize, usize)>);

impl HashReader for Counting<'_> {
    type Error = MissingHash;

    fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, MissingHash> {
        let (calls, hashes) = self.1.get();
        self.1.set((calls + 1, hashes + indices.len()));
        self.0.read(indices)
    }
}

#[test]
fn roots_and_stored_hashes_of_every_size_to_300() {
    let all = entries(300);
    let (stored, _) = build(&all);
    let mut frontier = Frontier::empty();
    for size in 0..=300 {
        assert_eq!(frontier.size(), size as u64);
        assert_eq!(frontier.root(), naive::root(&all[..size]), "size {size}");
        assert_eq!(stored_count(size as u64).unwrap() as usize, build(&all[..size]).0.len(), "size {size}");
        if size < 300 {
            let batch = frontier.append(&all[size..=size]).unwrap();
            assert_eq!(batch.entries(), size as u64..size as u64 + 1);
            for (index, hash) in batch.stored() {
                assert_eq!(hash, stored[index as usize]);
            }
            frontier = batch.into_frontier();
        }
    }
}

#[test]
fn every_stored_hash_is_the_root_of_its_subtree() {
    let all = entries(300);
    let (stored, _) = build(&all);
    for (index, hash) in stored.iter().enumerate() {
        let node = NodePosition::from_stored_index(index as u64).unwrap();
        assert_eq!(node.stored_index(), index as u64);
        assert_eq!(NodePosition::new(node.level(), node.index()).unwrap(), node);
        let end = node.leaves_end() as usize;
        assert_eq!(*hash, naive::root(&all[end - (1 << node.level())..end]), "stored hash {index}");
    }
}

#[test]
fn inclusion_of_every_entry() {
    let all = entries(300);
    let (stored, _) = build(&all);
    for size in SIZES.into_iter().chain(10..40) {
        let checkpoint = checkpoint_of(&all[..size]);
        for (index, entry) in all[..size].iter().enumerate() {
            let reader = Counting(&stored, Default::default());
            let proof = prove_inclusion(size as u64, index as u64, &reader).unwrap();
            assert!(reader.1.get().0 <= 1 && reader.1.get().1 <= 2 * 9, "reads are one call of O(log n)");
            assert_eq!(proof.hashes(), naive::inclusion(index, &all[..size]), "{index} of {size}");
            let included = checkpoint.verify_inclusion(entry, &proof).unwrap();
            assert_eq!((included.index(), included.leaf_hash()), (index as u64, leaf_hash(entry)));
            // The same proof shows neither another entry nor this one elsewhere.
            assert_eq!(checkpoint.verify_inclusion(b"another", &proof), Err(ProofError::Inclusion));
            for other in (0..size).filter(|other| *other != index).take(40) {
                let moved = InclusionProof::new(other as u64, proof.hashes().to_vec()).unwrap();
                assert_eq!(checkpoint.verify_inclusion(entry, &moved), Err(ProofError::Inclusion));
            }
        }
        let outside = prove_inclusion(size as u64, size as u64, &stored);
        assert_eq!(outside.unwrap_err().code(), "log.out-of-tree");
    }
}

#[test]
fn consistency_of_every_pair() {
    let all = entries(300);
    let (stored, _) = build(&all);
    let sizes: Vec<usize> = (0..=66).chain([127, 128, 129, 255, 256, 257, 300]).collect();
    let checkpoints: BTreeMap<usize, _> = sizes.iter().map(|size| (*size, checkpoint_of(&all[..*size]))).collect();
    for &older in &sizes {
        for &newer in &sizes {
            let reader = Counting(&stored, Default::default());
            let proof = match prove_consistency(older as u64, newer as u64, &reader) {
                Ok(proof) => proof,
                Err(error) => {
                    assert!(older > newer && error == ProveError::OutOfTree);
                    continue;
                }
            };
            assert!(reader.1.get().0 <= 1 && reader.1.get().1 <= 2 * 9);
            assert_eq!(proof.hashes(), naive::consistency(older, &all[..newer]), "{older} to {newer}");
            checkpoints[&newer].verify_consistency(&checkpoints[&older], &proof).unwrap();
            let backwards = checkpoints[&older].verify_consistency(&checkpoints[&newer], &proof);
            assert_eq!(backwards.is_ok(), older == newer);
        }
    }
}

#[test]
fn reads_announced_are_the_reads_made() {
    let all = entries(300);
    let (stored, frontier) = build(&all);
    // Only the announced hashes, as an asynchronous caller fetches them.
    let only =
        |indices: Vec<u64>| -> BTreeMap<u64, Hash> { indices.into_iter().map(|i| (i, stored[i as usize])).collect() };
    for index in [0, 1, 255, 256, 299] {
        let fetched = only(inclusion_reads(300, index).unwrap());
        assert_eq!(
            prove_inclusion(300, index, &fetched),
            prove_inclusion(300, index, &stored).map_err(|_| unreachable!())
        );
    }
    for older in [0, 1, 255, 256, 299, 300] {
        let fetched = only(consistency_reads(older, 300).unwrap());
        assert_eq!(prove_consistency(older, 300, &fetched).unwrap(), prove_consistency(older, 300, &stored).unwrap());
    }
    assert_eq!(Frontier::restore(300, &only(Frontier::reads(300).unwrap())).unwrap(), frontier);
    assert_eq!(inclusion_reads(300, 300), Err(OutOfTree));
    assert_eq!(consistency_reads(301, 300), Err(OutOfTree));
}

#[test]
fn a_restored_frontier_is_the_one_that_grew() {
    let all = entries(300);
    let (stored, _) = build(&all);
    for size in 0..=300 {
        let (_, grown) = build(&all[..size]);
        let reader = Counting(&stored, Default::default());
        let restored = Frontier::restore(size as u64, &reader).unwrap();
        assert!(reader.1.get().0 <= 1);
        assert_eq!(restored, grown);
        assert_eq!(Frontier::from_peaks(size as u64, grown.peaks().to_vec()).unwrap(), grown);
        assert_eq!(restored.append(&all[size..]).unwrap().root(), naive::root(&all));
    }
}

#[test]
fn a_damaged_store_is_refused() {
    let (mut stored, frontier) = build(&entries(300));
    let checkpoint = sign(300, frontier.root());
    assert_eq!(Frontier::restore_at(&checkpoint, &stored).unwrap(), frontier);
    stored[Frontier::reads(300).unwrap()[1] as usize].0[31] ^= 1;
    assert_eq!(Frontier::restore_at(&checkpoint, &stored), Err(RestoreError::OtherRoot));
    stored.truncate(100);
    assert!(matches!(Frontier::restore_at(&checkpoint, &stored), Err(RestoreError::Read(MissingHash(_)))));
    let few = Frontier::from_peaks(3, vec![EMPTY_ROOT]);
    assert_eq!(few, Err(RestoreError::PeakCount { needed: 2, given: 1 }));
}

/// Answers with another number of hashes than asked: a broken store must not panic anything.
struct Lying(usize);

impl HashReader for Lying {
    type Error = MissingHash;

    fn read(&self, _: &[u64]) -> Result<Vec<Hash>, MissingHash> {
        Ok(vec![EMPTY_ROOT; self.0])
    }
}

#[test]
fn a_store_that_answers_with_another_number_is_an_error() {
    for count in [0, 1, 100] {
        assert_eq!(prove_inclusion(300, 3, &Lying(count)), Err(ProveError::WrongCount));
        assert_eq!(prove_consistency(100, 300, &Lying(count)), Err(ProveError::WrongCount));
        assert_eq!(Frontier::restore(300, &Lying(count)), Err(RestoreError::WrongCount));
        assert_eq!(Tile::new(0, 0, 256).unwrap().read(&Lying(count)), Err(TileReadError::WrongCount));
    }
}

#[test]
fn bounds_hold_at_the_largest_tree() {
    // Proofs of trees that nobody can build: a reader of arbitrary hashes shows that the arithmetic holds.
    struct Any;
    impl HashReader for Any {
        type Error = MissingHash;
        fn read(&self, indices: &[u64]) -> Result<Vec<Hash>, MissingHash> {
            assert!(indices.len() <= 128 && indices.iter().all(|index| i64::try_from(*index).is_ok()));
            Ok(vec![EMPTY_ROOT; indices.len()])
        }
    }
    for size in [MAX_TREE_SIZE, MAX_TREE_SIZE - 1, MAX_TREE_SIZE / 2 + 1] {
        let checkpoint = sign(size, EMPTY_ROOT);
        for other in [1, 2, 3, size / 2, size / 2 + 1, size - 2, size - 1] {
            let proof = prove_inclusion(size, other, &Any).unwrap();
            assert!(proof.hashes().len() <= 62);
            assert_eq!(checkpoint.verify_inclusion(b"", &proof), Err(ProofError::Inclusion));
            let proof = prove_consistency(other, size, &Any).unwrap();
            assert!(proof.hashes().len() <= 63);
            assert_eq!(
                checkpoint.verify_consistency(&sign(other, Hash([1; 32])), &proof),
                Err(ProofError::Consistency)
            );
        }
        let frontier = Frontier::restore(size, &Any).unwrap();
        assert_eq!(
            frontier.append(&[b""; 2]).map(|batch| batch.size()).ok(),
            (size + 2 <= MAX_TREE_SIZE).then(|| size + 2)
        );
    }
    let full = Frontier::restore(MAX_TREE_SIZE, &Any).unwrap();
    assert_eq!(full.append(&[b""]), Err(AppendError::TreeFull));
    assert_eq!(full.append::<&[u8]>(&[]).unwrap().into_frontier(), full);
    assert_eq!(Frontier::restore(MAX_TREE_SIZE + 1, &Any), Err(RestoreError::OutOfTree));
    assert_eq!(prove_inclusion(MAX_TREE_SIZE + 1, 0, &Any), Err(ProveError::OutOfTree));
    assert_eq!(prove_consistency(0, u64::MAX, &Any), Err(ProveError::OutOfTree));
    assert_eq!(stored_count(MAX_TREE_SIZE), Ok(i64::MAX as u64));
    assert_eq!(stored_count(MAX_TREE_SIZE + 1), Err(OutOfTree));
    assert_eq!(NodePosition::new(62, 0).unwrap().stored_index(), i64::MAX as u64 - 1);
    assert_eq!(NodePosition::from_stored_index(i64::MAX as u64 - 1).unwrap(), NodePosition::new(62, 0).unwrap());
    for (level, index) in [(62, 1), (63, 0), (0, MAX_TREE_SIZE), (0, u64::MAX), (255, u64::MAX), (61, 2)] {
        assert_eq!(NodePosition::new(level, index), Err(OutOfTree), "{level} {index}");
    }
    assert_eq!(NodePosition::from_stored_index(i64::MAX as u64), Err(OutOfTree));
    assert_eq!(NodePosition::from_stored_index(u64::MAX), Err(OutOfTree));
    for (level, index) in [(0, u64::MAX), (7, u64::MAX), (7, 1), (8, 0), (63, 0), (255, u64::MAX)] {
        assert_eq!(Tile::new(level, index, 256), Err(TileError::OutOfTree), "{level} {index}");
    }
    assert_eq!(BundleId::new(u64::MAX, 256), Err(BundleError::OutOfTree));
    assert_eq!(Tile::holding(NodePosition::new(0, 5).unwrap(), 5), Err(OutOfTree));
    assert_eq!(BundleId::holding(5, 5), Err(OutOfTree));
    assert!(tiles_between(0, MAX_TREE_SIZE + 1).is_err() && bundles_between(0, u64::MAX).is_err());
    assert_eq!(tiles_between(u64::MAX, 5).unwrap().count() + bundles_between(u64::MAX, 5).unwrap().count(), 0);
    let last: Vec<Tile> = tiles_between(MAX_TREE_SIZE - 1, MAX_TREE_SIZE).unwrap().collect();
    assert_eq!(last.len(), 8);
    assert_eq!(last[7].path(), "tile/7/000.p/64");
}

#[test]
fn an_entry_too_long_appends_nothing() {
    let frontier = build(&entries(5)).1;
    let batch = [vec![0; MAX_ENTRY_LEN], vec![0; MAX_ENTRY_LEN + 1]];
    let refused = frontier.append(&batch).unwrap_err();
    assert_eq!(refused, AppendError::EntryTooLong { position: 1, length_bytes: MAX_ENTRY_LEN + 1 });
    assert_eq!(refused.code(), "log.entry-too-long");
    assert_eq!(frontier.append(&batch[..1]).unwrap().size(), 6);
    assert_eq!(BundleId::new(0, 2).unwrap().encode(&batch), Err(BundleError::EntryTooLong));
}

#[test]
fn tiles_and_bundles_cover_what_grew_and_nothing_else() {
    for old in [0u64, 1, 255, 256, 257, 65_535, 65_536, 65_600] {
        for new in [0u64, 1, 255, 256, 300, 65_535, 65_536, 65_537, 70_000] {
            let before: std::collections::BTreeSet<Tile> = tiles_between(0, old).unwrap().collect();
            let after: std::collections::BTreeSet<Tile> = tiles_between(0, new).unwrap().collect();
            let between: Vec<Tile> = tiles_between(old, new).unwrap().collect();
            let expected = if new > old { after.difference(&before).copied().collect() } else { Vec::new() };
            let mut sorted = between.clone();
            sorted.sort();
            assert_eq!(sorted, expected, "{old} to {new}");
            assert!(between.iter().all(|tile| tile.is_within(new) && (!tile.is_within(old) || new <= old)));
            let bundles: Vec<(u64, u16)> =
                bundles_between(old, new).unwrap().map(|id| (id.index(), id.width())).collect();
            let leaves: Vec<(u64, u16)> =
                between.iter().filter(|tile| tile.level() == 0).map(|tile| (tile.index(), tile.width())).collect();
            assert_eq!(bundles, leaves, "a bundle for each level-0 tile");
        }
    }
}

#[test]
fn every_tile_of_every_width_encodes_and_parses() {
    let all = entries(300);
    let (stored, _) = build(&all);
    for width in 1..=256u16 {
        let tile = Tile::new(0, 0, width).unwrap();
        let content = tile.read(&stored).unwrap();
        let hashes = tile.parse(&content).unwrap();
        assert_eq!(hashes, all[..width.into()].iter().map(|entry| leaf_hash(entry)).collect::<Vec<_>>());
        assert_eq!(tile.encode(&hashes).unwrap(), content);
        assert_eq!(tile.parse(&content[1..]), Err(TileError::Length));
        assert_eq!(tile.parse(&content[32..]), Err(TileError::Length));
        assert_eq!(tile.encode(&hashes[1..]), Err(TileError::Length));
        assert_eq!(TilePath::parse(&tile.path()), Ok(TilePath::Tile(tile)));
        assert_eq!(tile.is_partial(), width < 256);

        let id = BundleId::new(0, width).unwrap();
        let content = id.encode(&all[..width.into()]).unwrap();
        assert_eq!(id.parse(&content).unwrap().entries(), &all[..width.into()]);
        assert_eq!(TilePath::parse(&id.path()), Ok(TilePath::Entries(id)));
    }
    for width in [0, 257, u16::MAX] {
        assert_eq!(Tile::new(0, 0, width), Err(TileError::Width));
        assert_eq!(BundleId::new(0, width), Err(BundleError::Width));
    }
}

#[test]
fn proofs_from_tiles_are_the_proofs_from_stored_hashes() {
    // 65,800 entries: tiles on three levels, and nodes between them that only hashing within a tile gives.
    let size = 65_800;
    let all = entries(size as usize);
    let (stored, frontier) = build(&all);
    let served: BTreeMap<String, Vec<u8>> =
        tiles_between(0, size).unwrap().map(|tile| (tile.path(), tile.read(&stored).unwrap())).collect();
    let checkpoint = sign(size, frontier.root());
    for index in [0, 1, 255, 256, 40_000, 65_535, 65_536, 65_799] {
        let reads = inclusion_reads(size, index).unwrap();
        let mut tiles = TileSet::new(size);
        let missing = prove_inclusion(size, index, &tiles).unwrap_err();
        assert!(matches!(missing, ProveError::Read(MissingTile::Tile(_))));
        let needed = TileSet::needed(size, &reads).unwrap();
        assert!(needed.len() <= 6, "{} tiles", needed.len());
        for tile in needed {
            tiles.insert(tile, &served[&tile.path()]).unwrap();
        }
        let proof = prove_inclusion(size, index, &tiles).unwrap();
        assert_eq!(proof, prove_inclusion(size, index, &stored).unwrap());
        checkpoint.verify_inclusion(&all[index as usize], &proof).unwrap();
    }
    let mut tiles = TileSet::new(size);
    for tile in TileSet::needed(size, &consistency_reads(300, size).unwrap()).unwrap() {
        tiles.insert(tile, &served[&tile.path()]).unwrap();
    }
    assert_eq!(prove_consistency(300, size, &tiles).unwrap(), prove_consistency(300, size, &stored).unwrap());
    assert!(matches!(tiles.read(&[u64::MAX]), Err(MissingTile::OutOfTree(_))));
    let beyond = stored_count(size).unwrap();
    assert_eq!(tiles.read(&[beyond]), Err(MissingTile::OutOfTree(beyond)));
    let (full, partial) = (Tile::new(0, 0, 256).unwrap(), Tile::new(0, 0, 3).unwrap());
    assert_eq!(tiles.insert(full, &[0; 31]), Err(TileError::Length));
    // A late answer to an older request does not take hashes away.
    tiles.insert(full, &served["tile/0/000"]).unwrap();
    tiles.insert(partial, &served["tile/0/000"][..96]).unwrap();
    assert_eq!(tiles.read(&[0]).unwrap(), [leaf_hash(&all[0])]);
    let last = NodePosition::new(0, 255).unwrap().stored_index();
    assert_eq!(tiles.read(&[last]).unwrap(), [leaf_hash(&all[255])]);
}

#[test]
fn a_replay_gives_the_signed_root() {
    let all = entries(700);
    let mut replay = Replay::start();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    // The log grows between the auditor's visits, so partial bundles come again, wider.
    for size in [0u64, 1, 100, 256, 300, 512, 513, 700] {
        for id in bundles_between(replay.frontier().size(), size).unwrap() {
            let range = id.entries();
            let content = id.encode(&all[range.start as usize..range.end as usize]).unwrap();
            let bundle = id.parse(&content).unwrap();
            let new = replay.push(&bundle).unwrap();
            seen.extend(bundle.entries()[new].iter().map(|entry| entry.to_vec()));
            assert_eq!(replay.push(&bundle).unwrap_err().code(), "log.replay-order", "nothing new in it");
        }
        assert_eq!(replay.verify(&checkpoint_of(&all[..size as usize])).unwrap().size(), size);
        // A replay goes on from what it was put away as.
        let frontier = replay.frontier();
        replay = Replay::resume(Frontier::from_peaks(frontier.size(), frontier.peaks().to_vec()).unwrap());
    }
    assert_eq!(seen, all);
}

#[test]
fn a_replay_refuses_what_does_not_follow() {
    let all = entries(600);
    let bundle =
        |entries: &[Vec<u8>], index: u64| (BundleId::new(index, entries.len() as u16).unwrap(), entries.to_vec());
    let push = |replay: &mut Replay, (id, entries): (BundleId, Vec<Vec<u8>>)| {
        replay.push(&id.parse(&id.encode(&entries).unwrap()).unwrap()).map_err(|error| error.code())
    };
    let mut replay = Replay::start();
    assert_eq!(push(&mut replay, bundle(&all[256..300], 1)), Err("log.replay-order"));
    assert_eq!(push(&mut replay, bundle(&all[..100], 0)), Ok(0..100));
    assert_eq!(push(&mut replay, bundle(&all[..99], 0)), Err("log.replay-order"));
    for changed in [0, 50, 99] {
        let mut other = all[..200].to_vec();
        other[changed].push(0);
        assert_eq!(push(&mut replay, bundle(&other, 0)), Err("log.replay-changed"), "{changed}");
    }
    assert_eq!(replay.frontier().size(), 100, "refused bundles leave no trace");
    assert_eq!(push(&mut replay, bundle(&all[..256], 0)), Ok(100..256));
    assert_eq!(push(&mut replay, bundle(&all[..256], 0)), Err("log.replay-order"));
    assert_eq!(push(&mut replay, bundle(&all[256..300], 1)), Ok(0..44));

    assert_eq!(replay.verify(&checkpoint_of(&all[..301])).unwrap_err().code(), "log.replay-size");
    let mut other = all[..300].to_vec();
    other[299].push(0);
    assert_eq!(replay.verify(&checkpoint_of(&other)).unwrap_err().code(), "log.replay-root");
    replay.verify(&checkpoint_of(&all[..300])).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the entries are cut into batches, and however often the frontier is read back, the tree is the same.
    #[test]
    fn batches_do_not_matter(cuts in proptest::collection::vec(0usize..65, 1..12), restore: bool) {
        let all = entries(cuts.iter().sum());
        let (mut frontier, mut stored, mut from) = (Frontier::empty(), Vec::new(), 0);
        for cut in cuts {
            let batch = frontier.append(&all[from..from + cut]).unwrap();
            prop_assert_eq!(batch.first_stored_index(), stored.len() as u64);
            stored.extend_from_slice(batch.hashes());
            from += cut;
            frontier = if restore { Frontier::restore(from as u64, &stored).unwrap() } else { batch.into_frontier() };
            prop_assert_eq!(frontier.root(), naive::root(&all[..from]));
        }
        prop_assert_eq!(stored, build(&all).0);
    }

    /// Proofs hold for arbitrary entries, empty and repeated ones included.
    #[test]
    fn proofs_hold(all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 1..300), at: proptest::sample::Index, older: proptest::sample::Index) {
        let (stored, frontier) = build(&all);
        let checkpoint = sign(frontier.size(), frontier.root());
        let index = at.index(all.len());
        let proof = prove_inclusion(all.len() as u64, index as u64, &stored).unwrap();
        prop_assert_eq!(proof.hashes(), naive::inclusion(index, &all));
        prop_assert!(checkpoint.verify_inclusion(&all[index], &proof).is_ok());
        let older = older.index(all.len() + 1);
        let proof = prove_consistency(older as u64, all.len() as u64, &stored).unwrap();
        prop_assert!(checkpoint.verify_consistency(&checkpoint_of(&all[..older]), &proof).is_ok());
    }

    /// Every index and width has one path, and it parses back.
    #[test]
    fn paths_round_trip(index in 0u64..1 << 54, width in 1u16..=256, level in 0u8..8) {
        let id = BundleId::new(index, width).unwrap();
        prop_assert_eq!(TilePath::parse(&id.path()), Ok(TilePath::Entries(id)));
        if let Ok(tile) = Tile::new(level, index >> (8 * level), width) {
            prop_assert!(tile.path().len() <= MAX_TILE_PATH_LEN);
            prop_assert_eq!(TilePath::parse(&tile.path()), Ok(TilePath::Tile(tile)));
        }
    }
}
