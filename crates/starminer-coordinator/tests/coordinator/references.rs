//! Published reference values: who may publish what, that it is in the log before it is answered, and that nodes are admitted by it.

use std::sync::{Arc, OnceLock};

use crate::world::{NETWORK, Node, Party, World, code, now};
use bytes::Bytes;
use starminer_client::{ClientError, CoordinatorClient};
use starminer_coordinator::{Config, Environment};
use starminer_log::SignedCheckpoint;
use starminer_receipt::{
    Base64Bytes, EntryKind, LogEntry, LoggedReferenceValues, MAX_REFERENCE_FILE_BYTES, Opening, ReferenceError,
    ReferenceFile, ReferenceStatement, Role, SignedReferenceValues,
};
use starminer_store::fault::{Fault, FaultyJournal};
use starminer_store::{Database, Journal};
use starminer_verify::{Digest, EvidenceKind, NetworkId, ReferenceValue, ReferenceValues, UnixTime};
use starminer_wire::AdmissionRequest;

const HOUR_MS: u64 = 3_600_000;
/// What nodes of the test's world measure.
const AGENT: Digest = Digest([0x6d; 32]);
const ANOTHER: Digest = Digest([0x6e; 32]);

fn release_keys() -> [Party; 3] {
    [Party::new(0xa1), Party::new(0xa2), Party::new(0xa3)]
}

/// A network whose coordinator trusts two of three release keys.
fn world() -> World {
    let mut world = World::new(Config::default());
    let keys = release_keys().iter().map(Party::key).collect();
    world.trust = world.trust.with_release_keys(keys, 2).unwrap();
    world
}

fn values(measurement: Digest) -> ReferenceValues {
    let kind = EvidenceKind::SoftwareTee;
    ReferenceValues::new(vec![ReferenceValue { kind, measurement: measurement.into(), name: "agent".into() }]).unwrap()
}

fn statement(role: Role, version: u64, measurement: Digest) -> ReferenceStatement {
    ReferenceStatement {
        v: 1,
        network: NETWORK,
        role,
        name: "test".into(),
        version,
        not_before: UnixTime(now().as_millis() - HOUR_MS),
        not_after: now().saturating_add_millis(HOUR_MS),
        values: values(measurement),
    }
}

/// Signed by the first two release keys.
fn signed(statement: &ReferenceStatement) -> ReferenceFile {
    let mut file = ReferenceFile::new(statement).unwrap();
    release_keys()[..2].iter().for_each(|key| file.sign(&key.signer).unwrap());
    file
}

async fn publish(client: &CoordinatorClient, file: &ReferenceFile) -> Result<Bytes, ClientError> {
    client.publish_references(file.encode().into()).await
}

/// Verifies an answer as anybody would who has not seen any before.
fn open(world: &World, role: Role, file: &[u8]) -> Result<LoggedReferenceValues, ReferenceError> {
    SignedReferenceValues::open(file, &Opening { trust: &world.trust, role, now: now(), newest_seen: None })
}

async fn size(client: &CoordinatorClient, world: &World) -> u64 {
    let note = client.consistency(0).await.unwrap().checkpoint;
    SignedCheckpoint::parse(note.as_bytes()).unwrap().verify(world.trust.log_key()).unwrap().size()
}

