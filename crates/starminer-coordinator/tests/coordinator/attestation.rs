//! A node that is its TPM, a running emulator: enrolled, admitted, and asked again and again; what it does not survive ends its leases, and the log says
//! why. Skipped, with a printed word, where no emulator is installed.

use std::collections::BTreeSet;

use crate::emulator::Swtpm;
use crate::world::{self, NETWORK, Party, Running, World, audit, code, random, releaser_feed, submit, upload};
use starminer_attester::tpm::{AkKind, Certificate, HashAlg, KnownEk, TpmAddress};
use starminer_attester::{Attester as _, JoinedAttester, NodeTpm, NodeTpmSettings, TpmLog};
use starminer_client::{ClientError, CoordinatorClient};
use starminer_coordinator::Config;
use starminer_receipt::{
    Base64Bytes, EndorsementSet, EnrolmentStatement, EntryKind, Envelope, LogEntry, SimulatedRootEntry,
};
use starminer_verify::{
    Binding, BootId, Digest, EvidenceKind, HostMeasure, NodeId, OperatorMayReadMemory, Policy, Posture, PostureState,
    Purpose, SimulatedRootId, Tier, chip_digest,
};
use starminer_wire::{
    AdmissionRequest, AdmissionResponse, EnrolmentRequest, EvidenceRequest, NodeFeedRequest, TaskState,
};

struct TpmNode {
    party: Party,
    boot: BootId,
    client: CoordinatorClient,
    enrolments: Vec<Envelope>,
}

fn authorities(tpm: &Swtpm) -> Vec<Certificate> {
    let files = ["ca/issuer.pem", "ca/swtpm-localca-rootca-cert.pem"];
    files.into_iter().flat_map(|name| Certificate::read(&tpm.file(name)).unwrap()).collect()
}

fn root(tpm: &Swtpm) -> SimulatedRootId {
    SimulatedRootId::Tpm(Digest(authorities(tpm).last().unwrap().fingerprint()))
}

/// A network that knows the emulator's authority, and whose coordinator enrols.
fn world(tpm: &Swtpm, config: Config) -> World {
    let mut world = World::new(config);
    world.trust.simulated_roots.push(SimulatedRootEntry { name: "emulated".into(), root: root(tpm) });
    world.trust = world.trust.clone().with_enrollers(vec![world.coordinator.key()], Vec::new()).unwrap();
    world
}

/// The emulator as a node's attester, until it is dropped: it has one user at a time.
fn device(tpm: &Swtpm, tree: &std::path::Path, boot: BootId) -> JoinedAttester {
    let node = NodeTpm::open(&NodeTpmSettings {
        address: TpmAddress::Unix(tpm.socket()),
        ek: None,
        known_ek: KnownEk::FirstUse,
        ak: AkKind::EcdsaP256,
        label: [7; 32],
        bank: HashAlg::Sha256,
        pcrs: NodeTpmSettings::default_pcrs().into_iter().chain([NodeTpmSettings::ima_pcr()]).collect(),
        certificates: authorities(tpm),
        logs: BTreeSet::from([TpmLog::Uefi, TpmLog::Ima]),
    });
    JoinedAttester::new(boot, None, Some(node.unwrap()), tree).unwrap()
}

impl TpmNode {
    fn new(running: &Running, seed: u8) -> Self {
        let party = Party::new(seed);
        let client = running.client(&party);
        Self { party, boot: BootId(random()), client, enrolments: Vec::new() }
    }

    async fn evidence(&self, device: &JoinedAttester) -> AdmissionRequest {
        let posture = Posture::new(Vec::new(), Vec::new()).unwrap();
        let binding = Binding {
            network: NETWORK,
            challenge: self.client.admission_challenge().await.unwrap().challenge,
            purpose: Purpose::Admission,
            spec: None,
            node: NodeId(self.party.key()),
            attempt: None,
            boot: self.boot,
            task_key: None,
            report_key: None,
            agent_key: self.party.key(),
            tls_key: self.party.key(),
            ak_name: device.ak_name(),
            posture: posture.digest(),
            subject: None,
        };
        let evidence = device.attest(&[binding], &posture).unwrap().remove(0);
        AdmissionRequest { evidence: Base64Bytes(evidence), enrolments: self.enrolments.clone(), activation: None }
    }

