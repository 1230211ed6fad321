//! Models with adapters behind the daemon, chosen by their ids: what each says is what a C program is told
//! by a fresh handle with that adapter, byte for byte, whatever was asked before.

mod common;
#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;
#[path = "common/reference.rs"]
mod reference;

use common::{ONE_THREAD, Scratch, hold_with, model, test_adapters};
use daemon_support::{Daemon, Setup, completion};
use reference::{Reference, unquantised};
use serde_json::json;

const MODEL: &str = "demo";
const PROMPTS: [&str; 2] = [
    "The capital of France is",
    "Once upon a time there was a small village by the sea, where an old man",
];
const SCALE: f32 = 0.5;
const TOKENS: usize = 40;
/// How much better than the one that was said a token may be for the judge.
const HAIR: f32 = 1e-2;

/// The demo model with the adapters `first` and `second`.
fn start(parallel: u8) -> Daemon {
    setup(parallel).start()
}

fn setup(parallel: u8) -> Setup {
    let adapter = |name: &str| {
        format!("[[adapters]]\nname = \"{name}\"\nfile = \"{name}.gguf\"\nscale = {SCALE}\n")
    };
    let adapters = adapter("first") + &adapter("second");
    let manifest = format!("context-length = 1024\nparallel = {parallel}\n{adapters}");
    let (name, threads) = ONE_THREAD;
    let setup = Setup::new()
        .demo_model(MODEL)
        .environment(name, threads)
        .model_file(MODEL, "model.toml", &manifest);
    let folder = setup.models().join(MODEL).join("adapters");
    std::fs::create_dir(&folder).expect("the folder of adapters");
    for name in ["first.gguf", "second.gguf"] {
        let from = format!("{}/{name}", test_adapters());
        std::fs::copy(from, folder.join(name)).expect("an adapter");
    }
    setup
}

fn by_the_daemon(daemon: &Daemon, model: &str, prompt: &str) -> String {
    let values = json!({"temperature": 0, "repeat_penalty": 1.0, "max_tokens": TOKENS});
    let answer = daemon.post("/v1/completions", &completion(model, prompt, values));
    assert_eq!(answer.status, 200, "{model}: {}", answer.body);
    let body = answer.json();
    assert_eq!(body["model"], model);
    let text = body["choices"][0]["text"].as_str();
    text.expect("a text").to_owned()
}

/// `adapter` is the name of one of the test adapters, or empty.
fn by_the_program(adapter: &str, prompt: &str) -> String {
    let file = match adapter {
        "" => String::new(),
        name => format!("{}/{name}.gguf", test_adapters()),
    };
    let text = Scratch::new(&format!("says-{adapter}-{}", prompt.len()));
    let environment = [
        ("ADAPTER", file.as_str()),
        ("PROMPT", prompt),
        ("ROWS", text.path()),
    ];
    hold_with(
        "c/adapter_text.c",
        "a_fresh_handle_says",
        &model(),
        &environment,
    );
    std::fs::read_to_string(&text.0).expect("what it said")
}

#[test]
fn each_id_says_what_a_fresh_handle_says_with_its_adapter() {
    let daemon = start(1);
    for prompt in PROMPTS {
        let adapters = ["", "first", "second"];
        let fresh = adapters.map(|adapter| by_the_program(adapter, prompt));
        assert!(fresh[0] != fresh[1] && fresh[1] != fresh[2] && fresh[0] != fresh[2]);
        for nth in [0, 1, 2, 1, 0] {
            let id = match adapters[nth] {
                "" => MODEL.to_owned(),
                name => format!("{MODEL}:{name}"),
            };
            let text = by_the_daemon(&daemon, &id, prompt);
            assert_eq!(text, fresh[nth], "{id}: {prompt}");
        }
    }
}

