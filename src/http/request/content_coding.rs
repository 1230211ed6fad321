//! How a request's body is coded on its way. A limit on a body is one on what it decodes to, so a few
//! bytes that stand for gigabytes take the memory of a plain body and no more.

use std::io::{self, Write};

use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;

use crate::http::request::error::{RequestError, quote};

/// The codings that are read, as `Accept-Encoding` says them.
pub(crate) const ACCEPTED: &str = "gzip, identity";

/// So much of a coded body is decoded at a time: it may stand for a thousand times as many bytes,
/// and meanwhile nothing else runs on this thread.
pub(in crate::http) const SLICE_BYTES: usize = 1024;

/// A body that arrives piece by piece.
pub(in crate::http) enum Decoded {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

/// What a body has come to.
pub(in crate::http) struct Bounded {
    bytes: BytesMut,
    limit_bytes: usize,
    is_over: bool,
}

/// Why a piece was not taken.
#[derive(Debug)]
pub(in crate::http) enum Refused {
    TooLarge,
    /// It is not what its coding says.
    Broken(io::Error),
}

impl Decoded {
    /// Nothing yet of a body with these headers, of which at most so many bytes are kept.
    pub fn new(headers: &HeaderMap, limit_bytes: usize) -> Result<Self, RequestError> {
        let bounded = Bounded {
            bytes: BytesMut::new(),
            limit_bytes,
            is_over: false,
        };
        let codings: Vec<_> = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
            .collect();
        match codings[..] {
            [] => Ok(Self::Plain(bounded)),
            [one] if one.eq_ignore_ascii_case(b"gzip") || one.eq_ignore_ascii_case(b"x-gzip") => {
                Ok(Self::Gzip(Box::new(MultiGzDecoder::new(bounded))))
            }
            _ => {
                let coding = codings.join(&b", "[..]);
                Err(RequestError::UnknownCoding {
                    coding: quote(&String::from_utf8_lossy(&coding)),
                })
            }
        }
    }

    /// So many bytes will come, if the client tells the truth. Of the room for them nothing is resident
    /// before they come, and a buffer that is large enough is never copied.
    pub fn expect(&mut self, length: usize) {
        if let Self::Plain(bounded) = self {
            bounded.bytes.reserve(length.min(bounded.limit_bytes));
        }
    }

    /// Bytes so far, decoded.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(bounded) => bounded.bytes.len(),
            Self::Gzip(decoder) => decoder.get_ref().bytes.len(),
        }
    }

    /// Whether a piece may stand for more bytes than it has.
    pub fn is_coded(&self) -> bool {
        matches!(self, Self::Gzip(_))
    }

    pub fn push(&mut self, piece: &[u8]) -> Result<(), Refused> {
        let written = match self {
            Self::Plain(bounded) => bounded.write_all(piece),
            Self::Gzip(decoder) => decoder.write_all(piece),
        };
        written.map_err(|error| self.refused(error))
    }

    /// The whole body, once its last piece was taken.
    pub fn finish(mut self) -> Result<Bytes, Refused> {
        if let Self::Gzip(decoder) = &mut self
            && let Err(error) = decoder.try_finish()
        {
            return Err(self.refused(error));
        }
        Ok(self.bounded_mut().bytes.split().freeze())
    }

    fn refused(&mut self, error: io::Error) -> Refused {
        match self.bounded_mut().is_over {
            true => Refused::TooLarge,
            false => Refused::Broken(error),
        }
    }

    fn bounded_mut(&mut self) -> &mut Bounded {
        match self {
            Self::Plain(bounded) => bounded,
            Self::Gzip(decoder) => decoder.get_mut(),
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit_bytes {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn headers(codings: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        headers
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(codings: &[&'static str], body: &[u8], limit: usize) -> Result<Bytes, Refused> {
        let mut decoded = Decoded::new(&headers(codings), limit).unwrap();
        for piece in body.chunks(7) {
            decoded.push(piece)?;
        }
        decoded.finish()
    }

    #[test]
    fn gzip_and_no_coding_are_read() {
        let text = b"a text that is long enough to be worth it".repeat(9);
        for (codings, body) in [
            (&[][..], text.clone()),
            (&["identity"], text.clone()),
            (&["gzip"], gzip(&text)),
            (&["X-GZip"], gzip(&text)),
            (&["identity, gzip"], gzip(&text)),
            (&["gzip"], [gzip(&text[..9]), gzip(&text[9..])].concat()),
        ] {
            assert_eq!(
                decode(codings, &body, text.len()).unwrap(),
                text,
                "{codings:?}"
            );
        }
    }

    #[test]
    fn other_codings_are_named() {
        for codings in [
            &["br"][..],
            &["deflate"],
            &["gzip, gzip"],
            &["gzip", "zstd"],
        ] {
            let Err(RequestError::UnknownCoding { coding }) =
                Decoded::new(&headers(codings), 9).map(|_| ())
            else {
                panic!("{codings:?}");
            };
            assert!(coding.contains(codings[0]), "{coding}");
        }
    }

    #[test]
    fn the_limit_is_on_what_a_body_decodes_to() {
        let bomb = gzip(&vec![b' '; 64 << 20]);
        assert!(matches!(
            decode(&["gzip"], &bomb, 1 << 20),
            Err(Refused::TooLarge)
        ));
        assert!(matches!(
            decode(&[], b"12345678", 7),
            Err(Refused::TooLarge)
        ));
    }

    #[test]
    fn what_is_no_gzip_or_is_cut_off_is_broken() {
        let whole = gzip(b"whole");
        for body in [&b"{\"model\":\"m\"}"[..], &whole[..whole.len() - 3], b""] {
            let decoded = decode(&["gzip"], body, 1 << 20);
            assert!(
                matches!(decoded, Err(Refused::Broken(_))),
                "{body:?}: {decoded:?}"
            );
        }
    }
}