    /// Renewed: new evidence for a new challenge.
    async fn prove(&self, device: &JoinedAttester) -> Result<AdmissionResponse, ClientError> {
        self.client.admit(&self.evidence(device).await).await
    }

    /// The secret of a credential for the TPM.
    async fn activate(&self, device: &JoinedAttester) -> Base64Bytes {
        let tpm = device.tpm().unwrap();
        let request = EnrolmentRequest {
            certificates: tpm.certificates().iter().cloned().map(Base64Bytes).collect(),
            ek_public: Base64Bytes(tpm.ek_public().to_vec()),
            ak_public: Base64Bytes(tpm.ak_public().to_vec()),
        };
        let challenge = self.client.enrol(&request).await.unwrap();
        let secret = tpm.activate(&challenge.credential_blob.0, &challenge.encrypted_secret.0).unwrap();
        Base64Bytes(secret.to_vec())
    }

    async fn enrol(&mut self, device: &JoinedAttester) -> AdmissionResponse {
        let activation = Some(self.activate(device).await);
        let response =
            self.client.admit(&AdmissionRequest { activation, ..self.evidence(device).await }).await.unwrap();
        self.enrolments = vec![response.enrolment.clone().unwrap()];
        response
    }

    /// Takes what there is; how many attempts are under way.
    async fn poll(&self, free_places: u32) -> usize {
        let request = NodeFeedRequest {
            epoch: 0,
            after: 0,
            wait_ms: 1_000,
            free_places,
            boot: self.boot,
            holds: Vec::new(),
            unclean: false,
        };
        let views = self.client.node_feed(&request).await.unwrap().attempts;
        views.iter().filter(|view| !view.ended).count()
    }
}

fn kinds(entries: &[LogEntry]) -> Vec<(EntryKind, Option<&str>)> {
    entries.iter().map(|entry| (entry.kind, entry.why.as_deref())).collect()
}

#[tokio::test]
async fn a_tpm_is_enrolled_by_what_it_alone_can_answer() {
    let Some(tpm) = Swtpm::start() else { return };
    let tree = tempfile::tempdir().unwrap();
    crate::boot::boot(&tpm, tree.path());
    let world = world(&tpm, Config::default());
    let running = world.start();
    let mut node = TpmNode::new(&running, 2);
    let device = device(&tpm, tree.path(), node.boot);

    // Nothing says in which TPM the key is.
    assert_eq!(code(node.prove(&device).await), "enrolment.unknown");
    let activation = Some(Base64Bytes(vec![1; 32]));
    let guess = || async { AdmissionRequest { activation: activation.clone(), ..node.evidence(&device).await } };
    assert_eq!(code(node.client.admit(&guess().await).await), "enrolment.no-credential");
    let answer = node.activate(&device).await;
    assert_eq!(code(node.client.admit(&guess().await).await), "tpm.activation");
    // The wrong answer took the credential with it.
    let late = AdmissionRequest { activation: Some(answer), ..node.evidence(&device).await };
    assert_eq!(code(node.client.admit(&late).await), "enrolment.no-credential");

    let response = node.enrol(&device).await;
    assert_eq!((response.tier.as_str(), response.provenance.as_str()), ("identified", "simulated"));
    let statement = node.enrolments[0].clone().open::<EnrolmentStatement>().unwrap();
    let wanted = (world.coordinator.key(), node.party.key(), device.ak_name().unwrap());
    assert_eq!(
        (statement.enroller, statement.node.0, &*statement.ak_name.0),
        (wanted.0, wanted.1, wanted.2.as_bytes())
    );
    assert_eq!(statement.simulated_root, Some(root(&tpm)));
    assert_eq!(node.prove(&device).await.unwrap().enrolment, None);

    // Somebody else's word, and a word about another node.
    let forge = |statement: EnrolmentStatement, signer: &Party| {
        Envelope::sign(EnrolmentStatement { enroller: signer.key(), ..statement }, &signer.signer)
            .unwrap()
            .into_envelope()
    };
    let own = forge(statement.statement().clone(), &node.party);
    let mut other = TpmNode { enrolments: vec![own], boot: node.boot, ..TpmNode::new(&running, 3) };
    assert_eq!(code(other.prove(&device).await), "enrolment.unknown");
    other.enrolments = node.enrolments.clone();
    assert_eq!(code(other.prove(&device).await), "enrolment.unknown");

    let entries = audit(&node.client, &world).await;
    assert_eq!(kinds(&entries), [(EntryKind::Genesis, None), (EntryKind::Enrolled, None), (EntryKind::Admitted, None)]);
    assert_eq!(entries[1].statement, statement.digest());
    assert!(running.stop().await.is_ok());
}

