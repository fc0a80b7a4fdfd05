//! Commands out, responses in: authenticated by the session, tried again where the TPM asks for that.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use starminer_hardware::tpm::{
    Public,
    credential::{CredentialError, Randomness, share_seed},
};
use tpm2_protocol::data::{TpmCap, TpmCc, TpmRcBase};
use zeroize::Zeroizing;

use super::{
    error::{Command, ResponseCode, TpmError},
    frame::{Authority, Call, Entity, Reply, Unframed, frame, unframe},
    session::{self, Kind, Session, attributes},
    settings::TpmSettings,
    transport::{Fault, HEADER_BYTES, Transport},
    wire::Reader,
};

pub(super) const RH_NULL: u32 = 0x4000_0007;
pub(super) const RH_OWNER: u32 = 0x4000_0001;
pub(super) const RH_ENDORSEMENT: u32 = 0x4000_000b;

/// How often a command is sent that the TPM asks for again, and the pauses between: 20 ms and twice as long each time,
/// up to a second.
const RETRIES_MAX: u32 = 12;
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Ephemeral keys are out of range once in 2³² times; twice in a row means that the generator is broken.
const SALT_DRAWS_MAX: u32 = 4;

/// A connection with its session, and what has to be flushed at its end.
pub(super) struct Link {
    transport: Transport,
    pub(super) settings: TpmSettings,
    session: Option<Session>,
    /// Transient keys and sessions.
    open: Vec<u32>,
}

impl Link {
    /// Connects. Of a plain socket, the last user's keys and sessions are flushed.
    pub(super) fn open(settings: TpmSettings) -> Result<Self, TpmError> {
        let transport = Transport::open(&settings.address, settings.deadlines.other)
            .map_err(|fault| not_opened(fault, &settings))?;
        let mut link = Self { transport, settings, session: None, open: Vec::new() };
        if link.settings.address.is_plain() {
            link.start_up()?;
            link.flush_all()?;
        }
        Ok(link)
    }

    pub(super) const fn is_open(&self) -> bool {
        self.transport.is_open()
    }

