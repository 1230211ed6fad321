//! How a WebSocket ends (RFC 6455): a close is answered with a close, whatever breaks the protocol gets
//! the code that says how, and then the connection is closed in order, so that the client sees it all.

use crate::http_support::web_socket::*;
use crate::http_support::*;
use rkllmd::settings::Settings;
use tokio::io::AsyncWriteExt;

/// Every path that is a WebSocket.
const PATHS: [&str; 2] = ["/rpc/ws", "/v1/responses"];

async fn serving() -> Server {
    let mut settings = Settings::default();
    settings.rpc.message_limit_bytes = 4096;
    settings.http.body_limit_bytes = 4096;
    Server::replaying(settings, Vec::new).await
}

/// Sends some bytes; gives the code of the close that ends the connection, and its reason.
async fn ended_by(server: &Server, path: &str, bytes: &[u8]) -> (Option<u16>, String) {
    let mut stream = opened(server, path, "").await;
    stream.write_all(bytes).await.unwrap();
    let frames = frames(stream).await;
    let (first, payload) = frames.last().expect("a frame").clone();
    assert_eq!(first, FIN | CLOSE, "{frames:?}");
    let closes = frames
        .iter()
        .filter(|(first, _)| first & 0xf == CLOSE)
        .count();
    assert_eq!(closes, 1, "{frames:?}");
    farewell(&payload)
}

#[tokio::test]
async fn a_close_is_answered_with_a_close() {
    let server = serving().await;
    for path in PATHS {
        for code in [
            1000, 1001, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
        ] {
            assert_eq!(
                ended_by(&server, path, &close(code, "")).await.0,
                Some(code)
            );
            assert_eq!(
                ended_by(&server, path, &close(code, "bye")).await.0,
                Some(code)
            );
        }
        assert_eq!(
            ended_by(&server, path, &frame(FIN | CLOSE, b"")).await.0,
            None
        );
        // With something before it and after it.
        let mut bytes = frame(FIN | PING, b"p");
        bytes.extend(frame(
            FIN | TEXT_FRAME,
            br#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#,
        ));
        bytes.extend(close(1000, ""));
        bytes.extend(frame(FIN | TEXT_FRAME, b"more"));
        bytes.extend(vec![0; 100_000]);
        for _ in 0..20 {
            assert_eq!(ended_by(&server, path, &bytes).await.0, Some(1000));
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_is_told_by_its_code() {
    let server = serving().await;
    let long = [b'x'; 126];
    let fragments = |second: &[u8]| [frame(TEXT_FRAME, b"{"), second.to_vec()].concat();
    for (code, what, bytes) in [
        (1002, "code 0", close(0, "")),
        (1002, "code 999", close(999, "")),
        (1002, "code 1004", close(1004, "")),
        (1002, "code 1005", close(1005, "")),
        (1002, "code 1006", close(1006, "")),
        (1002, "code 1015", close(1015, "")),
        (1002, "code 1016", close(1016, "")),
        (1002, "code 2999", close(2999, "")),
        (1002, "code 5000", close(5000, "")),
        (1002, "code 65535", close(65535, "")),
        (1002, "half a code", frame(FIN | CLOSE, &[3])),
        (1007, "a reason", frame(FIN | CLOSE, &[3, 232, 0xff])),
        (1007, "a text", frame(FIN | TEXT_FRAME, b"\"\xff\"")),
        (
            1007,
            "a surrogate",
            frame(FIN | TEXT_FRAME, b"\"\xed\xa0\x80\""),
        ),
        (
            1007,
            "half a character",
            frame(FIN | TEXT_FRAME, b"\"\xe2\x82"),
        ),
        (
            1007,
            "a fragment",
            fragments(&frame(FIN | CONTINUATION, b"\xc0\xaf")),
        ),
        (1002, "bit 1", frame(FIN | 0x40 | TEXT_FRAME, b"{}")),
        (1002, "bit 2", frame(FIN | 0x20 | TEXT_FRAME, b"{}")),
        (1002, "bit 3", frame(FIN | 0x10 | PING, b"")),
        (1002, "opcode 3", frame(FIN | 3, b"{}")),
        (1002, "opcode 11", frame(FIN | 11, b"")),
        (1002, "no mask", unmasked(FIN | TEXT_FRAME, b"{}")),
        (1002, "a ping without mask", unmasked(FIN | PING, b"")),
        (
            1002,
            "a close without mask",
            unmasked(FIN | CLOSE, &[3, 232]),
        ),
        (1002, "a long ping", frame(FIN | PING, &long)),
        (1002, "a long close", frame(FIN | CLOSE, &long)),
        (1002, "half a ping", frame(PING, b"p")),
        (1002, "half a pong", frame(PONG, b"p")),
        (
            1002,
            "the middle of nothing",
            frame(FIN | CONTINUATION, b"{}"),
        ),
        (
            1002,
            "two beginnings",
            fragments(&frame(FIN | TEXT_FRAME, b"}")),
        ),
        (1003, "binary", frame(FIN | BINARY, b"{}")),
        (1009, "too large", frame(FIN | TEXT_FRAME, &[b' '; 5000])),
        (
            1009,
            "far too large",
            frame(FIN | TEXT_FRAME, &vec![b' '; 300_000]),
        ),
        (
            1009,
            "too large in parts",
            [frame(TEXT_FRAME, &[b' '; 3000]), frame(FIN, &[b' '; 3000])].concat(),
        ),
    ] {
        for path in PATHS {
            let (ended, _) = ended_by(&server, path, &bytes).await;
            assert_eq!(ended, Some(code), "{path} {what}");
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn the_end_of_the_daemon_is_told() {
    for path in PATHS {
        let mut server = serving().await;
        let stream = opened(&server, path, "").await;
        server.ask_to_shut_down();
        let frames = frames(stream).await;
        assert_eq!(frames.last().unwrap().1[..2], 1001_u16.to_be_bytes());
        server.shut_down().await;
    }
}