#[tokio::test]
async fn what_changes_ends_leases_and_is_in_the_log() {
    let Some(mut tpm) = Swtpm::start() else { return };
    let tree = tempfile::tempdir().unwrap();
    crate::boot::boot(&tpm, tree.path());
    let world = world(&tpm, Config::default());
    let running = world.start();
    let mut node = TpmNode::new(&running, 2);
    let requester = Party::new(1);
    let ours = running.client(&requester);
    let enrolled = device(&tpm, tree.path(), node.boot);
    node.enrol(&enrolled).await;
    let blob = upload(&ours, 100).await;
    let mut spec = world.spec(&requester, &blob);
    let mut fields = spec.policy.fields().clone();
    fields.minimum_tier = Tier::Identified;
    fields.operator_may_read_memory = OperatorMayReadMemory::Yes;
    fields.accepted_simulated_roots = vec![root(&tpm)];
    spec.policy = Policy::new(fields).unwrap();
    spec.enrollers = vec![world.coordinator.key()];
    let (spec, _) = submit(&ours, spec, &requester).await;
    assert_eq!(node.poll(1).await, 1);
    let state = || async { ours.task(&spec.task, 0, 0).await.unwrap().state };

    // What travels beside the evidence reaches the releaser with it.
    let mut life_view = releaser_feed(&ours, 0).await.remove(0);
    let lease = life_view.lease.clone().open::<starminer_receipt::Lease>().unwrap();
    let challenge = starminer_receipt::ChallengeStatement {
        network: NETWORK,
        task: spec.task,
        attempt: lease.attempt,
        lease: lease.digest(),
        challenge: starminer_verify::Challenge(random()),
        issued_at: world::now(),
        expires_at: world::now().saturating_add_millis(60_000),
        releaser: requester.key(),
    };
    let challenge = starminer_wire::ChallengeRequest { challenge: world::sign(challenge, &requester).into_envelope() };
    ours.challenge(&spec.task, lease.attempt, &challenge).await.unwrap();
    let request =
        EvidenceRequest { evidence: node.evidence(&enrolled).await.evidence, enrolments: node.enrolments.clone() };
    node.client.evidence(&spec.task, lease.attempt, &request).await.unwrap();
    life_view = releaser_feed(&ours, 1_000).await.remove(0);
    let set = EndorsementSet::parse(&life_view.endorsements.unwrap().0).unwrap();
    assert_eq!(set.enrollers(), [world.coordinator.key()]);

    // The kernel measures one more file, and lists it: growth is no change.
    drop(enrolled);
    let list = std::fs::read(tree.path().join(crate::boot::IMA)).unwrap();
    let entry = crate::boot::measure(&tpm, "/usr/bin/other", Digest([8; 32]));
    crate::boot::put(tree.path(), crate::boot::IMA, &[list, entry].concat());
    node.prove(&device(&tpm, tree.path(), node.boot)).await.unwrap();
    assert_eq!((state().await, node.poll(0).await), (TaskState::Attested, 1));

    // Somebody measured something into a register of the boot.
    let before = audit(&ours, &world).await.len();
    tpm.run(&format!("tpm2_pcrextend 8:sha256={}", "ab".repeat(32)));
    std::fs::remove_file(tree.path().join(crate::boot::UEFI)).unwrap();
    let response = node.prove(&device(&tpm, tree.path(), node.boot)).await.unwrap();
    assert_eq!(response.tier, "identified", "for itself, the new state is what it is");
    let entries = audit(&ours, &world).await;
    let why = Some("node.pcr-changed");
    assert_eq!(
        kinds(&entries[before..]),
        [(EntryKind::Suspended, why), (EntryKind::Expired, why), (EntryKind::Admitted, None)]
    );
    assert_eq!(state().await, TaskState::Queued);

    // The machine is started anew while it runs the next attempt.
    assert_eq!(node.poll(1).await, 1);
    let before = audit(&ours, &world).await.len();
    tpm.reset();
    crate::boot::boot(&tpm, tree.path());
    node.prove(&device(&tpm, tree.path(), node.boot)).await.unwrap();
    let entries = audit(&ours, &world).await;
    let why = Some("node.new-boot");
    assert_eq!(kinds(&entries[before..before + 2]), [(EntryKind::Suspended, why), (EntryKind::Expired, why)]);

    // Evidence that is refused: a log that does not lead to the registers.
    assert_eq!(node.poll(1).await, 1);
    let before = audit(&ours, &world).await.len();
    let device = device(&tpm, tree.path(), node.boot);
    let mut request = node.evidence(&device).await;
    let text = String::from_utf8(request.evidence.0).unwrap();
    let at = text.find("\"posture\":{").unwrap();
    let altered = format!("{}{}", &text[..at], text[at..].replacen("\"sandbox\":[]", "\"sandbox\":[] ", 1));
    request.evidence = Base64Bytes(altered.into_bytes());
    assert_eq!(code(node.client.admit(&request).await), "evidence.not-canonical");
    let entries = audit(&ours, &world).await;
    let why = Some("evidence.not-canonical");
    assert_eq!(kinds(&entries[before..before + 2]), [(EntryKind::Suspended, why), (EntryKind::Expired, why)]);
    let gone = NodeFeedRequest {
        epoch: 0,
        after: 0,
        wait_ms: 0,
        free_places: 1,
        boot: node.boot,
        holds: Vec::new(),
        unclean: false,
    };
    assert!(node.client.node_feed(&gone).await.is_err(), "it is not admitted any more");
    assert!(running.stop().await.is_ok());
}

