//! The addresses that the daemon listens on, and why it could not.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use tokio::net::{TcpListener, TcpSocket};

use crate::http::Listener;

/// Connections that wait in the kernel to be accepted. With tokio's 128, clients of a larger crowd find
/// no room and try again after whole seconds. The kernel has a limit of its own (somaxconn).
pub(super) const BACKLOG: u32 = 1024;

pub(super) fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for &address in addresses {
        let listener = listen(address).map_err(|error| anyhow!(refused(address, &error)))?;
        listeners.push(Listener::tcp(listener).context("reading the bound address")?);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restarted daemon gets its address back although old connections linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What was attempted, on what, and what helps.
fn refused(address: SocketAddr, error: &io::Error) -> String {
    let said = format!("listening on {address}: {error}");
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has it, which `ss -ltnp` names; set another one with `http.listen` (`--listen`)"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; `ip address` lists those that `http.listen` (`--listen`) may name"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are not for every user; set another one with `http.listen` (`--listen`)"
        }
        _ => return said,
    };
    format!("{said}; {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_advice_beside_the_systems_own_words() {
        let address: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        for (kind, advice) in [
            (io::ErrorKind::AddrInUse, "`ss -ltnp`"),
            (io::ErrorKind::AddrNotAvailable, "`ip address`"),
            (io::ErrorKind::PermissionDenied, "below 1024"),
        ] {
            let said = refused(address, &io::Error::from(kind));
            let begins = format!("listening on 127.0.0.1:80: {}; ", io::Error::from(kind));
            assert!(said.starts_with(&begins), "{said}");
            assert!(
                said.contains(advice) && said.contains("`http.listen`"),
                "{said}"
            );
        }
        let other = io::Error::from_raw_os_error(5);
        let said = refused(address, &other);
        assert_eq!(said, format!("listening on 127.0.0.1:80: {other}"));
    }
}
