//! A trust domain's run-time measurement registers, computed again from a log of what was measured into them.

use crate::{Checks, Verdict, Weight};

use super::verify::Verified;

/// One of the four registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rtmr(u8);

impl Rtmr {
    /// All four.
    pub const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    /// The register that an event log of confidential computing (CCEL) means by this number: 1 to 4 are RTMR 0 to 3, and 0 is MRTD, which no
    /// event extends.
    #[must_use]
    pub const fn from_ccel(index: u32) -> Option<Self> {
        match index {
            1..=4 => Some(Self((index - 1) as u8)),
            _ => None,
        }
    }

    /// Its number, 0 to 3.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

/// What the registers hold after these events: each extends its register with a SHA-384 digest, from zeros.
#[must_use]
pub fn rtmr_replay(events: impl IntoIterator<Item = (Rtmr, [u8; 48])>) -> [[u8; 48]; 4] {
    let mut registers = [[0; 48]; 4];
    for (register, digest) in events {
        let value = &mut registers[register.number()];
        let mut extended = [0; 96];
        extended[..48].copy_from_slice(value);
        extended[48..].copy_from_slice(&digest);
        value.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, &extended).as_ref());
    }
    registers
}

/// Whether a log's replayed registers are those of the quote, each with a check of its own.
///
/// A log that replays is the log of this boot. It says nothing about registers that no event extends: those are zero in both.
#[must_use]
pub fn check_rtmrs(verified: &Verified, replayed: &[[u8; 48]; 4]) -> Checks {
    const NAMES: [&str; 4] = ["dcap.rtmr-replay.0", "dcap.rtmr-replay.1", "dcap.rtmr-replay.2", "dcap.rtmr-replay.3"];
    let mut checks = Checks::new();
    let quoted = verified.claims().tdx().map(|td| &td.rtmrs);
    for (number, name) in NAMES.into_iter().enumerate() {
        match quoted {
            None => {
                checks.push(
                    name,
                    Verdict::Fail,
                    Weight::Required,
                    "an SGX enclave has no registers that a log could explain",
                );
            }
            Some(quoted) if quoted[number] == replayed[number] => {
                checks.push(name, Verdict::Pass, Weight::Required, "the log's events lead to the quoted value");
            }
            Some(quoted) => {
                let hex = |value| data_encoding::HEXLOWER.encode(value);
                checks.push(
                    name,
                    Verdict::Fail,
                    Weight::Required,
                    format!(
                        "the log's events lead to {}, the quote has {}: the log is of another boot, or was altered",
                        hex(&replayed[number]),
                        hex(&quoted[number])
                    ),
                );
            }
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_extends_its_register() {
        assert_eq!(rtmr_replay([]), [[0; 48]; 4]);
        let once = rtmr_replay([(Rtmr::from_ccel(2).expect("RTMR 1"), [7; 48])]);
        assert_eq!(once[0], [0; 48]);
        let expected = [[0u8; 48], [7; 48]].concat();
        assert_eq!(once[1], aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA384, &expected).as_ref());
        let ab = rtmr_replay([(Rtmr::ALL[3], [1; 48]), (Rtmr::ALL[3], [2; 48])]);
        let ba = rtmr_replay([(Rtmr::ALL[3], [2; 48]), (Rtmr::ALL[3], [1; 48])]);
        assert_ne!(ab, ba, "the order counts");
        assert_eq!((Rtmr::from_ccel(0), Rtmr::from_ccel(5)), (None, None));
    }
}
