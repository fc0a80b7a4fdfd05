//! The directory: what was acknowledged is there after a restart, and what was damaged is never served.

use std::{fs, path::Path};

use starminer_endorsements::{PutError, Store};
use starminer_hardware::endorsements::{Bundle, Candidate, Key, Refusal, Snapshot, Trust};

use super::{
    maker::{Makers, NOW_S, intel_wants},
    time_and_chance::TestClock,
};

async fn candidates(makers: &Makers) -> Vec<Candidate> {
    let fetcher = makers.fetcher(&TestClock::at(NOW_S - 3600));
    let mut all = Vec::new();
    for key in makers.keys() {
        all.push(fetcher.fetch(&key, None).await.unwrap());
    }
    all
}

fn open(directory: &Path, trust: &Trust) -> (Store, starminer_endorsements::Loaded) {
    Store::open(directory, trust.clone(), NOW_S).unwrap()
}

async fn filled(directory: &Path) -> (Makers, Store) {
    let makers = Makers::start().await;
    let (store, loaded) = open(directory, &makers.trust());
    assert!(loaded.damaged.is_empty() && loaded.dropped.is_empty());
    for one in candidates(&makers).await {
        store.put(&one, NOW_S).unwrap();
    }
    assert_eq!(store.snapshot().len(), 7);
    (makers, store)
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (makers, store) = filled(directory.path()).await;
    let digest = *store.snapshot().digest();
    // Nobody else may write beside it.
    assert!(Store::open(directory.path(), makers.trust(), NOW_S).is_err());
    drop(store);
    let (store, loaded) = open(directory.path(), &makers.trust());
    assert!(loaded.damaged.is_empty() && loaded.dropped.is_empty(), "{loaded:?}");
    assert_eq!(*store.snapshot().digest(), digest);
    drop(store);
    // For somebody who trusts others there is nothing in it.
    let stranger = Makers::start().await;
    let (store, loaded) = open(directory.path(), &stranger.trust());
    assert_eq!((store.snapshot().len(), loaded.dropped.len()), (0, 7));
}

#[tokio::test]
async fn every_damaged_object_is_set_aside_and_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let (makers, store) = filled(directory.path()).await;
    let items: Vec<(Key, String)> = store
        .snapshot()
        .items()
        .map(|item| (item.key().clone(), data_encoding::HEXLOWER.encode(item.content().sha256())))
        .collect();
    let whole = store.export();
    drop(store);
    for (at, (key, name)) in items.iter().enumerate() {
        let path = directory.path().join("objects").join(name);
        let original = fs::read(&path).unwrap();
        match at % 5 {
            0 => {
                let mut altered = original.clone();
                altered[original.len() / 2] ^= 1;
                fs::write(&path, altered).unwrap();
            }
            1 => fs::write(&path, &original[..original.len() - 1]).unwrap(),
            2 => fs::remove_file(&path).unwrap(),
            // What is no file at all: a pipe is not waited for.
            3 => {
                fs::remove_file(&path).unwrap();
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
            }
            _ => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
        }
        let (store, loaded) = open(directory.path(), &makers.trust());
        assert_eq!(loaded.damaged, [format!("objects/{name}")]);
        assert!(store.snapshot().item(key).is_none(), "{key}");
        // What rests on it may be gone with it; all comes back.
        let refused = store.import(&Bundle::parse(&whole).unwrap(), NOW_S).unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(store.export(), whole);
        drop(store);
        assert_eq!(fs::read(&path).unwrap(), original, "it was written again");
    }
}

