//! Listening sockets that the service manager opened and passed on. It keeps them open: clients connect
//! while no daemon runs, and the next daemon serves them.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{AddressFamily, SocketType, sockopt};
use systemd::daemon;

/// The descriptors were taken, which is possible once.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A socket that listens already; reading and accepting do not block.
#[derive(Debug)]
pub enum InheritedSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("reading which sockets the service manager passed: {0}")]
    Unknown(String),
    #[error(
        "descriptor {descriptor}, passed by the service manager, is no listening stream socket \
         (TCP or Unix); rkllmd.socket needs `ListenStream=` and `Accept=no`"
    )]
    Unfit { descriptor: i32 },
    #[error("descriptor {descriptor}, passed by the service manager: {error}")]
    Io { descriptor: i32, error: io::Error },
}

/// Takes over the sockets that `LISTEN_FDS` tells, if `LISTEN_PID` is this process; none if not, or if
/// they were taken before. They are not inherited any further.
///
/// # Errors
///
/// The daemon cannot serve one of them.
pub fn take_sockets() -> Result<Vec<InheritedSocket>, SocketError> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    // It also sees to it that no child inherits them.
    let passed = daemon::listen_fds().map_err(|error| SocketError::Unknown(error.to_string()))?;
    passed
        .iter()
        .map(|descriptor| {
            // SAFETY: libsystemd has found this descriptor open and meant for this process. Nothing
            // else here refers to it: it was there before the process was, and `TAKEN` lets no
            // thread come this way twice.
            let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
            adopt(socket, descriptor)
        })
        .collect()
}

fn adopt(socket: OwnedFd, descriptor: i32) -> Result<InheritedSocket, SocketError> {
    let is_fit = sockopt::socket_type(&socket).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_acceptconn(&socket).is_ok_and(|listens| listens);
    let family = sockopt::socket_domain(socket.as_fd());
    let io = |error| SocketError::Io { descriptor, error };
    match family {
        Ok(AddressFamily::INET | AddressFamily::INET6) if is_fit => {
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(true).map_err(io)?;
            Ok(InheritedSocket::Tcp(listener))
        }
        Ok(AddressFamily::UNIX) if is_fit => {
            let listener = UnixListener::from(socket);
            listener.set_nonblocking(true).map_err(io)?;
            Ok(InheritedSocket::Unix(listener))
        }
        _ => Err(SocketError::Unfit { descriptor }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_stream_sockets_are_adopted() {
        let folder = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(adopt(tcp.into(), 3), Ok(InheritedSocket::Tcp(_))));
        let tcp6 = TcpListener::bind("[::1]:0").unwrap();
        assert!(matches!(adopt(tcp6.into(), 3), Ok(InheritedSocket::Tcp(_))));
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        assert!(matches!(
            adopt(unix.into(), 3),
            Ok(InheritedSocket::Unix(_))
        ));

        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (connected, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let unfit: [OwnedFd; 3] = [udp.into(), connected.into(), file.into()];
        for socket in unfit {
            assert!(matches!(
                adopt(socket, 3),
                Err(SocketError::Unfit { descriptor: 3 })
            ));
        }
    }
}
