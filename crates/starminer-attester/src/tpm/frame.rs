//! Commands and responses as a whole: tag, size, code, handles, authorisations, parameters (Part 1, 18; Part 3, 4 and
//! 5).

use tpm2_protocol::data::TpmCc;
use zeroize::Zeroizing;

use super::{
    error::{Command, ResponseCode, TpmError},
    session::{self, Session, attributes},
    settings::Authorization,
    transport::HEADER_BYTES,
    wire::{FRAME_BYTES_MAX, Reader, Writer},
};

const TAG_NO_SESSIONS: u16 = 0x8001;
const TAG_SESSIONS: u16 = 0x8002;
const PASSWORD_SESSION: u32 = 0x4000_0009;

/// Something in the TPM that a command is about.
#[derive(Debug, Clone)]
pub(super) struct Entity {
    pub(super) handle: u32,
    pub(super) name: Vec<u8>,
}

impl Entity {
    /// A hierarchy or a session: its name is its handle.
    pub(super) fn by_handle(handle: u32) -> Self {
        Self { handle, name: handle.to_be_bytes().to_vec() }
    }
}

/// What authorises the use of an entity.
pub(super) enum Authority<'a> {
    /// Its authorisation value, under the salted session.
    Value(&'a Authorization),
    /// An unsalted policy session, for once. Its HMAC is empty, so that the salted session beside it need not cover its
    /// nonces.
    Policy(&'a Session),
    /// An empty value, where the salted session authorises something else already.
    Empty,
}

/// A command.
pub(super) struct Call<'a> {
    pub(super) code: TpmCc,
    pub(super) entities: Vec<Entity>,
    /// One for each of the first entities, as the command wants them.
    pub(super) authorities: Vec<Authority<'a>>,
    pub(super) parameters: Writer,
    /// Whether the first parameter is encrypted, which has to be a TPM2B.
    pub(super) seal: bool,
    /// The same of the response's.
    pub(super) open: bool,
    /// Whether the response begins with a handle.
    pub(super) gives_handle: bool,
    /// Whether it goes without sessions: because it has to, or because the name of what it is about is not known yet.
    pub(super) bare: bool,
}

impl<'a> Call<'a> {
    pub(super) fn new(code: TpmCc) -> Self {
        let (entities, authorities) = (Vec::new(), Vec::new());
        let parameters = Writer::new();
        Self { code, entities, authorities, parameters, seal: false, open: false, gives_handle: false, bare: false }
    }

    pub(super) fn on(mut self, entity: Entity) -> Self {
        self.entities.push(entity);
        self
    }

    pub(super) fn authorized(mut self, entity: Entity, authority: Authority<'a>) -> Self {
        self.authorities.push(authority);
        self.on(entity)
    }

    pub(super) fn with(mut self, parameters: impl FnOnce(Writer) -> Writer) -> Self {
        self.parameters = parameters(self.parameters);
        self
    }

    pub(super) fn sealed(mut self) -> Self {
        self.seal = true;
        self
    }

    pub(super) fn opened(mut self) -> Self {
        self.open = true;
        self
    }

    pub(super) fn giving_handle(mut self) -> Self {
        self.gives_handle = true;
        self
    }

    pub(super) fn bare(mut self) -> Self {
        self.bare = true;
        self
    }
}

/// A response.
pub(super) struct Reply {
    pub(super) handle: u32,
    pub(super) parameters: Zeroizing<Vec<u8>>,
}

impl Reply {
    /// Reads the parameters.
    pub(super) fn read<'a, T>(
        &'a self,
        code: TpmCc,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Result<T, TpmError> {
        let mut reader = Reader::new(&self.parameters);
        read(&mut reader).ok_or(TpmError::Malformed { command: Command(code), what: "its parameters" })
    }
}

