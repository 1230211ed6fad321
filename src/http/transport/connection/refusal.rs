//! What hyper answers of its own to what is no request: a status and an empty body. The connection puts
//! an answer in its place that says what is wrong, in the shape of the path that was asked for.

use axum::http::StatusCode;

use crate::http::request::error::RequestError;
use crate::http::response::error_shape::ErrorShape;

/// So much of a request's header is remembered while it arrives: its first line and what comes first
/// behind it.
const REMEMBERED_BYTES: usize = 2048;

/// The beginning of a request that has not been read whole.
#[derive(Default)]
pub(super) struct Beginning {
    bytes: Vec<u8>,
    /// The end of its first line has come.
    has_line: bool,
    /// Bytes that have come of its first line, and of all of it.
    line_bytes: usize,
    all_bytes: usize,
    /// Requests that had begun before it.
    begun: u64,
}

impl Beginning {
    /// `begun`: requests whose header was whole by now.
    pub fn arrived(&mut self, bytes: &[u8], begun: u64) {
        if begun != self.begun {
            *self = Self {
                begun,
                ..Self::default()
            };
        }
        self.all_bytes += bytes.len();
        if !self.has_line {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            self.line_bytes += end.unwrap_or(bytes.len());
            self.has_line = end.is_some();
        }
        let room = REMEMBERED_BYTES - self.bytes.len();
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The answer that is written instead of `answer`, where that is hyper's own.
    pub fn refusal(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let status = own_answer(answer)?;
        let error = RequestError::NotHttp {
            status: self.status(status),
        };
        Some(ErrorShape::of(&self.path()).raw(&error))
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes
            .split(|&byte| byte == b'\n')
            .map(<[u8]>::trim_ascii)
    }

    fn path(&self) -> String {
        let line = self.lines().next().unwrap_or_default();
        let target = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        let path = target
            .split(|&byte| byte == b'?')
            .next()
            .unwrap_or_default();
        String::from_utf8_lossy(path).into_owned()
    }

    /// hyper says 400 to a version that is not HTTP/1, and that a header is too large to a body whose
    /// length is, or to a target. Of a header that is too large the target is to blame where its line is
    /// most of what has come, however much came at once.
    fn status(&self, status: StatusCode) -> StatusCode {
        let first = self.lines().next().unwrap_or_default();
        let version = first
            .rsplit(|&byte| byte == b' ')
            .next()
            .unwrap_or_default();
        if version.starts_with(b"HTTP/") && !version.starts_with(b"HTTP/1.") {
            return StatusCode::HTTP_VERSION_NOT_SUPPORTED;
        }
        let has_huge_length = self.lines().skip(1).any(|line| {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else {
                return false;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            name.eq_ignore_ascii_case(b"content-length")
                && value.len() > 18
                && value.iter().all(u8::is_ascii_digit)
        });
        match status {
            _ if has_huge_length => StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if self.line_bytes > self.all_bytes / 2 => {
                StatusCode::URI_TOO_LONG
            }
            status => status,
        }
    }
}

/// The status of an answer without a body that only hyper gives: no error of the daemon is empty.
fn own_answer(answer: &[u8]) -> Option<StatusCode> {
    let head = answer.strip_suffix(b"\r\n\r\n")?;
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .or(head.strip_prefix(b"HTTP/1.0 "))?;
    let status = StatusCode::from_bytes(status.get(..3)?).ok()?;
    let empty = b"content-length: 0";
    let is_empty = head.windows(empty.len()).any(|part| part == empty);
    (is_empty && status.is_client_error()).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(request: &str, status: &str) -> Option<String> {
        let mut beginning = Beginning::default();
        for piece in request.as_bytes().chunks(5) {
            beginning.arrived(piece, 0);
        }
        let answer = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n"
        );
        let refusal = beginning.refusal(answer.as_bytes())?;
        Some(String::from_utf8(refusal).unwrap())
    }

    #[test]
    fn an_answer_says_what_is_wrong_in_its_paths_shape() {
        for (request, status, expected, part) in [
            (
                "GET / HTTP/1.1\r\nX : 1\r\n",
                "400 Bad Request",
                "400",
                "\"error\":{\"message\"",
            ),
            (
                "GET /rpc?a HTTP/1.1\r\nX : 1\r\n",
                "400 Bad Request",
                "400",
                "\"jsonrpc\":\"2.0\"",
            ),
            ("GET / HTTP/3.0\r\n", "400 Bad Request", "505", "HTTP/1.1"),
            ("GET /", "414 URI Too Long", "414", "\"error\""),
            (
                "GET /rpc?long",
                "431 Request Header Fields Too Large",
                "414",
                "\"jsonrpc\"",
            ),
            (
                "GET /rpc?whole HTTP/1.1\r\nhost: a\r\n\r\n",
                "431 Request Header Fields Too Large",
                "414",
                "\"jsonrpc\"",
            ),
            (
                "GET / HTTP/1.1\r\nA: a field that is longer",
                "431 Request Header Fields Too Large",
                "431",
                "\"error\"",
            ),
            (
                "POST /rpc HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
                "431 Request Header Fields Too Large",
                "413",
                "\"jsonrpc\"",
            ),
        ] {
            let refusal = refused(request, status).expect(request);
            assert!(
                refusal.starts_with(&format!("HTTP/1.1 {expected} ")),
                "{refusal}"
            );
            let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("content-length: {}", body.len())),
                "{head}"
            );
            assert!(body.contains(part), "{body}");
        }
    }

    #[test]
    fn what_the_daemon_answers_is_left_alone() {
        let beginning = Beginning::default();
        for answer in [
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 20\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n{}",
            "data: HTTP/1.1 400 content-length: 0\r\n\r\n",
        ] {
            assert_eq!(beginning.refusal(answer.as_bytes()), None, "{answer}");
        }
    }

    #[test]
    fn a_header_takes_little_memory_while_it_arrives() {
        let mut beginning = Beginning::default();
        for _ in 0..1000 {
            beginning.arrived(&[b'a'; 100], 0);
        }
        assert_eq!(beginning.bytes.len(), REMEMBERED_BYTES);
        beginning.arrived(b"GET /rpc HTTP/1.1\r\n", 1);
        assert_eq!(beginning.path(), "/rpc", "of the next request");
    }
}
