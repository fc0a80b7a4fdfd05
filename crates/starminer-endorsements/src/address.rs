//! Where a service is.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The longest base address.
const MAX_BYTES: usize = starminer_hardware::endorsements::MAX_SOURCE_BYTES;

/// The base address of a service: `https://host`, with a port and the beginning of a path where there is one. `http` is for this machine alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Base {
    text: String,
    tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

/// Why a text is no base address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBase {
    /// Not of the form.
    #[error("a base address is https://host, perhaps with a port and a path")]
    Shape,
    /// Without TLS to another machine.
    #[error("http is for loopback addresses alone (127.0.0.1, [::1])")]
    Plain,
}

impl Base {
    /// Whether connections are encrypted.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host, a literal IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host and port, as `Host` says them.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }

    /// The whole path to this one behind the base.
    pub(crate) fn path(&self, behind: &str) -> String {
        match format!("{}{behind}", self.prefix) {
            empty if empty.is_empty() => "/".to_owned(),
            path => path,
        }
    }
}

impl FromStr for Base {
    type Err = NoBase;

    fn from_str(text: &str) -> Result<Self, NoBase> {
        let text = text.trim_end_matches('/');
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(NoBase::Shape),
        };
        let graphic = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'?' | b'@' | b'"' | b'\\');
        if text.len() > MAX_BYTES || !rest.bytes().all(graphic) {
            return Err(NoBase::Shape);
        }
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed.split_once(']').ok_or(NoBase::Shape)?;
                (host, after.strip_prefix(':').or(if after.is_empty() { Some("") } else { None }).ok_or(NoBase::Shape)?)
            }
            None => authority.split_once(':').unwrap_or((authority, "")),
        };
        let port = match port {
            "" => {
                if tls {
                    443
                } else {
                    80
                }
            }
            digits => digits.parse().ok().filter(|port| *port != 0).ok_or(NoBase::Shape)?,
        };
        let ip = host.parse::<IpAddr>().ok();
        let named = ip.is_none()
            && !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        if !named && ip.is_none() {
            return Err(NoBase::Shape);
        }
        if !tls && !ip.is_some_and(|ip| ip.is_loopback()) {
            return Err(NoBase::Plain);
        }
        let (text, host, prefix) = (text.to_owned(), host.to_ascii_lowercase(), prefix.to_owned());
        Ok(Self { text, tls, host, port, prefix })
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Base {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Base {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        let parse = |text: &str| text.parse::<Base>().map(|base| (base.tls, base.authority(), base.path("/x?y=1")));
        let yes = |tls, authority: &str, path: &str| Ok((tls, authority.to_owned(), path.to_owned()));
        assert_eq!(parse("https://kdsintf.amd.com"), yes(true, "kdsintf.amd.com", "/x?y=1"));
        assert_eq!(parse("https://Pccs.example:8081/mirror/"), yes(true, "pccs.example:8081", "/mirror/x?y=1"));
        assert_eq!(parse("http://127.0.0.1:80"), yes(false, "127.0.0.1", "/x?y=1"));
        assert_eq!(parse("http://[::1]:9"), yes(false, "[::1]:9", "/x?y=1"));
        assert_eq!(parse("https://[2001:db8::1]"), yes(true, "[2001:db8::1]", "/x?y=1"));
        for plain in ["http://kdsintf.amd.com", "http://10.0.0.1", "http://localhost", "http://127.0.0.1.example"] {
            assert_eq!(parse(plain), Err(NoBase::Plain), "{plain}");
        }
        for text in [
            "",
            "kdsintf.amd.com",
            "ftp://a",
            "https://",
            "https://a b",
            "https://u@h",
            "https://h:0",
            "https://h:x",
            "https://h?q",
            "https://[::1",
            "https://h#f",
        ] {
            assert_eq!(parse(text), Err(NoBase::Shape), "{text}");
        }
        let root = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der".parse::<Base>().unwrap();
        assert_eq!(root.path(""), "/IntelSGXRootCA.der");
        assert_eq!("https://h".parse::<Base>().unwrap().path(""), "/");
    }
}
