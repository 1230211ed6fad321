//! What a hub, or whoever it leads to, answers.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use ureq::Body;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use ureq::http::{HeaderMap, StatusCode};

use super::PullError;
use crate::printable::printable;

/// An answer whose header has come.
pub(super) struct HubAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
    /// Whether the endpoint itself has answered.
    pub is_endpoints: bool,
}

impl HubAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How many bytes its content is said to have.
    pub fn length(&self) -> Option<u64> {
        let length = self.header(CONTENT_LENGTH.as_str());
        length.filter(|_| !self.is_coded())?.trim().parse().ok()
    }

    /// Whether its body is another one than its content, although that was not asked for.
    pub fn is_coded(&self) -> bool {
        let coding = self.header(CONTENT_ENCODING.as_str()).map(str::trim);
        coding.is_some_and(|it| !it.is_empty() && !it.eq_ignore_ascii_case("identity"))
    }

    /// What is in its body.
    pub fn content(self) -> Result<Box<dyn Read>, PullError> {
        let coding = self.header(CONTENT_ENCODING.as_str()).unwrap_or_default();
        let coding = coding.trim().to_ascii_lowercase();
        let is_coded = self.is_coded();
        let body = self.body.into_reader();
        match &*coding {
            _ if !is_coded => Ok(Box::new(body)),
            "gzip" | "x-gzip" => Ok(Box::new(MultiGzDecoder::new(body))),
            coding => Err(PullError::bad_answer(format!(
                "it is coded as `{}`, which was not asked for",
                printable(coding)
            ))),
        }
    }
}