/// A whole command.
pub(super) fn frame(
    call: &Call<'_>,
    used: Option<&session::Use>,
    code: &[u8; 4],
    parameters: &[u8],
) -> Result<Zeroizing<Vec<u8>>, TpmError> {
    let mut hashed: Vec<&[u8]> = vec![code];
    hashed.extend(call.entities.iter().map(|entity| entity.name.as_slice()));
    hashed.push(parameters);
    let command_hash = session::hash(&hashed);
    let mut writer = Writer::new();
    let mut mine = used;
    for authority in &call.authorities {
        writer = match (authority, mine.take_if(|_| matches!(authority, Authority::Value(_)))) {
            (Authority::Value(_), Some(used)) => used.authorize(writer, command_hash.as_ref()),
            (Authority::Value(_), None) => return Err(TpmError::Argument("one value authorises a command")),
            (Authority::Policy(session), _) => session.begin(0, &[])?.authorize(writer, command_hash.as_ref()),
            (Authority::Empty, _) => writer.u32(PASSWORD_SESSION).sized(&[]).u8(attributes::CONTINUE).sized(&[]),
        };
    }
    if let Some(used) = mine {
        writer = used.authorize(writer, command_hash.as_ref());
    }
    let authorizations = writer.finish();
    let sessions = if authorizations.is_empty() { 0 } else { 4 + authorizations.len() };
    let size = HEADER_BYTES + 4 * call.entities.len() + sessions + parameters.len();
    let size = u32::try_from(size).ok().filter(|_| size <= FRAME_BYTES_MAX);
    let size = size.ok_or(TpmError::Argument("more than a command holds"))?;
    let tag = if sessions == 0 { TAG_NO_SESSIONS } else { TAG_SESSIONS };
    let mut writer = Writer::new().u16(tag).u32(size).bytes(code);
    for entity in &call.entities {
        writer = writer.u32(entity.handle);
    }
    if sessions != 0 {
        // It is part of `size`, which fits.
        writer = writer.u32(u32::try_from(authorizations.len()).unwrap_or(u32::MAX)).bytes(&authorizations);
    }
    Ok(writer.bytes(parameters).finish())
}

/// Why nothing of a response is taken.
pub(super) enum Unframed {
    Refused(ResponseCode),
    Altered,
    Malformed(&'static str),
}

/// Takes a whole response apart, and lets nothing of it out that its session does not vouch for.
pub(super) fn unframe(
    call: &Call<'_>,
    used: Option<session::Use>,
    code: &[u8; 4],
    response: &[u8],
) -> Result<(Reply, Option<session::Use>), Unframed> {
    let mut reader = Reader::new(response);
    let header = (reader.u16(), reader.u32(), reader.u32());
    // The transport has read as many bytes as the size says.
    let (Some(tag), Some(_), Some(result)) = header else { return Err(Unframed::Malformed("its header")) };
    if result != 0 {
        return Err(Unframed::Refused(ResponseCode::new(result)));
    }
    if tag != if used.is_some() { TAG_SESSIONS } else { TAG_NO_SESSIONS } {
        return Err(if used.is_some() { Unframed::Altered } else { Unframed::Malformed("its tag") });
    }
    let handle = if call.gives_handle { reader.u32().ok_or(Unframed::Malformed("its handle"))? } else { 0 };
    let Some(mut used) = used else {
        return Ok((Reply { handle, parameters: Zeroizing::new(reader.rest().to_vec()) }, None));
    };
    let size = reader.u32().and_then(|size| usize::try_from(size).ok());
    let parameters = size.and_then(|size| reader.bytes(size)).ok_or(Unframed::Malformed("its size"))?;
    let response_hash = session::hash(&[&0u32.to_be_bytes(), code, parameters]);
    let mut mine = Some(&mut used);
    for authority in &call.authorities {
        match (authority, mine.take_if(|_| matches!(authority, Authority::Value(_)))) {
            (Authority::Value(_), Some(used)) => used.check(&mut reader, response_hash.as_ref()),
            (Authority::Value(_), None) => None,
            // Of these there is nothing to check: the salted session beside them covers the parameters.
            (Authority::Policy(_) | Authority::Empty, _) => {
                reader.sized().and_then(|_| reader.u8()).and_then(|_| reader.sized()).map(|_| ())
            }
        }
        .ok_or(Unframed::Altered)?;
    }
    if let Some(used) = mine {
        used.check(&mut reader, response_hash.as_ref()).ok_or(Unframed::Altered)?;
    }
    reader.end().ok_or(Unframed::Altered)?;
    let mut parameters = Zeroizing::new(parameters.to_vec());
    used.open(&mut parameters).ok_or(Unframed::Malformed("its encrypted parameter"))?;
    Ok((Reply { handle, parameters }, Some(used)))
}
