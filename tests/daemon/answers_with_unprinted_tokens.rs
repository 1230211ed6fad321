//! An answer with tokens of which its text has nothing, or something else, goes on by its tokens, or ends with an
//! error; its text alone is never gone on from.

use crate::daemon_support::{FAMILIES_RUN, Setup, word_tokenizer};
use crate::sixty_words::{
    dies_once_read, fault, metric, read, read_past_a_death, scenario, start, word,
};
use serde_json::json;

#[test]
fn an_answer_with_a_token_that_is_not_printed_is_not_continued_by_its_text() {
    let fault = format!(
        "{}{}",
        fault("call = \"run\"\nafter-tokens = 3\nkind = \"special-token\"\nid = 7"),
        dies_once_read(6),
    );
    // One of them is behind the token that is not printed.
    let four: String = (0..4).map(word).collect();
    for family in FAMILIES_RUN {
        let daemon = start(family, &scenario(&fault));
        let streamed = read_past_a_death(&daemon, json!({}), &four);
        let error = streamed.error.expect("an error");
        assert_eq!(error["code"], "answer_interrupted", "{family}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains("special token"),
            "{error}"
        );
        let refused = "rkllmd_resumes_refused_total{model=\"m\",reason=\"special-token\"}";
        assert_eq!(metric(&daemon, refused), 1.0);
    }
}

/// The same where the worker dies at any of its tokens: what stands before the one that is not printed is gone on
/// with, and that one at the end of what has come is made again.
#[test]
fn a_death_at_every_token_around_one_that_is_not_printed_loses_and_repeats_nothing() {
    let texts = ["one ", "", "two ", "three ", "four "];
    let tokens = texts.map(|text| match text {
        "" => "{text = \"\", id = 7}".to_owned(),
        text => format!("{text:?}"),
    });
    let whole = texts.concat();
    for at in 0..texts.len() {
        let told = texts[..at].concat();
        let scenario = format!(
            "tokens = [{}]\ncontinue-answers = true\n{}",
            tokens.join(", "),
            dies_once_read(at)
        );
        let daemon = start("1_3_1", &scenario);
        let read = daemon.folder().join("models/m/read");
        if told.is_empty() {
            std::fs::write(&read, "").expect("the file that lets it die");
        }
        let streamed = read_past_a_death(&daemon, json!({}), &told);
        assert!(read.with_file_name("spent").exists(), "at {at}");
        if at <= 2 {
            assert_eq!(streamed.error, None, "at {at}");
            assert_eq!(streamed.text, whole, "at {at}");
            continue;
        }
        let error = streamed.error.expect("an error");
        assert_eq!(error["code"], "answer_interrupted", "at {at}: {error}");
        assert_eq!(streamed.text, told, "at {at}");
    }
}

#[test]
fn bytes_that_are_no_text_are_not_continued_by_their_text() {
    let scenario = format!(
        "tokens = [\"one \", {{ bytes = [255] }}, \"two \", \"three\"]\ncontinue-answers = true\n\
         {}",
        dies_once_read(3)
    );
    let daemon = start("1_3_1", &scenario);
    let streamed = read_past_a_death(&daemon, json!({}), "one \u{fffd}");
    let error = streamed.error.expect("an error");
    assert_eq!(error["code"], "answer_interrupted", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("UTF-8"),
        "{error}"
    );
    assert_eq!(read(&daemon, json!({})).text, "one \u{fffd}two three");
}

#[test]
fn tokens_that_are_not_printed_are_handed_over_where_the_tokenizer_is_known_to_agree() {
    for family in FAMILIES_RUN {
        let scenario = "tokens = [\"one \", {text = \"\", id = 7}, \"two \", \"three \", \"four\"]\n\
            continue-answers = true\nreport-params = true\n\
            [[fault]]\ncall = \"run\"\noccasion = 2\nafter-tokens = 3\nkind = \"wait\"\ntext = \"read\"\n\
            [[fault]]\ncall = \"run\"\noccasion = 2\nafter-tokens = 3\nonce = \"spent\"\nkind = \"segv\"\n";
        let daemon = Setup::with_family(family)
            .scenario("m", scenario)
            .model_file("m", "tokenizer.json", &word_tokenizer(&[]))
            .start();
        // The first run shows that the runtime makes the same tokens as the tokenizer.
        let calm = read(&daemon, json!({}));
        assert_eq!(calm.text, "one two three four", "{family}");
        let resumed = read_past_a_death(&daemon, json!({}), "one two ");
        assert_eq!(resumed.text, calm.text, "{family}: {resumed:?}");
        assert_eq!(resumed.timings["resumptions"], 1, "{family}: {resumed:?}");
        for count in ["prompt_tokens", "completion_tokens"] {
            assert_eq!(
                resumed.usage[count], calm.usage[count],
                "{family} {count}: {resumed:?}"
            );
        }
        let line = daemon.log.wait_for("resuming an answer");
        assert!(line.contains("by_tokens=true"), "{line}");
    }
}
