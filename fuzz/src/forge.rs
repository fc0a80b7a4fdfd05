//! The strongest adversary there can be: one who has every key of [`crate::world`] and signs whatever it is given.
//!
//! A damaged statement is otherwise refused by its signature, and nothing behind that is ever tried. Here statements are
//! signed again, digests that they name each other by are brought up to date, evidence is made anew for the changed
//! task, and the entries go into a log of their own. What is then refused is refused for what it says.

use data_encoding::BASE64;
use serde_json::{Value, json};
use starminer_receipt::{
    Base64Bytes, ChallengeStatement, Envelope, Lease, LoggedEntry, Receipt, Signer as _, SigningKey, TaskSpec,
    pre_authentication_encoding,
};
use starminer_verify::software_tee::DebugMode;
use starminer_verify::{Digest, PostureState, PublicKey, Purpose};

use crate::world::{self, Log, Story, world};

/// Most entries of a log that is made for one receipt: the place of an entry is a stranger's number.
const MAX_LOG_ENTRIES: u64 = 128;

/// An envelope of these bytes, signed; `None` where it would be longer than an envelope may be.
#[must_use]
pub fn envelope(payload_type: &str, payload: &[u8], key: &SigningKey) -> Option<Envelope> {
    let signature = key.sign(&pre_authentication_encoding(payload_type, payload));
    let json = json!({
        "payloadType": payload_type,
        "payload": BASE64.encode(payload),
        "signatures": [{"keyid": key.public_key(), "sig": BASE64.encode(&signature)}],
    });
    Envelope::parse(json.to_string().as_bytes()).ok()
}

/// The payload of an envelope and the key of this world that its first signature names.
fn open(envelope: &Envelope) -> Option<(Vec<u8>, SigningKey)> {
    let value = serde_json::to_value(envelope).ok()?;
    let payload = BASE64.decode(value["payload"].as_str()?.as_bytes()).ok()?;
    let public: PublicKey = value["signatures"][0]["keyid"].as_str()?.parse().ok()?;
    Some((payload, world::key_of(&public)?))
}

/// The same payload under a signature that verifies, if it names a key of this world; else the same envelope.
#[must_use]
pub fn resign(signed: &Envelope) -> Envelope {
    Relink::default().sign(signed)
}

/// The same for every envelope in a JSON value, at any depth.
pub fn resign_all(value: &mut Value) {
    if value.get("payloadType").is_some()
        && let Ok(found) = serde_json::from_value::<Envelope>(value.clone())
        && let Ok(signed) = serde_json::to_value(resign(&found))
    {
        *value = signed;
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(resign_all),
        Value::Object(members) => members.values_mut().for_each(resign_all),
        _ => {}
    }
}

/// Names of statements that have changed, old and new, in hexadecimal.
#[derive(Default)]
struct Relink(Vec<(String, String)>);

impl Relink {
    fn changed(&mut self, old: Digest, new: Digest) {
        if old != new {
            self.0.push((old.to_string(), new.to_string()));
        }
    }

    /// `bytes` with every old name replaced by its new one.
    fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
        self.0.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new)).into_bytes()
    }

    /// Signs again, with names brought up to date.
    fn sign(&self, signed: &Envelope) -> Envelope {
        let again =
            open(signed).and_then(|(payload, key)| envelope(signed.payload_type(), &self.apply(&payload), &key));
        again.unwrap_or_else(|| signed.clone())
    }

    /// Signs again what stands at `part` of a receipt, and takes up its new name in place of all that it had before.
    fn part(&mut self, receipt: &mut Receipt, part: fn(&mut Receipt) -> Option<&mut Envelope>) {
        let Some(place) = part(receipt) else { return };
        let before = place.digest();
        *place = self.sign(place);
        let now = place.digest();
        self.changed(before, now);
        // A part that was changed without the others is still known to them by its name in this world.
        for story in &world().stories {
            if let Some(known) = part(&mut story.receipt.clone()) {
                self.changed(known.digest(), now);
            }
        }
    }

    fn bytes(&mut self, now: &[u8], known: fn(&Story) -> Option<&Base64Bytes>) {
        for bytes in world().stories.iter().filter_map(known) {
            self.changed(Digest::of(&bytes.0), Digest::of(now));
        }
    }
}

