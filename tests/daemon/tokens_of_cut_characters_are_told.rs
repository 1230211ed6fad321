//! An answer that ends within a character has told each of its tokens all the same, in every dialect that tells them.

use crate::daemon_support::completion;
use crate::log_probabilities::{
    CHATS, MODEL, ROCKETS, TEXTS, begun, bytes_of, characters, lists, start, streamed,
};
use serde_json::json;

/// Wherever the budget cuts an answer of emoji or of Chinese characters, each of its tokens is told.
#[test]
fn characters_that_the_budget_cuts_have_their_tokens() {
    let daemon = start();
    let asked = |budget: usize| {
        json!({"temperature": 0, "repeat_penalty": 1.0, "max_tokens": budget, "logprobs": true,
            "top_logprobs": 1})
    };
    let mut cuts = 0;
    for (question, answer) in [
        ("Send rockets.", ROCKETS),
        ("Repeat it.", "日本語日本語日本語日本語日本語"),
    ] {
        let told = |budget: usize| {
            let body = begun(question, answer, asked(budget));
            let whole = daemon.post(CHATS, &body).json();
            let choice = &whole["choices"][0];
            let tokens = choice["logprobs"]["content"].as_array().expect("tokens");
            let content = choice["message"]["content"].as_str();
            (content.unwrap_or_default().to_owned(), tokens.clone())
        };
        let (_, all) = told(10);
        assert!(all.len() >= 6, "{all:?}");
        for budget in 1..=all.len() {
            let (content, tokens) = told(budget);
            assert_eq!(tokens.len(), budget, "{content:?} {tokens:?}");
            assert_eq!(bytes_of(&tokens), bytes_of(&all[..budget]));
            let (text, is_cut) = characters(&tokens);
            assert_eq!(text, content);
            cuts += usize::from(is_cut);
            let (_, text, of_stream) = streamed(&daemon, &begun(question, answer, asked(budget)));
            assert_eq!((text, of_stream), (content, tokens));
        }
    }
    assert!(cuts >= 2, "no character was cut");

    for budget in 1..=8 {
        let body = json!({"model": MODEL, "prompt": ROCKETS, "n_predict": budget, "n_probs": 1,
            "temperature": 0, "repeat_penalty": 1.0});
        let answer = daemon.post("/completion", &body).json();
        let told = answer["completion_probabilities"]
            .as_array()
            .expect("tokens");
        assert_eq!(json!(told.len()), answer["tokens_predicted"], "{answer}");
        let more =
            json!({"temperature": 0, "repeat_penalty": 1.0, "max_tokens": budget, "logprobs": 1});
        let answer = daemon.post(TEXTS, &completion(MODEL, ROCKETS, more)).json();
        let choice = &answer["choices"][0];
        let (tokens, _, offsets) = lists(choice);
        assert_eq!(tokens.len(), told.len(), "{answer}");
        let characters = choice["text"].as_str().expect("a text").chars().count();
        assert!(offsets.iter().all(|&place| place <= characters), "{answer}");
    }
}
