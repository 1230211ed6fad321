//! A hub that speaks Hugging Face's protocol, as far as pulls use it, and misbehaves on command. Each connection
//! has one request; what was asked and how much was sent of files is written down.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use sha2::{Digest as _, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The repository that a [`Repo`] is.
pub const REPOSITORY: &str = "owner/name";
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Larger files lie in the large storage, as `.gitattributes` of hubs say.
const SMALL_BYTES: usize = 1000;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn is_for_file(&self) -> bool {
        self.method == "GET" && self.path.contains("/resolve/")
    }

    /// Where the rest begins that is asked for.
    pub fn offset(&self) -> usize {
        let range = self.headers.get("range").map_or("", String::as_str);
        let from = range
            .strip_prefix("bytes=")
            .and_then(|it| it.strip_suffix('-'));
        from.map_or(0, |from| from.parse().expect("an offset"))
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut_at: Option<usize>,
    /// After which nothing more is sent until the client is gone.
    pub hold_at: Option<usize>,
    /// The end of the body is the connection's alone.
    pub has_no_length: bool,
    /// So many bytes at a time, with a pause before each.
    pub drip: Option<(usize, Duration)>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn json(value: &Value) -> Self {
        Self {
            body: value.to_string().into_bytes(),
            ..Self::status(200).header("content-type", "application/json")
        }
    }

    pub fn cut_at(self, bytes: usize) -> Self {
        Self {
            cut_at: Some(bytes),
            ..self
        }
    }
}

/// A repository with one commit.
#[derive(Clone)]
pub struct Repo {
    pub files: BTreeMap<String, Vec<u8>>,
    pub card: Value,
    pub lists_hashes: bool,
    /// Whether a file's own address tells its checksum.
    pub tells_hashes: bool,
}

impl Repo {
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let files = files
            .iter()
            .map(|(path, content)| ((*path).to_owned(), content.to_vec()));
        Self {
            files: files.collect(),
            card: json!({"license": "apache-2.0"}),
            lists_hashes: true,
            tells_hashes: true,
        }
    }

    /// As a hub that is well answers.
    pub fn answer(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap_or_default();
        let listing = format!("/api/models/{REPOSITORY}/revision/main");
        if path == listing {
            return Reply::json(&self.listing());
        }
        let folder = format!("/{REPOSITORY}/resolve/{COMMIT}/");
        let Some(name) = path.strip_prefix(&folder) else {
            return Reply::status(404).header("x-error-code", "RepoNotFound");
        };
        let Some(content) = self.files.get(name) else {
            return Reply::status(404).header("x-error-code", "EntryNotFound");
        };
        self.file(request, content)
    }

    /// A file, from where it is asked for.
    pub fn file(&self, request: &Request, content: &[u8]) -> Reply {
        let mut reply = Reply::status(200)
            .header("accept-ranges", "bytes")
            .header("x-repo-commit", COMMIT)
            .header("content-type", "application/octet-stream");
        if self.tells_hashes {
            let digits = digits_of(content);
            reply = reply
                .header("x-linked-etag", format!("\"{digits}\""))
                .header("x-linked-size", content.len().to_string());
        }
        let offset = request.offset();
        if offset > 0 && offset >= content.len() {
            return Reply::status(416)
                .header("content-range", format!("bytes */{}", content.len()));
        }
        if offset > 0 {
            let (last, all) = (content.len() - 1, content.len());
            reply.status = 206;
            reply = reply.header("content-range", format!("bytes {offset}-{last}/{all}"));
        }
        reply.body = content[offset..].to_vec();
        reply
    }

    fn listing(&self) -> Value {
        let siblings = self.files.iter().map(|(path, content)| {
            let digits = digits_of(content);
            match (self.lists_hashes, content.len() > SMALL_BYTES) {
                (false, _) => json!({"rfilename": path}),
                (true, false) => {
                    json!({"rfilename": path, "size": content.len(), "blobId": digits})
                }
                (true, true) => json!({
                    "rfilename": path, "size": content.len(), "blobId": COMMIT,
                    "lfs": {"sha256": digits, "size": content.len(), "pointerSize": 134},
                }),
            }
        });
        json!({
            "id": REPOSITORY, "sha": COMMIT, "private": false, "gated": false,
            "cardData": self.card, "siblings": siblings.collect::<Vec<_>>(),
        })
    }
}

