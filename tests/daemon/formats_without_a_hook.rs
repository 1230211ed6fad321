//! With a library that lets no program forbid tokens, as the vendor's, answers are kept to their formats as they
//! are with one that does: by drawing again what may not come. On the CPU runtime without what the vendor's
//! library does not have.

use std::collections::BTreeMap;
use std::thread;

use crate::daemon_support::{Daemon, Setup, chat, completion, demo_model, kill};
use crate::formats_support::{MODEL, keep, schemas};
use crate::json_judge::fault;
use crate::tiny_models::with_tiny_models;
use crate::tokenizers_of_gguf::tokenizer_json;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// The demo model, whose runs draw anew each; `has_hook`: on the CPU runtime as it is.
pub fn demo(has_hook: bool) -> Daemon {
    match has_hook {
        true => installed(),
        false => without_a_hook(installed()),
    }
    .start()
}

pub fn installed() -> Setup {
    Setup::new()
        .cpu_runtime()
        .demo_model_again(MODEL)
        .model_file(
            MODEL,
            "tokenizer.json",
            &tokenizer_json(&demo_model(), true),
        )
        .settings("chat.raw-completions = true")
}

/// What both daemons say, with a hook and without, each asked beside the other: either computes on one thread.
fn of_both<T: Send>(ask: impl Fn(&Daemon, bool) -> T + Sync) -> ([Daemon; 2], [T; 2]) {
    let asked = thread::scope(|scope| {
        [true, false]
            .map(|has_hook| {
                let ask = &ask;
                scope.spawn(move || {
                    let daemon = demo(has_hook);
                    let said = ask(&daemon, has_hook);
                    (daemon, said)
                })
            })
            .map(|asking| asking.join().expect("it was asked"))
    });
    let [(hooked, first), (drawn_again, second)] = asked;
    ([hooked, drawn_again], [first, second])
}

pub fn without_a_hook(setup: Setup) -> Setup {
    const VARIABLE: &str = "RKLLM_CPU_VENDOR_ONLY";
    setup
        .environment(VARIABLE, "1")
        .settings(&format!("runtime.pass-environment = [{VARIABLE:?}]"))
        .settings("constraints.max-redraws = 2000")
        .settings("constraints.max-redraws-without-reuse = 100")
}

pub fn metric(daemon: &Daemon, name: &str) -> f64 {
    let page = daemon.get("/metrics").body;
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |line| {
        let value = line.rsplit(' ').next().expect("a value");
        value.parse().expect("a number")
    })
}

#[test]
fn the_real_model_keeps_to_schemas_that_it_would_not_keep_to() {
    let schemas = schemas();
    let halves: Vec<&[Value]> = schemas.chunks(schemas.len().div_ceil(2)).collect();
    // One half beside the other: either daemon computes on one thread.
    let whole: usize = thread::scope(|scope| {
        let keeping: Vec<_> = halves
            .iter()
            .map(|half| scope.spawn(move || keeps_without_a_hook(half)))
            .collect();
        let kept = keeping.into_iter();
        kept.map(|half| half.join().expect("it was kept")).sum()
    });
    assert!(
        whole * 10 >= schemas.len() * 9,
        "{whole} of {}",
        schemas.len()
    );
}

/// How many of the answers are whole, all of which are right.
fn keeps_without_a_hook(schemas: &[Value]) -> usize {
    /// Of a prompt of which the first token of an answer is drawn again, the CPU runtime evaluates a piece again.
    const PIECE: f64 = 72.0;
    let daemon = demo(false);
    let whole = keep(&daemon, schemas);
    let redraws = metric(&daemon, "rkllmd_redraws_total");
    assert!(redraws > 0.0);
    assert!(metric(&daemon, "rkllmd_redraw_wasted_tokens_total") >= redraws);
    // Each takes two runs, or one, and more of them where a row is not told at once. They evaluate the token that
    // they go on behind and what is new, which is a part of the answer.
    let evaluated = metric(&daemon, "rkllmd_redraw_prompt_tokens_total");
    let made = metric(&daemon, "rkllmd_completion_tokens_total");
    println!("{redraws} redraws, {evaluated} tokens evaluated, {made} made");
    let most = 4.0 * redraws + made + PIECE * schemas.len() as f64;
    assert!(evaluated > 0.0 && evaluated <= most, "{evaluated}, {most}");
    whole
}

/// Pieces of a greedy answer with what else was likely, where it is asked for.
fn greedy(daemon: &Daemon, prompt: &str, format: &Value, tells: bool) -> (String, Vec<Value>) {
    let mut asked = chat(
        MODEL,
        prompt,
        json!({"temperature": 0, "repeat_penalty": 1, "max_tokens": 60, "response_format": format}),
    );
    if tells {
        asked["logprobs"] = json!(true);
        asked["top_logprobs"] = json!(20);
    }
    let answer = daemon.post(CHAT, &asked);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("x-rkllmd-not-applied"), None);
    let told = answer.json()["choices"][0]["logprobs"]["content"].clone();
    let told = told.as_array().cloned().unwrap_or_default();
    (answer.content(), told)
}