#[tokio::test]
async fn a_node_that_falls_silent_is_taken_out_within_its_time() {
    let Some(tpm) = Swtpm::start() else { return };
    let tree = tempfile::tempdir().unwrap();
    crate::boot::boot(&tpm, tree.path());
    let mut config = Config::default();
    config.waits.attestation_ms = 2_000;
    let world = world(&tpm, config);
    let running = world.start();
    let mut node = TpmNode::new(&running, 2);
    let device = device(&tpm, tree.path(), node.boot);
    let response = node.enrol(&device).await;
    assert_eq!(response.renew_after_ms, 1_000);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let entries = audit(&node.client, &world).await;
        if let Some(last) = entries.iter().find(|entry| entry.kind == EntryKind::Suspended) {
            assert_eq!(last.why.as_deref(), Some("node.attestation-missed"));
            break;
        }
        assert!(std::time::Instant::now() < until, "it is never taken out");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(running.stop().await.is_ok());
}

#[tokio::test]
async fn a_chip_that_is_denied_is_not_admitted_and_the_list_is_in_the_log() {
    let mut rules = starminer_verify::HardwarePolicy::strict();
    rules.chips.denied = [chip_digest(EvidenceKind::SoftwareTee, &[2; 32])].into();
    let world = World::new(Config { hardware: Some(rules.clone()), ..Config::default() });
    let running = world.start();
    let (denied, other) = (world.node(2), world.node(3));
    let client = running.client(&denied.party);
    let challenge = client.admission_challenge().await.unwrap().challenge;
    let evidence = Base64Bytes(denied.admission_evidence(challenge));
    let request = AdmissionRequest { evidence, enrolments: Vec::new(), activation: None };
    assert_eq!(code(client.admit(&request).await), "device.chip");
    other.admit(&running.client(&other.party)).await;
    let entries = audit(&client, &world).await;
    assert_eq!(kinds(&entries), [(EntryKind::Genesis, None), (EntryKind::Rules, None), (EntryKind::Admitted, None)]);
    assert_eq!(entries[1].statement, rules.digest());
    assert!(running.stop().await.is_ok());
}

