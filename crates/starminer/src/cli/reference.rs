//! `starminer reference …`: reference values made from files, signed, shown, verified, published and fetched.
//!
//! This file reads and writes files; what is published and fetched goes through `starminer_requester`. What registers will hold is told by `starminer_hardware::predict`, what counts is decided by
//! `starminer_receipt::SignedReferenceValues`.

pub mod make;

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use starminer_hardware::inspect::parse_time;
use starminer_receipt::{
    LoggedReferenceValues, MAX_REFERENCE_FILE_BYTES, NetworkTrust, Opening, ReferenceError, ReferenceFile,
    ReferenceStatement, Role, SignedReferenceValues, Signer,
};
use starminer_requester::{PublishedValues, ReferenceMemory, open_regular};
use starminer_tls::IdentityKey;
use starminer_verify::{
    MAX_REFERENCE_VALUES_BYTES, NetworkId, Party, PublicKey, ReferenceValues, ReferenceValuesError, Refusal, UnixTime,
};

use super::args::{
    ReferenceCommand, ReferenceCosignArgs, ReferenceFetchArgs, ReferenceMergeArgs, ReferencePublishArgs,
    ReferenceShowArgs, ReferenceSignArgs, ReferenceVerifyArgs, RoleArg,
};
use super::exit::{self, Failure};
use super::files;
use super::home::{self, block_on, requester_failure, with_sources};
use super::key::load_identity;
use super::service::read_trust;
use super::terminal::{Style, Terminal, printable};
use super::verify::now;

const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// Makes, signs, shows, verifies, publishes or fetches reference values.
pub fn reference(terminal: &Terminal, command: &ReferenceCommand) -> Result<u8, Failure> {
    match command {
        ReferenceCommand::Snp(args) => make::snp(terminal, args),
        ReferenceCommand::Tdx(args) => make::tdx(terminal, args),
        ReferenceCommand::Pcrs(args) => make::pcrs(terminal, args),
        ReferenceCommand::Program(args) => make::program(terminal, args),
        ReferenceCommand::Merge(args) => merge(terminal, args),
        ReferenceCommand::Sign(args) => sign(terminal, args),
        ReferenceCommand::Cosign(args) => cosign(terminal, args),
        ReferenceCommand::Verify(args) => verify(terminal, args),
        ReferenceCommand::Show(args) => show(terminal, args),
        ReferenceCommand::Publish(args) => publish(terminal, args),
        ReferenceCommand::Fetch(args) => fetch(terminal, args),
    }
}

fn merge(terminal: &Terminal, args: &ReferenceMergeArgs) -> Result<u8, Failure> {
    let mut all = Vec::new();
    for path in &args.files {
        all.extend(read_values(path)?.values().iter().cloned());
    }
    // The sort is stable: of one measurement the first file's name stays.
    all.sort_by(|a, b| (a.kind, a.measurement.as_bytes()).cmp(&(b.kind, b.measurement.as_bytes())));
    all.dedup_by(|later, earlier| later.kind == earlier.kind && later.measurement == earlier.measurement);
    let values = ReferenceValues::new(all).map_err(|error| values_failure(&error))?;
    write_values(terminal, &args.out, &values)
}

/// An identity file as a release key.
struct ReleaseKey(IdentityKey);

impl Signer for ReleaseKey {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public())
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message)
    }
}

fn sign(terminal: &Terminal, args: &ReferenceSignArgs) -> Result<u8, Failure> {
    let not_before = time_or_now(args.from.as_deref(), "--from")?;
    let release = Release {
        key: &args.key,
        network: &args.network,
        role: role(args.role),
        name: &args.name,
        version: args.version,
        not_before,
        days: args.days,
    };
    release.write(terminal, read_values(&args.values)?, &args.out)
}

/// What makes values into a file to publish.
pub struct Release<'a> {
    /// An identity file: the release key.
    pub key: &'a Path,
    /// The trust file.
    pub network: &'a Path,
    /// Whose values they are.
    pub role: Role,
    /// What they are, for people.
    pub name: &'a str,
    /// Their version.
    pub version: u64,
    /// In force from then on.
    pub not_before: UnixTime,
    /// For so long.
    pub days: u64,
}

