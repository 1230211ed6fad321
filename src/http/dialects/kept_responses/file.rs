//! The file of a kept response: a line with its version and the SHA-256 of what follows, and JSON. What was not written
//! whole, or has changed since, is told from what was; what a later version has written is told from both.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::KeptResponse;
use super::moment::Moment;
use crate::http::dialects::kept_items::Item;

/// Every version begins so.
const KIND: &str = "rkllmd-response ";
const VERSION: &str = "1";
const SUFFIX: &str = ".json";
/// Digits of a folder's name.
const FOLDER_DIGITS: usize = 32;
/// Digits of an id.
const ID_DIGITS: usize = 24;
const ID_PREFIX: &str = "resp_";

/// Whose a response is, and since when it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept {
    pub client: String,
    pub is_a_key: bool,
    pub at: Moment,
}

#[derive(Serialize)]
struct Written<'r> {
    client: &'r str,
    is_a_key: bool,
    at: &'r Moment,
    id: &'r str,
    asked: usize,
    is_answered: bool,
    is_background: bool,
    json: &'r str,
    items: Vec<&'r Item>,
}

#[derive(Deserialize)]
struct Read {
    client: String,
    is_a_key: bool,
    at: Moment,
    id: String,
    asked: usize,
    is_answered: bool,
    is_background: bool,
    json: String,
    items: Vec<Item>,
}

/// Why a file is not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It was not written whole, or has changed.
    Broken,
    /// Another version has written it.
    OtherVersion,
}

/// The folder of a client: its name says nothing of the client, and is one whatever the client's is.
pub(super) fn folder_name(client: &str) -> String {
    digits(&Sha256::digest(client.as_bytes())[..FOLDER_DIGITS / 2])
}

pub(super) fn is_folder_name(name: &str) -> bool {
    is_digits(name, FOLDER_DIGITS)
}

/// The file of a response; `None`: no response has such an id.
pub(super) fn file_name(id: &str) -> Option<String> {
    let is_id = id
        .strip_prefix(ID_PREFIX)
        .is_some_and(|rest| is_digits(rest, ID_DIGITS));
    is_id.then(|| format!("{id}{SUFFIX}"))
}

/// The id of the response whose file this is.
pub(super) fn id_of(name: &str) -> Option<&str> {
    let id = name.strip_suffix(SUFFIX)?;
    file_name(id).map(|_| id)
}

/// Whether a file of this name was being written.
pub(super) fn is_half_written(name: &str) -> bool {
    let target = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".new"));
    target.is_some_and(|target| id_of(target).is_some())
}

pub(super) fn encode(response: &KeptResponse, kept: &Kept) -> serde_json::Result<Vec<u8>> {
    let json = std::str::from_utf8(&response.json).map_err(serde::ser::Error::custom)?;
    let written = serde_json::to_string(&Written {
        client: &kept.client,
        is_a_key: kept.is_a_key,
        at: &kept.at,
        id: &response.id,
        asked: response.asked,
        is_answered: response.is_answered,
        is_background: response.is_background,
        json,
        items: response.items.iter().map(|item| &**item).collect(),
    })?;
    let digest = digits(&Sha256::digest(written.as_bytes()));
    let mut content = format!("{KIND}{VERSION} {digest}\n").into_bytes();
    content.extend_from_slice(written.as_bytes());
    Ok(content)
}

