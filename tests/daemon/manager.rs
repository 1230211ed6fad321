//! A datagram socket of the test that is the service manager.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::daemon_support::{PATIENCE, Setup};

/// The service manager's end of the conversation.
pub struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, folder }
    }

    pub fn attach(&self, setup: Setup) -> Setup {
        let path = self.folder.path().join("notify");
        setup.environment("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))
    }

    pub fn next(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message in time");
        String::from_utf8(message[..length].to_vec()).expect("UTF-8")
    }

    /// The first message with this line.
    pub fn wait_for(&self, line: &str) -> String {
        self.wait_until(line, |message| {
            message.lines().any(|own| own.starts_with(line))
        })
    }

    /// The first message that is as the test wants it.
    pub fn wait_until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.next();
            if is(&message) {
                return message;
            }
            assert!(Instant::now() < until, "no {what}; last was {message}");
        }
    }

    /// Reads what has arrived until nothing does for `silence`.
    pub fn drain(&self, silence: Duration) -> Vec<String> {
        self.socket
            .set_read_timeout(Some(silence))
            .expect("a timeout");
        let mut buffer = [0; 4096];
        let mut messages = Vec::new();
        while let Ok(length) = self.socket.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        self.socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout");
        messages
    }
}
