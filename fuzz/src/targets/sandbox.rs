//! Targets of `starminer-sandbox`: what comes over the socket from a task process that a guest may have broken into.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use starminer_sandbox::{Channel, ChannelError, InForce, MAX_MESSAGE_BYTES, Protection};

use crate::Outcome;
use crate::seeds::Seed;

/// What fits into the buffer of a socket that nobody reads yet.
const MAX_WRITTEN_BYTES: usize = 32 * 1024;

/// The bodies of the frames that stand in `data`, by the description of the format alone; and what is left.
fn frames(mut data: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut bodies = Vec::new();
    while let Some((header, rest)) = data.split_first_chunk::<8>() {
        let [a, b, c, d, kind, descriptors, reserved @ ..] = *header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if kind != 0 || descriptors != 0 || reserved != [0, 0] || length > MAX_MESSAGE_BYTES {
            break;
        }
        let Some((body, rest)) = rest.split_at_checked(length) else { break };
        bodies.push(body);
        data = rest;
    }
    (bodies, data)
}

pub fn channel(data: &[u8]) -> Outcome {
    let data = &data[..data.len().min(MAX_WRITTEN_BYTES)];
    let (mut ours, theirs) = Channel::pair().expect("a socket pair");
    let mut socket = UnixStream::from(theirs.as_fd().try_clone_to_owned().expect("a descriptor"));
    drop(theirs);
    socket.write_all(data).expect("room in the socket's buffer");
    drop(socket);
    let (bodies, rest) = frames(data);
    for body in &bodies {
        let message = ours.recv_timeout(Duration::from_secs(5)).expect("a whole frame");
        assert_eq!(message.bytes, *body);
        assert!(message.fds.is_empty());
    }
    let end = ours.recv_timeout(Duration::from_secs(5)).expect_err("the other end is closed");
    if rest.is_empty() {
        assert!(matches!(end, ChannelError::Closed));
    } else {
        assert!(matches!(end, ChannelError::Malformed(_)), "{end}");
        let again = ours.try_recv().expect_err("nothing after a broken frame is a message");
        assert_eq!(again.to_string(), end.to_string());
    }
    let reached = (bodies.len().min(3), end.to_string());
    if bodies.is_empty() { Outcome::refused(reached) } else { Outcome::accepted(reached) }
}

pub fn in_force(data: &[u8]) -> Outcome {
    match InForce::decode(data) {
        Ok(found) => {
            // A reason is text for people: once written it is one line, and stays as it is from then on.
            let written = found.encode();
            let again = InForce::decode(&written).expect("what was written can be read");
            assert_eq!(again.encode(), written);
            for protection in Protection::ALL {
                assert_eq!(again.state(protection).is_in_force(), found.state(protection).is_in_force());
            }
            assert_eq!(found.iter().count(), Protection::ALL.len());
            let states = Protection::ALL.map(|protection| found.state(protection).is_in_force());
            Outcome::accepted(states)
        }
        Err(error) => Outcome::refused(error.to_string()),
    }
}

pub(crate) fn seeds() -> Vec<Seed> {
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], &[0; 4], body].concat();
    let names = |reason: &str| Protection::ALL.map(|protection| format!("{protection}{reason}\n")).concat();
    let seed = |target, name: &str, bytes: Vec<u8>| (target, name.to_owned(), bytes);
    vec![
        seed("sandbox-channel", "one", frame(br#""started""#)),
        seed("sandbox-channel", "three", [frame(b"a"), frame(b""), frame(b"ccc")].concat()),
        seed("sandbox-channel", "cut", frame(b"long")[..9].to_vec()),
        seed("sandbox-in-force", "all", names("").into_bytes()),
        seed("sandbox-in-force", "none", names("\tnot in this kernel").into_bytes()),
    ]
}
