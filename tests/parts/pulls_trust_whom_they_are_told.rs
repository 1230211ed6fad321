//! A hub behind TLS is known by the certificates that the settings name, and by no others; through a proxy it is known
//! all the same, and the proxy learns no more than where it is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::hub_support::Hub;
use crate::pulls_support::{Folder, PLACE, repo};
use rkllmd::hub::{Job, pull};
use rkllmd::settings::Settings;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const TOKEN: &str = "hf_secret0123456789";
const SIZE: usize = 100_000;

/// The certificate of `hub.test` and 127.0.0.1, its key, the authority that has signed it, and another one. The keys of
/// the authorities are gone.
fn data(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hub");
    folder.join(name)
}

/// Serves each connection on a thread of its own.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// What comes until a head is whole.
fn head(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(head)
}

/// The hub with TLS before it.
fn behind_tls(hub: SocketAddr) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(data("hub.pem")).expect("a certificate");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(data("hub.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    let config = Arc::new(config);
    listen(move |client| {
        let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
        let mut client = StreamOwned::new(connection, client);
        // Who does not trust it goes away in the middle.
        let Some(head) = head(&mut client) else {
            return;
        };
        let mut hub = TcpStream::connect(hub).expect("the hub");
        hub.write_all(&head).expect("the hub reads");
        let _ = std::io::copy(&mut hub, &mut client);
        client.conn.send_close_notify();
        let _ = client.flush();
    })
}

/// A proxy that leads every tunnel to one address, and the heads that it has read.
fn proxy(to: SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    let address = listen(move |mut client| {
        let Some(head) = head(&mut client) else {
            return;
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        heads.lock().expect("the heads").push(head);
        let mut server = TcpStream::connect(to).expect("the server");
        client
            .write_all(b"HTTP/1.1 200 Connected\r\n\r\n")
            .expect("the client reads");
        let (mut from_client, mut to_server) = (
            client.try_clone().expect("a stream"),
            server.try_clone().expect("a stream"),
        );
        thread::spawn(move || {
            let _ = std::io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Write);
    });
    (format!("http://{address}"), seen)
}

fn job(
    folder: &Folder,
    endpoint: &str,
    ca: Option<&str>,
    change: impl FnOnce(&mut Settings),
) -> Job {
    let token = folder.path().join(".token");
    std::fs::write(&token, TOKEN).expect("a file");
    let mut settings = Settings::default();
    settings.models.dir = folder.path().to_owned();
    settings.hub.endpoint = endpoint.to_owned();
    settings.hub.token_file = Some(token);
    settings.hub.ca_file = ca.map(data);
    settings.hub.retry_wait = std::time::Duration::ZERO;
    settings.hub.max_tries = 2;
    settings.hub.keep_free_bytes = 0;
    change(&mut settings);
    let is_proxied = settings.hub.proxy.is_some();
    let mut job = Job::new(PLACE, &settings);
    if !is_proxied {
        // Not that of this machine.
        job.hub.proxy = None;
    }
    job.hub.without_proxy = Vec::new();
    job
}

#[test]
fn a_hub_is_known_by_the_authority_that_is_named() {
    let hub = Hub::of(repo(SIZE));
    let endpoint = format!("https://{}", behind_tls(hub.address));
    let folder = Folder::new();
    // An authority that has not signed it.
    let job_of = |ca| job(&folder, &endpoint, ca, |_| {});
    let refused = pull(&job_of(Some("another-ca.pem")), &mut |_| {});
    assert!(refused.is_err(), "{refused:?}");
    assert!(hub.seen().is_empty(), "nothing was said to it");
    assert!(!folder.place().exists());
    // A file that holds no certificate.
    let refused = pull(&job_of(Some("hub.key")), &mut |_| {});
    let error = refused.expect_err("no certificate").to_string();
    assert!(
        error.contains("hub.key") && !error.contains(TOKEN),
        "{error}"
    );
    let pulled = pull(&job_of(Some("ca.pem")), &mut |_| {});
    assert!(pulled.is_ok(), "{pulled:?}");
    assert_eq!(folder.model().map(|model| model.len()), Some(SIZE));
    let bearer = format!("Bearer {TOKEN}");
    let of = |name: &str| hub.seen()[0].headers.get(name).cloned();
    assert_eq!(of("authorization"), Some(bearer));
}

#[test]
fn a_certificate_of_another_name_is_refused() {
    let hub = Hub::of(repo(SIZE));
    let port = behind_tls(hub.address).port();
    let folder = Folder::new();
    // The certificate names 127.0.0.1 and not this.
    let endpoint = format!("https://localhost:{port}");
    let refused = pull(
        &job(&folder, &endpoint, Some("ca.pem"), |_| {}),
        &mut |_| {},
    );
    assert!(refused.is_err(), "{refused:?}");
    assert!(hub.seen().is_empty() && !folder.place().exists());
}

#[test]
fn a_proxy_learns_where_the_hub_is_and_nothing_else() {
    let hub = Hub::of(repo(SIZE));
    let (proxy, heads) = proxy(behind_tls(hub.address));
    let folder = Folder::new();
    let through = |settings: &mut Settings| settings.hub.proxy = Some(proxy.clone());
    // A name that only the proxy knows.
    let job = job(&folder, "https://hub.test", Some("ca.pem"), through);
    let pulled = pull(&job, &mut |_| {});
    assert!(pulled.is_ok(), "{pulled:?}");
    assert_eq!(folder.model().map(|model| model.len()), Some(SIZE));
    let heads = heads.lock().expect("the heads").clone();
    assert!(!heads.is_empty());
    for head in &heads {
        assert!(head.starts_with("CONNECT hub.test:443 "), "{head}");
        assert!(!head.contains(TOKEN) && !head.contains(PLACE), "{head}");
    }
    let seen = hub.seen();
    let is_shown = seen
        .iter()
        .all(|it| it.headers["authorization"].ends_with(TOKEN));
    assert!(is_shown, "the token goes through the tunnel");
}

#[test]
fn what_no_proxy_is_for_goes_past_it() {
    let hub = Hub::of(repo(SIZE));
    let (proxy, heads) = proxy(hub.address);
    let folder = Folder::new();
    let endpoint = hub.endpoint();
    let through = |settings: &mut Settings| settings.hub.proxy = Some(proxy.clone());
    let mut job = job(&folder, &endpoint, None, through);
    job.hub.without_proxy = vec!["127.0.0.1".to_owned()];
    let pulled = pull(&job, &mut |_| {});
    assert!(pulled.is_ok(), "{pulled:?}");
    assert!(heads.lock().expect("the heads").is_empty());
}
