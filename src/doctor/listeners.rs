//! Whether the daemon can listen where it is to: whether each address is one of this machine's, and whether another
//! program has its port.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::access::service_user;
use super::holders::{Holder, holders};
use super::{Check, Patient};

const TCP6: &str = "/proc/net/tcp6";
const TABLES: [&str; 2] = ["/proc/net/tcp", TCP6];
/// A line of 150 bytes for each socket, those of connections and of what was one a minute ago included.
const MOST_BYTES_OF_TABLE: u64 = 16 << 20;
/// State of a socket that listens, in the kernel's tables.
const LISTENS: &str = "0A";
/// Whose listening is the daemon's own: systemd's is for it, as rkllmd.socket has it.
const OURS: [&str; 2] = ["rkllmd", "systemd"];

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listening {
    address: SocketAddr,
    user: u32,
    inode: u64,
}

impl Listening {
    /// A line of the kernel's tables.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, user, _, inode, ..] = fields[..] else {
            return None;
        };
        if state != LISTENS {
            return None;
        }
        let (ip, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Self {
            address: SocketAddr::new(parse_ip(ip)?, port),
            user: user.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    }

    /// Whether nothing else can listen at `wanted` beside it.
    fn is_in_the_way_of(&self, wanted: SocketAddr) -> bool {
        let (here, wanted_ip) = (self.address.ip(), wanted.ip());
        self.address.port() == wanted.port()
            && (here.to_canonical() == wanted_ip.to_canonical()
                || covers(here, wanted_ip)
                || covers(wanted_ip, here))
    }
}

/// Whether `every` stands for all addresses, `one` among them: of IPv6 also for those of IPv4.
fn covers(every: IpAddr, one: IpAddr) -> bool {
    every.is_unspecified() && (every.is_ipv6() || one.to_canonical().is_ipv4())
}

/// As the kernel writes it: words of four bytes in the machine's order.
fn parse_ip(digits: &str) -> Option<IpAddr> {
    let word = |nth: usize| {
        let word = digits.get(nth * 8..nth * 8 + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            for (part, word) in bytes.chunks_exact_mut(4).zip(words) {
                part.copy_from_slice(&word);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

pub(super) fn listeners(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    if !sysroot.is_own() {
        return Check::skip("a copy does not tell");
    }
    let wanted = &patient.settings.http.listen;
    for address in wanted {
        // Nothing is sent, and another port of it is free.
        let bound = UdpSocket::bind((address.ip(), 0));
        if bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable) {
            return Check::fail(format!("this machine has no address {}", address.ip()))
                .expected("addresses of this machine in http.listen")
                .remedy("ip -brief address");
        }
    }
    let mut listening = Vec::new();
    for table in TABLES {
        match sysroot.text_within(table, MOST_BYTES_OF_TABLE) {
            Some(table) => listening.extend(table.lines().filter_map(Listening::parse)),
            // A kernel without IPv6.
            None if table == TCP6 && !sysroot.has(table) => {}
            None => return Check::skip(format!("{table} does not tell who listens")),
        }
    }
    let mut unseen = None;
    for &address in wanted.iter().filter(|address| address.port() != 0) {
        for found in listening.iter().filter(|it| it.is_in_the_way_of(address)) {
            let socket = format!("socket:[{}]", found.inode);
            let holders = holders(sysroot, |link| link.as_os_str() == socket.as_str());
            let is_ours = |holder: &Holder| OURS.contains(&holder.program.as_str());
            if let Some(other) = holders.iter().find(|holder| !is_ours(holder)) {
                return Check::fail(format!("{other} listens on {}", found.address))
                    .expected(format!("rkllmd on {address}, or nothing else"))
                    .remedy(format!(
                        "stop it, or change http.listen: ss -ltnp 'sport = :{}'",
                        address.port()
                    ));
            }
            let is_services = service_user(sysroot).is_some_and(|user| user.is(found.user));
            if holders.is_empty() && !is_services {
                unseen = Some(found.address);
            }
        }
    }
    match unseen {
        Some(address) => Check::skip(format!("only root sees who listens on {address}")),
        None => Check::ok("nothing else listens there"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a little-endian machine writes it, like all that the daemon is built for.
    #[test]
    fn the_kernels_tables_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 21530 1 0000000000000000 100 0 0 10 0";
        let found = Listening::parse(line).expect("it listens");
        assert_eq!(found.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((found.user, found.inode), (998, 21530));
        assert_eq!(Listening::parse(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(
            Listening::parse("  sl  local_address rem_address   st"),
            None
        );
        let line = line.replace("0100007F:", "00000000000000000000000001000000:");
        let found = Listening::parse(&line).expect("it listens");
        assert_eq!(found.address, "[::1]:8080".parse().unwrap());
    }

    #[test]
    fn every_address_is_in_the_way_of_each() {
        let at = |address: &str| Listening {
            address: address.parse().unwrap(),
            user: 0,
            inode: 1,
        };
        for (there, wanted, is_in_the_way) in [
            ("127.0.0.1:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "127.0.0.1:8081", false),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("0.0.0.0:8080", "127.0.0.1:8080", true),
            ("127.0.0.1:8080", "0.0.0.0:8080", true),
            ("[::]:8080", "127.0.0.1:8080", true),
            ("[::]:8080", "0.0.0.0:8080", true),
            ("0.0.0.0:8080", "[::]:8080", true),
            ("0.0.0.0:8080", "[::1]:8080", false),
            ("[::1]:8080", "0.0.0.0:8080", false),
            ("[::ffff:127.0.0.1]:8080", "127.0.0.1:8080", true),
        ] {
            let found = at(there).is_in_the_way_of(wanted.parse().unwrap());
            assert_eq!(found, is_in_the_way, "{there} {wanted}");
        }
    }
}
