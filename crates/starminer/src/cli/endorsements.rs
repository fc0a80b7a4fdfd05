//! `starminer endorsements fetch|list|export|import`: what makers publish, kept in a directory.
//!
//! This file reads options and shows what came out. What verifies is `starminer_hardware::endorsements`; who fetches and keeps is
//! `starminer_endorsements`. Forms and rules: `specs/endorsements.md`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use starminer_endorsements::{
    Clock, FetchError, Fetcher, Limits, Loaded, Politeness, PutError, ServerRoots, Sources, Store, StoreError,
    SystemClock, system_jitter,
};
use starminer_hardware::cert::Certificate;
use starminer_hardware::endorsements::{
    Ages, Bundle, Item, Key, MAX_BUNDLE_BYTES, Marks, Refusal, Snapshot, Trust, encode,
};
use starminer_hardware::inspect::parse_time;
use starminer_requester::open_regular;

use super::args::{EndorsementsCommand, ExportArgs, FetchArgs, ImportArgs, ListArgs, TrustArgs};
use super::exit::{self, Failure};
use super::home::{block_on, with_sources};
use super::service::read_toml_at;
use super::terminal::{Style, Terminal, human_bytes, printable};
use super::verify::now;

/// Longest file of certificates.
const MAX_CERTIFICATES_BYTES: u64 = 1 << 20;

/// Runs one of the commands.
pub fn endorsements(terminal: &Terminal, command: &EndorsementsCommand) -> Result<u8, Failure> {
    match command {
        EndorsementsCommand::Fetch(args) => fetch(terminal, args),
        EndorsementsCommand::List(args) => list(terminal, args),
        EndorsementsCommand::Export(args) => export(terminal, args),
        EndorsementsCommand::Import(args) => import(terminal, args),
    }
}

/// The file behind `--config`. What it leaves out is as by default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndorsementsConfig {
    sources: Sources,
    /// How old endorsements may get.
    pub ages: Ages,
    politeness: Politeness,
}

impl EndorsementsConfig {
    /// Reads it, where one is named.
    pub fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let remedy = "see `starminer endorsements fetch --help` for its form";
        path.map_or_else(|| Ok(Self::default()), |path| read_toml_at(path, remedy))
    }
}

/// The makers, and roots that the caller named.
pub fn trust(roots: &[std::path::PathBuf]) -> Result<Trust, Failure> {
    let mut trust = Trust::genuine();
    for root in certificates(roots)? {
        trust.amd.add(root.clone());
        trust.intel.add(root.clone());
        trust.tpm.add(root.clone());
        trust.nvidia = trust.nvidia.with_device(root.clone()).with_rim(root);
    }
    Ok(trust)
}

/// Certificates in files.
pub fn certificates(paths: &[std::path::PathBuf]) -> Result<Vec<Certificate>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        let unusable = |reason: &dyn std::fmt::Display| {
            let reason = format!("{}: {reason}", path.display());
            Failure::usage("call.authority", reason, "give certificates in PEM or DER")
        };
        let bytes = read(path, MAX_CERTIFICATES_BYTES).map_err(|error| unusable(&error))?;
        all.extend(Certificate::read(&bytes).map_err(|error| unusable(&error))?);
    }
    Ok(all)
}

fn read(path: &Path, most_bytes: u64) -> std::io::Result<Vec<u8>> {
    let source: Box<dyn std::io::Read> =
        if path.as_os_str() == "-" { Box::new(std::io::stdin().lock()) } else { Box::new(open_regular(path)?) };
    let mut bytes = Vec::new();
    source.take(most_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most_bytes {
        return Err(std::io::Error::other(format!("more than {most_bytes} bytes")));
    }
    Ok(bytes)
}

/// The time that the caller named, or this machine's.
pub fn at_s(text: Option<&str>) -> Result<u64, Failure> {
    match text {
        Some(text) => parse_time(text).map_err(|error| Failure::usage(error.code, &error, error.remedy)),
        None => Ok(now().as_seconds()),
    }
}

/// A store that others may have, as of this time.
pub fn look(dir: &Path, trust: &Trust, now_s: u64) -> Result<(Snapshot, Loaded), Failure> {
    Store::look(dir, trust, now_s).map_err(|error| {
        let remedy = "give a directory that `starminer endorsements fetch` or `import` made";
        Failure::usage("endorsements.no-store", with_sources(&error), remedy)
    })
}

fn open(args: &TrustArgs, dir: &Path, now_s: u64) -> Result<(Store, Loaded), Failure> {
    Store::open(dir, trust(&args.roots)?, now_s).map_err(|error| unwritable(&error))
}

fn unwritable(error: &StoreError) -> Failure {
    let remedy = "leave it to the process that has it, or see to its permissions and free space";
    Failure::local("endorsements.store", with_sources(error), remedy)
}

/// Seconds since 1970 as RFC 3339.
pub fn readable(at_s: u64) -> String {
    let time = i64::try_from(at_s).ok().and_then(|at_s| time::OffsetDateTime::from_unix_timestamp(at_s).ok());
    time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| at_s.to_string())
}