/// The checksum that a hub has of a file.
pub fn digits_of(content: &[u8]) -> String {
    match content.len() > SMALL_BYTES {
        true => hex(&Sha256::digest(content)),
        false => {
            let mut blob = Sha1::new();
            blob.update(format!("blob {}\0", content.len()).as_bytes());
            blob.update(content);
            hex(&blob.finalize())
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        write!(digits, "{byte:02x}").expect("a string takes it");
    }
    digits
}

/// Bytes that do not repeat.
pub fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(count)
        .collect()
}

/// A model of so many bytes that is listed, and that no library can load: a header of GGUF without tensors.
pub fn listed_gguf(count: usize) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    let (tensors, pairs) = (0u64, 1u64);
    file.extend(tensors.to_le_bytes());
    file.extend(pairs.to_le_bytes());
    let text = |text: &str| {
        let length = text.len() as u64;
        [&length.to_le_bytes()[..], text.as_bytes()].concat()
    };
    file.extend(text("general.architecture"));
    // The type of strings.
    file.extend(8u32.to_le_bytes());
    file.extend(text("llama"));
    let rest = count.checked_sub(file.len()).expect("room for a header");
    file.extend(random_bytes(1, rest));
    file
}

/// A running hub; it ends with this.
pub struct Hub {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

type Answer = dyn Fn(&Request, usize) -> Reply + Send + Sync;

struct Shared {
    answer: Box<Answer>,
    seen: Mutex<Vec<Request>>,
    /// Bytes of bodies of files.
    sent: Mutex<u64>,
    /// Connections that wait for their client to go.
    holding: (Mutex<usize>, Condvar),
    is_over: AtomicBool,
}

impl Hub {
    /// `answer` gets each request and how many there were before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            seen: Mutex::default(),
            sent: Mutex::default(),
            holding: (Mutex::new(0), Condvar::new()),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A client that goes away ends its own connection only.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { address, shared }
    }

    /// One that is well.
    pub fn of(repo: Repo) -> Self {
        Self::start(move |request, _| repo.answer(request))
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().expect("the requests").clone()
    }

    pub fn sent(&self) -> u64 {
        *self.shared.sent.lock().expect("the bytes")
    }

    /// Waits for the connection after `count` others that waits for its client to go.
    pub fn wait_for_hold(&self, count: usize) {
        let (holding, changed) = &self.shared.holding;
        let until = Instant::now() + PATIENCE;
        let mut held = holding.lock().expect("the connections");
        while *held <= count {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no file came as far as it was to");
            held = changed.wait_timeout(held, left).expect("the connections").0;
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let Some(request) = read_request(&mut reader)? else {
            return Ok(());
        };
        let nth = {
            let mut seen = self.seen.lock().expect("the requests");
            seen.push(request.clone());
            seen.len() - 1
        };
        let reply = (self.answer)(&request, nth);
        self.send(stream, &request, &reply)
    }

    fn send(&self, mut stream: TcpStream, request: &Request, reply: &Reply) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", reply.status);
        for (name, value) in &reply.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if !reply.has_no_length {
            let _ = write!(head, "content-length: {}\r\n", reply.body.len());
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let end = reply.cut_at.or(reply.hold_at).unwrap_or(reply.body.len());
        let body = &reply.body[..end.min(reply.body.len())];
        let (piece, pause) = reply.drip.unwrap_or((16 * 1024, Duration::ZERO));
        for piece in body.chunks(piece) {
            thread::sleep(pause);
            stream.write_all(piece)?;
            if request.is_for_file() {
                *self.sent.lock().expect("the bytes") += piece.len() as u64;
            }
        }
        if reply.hold_at.is_some() {
            let (holding, changed) = &self.holding;
            *holding.lock().expect("the connections") += 1;
            changed.notify_all();
            // Until the client is gone, which sends nothing more.
            let _ = stream.read(&mut [0; 1]);
        }
        Ok(())
    }
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) => {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
        }
    }
    Ok(Some(Request {
        method,
        path,
        headers,
    }))
}
