//! Requests to a hub: to its endpoint first, whatever is asked for, and from there only where a redirect may
//! lead. The token is shown to the endpoint's own origin and to no other.

use std::io::{self, Read};

use ureq::config::Config;
use ureq::http::header::{AUTHORIZATION, LOCATION};
use ureq::http::{HeaderMap, StatusCode};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Proxy};

use super::address::{Forbidden, Judge, JudgingResolver};
use super::answer::{HubAnswer, refusal};
use super::listing::{self, Listing};
use super::names::encoded;
use super::pace::Pace;
use super::tries::{Tries, Trouble};
use super::trust::{settings, tls, token};
use super::url::{self, Url};
use super::{HubAccess, PullError};
use crate::printable::printable;

const MOST_REDIRECTS: usize = 5;
const MOST_HEADER_BYTES: usize = 64 * 1024;
const TEXT_BUFFER_BYTES: usize = 16 * 1024;

/// What only a hub tells of a file, and a server that it leads to need not know.
const LINKED: [&str; 2] = ["x-linked-etag", "x-linked-size"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    /// Ends at the redirect that tells of the file.
    Head,
}

pub(super) struct Client {
    direct: Agent,
    proxied: Option<Agent>,
    without_proxy: Vec<String>,
    judge: Judge,
    endpoint: Url,
    authorization: Option<String>,
    pub hub: HubAccess,
}

impl Client {
    pub fn new(hub: &HubAccess) -> Result<Self, PullError> {
        if hub.offline {
            return Err(PullError::Offline);
        }
        let endpoint = url::endpoint(&hub.endpoint)?;
        let proxy = hub.proxy.as_deref().map(|text| {
            let wrong = || settings("hub.proxy", "it is no address of a proxy that speaks HTTP");
            let is_other = text.contains("://") && !text.starts_with("http");
            if is_other {
                return Err(wrong());
            }
            let proxy = Proxy::new(text).map_err(|_| wrong())?;
            let plain = Url::parse(&format!(
                "{}://{}:{}",
                scheme(text),
                proxy.host(),
                proxy.port()
            ));
            Ok::<_, PullError>((proxy, plain.ok_or_else(wrong)?))
        });
        let proxy = proxy.transpose()?;
        let judge = |chosen: &Url| Judge {
            chosen: chosen.clone(),
            redirect_hosts: hub.redirect_hosts.clone(),
        };
        let tls = tls(hub, &endpoint)?;
        let agent = |proxy: Option<Proxy>, judge: Judge| {
            let resolver = JudgingResolver::new(judge);
            let config = config(hub, tls.clone(), proxy);
            Agent::with_parts(config, DefaultConnector::default(), resolver)
        };
        Ok(Self {
            direct: agent(None, judge(&endpoint)),
            // It looks up the proxy alone, to which no redirect may lead.
            proxied: proxy.map(|(proxy, url)| agent(Some(proxy), judge(&url))),
            without_proxy: hub.without_proxy.clone(),
            authorization: token(hub)?.map(|token| format!("Bearer {token}")),
            judge: judge(&endpoint),
            endpoint,
            hub: hub.clone(),
        })
    }

    /// What a repository offers.
    pub fn listing(&self, repository: &str, revision: &str) -> Result<Listing, PullError> {
        let revision_part = encoded(revision, false);
        let url = self.address(&format!(
            "/api/models/{repository}/revision/{revision_part}?blobs=true"
        ))?;
        let what = format!("repository {repository} at {revision}");
        let mut tries = Tries::new(&self.hub, format!("asking for {repository}"));
        loop {
            match self.listed(&url, &what, repository) {
                Ok(listing) => return Ok(listing),
                Err(trouble) => tries.wait(trouble)?,
            }
        }
    }

    fn listed(&self, url: &Url, what: &str, repository: &str) -> Result<Listing, Trouble> {
        let answer = self.ask(Method::Get, url, None)?;
        if answer.status != StatusCode::OK {
            return Err(refusal(&answer, what, repository));
        }
        Ok(Listing::parse(&self.text(answer)?)?)
    }