/// The day of it.
pub fn day(at_s: u64) -> String {
    readable(at_s).split('T').next().unwrap_or_default().to_owned()
}

/// One that was not had or not taken.
struct Failed {
    key: String,
    code: String,
    reason: String,
    remedy: String,
    exit_code: u8,
}

impl Failed {
    fn refused(key: &Key, refusal: &Refusal) -> Self {
        let remedy = "have it from its maker; of a test network, name its root with --ca".to_owned();
        let (key, code) = (key.to_string(), refusal.code().to_owned());
        Self { key, code, reason: refusal.to_string(), remedy, exit_code: exit::REFUSED }
    }

    fn fetching(key: &Key, error: &FetchError) -> Self {
        let remedy = match error {
            FetchError::NoPlace(Key::AmdVlek { .. }) => "have the cloud give it with the evidence",
            FetchError::NoPlace(_) => "name its host with --tpm-host HOST=URL, or bring it in a bundle",
            FetchError::NoIssuer => "bring it in a bundle: nobody asks for it without its issuer's certificate",
            FetchError::Status { status: 404, .. } => "see whether the key is right: its maker has none of that name",
            FetchError::Postponed { .. } | FetchError::Status { .. } => "try later, or name a cache of the service",
            _ => "see to the connection, or name a cache of the service that this machine reaches",
        };
        let (key, code) = (key.to_string(), error.code().to_owned());
        Self { key, code, reason: with_sources(error), remedy: remedy.to_owned(), exit_code: exit::UNREACHABLE }
    }

    fn document(&self) -> Value {
        json!({ "key": self.key, "code": self.code, "reason": self.reason, "remedy": self.remedy })
    }

    fn show(&self, terminal: &Terminal) {
        let mark = terminal.style(Style::Red, "failed ");
        terminal.result(format!("  {mark}  {}", printable(&self.key)));
        terminal.result(format!("           {}: {}", self.code, printable(&self.reason)));
        terminal.result(format!("           do: {}", self.remedy));
    }
}

/// A clock that was set to the time that the caller named, and goes on from there.
#[derive(Debug)]
struct Set {
    ahead_ms: i64,
}

