//! `context`: a conversation so far as the ids of its tokens, which a client keeps and gives back. The last line of an
//! answer has them behind a mark and a seal, by which the daemon knows its own again: in those, control tokens are what
//! its templates wrote, and what clients and the model said is text. Ids without them are the client's own.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;

use super::details::digest;
use crate::auth::{SEAL_BYTES, SealingKey};
use crate::chat::{ChatService, Closing, ConversationTurn, Making};
use crate::conversation::ReplyPiece;
use crate::generation::ClientKey;
use crate::http::dialects::embedding::check_tokens;
use crate::http::request::error::RequestError;
use crate::http::request::numbers::{token_id, token_id_of};
use crate::models::InstalledModel;
use crate::reader::on_behalf_of;

/// The field.
pub(super) const CONTEXT: &str = "context";
/// What a sealed context begins with, larger than the id of any token; the version of what follows is in it.
const MARK: i32 = 0x726b_6c01;
/// Numbers that the seal is, each of 31 bits of it.
const SEAL_NUMBERS: usize = SEAL_BYTES / size_of::<i32>();
/// An answer's end waits no longer for its context.
const MADE_WITHIN: Duration = Duration::from_secs(5);
/// What is sealed begins with it, so that nothing else is taken for a context.
const KIND: &[u8] = b"rkllmd.context.1.";

/// Ids of tokens as a client sends them, read one by one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenIds(Vec<i32>);

struct Id(i32);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id")
            }

            fn visit_u64<E: de::Error>(self, id: u64) -> Result<Id, E> {
                token_id(id).map(Id)
            }

            fn visit_i64<E: de::Error>(self, id: i64) -> Result<Id, E> {
                token_id(id).map(Id)
            }

            fn visit_f64<E: de::Error>(self, id: f64) -> Result<Id, E> {
                token_id_of(id).map(Id)
            }
        }

        deserializer.deserialize_any(IdVisitor)
    }
}

impl<'de> Deserialize<'de> for TokenIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdsVisitor;

        impl<'de> Visitor<'de> for IdsVisitor {
            type Value = TokenIds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of token ids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TokenIds, A::Error> {
                let mut ids = Vec::new();
                while let Some(Id(id)) = seq.next_element()? {
                    ids.push(id);
                }
                Ok(TokenIds(ids))
            }
        }

        deserializer.deserialize_seq(IdsVisitor)
    }
}

/// A conversation as a client gave it back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Opened {
    pub ids: Vec<i32>,
    /// The daemon has made them.
    pub is_own: bool,
}

impl TokenIds {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    ///
    /// They are the daemon's and changed, or another model's, or no ids of the model's tokens.
    pub(super) fn open(
        self,
        model: &InstalledModel,
        key: &SealingKey,
    ) -> Result<Opened, RequestError> {
        if model.tokenizer_json.is_none() {
            return Err(RequestError::unsupported(
                CONTEXT,
                format!(
                    "the tokenizer of \"{}\" is not known here, so nothing can be put behind tokens: an administrator \
                     puts its `tokenizer.json` beside the model's file",
                    model.id
                ),
            ));
        }
        let Self(mut ids) = self;
        if ids.first() != Some(&MARK) {
            check_tokens(model, &ids, CONTEXT)?;
            return Ok(Opened { ids, is_own: false });
        }
        let given = ids.get(1..=SEAL_NUMBERS).map(<[i32]>::to_vec);
        ids.drain(..ids.len().min(1 + SEAL_NUMBERS));
        // In the bits that are there, and in the same time wherever they differ.
        let is_own = given.is_some_and(|given| {
            let differences = given.iter().zip(seal(&ids, model, key));
            differences.fold(0, |all, (one, other)| all | (one ^ other)) == 0
        });
        match is_own {
            true => Ok(Opened { ids, is_own }),
            false => Err(RequestError::out_of_range(
                CONTEXT,
                "must be as an answer of this model here had it; this one was changed, is another model's or of before \
                 this one was replaced, or was sealed with another key than this daemon's",
            )),
        }
    }
}

/// The seal of a conversation with a model. What takes a model's name later has other tokens by the same ids, and what is
/// made of one may have another beginning: so it is bound to all that tells a model from others.
fn seal(ids: &[i32], model: &InstalledModel, key: &SealingKey) -> [i32; SEAL_NUMBERS] {
    let ids = ids.iter().flat_map(|id| id.to_le_bytes());
    let text: Vec<u8> = [KIND, digest(model).as_bytes()]
        .concat()
        .into_iter()
        .chain(ids)
        .collect();
    let mut numbers = [0; SEAL_NUMBERS];
    for (number, bytes) in numbers.iter_mut().zip(key.seal(&text).chunks_exact(4)) {
        let bytes = bytes.try_into().unwrap_or_default();
        // Some clients know no negative ids.
        *number = i32::from_le_bytes(bytes) & i32::MAX;
    }
    numbers
}