    /// A body that is no longer than a list of files, and does not drip.
    fn text(&self, answer: HubAnswer) -> Result<Vec<u8>, Trouble> {
        let mut body = answer.content()?;
        let (mut text, mut buffer) = (Vec::new(), vec![0; TEXT_BUFFER_BYTES]);
        let mut pace = Pace::of(&self.hub);
        loop {
            let read = body.read(&mut buffer);
            let read = read.map_err(|error| Trouble::again(error.to_string()))?;
            if read == 0 {
                return Ok(text);
            }
            if text.len() + read > listing::MOST_BYTES {
                return Err(PullError::bad_answer("the list of files is too long").into());
            }
            text.extend_from_slice(&buffer[..read]);
            if pace.is_too_slow(read) {
                return Err(Trouble::again("it came too slowly"));
            }
        }
    }

    /// What a hub tells of a file, as the header fields of its address.
    pub fn told_of(&self, file: &FileAddress<'_>) -> Result<HeaderMap, PullError> {
        let url = self.address(&file.path())?;
        let mut tries = Tries::new(&self.hub, format!("asking for {}", file.path));
        loop {
            let trouble = match self.ask(Method::Head, &url, None) {
                Ok(answer) if answer.status.is_success() || answer.status.is_redirection() => {
                    return Ok(answer.headers);
                }
                Ok(answer) => refusal(&answer, &file.what(), file.repository),
                Err(trouble) => trouble,
            };
            tries.wait(trouble)?;
        }
    }

    /// A file from `offset` on; whatever the status is.
    pub fn file(&self, file: &FileAddress<'_>, offset: u64) -> Result<HubAnswer, Trouble> {
        let url = self.address(&file.path())?;
        self.ask(Method::Get, &url, Some(offset).filter(|offset| *offset > 0))
    }

    fn address(&self, path: &str) -> Result<Url, PullError> {
        let base = self.endpoint.path.trim_end_matches('/');
        let joined = self.endpoint.join(&format!("{base}{path}"));
        joined.ok_or_else(|| settings("hub.endpoint", "its paths cannot be made into addresses"))
    }

    fn ask(&self, method: Method, url: &Url, offset: Option<u64>) -> Result<HubAnswer, Trouble> {
        let mut url = url.clone();
        let mut linked = HeaderMap::new();
        // Once it was led elsewhere, the server that leads back says what is asked for.
        let mut is_own = true;
        for _ in 0..=MOST_REDIRECTS {
            is_own &= url.is_same_origin(&self.endpoint);
            let mut answer = self.once(method, &url, (offset, is_own))?;
            for name in LINKED {
                if let Some(told) = answer.headers.get(name).filter(|_| is_own) {
                    linked.insert(name, told.clone());
                }
            }
            for (name, told) in &linked {
                answer.headers.entry(name).or_insert_with(|| told.clone());
            }
            let location = answer.header(LOCATION.as_str());
            let Some(location) = location.filter(|_| is_redirect(answer.status)) else {
                return Ok(answer);
            };
            let next = url.join(location);
            let next =
                next.ok_or_else(|| PullError::bad_answer("a redirect leads to no address"))?;
            if method == Method::Head && !next.is_same_origin(&self.endpoint) {
                return Ok(answer);
            }
            self.may_lead(&url, &next)?;
            url = next;
        }
        let reason = format!("the download was led on more than {MOST_REDIRECTS} times");
        Err(PullError::bad_answer(reason).into())
    }

    fn may_lead(&self, from: &Url, to: &Url) -> Result<(), PullError> {
        let refused = url::why_not(from, to, &self.hub.redirect_hosts);
        // An address is judged here too: a proxy would connect to it without a question.
        let refused = refused.or_else(|| {
            let judged = self.judge.judge(to, to.ip()?);
            judged.err().map(|forbidden| forbidden.reason)
        });
        match refused {
            None => Ok(()),
            Some(reason) => Err(PullError::Led {
                host: to.host.clone(),
                reason,
            }),
        }
    }

