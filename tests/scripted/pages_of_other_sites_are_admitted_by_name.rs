//! What browsers ask before they let a page of another site call the daemon, and read its answers.

use crate::http_support::*;
use rkllmd::auth::{CurrentKeys, Keyring};
use rkllmd::settings::{AuthPolicy, CorsOrigin, Settings};

const PAGE: &str = "https://ui.lan";

fn allowing(origins: &[&str]) -> Settings {
    let mut settings = Settings::default();
    settings.http.cors_origins = origins
        .iter()
        .map(|origin| origin.parse::<CorsOrigin>().unwrap())
        .collect();
    settings
}

async fn serving(settings: Settings, keys: CurrentKeys) -> Server {
    Server::start_with_keys(settings, keys, |_| Ok(replay(vec![text("x"), finished()]))).await
}

/// Keys are asked for, and no client has one.
fn locked() -> CurrentKeys {
    CurrentKeys::fixed(Some(Keyring::default()))
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")
}

fn preflight(path: &str, origin: &str) -> String {
    request(
        "OPTIONS",
        path,
        &format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: authorization,content-type,x-stainless-os\r\n"
        ),
    )
}

/// All values of a header, joined.
fn all(answer: &Answer, name: &str) -> String {
    let values = answer.headers.iter().filter(|(key, _)| key == name);
    let values: Vec<&str> = values.map(|(_, value)| value.as_str()).collect();
    values.join(", ").to_ascii_lowercase()
}

