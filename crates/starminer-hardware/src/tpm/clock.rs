//! Two quotes of one TPM: did anything happen in between? For closing evidence, and for attestation that goes on between tasks.

use super::{HashAlg, PcrIndex, Verified};
use crate::Checks;

/// Compares an earlier quote with a later one of the same key. All checks hold if the TPM was neither reset nor restarted (a boot, a resume,
/// power lost), its clock went on, its firmware is the same, and no PCR changed but those that `may_change` (IMA's PCR 10, say).
///
/// Resets and restarts are counted by the TPM; a clock that is not *safe* may have gone back over a loss of power, which the reset count
/// shows: so only the change from safe to unsafe is refused here, and [`super::Policy::clock_safe`] asks for more.
#[must_use]
pub fn continuity(earlier: &Verified, later: &Verified, may_change: &[(HashAlg, PcrIndex)]) -> Checks {
    let mut checks = Checks::new();
    let (before, after) = (earlier.attest.clock, later.attest.clock);
    let mut same = |name: &'static str, is: bool, pass: &'static str, fail: &'static str| {
        checks.require(name, if is { Ok(pass) } else { Err(fail) })
    };
    same(
        "tpm.same-ak",
        earlier.key == later.key && earlier.attest.qualified_signer == later.attest.qualified_signer,
        "both quotes are by one key",
        "the quotes are by two keys: their clocks and counters cannot be compared",
    );
    same(
        "tpm.reset-count",
        before.reset_count == after.reset_count,
        "no reset in between",
        "the machine was reset in between",
    );
    same(
        "tpm.restart-count",
        before.restart_count == after.restart_count,
        "no restart in between",
        "the machine was suspended or resumed in between",
    );
    same(
        "tpm.clock-advanced",
        before.clock_ms < after.clock_ms,
        "the TPM's clock went on",
        "the TPM's clock did not go on: an old quote, or a clock taken back",
    );
    same(
        "tpm.clock-safe",
        after.safe || !before.safe,
        "as safe as it was",
        "the clock became unsafe in between: power was lost",
    );
    same(
        "tpm.firmware-unchanged",
        earlier.attest.firmware_version == later.attest.firmware_version,
        "the TPM's firmware is the same",
        "the TPM's firmware changed in between",
    );
    pcrs_unchanged(&mut checks, earlier, later, may_change);
    checks
}

fn pcrs_unchanged(checks: &mut Checks, earlier: &Verified, later: &Verified, may_change: &[(HashAlg, PcrIndex)]) {
    const NAME: &str = "tpm.pcrs-unchanged";
    let (before, after) = (&earlier.attest, &later.attest);
    if before.selections != after.selections {
        checks.require(NAME, Err("the quotes are about different PCRs"));
        return;
    }
    if before.pcr_digest == after.pcr_digest && earlier.ak.scheme == later.ak.scheme {
        checks.require(NAME, Ok("no PCR changed"));
        return;
    }
    let (Some(old), Some(new)) = (&earlier.pcrs, &later.pcrs) else {
        checks.require(NAME, Err("some PCR changed; without the values nobody knows which"));
        return;
    };
    let free = |bank: HashAlg, index: u8| may_change.iter().any(|(free, pcr)| *free == bank && pcr.get() == index);
    let changed: Vec<String> = new
        .iter()
        .filter(|(bank, index, value)| !free(*bank, *index) && old.value(*bank, *index) != Some(*value))
        .map(|(bank, index, _)| format!("{}:{index}", bank.name()))
        .collect();
    checks.require(
        NAME,
        if changed.is_empty() {
            Ok("only PCRs changed that may".to_owned())
        } else {
            Err(format!("changed: {}", changed.join(", ")))
        },
    );
}