#[tokio::test]
async fn a_damaged_list_of_items_leaves_the_marks() {
    let directory = tempfile::tempdir().unwrap();
    let (mut makers, store) = filled(directory.path()).await;
    drop(store);
    let index = directory.path().join("index");
    let mut bytes = fs::read(&index).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    fs::write(&index, bytes).unwrap();
    let (store, loaded) = open(directory.path(), &makers.trust());
    assert_eq!((loaded.damaged.as_slice(), store.snapshot().len()), (&["index".to_owned()][..], 0));
    makers.intel.tcb_info["tcbEvaluationDataNumber"] = 19.into();
    makers.publish_intel();
    for one in candidates(&makers).await {
        let result = store.put(&one, NOW_S);
        match one.key {
            Key::IntelTcbInfo { .. } => {
                assert!(matches!(result, Err(PutError::Refused(Refusal::Rollback { .. }))), "{result:?}");
            }
            _ => result.unwrap(),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let makers = Makers::start().await;
    let (store, _) = open(directory.path(), &makers.trust());
    let all = candidates(&makers).await;
    store.put(&all[0], NOW_S).unwrap();
    let before = *store.snapshot().digest();
    // A directory stands where each file has to go in turn.
    let object = |candidate: &Candidate| {
        let item = store.snapshot().verify(candidate, &makers.trust(), NOW_S).unwrap();
        directory.path().join("objects").join(data_encoding::HEXLOWER.encode(item.content().sha256()))
    };
    for blocked in [object(&all[2]), directory.path().join("marks"), directory.path().join("index")] {
        let kept = fs::read(&blocked).ok();
        let _ = fs::remove_file(&blocked);
        fs::create_dir(&blocked).unwrap();
        fs::write(blocked.join("in-the-way"), b"").unwrap();
        let result = store.put(&all[2], NOW_S);
        assert!(matches!(result, Err(PutError::Store(_))), "{blocked:?}: {result:?}");
        assert_eq!(*store.snapshot().digest(), before);
        fs::remove_dir_all(&blocked).unwrap();
        if let Some(kept) = kept {
            fs::write(&blocked, kept).unwrap();
        }
    }
    store.put(&all[2], NOW_S).unwrap();
    drop(store);
    assert_eq!(open(directory.path(), &makers.trust()).0.snapshot().len(), 2);
}

#[tokio::test]
async fn a_bundle_carries_all_to_where_there_is_no_network() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (makers, store) = filled(here.path()).await;
    let bundle = store.export();
    let (other, _) = open(there.path(), &makers.trust());
    assert!(other.import_bytes(&bundle, NOW_S).unwrap().unwrap().is_empty());
    assert_eq!(other.snapshot().digest(), store.snapshot().digest());
    assert!(other.import_bytes(b"{}", NOW_S).unwrap().is_err());
    assert_eq!(other.snapshot().digest(), store.snapshot().digest());
    // What nobody wants any more goes; its objects too.
    let intel = intel_wants().keys();
    other.retain(|key| intel.contains(key)).unwrap();
    assert_eq!(other.snapshot().len(), 4);
    let objects = fs::read_dir(there.path().join("objects")).unwrap().count();
    let mut named: Vec<_> = other
        .snapshot()
        .items()
        .flat_map(|item| [Some(*item.content().sha256()), item.chain().map(|chain| *chain.sha256())])
        .flatten()
        .collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(objects, named.len());
    assert!(Snapshot::default().is_empty());
}

#[tokio::test]
async fn looking_takes_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (makers, store) = filled(directory.path()).await;
    let files = |below: &str| {
        let entries = fs::read_dir(directory.path().join(below)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = (files("."), files("objects"), files("damaged"));
    // While somebody has it.
    let (snapshot, loaded) = Store::look(directory.path(), &makers.trust(), NOW_S).unwrap();
    assert_eq!(snapshot.digest(), store.snapshot().digest());
    assert!(loaded.damaged.is_empty() && loaded.dropped.is_empty());
    // What is damaged is told, not served, and left where it is.
    let list = snapshot.items().find(|item| matches!(item.key(), Key::AmdCrl { .. })).unwrap();
    let name = data_encoding::HEXLOWER.encode(list.content().sha256());
    fs::write(directory.path().join("objects").join(&name), b"damaged").unwrap();
    let (snapshot, loaded) = Store::look(directory.path(), &makers.trust(), NOW_S).unwrap();
    assert_eq!((snapshot.len(), loaded.damaged), (6, vec![format!("objects/{name}")]));
    assert_eq!((files("."), files("objects"), files("damaged")), before);
    // What is no store is not made one.
    let nothing = directory.path().join("nothing");
    assert!(Store::look(&nothing, &makers.trust(), NOW_S).is_err());
    assert!(!nothing.exists());
}