#[tokio::test]
async fn a_preflight_needs_no_key() {
    let server = serving(allowing(&[PAGE, "http://localhost:3000"]), locked()).await;
    for origin in [PAGE, "http://localhost:3000"] {
        for path in [
            CHAT,
            "/v1/models",
            "/metrics",
            "/rpc",
            "/chat/completions/",
            "/nowhere",
        ] {
            let answer = server.ask(preflight(path, origin)).await;
            assert_eq!(answer.status, 204, "{path}");
            let header = |name| answer.header(name);
            assert_eq!(header("access-control-allow-origin"), Some(origin));
            assert_eq!(
                header("access-control-allow-headers"),
                Some("authorization,content-type,x-stainless-os")
            );
            let methods = header("access-control-allow-methods").unwrap();
            assert!(
                methods.contains("POST") && methods.contains("GET"),
                "{methods}"
            );
            assert!(header("access-control-max-age").is_some());
            assert_eq!(header("access-control-allow-credentials"), None);
            assert_eq!(header("access-control-allow-private-network"), None);
            let vary = all(&answer, "vary");
            for name in ["origin", "access-control-request-headers"] {
                assert!(vary.contains(name), "{vary}");
            }
        }
    }
    let private = format!(
        "origin: {PAGE}\r\naccess-control-request-method: GET\r\n\
         access-control-request-private-network: true\r\n"
    );
    let answer = server.ask(request("OPTIONS", CHAT, &private)).await;
    assert_eq!(
        answer.header("access-control-allow-private-network"),
        Some("true")
    );
    // What a preflight is not needs its key as ever.
    for headers in [
        String::new(),
        format!("origin: {PAGE}\r\n"),
        "access-control-request-method: GET\r\n".to_owned(),
    ] {
        let answer = server.ask(request("OPTIONS", "/v1/models", &headers)).await;
        assert_eq!(answer.status, 401, "{headers}");
    }
    let get = format!("origin: {PAGE}\r\naccess-control-request-method: GET\r\n");
    assert_eq!(
        server.ask(request("GET", "/v1/models", &get)).await.status,
        401
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_page_reads_answers_and_errors_alike() {
    let server = serving(allowing(&[PAGE]), CurrentKeys::default()).await;
    let origin = format!("origin: {PAGE}\r\n");
    let ask = |method, path| request(method, path, &origin);
    let body = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"top_k":3"#;
    let posted = |rest: &str| {
        let body = format!("{body}{rest}");
        let length = format!("{origin}content-length: {}\r\n", body.len());
        request("POST", CHAT, &length) + &body
    };
    for (status, request) in [
        (200, ask("GET", "/v1/models")),
        (200, ask("GET", "/health")),
        (200, ask("GET", "/metrics")),
        (404, ask("GET", "/nowhere")),
        (405, ask("POST", "/health")),
        (405, ask("GET", "/rpc")),
        (200, posted("}")),
        (200, posted(r#","stream":true}"#)),
        (400, posted("")),
    ] {
        let answer = server.ask(&request).await;
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(PAGE),
            "{request}"
        );
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(exposed.contains("x-request-id"), "{exposed}");
        let not_applied = answer.header("x-rkllmd-not-applied").is_some();
        assert_eq!(exposed.contains("x-rkllmd-not-applied"), not_applied);
        assert!(all(&answer, "vary").contains("origin"));
    }
    server.shut_down().await;
    let server = serving(allowing(&[PAGE]), locked()).await;
    let answer = server.ask(ask("GET", "/v1/models")).await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
    server.shut_down().await;
}

#[tokio::test]
async fn no_page_is_admitted_that_is_not_named() {
    for (origins, keys) in [
        (&[][..], CurrentKeys::default()),
        (&[PAGE], CurrentKeys::default()),
        (&[], locked()),
        (&[PAGE], locked()),
    ] {
        let mut settings = allowing(origins);
        // Not what is looked at here.
        settings.http.allowed_hosts = vec!["*".to_owned()];
        let server = serving(settings, keys).await;
        for origin in [
            "http://localhost:3000",
            "https://ui.lan:81",
            "http://ui.lan",
            "null",
        ] {
            let asked = [
                preflight(CHAT, origin),
                request("GET", "/v1/models", &format!("origin: {origin}\r\n")),
            ];
            for asked in asked {
                let answer = server.ask(asked).await;
                let told = answer
                    .headers
                    .iter()
                    .any(|(name, _)| name.starts_with("access-control"));
                assert!(!told, "{origin}: {:?}", answer.headers);
                // A cache between must not give it to a page that is admitted.
                assert_eq!(all(&answer, "vary").contains("origin"), !origins.is_empty());
            }
        }
        let two = format!("origin: {PAGE}\r\norigin: https://evil.example\r\n");
        let answer = server.ask(request("GET", "/health", &two)).await;
        assert_eq!(answer.header("access-control-allow-origin"), None);
        server.shut_down().await;
    }
}

/// The guards against foreign pages admit whom the pages' setting names, and check the host as ever.
#[tokio::test]
async fn the_guards_agree() {
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}"#;
    for (origins, page, status) in [
        (&[][..], PAGE, 403),
        (&[PAGE], PAGE, 200),
        (&[PAGE], "https://evil.example", 403),
        (&["*"], "https://evil.example", 200),
    ] {
        let server = serving(allowing(origins), CurrentKeys::default()).await;
        let headers = format!("origin: {page}\r\ncontent-length: {}\r\n", call.len());
        let answer = server.ask(request("POST", "/rpc", &headers) + call).await;
        assert_eq!(answer.status, status, "{origins:?} {page}");
        let headers = format!("origin: {page}\r\n");
        for path in ["/rpc/ws", "/v1/responses"] {
            let mut client = server.client().await;
            client.send(web_socket::handshake(path, &headers)).await;
            let switched = client.head().await.status;
            assert_eq!(
                switched,
                if status == 200 { 101 } else { 403 },
                "{path} {origins:?} {page}"
            );
        }
        let rebound =
            "GET /v1/models HTTP/1.1\r\nhost: evil.example\r\norigin: http://evil.example\r\n\r\n";
        let answer = server.ask(rebound).await;
        assert_eq!(
            answer.status, 403,
            "{origins:?}: another name is not this machine's"
        );
        server.shut_down().await;
    }
}

#[tokio::test]
async fn everybody_is_a_setting_of_its_own() {
    let mut settings = allowing(&["*"]);
    settings.http.auth = AuthPolicy::Keys;
    let server = serving(settings, locked()).await;
    for origin in ["https://evil.example", "null"] {
        let answer = server.ask(preflight(CHAT, origin)).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let asked = request("GET", "/v1/models", &format!("origin: {origin}\r\n"));
        let answer = server.ask(asked).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(all(&answer, "vary"), "");
    }
    server.shut_down().await;
}