    /// `is_own`: the hub's own address, which it may show its token to.
    fn once(
        &self,
        method: Method,
        url: &Url,
        (offset, is_own): (Option<u64>, bool),
    ) -> Result<HubAnswer, Trouble> {
        let proxied = self.proxied.as_ref();
        let proxied = proxied.filter(|_| !url.is_without_proxy(&self.without_proxy));
        let agent = proxied.unwrap_or(&self.direct);
        let target = url.to_string();
        let mut request = match method {
            Method::Get => agent.get(&target),
            Method::Head => agent.head(&target),
        };
        if let Some(offset) = offset {
            request = request.header("range", format!("bytes={offset}-"));
        }
        if let Some(authorization) = self.authorization.as_ref().filter(|_| is_own) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.call().map_err(|error| trouble(url, error))?;
        let (head, body) = response.into_parts();
        Ok(HubAnswer {
            status: head.status,
            headers: head.headers,
            body,
            is_endpoints: url.is_same_origin(&self.endpoint),
        })
    }
}

/// Where a file lies on a hub.
pub(super) struct FileAddress<'a> {
    pub repository: &'a str,
    pub commit: &'a str,
    pub path: &'a str,
}

impl FileAddress<'_> {
    fn path(&self) -> String {
        let (repository, commit) = (self.repository, self.commit);
        format!(
            "/{repository}/resolve/{commit}/{}",
            encoded(self.path, true)
        )
    }

    pub fn what(&self) -> String {
        format!(
            "{} in {} at {}",
            printable(self.path),
            self.repository,
            self.commit
        )
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn trouble(url: &Url, error: ureq::Error) -> Trouble {
    // A host alone: the rest of an address may be a secret.
    let host = &url.host;
    match error {
        ureq::Error::Other(other) => match other.downcast::<Forbidden>() {
            Ok(forbidden) => PullError::Led {
                host: forbidden.host,
                reason: forbidden.reason,
            }
            .into(),
            Err(other) => Trouble::again(format!("{host}: {other}")),
        },
        // A certificate, or what is no TLS: it is the same the next time.
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            PullError::bad_answer(format!("{host}: {error}")).into()
        }
        // Their words may be the address.
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
            PullError::bad_answer(format!("{host}: its address cannot be asked for")).into()
        }
        error @ (ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::LargeResponseHeader(..)) => {
            PullError::bad_answer(format!("{host}: {error}")).into()
        }
        error => Trouble::again(format!("{host}: {error}")),
    }
}

fn config(hub: &HubAccess, tls: TlsConfig, proxy: Option<Proxy>) -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(proxy)
        .user_agent(concat!("rkllmd/", env!("CARGO_PKG_VERSION")))
        .accept("*/*")
        .accept_encoding("identity")
        .timeout_resolve(Some(hub.connect_timeout))
        .timeout_connect(Some(hub.connect_timeout))
        .timeout_send_request(Some(hub.stall_timeout))
        .timeout_recv_response(Some(hub.stall_timeout))
        .timeout_per_read(Some(hub.stall_timeout))
        .max_response_header_size(MOST_HEADER_BYTES)
        .tls_config(tls)
        .build()
}

fn scheme(proxy: &str) -> &'static str {
    match proxy.starts_with("https://") {
        true => "https",
        false => "http",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Job;
    use crate::settings::Settings;

    #[test]
    fn a_proxy_is_passed_through_and_never_led_to() {
        let mut hub = Job::new("a/b", &Settings::default()).hub;
        hub.endpoint = "http://hub.lan".to_owned();
        hub.proxy = Some("http://10.0.0.1:3128".to_owned());
        let client = Client::new(&hub).unwrap_or_else(|error| panic!("{error}"));
        let led = |to| client.may_lead(&client.endpoint, &Url::parse(to).unwrap());
        assert_eq!(led("http://hub.lan/x"), Ok(()));
        let refused = led("http://10.0.0.1:3128/");
        assert!(matches!(refused, Err(PullError::Led { .. })), "{refused:?}");
    }
}
