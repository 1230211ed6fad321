//! Connections from chosen loopback addresses: to the daemon each address is a client of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

/// A receive buffer that an answer fills soon.
const SMALL_BUFFER_BYTES: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReceiveBuffer {
    Ordinary,
    Small,
}

/// Connects from 127.0.0.`host`.
pub fn connect_from(host: u8, to: SocketAddr, buffer: ReceiveBuffer) -> io::Result<TcpStream> {
    let IpAddr::V4(address) = to.ip() else {
        return Err(io::Error::other(format!("{to} is not IPv4")));
    };
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    if buffer == ReceiveBuffer::Small {
        sockopt::set_socket_recv_buffer_size(&socket, SMALL_BUFFER_BYTES)?;
    }
    bind(
        &socket,
        &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0),
    )?;
    connect(&socket, &SocketAddrV4::new(address, to.port()))?;
    Ok(TcpStream::from(socket))
}