/// What an answer's last line has of it, once it is made.
#[derive(Clone, Debug, Default)]
pub(crate) struct NextContext(Arc<OnceLock<Arc<[i32]>>>);

impl NextContext {
    pub fn ids(&self) -> Option<Arc<[i32]>> {
        self.0.get().cloned()
    }
}

/// Makes it of an answer.
pub(super) struct ContextOf {
    pub chats: ChatService,
    /// Whose calls of readers it takes.
    pub client: ClientKey,
    pub model: Arc<InstalledModel>,
    pub turn: ConversationTurn,
    pub key: SealingKey,
    pub answer: String,
    pub next: NextContext,
}

impl Closing for ContextOf {
    /// Thoughts are no part of what comes before another turn.
    fn piece(&mut self, piece: &ReplyPiece) {
        match piece {
            ReplyPiece::Text(text) => self.answer.push_str(text),
            ReplyPiece::ScoredText(scored) => self.answer.push_str(&scored.text),
            _ => {}
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.turn.bytes()
    }

    fn held_bytes(&self) -> usize {
        self.answer.capacity()
    }

    fn ended(self: Box<Self>) -> Making {
        let Self {
            chats,
            client,
            model,
            turn,
            key,
            answer,
            next,
        } = *self;
        let made = async move {
            match chats.with_answer(&model, turn, answer).await {
                Ok(ids) => {
                    let seal = seal(&ids, &model, &key);
                    let all = std::iter::once(MARK).chain(seal).chain(ids);
                    // Nothing else sets it.
                    let _ = next.0.set(all.collect());
                }
                Err(error) => {
                    tracing::debug!(model = &*model.id, %error, "an answer has no context");
                }
            }
        };
        Box::pin(on_behalf_of(client, async move {
            if timeout(MADE_WITHIN, made).await.is_err() {
                tracing::debug!("an answer has no context: making it took too long");
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Variant, VariantValues};

    fn model(id: &str) -> InstalledModel {
        InstalledModel {
            id: id.into(),
            path: id.into(),
            tokenizer_json: Some("tokenizer.json".into()),
            ..InstalledModel::default()
        }
    }

    fn variant() -> Variant {
        Variant {
            name: "made".into(),
            from: "a".into(),
            created: 1,
            system: None,
            messages: Vec::new(),
            template: None,
            values: VariantValues::default(),
            license: Vec::new(),
        }
    }

    fn sealed(ids: &[i32], model: &InstalledModel, key: &SealingKey) -> Vec<i32> {
        let seal = seal(ids, model, key);
        let all = std::iter::once(MARK).chain(seal);
        all.chain(ids.iter().copied()).collect()
    }

    #[test]
    fn only_what_is_as_it_was_sealed_is_the_daemons_own() {
        let (key, model_a) = (SealingKey::of_this_process(), model("a"));
        let open = |ids: &[i32], model: &InstalledModel, key: &SealingKey| {
            TokenIds(ids.to_vec()).open(model, key)
        };
        let own = sealed(&[5, 0, 7], &model_a, &key);
        assert!(own.iter().all(|number| *number >= 0));
        let opened = open(&own, &model_a, &key).expect("its own");
        let expected = Opened {
            ids: vec![5, 0, 7],
            is_own: true,
        };
        assert_eq!(opened, expected);
        assert!(open(&own, &model("b"), &key).is_err());
        // What has taken its place, or is made of it.
        let mut replaced = model("a");
        replaced.facts.size_bytes += 1;
        assert!(open(&own, &replaced, &key).is_err());
        let made = InstalledModel {
            variant: Some(Arc::new(variant())),
            ..model("a")
        };
        assert!(open(&own, &made, &key).is_err());
        assert!(open(&own, &model_a, &SealingKey::of_this_process()).is_err());
        for place in 1..own.len() {
            let mut changed = own.clone();
            changed[place] ^= 1;
            assert!(open(&changed, &model_a, &key).is_err(), "{place}");
            assert!(open(&own[..place], &model_a, &key).is_err(), "{place}");
        }
        let more = [own.as_slice(), &[7]].concat();
        assert!(open(&more, &model_a, &key).is_err());
        let clients = open(&[5, 0, 7], &model_a, &key).expect("a client's");
        assert!(!clients.is_own);
        let nameless = InstalledModel {
            tokenizer_json: None,
            ..model("a")
        };
        assert!(open(&own, &nameless, &key).is_err());
    }

    #[test]
    fn ids_are_whole_numbers_that_tokens_may_have() {
        let read = |json: &str| serde_json::from_str::<TokenIds>(json);
        assert_eq!(
            read("[1, 2.0, 2147483647]").expect("ids").0,
            [1, 2, i32::MAX]
        );
        for wrong in [
            "7",
            "\"a\"",
            "{}",
            "[-1]",
            "[1.5]",
            "[\"1\"]",
            "[null]",
            "[[1]]",
            "[2147483648]",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
