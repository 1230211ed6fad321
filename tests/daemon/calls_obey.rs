//! A model that is to call a function calls it, with arguments of its schema, in whatever form it writes
//! calls; and where it calls as it likes, what it calls is kept as well.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::daemon_support::{Answer, Daemon, Setup, chat, kill, python_session};
use crate::function_calls::CHAT;
use crate::json_judge::fault;
use crate::tiny_models::with_tiny_models;
use rkllmd::reply::ReplyFamily;
use serde_json::{Value, json};

pub const MODEL: &str = "smollm2";
const OPENAI: &str = "openai==3.54.0";

/// Texts and lists are bounded, as budgets are.
pub fn tools() -> Value {
    json!([
        {"type": "function", "function": {
            "name": "get_weather", "description": "The weather of a place", "parameters": {
                "type": "object", "required": ["place", "unit"], "properties": {
                    "place": {"type": "string", "minLength": 1, "maxLength": 12},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 14}}}}},
        {"type": "function", "function": {
            "name": "set_lamp", "description": "Switches a lamp", "parameters": {
                "type": "object", "required": ["on", "levels"], "properties": {
                    "on": {"type": "boolean"},
                    "levels": {"type": "array", "minItems": 1, "maxItems": 3,
                        "items": {"type": "integer", "minimum": 0, "maximum": 9}}}}}},
    ])
}

pub fn ask(daemon: &Daemon, model: &str, more: Value) -> Answer {
    let mut asked = json!({"temperature": 1.5, "max_tokens": 400, "tools": tools()});
    if let (Value::Object(asked), Value::Object(more)) = (&mut asked, more) {
        asked.extend(more);
    }
    daemon.post(CHAT, &chat(model, "What is the weather in Bern?", asked))
}

/// Its calls, of which every one is of its function's schema, and why it ended.
pub fn calls(answer: &Answer) -> (Vec<(String, String)>, String) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let choice = &answer.json()["choices"][0];
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let reason = text(&choice["finish_reason"]);
    let calls: Vec<(String, String)> = choice["message"]["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| {
            (
                text(&call["function"]["name"]),
                text(&call["function"]["arguments"]),
            )
        })
        .collect();
    let tools = tools();
    let whole = calls.len() - usize::from(reason == "length");
    for (name, arguments) in calls.iter().take(whole) {
        let mut given = tools.as_array().expect("tools").iter();
        let tool = given.find(|tool| tool["function"]["name"] == **name);
        let schema = &tool.unwrap_or_else(|| panic!("{name} is none"))["function"]["parameters"];
        assert_eq!(fault(schema, arguments), None, "{name}: {arguments}");
    }
    (calls, reason)
}

pub fn named(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name}})
}

#[test]
fn the_real_model_calls_what_it_is_to_call() {
    let daemon = Setup::new().demo_model(MODEL).start();
    for seed in 0..6 {
        let one = json!({"tool_choice": "required", "parallel_tool_calls": false, "seed": seed});
        let (made, reason) = calls(&ask(&daemon, MODEL, one));
        assert_eq!((made.len(), reason.as_str()), (1, "tool_calls"), "{made:?}");
        let choice = json!({"tool_choice": named("set_lamp"), "seed": seed});
        let (made, reason) = calls(&ask(&daemon, MODEL, choice));
        assert_eq!(made.len(), 1);
        assert_eq!(
            (made[0].0.as_str(), reason.as_str()),
            ("set_lamp", "stop"),
            "{made:?}"
        );
        let (made, _) = calls(&ask(
            &daemon,
            MODEL,
            json!({"tool_choice": "required", "seed": seed}),
        ));
        assert!(!made.is_empty());
    }
    // Of one function alone the prompt is another: its beginning is evaluated once, and not in each turn.
    for seed in 0..6 {
        let only = json!({"mode": "required", "tools": [named("get_weather")]});
        let choice = json!({"type": "allowed_tools", "allowed_tools": only});
        let (made, _) = calls(&ask(
            &daemon,
            MODEL,
            json!({"tool_choice": choice, "seed": seed}),
        ));
        assert!(
            !made.is_empty() && made.iter().all(|(name, _)| name == "get_weather"),
            "{made:?}"
        );
    }
}

