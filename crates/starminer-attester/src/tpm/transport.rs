//! The way to a TPM: the kernel's resource manager, or the socket of an emulator. Whole commands out, whole responses
//! in.
//!
//! Reads and writes block, on a thread of their own, so that a caller waits no longer than its deadline. A deadline
//! that passed ends the connection: whatever still came would be the answer to a question nobody waits for. A socket is
//! shut down, which frees the thread; a device's thread stays in the kernel until the driver gives up, and
//! [`CONNECTIONS_MAX`] bounds how many can.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    str::FromStr,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use zeroize::Zeroizing;

use super::wire::FRAME_BYTES_MAX;

/// Bytes of tag, size and code before every command and response.
pub(super) const HEADER_BYTES: usize = 10;

/// Connections of one process, those included that were given up and whose thread waits for the kernel.
const CONNECTIONS_MAX: usize = 32;

static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// One of [`CONNECTIONS_MAX`].
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let more = |count| (count < CONNECTIONS_MAX).then_some(count + 1);
        CONNECTIONS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a TPM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmAddress {
    /// A device of the kernel's resource manager: `/dev/tpmrm0`. It keeps users apart and cleans up after each.
    Device(PathBuf),
    /// An emulator's data socket (`swtpm socket --server type=unixio,path=…`). It has one user at a time, which cleans
    /// up what the last one left.
    Unix(PathBuf),
    /// The same over TCP.
    Tcp(SocketAddr),
}

impl TpmAddress {
    /// The resource manager of a machine's first TPM.
    #[must_use]
    pub fn system() -> Self {
        Self::Device(PathBuf::from("/dev/tpmrm0"))
    }

    /// Whether nobody but its user cleans up.
    pub(super) const fn is_plain(&self) -> bool {
        !matches!(self, Self::Device(_))
    }
}

impl fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => path.display().fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

/// Not the address of a TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the address of a TPM is a device (/dev/tpmrm0), unix: and the path of a socket, or tcp: with an IP address and port"
)]
pub struct ParseTpmAddressError;

/// As it is displayed: `/dev/tpmrm0`, `unix:/run/tpm.sock`, `tcp:127.0.0.1:2321`. Paths have to be absolute.
impl FromStr for TpmAddress {
    type Err = ParseTpmAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = |text: &str| text.starts_with('/').then(|| PathBuf::from(text)).ok_or(ParseTpmAddressError);
        if let Some(socket) = text.strip_prefix("unix:") {
            return path(socket).map(Self::Unix);
        }
        match text.strip_prefix("tcp:") {
            Some(address) => address.parse().map(Self::Tcp).map_err(|_| ParseTpmAddressError),
            None => path(text).map(Self::Device),
        }
    }
}

/// An open connection.
enum Stream {
    Device(File),
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// What frees a thread that waits.
enum Stop {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stop {
    fn stop(&self) {
        // An error says that the connection is gone, which is what is wanted.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Stream {
    fn open(address: &TpmAddress, within: Duration) -> io::Result<(Self, Option<Stop>)> {
        Ok(match address {
            TpmAddress::Device(path) => (Self::Device(OpenOptions::new().read(true).write(true).open(path)?), None),
            TpmAddress::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                let stop = Stop::Unix(stream.try_clone()?);
                (Self::Unix(stream), Some(stop))
            }
            TpmAddress::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, within)?;
                stream.set_nodelay(true)?;
                let stop = Stop::Tcp(stream.try_clone()?);
                (Self::Tcp(stream), Some(stop))
            }
        })
    }

    /// The kernel wants a command in one write, which `write_all` does as long as all of it is taken.
    fn exchange(&mut self, command: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Device(stream) => stream.write_all(command),
            Self::Unix(stream) => stream.write_all(command),
            Self::Tcp(stream) => stream.write_all(command),
        }?;
        match self {
            Self::Device(stream) => read_response(stream),
            Self::Unix(stream) => read_response(stream),
            Self::Tcp(stream) => read_response(stream),
        }
    }
}

fn read_response(stream: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut response = Zeroizing::new(vec![0; FRAME_BYTES_MAX]);
    let mut filled = 0;
    let mut wanted = HEADER_BYTES;
    while filled < wanted {
        let free = response.get_mut(filled..).filter(|free| !free.is_empty()).ok_or_else(|| bad("too long"))?;
        filled += match stream.read(free) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        if let (true, Some(size)) = (filled >= HEADER_BYTES, response.get(2..6).and_then(|size| size.try_into().ok())) {
            wanted = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
            if !(HEADER_BYTES..=FRAME_BYTES_MAX).contains(&wanted) {
                return Err(bad("a response of a size that no TPM sends"));
            }
        }
    }
    if filled > wanted {
        return Err(bad("bytes behind a response"));
    }
    response.truncate(filled);
    Ok(response)
}

