//! Addresses to listen on, as people write them. A missing host is this machine and a missing port
//! 8080, as in the default. Names are not looked up: the daemon listens at written addresses only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

const PORT: u16 = 8080;
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One address, or why it is none.
fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: &str| {
        format!(
            "`{text}` is no address to listen on{why}: write ADDRESS:PORT, such as \
             \"127.0.0.1:8080\" or \"[::1]:8080\" for this machine, \"0.0.0.0:8080\" for every \
             address it has; \"localhost:8080\", \":8080\" and \"8080\" mean 127.0.0.1:8080"
        )
    };
    let plain = text.trim();
    if plain.starts_with("https://") {
        return Err(wrong(", TLS is not spoken here"));
    }
    if plain.starts_with("unix:") || plain.starts_with('/') {
        return Err(wrong(", a Unix socket is `http.unix-socket`"));
    }
    let plain = plain.strip_prefix("http://").unwrap_or(plain);
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    if plain.is_empty() {
        return Err(wrong(""));
    }
    if let Ok(address) = plain.parse() {
        return Ok(address);
    }
    let bracketed = plain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(host) = plain.parse() {
        return Ok(SocketAddr::new(host, PORT));
    }
    if let Some(host) = bracketed.and_then(|host| host.parse::<Ipv6Addr>().ok()) {
        return Ok(SocketAddr::new(host.into(), PORT));
    }
    let (host, port) = match plain.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None if plain.starts_with(|c: char| c.is_ascii_digit()) => ("", Some(plain)),
        None => (plain, None),
    };
    let host = match host {
        "" => HOST,
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        host if host.eq_ignore_ascii_case("localhost") => HOST,
        host if host.contains(|c: char| c.is_ascii_alphabetic())
            && !host.contains([':', '[', '/']) =>
        {
            return Err(wrong(", names are not looked up"));
        }
        _ => return Err(wrong("")),
    };
    let port = match port {
        None => PORT,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = port.parse();
            port.map_err(|_| wrong(", a port is a number up to 65535"))?
        }
        Some(_) => return Err(wrong(", its port is no number")),
    };
    Ok(SocketAddr::new(host, port))
}

/// A list of addresses, or one.
pub(super) fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    struct Addresses;

    impl<'de> Visitor<'de> for Addresses {
        type Value = Vec<SocketAddr>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("addresses such as \"127.0.0.1:8080\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            address(text)
                .map(|address| vec![address])
                .map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, port: i64) -> Result<Self::Value, E> {
            self.visit_str(&port.to_string())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(Listed(listed)) = seq.next_element()? {
                all.extend(listed);
            }
            Ok(all)
        }
    }

    /// An element of the list.
    struct Listed(Vec<SocketAddr>);

    impl<'de> Deserialize<'de> for Listed {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            addresses(deserializer).map(Self)
        }
    }

    deserializer.deserialize_any(Addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("[::1]:9", "[::1]:9"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::]:9", "[::]:9"),
            ("localhost:9", "127.0.0.1:9"),
            ("LocalHost:9", "127.0.0.1:9"),
            (":9", "127.0.0.1:9"),
            ("9", "127.0.0.1:9"),
            ("*:9", "0.0.0.0:9"),
            (" 127.0.0.1:9 ", "127.0.0.1:9"),
            ("http://127.0.0.1:9", "127.0.0.1:9"),
            ("http://localhost:9/", "127.0.0.1:9"),
            ("http://[::1]:9/", "[::1]:9"),
            ("127.0.0.1", "127.0.0.1:8080"),
            ("localhost", "127.0.0.1:8080"),
            ("::1", "[::1]:8080"),
            ("[::1]", "[::1]:8080"),
            ("192.168.1.2", "192.168.1.2:8080"),
        ] {
            assert_eq!(address(text), Ok(expected.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_shown_with_the_form_of_one() {
        for text in [
            "",
            "board.lan:9",
            "https://127.0.0.1:9",
            "127.0.0.1:99999",
            "127.0.0.1:http",
            "127.0.0.1:-1",
            "127.0.0.1:",
            "99999",
            "127.0.0:9",
            "300.0.0.1:9",
            "unix:/run/x",
            "/run/x",
            "[::1:9",
            "::1]:9",
            "127.0.0.1:9/v1",
            "http://",
            "8080x",
        ] {
            let error = address(text).unwrap_err();
            assert!(error.contains(&format!("`{text}`")), "{error}");
            assert!(error.contains("ADDRESS:PORT"), "{error}");
        }
    }
}