#[test]
fn the_older_form_names_a_function_too() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let functions: Vec<Value> = tools()
        .as_array()
        .expect("tools")
        .iter()
        .map(|tool| tool["function"].clone())
        .collect();
    let more =
        json!({"tools": null, "functions": functions, "function_call": {"name": "set_lamp"}});
    let answer = ask(&daemon, MODEL, more).json();
    let choice = &answer["choices"][0];
    let call = &choice["message"]["function_call"];
    assert_eq!(
        (&call["name"], &choice["finish_reason"]),
        (&json!("set_lamp"), &json!("stop")),
        "{answer}"
    );
    let schema = &functions[1]["parameters"];
    assert_eq!(
        fault(schema, call["arguments"].as_str().expect("arguments")),
        None,
        "{answer}"
    );
}

/// The words of a model's markers that are special tokens.
fn special(family: ReplyFamily) -> Vec<String> {
    let mut format = family.format();
    let harmony = [
        "<|start|>",
        "<|channel|>",
        "<|constrain|>",
        "<|message|>",
        "<|end|>",
        "<|call|>",
    ];
    let mut texts: Vec<String> = match format.harmony {
        true => harmony.map(str::to_owned).to_vec(),
        false => format
            .markers_mut()
            .into_iter()
            .map(|marker| marker.text.clone())
            .collect(),
    };
    let is_token = |text: &String| text.starts_with(['<', '[']) && text.ends_with(['>', ']']);
    texts.retain(is_token);
    texts.sort();
    texts.dedup();
    texts
}

/// A tiny model of each family, whose markers are tokens of its vocabulary.
pub fn tiny_models() -> Setup {
    let ids = ReplyFamily::ALL.map(|family| family.to_string());
    let models = ids.iter().zip(ReplyFamily::ALL);
    let models: Vec<(&str, Vec<String>)> = models
        .map(|(id, family)| (id.as_str(), special(family)))
        .collect();
    // Several compute at once, and tiny ones would mostly wait for threads of their own.
    let setup = Setup::new().environment("RKLLM_CPU_THREADS", "1");
    let setup = ids.iter().fold(setup, |setup, id| {
        let replies = format!("context-length = 4096\n[replies]\nfamily = \"{id}\"\n");
        setup.model_file(id, "model.toml", &replies)
    });
    with_tiny_models(setup, &models)
}

/// Of markers in a tiny model's vocabulary: behind its bytes, a pair of letters and its end.
pub fn id_of(family: ReplyFamily, marker: &str) -> Option<String> {
    const FIRST_MARKER: usize = 258;
    let place = special(family).iter().position(|text| text == marker)?;
    Some((FIRST_MARKER + place).to_string())
}

/// Random answers of each form to each question, or as many as `CALL_SEEDS` says.
const SEEDS: u64 = 1;

fn seeds() -> u64 {
    let given = std::env::var("CALL_SEEDS").ok();
    given.map_or(SEEDS, |seeds| {
        seeds.parse().expect("CALL_SEEDS is a number")
    })
}

/// One model after the other, on as many threads as compute at once: a model costs more to load than to ask.
pub fn of_each_family(check: impl Fn(ReplyFamily) + Sync) {
    let left = Mutex::new(ReplyFamily::ALL.into_iter());
    let next = || left.lock().expect("no thread panics with it").next();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(8) {
            scope.spawn(|| {
                while let Some(family) = next() {
                    check(family)
                }
            });
        }
    });
}

#[test]
fn every_form_of_calls_is_obeyed_and_kept_by_models_with_its_tokens() {
    let daemon = tiny_models().start();
    let kept_as_they_like = AtomicUsize::new(0);
    of_each_family(|family| {
        (0..seeds()).for_each(|seed| obeys(&daemon, family, seed));
        let kept = usize::from(keeps_what_it_begins_itself(&daemon, family));
        kept_as_they_like.fetch_add(kept, Ordering::Relaxed);
    });
    let tried = kept_as_they_like.into_inner();
    assert!(tried >= 8, "{tried}");
}

fn obeys(daemon: &Daemon, family: ReplyFamily, seed: u64) {
    let bias = calls_what_it_has_to(daemon, family, seed);
    let id = family.to_string();
    let choice = json!({"tool_choice": named("set_lamp"), "seed": seed, "max_tokens": 1500,
        "logit_bias": bias});
    let (made, reason) = calls(&ask(daemon, &id, choice));
    assert_eq!(made.len(), 1, "{id}: {made:?}");
    assert_eq!(
        (made[0].0.as_str(), reason.as_str()),
        ("set_lamp", "stop"),
        "{id}"
    );
}

