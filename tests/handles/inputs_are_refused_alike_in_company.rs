//! What an embedding's client is told of an input that the library does not take is the same whether others
//! are on the worker or not.

use std::time::Duration;

use crate::handle_support::{MODEL, TestSupervisor, in_time};
use rkllmd::admission::EmbeddingError;
use rkllmd::generation::GenerationError;
use rkllmd::library_calls::{Input, LibraryError, Pooling};

const SCENARIO: &str = r#"
tokens = ["a"]
[[fault]]
call = "run"
when-prompt-contains = "slow"
kind = "wait"
text = "go"
record = "begun"
[[fault]]
call = "run"
when-prompt-contains = "long"
kind = "print"
text = "E rkllm: the length of prompt is greater than max context (prompt: 77 tokens, max context: 64)"
[[fault]]
call = "run"
when-prompt-contains = "long"
kind = "fail"
record = "refused"
"#;

async fn written(test: &TestSupervisor, record: &str) {
    let path = test.folder.path().join("models").join(record);
    in_time(async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_too_long_is_told_so_also_beside_others() {
    let test = TestSupervisor::with("1_3_1", &[(MODEL, SCENARIO)], |settings| {
        settings.models.parallel = 2;
    });
    let pooled = |text: &str| test.pooled(vec![Input::prompt(text)], Pooling::Last);
    let (beside, refused, ()) = tokio::join!(
        pooled("a slow one"),
        async {
            written(&test, "begun").await;
            pooled("a long one").await
        },
        async {
            written(&test, "refused").await;
            test.order("go");
        }
    );
    beside.expect("a row");
    let Err(EmbeddingError::Input { index: 0, error }) = refused else {
        panic!("{refused:?}");
    };
    let too_long = GenerationError::ContextLengthExceeded {
        prompt_tokens: 77,
        limit_tokens: 64,
    };
    assert_eq!(error, LibraryError::Unavailable(too_long));
}