impl Release<'_> {
    /// Signs the values, writes them to a file that does not exist yet, and tells of them.
    pub fn write(&self, terminal: &Terminal, values: ReferenceValues, out: &Path) -> Result<u8, Failure> {
        let trust = read_trust(self.network)?;
        let key = ReleaseKey(load_identity(self.key)?);
        let statement = ReferenceStatement {
            v: 1,
            network: trust.network,
            role: self.role,
            name: self.name.to_owned(),
            version: self.version,
            not_before: self.not_before,
            not_after: self.not_before.saturating_add_millis(self.days * MILLIS_PER_DAY),
            values,
        };
        let unusable = |error: ReferenceError| {
            let remedy = "see `starminer reference sign --help` and specs/policy.md";
            Failure::usage(error.code(), with_sources(&error), remedy)
        };
        let mut file = ReferenceFile::new(&statement).map_err(unusable)?;
        file.sign(&key).map_err(unusable)?;
        write_new(out, &file.encode())?;
        tell_signed(terminal, out, &file, &statement, key.public_key());
        if !trust.release_keys().contains(&key.public_key()) {
            let key = key.public_key();
            terminal
                .say(terminal.style(Style::Yellow, format!("{key} is no release key of {}", printable(&trust.name))));
        }
        Ok(exit::OK)
    }
}

fn cosign(terminal: &Terminal, args: &ReferenceCosignArgs) -> Result<u8, Failure> {
    let key = ReleaseKey(load_identity(&args.key)?);
    let mut file = parse_file(&args.file)?;
    let statement = file.unverified().map_err(|error| file_failure(&args.file, &error))?;
    tell_statement(terminal, &statement);
    file.sign(&key).map_err(|error| file_failure(&args.file, &error))?;
    replace(&args.file, &file.encode())?;
    tell_signed(terminal, &args.file, &file, &statement, key.public_key());
    Ok(exit::OK)
}

fn verify(terminal: &Terminal, args: &ReferenceVerifyArgs) -> Result<u8, Failure> {
    let trust = read_trust(&args.network)?;
    let (role, now) = (role(args.role), time_or_now(args.at.as_deref(), "--at")?);
    let memory = args.memory.as_deref().map(|path| read_memory(path, trust.network, role)).transpose()?.flatten();
    let bytes = read(&args.file, MAX_REFERENCE_FILE_BYTES)?;
    let opening = Opening { trust: &trust, role, now, newest_seen: memory.map(|memory| memory.seen) };
    let values = SignedReferenceValues::open(&bytes, &opening).map_err(|error| match error {
        ReferenceError::TooLarge | ReferenceError::Malformed => file_failure(&args.file, &error),
        _ => verify_failure(Some(&args.file), &error),
    })?;
    if let Some(path) = &args.memory {
        replace(path, &ReferenceMemory { network: trust.network, role, seen: values.seen() }.encode())?;
    }
    terminal.result(terminal.style(Style::Green, "VERIFIED"));
    tell_counting(terminal, &values, trust.release_threshold(), None);
    Ok(exit::OK)
}

fn show(terminal: &Terminal, args: &ReferenceShowArgs) -> Result<u8, Failure> {
    let bytes = read(&args.file, MAX_REFERENCE_FILE_BYTES)?;
    if let Ok(values) = ReferenceValues::parse(&bytes) {
        tell_values(terminal, &values);
        terminal
            .document(&json!({ "digest": values.digest().to_string(), "values": values.values(), "signed": false }));
        return Ok(exit::OK);
    }
    let file = ReferenceFile::parse(&bytes).map_err(|error| file_failure(&args.file, &error))?;
    let statement = file.unverified().map_err(|error| file_failure(&args.file, &error))?;
    terminal.result(terminal.style(Style::Yellow, "NOT VERIFIED"));
    tell_statement(terminal, &statement);
    let signers: Vec<String> = file.claimed_signers().map(|key| key.to_string()).collect();
    signers.iter().for_each(|key| terminal.result(format!("  signature of {key}, it says")));
    let mut document = statement_json(&statement, file.digest().to_string());
    document["signed"] = true.into();
    document["claimed_signers"] = signers.into();
    terminal.document(&document);
    Ok(exit::OK)
}

/// What the newest version seen is remembered in, of one role of one network.
fn read_memory(path: &Path, network: NetworkId, role: Role) -> Result<Option<ReferenceMemory>, Failure> {
    ReferenceMemory::read(path, network, role).map_err(|error| {
        let remedy = "give the file that an earlier --memory made, one for each role of a network";
        Failure::usage("reference.memory", with_sources(&error), remedy)
    })
}