type Response = io::Result<Zeroizing<Vec<u8>>>;

/// A connection, and the thread that reads and writes it.
pub(super) struct Transport {
    commands: Option<SyncSender<Zeroizing<Vec<u8>>>>,
    responses: Receiver<Response>,
    stop: Option<Stop>,
}

/// No response.
pub(super) enum Fault {
    Io(io::Error),
    Deadline,
    Busy,
}

impl Transport {
    pub(super) fn open(address: &TpmAddress, within: Duration) -> Result<Self, Fault> {
        let (commands, asked) = sync_channel::<Zeroizing<Vec<u8>>>(1);
        let (answer, responses) = sync_channel(1);
        let (opened, open) = sync_channel(1);
        let address = address.clone();
        let slot = Slot::take().ok_or(Fault::Busy)?;
        thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || {
                let _slot = slot;
                let mut stream = match Stream::open(&address, within) {
                    Ok((stream, stop)) => {
                        if opened.send(Ok(stop)).is_err() {
                            return;
                        }
                        stream
                    }
                    Err(error) => {
                        // Nobody may be waiting any more.
                        let _ = opened.send(Err(error));
                        return;
                    }
                };
                while let Ok(command) = asked.recv() {
                    let response = stream.exchange(&command);
                    let broken = response.is_err();
                    if answer.send(response).is_err() || broken {
                        return;
                    }
                }
            })
            .map_err(Fault::Io)?;
        let stop = match open.recv_timeout(within) {
            Ok(stop) => stop.map_err(Fault::Io)?,
            Err(RecvTimeoutError::Timeout) => return Err(Fault::Deadline),
            Err(RecvTimeoutError::Disconnected) => return Err(Fault::Io(io::ErrorKind::BrokenPipe.into())),
        };
        Ok(Self { commands: Some(commands), responses, stop })
    }

    /// One command, one response. After a fault the connection is ended.
    pub(super) fn exchange(
        &mut self,
        command: Zeroizing<Vec<u8>>,
        within: Duration,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let gone = || Fault::Io(io::ErrorKind::NotConnected.into());
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        let response = match commands.send(command) {
            Ok(()) => self.responses.recv_timeout(within),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        let fault = match response {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => Fault::Io(error),
            Err(RecvTimeoutError::Disconnected) => gone(),
            Err(RecvTimeoutError::Timeout) => Fault::Deadline,
        };
        self.end();
        Err(fault)
    }

    pub(super) const fn is_open(&self) -> bool {
        self.commands.is_some()
    }

    /// Ends the connection.
    pub(super) fn end(&mut self) {
        self.commands = None;
        if let Some(stop) = &self.stop {
            stop.stop();
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&[u8]], expect: Result<usize, io::ErrorKind>) {
        struct Chunks<'a>(std::slice::Iter<'a, &'a [u8]>);
        impl Read for Chunks<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let Some(chunk) = self.0.next() else { return Ok(0) };
                buffer[..chunk.len()].copy_from_slice(chunk);
                Ok(chunk.len())
            }
        }
        let response = read_response(&mut Chunks(chunks.iter()));
        assert_eq!(response.as_ref().map(|response| response.len()).map_err(io::Error::kind), expect, "{chunks:?}");
    }

    #[test]
    fn responses_are_whole_and_bounded() {
        use io::ErrorKind::{InvalidData, UnexpectedEof};
        let header = |size: u32| [&[0x80, 1][..], &size.to_be_bytes(), &[0; 4]].concat();
        check(&[&header(10)], Ok(10));
        check(&[&header(12), &[1, 2]], Ok(12));
        check(&[&header(12)[..3], &header(12)[3..], &[1], &[2]], Ok(12));
        check(&[], Err(UnexpectedEof));
        check(&[&header(12), &[1]], Err(UnexpectedEof));
        check(&[&header(10), &[]], Ok(10));
        for size in [0, 9, 4097, u32::MAX] {
            check(&[&header(size)], Err(InvalidData));
        }
        check(&[&[header(10), vec![1]].concat()], Err(InvalidData));
        check(&[&header(4096), &[0; 4086]], Ok(4096));
    }
}
