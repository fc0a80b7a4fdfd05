//! A task names another task's sealed objects, or a stranger asks for them: the node refuses to open them (`input.unopenable`, with a
//! receipt), the coordinator answers `task.unknown`, and ciphertext is all that anyone ever gets.

use std::path::Path;

use starminer_client::ClientError;
use starminer_receipt::*;
use starminer_requester::{PreparedTask, Requester, TaskOutcome};
use starminer_tls::IdentityKey;
use starminer_vault::object::{Digests, ObjectContext, open_bytes};
use starminer_vault::{Purpose, TaskSecret};
use starminer_verify::Party;
use zeroize::Zeroizing;

use crate::support::{Network, example, files_below, runtime, search, text};

const CANARY: &[u8] = b"CANARY-vault-nine-kingfishers";

/// What a thief makes of its own spec.
type Theft<'t> = &'t dyn Fn(&mut TaskSpec);

fn respecified(prepared: PreparedTask, identity: &IdentityKey, change: impl FnOnce(&mut TaskSpec)) -> PreparedTask {
    let mut spec = prepared.spec.statement().clone();
    change(&mut spec);
    let signer = SigningKey::from_seed(&Zeroizing::new(*identity.seed()));
    PreparedTask { spec: Envelope::sign(spec, &signer).unwrap(), ..prepared }
}

async fn finish(requester: &Requester, prepared: PreparedTask, out: &Path) -> TaskOutcome {
    let task = requester.submit_prepared(prepared, None).await.unwrap();
    let view = requester.wait(&task).await.unwrap();
    requester.collect(view, out).await.unwrap()
}

#[track_caller]
fn refused_with_a_receipt(outcome: &TaskOutcome, party: Party, code: &str) {
    let Some(Outcome::Failed { refusal }) = &outcome.outcome else { panic!("{:?}", outcome.outcome) };
    assert_eq!((refusal.party(), refusal.check()), (party, code), "{}", refusal.reason());
    assert!(!refusal.remedy().is_empty());
    assert_eq!(outcome.verdict.overall(), Overall::Proven, "{:#?}", outcome.verdict.claims);
}

#[test]
fn only_a_tasks_own_key_opens_its_objects() {
    let network = Network::start(1);
    runtime().block_on(async {
        let victim = network.requester("requester-victim");
        let (_, identity) = network.home("requester-thief");
        let thief = network.requester("requester-thief");
        let (_, victims_identity) = network.home("requester-victim");
        let notes = [CANARY, b" and other words\n"].concat().repeat(20);
        let words = example("wordcount/wordcount.wasm");
        let job = network.wasm_job(words, &[("notes.txt", notes)]);

        let own =
            network.wasm_job(example("wordcount/wordcount.wasm"), &[("mine.txt", b"the thief's own words".to_vec())]);
        let prepared = victim.prepare(&job, None).unwrap();
        let spec = prepared.spec.statement().clone();
        let own_secret = TaskSecret::from_bytes(*prepared.secret.expose());
        let sealed = prepared.blobs[1].clone();
        let out = network.path("requester-victim").join("out");
        let outcome = finish(&victim, prepared, &out).await;
        assert_eq!(outcome.outcome, Some(Outcome::Completed));

        // The thief's task names the victim's input, workload or manifest in the place of its own. The thief releases its own secret only.
        let stolen: [(&str, &str, Theft<'_>); 4] = [
            ("input", "input.unopenable", &|theft| theft.inputs = spec.inputs.clone()),
            ("workload", "input.unopenable", &|theft| theft.workload = spec.workload),
            ("workload as input", "input.unopenable", &|theft| theft.inputs = vec![spec.workload]),
            ("manifest", "job.manifest-unopenable", &|theft| theft.sealed_manifest = spec.sealed_manifest.clone()),
        ];
        for (what, code, change) in stolen {
            let loot = network.path("requester-thief").join(what);
            let theft = respecified(thief.prepare(&own, None).unwrap(), &identity, change);
            let outcome = finish(&thief, theft, &loot).await;
            refused_with_a_receipt(&outcome, Party::Requester, code);
            let hits = search(&[loot], &[CANARY.to_vec(), CANARY.to_ascii_lowercase()]);
            assert!(hits.is_empty(), "{what}: {hits:?}");
        }
        // The same requester's own tasks are as strange to each other.
        let other = respecified(victim.prepare(&job, None).unwrap(), &victims_identity, |other| {
            other.inputs = spec.inputs.clone();
        });
        let outcome = finish(&victim, other, &network.path("requester-victim").join("other")).await;
        refused_with_a_receipt(&outcome, Party::Requester, "input.unopenable");

        // The whole spec under the thief's name, with the thief's result key; or the victim's id under another signature.
        let copied = respecified(thief.prepare(&own, None).unwrap(), &identity, |theft| {
            *theft = TaskSpec {
                requester: theft.requester,
                releaser: theft.releaser,
                task: theft.task,
                result_key: theft.result_key.clone(),
                ..spec.clone()
            };
        });
        let outcome = finish(&thief, copied, &network.path("requester-thief").join("copy")).await;
        refused_with_a_receipt(&outcome, Party::Requester, "job.manifest-unopenable");
        let taken = respecified(thief.prepare(&own, None).unwrap(), &identity, |theft| theft.task = spec.task);
        let refused = thief.submit_prepared(taken, None).await.unwrap_err();
        assert!(refused.to_string().starts_with("task.conflict"), "{refused}");

        // Over the API another identity's task does not exist.
        let code = |error: ClientError| match error {
            ClientError::Refused { refusal, .. } => refusal.check().to_owned(),
            other => panic!("{other}"),
        };
        let client = thief.client();
        assert_eq!(code(client.task(&spec.task, 0, 0).await.unwrap_err()), "task.unknown");
        assert_eq!(code(client.receipt(&spec.task).await.unwrap_err()), "task.unknown");

        // Whoever has learnt a content id gets ciphertext, which opens with the victim's secret, name and task alone.
        let mut stolen = Vec::new();
        let take = |bytes: &[u8]| {
            stolen.extend_from_slice(bytes);
            Ok(())
        };
        client.download(&sealed.content_id, sealed.sealed_bytes, take).await.unwrap();
        assert!(!stolen.windows(CANARY.len()).any(|window| window == CANARY));
        let open = |secret: &TaskSecret, task: [u8; 16], name: &str, purpose| {
            let context = ObjectContext { task, name, purpose };
            open_bytes(secret, &context, Digests::default(), &stolen).is_ok()
        };
        let strange = TaskSecret::from_bytes([7; 32]);
        let input = input_object_name(0);
        assert!(open(&own_secret, spec.task.0, &input, Purpose::Input), "the control");
        assert!(!open(&strange, spec.task.0, &input, Purpose::Input), "another key");
        assert!(!open(&own_secret, [0; 16], &input, Purpose::Input), "another task");
        assert!(!open(&own_secret, spec.task.0, &input_object_name(1), Purpose::Input), "another name");
        assert!(!open(&own_secret, spec.task.0, &input, Purpose::Output), "another purpose");
        let loot: Vec<_> = files_below(&[network.path("requester-thief")]).iter().map(|file| text(file)).collect();
        assert!(search(&[network.path("requester-thief")], &[CANARY.to_vec()]).is_empty(), "{loot:?}");
    });
}