/// It says of itself what llama.cpp knows no adapters by.
#[test]
fn an_adapter_that_llama_cpp_does_not_take_costs_its_own_id() {
    let setup = setup(2);
    let file = setup.models().join(MODEL).join("adapters/first.gguf");
    let mut bytes = std::fs::read(&file).expect("an adapter");
    let key = b"adapter.type";
    let at = bytes.windows(key.len()).position(|at| at == key);
    // The key is followed by the value's type (u32) and length (u64).
    let value = at.expect("it has a type") + key.len() + 12;
    assert_eq!(&bytes[value..value + 4], b"lora");
    bytes[value..value + 4].copy_from_slice(b"none");
    std::fs::write(&file, bytes).expect("an adapter");
    let daemon = setup.start();
    for _ in 0..2 {
        let asked = completion("demo:first", PROMPTS[0], json!({"max_tokens": 4}));
        let answer = daemon.post("/v1/completions", &asked);
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(answer.error_code(), "model_unavailable", "{}", answer.body);
        let asked = json!({"model": "demo:first", "input": PROMPTS[0]});
        let answer = daemon.post("/v1/embeddings", &asked);
        assert_eq!(answer.status, 503, "{}", answer.body);
        for id in ["demo", "demo:second"] {
            assert!(!by_the_daemon(&daemon, id, PROMPTS[0]).is_empty(), "{id}");
        }
    }
    daemon.log.wait_for("an adapter was not loaded");
}

#[test]
fn embeddings_are_made_with_the_adapter() {
    let daemon = start(1);
    let embedded = |id: &str| {
        let asked = json!({"model": id, "input": PROMPTS[0]});
        let answer = daemon.post("/v1/embeddings", &asked);
        assert_eq!(answer.status, 200, "{id}: {}", answer.body);
        answer.json()["data"][0]["embedding"].clone()
    };
    let rows = ["demo", "demo:first", "demo:second"].map(embedded);
    assert!(rows[0] != rows[1] && rows[1] != rows[2] && rows[0] != rows[2]);
    assert_eq!(embedded("demo:first"), rows[1]);
}

/// The ids of the tokens that it says.
fn tokens_by_the_daemon(daemon: &Daemon, model: &str, prompt: &str) -> Vec<i32> {
    let asked = json!({"model": model, "prompt": prompt, "temperature": 0, "repeat_penalty": 1,
        "n_predict": TOKENS, "n_probs": 1});
    let answer = daemon.post("/completion", &asked);
    assert_eq!(answer.status, 200, "{model}: {}", answer.body);
    let body = answer.json();
    let tokens = body["completion_probabilities"].as_array();
    let ids = tokens.expect("tokens").iter().map(|token| {
        let id = token["id"].as_i64().expect("an id");
        i32::try_from(id).expect("an id")
    });
    ids.collect()
}

/// How much better than the one that was said a token is for llama.cpp with that adapter, where it is most.
fn worst_miss(reference: &Reference, adapter: &str, prompt: &str, said: &[i32]) -> f32 {
    let before = reference.tokenize(prompt);
    let all = [before.as_slice(), said].concat();
    let rows = match adapter {
        "" => reference.logits(&all, &[]),
        name => {
            let file = format!("{}/{name}.gguf", test_adapters());
            reference.logits_with_adapter(&all, &file, SCALE)
        }
    };
    let drawn_from = rows.values.chunks(rows.width).skip(before.len() - 1);
    let missed = drawn_from.zip(said).map(|(row, &id)| {
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        best - row[id as usize]
    });
    missed.max_by(f32::total_cmp).expect("it said something")
}

/// Steps join runs of one adapter only. Each token is judged behind those that were said before it, because
/// in a shared context one may be rounded to another one.
#[test]
fn ids_that_are_asked_at_once_keep_their_adapters() {
    const ADAPTERS: [&str; 3] = ["", "first", "second"];
    let weights = unquantised(&model());
    let setup = setup(3);
    let file = setup.models().join(MODEL).join("model.gguf");
    std::fs::remove_file(&file).expect("it was there");
    std::os::unix::fs::symlink(&weights, file).expect("a link");
    let daemon = setup.start();
    let prompt = PROMPTS[1];
    let answers = std::thread::scope(|scope| {
        let asked = ["demo", "demo:first", "demo:second"].map(|id| {
            let daemon = &daemon;
            scope.spawn(move || tokens_by_the_daemon(daemon, id, prompt))
        });
        asked.map(|answer| answer.join().expect("an answer"))
    });
    let reference = Reference::open(&weights);
    for (adapter, said) in ADAPTERS.into_iter().zip(&answers) {
        let missed = worst_miss(&reference, adapter, prompt, said);
        println!("{adapter:?} misses by {missed}");
        assert!(missed <= HAIR, "{adapter:?} misses by {missed}: {said:?}");
        // The judge can tell: another adapter's answer is none.
        for other in ADAPTERS.into_iter().filter(|other| *other != adapter) {
            let missed = worst_miss(&reference, other, prompt, said);
            assert!(
                missed > 2.0 * HAIR,
                "{other:?} misses {adapter:?} by {missed}"
            );
        }
    }
}
