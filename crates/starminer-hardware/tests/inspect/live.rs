//! A quote of a running TPM whose registers real logs were extended into: the one is explained by the other, and by no other.

use std::fmt::Write as _;

use starminer_hardware::event_log::{Bank, EventLog};
use starminer_hardware::ima::MeasurementList;
use starminer_hardware::inspect::{Eventlog, File, Inspection, Tpm as Given, eventlog, tpm};

use crate::emulator::Tpm;
use crate::{NOW_S, at, file, policy, refused, shown, under, vector, verified};

const LOG: &str = "eventlog/keylime_secureboot_on.bin";
const NONCE: [u8; 4] = [1, 2, 3, 4];
/// How many entries are extended: the kernel goes on after the quote.
const QUOTED_ENTRIES: usize = 20;

struct Quoted {
    quote: File,
    signature: File,
    ak: File,
    pcrs: File,
}

impl Quoted {
    fn judge(&self, pcrs: Option<&File>, eventlog: Option<&File>, ima: Option<&File>) -> Inspection {
        tpm(&self.given(pcrs, eventlog, ima), &at(NOW_S))
    }

    fn given<'a>(&'a self, pcrs: Option<&'a File>, eventlog: Option<&'a File>, ima: Option<&'a File>) -> Given<'a> {
        Given { quote: &self.quote, signature: &self.signature, ak: &self.ak, nonce: &NONCE, pcrs, eventlog, ima }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Extends what the logs say, as firmware and kernel would have.
fn extend(machine: &Tpm, log: &File, list: &File) {
    let mut call = "tpm2_pcrextend".to_owned();
    let log = EventLog::parse(&log.bytes).unwrap();
    for event in log.events().filter(|event| event.extends()) {
        write!(call, " {}:", event.register).unwrap();
        let banks = [Bank::Sha1, Bank::Sha256].into_iter();
        let digests = banks.filter_map(|bank| Some(format!("{}={}", bank.name(), hex(event.digest(bank)?))));
        call += &digests.collect::<Vec<_>>().join(",");
    }
    let list = MeasurementList::parse(&list.bytes).unwrap();
    for entry in list.entries().take(QUOTED_ENTRIES) {
        let digests = [Bank::Sha1, Bank::Sha256].map(|bank| (bank, bank.hash(&[&entry.data])));
        let digests = digests.map(|(bank, digest)| format!("{}={}", bank.name(), digest.to_hex()));
        write!(call, " 10:{}", digests.join(",")).unwrap();
    }
    machine.run(&call);
}

#[test]
fn logs_explain_the_quote_that_they_belong_to() {
    let (Some(log), Some(list)) = (vector(LOG), vector("ima/ascii_runtime_measurements")) else { return };
    let Some(machine) = Tpm::start() else { return };
    // Without the first entry, which is about the registers of the machine where the list was made.
    let lines: Vec<&[u8]> = list.bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let quoted_list = file("ima", lines[1..=QUOTED_ENTRIES].concat());
    let longer_list = file("ima", lines[1..40].concat());
    extend(&machine, &log, &longer_list);
    machine.run("tpm2_createek -c 0x81010009 -G rsa -u ek.pub");
    machine.run("tpm2_createak -C 0x81010009 -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pub -n ak.name");
    machine.run("tpm2_flushcontext -t");
    machine.run("tpm2_quote -c ak.ctx -l sha256:0,1,2,3,4,5,6,7,10 -q 01020304 -m q.msg -s q.sig -o q.pcrs -g sha256");
    let part = |name: &str| file(name, machine.file(name));
    let quoted = Quoted { quote: part("q.msg"), signature: part("q.sig"), ak: part("ak.pub"), pcrs: part("q.pcrs") };

    // Tools and we agree on what the log comes to: their file is read by `appraise eventlog`, too.
    let alone = eventlog(&Eventlog { log: &log, pcrs: Some(&quoted.pcrs) }, &at(NOW_S));
    assert!(verified(&alone)["anchored"].is_object());

    let pcrs = Some(&quoted.pcrs);
    let inspection = quoted.judge(pcrs, Some(&log), Some(&longer_list));
    let claims = verified(&inspection);
    assert_eq!(claims["eventlog"]["secure_boot"], true);
    assert_eq!(claims["ima"]["entries"], QUOTED_ENTRIES);
    assert_eq!(claims["ima"]["entries_not_vouched"], 39 - QUOTED_ENTRIES);
    assert!(shown(&inspection, "eventlog.registers").starts_with("pass"));

    // Nobody gave the values: the logs lead to them, if they are those of the quote.
    let inspection = quoted.judge(None, Some(&log), Some(&quoted_list));
    assert_eq!(verified(&inspection)["eventlog"]["secure_boot"], true);
    assert!(shown(&inspection, "tpm.pcr-values").starts_with("pass"));
    refused(&quoted.judge(None, Some(&log), Some(&longer_list)), "tpm.ima", "--pcrs");
    refused(&quoted.judge(None, Some(&log), None), "tpm.eventlog", "--pcrs");

    // Of another boot, altered, or of a list that ends too early.
    let other = vector("eventlog/ubuntu-2104-no-secure-boot.bin").unwrap();
    refused(&quoted.judge(pcrs, Some(&other), None), "eventlog.registers.sha256", "");
    refused(&quoted.judge(None, Some(&other), Some(&quoted_list)), "tpm.eventlog", "--pcrs");
    let short = file("ima", lines[1..QUOTED_ENTRIES].concat());
    refused(&quoted.judge(pcrs, None, Some(&short)), "ima.registers", "");
    let digest = EventLog::parse(&log.bytes).unwrap().events().nth(3).unwrap().digest(Bank::Sha256).unwrap().to_vec();
    let at_byte = log.bytes.windows(digest.len()).position(|bytes| bytes == digest).unwrap();
    let mut altered = log.clone();
    altered.bytes[at_byte] ^= 1;
    refused(&quoted.judge(pcrs, Some(&altered), None), "eventlog.registers.sha256", "");
    refused(&quoted.judge(None, Some(&altered), Some(&quoted_list)), "tpm.eventlog", "--pcrs");

    // A policy of three sections, that is shown all it asks for.
    let asked = policy(
        "[tpm]\npcr_values_unset = \"not-checked\"\n\
         [eventlog]\npcrs = \"any\"\nboot_applications = \"any\"\noption_roms = \"any\"\nrevoked = \"any\"\n\
         [ima]\nfiles = \"any\"\nboot_aggregate = \"any\"\n",
    );
    let judge = |eventlog, ima| tpm(&quoted.given(pcrs, eventlog, ima), &under(&asked, NOW_S));
    refused(&judge(Some(&log), None), "tpm.ima", "no list was given");
    let inspection = judge(Some(&log), Some(&longer_list));
    assert!(shown(&inspection, "eventlog.policy.secure-boot").starts_with("pass"));
    verified(&inspection);
}
