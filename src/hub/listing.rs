//! What a repository offers, as its hub tells it at one commit. Pure. Of an answer no more is kept than is used,
//! so that none of them takes much more memory than its text.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::names::leads_beneath;
use super::{Hash, PullError};
use crate::printable::printable;

/// Larger answers are not read.
pub(super) const MOST_BYTES: usize = 8 << 20;
/// More files than a repository of models has.
const MOST_FILES: usize = 10_000;
/// The largest size that is believed.
pub(super) const MOST_SIZE: u64 = 1 << 42;

/// A repository at one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The commit that everything is taken of.
    pub commit: String,
    pub files: Vec<RemoteFile>,
    pub licence: Option<String>,
    /// The repository that it was made of, which may have what this one lacks.
    pub base_model: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// In the repository.
    pub path: String,
    /// `None`: the listing does not tell.
    pub size: Option<u64>,
    pub hash: Option<Hash>,
}

#[derive(Deserialize)]
struct ListingBody {
    sha: Option<String>,
    #[serde(default, deserialize_with = "not_too_many")]
    siblings: Vec<Sibling>,
    #[serde(rename = "cardData")]
    card: Option<Card>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Card {
    license: FirstText,
    base_model: FirstText,
}

/// A text, or the first of several; `None`: it is neither.
#[derive(Default)]
struct FirstText(Option<String>);

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    /// As lists of folders and Git LFS itself call it.
    oid: Option<String>,
    size: Option<u64>,
}

impl Listing {
    /// Reads the answer of a hub.
    ///
    /// # Errors
    ///
    /// It is none, or names what no repository holds.
    pub(super) fn parse(json: &[u8]) -> Result<Self, PullError> {
        let answer: ListingBody = serde_json::from_slice(json)
            .map_err(|error| PullError::bad_answer(format!("the list of files: {error}")))?;
        let commit = answer.sha.filter(|sha| is_commit(sha));
        let commit = commit.ok_or_else(|| PullError::bad_answer("it names no commit"))?;
        let files = answer.siblings.into_iter().map(Sibling::checked);
        let card = answer.card.unwrap_or_default();
        Ok(Self {
            commit,
            files: files.collect::<Result<_, _>>()?,
            licence: card.license.0,
            base_model: card.base_model.0,
        })
    }

    pub fn file(&self, path: &str) -> Option<&RemoteFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

impl Sibling {
    fn checked(self) -> Result<RemoteFile, PullError> {
        if !leads_beneath(&self.rfilename) {
            let shown: String = self.rfilename.chars().take(200).collect();
            let reason = format!("it names the file `{}`", printable(&shown));
            return Err(PullError::bad_answer(reason));
        }
        let lfs = self.lfs.as_ref();
        let size = lfs.and_then(|lfs| lfs.size).or(self.size);
        if size.is_some_and(|size| size > MOST_SIZE) {
            return Err(PullError::bad_answer("a file is larger than any disk"));
        }
        let digits = lfs.and_then(|lfs| lfs.sha256.as_ref().or(lfs.oid.as_ref()));
        let sha256 = digits.and_then(|it| Hash::parse_sha256(it.trim_start_matches("sha256:")));
        // What lies elsewhere has a blob that only points there.
        let blob = self.blob_id.filter(|_| lfs.is_none());
        Ok(RemoteFile {
            path: self.rfilename,
            size,
            hash: sha256.or_else(|| Hash::parse(&blob?)),
        })
    }
}

/// Ends at the first file that is too many.
fn not_too_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Sibling>, D::Error> {
    struct Files;
    impl<'de> Visitor<'de> for Files {
        type Value = Vec<Sibling>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST_FILES} files")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut files = Vec::new();
            while let Some(file) = all.next_element()? {
                if files.len() == MOST_FILES {
                    return Err(A::Error::custom(format!(
                        "it has more than {MOST_FILES} files, as no model has"
                    )));
                }
                files.push(file);
            }
            Ok(files)
        }
    }
    deserializer.deserialize_seq(Files)
}

impl<'de> Deserialize<'de> for FirstText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

