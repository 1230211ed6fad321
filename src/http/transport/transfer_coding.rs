//! Which transfer codings a body may come in: none or `chunked`. The connection reads whatever ends with
//! `chunked` and leaves the other codings in the body, where they would be taken for what the client wrote.

use axum::http::{HeaderMap, header};

use crate::http::request::error::{RequestError, quote};

pub(in crate::http) fn check(headers: &HeaderMap) -> Result<(), RequestError> {
    let codings = headers.get_all(header::TRANSFER_ENCODING);
    let codings: Vec<_> = codings.iter().map(|coding| coding.as_bytes()).collect();
    match codings.as_slice() {
        [] => Ok(()),
        [coding] if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        codings => Err(RequestError::UnknownTransferCoding {
            codings: quote(&String::from_utf8_lossy(&codings.join(&b", "[..]))),
        }),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn nothing_but_chunked_is_read() {
        for (given, is_read) in [
            (&[][..], true),
            (&["chunked"][..], true),
            (&[" Chunked "][..], true),
            (&["gzip, chunked"][..], false),
            (&["gzip", "chunked"][..], false),
            (&["identity, chunked"][..], false),
            (&["chunked", "chunked"][..], false),
        ] {
            let mut headers = HeaderMap::new();
            for coding in given {
                let coding = HeaderValue::from_static(coding);
                headers.append(header::TRANSFER_ENCODING, coding);
            }
            assert_eq!(check(&headers).is_ok(), is_read, "{given:?}");
        }
    }
}