/// Has a file published.
fn publish(terminal: &Terminal, args: &ReferencePublishArgs) -> Result<u8, Failure> {
    let file = parse_file(&args.file)?;
    let role = file.unverified().map_err(|error| file_failure(&args.file, &error))?.role;
    let opened = home::open(terminal, &args.home)?;
    let threshold = release_threshold(&opened.network)?;
    block_on(async {
        let requester = opened.start(Arc::new(|_| {}))?;
        let published = requester.publish(&file).await.map_err(|error| requester_failure(&error))?;
        let values = counting(published, role)?;
        terminal.result(terminal.style(Style::Green, "PUBLISHED"));
        if values.seen().digest != file.digest() {
            terminal.note("note: a later version was published meanwhile; it is the one below");
        }
        tell_counting(terminal, &values, threshold, None);
        Ok(exit::OK)
    })?
}

/// Fetches what was published.
fn fetch(terminal: &Terminal, args: &ReferenceFetchArgs) -> Result<u8, Failure> {
    let role = role(args.role);
    let opened = home::open(terminal, &args.home)?;
    let threshold = release_threshold(&opened.network)?;
    block_on(async {
        let requester = opened.start(Arc::new(|_| {}))?;
        let published = requester.published(role).await.map_err(|error| requester_failure(&error))?;
        let values = counting(published, role)?;
        write_new(&args.out, &values.file().encode())?;
        terminal.result(terminal.style(Style::Green, "VERIFIED"));
        tell_counting(terminal, &values, threshold, Some(&args.out));
        Ok(exit::OK)
    })?
}

/// How many release keys have to sign, where anybody's signatures count at all.
fn release_threshold(trust: &NetworkTrust) -> Result<usize, Failure> {
    match trust.release_threshold() {
        0 => Err(verify_failure(None, &ReferenceError::NoReleaseKeys)),
        threshold => Ok(threshold),
    }
}

/// Published values that count, or why there are none.
fn counting(published: PublishedValues, role: Role) -> Result<LoggedReferenceValues, Failure> {
    match published {
        PublishedValues::Count(values) => Ok(*values),
        PublishedValues::NotAtThisTime(error) => Err(verify_failure(None, &error)),
        PublishedValues::Nothing => Err(Failure::refused(Refusal::new(
            Party::Network,
            "reference.unknown",
            format!("this network has no published reference values for {}s", role.name()),
            "have some published: `starminer reference publish`",
        ))),
    }
}

/// Agents' values of a published file, which counted at that time, and those that the trust file pins.
pub fn values_at(path: &Path, trust: &NetworkTrust, at: UnixTime) -> Result<ReferenceValues, Failure> {
    let bytes = read(path, MAX_REFERENCE_FILE_BYTES)?;
    let opening = Opening { trust, role: Role::Agent, now: at, newest_seen: None };
    let values = SignedReferenceValues::open(&bytes, &opening).map_err(|error| verify_failure(Some(path), &error))?;
    values.with_pinned(&trust.reference_values).map_err(|error| values_failure(&error))
}

fn verify_failure(file: Option<&Path>, error: &ReferenceError) -> Failure {
    let reason = with_sources(error);
    let reason = file.map_or_else(|| reason.clone(), |file| format!("{}: {reason}", file.display()));
    Failure::refused(Refusal::new(Party::Network, error.code(), reason, error.remedy()))
}

/// Tells of values that were verified.
fn tell_counting(terminal: &Terminal, values: &LoggedReferenceValues, need: usize, file: Option<&Path>) {
    tell_statement(terminal, values.statement());
    let signers: Vec<String> = values.signers().iter().map(ToString::to_string).collect();
    let have = signers.len();
    terminal.result(format!("  signed   by {have} release keys of {need} that have to"));
    signers.iter().for_each(|key| terminal.result(format!("             {key}")));
    terminal.result(format!("  logged   entry {} at {}", values.index(), time(values.logged_at())));
    let mut document = statement_json(values.statement(), values.seen().digest.to_string());
    document["verdict"] = "verified".into();
    document["signers"] = signers.into();
    document["log_index"] = values.index().into();
    document["logged_at"] = values.logged_at().as_millis().into();
    if let Some(file) = file {
        document["file"] = file.display().to_string().into();
    }
    terminal.document(&document);
}

fn role(role: RoleArg) -> Role {
    match role {
        RoleArg::Agent => Role::Agent,
        RoleArg::Broker => Role::Broker,
    }
}

fn time_or_now(text: Option<&str>, option: &'static str) -> Result<UnixTime, Failure> {
    match text {
        None => Ok(now()),
        Some(text) => parse_time(text)
            .map(UnixTime::from_seconds)
            .map_err(|error| Failure::usage(error.code, format!("{option}: {}", error.reason), error.remedy)),
    }
}

