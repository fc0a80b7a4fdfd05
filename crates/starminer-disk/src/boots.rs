//! Whether an old disk, or an old state of the TPM, was put back: both count starts, and the TPM's counter never goes back.
//!
//! A start writes its number to the disk as *announced*, counts the TPM up, and writes it as *counted*. So power may fail between any two steps, and what is found
//! then is told from what somebody put back. Within one start nothing is told apart: what a disk was at any moment of the last start passes for what it
//! was at the last (`specs/disk.md`, "Rollback").

use serde::{Deserialize, Serialize};

/// The number of a start, as the disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The disk says so; the TPM may not have counted yet.
    Announced,
    /// So does the TPM.
    Counted,
}

/// What to do at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Announce this number, count, write it as counted.
    Announce(u64),
    /// The power failed after this number was announced and before it was counted: count, write it as counted.
    Count(u64),
}

/// What was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// The disk is older than the TPM.
    Disk,
    /// The TPM is older than the disk.
    Tpm,
}

/// What follows from the number on the disk and the TPM's count.
///
/// # Errors
/// Which of them was put back.
pub const fn decide(disk: u64, stage: Stage, tpm: u64) -> Result<Step, Rollback> {
    // A counter of 64 bits does not come to its end.
    let next = tpm.saturating_add(1);
    if disk < tpm {
        Err(Rollback::Disk)
    } else if disk == tpm {
        // Of one that was announced, the TPM has counted and the last word was not written.
        Ok(Step::Announce(next))
    } else if disk == next && matches!(stage, Stage::Announced) {
        Ok(Step::Count(next))
    } else {
        Err(Rollback::Tpm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_where_power_fails_is_told_from_what_was_put_back() {
        use Stage::{Announced, Counted};
        for (disk, stage, tpm, wanted) in [
            (7, Counted, 7, Ok(Step::Announce(8))),
            // Power failed after announcing, and after counting.
            (8, Announced, 7, Ok(Step::Count(8))),
            (8, Announced, 8, Ok(Step::Announce(9))),
            // An old disk, by one start and by many.
            (7, Counted, 8, Err(Rollback::Disk)),
            (7, Announced, 8, Err(Rollback::Disk)),
            (1, Counted, 900, Err(Rollback::Disk)),
            (0, Counted, 1, Err(Rollback::Disk)),
            // An old TPM: by one start it differs from a failed announcement in the stage alone.
            (8, Counted, 7, Err(Rollback::Tpm)),
            (9, Announced, 7, Err(Rollback::Tpm)),
            (9, Counted, 7, Err(Rollback::Tpm)),
            (u64::MAX, Counted, 7, Err(Rollback::Tpm)),
            (0, Counted, u64::MAX, Err(Rollback::Disk)),
        ] {
            assert_eq!(decide(disk, stage, tpm), wanted, "disk {disk} {stage:?}, TPM {tpm}");
        }
    }

    /// Plays starts with the power failing after every number of steps, and whatever was kept put back at every moment.
    #[test]
    fn whatever_was_kept_before_the_last_start_is_refused() {
        #[derive(Clone, Copy)]
        struct World {
            disk: (u64, Stage),
            tpm: u64,
        }
        // One start, in as many of its steps as there is power for.
        fn start(world: &mut World, power: u32) -> Result<(), Rollback> {
            let mut left = power;
            let mut on = || left.checked_sub(1).map(|less| left = less).is_some();
            let step = decide(world.disk.0, world.disk.1, world.tpm)?;
            let number = match step {
                Step::Announce(number) | Step::Count(number) => number,
            };
            if matches!(step, Step::Announce(_)) && on() {
                world.disk = (number, Stage::Announced);
            } else if matches!(step, Step::Announce(_)) {
                return Ok(());
            }
            if on() {
                world.tpm += 1;
            } else {
                return Ok(());
            }
            if on() {
                world.disk = (number, Stage::Counted);
            }
            Ok(())
        }
        for powers in 0..4_u32.pow(4) {
            let mut world = World { disk: (5, Stage::Counted), tpm: 5 };
            let mut kept = vec![world];
            for at in 0..4 {
                let power = powers / 4_u32.pow(at) % 4;
                assert!(start(&mut world, power).is_ok(), "{powers}: an honest start {at} was refused");
                kept.push(world);
            }
            for (at, old) in kept.iter().enumerate() {
                let mut put_back = World { disk: old.disk, tpm: world.tpm };
                let refused = start(&mut put_back, 3).is_err();
                // Numbers that the TPM has left behind are refused, and no other.
                assert_eq!(refused, old.disk.0 < world.tpm, "{powers}: the disk of {at}");
                let mut put_back = World { disk: world.disk, tpm: old.tpm };
                let refused = start(&mut put_back, 3).is_err();
                let crashed = world.disk == (old.tpm + 1, Stage::Announced);
                assert_eq!(refused, old.tpm < world.disk.0 && !crashed, "{powers}: the TPM of {at}");
            }
        }
    }
}
