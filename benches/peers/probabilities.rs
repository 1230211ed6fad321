//! How likely tokens are, by ours and by llama.cpp's own server: the next token behind each beginning of a text,
//! the same tokens for both.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::daemon_support::begin;
use crate::report::{Report, Target};
use crate::served::Served;
use crate::statistics::{largest, median};

const TEXT: &str = "The history of the lighthouse begins with fires that were lit on hilltops. Later they were \
    put on platforms, so that ships could see them from further away, and towers of stone were built at the \
    entrances of harbours: 283 of them stood by 1820, most along the coast of the north.";
/// Tokens that both tell of each place, and those of theirs that are looked for in ours.
const TOLD: usize = 20;
const COMPARED: usize = 10;
/// What is hardly ever drawn is rounded most.
const LEAST: f64 = 1e-3;
/// Fewer places tell nothing.
const LEAST_PLACES: usize = 30;

pub fn measure(report: &mut Report) {
    report.section(
        "probabilities",
        "log probabilities of the next token, the same tokens before it",
    );
    let (ours, theirs) = (Served::ours(1), Served::theirs(1));
    let ids = ask(theirs.address(), "/tokenize", &json!({"content": TEXT}))["tokens"].clone();
    let ids = ids.as_array().expect("tokens").clone();
    let (mut places, mut differences) = (0, Vec::new());
    for count in 1..ids.len() {
        let prompt = json!({"prompt": ids[..count], "n_predict": 1, "n_probs": TOLD,
            "temperature": 0});
        let [ours, theirs] = [&ours, &theirs].map(|served| likeliest(served.address(), &prompt));
        // Their server tells nothing of a part of a character.
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            continue;
        };
        places += 1;
        let ours: HashMap<u64, f64> = ours.into_iter().collect();
        for (id, logprob) in theirs.into_iter().take(COMPARED) {
            if logprob.exp() > LEAST {
                let of_ours = ours
                    .get(&id)
                    .unwrap_or_else(|| panic!("{id} is unlikely here"));
                differences.push((of_ours - logprob).abs());
            }
        }
    }
    assert!(places >= LEAST_PLACES, "{places} places");
    report.figure("places", "places in the text", places as f64, "");
    report.promise(
        "difference_median",
        "between the two, of tokens likelier than 0.001, median",
        (median(differences.iter().copied()), ""),
        Target::AtMost(1e-2),
    );
    report.promise(
        "difference_most",
        "likewise, the most",
        (largest(differences), ""),
        Target::AtMost(0.1),
    );
}

fn ask(address: SocketAddr, path: &str, body: &Value) -> Value {
    let stream = TcpStream::connect(address).expect("a connection");
    let answer = begin(stream, "POST", path, Some(body)).and_then(|begun| begun.into_answer());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// The likeliest tokens of the one place that is asked for, by their ids.
fn likeliest(address: SocketAddr, body: &Value) -> Option<Vec<(u64, f64)>> {
    let told = ask(address, "/completion", body);
    let top = told["completion_probabilities"][0]["top_logprobs"].as_array()?;
    let of = |token: &Value| Some((token["id"].as_u64()?, token["logprob"].as_f64()?));
    top.iter().map(of).collect()
}
