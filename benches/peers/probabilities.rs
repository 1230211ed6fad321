//! How likely tokens are, by ours and by llama-cpp-python: greedy answers of ours, whose tokens it evaluates one
//! behind the other, so that the same tokens stand before each place.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::daemon_support::{begin, demo_model};
use crate::llama_cpp_python;
use crate::report::{Report, Target};
use crate::served::Served;
use crate::statistics::{largest, median};

const PROMPTS: [&str; 4] = [
    "The history of the lighthouse begins with fires that were lit on hilltops. Later they were put on platforms, \
     so that ships could see them from further away, and towers of stone were built at the entrances of harbours:",
    "def fibonacci(n):\n    \"\"\"The numbers before n.\"\"\"\n",
    "To make bread at home, you need flour, water, salt and yeast. First",
    "In 1969, two men landed on the Moon. The first of them",
];
/// Of an answer, at most; it ends earlier where the model ends it.
const ANSWER: usize = 48;
/// Tokens that ours tells of each place, so that the likeliest of theirs are among them.
const TOLD: usize = 20;
/// The likeliest tokens of each side that are compared.
const COMPARED: usize = 5;
/// What is hardly ever drawn is rounded most.
const LEAST: f64 = 1e-3;
/// Fewer places tell nothing.
const LEAST_PLACES: usize = 60;
/// Of prompt and answer, with room.
const CONTEXT: usize = 512;

/// An answer of ours.
struct Answer {
    prompt: &'static str,
    /// As it was counted.
    prompt_tokens: u64,
    places: Vec<Place>,
}

/// A token of an answer, and the likeliest in its place with their log probabilities.
struct Place {
    id: u64,
    told: Vec<(u64, f64)>,
}

pub fn measure(report: &mut Report) {
    report.section(
        "probabilities",
        "log probabilities of greedy answers' tokens, ours and llama-cpp-python's",
    );
    let served = Served::ours(1);
    let answers = PROMPTS.map(|prompt| Answer::of(served.address(), prompt));
    // It has the machine to itself.
    drop(served);
    let theirs = llama_cpp_python::ask(&asked(&answers));
    report.note(format!(
        "llama-cpp-python {} over {}",
        theirs["version"].as_str().expect("its version"),
        theirs["library"].as_str().expect("its library")
    ));
    let mut compared = Compared::default();
    for (number, answer) in answers.iter().enumerate() {
        let theirs = &theirs["answers"][number];
        assert_eq!(
            theirs["prompt_tokens"].as_u64(),
            Some(answer.prompt_tokens),
            "tokens of the prompt {:?}, theirs and ours",
            answer.prompt
        );
        let places = theirs["places"].as_array().expect("its places");
        assert_eq!(places.len(), answer.places.len(), "of answer {number}");
        for (ours, theirs) in answer.places.iter().zip(places) {
            compared.add(ours, theirs);
        }
    }
    compared.tell(report);
}

impl Answer {
    fn of(address: SocketAddr, prompt: &'static str) -> Self {
        let more = json!({"prompt": prompt, "n_predict": ANSWER, "n_probs": TOLD, "temperature": 0,
            "repeat_penalty": 1.0});
        let answer = ask(address, "/completion", &more);
        let places = answer["completion_probabilities"].as_array();
        let places = places.unwrap_or_else(|| panic!("ours tells no probabilities: {answer}"));
        let count = |name: &str| answer[name].as_u64().expect("a count");
        // One that is told nowhere, in the middle, would shift all that follow; the model's end is none of the text.
        let (told, made) = (places.len() as u64, count("tokens_predicted"));
        assert!(
            (told..=told + 1).contains(&made),
            "of {made} tokens {told} are told: {answer}"
        );
        Self {
            prompt,
            prompt_tokens: count("tokens_evaluated"),
            places: places.iter().map(Place::of).collect(),
        }
    }
}

impl Place {
    fn of(told: &Value) -> Self {
        let of = |token: &Value| {
            let (id, logprob) = (token["id"].as_u64(), token["logprob"].as_f64());
            (id.expect("an id"), logprob.expect("a logarithm"))
        };
        let top = told["top_logprobs"].as_array().expect("likeliest tokens");
        Self {
            id: of(told).0,
            told: top.iter().map(of).collect(),
        }
    }
}

fn ask(address: SocketAddr, path: &str, body: &Value) -> Value {
    let stream = TcpStream::connect(address).expect("a connection");
    let answer = begin(stream, "POST", path, Some(body)).and_then(|begun| begun.into_answer());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn asked(answers: &[Answer]) -> Value {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let answers: Vec<Value> = answers
        .iter()
        .map(|answer| {
            let ids: Vec<u64> = answer.places.iter().map(|place| place.id).collect();
            let told = |place: &Place| place.told.iter().map(|(id, _)| *id).collect::<Vec<u64>>();
            let told: Vec<Vec<u64>> = answer.places.iter().map(told).collect();
            json!({"prompt": answer.prompt, "answer": ids, "told": told})
        })
        .collect();
    json!({"model": demo_model(), "threads": threads, "context": CONTEXT, "top": COMPARED,
        "answers": answers})
}

#[derive(Default)]
struct Compared {
    places: usize,
    /// Of which the token that we took is their likeliest.
    agreed: usize,
    differences: Vec<f64>,
}

impl Compared {
    fn add(&mut self, ours: &Place, theirs: &Value) {
        let likeliest: Vec<(u64, f64)> =
            serde_json::from_value(theirs["top"].clone()).expect("their likeliest");
        let of_told: Vec<f64> =
            serde_json::from_value(theirs["told"].clone()).expect("those asked for");
        self.places += 1;
        self.agreed += usize::from(likeliest.first().is_some_and(|(id, _)| *id == ours.id));
        let mut differ = |ours: f64, theirs: f64| {
            if ours.exp() > LEAST || theirs.exp() > LEAST {
                self.differences.push((ours - theirs).abs());
            }
        };
        for ((_, ours), theirs) in ours.told.iter().zip(of_told).take(COMPARED) {
            differ(*ours, theirs);
        }
        // Those of theirs that were not compared yet. One that ours does not tell is at most as likely as the last.
        let told: HashMap<u64, f64> = ours.told.iter().copied().collect();
        let (_, last) = ours.told.last().expect("tokens are told");
        let compared: Vec<u64> = ours.told.iter().take(COMPARED).map(|(id, _)| *id).collect();
        for (id, theirs) in likeliest.iter().filter(|(id, _)| !compared.contains(id)) {
            differ(*told.get(id).unwrap_or(last), *theirs);
        }
    }

    fn tell(self, report: &mut Report) {
        assert!(
            self.places >= LEAST_PLACES,
            "the answers have {} tokens only, fewer than {LEAST_PLACES}",
            self.places
        );
        report.figure("places", "tokens of the answers", self.places as f64, "");
        report.figure(
            "agreed",
            "of them, their likeliest as well",
            self.agreed as f64 / self.places as f64,
            "",
        );
        report.promise(
            "difference_median",
            "between the two, of tokens likelier than 0.001, median",
            (median(self.differences.iter().copied()), ""),
            Target::AtMost(1e-2),
        );
        report.promise(
            "difference_most",
            "likewise, the most",
            (largest(self.differences), ""),
            Target::AtMost(0.1),
        );
    }
}
