//! What a hub, or a server that it leads to, answers.

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use ureq::Body;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, RETRY_AFTER};
use ureq::http::{HeaderMap, StatusCode};

use super::PullError;
use super::tries::Trouble;
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

/// What an answer means that brings nothing.
pub(super) fn refusal(answer: &HubAnswer, what: &str, repository: &str) -> Trouble {
    let status = answer.status;
    let not_found = || PullError::NotFound {
        what: match status {
            StatusCode::UNAUTHORIZED => format!("{what}, or shows it to no one without a token"),
            _ => what.to_owned(),
        },
    };
    let code = answer.header("x-error-code").unwrap_or_default();
    let is_code = |codes: &[&str]| codes.contains(&code) && answer.is_endpoints;
    if is_code(&["RepoNotFound", "RevisionNotFound", "EntryNotFound"]) {
        return not_found().into();
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if answer.is_endpoints => {
            let said = answer.header("x-error-message").unwrap_or_default();
            let said: String = printable(said).chars().take(200).collect();
            PullError::Refused {
                repository: repository.to_owned(),
                said: match said.is_empty() {
                    true => String::new(),
                    false => format!(" ({said})"),
                },
            }
            .into()
        }
        StatusCode::NOT_FOUND if answer.is_endpoints => not_found().into(),
        StatusCode::TOO_MANY_REQUESTS => Trouble::Again {
            reason: "the hub has too much to do".to_owned(),
            wait: retry_after(answer),
            is_busy: true,
        },
        // An address that a hub has signed is good for a while; the next try asks for another one.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT => {
            Trouble::again(format!("it was answered with {status}"))
        }
        status if status.is_server_error() => Trouble::Again {
            reason: format!("it was answered with {status}"),
            wait: retry_after(answer),
            is_busy: status == StatusCode::SERVICE_UNAVAILABLE,
        },
        status => PullError::bad_answer(format!("{what} was answered with {status}")).into(),
    }
}

fn retry_after(answer: &HubAnswer) -> Option<Duration> {
    wait_in(
        answer.header(RETRY_AFTER.as_str())?.trim(),
        Timestamp::now(),
    )
}

/// In seconds, or as the time until which.
fn wait_in(said: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = said.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = rfc2822::DateTimeParser::new().parse_timestamp(said).ok()?;
    // What has passed is no wait.
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_says_when_to_ask_again() {
        let now: Timestamp = "1994-11-06T08:48:37Z".parse().unwrap();
        for (said, seconds) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:47:37 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let wait = wait_in(said, now);
            assert_eq!(wait, seconds.map(Duration::from_secs), "{said}");
        }
    }
}
