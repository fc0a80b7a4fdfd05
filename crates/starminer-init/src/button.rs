//! The power button: the host's wish that the machine goes down in order. It may pull the plug as well, which costs the tasks that run.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// Where the kernel shows buttons and keys (Documentation/input/input.rst).
const DEVICES: &str = "/dev/input";
/// `struct input_event` on machines of 64 bits: time, type, code, value.
const EVENT_BYTES: usize = 24;
/// `EV_KEY` and `KEY_POWER` (input-event-codes.h).
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Asks the agent to stop when the button is pressed; again and again, for whoever presses it twice. Machines without a button have none.
pub fn watch(agent: Pid) {
    for device in devices() {
        // A thread for each: they wait in the kernel, and there are two or three. Without one the button does nothing, as on a machine without.
        let _ = thread::Builder::new().name("button".into()).spawn(move || {
            let Ok(mut device) = File::open(device) else { return };
            while let Ok(pressed) = next(&mut device) {
                if pressed {
                    crate::say("the power button is pressed: the agent is asked to stop");
                    // It may be gone already; then so is the machine soon.
                    let _ = kill_process(agent, Signal::TERM);
                }
            }
        });
    }
}

fn devices() -> Vec<PathBuf> {
    let entries = fs::read_dir(DEVICES).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"event"))
        .map(|entry| entry.path())
        .collect()
}

/// Whether the next event is the power button going down.
fn next(device: &mut impl io::Read) -> io::Result<bool> {
    let mut event = [0; EVENT_BYTES];
    device.read_exact(&mut event)?;
    Ok(is_press(&event))
}

fn is_press(event: &[u8; EVENT_BYTES]) -> bool {
    let half = |place: usize| u16::from_ne_bytes([event[place], event[place + 1]]);
    (half(16), half(18)) == (EV_KEY, KEY_POWER) && event[20..] == 1i32.to_ne_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_press_is_the_power_key_going_down() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = vec![7; 16];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(code.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
            bytes
        };
        let stream: Vec<u8> = [
            event(EV_KEY, KEY_POWER, 1),
            event(EV_KEY, KEY_POWER, 0),
            event(0, 0, 0),
            event(EV_KEY, 30, 1),
            event(EV_KEY, KEY_POWER, 2),
        ]
        .concat();
        let mut stream = &stream[..];
        assert_eq!([(); 5].map(|()| next(&mut stream).unwrap()), [true, false, false, false, false]);
        assert!(next(&mut stream).is_err(), "the device is gone");
    }
}