pub(super) fn decode(text: &str) -> Result<(KeptResponse, Kept), Unread> {
    let (head, written) = text.split_once('\n').ok_or(Unread::Broken)?;
    let (version, digest) = head
        .strip_prefix(KIND)
        .and_then(|head| head.split_once(' '))
        .ok_or(Unread::Broken)?;
    if version != VERSION {
        return Err(Unread::OtherVersion);
    }
    if digest != digits(&Sha256::digest(written.as_bytes())) {
        return Err(Unread::Broken);
    }
    let read: Read = serde_json::from_str(written).map_err(|_| Unread::Broken)?;
    if read.asked > read.items.len() {
        return Err(Unread::Broken);
    }
    let response = KeptResponse {
        id: read.id,
        json: Bytes::from(read.json),
        items: read.items.into_iter().map(Arc::new).collect(),
        asked: read.asked,
        is_answered: read.is_answered,
        is_background: read.is_background,
    };
    let kept = Kept {
        client: read.client,
        is_a_key: read.is_a_key,
        at: read.at,
    };
    Ok((response, kept))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_digits(text: &str, count: usize) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == count && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conversation::{Role, ToolCall};
    use crate::http::dialects::kept_items::Said;

    const ID: &str = "resp_0123456789abcdef01234567";

    fn said() -> impl Strategy<Value = Said> {
        let text = || "(?s).{0,20}";
        let parts = || prop::collection::vec("(?s).{0,20}", 0..3);
        let role = prop::sample::select(vec![
            Role::System,
            Role::Developer,
            Role::User,
            Role::Assistant,
        ]);
        prop_oneof![
            (role, parts()).prop_map(|(role, parts)| Said::Message { role, parts }),
            text().prop_map(|text| Said::Reasoning { text }),
            (text(), text(), text()).prop_map(|(id, name, arguments)| Said::Call(ToolCall {
                id,
                name,
                arguments
            })),
            (text(), parts()).prop_map(|(call_id, parts)| Said::Result { call_id, parts }),
        ]
    }

    fn kept() -> Kept {
        Kept {
            client: "key 00".to_owned(),
            is_a_key: true,
            at: Moment {
                boot: "b".to_owned(),
                us_since_boot: 7,
                us_since_epoch: 9,
            },
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            said in prop::collection::vec(said(), 0..5),
            json in "(?s).{0,40}",
            asked in 0..5usize,
        ) {
            let items: Vec<Arc<Item>> = said
                .into_iter()
                .map(|said| Arc::new(Item { id: "x_1".to_owned(), said }))
                .collect();
            let response = KeptResponse {
                id: ID.to_owned(),
                json: json.into(),
                asked: asked.min(items.len()),
                items,
                is_answered: true,
                is_background: false,
            };
            let content = encode(&response, &kept()).expect("JSON");
            let text = String::from_utf8(content).expect("UTF-8");
            let (read, whose) = decode(&text).expect("whole");
            prop_assert_eq!(&read.items, &response.items);
            prop_assert_eq!(&read.json, &response.json);
            prop_assert_eq!((read.id, read.asked), (response.id, response.asked));
            prop_assert!(read.is_answered && !read.is_background);
            prop_assert_eq!(whose, kept());
            // However it was cut, it is known.
            for (at, _) in text.char_indices() {
                prop_assert!(decode(&text[..at]).is_err());
            }
        }
    }

    #[test]
    fn what_has_changed_is_known_and_a_later_version_is_left_alone() {
        let response = KeptResponse {
            id: ID.to_owned(),
            json: "{}".into(),
            items: Vec::new(),
            asked: 0,
            is_answered: true,
            is_background: false,
        };
        let text = String::from_utf8(encode(&response, &kept()).expect("JSON")).expect("UTF-8");
        let changed = text.replace("\"us_since_boot\":7", "\"us_since_boot\":8");
        assert_ne!(changed, text);
        let why = |text: &str| decode(text).expect_err("not read");
        assert_eq!(why(&changed), Unread::Broken);
        assert_eq!(why(""), Unread::Broken);
        let later = text.replacen("rkllmd-response 1 ", "rkllmd-response 2 ", 1);
        assert_eq!(why(&later), Unread::OtherVersion);
    }

    #[test]
    fn only_names_of_its_own_are_its_own() {
        let name = file_name(ID).expect("an id");
        assert_eq!(id_of(&name), Some(ID));
        assert!(is_half_written(&format!(".{name}.new")) && !is_half_written(&name));
        for id in ["", "resp_", "resp_../../x", "resp_0123456789ABCDEF01234567"] {
            assert_eq!(file_name(id), None, "{id}");
        }
        assert!(is_folder_name(&folder_name("127.0.0.1")) && !is_folder_name("127.0.0.1"));
        assert_ne!(folder_name("a"), folder_name("b"));
    }
}
