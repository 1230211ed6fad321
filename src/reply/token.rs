use serde::{Deserialize, Serialize};

/// One token of an answer, as a worker tells it. `text` is whole characters; it is empty where the
/// runtime does not print the token, or where only a part of a character came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyToken {
    /// `None`: the runtime gave none.
    pub id: Option<i32>,
    pub text: String,
}
