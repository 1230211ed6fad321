//! What sequences that share a run gain: four prompts in one `rkllm.run` of a handle with `n_batch`
//! 4, against the same four one after the other on a handle with `n_batch` 1, in turns. Both handles
//! are loaded and warm before the first clock starts, each round has prompts of its own so that no
//! prefix is found in a KV cache, and every answer must have as many tokens as was asked for.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon_support::Setup;
use crate::report::{Report, rounded};
use crate::rpc_support::Client;
use crate::rpc_support::served::Served;
use crate::statistics::median;

const MODEL: &str = "smollm2";
const SEQUENCES: usize = 4;
const TOKENS: usize = 64;
const TOPICS: [&str; 6] = [
    "bridges", "gardens", "planets", "winters", "harbours", "castles",
];
const BEGINNINGS: [&str; SEQUENCES] = [
    "A long chapter of this book is about",
    "My grandmother used to tell us stories of",
    "Whoever travels through this country sees",
    "In the year after the war they wrote of",
];
/// Compute threads that wait for work by spinning have gone to sleep by then.
const PAUSE: Duration = Duration::from_millis(150);

type Prompts = [String; SEQUENCES];

/// The answers to one round's prompts, and how long they took together.
struct Answers {
    seconds: f64,
    token_ids: Vec<Value>,
}

impl Answers {
    fn tokens_per_second(&self) -> f64 {
        (SEQUENCES * TOKENS) as f64 / self.seconds
    }
}

struct Round {
    batched: Answers,
    alone: Answers,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.batched.tokens_per_second() / self.alone.tokens_per_second()
    }

    /// Sequences whose two answers are the same; sums of another order round otherwise.
    fn same_answers(&self) -> usize {
        let pairs = self.batched.token_ids.iter().zip(&self.alone.token_ids);
        pairs.filter(|(batched, alone)| batched == alone).count()
    }
}

/// Both handles of one client.
struct Contest {
    client: Client,
    batched: String,
    alone: String,
    rounds: usize,
}

pub fn measure(report: &mut Report) {
    report.section(
        "batching",
        "four prompts of the demo model in one run (n_batch 4) and in four, in turns",
    );
    let served = Served::start(
        Setup::new()
            .demo_model(MODEL)
            .all_threads()
            .settings("models.max-loaded = 2"),
    );
    let mut contest = Contest::start(served.unix());
    let mut rounds = TOPICS
        .map(|topic| contest.round(&prompts(topic)))
        .into_iter();
    // The first round is the one that warms up.
    rounds.next();
    summarise(report, &rounds.collect::<Vec<_>>());
}

fn prompts(topic: &str) -> Prompts {
    // The first token differs, too: no run can use another one's prefix.
    BEGINNINGS.map(|beginning| format!("{topic}: {beginning} {topic}, which"))
}

impl Contest {
    fn start(mut client: Client) -> Self {
        let batched = open(&mut client, SEQUENCES);
        let alone = open(&mut client, 1);
        Self {
            client,
            batched,
            alone,
            rounds: 0,
        }
    }

    /// Who comes first alternates, so that neither always has the machine as the other left it.
    fn round(&mut self, prompts: &Prompts) -> Round {
        self.rounds += 1;
        thread::sleep(PAUSE);
        if self.rounds.is_multiple_of(2) {
            let alone = self.one_after_the_other(prompts);
            thread::sleep(PAUSE);
            let batched = self.together(prompts);
            Round { batched, alone }
        } else {
            let batched = self.together(prompts);
            thread::sleep(PAUSE);
            let alone = self.one_after_the_other(prompts);
            Round { batched, alone }
        }
    }

    fn together(&mut self, prompts: &Prompts) -> Answers {
        let input: Vec<Value> = prompts.iter().map(|prompt| input(prompt)).collect();
        let asked_at = Instant::now();
        let token_ids = run(&mut self.client, &self.batched, json!(input));
        Answers {
            seconds: asked_at.elapsed().as_secs_f64(),
            token_ids,
        }
    }

    fn one_after_the_other(&mut self, prompts: &Prompts) -> Answers {
        let asked_at = Instant::now();
        let token_ids = prompts
            .iter()
            .flat_map(|prompt| run(&mut self.client, &self.alone, input(prompt)))
            .collect();
        Answers {
            seconds: asked_at.elapsed().as_secs_f64(),
            token_ids,
        }
    }
}

fn input(prompt: &str) -> Value {
    json!({"prompt_input": prompt})
}

/// A handle that decodes greedily and never stops early.
fn open(client: &mut Client, n_batch: usize) -> String {
    let handle = client.init(
        MODEL,
        json!({
            "max_context_len": 512,
            "max_new_tokens": TOKENS,
            "top_k": 1,
            "repeat_penalty": 1.0,
            "ignore_eos_token": true,
            "extend_param": {"n_batch": n_batch},
        }),
    );
    let template = json!([handle, "", "", ""]);
    let set = client.call("rkllm.set_chat_template", template);
    set.unwrap_or_else(|failure| panic!("set_chat_template: {failure:?}"));
    handle
}

/// The token ids of each sequence, all of which are as long as they should be.
fn run(client: &mut Client, handle: &str, rkllm_input: Value) -> Vec<Value> {
    let params = json!({"handle": handle, "rkllm_input": rkllm_input, "stream": false});
    let answer = client.call("rkllm.run", params);
    let mut answer = answer.unwrap_or_else(|failure| panic!("run: {failure:?}"));
    let results = answer["results"].as_array_mut().expect("results");
    let token_ids = results.iter_mut().map(|result| result["token_ids"].take());
    let token_ids: Vec<Value> = token_ids.collect();
    for ids in &token_ids {
        assert_eq!(ids.as_array().map(Vec::len), Some(TOKENS), "{ids}");
    }
    token_ids
}

fn summarise(report: &mut Report, rounds: &[Round]) {
    report.figure(
        "n_batch_4_tokens_per_second",
        "n_batch 4, all sequences together, median of 5",
        median(rounds.iter().map(|round| round.batched.tokens_per_second())),
        "tokens/s",
    );
    report.figure(
        "n_batch_1_tokens_per_second",
        "n_batch 1, one after the other, median of 5",
        median(rounds.iter().map(|round| round.alone.tokens_per_second())),
        "tokens/s",
    );
    report.figure(
        "ratio",
        "n_batch 4 / n_batch 1, median of the rounds",
        median(rounds.iter().map(Round::ratio)),
        "",
    );
    let same: usize = rounds.iter().map(Round::same_answers).sum();
    let answers = rounds.len() * SEQUENCES;
    report.note(format!(
        "prefill included; {TOKENS} tokens each, {same} of {answers} answers the same both ways"
    ));
    let ratios: Vec<f64> = rounds.iter().map(|round| rounded(round.ratio())).collect();
    report.detail("ratios", json!(ratios));
}
