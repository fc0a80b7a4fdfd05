//! Specs that are signed by another key, say more than the format has, are of another time, or name what is not there.

use data_encoding::BASE64;
use serde_json::{Value, json};
use starminer_receipt::*;
use starminer_requester::PreparedTask;
use starminer_verify::{Digest, Party, UnixTime};
use starminer_wire::SubmitRequest;
use zeroize::Zeroizing;

use crate::support::{Network, example, now, runtime};
use crate::{code, completed, failed};

/// What is made of a good spec.
type Change<'c> = &'c dyn Fn(&mut TaskSpec);

/// An envelope of any payload, as another implementation might make it.
fn sealed_by_hand(payload_type: &str, payload: &[u8], signers: &[&SigningKey]) -> Envelope {
    let message = pre_authentication_encoding(payload_type, payload);
    let signature =
        |key: &&SigningKey| json!({ "keyid": key.public_key().to_string(), "sig": BASE64.encode(&key.sign(&message)) });
    let signatures: Vec<Value> = signers.iter().map(signature).collect();
    let envelope = json!({ "payloadType": payload_type, "payload": BASE64.encode(payload), "signatures": signatures });
    serde_json::from_value(envelope).unwrap()
}

#[test]
fn bad_specs_are_refused_with_a_code() {
    let network = Network::start(1);
    runtime().block_on(async {
        let (_, identity) = network.home("requester");
        let requester = network.requester("requester");
        let own = SigningKey::from_seed(&Zeroizing::new(*identity.seed()));
        let stranger = SigningKey::from_seed(&Zeroizing::new([9; 32]));
        let job = network.wasm_job(example("wordcount/wordcount.wasm"), &[("a.txt", b"words".to_vec())]);
        let client = requester.client();

        // By hand: the envelope, and who signs it.
        let prepared = requester.prepare(&job, None).unwrap();
        let kind = prepared.spec.envelope().payload_type().to_owned();
        let spec: Value = serde_json::to_value(prepared.spec.statement()).unwrap();
        let payload = |change: &dyn Fn(&mut Value)| {
            let mut spec = spec.clone();
            change(&mut spec);
            serde_json::to_vec(&spec).unwrap()
        };
        let good = payload(&|_| {});
        let forged = {
            let mut forged = serde_json::to_value(sealed_by_hand(&kind, &good, &[&stranger])).unwrap();
            forged["signatures"][0]["keyid"] = own.public_key().to_string().into();
            serde_json::from_value(forged).unwrap()
        };
        let envelopes: Vec<(&str, Envelope, &str)> = vec![
            ("another key", sealed_by_hand(&kind, &good, &[&stranger]), "statement.wrong-signer"),
            ("another key under the own name", forged, "statement.bad-signature"),
            ("nobody", sealed_by_hand(&kind, &good, &[]), "statement.malformed"),
            ("two", sealed_by_hand(&kind, &good, &[&own, &stranger]), "statement.malformed"),
            ("another kind", sealed_by_hand("application/json", &good, &[&own]), "statement.wrong-type"),
            ("no JSON", sealed_by_hand(&kind, b"\xff\xfe", &[&own]), "statement.bad-payload"),
            (
                "an unknown field",
                sealed_by_hand(&kind, &payload(&|spec| spec["more"] = json!(1)), &[&own]),
                "statement.bad-payload",
            ),
            (
                "an unknown field within",
                sealed_by_hand(&kind, &payload(&|spec| spec["limits"]["more"] = json!(1)), &[&own]),
                "statement.bad-payload",
            ),
            (
                "a field left out",
                sealed_by_hand(&kind, &payload(&|spec| drop(spec.as_object_mut().unwrap().remove("limits"))), &[&own]),
                "statement.bad-payload",
            ),
            (
                "another version",
                sealed_by_hand(&kind, &payload(&|spec| spec["version"] = json!(2)), &[&own]),
                "statement.bad-payload",
            ),
            (
                "an unknown engine",
                sealed_by_hand(&kind, &payload(&|spec| spec["engine"] = json!("abacus")), &[&own]),
                "statement.bad-payload",
            ),
            (
                "a number out of range",
                sealed_by_hand(&kind, &payload(&|spec| spec["max_attempts"] = json!(-1)), &[&own]),
                "statement.bad-payload",
            ),
        ];
        for (what, spec, expected) in envelopes {
            assert_eq!(
                code(client.submit(&SubmitRequest { spec, deposit: None, objects: Vec::new() }).await),
                expected,
                "{what}"
            );
        }

        // Rightly signed, and wrong in what it says.
        let submit = async |change: &dyn Fn(&mut TaskSpec)| {
            let prepared = requester.prepare(&job, None).unwrap();
            let mut spec = prepared.spec.statement().clone();
            change(&mut spec);
            let spec = Envelope::sign(spec, &own).unwrap();
            requester.submit_prepared(PreparedTask { spec, ..prepared }, None).await
        };
        let day = 24 * 3_600_000;
        let (past, future) = (UnixTime(now().0 - day), UnixTime(now().0 + 365 * day));
        let wrong: [(&str, Change<'_>, &str); 5] = [
            ("expired", &|spec| (spec.created_at, spec.expires_at) = (UnixTime(past.0 - 1), past), "spec.expired"),
            ("expires at once", &|spec| spec.expires_at = UnixTime(spec.created_at.0 + 1), "spec.expired"),
            ("of another network", &|spec| spec.network.0[0] ^= 1, "network.other"),
            ("an input is missing", &|spec| spec.inputs[0].content_id = Digest([6; 32]), "submit.blob-missing"),
            ("an input has another length", &|spec| spec.inputs[0].sealed_bytes += 1, "blob.size"),
        ];
        for (what, change, expected) in wrong {
            let refused = submit(change).await.unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{what}: {refused}");
            assert!(requester.open_tasks().is_empty(), "{what}: nothing was taken, so that nothing stays open");
        }

        // Taken, and failing on the node, with a receipt.
        let run = async |what: &str, change: &dyn Fn(&mut TaskSpec)| {
            let task = submit(change).await.unwrap();
            let view = requester.wait(&task).await.unwrap();
            requester.collect(view, &network.path("requester").join(what)).await.unwrap()
        };
        let outcome = run("fewer inputs", &|spec| spec.inputs.clear()).await;
        failed(&outcome, Party::Requester, "job.manifest-inputs");
        let outcome = run("engine", &|spec| spec.engine = EngineKind::Onnx).await;
        failed(&outcome, Party::Requester, "job.manifest-engine");
        let outcome = run("commitment", &|spec| spec.inputs[0].commitment = Digest([4; 32])).await;
        failed(&outcome, Party::Requester, "input.commitment");
        let outcome = run("swapped", &|spec| {
            std::mem::swap(&mut spec.inputs[0], &mut spec.workload);
        })
        .await;
        failed(&outcome, Party::Requester, "input.unopenable");
        let outcome = run("too much", &|spec| (spec.limits.memory_bytes, spec.max_attempts) = (1 << 50, 1)).await;
        failed(&outcome, Party::Node, "node.too-small");

        // A requester whose clock is ahead harms nobody: times that it alone vouches for are its own affair.
        let outcome =
            run("ahead", &|spec| (spec.created_at, spec.expires_at) = (UnixTime(future.0 - day), future)).await;
        completed(&outcome);
    });
}
