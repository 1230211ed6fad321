use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

use super::KeyDigest;
use crate::generation::{ClientKey, Weight};

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Generate, and look at models.
    User,
    /// Also what shows or changes the daemon as a whole.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Admin => "admin",
        })
    }
}

/// When a key is made that is made now, in whole seconds.
pub fn creation_time() -> String {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now).to_string()
}

/// One key, without its plaintext.
#[derive(Clone)]
pub struct ApiKey {
    pub name: KeyName,
    pub digest: KeyDigest,
    pub role: Role,
    /// Ids or aliases of the models it may use. `None`: all of them.
    pub models: Option<Vec<String>>,
    /// How much it gets beside other keys that wait as well.
    pub weight: Weight,
    /// Keys of one tenant may find out by what is cached what the others have asked; `None`: that of all
    /// keys that name none.
    pub tenant: Option<KeyName>,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
}

impl ApiKey {
    /// As whom its requests are told from others: not its name, which another key may have after it.
    pub fn client(&self) -> ClientKey {
        let tenant = self.tenant.as_ref().map(ToString::to_string);
        ClientKey::of_weight(self.client_name(), self.weight).of_tenant(tenant.unwrap_or_default())
    }

    /// The name of that.
    pub fn client_name(&self) -> String {
        format!("key {}", self.digest)
    }

    /// Whether it may use a model that has these names.
    pub fn may_use<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        match &self.models {
            None => true,
            Some(models) => names
                .into_iter()
                .any(|name| models.iter().any(|model| model == name)),
        }
    }

    /// Whether it may use all models that `other` may.
    pub fn may_use_all_of(&self, other: &Self) -> bool {
        match (&self.models, &other.models) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => others.iter().all(|model| own.contains(model)),
        }
    }
}

/// What a key is called in lists and logs; unique among the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName(Arc<str>);

impl KeyName {
    const MOST_CHARS: usize = 64;
}

impl FromStr for KeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        if !(1..=Self::MOST_CHARS).contains(&text.len())
            || !text.chars().all(allowed)
            || text.starts_with('-')
        {
            return Err(format!(
                "a name is 1 to {} letters, digits, `.`, `_`, `@` or `-`, and does not begin with `-`",
                Self::MOST_CHARS
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "laptop", "Anna.B_2@home-1", &"x".repeat(64)] {
            assert!(name.parse::<KeyName>().is_ok(), "{name}");
        }
        for name in ["", "two words", "--first", "a\n", "é", &"x".repeat(65)] {
            assert!(name.parse::<KeyName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_key_covers_another_when_it_lost_no_model() {
        let key = |models: Option<&[&str]>| ApiKey {
            name: "a".parse().unwrap(),
            digest: KeyDigest::of(b"a"),
            role: Role::User,
            models: models.map(|models| models.iter().map(|&model| model.to_owned()).collect()),
            weight: Weight::default(),
            tenant: None,
            created: String::new(),
        };
        let (all, one, both) = (key(None), key(Some(&["x"])), key(Some(&["y", "x"])));
        for (now, before, covers) in [
            (&all, &all, true),
            (&all, &one, true),
            (&both, &one, true),
            (&one, &one, true),
            (&one, &both, false),
            (&both, &all, false),
        ] {
            assert_eq!(now.may_use_all_of(before), covers);
        }
    }
}
