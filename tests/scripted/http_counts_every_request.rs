//! `GET /metrics`: each request for a generation is counted once, whatever becomes of it, and what
//! is not known is not there.

use std::time::Duration;

use crate::http_support::*;
use rkllmd::admission::Generation;
use rkllmd::generation::{FinishReason, GenerationError};
use rkllmd::settings::Settings;
use tokio::sync::mpsc;

/// The samples of a scrape: name with labels, and value.
async fn scrape(server: &Server) -> Vec<(String, f64)> {
    let answer = server.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    samples_of(answer.text())
}

fn samples_of(page: &str) -> Vec<(String, f64)> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn value(samples: &[(String, f64)], name: &str) -> Option<f64> {
    let found = samples.iter().find(|(sample, _)| sample == name);
    found.map(|(_, value)| *value)
}

/// The outcomes counted so far, with the model they are counted for.
async fn outcomes(server: &Server) -> Vec<(String, f64)> {
    let mut counted: Vec<(String, f64)> = scrape(server)
        .await
        .into_iter()
        .filter_map(|(name, value)| {
            let labels = name.strip_prefix("rkllmd_requests_total{model=\"")?;
            let labels = labels.replace("\",outcome=\"", " ");
            Some((labels.trim_end_matches("\"}").to_owned(), value))
        })
        .collect();
    counted.sort_by(|a, b| a.0.cmp(&b.0));
    counted
}

fn counted<const N: usize>(expected: [(&str, u32); N]) -> Vec<(String, f64)> {
    let own = |(name, count): (&str, u32)| (name.to_owned(), f64::from(count));
    expected.into_iter().map(own).collect()
}

#[tokio::test]
async fn complete_answers_are_counted_with_their_tokens_and_times() {
    let events = || vec![started(&[]), text("x"), text("y"), finished()];
    let server = Server::replaying(Settings::default(), events).await;
    for fields in ["", r#","stream":true"#] {
        assert_eq!(server.ask(chat(fields)).await.status, 200);
    }
    assert_eq!(server.ask(text_request("")).await.status, 200);
    assert_eq!(
        outcomes(&server).await,
        counted([("raw complete", 1), ("test/model-1.0 complete", 2)])
    );
    let samples = scrape(&server).await;
    let of = |name: &str| {
        value(
            &samples,
            &format!("rkllmd_{name}{{model=\"test/model-1.0\"}}"),
        )
    };
    assert_eq!(of("prompt_tokens_total"), Some(18.0));
    assert_eq!(of("completion_tokens_total"), Some(4.0));
    assert_eq!(of("time_to_first_token_seconds_count"), Some(2.0));
    assert_eq!(of("queue_wait_seconds_count"), Some(2.0));
    server.shut_down().await;
}

#[tokio::test]
async fn what_was_not_measured_is_not_there() {
    let events = || vec![finished_unmeasured(FinishReason::Stop)];
    let server = Server::replaying(Settings::default(), events).await;
    assert_eq!(server.ask(chat("")).await.status, 200);
    let samples = scrape(&server).await;
    for name in [
        "prompt_tokens",
        "completion_tokens",
        "time_to_first",
        "queue_wait",
        "resume",
    ] {
        let prefix = format!("rkllmd_{name}");
        let found = samples
            .iter()
            .find(|(sample, _)| sample.starts_with(&prefix));
        assert_eq!(found, None);
    }
    server.shut_down().await;
}

