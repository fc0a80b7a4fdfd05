//! Somebody on the way between agent and TPM: a socket of its own that passes whole commands and responses on, and may
//! read, alter, replay or keep them.

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

/// What becomes of a command.
pub enum Act {
    /// It goes on to the TPM.
    Pass,
    /// The TPM does not get it, and this comes back.
    Answer(Vec<u8>),
    /// The connections to both are ended.
    HangUp,
    /// Nothing more happens.
    Silence,
}

pub struct Interposer {
    pub socket: PathBuf,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Interposer {
    /// Listens at `name` beside the TPM's socket, until the test ends: one connection after the other, as swtpm does.
    pub fn start(
        tpm: &Path,
        name: &str,
        mut commands: impl FnMut(&mut Vec<u8>) -> Act + Send + 'static,
        mut responses: impl FnMut(&[u8], &mut Vec<u8>) + Send + 'static,
    ) -> Self {
        let socket = tpm.with_file_name(name);
        let listener = UnixListener::bind(&socket).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tpm, all) = (tpm.to_owned(), Arc::clone(&seen));
        thread::spawn(move || {
            for client in listener.incoming() {
                if let (Ok(client), Ok(server)) = (client, UnixStream::connect(&tpm)) {
                    // An error is the end of one of both connections.
                    let _ = relay(client, server, &mut commands, &mut responses, &all);
                }
            }
        });
        Self { socket, seen }
    }

    /// Passes everything on.
    pub fn reader(tpm: &Path) -> Self {
        Self::start(tpm, "read.sock", |_| Act::Pass, |_, _| {})
    }

    /// Whether these bytes passed, in either direction.
    pub fn saw(&self, bytes: &[u8]) -> bool {
        self.seen.lock().unwrap().windows(bytes.len()).any(|window| window == bytes)
    }
}

/// The command's code.
pub fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}

/// A response with nothing but a code.
pub fn refusal(code: u32) -> Vec<u8> {
    [&0x8001u16.to_be_bytes()[..], &10u32.to_be_bytes(), &code.to_be_bytes()].concat()
}

fn frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 10];
    stream.read_exact(&mut frame)?;
    let size = u32::from_be_bytes(frame[2..6].try_into().unwrap());
    frame.resize(usize::try_from(size).unwrap(), 0);
    stream.read_exact(&mut frame[10..])?;
    Ok(frame)
}

fn relay(
    mut client: UnixStream,
    mut server: UnixStream,
    commands: &mut impl FnMut(&mut Vec<u8>) -> Act,
    responses: &mut impl FnMut(&[u8], &mut Vec<u8>),
    all: &Mutex<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut command = frame(&mut client)?;
        all.lock().unwrap().extend(&command);
        match commands(&mut command) {
            Act::Pass => {
                server.write_all(&command)?;
                let mut response = frame(&mut server)?;
                all.lock().unwrap().extend(&response);
                responses(&command, &mut response);
                client.write_all(&response)?;
            }
            Act::Answer(response) => client.write_all(&response)?,
            Act::HangUp => return Ok(()),
            Act::Silence => {
                client.read_to_end(&mut Vec::new())?;
                return Ok(());
            }
        }
    }
}