/// How much likelier, where the second answer goes another way, the first's token was than the second's.
fn gap(told: &[Value], first: &str, second: &str) -> Option<f64> {
    let bytes = |token: &Value| -> Vec<u8> {
        serde_json::from_value(token["bytes"].clone()).expect("the bytes of a token")
    };
    let logprob = |token: &Value| token["logprob"].as_f64().expect("a number");
    let mut rest = second.as_bytes();
    for token in told {
        if let Some(after) = rest.strip_prefix(&*bytes(token)) {
            rest = after;
            continue;
        }
        let others = token["top_logprobs"].as_array().expect("others");
        let goes_on = |other: &&Value| rest.starts_with(&bytes(other));
        let gaps = others.iter().filter(goes_on);
        let gaps = gaps.map(|other| (logprob(other) - logprob(token)).abs());
        return gaps.min_by(f64::total_cmp);
    }
    // One of the two was cut.
    (first.starts_with(second) || second.starts_with(first)).then_some(0.0)
}

/// Where an answer goes another way than a hook's, the two tokens are as likely but for rounding. In natural
/// logarithms of probabilities.
pub const ABOUT_AS_LIKELY: f64 = 0.05;

#[test]
fn greedy_answers_are_those_of_a_hook() {
    let object = |properties: Value| {
        let names: Vec<_> = properties
            .as_object()
            .expect("some")
            .keys()
            .cloned()
            .collect();
        json!({"type": "object", "properties": properties, "required": names})
    };
    let text = json!({"type": "string", "maxLength": 24});
    let schemas = [
        object(json!({"name": text, "age": {"type": "integer", "minimum": 0, "maximum": 150}})),
        object(json!({"city": text, "unit": {"enum": ["celsius", "fahrenheit"]}})),
        json!({"type": "array", "items": text, "maxItems": 3}),
        object(json!({"on": {"type": "boolean"}, "why": text})),
        json!({"enum": ["red", "green", "blue"]}),
    ];
    let prompts = [
        "Invent a person.",
        "What is the weather like?",
        "List some animals.",
        "Is the lamp on?",
        "What is your favourite colour?",
        "Tell me a story.",
        "Write about the sea.",
        "Count to three.",
        "Say hello in French: \u{e7}a va?",
        "Why is the sky blue?",
    ];
    let formats = schemas.map(|schema| {
        json!({"type": "json_schema",
            "json_schema": {"name": "answer", "strict": true, "schema": schema}})
    });
    // What begins alike comes one after the other, so that its beginning is evaluated once.
    let (_daemons, [with_hook, without]) = of_both(|daemon, has_hook| {
        let asked = prompts.iter().flat_map(|prompt| {
            let formats = formats.iter();
            formats.map(move |format| greedy(daemon, prompt, format, has_hook))
        });
        asked.collect::<Vec<_>>()
    });
    let mut gaps = Vec::new();
    for ((first, told), (second, _)) in with_hook.iter().zip(&without) {
        if first != second {
            let gap = gap(told, first, second);
            gaps.push(gap.unwrap_or(f64::INFINITY));
            println!("{gap:?}\n  {first}\n  {second}");
        }
    }
    let asked = without.len();
    assert_eq!((with_hook.len(), asked), (50, 50));
    println!("{} of {asked} differ, by {gaps:?}", gaps.len());
    assert!(gaps.iter().all(|gap| *gap <= ABOUT_AS_LIKELY));
    assert!(gaps.len() * 20 <= asked);
}

/// How often each of a few texts is the answer.
fn counts(daemon: &Daemon, temperature: f64, times: u32) -> BTreeMap<String, f64> {
    let more = json!({"temperature": temperature, "repeat_penalty": 1, "top_k": 40, "max_tokens": 8,
        "guided_choice": [" first", " world", " cat"]});
    let asked = completion(MODEL, "The", more);
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let answer = daemon.post("/v1/completions", &asked);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = answer.json()["choices"][0]["text"]
            .as_str()
            .expect("a text")
            .to_owned();
        *counts.entry(text).or_default() += 1.0;
    }
    counts
}

/// Of two sets of draws of one size, whether they are of one distribution.
fn chi_squared(one: &BTreeMap<String, f64>, other: &BTreeMap<String, f64>) -> f64 {
    let texts: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let of =
        |counts: &BTreeMap<String, f64>, text: &String| counts.get(text).copied().unwrap_or(0.0);
    let far = texts.iter().map(|text| {
        let (one, other) = (of(one, text), of(other, text));
        (one - other).powi(2) / (one + other)
    });
    far.sum()
}

