//! Clients with keys of different weights, more than there are slots: what a model makes for them is as
//! the weights of their keys, and every answer is whole.

use std::sync::Mutex;
use std::thread;

use crate::daemon_support::{Setup, chat, keys};
use crate::doors::{Door, bearer};
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";
const CLIENTS: usize = 64;
const WEIGHTS: [usize; 3] = [1, 2, 4];
/// Answers that are counted: a hundred for a weight of 1. All are of the same length.
const COUNTED: usize = 700;
/// Answers before these, while the clients come.
const FIRST: usize = 70;

#[test]
fn keys_get_tokens_in_proportion_to_their_weights() {
    let scenario = "token-delay-us = 4000\nrepeat = { token = \"w \", times = 20 }\n";
    let setup = Setup::new().scenario("m", scenario).model_file(
        "m",
        "model.toml",
        "template = \"chatml\"\nparallel = 8\n",
    );
    let folder = setup.folder();
    let keys = WEIGHTS.map(|weight| keys(folder, &format!("add key-{weight} --weight {weight}")));
    let daemon = setup.start();
    let body = chat("m", "x", json!({})).to_string();
    // The key of each answer, in the order in which they came.
    let answered = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let nth = client % keys.len();
            let (key, body, answered) = (&keys[nth], &body, &answered);
            let door = Door::Tcp(daemon.address);
            scope.spawn(move || {
                loop {
                    let answer = door.ask("POST", CHAT, &bearer(Some(key)), body);
                    assert_eq!(answer.status, 200, "{}", answer.body);
                    let answer = answer.json();
                    let content = &answer["choices"][0]["message"]["content"];
                    assert_eq!(*content, "w ".repeat(20), "{answer}");
                    let mut answered = answered.lock().unwrap();
                    answered.push(nth);
                    if answered.len() >= FIRST + COUNTED {
                        return;
                    }
                }
            });
        }
    });
    let answered = answered.into_inner().unwrap();
    let counted = &answered[FIRST..][..COUNTED];
    let counts = [0, 1, 2].map(|nth| counted.iter().filter(|key| **key == nth).count());
    for (count, weight) in counts.into_iter().zip(WEIGHTS) {
        let wanted = COUNTED * weight / WEIGHTS.iter().sum::<usize>();
        assert!(
            count.abs_diff(wanted) * 10 <= wanted,
            "{counts:?} answers for keys of the weights {WEIGHTS:?}"
        );
    }
}
