//! Connections that say nothing, or hold on to what they have: others are served all the same.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::daemon_support::{PATIENCE, Setup};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Long before the silent ones are given up by themselves.
const SOON: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
/// A request that is never whole; the daemon says when it has begun to read it.
const BEGUN: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\
    expect: 100-continue\r\ncontent-length: 1000\r\n\r\n";

fn connect_from(host: u8, to: SocketAddr) -> TcpStream {
    let SocketAddr::V4(to) = to else {
        panic!("{to} is not IPv4");
    };
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    let from = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0);
    bind(&socket, &from).expect("an address of loopback");
    connect(&socket, &to).expect("the backlog has room");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn is_served(mut stream: impl Read + Write) -> bool {
    let mut answer = Vec::new();
    // A refused connection is reset.
    let _ = stream.write_all(REQUEST);
    let _ = stream.read_to_end(&mut answer);
    answer.starts_with(b"HTTP/1.1 200")
}

#[test]
fn more_silent_connections_than_there_are_places() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, wanted).expect("the hard limit is allowed");
    let daemon = Setup::new()
        .settings("http.header-read-timeout = \"1h\"")
        .start();
    let crowd: Vec<TcpStream> = (0..1200)
        .map(|number| connect_from(1 + (number % 4) as u8, daemon.address))
        .collect();
    let begun = Instant::now();
    assert!(is_served(connect_from(9, daemon.address)));
    assert!(is_served(connect_from(1, daemon.address)));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    drop(crowd);
}

#[test]
fn one_address_has_its_share_and_the_unix_socket_its_own_places() {
    let setup = Setup::new();
    let path = setup.folder().join("http.sock");
    let daemon = setup
        .settings("http.max-connections = 4\nhttp.max-connections-per-address = 3")
        .settings(&format!(
            "http.unix-socket = {:?}",
            path.display().to_string()
        ))
        .start();
    let begin = |host| {
        let mut stream = connect_from(host, daemon.address);
        stream.write_all(BEGUN).expect("it is sent");
        let mut go_on = [0; 12];
        stream.read_exact(&mut go_on).expect("an answer");
        assert_eq!(&go_on, b"HTTP/1.1 100");
        stream
    };
    let mut busy: Vec<TcpStream> = (0..3).map(|_| begin(2)).collect();
    assert!(!is_served(connect_from(2, daemon.address)));
    assert!(is_served(connect_from(1, daemon.address)));
    // Now every place is busy.
    busy.push(begin(3));
    let begun = Instant::now();
    assert!(is_served(UnixStream::connect(&path).expect("the socket")));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // One that waits is served when a place is free.
    let mut waiting = connect_from(4, daemon.address);
    waiting.write_all(REQUEST).expect("it is sent");
    drop(busy.pop());
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