#[test]
fn draws_are_distributed_as_with_a_hook() {
    const TIMES: u32 = 300;
    // One in ten thousand, with two degrees of freedom.
    const LIMIT: f64 = 18.42;
    let ([_, drawn_again], [expected, drawn]) = of_both(|daemon, _| counts(daemon, 1.3, TIMES));
    println!("{expected:?} {drawn:?}");
    assert!(expected.len() > 1, "{expected:?}");
    let far = chi_squared(&expected, &drawn);
    assert!(far < LIMIT, "{far}");
    assert!(metric(&drawn_again, "rkllmd_redraws_total") > 0.0);
    // Who takes the likeliest fails the same test.
    const FEW: u32 = 10;
    let mut greedy = counts(&drawn_again, 0.0, FEW);
    for count in greedy.values_mut() {
        *count *= f64::from(TIMES / FEW);
    }
    assert!(chi_squared(&expected, &greedy) > LIMIT, "{greedy:?}");
}

#[test]
fn what_it_cannot_do_is_named_or_refused() {
    let daemon = demo(false);
    let ask = |more: Value| {
        let mut asked = json!({"max_tokens": 12, "guided_choice": ["yes", "no"]});
        if let (Value::Object(asked), Value::Object(more)) = (&mut asked, more) {
            asked.extend(more);
        }
        daemon.post(CHAT, &chat(MODEL, "Is it?", asked))
    };
    let named = ask(json!({"repeat_penalty": 1.3, "presence_penalty": 0.5, "seed": 3}));
    assert!(["yes", "no"].contains(&&*named.content()), "{}", named.body);
    assert_eq!(
        named.header("x-rkllmd-not-applied"),
        Some("repeat_penalty, presence_penalty, seed")
    );
    let neutral = ask(json!({"repeat_penalty": 1.0, "presence_penalty": 0.0}));
    assert_eq!(neutral.header("x-rkllmd-not-applied"), None);
    assert_eq!(neutral.header("x-rkllmd-run-mode"), None);
    let told = ask(json!({"logprobs": true}));
    assert_eq!(told.header("x-rkllmd-run-mode"), Some("logits"));
    // Those of a prompt come with tokens only that are not in the library's cache.
    let echo = json!({"echo": true, "logprobs": 1, "max_tokens": 1});
    let refused = daemon.post("/v1/completions", &completion(MODEL, "Is it?", echo));
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (400, "cannot_tell_logprobs")
    );
    // Without a tokenizer beside the file the prompt's tokens are not known.
    let setup = Setup::new().cpu_runtime().demo_model_again(MODEL);
    let daemon = without_a_hook(setup).start();
    let asked = chat(MODEL, "Is it?", json!({"guided_choice": ["yes", "no"]}));
    let refused = daemon.post(CHAT, &asked);
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (400, "cannot_constrain"),
        "{}",
        refused.body
    );
}

#[test]
fn answers_outlive_their_workers() {
    const TINY: &str = "tiny";
    let setup = with_tiny_models(Setup::new(), &[(TINY, Vec::new())]);
    let file = setup.models().join(TINY).join("model.gguf");
    let tokenizer = tokenizer_json(&file, false);
    let setup = setup.model_file(TINY, "tokenizer.json", &tokenizer);
    let daemon = without_a_hook(setup).start();
    let schema = json!({"type": "array", "minItems": 8, "maxItems": 12, "items": {"type": "object",
        "required": ["n", "on"], "properties": {"on": {"type": "boolean"},
            "n": {"type": "integer", "minimum": 10, "maximum": 999}}}});
    let format = json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": schema}});
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut died = 0;
    for _ in 0..8 {
        let more = json!({"temperature": 1.5, "max_tokens": 1500, "stream": true,
            "response_format": format, "chat_template_kwargs": {"enable_thinking": false}});
        let mut stream = daemon.stream(CHAT, &chat(TINY, "Invent some.", more));
        assert_eq!(stream.status, 200);
        let dies_at = random.usize(1..100);
        let (mut text, mut pieces, mut last) = (String::new(), 0, Value::Null);
        while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
            let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
            assert!(chunk.get("error").is_none(), "{chunk}");
            let piece = chunk["choices"][0]["delta"]["content"].as_str();
            text.push_str(piece.unwrap_or_default());
            pieces += 1;
            if pieces == dies_at {
                kill(daemon.worker_pid());
            }
            last = chunk;
        }
        assert_eq!(last["choices"][0]["finish_reason"], "stop", "{text}");
        assert_eq!(fault(&schema, &text), None, "{text}");
        died += u32::from(last["timings"]["resumptions"] == 1);
    }
    assert!(died > 0);
}