#[tokio::test]
async fn errors_are_counted_by_their_code() {
    let server = Server::start(Settings::default(), |request| match &*request.prompt {
        "full" => Err(GenerationError::QueueFull {
            model: "raw".to_owned(),
            waiting: 4,
            retry_after: Duration::from_secs(1),
        }),
        "late" => Ok(replay(vec![started(&[]), text("x"), failure()])),
        "early" => Ok(replay(vec![started(&[]), failure()])),
        _ => Ok(replay(Vec::new())),
    })
    .await;
    let ask = |prompt: &str, fields: &str| {
        let body = format!(r#"{{"model":"raw","prompt":"{prompt}"{fields}}}"#);
        server.post(TEXT, body)
    };
    assert_eq!(ask("full", "").await.status, 429);
    assert_eq!(ask("early", "").await.status, 503);
    assert_eq!(ask("early", r#","stream":true"#).await.status, 503);
    assert_eq!(ask("late", "").await.status, 503);
    assert_eq!(ask("late", r#","stream":true"#).await.status, 200);
    assert_eq!(ask("other", "").await.status, 500, "it ends without an end");
    assert_eq!(ask("x", r#","temperature":9"#).await.status, 400);
    assert_eq!(server.post(CHAT, "{").await.status, 400);
    assert_eq!(
        server
            .post(TEXT, r#"{"model":"gone","prompt":""}"#)
            .await
            .status,
        404
    );
    assert_eq!(
        server
            .post(
                CHAT,
                r#"{"model":"raw","messages":[{"role":"user","content":"x"}]}"#
            )
            .await
            .status,
        400
    );
    // None of these asks for a generation.
    for path in ["/health", "/nowhere", CHAT] {
        server.get(path).await;
    }
    assert_eq!(
        outcomes(&server).await,
        counted([
            (" invalid_json", 1),
            (" model_not_found", 1),
            ("raw internal_error", 1),
            ("raw invalid_value", 1),
            ("raw no_chat_template", 1),
            ("raw queue_full", 1),
            ("raw run_failed", 4),
        ])
    );
    server.shut_down().await;
}

fn failure() -> rkllmd::generation::ReplyEvent {
    rkllmd::generation::ReplyEvent::Failed(GenerationError::RunFailed {
        request: "r".to_owned(),
    })
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_as_cancelled() {
    let (senders, mut generations) = mpsc::unbounded_channel();
    let server = Server::start(Settings::default(), move |_| {
        let (sender, receiver) = mpsc::channel(8);
        let _ = senders.send(sender);
        Ok(Generation::new(receiver))
    })
    .await;
    for fields in ["", r#","stream":true"#] {
        let mut client = server.client().await;
        client.send(chat(fields)).await;
        let events = generations.recv().await.expect("a generation");
        events.send(started(&[])).await.expect("its reader");
        events.send(text("x")).await.expect("its reader");
        drop(client);
        within("the generation's being dropped", events.closed()).await;
    }
    // In the middle of the body.
    let mut client = server.client().await;
    client
        .send(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{{"
        ))
        .await;
    drop(client);
    // The context goes with the connection's task, a moment after the generation.
    let expected = counted([(" cancelled", 1), ("test/model-1.0 cancelled", 2)]);
    let mut seen = Vec::new();
    // Far longer than that takes.
    for _ in 0..6000 {
        seen = outcomes(&server).await;
        if seen == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen, expected);
    server.shut_down().await;
}

#[tokio::test]
async fn models_and_queues_are_shown_as_they_are_now() {
    let server = Server::replaying(Settings::default(), Vec::new).await;
    server.set_queue(3, 4);
    let samples = scrape(&server).await;
    let sample = |name: &str| value(&samples, name);
    assert_eq!(
        sample(r#"rkllmd_worker_phase{model="test/model-1.0",phase="ready"}"#),
        Some(1.0)
    );
    assert_eq!(
        sample(r#"rkllmd_worker_phase{model="raw",phase="unloaded"}"#),
        Some(1.0)
    );
    assert_eq!(sample(r#"rkllmd_queue_length{model="raw"}"#), Some(3.0));
    assert_eq!(sample(r#"rkllmd_queue_capacity{model="raw"}"#), Some(4.0));
    assert!(sample("process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));
    assert!(sample("process_threads").is_some_and(|threads| threads >= 1.0));
    assert!(sample("process_open_fds").is_some_and(|count| count >= 3.0));
    assert!(sample("process_cpu_seconds_total").is_some());
    server.shut_down().await;
}

/// A scraper gets the format that it knows, and finds the same figures in either.
#[tokio::test]
async fn each_scraper_gets_its_format() {
    let events = || vec![started(&[]), text("x"), finished()];
    let mut server = Server::replaying(Settings::default(), events).await;
    assert_eq!(server.post(CHAT, chat_body()).await.status, 200);
    server.requests.recv().await.unwrap();
    let ask = async |accept: &str| {
        let head = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n";
        let answer = server.ask(format!("{head}accept: {accept}\r\n\r\n")).await;
        assert_eq!(answer.header("vary"), Some("accept"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let media_type = answer.header("content-type").unwrap().to_owned();
        (media_type, answer.text().to_owned())
    };
    let (media_type, prometheus) = ask("text/plain;version=0.0.4;q=0.5,*/*;q=0.1").await;
    assert_eq!(media_type, "text/plain; version=0.0.4; charset=utf-8");
    let scraper = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
        escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let (media_type, open_metrics) = ask(scraper).await;
    assert_eq!(
        media_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(open_metrics.ends_with("# EOF\n"));
    // This process's own figures move from page to page.
    let steady = |page: &str| {
        let mut samples = samples_of(page);
        samples.retain(|(name, _)| name.starts_with("rkllmd_"));
        samples.sort_by(|a, b| a.0.cmp(&b.0));
        samples
    };
    assert!(steady(&prometheus).len() > 20);
    assert_eq!(steady(&prometheus), steady(&open_metrics));
    let (mut described, mut family) = (0, ("", ""));
    for line in prometheus.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split_once(' ').expect("a name and a type");
            assert!(
                ["counter", "gauge", "histogram"].contains(&family.1),
                "{line}"
            );
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.contains(' '), "{line}");
            described += 1;
        } else {
            assert!(!line.starts_with('#'), "{line}");
            let name = line.split(['{', ' ']).next().expect("a name");
            let rest = name
                .strip_prefix(family.0)
                .unwrap_or_else(|| panic!("{line} in {family:?}"));
            let fits = match family.1 {
                "histogram" => ["_bucket", "_sum", "_count"].contains(&rest),
                _ => rest.is_empty(),
            };
            assert!(fits, "{line} in {family:?}");
        }
    }
    assert_eq!(described, prometheus.matches("# TYPE ").count());
    server.shut_down().await;
}

fn chat_body() -> &'static str {
    r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}]}"#
}