/// Gives what keeps it from thinking.
pub fn calls_what_it_has_to(daemon: &Daemon, family: ReplyFamily, seed: u64) -> Value {
    let id = family.to_string();
    // What thinks at random thinks without end.
    let thought = family.format().reasoning.map(|thought| thought.open.text);
    let thought = thought.and_then(|open| id_of(family, &open));
    let bias: Value = thought.into_iter().map(|id| (id, json!(-100))).collect();
    let required = json!({"tool_choice": "required", "parallel_tool_calls": false,
        "seed": seed, "max_tokens": 1500, "logit_bias": bias});
    let (made, reason) = calls(&ask(daemon, &id, required));
    assert_eq!(
        (made.len(), reason.as_str()),
        (1, "tool_calls"),
        "{id}: {made:?}"
    );
    bias
}

/// A call that a model makes as it likes is kept, too. `false`: its calls begin with no token of its own.
fn keeps_what_it_begins_itself(daemon: &Daemon, family: ReplyFamily) -> bool {
    let Some(calls_of) = family.format().calls else {
        return false;
    };
    let around = calls_of.section.iter().chain(&calls_of.call).next();
    let opener = around.map(|around| around.open.text.clone());
    let Some(id) = opener.and_then(|opener| id_of(family, &opener)) else {
        return false;
    };
    // The model cannot but begin a call; what stands in it is its own.
    let bias = json!({id: 100});
    let more =
        json!({"logit_bias": bias, "parallel_tool_calls": false, "max_tokens": 1500, "seed": 3});
    let (made, reason) = calls(&ask(daemon, &family.to_string(), more));
    println!("{family}: {made:?} {reason}");
    assert_eq!(
        (made.len(), reason.as_str()),
        (1, "tool_calls"),
        "{family}: {made:?}"
    );
    true
}

#[test]
fn a_call_is_whole_although_its_workers_die() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let schema = json!({"type": "object", "required": ["levels"], "properties": {
        "levels": {"type": "array", "minItems": 12, "maxItems": 12,
            "items": {"type": "integer", "minimum": 100, "maximum": 999}}}});
    let tool = json!({"type": "function", "function": {"name": "set", "parameters": schema}});
    let more = json!({"temperature": 1.2, "max_tokens": 300, "stream": true, "tools": [tool],
        "tool_choice": "required", "parallel_tool_calls": false});
    for dies_at in [2, 9, 30] {
        let mut stream = daemon.stream(CHAT, &chat(MODEL, "Set the levels.", more.clone()));
        assert_eq!(stream.status, 200);
        let (mut arguments, mut last, mut pieces) = (String::new(), Value::Null, 0);
        while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
            let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
            assert!(chunk.get("error").is_none(), "{chunk}");
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"];
            if let Some(piece) = call.as_str().filter(|piece| !piece.is_empty()) {
                arguments.push_str(piece);
                pieces += 1;
                if pieces == dies_at {
                    kill(daemon.worker_pid());
                }
            }
            last = chunk;
        }
        assert_eq!(
            last["choices"][0]["finish_reason"], "tool_calls",
            "{arguments}"
        );
        assert_eq!(last["timings"]["resumptions"], 1, "{last}");
        assert_eq!(fault(&schema, &arguments), None, "{arguments}");
    }
}

#[test]
fn answers_without_calls_are_what_they_are_without_the_setting() {
    let answers = ["true", "false"].map(|is_on| {
        let daemon = Setup::new()
            .demo_model(MODEL)
            .settings(&format!("constraints.keep-calls = {is_on}"))
            .start();
        [1, 2, 3].map(|seed| {
            let more =
                json!({"seed": seed, "temperature": 0.9, "max_tokens": 60, "tools": tools()});
            let answer = daemon.post(CHAT, &chat(MODEL, "Tell me of the sea.", more));
            assert_eq!(answer.status, 200, "{}", answer.body);
            answer.json()["choices"][0]["message"].clone()
        })
    });
    let [kept, free] = answers;
    let mut same = 0;
    for (kept, free) in kept.iter().zip(&free) {
        if free.get("tool_calls").is_none_or(Value::is_null) {
            assert_eq!(kept, free);
            same += 1;
        }
    }
    assert!(same > 0, "one of three answers calls nothing: {free:?}");
}

#[test]
fn the_official_client_gets_the_calls_that_it_requires() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let url = format!("http://{}/v1", daemon.address);
    let script = "openai_required_client.py";
    python_session(script, OPENAI, &[&url, MODEL], "required calls ok");
}
