//! A connection that is asked many times, so that polling costs the daemon no more than the answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::daemon_support::PATIENCE;

pub struct KeptConnection {
    answers: BufReader<TcpStream>,
}

impl KeptConnection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the daemon accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Self {
            answers: BufReader::new(stream),
        }
    }

    /// The JSON body of the answer to a GET.
    pub fn get(&mut self, path: &str) -> Value {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.answers
            .get_mut()
            .write_all(request.as_bytes())
            .expect("the request is taken");
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            self.answers.read_line(&mut line).expect("a header");
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().expect("a length");
                }
                None if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.answers.read_exact(&mut body).expect("a body");
        serde_json::from_slice(&body).expect("a body of JSON")
    }
}