/// A host that loses what was in force around its agent: out before the next lease, its task goes to another node, the log says why, and it is back by
/// fresh evidence that all is in force again.
#[tokio::test]
async fn posture_that_falls_takes_a_node_out_until_it_is_mended() {
    use HostMeasure::{JobStorageUnshadowed, SwapOff};
    use PostureState::{Absent, InForce};
    let world = World::new(Config::default());
    let running = world.start();
    let (node, other, requester) = (world.node(2), world.node(3), Party::new(1));
    let (client, others, ours) =
        (running.client(&node.party), running.client(&other.party), running.client(&requester));
    let prove = async |host: &[(HostMeasure, PostureState)]| {
        let challenge = client.admission_challenge().await.unwrap().challenge;
        let evidence = Base64Bytes(node.admission_evidence_of(challenge, host));
        client.admit(&AdmissionRequest { evidence, enrolments: Vec::new(), activation: None }).await
    };
    let sound = [(SwapOff, Absent), (JobStorageUnshadowed, InForce)];
    prove(&sound).await.unwrap();
    let blob = upload(&ours, 100).await;
    let (spec, _) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    assert_eq!(node.poll(&client, 2, 1_000).await.len(), 1);
    // What gets better is no change for the worse, and from then on it has to stay so.
    prove(&[(SwapOff, InForce), (JobStorageUnshadowed, InForce)]).await.unwrap();
    assert_eq!(ours.task(&spec.task, 0, 0).await.unwrap().state, TaskState::Leased);

    let before = audit(&ours, &world).await.len();
    for (host, why) in [
        (&[(SwapOff, InForce), (JobStorageUnshadowed, Absent)], "node.posture-job_storage_unshadowed"),
        // As often as it likes, and for whatever else: it stays out, and the log has it once.
        (
            &[(SwapOff, InForce), (JobStorageUnshadowed, PostureState::NotChecked)],
            "node.posture-job_storage_unshadowed",
        ),
        (&sound, "node.posture-swap_off"),
    ] {
        assert_eq!(code(prove(host).await), why);
        assert_eq!(code(node.poll_after(&client, (0, 0), 1, 0).await), "node.not-admitted");
    }
    let why = Some("node.posture-job_storage_unshadowed");
    let entries = audit(&ours, &world).await;
    assert_eq!(kinds(&entries[before..]), [(EntryKind::Suspended, why), (EntryKind::Expired, why)]);
    assert!(ours.nodes().await.unwrap().is_empty());
    other.admit(&others).await;
    let taken = other.poll(&others, 1, 1_000).await;
    assert_eq!(taken.iter().filter(|view| !view.ended).map(|view| view.task).collect::<Vec<_>>(), [spec.task]);

    // Mended, it takes tasks again.
    prove(&[(SwapOff, InForce), (JobStorageUnshadowed, InForce)]).await.unwrap();
    let (next, _) = submit(&ours, world.spec(&requester, &blob), &requester).await;
    let views = node.poll(&client, 1, 1_000).await;
    assert!(views.iter().any(|view| view.task == next.task && !view.ended), "it gets no task");
    assert!(running.stop().await.is_ok());
}

/// What a network asks for of every node is asked at every proof, under whatever start of the agent.
#[tokio::test]
async fn a_network_may_ask_for_posture_of_every_node() {
    use HostMeasure::{JobStorageEncrypted, SwapOff};
    use PostureState::{Absent, InForce};
    let world = World::new(Config { required_posture: vec![JobStorageEncrypted, SwapOff], ..Config::default() });
    let running = world.start();
    let node = world.node(2);
    let client = running.client(&node.party);
    let prove = async |host: &[(HostMeasure, PostureState)]| {
        let challenge = client.admission_challenge().await.unwrap().challenge;
        let evidence = Base64Bytes(node.admission_evidence_of(challenge, host));
        client.admit(&AdmissionRequest { evidence, enrolments: Vec::new(), activation: None }).await
    };
    assert_eq!(code(prove(&[]).await), "node.posture-job_storage_encrypted");
    assert_eq!(code(prove(&[(SwapOff, Absent), (JobStorageEncrypted, InForce)]).await), "node.posture-swap_off");
    prove(&[(SwapOff, InForce), (JobStorageEncrypted, InForce)]).await.unwrap();
    assert_eq!(node.poll(&client, 1, 0).await.len(), 0);
    assert!(running.stop().await.is_ok());
}