#[tokio::test]
async fn what_may_not_be_published_leaves_no_trace() {
    let world = world();
    let running = world.start();
    let ours = running.client(&Party::new(1));
    let before = size(&ours, &world).await;
    let good = statement(Role::Agent, 1, AGENT);
    let refused = async |file: ReferenceFile| code(publish(&ours, &file).await);

    assert_eq!(refused(ReferenceFile::new(&good).unwrap()).await, "reference.too-few-signatures");
    let mut one = ReferenceFile::new(&good).unwrap();
    one.sign(&release_keys()[2].signer).unwrap();
    // Of a key that nobody named.
    one.sign(&Party::new(0xee).signer).unwrap();
    assert_eq!(refused(one).await, "reference.too-few-signatures");
    let future = ReferenceStatement { not_before: now().saturating_add_millis(HOUR_MS / 2), ..good.clone() };
    assert_eq!(refused(signed(&future)).await, "reference.not-yet-in-force");
    let past = ReferenceStatement { not_after: UnixTime(now().as_millis() - HOUR_MS / 2), ..good.clone() };
    assert_eq!(refused(signed(&past)).await, "reference.expired");
    let elsewhere = ReferenceStatement { network: NetworkId([1; 32]), ..good.clone() };
    assert_eq!(refused(signed(&elsewhere)).await, "reference.other-network");

    // A signature under another statement.
    let other: serde_json::Value =
        serde_json::from_slice(&signed(&statement(Role::Agent, 2, ANOTHER)).encode()).unwrap();
    let mut mixed: serde_json::Value = serde_json::from_slice(&signed(&good).encode()).unwrap();
    mixed["envelope"]["signatures"] = other["envelope"]["signatures"].clone();
    let mixed = ours.publish_references(mixed.to_string().into()).await;
    assert_eq!(code(mixed), "reference.bad-signature");
    assert_eq!(code(ours.publish_references("{}".into()).await), "reference.malformed");
    let long = Bytes::from(vec![b' '; MAX_REFERENCE_FILE_BYTES + 1]);
    assert_eq!(code(ours.publish_references(long).await), "body.too-large");

    assert_eq!(ours.references(Role::Agent).await.unwrap(), None);
    assert_eq!(size(&ours, &world).await, before);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn the_newest_version_stays_and_is_proven_before_and_after_a_restart() {
    let world = world();
    let mut running = world.start();
    let mut ours = running.client(&Party::new(1));
    let (five, six) = (signed(&statement(Role::Agent, 5, AGENT)), signed(&statement(Role::Agent, 6, ANOTHER)));
    let answer = publish(&ours, &five).await.unwrap();
    let logged = open(&world, Role::Agent, &answer).unwrap();
    assert_eq!((logged.statement().version, logged.values()), (5, &values(AGENT)));
    let entry = LogEntry::parse(&logged.file().place().unwrap().entry.0).unwrap();
    assert_eq!((entry.kind, entry.statement), (EntryKind::Published, five.digest()));
    assert_eq!(open(&world, Role::Broker, &answer).unwrap_err(), ReferenceError::OtherRole(Role::Agent));

    // The same again, as it was signed, as it was fetched, and with one signature more: one entry.
    let before = size(&ours, &world).await;
    let fetched = ReferenceFile::parse(&ours.references(Role::Agent).await.unwrap().unwrap()).unwrap();
    let mut more = five.clone();
    more.sign(&release_keys()[2].signer).unwrap();
    for again in [&five, &fetched, &more] {
        let again = publish(&ours, again).await.unwrap();
        assert_eq!(open(&world, Role::Agent, &again).unwrap().index(), logged.index());
    }
    assert_eq!(size(&ours, &world).await, before);
    let fork = signed(&statement(Role::Agent, 5, ANOTHER));
    assert_eq!(code(publish(&ours, &fork).await), "reference.forked");

    publish(&ours, &six).await.unwrap();
    let brokers = signed(&statement(Role::Broker, 1, AGENT));
    publish(&ours, &brokers).await.unwrap();
    for _ in 0..2 {
        assert_eq!(code(publish(&ours, &five).await), "reference.older");
        let newest = open(&world, Role::Agent, &ours.references(Role::Agent).await.unwrap().unwrap()).unwrap();
        assert_eq!((newest.statement().version, newest.index()), (6, logged.index() + 1));
        let broker = open(&world, Role::Broker, &ours.references(Role::Broker).await.unwrap().unwrap()).unwrap();
        assert_eq!((broker.statement().version, broker.index()), (1, logged.index() + 2));
        let before = size(&ours, &world).await;
        publish(&ours, &six).await.unwrap();
        assert_eq!(size(&ours, &world).await, before);
        running.kill();
        running = world.start();
        ours = running.client(&Party::new(1));
    }
    running.stop().await.unwrap();
}

/// A commit that fails leaves no version behind that later ones would have to follow.
#[tokio::test]
async fn what_did_not_become_durable_was_not_published() {
    let world = world();
    let journal = Arc::new(OnceLock::new());
    let slot = journal.clone();
    let wrap = move |database: Arc<Database>| {
        let faulty = Arc::new(FaultyJournal::new(database));
        let _ = slot.set(faulty.clone());
        faulty as Arc<dyn Journal>
    };
    let running = world.start_with(Environment { journal: Box::new(wrap), ..Environment::default() });
    let ours = running.client(&Party::new(1));
    let journal: &Arc<FaultyJournal<Arc<Database>>> = journal.get().unwrap();
    journal.commits.plan([Fault::Before]);
    let five = signed(&statement(Role::Agent, 5, AGENT));
    assert_eq!(code(publish(&ours, &five).await), "storage.failed");
    assert_eq!(ours.references(Role::Agent).await.unwrap(), None);
    let four = publish(&ours, &signed(&statement(Role::Agent, 4, AGENT))).await.unwrap();
    assert_eq!(open(&world, Role::Agent, &four).unwrap().statement().version, 4);
    // One that is there after all, although the disk said otherwise, was published.
    journal.commits.plan([Fault::After]);
    let five = publish(&ours, &five).await.unwrap();
    assert_eq!(open(&world, Role::Agent, &five).unwrap().statement().version, 5);
    running.stop().await.unwrap();
}

/// The tier that a node is admitted with.
async fn tier(client: &CoordinatorClient, node: &Node) -> String {
    let challenge = client.admission_challenge().await.unwrap().challenge;
    let evidence = Base64Bytes(node.admission_evidence(challenge));
    let request = AdmissionRequest { evidence, enrolments: Vec::new(), activation: None };
    client.admit(&request).await.unwrap().tier
}

#[tokio::test]
async fn nodes_are_admitted_by_what_was_published() {
    let mut world = world();
    world.trust.reference_values = values(ANOTHER);
    let mut running = world.start();
    let node = world.node(2);
    let mut theirs = running.client(&node.party);
    assert_eq!(tier(&theirs, &node).await, "identified");
    // For brokers: agents are none.
    publish(&theirs, &signed(&statement(Role::Broker, 1, AGENT))).await.unwrap();
    assert_eq!(tier(&theirs, &node).await, "identified");
    publish(&theirs, &signed(&statement(Role::Agent, 1, AGENT))).await.unwrap();
    assert_eq!(tier(&theirs, &node).await, "confidential");

    running.kill();
    running = world.start();
    theirs = running.client(&node.party);
    assert_eq!(tier(&theirs, &node).await, "confidential");
    // A version without the value withdraws it.
    publish(&theirs, &signed(&statement(Role::Agent, 2, ANOTHER))).await.unwrap();
    assert_eq!(tier(&theirs, &node).await, "identified");
    publish(&theirs, &signed(&statement(Role::Agent, 3, AGENT))).await.unwrap();
    assert_eq!(tier(&theirs, &node).await, "confidential");

    // Under other release keys what the old ones signed does not count, and its number is not given away again.
    running.kill();
    world.trust = world.trust.with_release_keys(vec![Party::new(0xb1).key()], 1).unwrap();
    running = world.start();
    theirs = running.client(&node.party);
    assert_eq!(tier(&theirs, &node).await, "identified");
    let mut file = ReferenceFile::new(&statement(Role::Agent, 2, AGENT)).unwrap();
    file.sign(&Party::new(0xb1).signer).unwrap();
    assert_eq!(code(publish(&theirs, &file).await), "reference.older");
    let mut file = ReferenceFile::new(&statement(Role::Agent, 4, AGENT)).unwrap();
    file.sign(&Party::new(0xb1).signer).unwrap();
    publish(&theirs, &file).await.unwrap();
    assert_eq!(tier(&theirs, &node).await, "confidential");
    running.stop().await.unwrap();
}
