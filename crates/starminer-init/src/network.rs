//! Loopback and one Ethernet interface with a fixed address, by the kernel's own messages (rtnetlink(7)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::settings::{Address, NodeSettings};

/// How long a driver may take until its interface is there.
const INTERFACE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked for: drivers announce it nowhere that is cheaper to wait on than this is to read.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// `ARPHRD_ETHER`, as sysfs writes it.
const ETHERNET: &str = "1";
/// Largest answer of the kernel.
const MAX_ANSWER_BYTES: usize = 8192;

/// Sets both up.
pub fn set_up(settings: &NodeSettings) -> Result<()> {
    let kernel = Kernel::connect()?;
    kernel.switch_on(index_of("lo")?)?;
    let interface = ethernet()?;
    kernel.switch_on(interface)?;
    kernel.add_address(interface, settings.address)?;
    if let Some(gateway) = settings.gateway {
        kernel.add_default_route(interface, gateway)?;
    }
    Ok(())
}

/// The number of the Ethernet interface whose name comes first.
fn ethernet() -> Result<u32> {
    let until = Instant::now() + INTERFACE_TIMEOUT;
    loop {
        let mut names = Vec::new();
        for entry in fs::read_dir("/sys/class/net").context("/sys/class/net")? {
            let entry = entry?;
            let kind = fs::read_to_string(entry.path().join("type")).unwrap_or_default();
            if kind.trim() == ETHERNET {
                names.push(entry.file_name());
            }
        }
        names.sort();
        if let Some(name) = names.first() {
            return index_of(&name.to_string_lossy());
        }
        if Instant::now() > until {
            bail!("there is no Ethernet interface: the image has no module for it, or the machine none");
        }
        sleep(LOOK_EVERY);
    }
}

fn index_of(name: &str) -> Result<u32> {
    let path = format!("/sys/class/net/{name}/ifindex");
    fs::read_to_string(&path).with_context(|| path.clone())?.trim().parse().context(path)
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The socket to it.
struct Kernel(Socket);

impl Kernel {
    fn connect() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("no rtnetlink socket")?;
        socket.bind_auto().context("rtnetlink cannot be bound")?;
        socket.connect(&SocketAddr::new(0, 0)).context("rtnetlink cannot be connected")?;
        Ok(Self(socket))
    }

    fn switch_on(&self, interface: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = interface;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(message), 0).context("an interface cannot be switched on")
    }

    fn add_address(&self, interface: u32, address: Address) -> Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.ip);
        message.header.prefix_len = address.prefix_bits;
        message.header.index = interface;
        message.attributes = vec![AddressAttribute::Local(address.ip), AddressAttribute::Address(address.ip)];
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
            .with_context(|| format!("the interface does not take {}", address.ip))
    }

    fn add_default_route(&self, interface: u32, gateway: IpAddr) -> Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        let anywhere = match gateway {
            IpAddr::V4(_) => RouteAddress::Inet(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => RouteAddress::Inet6(Ipv6Addr::UNSPECIFIED),
        };
        message.attributes = vec![
            RouteAttribute::Destination(anywhere),
            RouteAttribute::Gateway(gateway.into()),
            RouteAttribute::Oif(interface),
        ];
        self.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
            .with_context(|| format!("{gateway} is no gateway of this network"))
    }

    /// Sends one message and takes the acknowledgement.
    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut answer = vec![0; MAX_ANSWER_BYTES];
        let length = self.0.recv(&mut &mut answer[..], 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..length])?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io().into()),
            other => bail!("an answer to something else: {other:?}"),
        }
    }
}