fn time(at: UnixTime) -> String {
    let format = time::format_description::well_known::Rfc3339;
    let seconds = i64::try_from(at.as_seconds()).ok();
    let date = seconds.and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    date.and_then(|date| date.format(&format).ok()).unwrap_or_else(|| format!("{} ms", at.as_millis()))
}

fn statement_json(statement: &ReferenceStatement, digest: String) -> Value {
    json!({
        "digest": digest,
        "network": statement.network.to_string(),
        "role": statement.role.name(),
        "name": statement.name,
        "version": statement.version,
        "not_before": statement.not_before.as_millis(),
        "not_after": statement.not_after.as_millis(),
        "values": statement.values.values(),
    })
}

fn tell_statement(terminal: &Terminal, statement: &ReferenceStatement) {
    let ReferenceStatement { role, name, version, not_before, not_after, network, .. } = statement;
    terminal.result(format!("  {} version {version} for {}s of network {network}", printable(name), role.name()));
    terminal.result(format!("  in force {} to {}", time(*not_before), time(*not_after)));
    tell_values(terminal, &statement.values);
}

fn tell_values(terminal: &Terminal, values: &ReferenceValues) {
    for value in values.values() {
        let measurement = value.measurement.to_string();
        terminal.result(format!("  {:<12} {:.16}…  {}", value.kind.name(), measurement, printable(&value.name)));
    }
}

fn tell_signed(terminal: &Terminal, out: &Path, file: &ReferenceFile, statement: &ReferenceStatement, by: PublicKey) {
    let signatures = file.claimed_signers().count();
    terminal.result(format!("signed by {by}, {signatures} signatures in {}", printable(out.display())));
    let mut document = statement_json(statement, file.digest().to_string());
    document["file"] = out.display().to_string().into();
    document["signer"] = by.to_string().into();
    document["signatures"] = signatures.into();
    terminal.document(&document);
}

/// Reads a file of at most that many bytes; of a longer one nothing is used.
pub fn read(path: &Path, most_bytes: usize) -> Result<Vec<u8>, Failure> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        Failure::usage("file.unreadable", format!("{}: {reason}", path.display()), "give a file that can be read")
    };
    let mut bytes = Vec::new();
    open_regular(path)
        .and_then(|file| file.take(most_bytes as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    if bytes.len() > most_bytes {
        return Err(unreadable(&format!("more than {most_bytes} bytes")));
    }
    Ok(bytes)
}

fn read_values(path: &Path) -> Result<ReferenceValues, Failure> {
    ReferenceValues::parse(&read(path, MAX_REFERENCE_VALUES_BYTES)?).map_err(|error| {
        let reason = format!("{}: {error}", path.display());
        Failure::usage("reference.values", reason, "give a file that `starminer reference` made")
    })
}

pub fn values_failure(error: &ReferenceValuesError) -> Failure {
    Failure::usage("reference.values", error, "ask for fewer values, with names of printable ASCII")
}

fn parse_file(path: &Path) -> Result<ReferenceFile, Failure> {
    ReferenceFile::parse(&read(path, MAX_REFERENCE_FILE_BYTES)?).map_err(|error| file_failure(path, &error))
}

fn file_failure(path: &Path, error: &ReferenceError) -> Failure {
    let reason = format!("{}: {}", path.display(), with_sources(error));
    Failure::usage(error.code(), reason, "give a file that `starminer reference sign` made")
}

/// Writes a file that does not exist yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let remedy = "name a file that does not exist, in a directory where you may write";
    files::write_new(path, bytes, files::PUBLIC)
        .map_err(|error| files::not_written("reference.output", path, &error, remedy))
}

/// Replaces a file that the caller has.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let remedy = "name a file in a directory where you may write";
    files::replace(path, bytes, files::PUBLIC)
        .map_err(|error| files::not_written("reference.output", path, &error, remedy))
}

pub fn write_values(terminal: &Terminal, out: &Path, values: &ReferenceValues) -> Result<u8, Failure> {
    let mut json = values.to_json();
    json.push(b'\n');
    write_new(out, &json)?;
    tell_values(terminal, values);
    let count = values.values().len();
    terminal.result(format!("{count} values written to {}", printable(out.display())));
    terminal.document(&json!({
        "file": out.display().to_string(), "digest": values.digest().to_string(), "values": values.values(),
    }));
    Ok(exit::OK)
}