impl Clock for Set {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms().saturating_add_signed(self.ahead_ms)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

fn clock(at: Option<&str>) -> Result<Arc<dyn Clock>, Failure> {
    if at.is_none() {
        return Ok(Arc::new(SystemClock));
    }
    let ahead_ms = i128::from(at_s(at)?) * 1000 - i128::from(SystemClock.now_ms());
    // Both are times of our era, whose difference fits.
    Ok(Arc::new(Set { ahead_ms: i64::try_from(ahead_ms).unwrap_or(i64::MAX) }))
}

fn fetch(terminal: &Terminal, args: &FetchArgs) -> Result<u8, Failure> {
    let config = EndorsementsConfig::read(args.config.as_deref())?;
    let clock = clock(args.at.as_deref())?;
    let fetcher = fetcher(args, &config, Arc::clone(&clock))?;
    let (store, loaded) = open(&args.trust, &args.dir, clock.now_s())?;
    let keys = wanted(args, &store.snapshot(), &loaded, &config.ages, clock.now_s());
    let bar = terminal.spinner(&format!("fetching {} endorsements", keys.len()));
    let (fetched, failed) =
        block_on(fetch_all(&fetcher, &store, &clock, keys, |key| bar.set_message(key.to_string())))??;
    bar.finish_and_clear();

    let snapshot = store.snapshot();
    for key in &fetched {
        let until = snapshot.item(key).map(|item| day(item.usable_until_s(&config.ages))).unwrap_or_default();
        terminal.result(format!("  {}  {}  until {until}", terminal.style(Style::Green, "fetched"), printable(key)));
    }
    failed.iter().for_each(|failed| failed.show(terminal));
    let digest = data_encoding::HEXLOWER.encode(snapshot.digest());
    terminal.result(format!(
        "{} fetched, {} failed, {} kept in {}",
        fetched.len(),
        failed.len(),
        snapshot.len(),
        printable(args.dir.display())
    ));
    let code = failed.iter().map(|failed| failed.exit_code).fold(exit::OK, worse);
    terminal.document(&json!({
        "dir": args.dir.display().to_string(),
        "fetched": fetched.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "failed": failed.iter().map(Failed::document).collect::<Vec<_>>(),
        "items": snapshot.len(),
        "digest": digest,
        "exit_code": code,
    }));
    Ok(code)
}

/// Refused is worse than not reached.
fn worse(a: u8, b: u8) -> u8 {
    if a == exit::OK || b == exit::REFUSED { b } else { a }
}

fn fetcher(args: &FetchArgs, config: &EndorsementsConfig, clock: Arc<dyn Clock>) -> Result<Fetcher, Failure> {
    let mut sources = config.sources.clone();
    let named = [
        (&mut sources.amd_kds, &args.amd_kds),
        (&mut sources.intel_pcs, &args.intel_pcs),
        (&mut sources.intel_root_crl, &args.intel_root_crl),
        (&mut sources.nvidia_rim, &args.nvidia_rim),
        (&mut sources.nvidia_ocsp, &args.nvidia_ocsp),
    ];
    for (source, named) in named {
        if let Some(base) = named {
            *source = base.clone();
        }
    }
    sources.tpm.extend(args.tpm_host.iter().cloned());
    let pinned = certificates(&args.server_ca)?;
    let roots = match pinned.is_empty() {
        true => ServerRoots::Web,
        false => ServerRoots::Pinned(pinned.iter().map(|certificate| certificate.der().to_vec()).collect()),
    };
    Fetcher::new(sources, &roots, config.politeness, Limits::default(), clock, system_jitter())
        .map_err(|error| Failure::usage("call.authority", with_sources(&error), "give authorities that can be used"))
}

/// What was asked for; else what is there and due, and what was there and is lost.
fn wanted(args: &FetchArgs, snapshot: &Snapshot, loaded: &Loaded, ages: &Ages, now_s: u64) -> Vec<Key> {
    if !args.keys.is_empty() {
        let mut keys: Vec<Key> = Vec::new();
        for key in &args.keys {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        return keys;
    }
    let due = snapshot.items().filter(|item| args.all || item.refresh_at_s(ages) <= now_s);
    due.map(|item| item.key().clone()).chain(loaded.dropped.iter().map(|(key, _)| key.clone())).collect()
}

/// What others rest on comes first.
const fn order(key: &Key) -> u8 {
    match key {
        Key::IntelRootCrl | Key::AmdChain { .. } | Key::TpmAuthority { .. } => 0,
        _ => 1,
    }
}

type Had = (Vec<Key>, Vec<Failed>);

/// Fetches hosts side by side, each one thing at a time, in two rounds: what others rest on, and the rest.
async fn fetch_all(
    fetcher: &Fetcher,
    store: &Store,
    clock: &Arc<dyn Clock>,
    keys: Vec<Key>,
    starts: impl Fn(&Key),
) -> Result<Had, Failure> {
    let (mut fetched, mut failed) = (Vec::new(), Vec::new());
    for round in 0..=1 {
        let mut by_host: BTreeMap<String, Vec<Key>> = BTreeMap::new();
        for key in keys.iter().filter(|key| order(key) == round) {
            by_host.entry(fetcher.host(key).unwrap_or_default()).or_default().push(key.clone());
        }
        let mut hosts = tokio::task::JoinSet::new();
        for keys in by_host.into_values() {
            keys.iter().for_each(&starts);
            let (fetcher, store, clock) = (fetcher.clone(), store.clone(), Arc::clone(clock));
            hosts.spawn(async move {
                let mut done = Vec::new();
                for key in keys {
                    let result = one(&fetcher, &store, &*clock, &key).await;
                    done.push((key, result));
                }
                done
            });
        }
        while let Some(done) = hosts.join_next().await {
            let stopped = |error| Failure::local("endorsements.stopped", error, "try again");
            for (key, result) in done.map_err(stopped)? {
                match result? {
                    None => fetched.push(key),
                    Some(failure) => failed.push(failure),
                }
            }
        }
    }
    Ok((fetched, failed))
}

/// Fetches one and keeps it; or why it was not had.
async fn one(fetcher: &Fetcher, store: &Store, clock: &dyn Clock, key: &Key) -> Result<Option<Failed>, Failure> {
    // An OCSP response was had with its issuers, and is asked for again by them.
    let issuers = store.snapshot().item(key).and_then(|item| item.chain().map(|chain| chain.bytes().to_vec()));
    let candidate = match fetcher.fetch(key, issuers.as_deref()).await {
        Ok(candidate) => candidate,
        Err(error) => return Ok(Some(Failed::fetching(key, &error))),
    };
    let (store, now_s) = (store.clone(), clock.now_s());
    let put = tokio::task::spawn_blocking(move || store.put(&candidate, now_s)).await;
    match put.map_err(|error| Failure::local("endorsements.stopped", error, "try again"))? {
        Ok(()) => Ok(None),
        Err(PutError::Refused(refusal)) => Ok(Some(Failed::refused(key, &refusal))),
        Err(PutError::Store(error)) => Err(unwritable(&error)),
    }
}

/// A snapshot out of a directory or a bundle, with what of it does not hold.
pub fn snapshot_of(from: &Path, trust: &Trust, now_s: u64) -> Result<(Snapshot, Loaded), Failure> {
    if from.is_dir() {
        return look(from, trust, now_s);
    }
    let opened = bundle(from)?.open(&Snapshot::default(), &mut Marks::none(), trust, now_s);
    Ok((opened.snapshot, Loaded { damaged: Vec::new(), dropped: opened.refused }))
}

fn bundle(path: &Path) -> Result<Bundle, Failure> {
    let name = printable(path.display());
    let remedy = "give a directory of endorsements, or a file that `starminer endorsements export` wrote";
    let bytes = read(path, MAX_BUNDLE_BYTES as u64)
        .map_err(|error| Failure::usage("endorsements.unreadable", format!("{name}: {error}"), remedy))?;
    Bundle::parse(&bytes).map_err(|error| Failure::usage(error.code(), format!("{name}: {error}"), remedy))
}

/// How it stands with an item at a time.
fn state(snapshot: &Snapshot, item: &Item, ages: &Ages, now_s: u64) -> (&'static str, Style) {
    use starminer_hardware::endorsements::Absence;
    match snapshot.find(item.key(), ages, now_s).map_err(|missing| missing.why) {
        Ok(_) if item.refresh_at_s(ages) <= now_s => ("due", Style::Yellow),
        Ok(_) => ("usable", Style::Green),
        Err(Absence::Ended { .. }) => ("ended", Style::Red),
        Err(Absence::TooOld { .. } | Absence::NotFetched) => ("too-old", Style::Red),
    }
}

fn list(terminal: &Terminal, args: &ListArgs) -> Result<u8, Failure> {
    let ages = EndorsementsConfig::read(args.config.as_deref())?.ages;
    let now_s = at_s(args.at.as_deref())?;
    let (snapshot, loaded) = snapshot_of(&args.from, &trust(&args.trust.roots)?, now_s)?;
    let mut items: Vec<&Item> = snapshot.items().collect();
    items.sort_by_key(|item| item.key().to_string());
    let mut all_usable = loaded.dropped.is_empty() && loaded.damaged.is_empty();
    let mut documents = Vec::new();
    let width = items.iter().map(|item| item.key().to_string().chars().count().min(KEY_CHARS)).max().unwrap_or(0);
    if !items.is_empty() {
        let header = format!("{:<7}  {:<width$}  {:>6}  {:<10}  {:<10}  number", "", "key", "age", "until", "renew");
        terminal.result(terminal.style(Style::Dim, header));
    }
    for item in items {
        let (state, style) = state(&snapshot, item, &ages, now_s);
        all_usable &= matches!(state, "usable" | "due");
        let (until_s, refresh_s) = (item.usable_until_s(&ages), item.refresh_at_s(&ages));
        let number = item.facts().number.as_ref().map(ToString::to_string);
        terminal.result(format!(
            "{}  {:<width$}  {:>6}  {:<10}  {:<10}  {}",
            terminal.style(style, format!("{state:<7}")),
            shortened(&item.key().to_string()),
            age(now_s.saturating_sub(item.fetched_s())),
            day(until_s),
            day(refresh_s),
            number.as_deref().unwrap_or("-"),
        ));
        documents.push(json!({
            "key": item.key().to_string(),
            "state": state,
            "fetched_s": item.fetched_s(),
            "age_s": now_s.saturating_sub(item.fetched_s()),
            "source": item.source(),
            "issued_s": item.facts().issued_s,
            "next_update_s": item.facts().until_s,
            "usable_until_s": until_s,
            "renew_at_s": refresh_s,
            "number": number,
            "provenance": item.facts().provenance.name(),
            "sha256": data_encoding::HEXLOWER.encode(item.content().sha256()),
            "bytes": item.content().bytes().len(),
        }));
    }
    let dropped: Vec<Failed> = loaded.dropped.iter().map(|(key, refusal)| Failed::refused(key, refusal)).collect();
    dropped.iter().for_each(|dropped| dropped.show(terminal));
    for name in &loaded.damaged {
        terminal.result(format!("  {}  {}", terminal.style(Style::Red, "damaged"), printable(name)));
    }
    let digest = data_encoding::HEXLOWER.encode(snapshot.digest());
    terminal.result(format!("{} endorsements, snapshot {digest}", snapshot.len()));
    let code = if all_usable { exit::OK } else { exit::REFUSED };
    terminal.document(&json!({
        "digest": digest,
        "at_s": now_s,
        "items": documents,
        "refused": dropped.iter().map(Failed::document).collect::<Vec<_>>(),
        "damaged": loaded.damaged,
        "exit_code": code,
    }));
    Ok(code)
}

/// The longest key that is shown to people whole: chip ids are longer.
const KEY_CHARS: usize = 60;

fn shortened(key: &str) -> String {
    let count = key.chars().count();
    if count <= KEY_CHARS {
        return printable(key);
    }
    let tail: String = key.chars().skip(count - 20).collect();
    printable(format!("{}…{tail}", key.chars().take(KEY_CHARS - 21).collect::<String>()))
}

fn age(seconds: u64) -> String {
    match seconds {
        0..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn export(terminal: &Terminal, args: &ExportArgs) -> Result<u8, Failure> {
    let (snapshot, loaded) = look(&args.dir, &trust(&args.trust.roots)?, at_s(args.at.as_deref())?)?;
    let bytes = encode(&snapshot);
    let unwritable = |error: std::io::Error| {
        let reason = format!("{}: {error}", args.file.display());
        Failure::local("endorsements.unwritable", reason, "name a file in a directory where you may write")
    };
    if args.file.as_os_str() == "-" {
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes).and_then(|()| out.flush()).map_err(unwritable)?;
    } else {
        if args.file.exists() && !args.force {
            let reason = format!("{} exists", args.file.display());
            return Err(Failure::usage("endorsements.exists", reason, "name another file, or give --force"));
        }
        let mut name = args.file.as_os_str().to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let part = Path::new(&name);
        let written = fs::File::create(part)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(part, &args.file));
        if let Err(error) = written {
            // What is left of it says nothing.
            let _ = fs::remove_file(part);
            return Err(unwritable(error));
        }
    }
    let dropped: Vec<Failed> = loaded.dropped.iter().map(|(key, refusal)| Failed::refused(key, refusal)).collect();
    dropped.iter().for_each(|dropped| dropped.show(terminal));
    terminal.say(format!(
        "{} endorsements, {} in {}",
        snapshot.len(),
        human_bytes(bytes.len() as u64),
        printable(args.file.display())
    ));
    let code = if dropped.is_empty() && loaded.damaged.is_empty() { exit::OK } else { exit::REFUSED };
    terminal.document(&json!({
        "file": args.file.display().to_string(),
        "items": snapshot.len(),
        "bytes": bytes.len(),
        "digest": data_encoding::HEXLOWER.encode(snapshot.digest()),
        "refused": dropped.iter().map(Failed::document).collect::<Vec<_>>(),
        "exit_code": code,
    }));
    Ok(code)
}

fn import(terminal: &Terminal, args: &ImportArgs) -> Result<u8, Failure> {
    let now_s = at_s(args.at.as_deref())?;
    let bundle = bundle(&args.file)?;
    let (store, _) = open(&args.trust, &args.dir, now_s)?;
    let refused = store.import(&bundle, now_s).map_err(|error| unwritable(&error))?;
    let refused: Vec<Failed> = refused.iter().map(|(key, refusal)| Failed::refused(key, refusal)).collect();
    refused.iter().for_each(|refused| refused.show(terminal));
    let snapshot = store.snapshot();
    let taken = bundle.candidates().len() - refused.len();
    terminal.result(format!("{taken} taken, {} refused, {} kept", refused.len(), snapshot.len()));
    let code = if refused.is_empty() { exit::OK } else { exit::REFUSED };
    terminal.document(&json!({
        "dir": args.dir.display().to_string(),
        "taken": taken,
        "refused": refused.iter().map(Failed::document).collect::<Vec<_>>(),
        "items": snapshot.len(),
        "digest": data_encoding::HEXLOWER.encode(snapshot.digest()),
        "bundle_digest": data_encoding::HEXLOWER.encode(bundle.digest()),
        "exit_code": code,
    }));
    Ok(code)
}
