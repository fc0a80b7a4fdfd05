//! Intel's endorsements, put together from what was given: the one JSON file of `dcap-qvl`'s form, Intel's own answers, and parts in files of their own.

use serde_json::{Map, Value, json};

use super::authorities::{Read, is_self_issued};
use super::{Fault, File};
use crate::cert::{Certificate, Crl};
use crate::dcap::{Endorsements, MAX_ENDORSEMENTS_LEN};

/// Answers of Intel's service: their member, and the two of `dcap-qvl`'s form that they become.
const ANSWERS: [(&str, &str); 2] = [("tcbInfo", "tcb_info"), ("enclaveIdentity", "qe_identity")];
/// Intel's extension of PCK certificates: 1.2.840.113741.1.13.1.
const PCK_EXTENSION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];
const PEM_LINE: usize = 64;

/// Puts them together. Parts in files of their own stand in for what the JSON does not have; revocation lists, which are renewed most often, for
/// what it has, too. Where there is nothing beside one file, that file is taken as it is.
pub(super) fn gather(files: &[File], parts: &Read) -> Result<Endorsements, Fault> {
    let apart = !parts.certificates.is_empty() || !parts.crls.is_empty() || !parts.between.is_empty();
    let answer = |file: &File| ANSWERS.iter().any(|(member, _)| answer(file, member).is_some());
    match files {
        [] if !apart => return Ok(Endorsements::none()),
        [file] if !apart && !answer(file) => return parse(file, &file.bytes),
        _ => {}
    }
    let mut members = Map::new();
    for file in files {
        members.extend(members_of(file)?);
    }
    add_parts(&mut members, parts);
    let whole =
        File { name: "the endorsements, put together".to_owned(), bytes: Value::Object(members).to_string().into() };
    parse(files.first().unwrap_or(&whole), &whole.bytes)
}

fn parse(file: &File, bytes: &[u8]) -> Result<Endorsements, Fault> {
    Endorsements::parse(bytes).map_err(|error| Fault::malformed("dcap", file, error.code(), &error))
}

fn members_of(file: &File) -> Result<Map<String, Value>, Fault> {
    let malformed = |reason: &str| Fault::malformed("dcap", file, "dcap.endorsements-json", reason);
    if file.bytes.len() > MAX_ENDORSEMENTS_LEN {
        return Err(malformed("too long"));
    }
    for (member, name) in ANSWERS {
        if let Some((text, signature)) = answer(file, member) {
            return Ok(Map::from_iter([
                (name.to_owned(), text.into()),
                (format!("{name}_signature"), signature.into()),
                // Its issuer's chain comes in a header of the answer, and with --cert here. Without it the root stands in: then nothing vouches
                // for the answer, and it is refused with what can be said of it.
                (format!("{name}_issuer_chain"), pem(&crate::dcap::intel_root()).into()),
            ]));
        }
    }
    match serde_json::from_slice(&file.bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(malformed("no JSON object")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

/// What Intel signed, to the byte, and the signature: `{"tcbInfo":{…},"signature":"hex"}`.
fn answer(file: &File, member: &str) -> Option<(String, String)> {
    if file.bytes.len() > MAX_ENDORSEMENTS_LEN {
        return None;
    }
    let text = str::from_utf8(&file.bytes).ok()?;
    let rest = text.trim_ascii().strip_prefix('{')?.trim_ascii_start();
    let rest = rest.strip_prefix('"')?.strip_prefix(member)?.strip_prefix('"')?.trim_ascii_start();
    let rest = rest.strip_prefix(':')?.trim_ascii_start();
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<serde::de::IgnoredAny>();
    values.next()?.ok()?;
    let (signed, rest) = rest.split_at_checked(values.byte_offset())?;
    let rest = rest.trim_ascii_start().strip_prefix(',')?;
    let rest: Map<String, Value> = serde_json::from_str(&format!("{{{rest}")).ok()?;
    Some((signed.to_owned(), rest.get("signature")?.as_str()?.to_owned()))
}

fn add_parts(members: &mut Map<String, Value>, parts: &Read) {
    let given = || parts.certificates.iter().chain(&parts.between);
    let roots: Vec<_> = crate::dcap::roots().iter().map(|(root, _)| root.subject().to_vec()).collect();
    let of_root = |issuer: &[u8]| {
        roots.iter().any(|root| root == issuer) || parts.roots.iter().any(|root| root.subject() == issuer)
    };
    for crl in &parts.crls {
        let member = if of_root(crl.issuer()) { "root_ca_crl" } else { "pck_crl" };
        members.insert(member.to_owned(), hex(crl).into());
    }
    let chain = |leaf: &Certificate| {
        let issuer = given().find(|other| other.subject() == leaf.issuer() && !is_self_issued(other));
        [Some(leaf), issuer].into_iter().flatten().map(pem).collect::<String>()
    };
    if let Some(pck) = given().find(|certificate| certificate.extension(PCK_EXTENSION).is_some()) {
        members.entry("pck_certificate_chain").or_insert_with(|| chain(pck).into());
    }
    if let Some(authority) = given().find(|certificate| certificate.is_ca() && !is_self_issued(certificate)) {
        fill(members, "pck_crl_issuer_chain", || chain(authority));
    }
    let signer = given().find(|certificate| !certificate.is_ca() && certificate.extension(PCK_EXTENSION).is_none());
    if let Some(signer) = signer {
        for (_, name) in ANSWERS {
            fill(members, &format!("{name}_issuer_chain"), || chain(signer));
        }
    }
}

/// Sets a member that is missing, or that only the root stands in for.
fn fill(members: &mut Map<String, Value>, name: &str, value: impl FnOnce() -> String) {
    let stand_in = Value::from(pem(&crate::dcap::intel_root()));
    if members.get(name).is_none_or(|found| found.is_null() || *found == stand_in) {
        members.insert(name.to_owned(), json!(value()));
    }
}

fn hex(crl: &Crl) -> String {
    data_encoding::HEXLOWER.encode(crl.der())
}

fn pem(certificate: &Certificate) -> String {
    let base64 = data_encoding::BASE64.encode(certificate.der());
    let lines: Vec<&str> = (0..base64.len())
        .step_by(PEM_LINE)
        .filter_map(|start| base64.get(start..base64.len().min(start + PEM_LINE)))
        .collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
