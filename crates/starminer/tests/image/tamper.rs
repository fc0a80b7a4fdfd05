//! What an operator may change, and what is seen of it: parts of the image, the log, the machine's memory.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use starminer_verify::{OperatorMayReadMemory, Policy, Tier};

use crate::machine::{Firmware, Lab, Machine};
use crate::support::{Network, runtime, starminer, text};
use crate::{coordinator, rules};

/// Firmware starts each of these images, as they are signed by its key; appraisal says what is other about it. Only one byte of one input is.
#[test]
fn a_changed_byte_is_named() {
    let Some(lab) = Lab::new() else { return };
    let image = lab.build("image", "db", &[]);
    let (network, trust) = coordinator(&lab, &image);
    let command_line = starminer_image::COMMAND_LINE.replace("panic=-1", "panic=-2");
    let [kernel, modules, init] = [lab.kernel_with_another_byte(), lab.modules(), lab.init_with_another_byte()];
    let changes: [(&str, &[&str], &str); 3] = [
        ("kernel", &["--kernel", &kernel, "--modules", &modules], "the kernel (.linux) in register 11"),
        ("initrd", &["--init", &init], "the initial file system (.initrd) in register 11"),
        ("command-line", &["--command-line", &command_line], "the command line (.cmdline) in register 11"),
    ];
    for (name, options, named) in changes {
        let other = lab.build(name, "db", options);
        let before = network.log("coordinator").len();
        let mut machine = lab.boot(&other.join("starminer-node.signed.efi"), Firmware::ChecksKeys, Some(&trust));
        let admitted = machine.wait_for("the node is admitted");
        assert!(admitted.contains(r#"tier="identified" provenance="simulated""#), "{name}: {admitted}");
        let told = machine.wait_for("what this node runs is not what the network's reference values name");
        assert!(told.contains(named), "{name}: {told}");
        let log = network.log("coordinator");
        let said = log[before..].lines().find(|line| line.contains("matches no reference value"));
        let said = said.unwrap_or_else(|| panic!("{name}: {}", &log[before..]));
        assert!(said.contains(named), "{name}: {said}");
        assert!(said.contains("a boot program in register 4"), "{name}: {said}");
        assert!(said.contains("not as in starminer-node "), "{name}: {said}");
        let others = changes.iter().filter(|change| change.2 != named);
        others.for_each(|change| assert!(!said.contains(change.2), "{name}: {said}"));
        assert!(!said.contains("firmware"), "{name}: {said}");
    }
}

/// One part of evidence, taken apart.
struct Quoted {
    attest: Vec<u8>,
    signature: Vec<u8>,
    ak: Vec<u8>,
    /// Of registers 0 to 12.
    registers: Vec<String>,
    log: Vec<u8>,
}

impl Quoted {
    /// From a receipt.
    fn of(receipt: &Path) -> Self {
        let receipt: Value = serde_json::from_slice(&fs::read(receipt).unwrap()).unwrap();
        let evidence = BASE64.decode(receipt["evidence"].as_str().unwrap().as_bytes()).unwrap();
        let evidence: Value = serde_json::from_slice(&evidence).unwrap();
        let report = |kind: &str| {
            let part = evidence["parts"].as_array().unwrap().iter().find(|part| part["kind"] == kind);
            BASE64.decode(part.unwrap()["report"].as_str().unwrap().as_bytes()).unwrap()
        };
        let tpm = starminer_verify::parts::TpmPart::parse(&report("tpm")).unwrap();
        let registers = tpm.pcr_values.chunks_exact(32).map(|value| HEXLOWER.encode(value)).collect();
        Self { attest: tpm.attest, signature: tpm.signature, ak: tpm.ak_public, registers, log: report("uefi-log") }
    }

    /// What was quoted over: behind four bytes that are always the same and two that say what it is stand the signer's name and this, each with its length in front.
    fn nonce(&self) -> String {
        let field = |at: usize| {
            let length = usize::from(u16::from_be_bytes([self.attest[at], self.attest[at + 1]]));
            (at + 2, at + 2 + length)
        };
        let (_, end_of_name) = field(6);
        let (from, to) = field(end_of_name);
        HEXLOWER.encode(&self.attest[from..to])
    }
}

/// tpm2-tools and `appraise` on what a node sent: the signature over the quote, and the log that leads to it; and neither once a bit of it is other.
pub fn second_opinion(receipt: &Path) {
    let quoted = Quoted::of(receipt);
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| text(&dir.path().join(name));
    let pcrs: serde_json::Map<String, Value> =
        quoted.registers.iter().enumerate().map(|(number, value)| (number.to_string(), json!(value))).collect();
    let mut other_quote = quoted.attest.clone();
    *other_quote.last_mut().unwrap() ^= 1;
    // The last event's digest, of the bank that is quoted, stands before the length of its data.
    let mut other_log = quoted.log.clone();
    let section = HEXLOWER.decode(last_digest(&quoted.log).as_bytes()).unwrap();
    let at = other_log.windows(section.len()).rposition(|window| window == section).unwrap();
    other_log[at] ^= 1;
    for (name, bytes) in [
        ("quote", quoted.attest.as_slice()),
        ("other-quote", &other_quote),
        ("signature", &quoted.signature),
        ("ak", &quoted.ak),
        ("log", &quoted.log),
        ("other-log", &other_log),
        ("pcrs.json", json!({ "sha256": pcrs }).to_string().as_bytes()),
    ] {
        fs::write(place(name), bytes).unwrap();
    }
    let nonce = quoted.nonce();
    let check = |quote: &str| {
        let arguments =
            ["-u", &place("ak"), "-m", &place(quote), "-s", &place("signature"), "-g", "sha256", "-q", &nonce];
        Command::new("tpm2_checkquote").args(arguments).output().unwrap()
    };
    let good = check("quote");
    assert!(good.status.success(), "{good:?}");
    assert!(!check("other-quote").status.success());

    // Its YAML ends in what registers hold.
    let run = Command::new("tpm2_eventlog").arg(place("log")).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    let replayed = String::from_utf8(run.stdout).unwrap();
    let sha256 = replayed.rsplit_once("sha256:").unwrap().1;
    let mut compared = 0;
    // Another bank may follow.
    for line in sha256.lines().map(str::trim).take_while(|line| !line.ends_with(':')) {
        let Some((number, value)) = line.split_once(" : 0x").or_else(|| line.split_once(": 0x")) else { continue };
        let number: usize = number.trim().parse().unwrap();
        assert_eq!(quoted.registers[number], value.to_lowercase(), "register {number}");
        compared += 1;
    }
    assert!(compared >= 9, "{replayed}");

    let appraise = |log: &str| {
        let quote =
            ["appraise", "tpm", "--quote", &place("quote"), "--signature", &place("signature"), "--ak", &place("ak")];
        let more = ["--nonce", &nonce, "--pcrs", &place("pcrs.json"), "--eventlog", &place(log), "--json"];
        let output = starminer(quote.iter().chain(&more));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = appraise("log");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = appraise("other-log");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the log does not lead to the given value of register"), "{said}");
}

/// The digest, of SHA-256, of the last event, by tpm2-tools' reading.
fn last_digest(log: &[u8]) -> String {
    use starminer_hardware::event_log::{Bank, EventLog};
    let log = EventLog::parse(log).unwrap();
    log.events().last().unwrap().owned_digest(Bank::Sha256).unwrap().to_hex()
}

/// How long it may take until a program runs: a machine in software on a busy machine is slow.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Where a canary stands in a program's memory, which begins with a page: so that a machine's memory is searched quickly.
const CANARY_AT: usize = 64;

/// Where no TEE encrypts memory, whoever runs the machine reads the task's plaintext out of it while it runs.
pub fn memory_shows_plaintext(network: &Network, machine: &Machine) {
    // In the program's data alone.
    let canary = format!("{}-{}", "CANARY-of-a-task-in-a-machine", std::process::id());
    let program = format!(
        r#"(module (memory (export "memory") 1) (data (i32.const {CANARY_AT}) "{canary}")
            (func (export "_start") (loop $on (br $on))))"#
    );
    assert!(!machine.memory_has(canary.as_bytes()), "before anybody knows it");
    runtime().block_on(async {
        let requester = network.requester("requester");
        let mut job = network.wasm_job(wat::parse_str(program).unwrap(), &[]);
        let mut fields = job.policy.fields().clone();
        (fields.minimum_tier, fields.operator_may_read_memory) = (Tier::Measured, OperatorMayReadMemory::Yes);
        fields.hardware = Some(Box::new(rules()));
        job.policy = Policy::new(fields).unwrap();
        job.limits.wall_limit_ms = 600_000;
        let task = requester.submit(&job, None, None).await.unwrap();
        let until = Instant::now() + TIMEOUT;
        while !machine.memory_has(canary.as_bytes()) {
            assert!(Instant::now() < until, "the plaintext is not in the machine's memory\n{}", machine.console());
            // The requester has a key to release meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let _ = requester.cancel(&task).await.unwrap();
    });
}

/// Whether a page of a process's writable memory holds these bytes where [`CANARY_AT`] says.
pub fn memory_of_process_has(pid: u32, needle: &[u8]) -> bool {
    const PAGE_BYTES: usize = 4096;
    const PIECE_BYTES: usize = 16 << 20;
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut maps = String::new();
    File::open(format!("/proc/{pid}/maps")).unwrap().read_to_string(&mut maps).unwrap();
    let mut piece = vec![0; PIECE_BYTES];
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [mut at, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        while rights.starts_with("rw") && at < to {
            let wanted = usize::try_from(to - at).unwrap().min(PIECE_BYTES);
            let Ok(read @ 1..) = memory.read_at(&mut piece[..wanted], at) else { break };
            if piece[..read].chunks_exact(PAGE_BYTES).any(|page| page[CANARY_AT..].starts_with(needle)) {
                return true;
            }
            at += read as u64;
        }
    }
    false
}