/// The receipt that everybody together would have made of this one.
#[must_use]
pub fn collude(given: &Receipt) -> Receipt {
    let mut receipt = given.clone();
    let mut relink = Relink::default();
    relink.part(&mut receipt, |receipt| Some(&mut receipt.spec));
    let spec = receipt.spec.clone().open::<TaskSpec>().ok();
    if let Some(spec) = &spec {
        relink.changed(world::policy().digest(), spec.policy.digest());
    }
    relink.part(&mut receipt, |receipt| receipt.lease.as_mut());
    relink.part(&mut receipt, |receipt| receipt.challenge.as_mut());

    // Evidence for what the statements now say, and the same once more for the end of the run.
    let lease = receipt.lease.clone().and_then(|lease| lease.open::<Lease>().ok());
    let challenge = receipt.challenge.clone().and_then(|challenge| challenge.open::<ChallengeStatement>().ok());
    let posture = world::posture(PostureState::InForce);
    let binding = match (&spec, &lease, &challenge) {
        (Some(spec), Some(lease), Some(challenge)) => {
            Some(world::task_binding(spec.digest(), lease, challenge.challenge, &posture))
        }
        _ => None,
    };
    if let (Some(place), Some(binding)) = (&mut receipt.evidence, &binding) {
        let debug = if given.denial.is_some() { DebugMode::On } else { DebugMode::Off };
        if let Some(evidence) = world::attest(binding.clone(), &posture, debug) {
            relink.changed(Digest::of(&place.0), Digest::of(&evidence));
            relink.bytes(&evidence, |story| story.receipt.evidence.as_ref());
            *place = evidence.into();
        }
    }
    if let Some(result) = &receipt.attestation_result {
        relink.bytes(&result.0, |story| story.receipt.attestation_result.as_ref());
    }
    relink.part(&mut receipt, |receipt| receipt.release.as_mut());
    relink.part(&mut receipt, |receipt| receipt.grant.as_mut());
    relink.part(&mut receipt, |receipt| receipt.denial.as_mut());
    relink.part(&mut receipt, |receipt| receipt.cancel.as_mut());
    relink.part(&mut receipt, |receipt| receipt.report.as_mut());
    relink.part(&mut receipt, |receipt| receipt.agent_statement.as_mut());
    if let (Some(place), Some(mut binding), Some(report)) = (&mut receipt.closing_evidence, binding, &receipt.report) {
        binding.purpose = Purpose::ClosingTask;
        binding.subject = Some(report.digest());
        if let Some(evidence) = world::attest(binding, &posture, DebugMode::Off) {
            *place = evidence.into();
        }
    }
    if let Some((note, entries)) = relog(&receipt.entries, &relink) {
        receipt.checkpoint = note;
        receipt.entries = entries;
    }
    receipt
}

/// A log that has each entry at the place it claims, with names brought up to date, and filler between.
fn relog(entries: &[LoggedEntry], relink: &Relink) -> Option<(String, Vec<LoggedEntry>)> {
    let mut all = Vec::new();
    let mut places = Vec::new();
    for logged in entries {
        let index = logged.inclusion.index();
        if index >= MAX_LOG_ENTRIES {
            return None;
        }
        let place = usize::try_from(index).ok()?;
        if all.len() <= place {
            all.resize(place + 1, b"filler".to_vec());
        }
        all[place] = relink.apply(&logged.entry.0);
        places.push(index);
    }
    let log = Log::of(all)?;
    let entries = places.into_iter().map(|index| log.logged(index)).collect::<Option<_>>()?;
    Some((log.checkpoint().signed().as_str().to_owned(), entries))
}