    /// What firmware does for a real TPM. One that was started already says so.
    fn start_up(&mut self) -> Result<(), TpmError> {
        const SU_CLEAR: u16 = 0;
        match self.run(Call::new(TpmCc::Startup).with(|writer| writer.u16(SU_CLEAR)).bare()) {
            Err(error) if error.refusal() == Some(TpmRcBase::Initialize) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn flush_all(&mut self) -> Result<(), TpmError> {
        // Transient objects; sessions that are loaded (policy sessions among them) and those that are saved.
        for first in [0x8000_0000, 0x0200_0000, 0x0300_0000] {
            for handle in self.handles(first)? {
                self.flush(handle)?;
            }
        }
        Ok(())
    }

    /// Handles of a kind that the TPM holds, from this one on.
    pub(super) fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError> {
        const COUNT: u32 = 128;
        let reply = self.capability(TpmCap::Handles, first, COUNT)?;
        reply.read(TpmCc::GetCapability, |reader| {
            capability_header(reader, TpmCap::Handles)?;
            let count = reader.u32().filter(|count| *count <= COUNT)?;
            let handles = (0..count).map(|_| reader.u32()).collect::<Option<Vec<_>>>()?;
            reader.end().map(|()| handles)
        })
    }

    pub(super) fn capability(&mut self, capability: TpmCap, first: u32, count: u32) -> Result<Reply, TpmError> {
        self.run(Call::new(TpmCc::GetCapability).with(|writer| writer.u32(capability.value()).u32(first).u32(count)))
    }

    /// Flushes a key or session.
    pub(super) fn flush(&mut self, handle: u32) -> Result<(), TpmError> {
        self.forget(handle);
        self.run(Call::new(TpmCc::FlushContext).with(|writer| writer.u32(handle)).bare()).map(|_| ())
    }

    /// A session that the TPM has ended.
    pub(super) fn forget(&mut self, handle: u32) {
        self.open.retain(|open| *open != handle);
    }

    /// A session of its own, unsalted.
    pub(super) fn start_unsalted(&mut self, kind: Kind) -> Result<Session, TpmError> {
        self.start(kind, None)
    }

    fn start(&mut self, kind: Kind, salted: Option<(u32, &[u8], &[u8])>) -> Result<Session, TpmError> {
        let nonce = session::random::<{ session::NONCE_BYTES }>()?;
        let (key, salt, encrypted) = match salted {
            Some((key, salt, encrypted)) => (key, Some(salt), encrypted),
            None => (RH_NULL, None, &[][..]),
        };
        let call = Call::new(TpmCc::StartAuthSession)
            .on(Entity::by_handle(key))
            .on(Entity::by_handle(RH_NULL))
            .with(|writer| {
                let writer = writer.sized(nonce.as_ref()).sized(encrypted).u8(kind.number());
                session::symmetric(writer).u16(session::SESSION_HASH.id())
            })
            .giving_handle()
            .bare();
        let reply = self.run(call)?;
        let nonce_tpm = reply.read(TpmCc::StartAuthSession, |reader| {
            let nonce = reader.sized()?;
            reader.end().map(|()| nonce)
        })?;
        Ok(Session::new(reply.handle, salt, nonce_tpm, nonce.as_ref()))
    }

    /// Everything from here on goes over a session without salt: authenticated by the values that authorise it alone.
    pub(super) fn use_unsalted(&mut self) -> Result<(), TpmError> {
        self.session = Some(self.start_unsalted(Kind::Hmac)?);
        Ok(())
    }

    /// Everything from here on goes over a session salted to this key.
    pub(super) fn use_salted(&mut self, handle: u32, key: &Public) -> Result<(), TpmError> {
        let mut draws = 0..SALT_DRAWS_MAX;
        let seed = loop {
            let randomness = Randomness { seed: session::random()?, ephemeral: session::random()? };
            match share_seed(key, "SECRET", &randomness) {
                Ok(seed) => break seed,
                Err(CredentialError::Key) if draws.next().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.end_session()?;
        self.session = Some(self.start(Kind::Hmac, Some((handle, &seed.seed, &seed.encrypted)))?);
        Ok(())
    }

    pub(super) fn end_session(&mut self) -> Result<(), TpmError> {
        match self.session.take() {
            Some(session) => self.flush(session.handle),
            None => Ok(()),
        }
    }

    /// Runs a command.
    pub(super) fn run(&mut self, call: Call<'_>) -> Result<Reply, TpmError> {
        // Taken out for the time of the call: a response that does not check leaves none, and the connection ended.
        let mut session = self.session.take();
        let result = self.run_over(call, &mut session);
        if self.transport.is_open() {
            self.session = session;
        }
        if let Ok(Reply { handle, .. }) = &result
            && *handle != 0
        {
            self.open.push(*handle);
        }
        result
    }

    fn run_over(&mut self, mut call: Call<'_>, session: &mut Option<Session>) -> Result<Reply, TpmError> {
        let command = Command(call.code);
        let code = call.code.value().to_be_bytes();
        let session = session.as_mut().filter(|_| !call.bare);
        let mut parameters = std::mem::take(&mut call.parameters).finish();
        let used = match &session {
            Some(session) => {
                let value = call.authorities.iter().find_map(|authority| match authority {
                    Authority::Value(value) => Some(value.value()),
                    Authority::Policy(_) | Authority::Empty => None,
                });
                let mut wanted = attributes::CONTINUE;
                wanted |= if call.seal { attributes::DECRYPT } else { 0 };
                wanted |= if call.open { attributes::ENCRYPT } else { 0 };
                if value.is_none() && !call.seal && !call.open {
                    // A session that neither authorises nor encrypts has to be there for something.
                    wanted |= attributes::AUDIT;
                }
                let used = session.begin(wanted, value.unwrap_or_default())?;
                used.seal(&mut parameters).ok_or(TpmError::Argument("a parameter that cannot be encrypted"))?;
                Some(used)
            }
            None if call.authorities.is_empty() && !call.seal && !call.open => None,
            None => return Err(TpmError::Connection(io::ErrorKind::NotConnected.into())),
        };
        let frame = frame(&call, used.as_ref(), &code, &parameters)?;
        let within = match call.code {
            TpmCc::CreatePrimary | TpmCc::Create => self.settings.deadlines.key,
            _ => self.settings.deadlines.other,
        };
        let response = self.exchange(command, frame, within)?;
        let unframed = unframe(&call, used, &code, &response);
        match unframed {
            Ok((reply, used)) => {
                if let (Some(session), Some(used)) = (session, used) {
                    session.went_on(used);
                }
                Ok(reply)
            }
            Err(Unframed::Refused(code)) => Err(TpmError::Refused { command, code }),
            Err(Unframed::Altered) => {
                self.transport.end();
                Err(TpmError::Altered { command })
            }
            Err(Unframed::Malformed(what)) => {
                self.transport.end();
                Err(TpmError::Malformed { command, what })
            }
        }
    }

    /// Sends the command until the TPM does not ask for it again. The bytes are the same each time, so that a TPM that
    /// ran it (and whose response was withheld) refuses it: its nonce has moved on.
    fn exchange(
        &mut self,
        command: Command,
        frame: Zeroizing<Vec<u8>>,
        within: Duration,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let start = Instant::now();
        let mut pause = RETRY_PAUSE;
        for left in (0..RETRIES_MAX).rev() {
            let time = within.saturating_sub(start.elapsed());
            let response = self.transport.exchange(frame.clone(), time).map_err(|fault| match fault {
                Fault::Io(error) => TpmError::Connection(error),
                Fault::Deadline => TpmError::Deadline { command, after: within },
                Fault::Busy => TpmError::Busy,
            })?;
            let code = Reader::new(response.get(6..HEADER_BYTES).unwrap_or_default()).u32();
            let again = code.is_some_and(|code| ResponseCode::new(code).asks_to_retry());
            if !again || left == 0 || start.elapsed() + pause >= within {
                return Ok(response);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
        Err(TpmError::Argument("no attempt was made"))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // As far as it goes: a connection that broke is cleaned by the resource manager, or by the next user of the
        // socket.
        while let (true, Some(handle)) = (self.transport.is_open(), self.open.last().copied()) {
            if self.flush(handle).is_err() && !self.transport.is_open() {
                break;
            }
        }
    }
}

/// Reads what stands before the data of a capability.
pub(super) fn capability_header(reader: &mut Reader<'_>, capability: TpmCap) -> Option<bool> {
    let more = reader.u8()?;
    (reader.u32()? == capability.value()).then_some(more != 0)
}

fn not_opened(fault: Fault, settings: &TpmSettings) -> TpmError {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let address = settings.address.to_string();
    match fault {
        Fault::Busy => TpmError::Busy,
        Fault::Deadline => TpmError::Absent { address, reason: "it does not open in time".to_owned() },
        Fault::Io(error) => match error.kind() {
            PermissionDenied => TpmError::Denied { address },
            NotFound | ConnectionRefused => TpmError::Absent { address, reason: error.to_string() },
            // ENXIO and ENODEV: a device file without a device.
            _ if matches!(error.raw_os_error(), Some(6 | 19)) => {
                TpmError::Absent { address, reason: error.to_string() }
            }
            _ => TpmError::Connection(error),
        },
    }
}
