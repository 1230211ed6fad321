//! Folders of models that mean harm. They come, the daemon is told to reload, a client asks for them,
//! and they go again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use rustix::process::Signal;
use serde_json::json;

use super::{FIRST_HOST, HOSTS, Kind, Strangers, Visit, is_typed_refusal};
use crate::daemon_support::signal;

pub const ALL: &[Kind] = &[
    ("hostile template", hostile_template),
    ("hostile tokenizer", hostile_tokenizer),
    ("FIFO among the models", fifo),
];

/// The time a reload may take before it counts as hung.
const RELOAD: Duration = Duration::from_secs(30);

fn hostile_template(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let template = match decisions.u8(..7) {
        0 => format!("{{{{ {}1 }}}}", "+-".repeat(20_000)),
        1 => r#"{% set n = namespace(s="aaaaaaaa") %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}"#.to_owned(),
        2 => r#"{{ "{:>2000000000}".format(1) }}"#.to_owned(),
        3 => r#"{{ "a"|indent(2000000000, true) }}"#.to_owned(),
        4 => r#"{% set n=namespace(a="a") %}{% for i in range(12) %}{% set n.a=n.a|replace("a","aaaaaaaaaa") %}{% endfor %}{{ n.a }}"#.to_owned(),
        5 => "{% set n=namespace(a=[]) %}{% for i in range(100000) %}{% set n.a=[n.a] %}{% endfor %}{{ n.a }}".to_owned(),
        _ => "{% for i in range(99999) %}{% set x = range(99999)|list|sort|list|length %}{% endfor %}".to_owned(),
    };
    visit(
        to,
        decisions,
        "chat_template.jinja",
        template.as_bytes(),
        |model| {
            (
                "/apply-template",
                json!({"model": model, "messages": [{"role": "user", "content": "hi"}]}),
            )
        },
    )
}

fn hostile_tokenizer(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let tokenizer = match decisions.u8(..4) {
        0 => "[".repeat(2_000_000),
        1 => format!(r#"{{"model":{}}}"#, r#"{"a":"#.repeat(500_000)),
        2 => "not JSON".to_owned(),
        _ => format!(
            r#"{{"version":"1.0","added_tokens":[{}]}}"#,
            vec![r#"{"id":1,"content":"<x>","special":true}"#; 100_000].join(",")
        ),
    };
    visit(
        to,
        decisions,
        "tokenizer.json",
        tokenizer.as_bytes(),
        |model| ("/tokenize", json!({"model": model, "content": "hi"})),
    )
}

/// A model with one file that means harm: a request for it gets an answer, a typed one.
fn visit(
    to: &Strangers<'_>,
    decisions: &mut fastrand::Rng,
    file: &str,
    content: &[u8],
    ask: impl FnOnce(&str) -> (&'static str, serde_json::Value),
) -> Visit {
    let model = format!("stranger-{}", decisions.u32(..));
    let folder = to.models.join(&model);
    let made = || {
        fs::create_dir(&folder)?;
        fs::write(folder.join("model.rkllm"), "texts = [\"a\"]\n")?;
        fs::write(folder.join(file), content)
    };
    made().map_err(|error| format!("making {model}: {error}"))?;
    let answered = reload(to, Some(&model)).and_then(|()| {
        let (path, body) = ask(&model);
        let host = FIRST_HOST + decisions.u8(..HOSTS);
        to.request(host, "POST", path, Some(&body))
    });
    fs::remove_dir_all(&folder).map_err(|error| format!("removing {model}: {error}"))?;
    reload(to, None)?;
    is_typed_refusal(&answered?)
}

fn fifo(to: &Strangers<'_>, decisions: &mut fastrand::Rng) -> Visit {
    let names = ["x.gguf", "x.rkllm", "x.toml"];
    let path = to.models.join(names[decisions.usize(..names.len())]);
    let make = |path: &Path| rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0);
    make(&path).map_err(|error| format!("mkfifo: {error}"))?;
    let reloaded = reload(to, None);
    fs::remove_file(&path).map_err(|error| format!("removing a FIFO: {error}"))?;
    reloaded.and_then(|()| reload(to, None))
}

/// Tells the daemon to read its models again, and waits until `model` is there, if one is named.
fn reload(to: &Strangers<'_>, model: Option<&str>) -> Result<(), String> {
    signal(to.daemon, Signal::HUP);
    let Some(model) = model else { return Ok(()) };
    let until = Instant::now() + RELOAD;
    loop {
        let host = FIRST_HOST + HOSTS;
        let listed = to.request(host, "GET", "/v1/models", None)?;
        if listed.body.contains(model) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(format!("{model} was not listed within {RELOAD:?}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