/// What people write by hand is of any kind.
impl<'de> Visitor<'de> for TextVisitor {
    type Value = FirstText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<FirstText, E> {
        Ok(FirstText(Some(text.chars().take(200).collect())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<FirstText, A::Error> {
        let first: Option<FirstText> = all.next_element()?;
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first.unwrap_or_default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<FirstText, A::Error> {
        while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(FirstText::default())
    }

    fn visit_unit<E>(self) -> Result<FirstText, E> {
        Ok(FirstText::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<FirstText, E> {
        Ok(FirstText::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<FirstText, E> {
        Ok(FirstText::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<FirstText, E> {
        Ok(FirstText::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<FirstText, E> {
        Ok(FirstText::default())
    }
}

/// Of a hub's version control: hexadecimal digits, as many as either of its checksums has.
fn is_commit(sha: &str) -> bool {
    Hash::parse(sha).is_some() && !sha.contains(['"', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parsed(siblings: &Value) -> Result<Listing, PullError> {
        let answer = json!({"sha": COMMIT, "siblings": siblings});
        Listing::parse(answer.to_string().as_bytes())
    }

    #[test]
    fn a_listing_tells_sizes_and_checksums() {
        let answer = json!({
            "id": "a/b", "sha": COMMIT, "private": false, "gated": false, "tags": ["x"],
            "cardData": {"license": "apache-2.0", "base_model": ["c/d", "e/f"]},
            "siblings": [
                {"rfilename": "m.gguf", "size": 4, "blobId": COMMIT,
                 "lfs": {"sha256": "ab".repeat(32), "size": 5, "pointerSize": 135}},
                {"rfilename": "tokenizer.json", "size": 6, "blobId": "cd".repeat(20)},
                {"rfilename": "x/y"},
                {"rfilename": "n.gguf", "size": 7, "lfs": {"oid": format!("sha256:{}", "ef".repeat(32))}},
            ],
        });
        let found = Listing::parse(answer.to_string().as_bytes()).expect("a listing");
        assert_eq!(found.commit, COMMIT);
        assert_eq!(found.licence.as_deref(), Some("apache-2.0"));
        assert_eq!(found.base_model.as_deref(), Some("c/d"));
        let model = found.file("m.gguf").expect("it is there");
        assert_eq!(
            (model.size, model.hash),
            (Some(5), Some(Hash::Sha256([0xab; 32])))
        );
        let small = found.file("tokenizer.json").expect("it is there");
        assert_eq!(
            (small.size, small.hash),
            (Some(6), Some(Hash::GitBlob([0xcd; 20])))
        );
        assert_eq!(found.file("x/y").expect("it is there").hash, None);
        let other = found.file("n.gguf").expect("it is there");
        assert_eq!(
            (other.size, other.hash),
            (Some(7), Some(Hash::Sha256([0xef; 32])))
        );
    }

    #[test]
    fn listings_by_an_attacker_are_refused() {
        for path in [
            "../../x",
            "/etc/passwd",
            "a/../../b",
            "",
            "a//b",
            "a\u{0}",
            "\u{1b}[2J",
            "a\\b",
            "./x",
            &"a".repeat(2000),
        ] {
            let refused = parsed(&json!([{"rfilename": path}]));
            assert!(
                matches!(refused, Err(PullError::BadAnswer { .. })),
                "{path:?}"
            );
        }
        let many: Vec<Value> = (0..100_000)
            .map(|n| json!({"rfilename": n.to_string()}))
            .collect();
        assert!(parsed(&many.into()).is_err());
        assert!(parsed(&json!([{"rfilename": "a", "size": u64::MAX}])).is_err());
        assert!(parsed(&json!([{"rfilename": "a", "size": -1}])).is_err());
        for answer in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"sha":"../x"}"#,
            r#"{"sha":"main"}"#,
        ] {
            assert!(Listing::parse(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_card_may_say_anything() {
        let base_model = |value: &Value| {
            let card = json!({"license": 7, "base_model": value, "tags": [{"a": [1]}]});
            let answer = json!({"sha": COMMIT, "siblings": [], "cardData": card});
            let found = Listing::parse(answer.to_string().as_bytes()).expect("a listing");
            assert_eq!(found.licence, None);
            found.base_model
        };
        for none in [
            json!(null),
            json!(true),
            json!(1),
            json!(-1),
            json!(0.5),
            json!({"a": "b"}),
            json!([]),
        ] {
            assert_eq!(base_model(&none), None, "{none}");
        }
        for some in [json!("a/b"), json!(["a/b", 7]), json!([["a/b"], {}])] {
            assert_eq!(base_model(&some).as_deref(), Some("a/b"), "{some}");
        }
        let long = "x".repeat(1000);
        assert_eq!(base_model(&json!(long)).map(|it| it.len()), Some(200));
        let without = json!({"sha": COMMIT, "cardData": null}).to_string();
        assert!(Listing::parse(without.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_file_of_a_listing_lies_outside_its_repository(path in "\\PC{0,30}|[./\\\\a-c]{0,12}") {
            if let Ok(listing) = parsed(&json!([{"rfilename": path}])) {
                let path = std::path::Path::new(&listing.files[0].path);
                let is_plain = |it| matches!(it, std::path::Component::Normal(_));
                prop_assert!(path.components().all(is_plain));
            }
        }

        #[test]
        fn whatever_a_hub_says_is_read_or_refused(answer in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Listing::parse(&answer);
        }
    }
}
