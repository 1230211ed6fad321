//! Whether who was let in may still change keys when they are changed: a body may be long in coming, and keys are
//! changed one after the other.

use crate::auth::{ApiKey, Keyring, Role};
use crate::http::request::access::{Caller, Rule};
use crate::http::request::error::{RequestError, quote};

/// Who asks for a change, and how the listener let them in.
pub(super) struct Authority {
    pub rule: Rule,
    pub caller: Caller,
}

impl Authority {
    /// Whether this key may be made by them now. The first one must be an admin's where it would shut its maker out.
    pub fn may_add(&self, keyring: &Keyring, key: &ApiKey) -> Result<(), RequestError> {
        let own = self.own(keyring)?;
        if own.is_none() && self.rule == Rule::KeysOncePresent && key.role != Role::Admin {
            let must = "must be `admin` for the first key, without which nobody could manage keys here; \
                        `rkllmd keys add` makes others";
            return Err(RequestError::out_of_range("role", must));
        }
        is_within(own, key)
    }

    /// Whether this key may be revoked by them now.
    pub fn may_revoke(&self, keyring: &Keyring, key: Option<&ApiKey>) -> Result<(), RequestError> {
        let own = self.own(keyring)?;
        key.map_or(Ok(()), |key| is_within(own, key))
    }

    /// Their key as it is now. `None`: they need none.
    fn own<'a>(&self, keyring: &'a Keyring) -> Result<Option<&'a ApiKey>, RequestError> {
        let key = match &self.caller {
            Caller::Key(key) => key,
            Caller::Trusted if self.rule != Rule::KeysOncePresent || keyring.is_empty() => {
                return Ok(None);
            }
            Caller::Trusted | Caller::Stranger => return Err(RequestError::MissingKey),
        };
        match keyring.find_again(key) {
            Some(now) if now.role == Role::Admin => Ok(Some(now)),
            Some(now) => Err(RequestError::RoleNotAllowed {
                key: now.name.to_string(),
                path: "a change of keys".to_owned(),
            }),
            None => Err(RequestError::InvalidKey),
        }
    }
}

/// An admin of some models makes and revokes no key for others.
fn is_within(own: Option<&ApiKey>, key: &ApiKey) -> Result<(), RequestError> {
    let Some(own) = own.filter(|own| !own.may_use_all_of(key)) else {
        return Ok(());
    };
    let models = key.models.as_ref().map(|models| models.join(", "));
    Err(RequestError::ModelNotAllowed {
        key: own.name.to_string(),
        model: quote(&models.unwrap_or_else(|| "every model".to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::KeyDigest;
    use crate::generation::Weight;

    fn key(name: &str, role: Role, models: Option<&[&str]>) -> ApiKey {
        ApiKey {
            name: name.parse().unwrap(),
            digest: KeyDigest::of(name.as_bytes()),
            role,
            models: models.map(|models| models.iter().map(|&model| model.to_owned()).collect()),
            weight: Weight::default(),
            tenant: None,
            created: String::new(),
        }
    }

    fn keyring<const N: usize>(keys: [ApiKey; N]) -> Keyring {
        let mut keyring = Keyring::default();
        for key in keys {
            keyring.add(key).unwrap();
        }
        keyring
    }

    #[test]
    fn a_key_counts_as_it_is_when_keys_are_changed() {
        let authority = Authority {
            rule: Rule::Keys,
            caller: Caller::Key(Arc::new(key("own", Role::Admin, None))),
        };
        let wanted = key("new", Role::User, Some(&["other"]));
        let may = |now: Keyring| {
            let may_add = authority.may_add(&now, &wanted);
            assert_eq!(authority.may_revoke(&now, Some(&wanted)), may_add);
            may_add
        };
        assert_eq!(may(keyring([key("own", Role::Admin, None)])), Ok(()));
        assert_eq!(
            may(keyring([key("another", Role::Admin, None)])),
            Err(RequestError::InvalidKey)
        );
        let demoted = may(keyring([key("own", Role::User, None)]));
        assert!(matches!(demoted, Err(RequestError::RoleNotAllowed { .. })));
        let bound = may(keyring([key("own", Role::Admin, Some(&["own"]))]));
        assert!(matches!(bound, Err(RequestError::ModelNotAllowed { .. })));
    }

    #[test]
    fn the_first_key_shuts_nobody_out_who_has_made_it() {
        let (user, admin) = (key("u", Role::User, None), key("a", Role::Admin, None));
        let of = |rule| Authority {
            rule,
            caller: Caller::Trusted,
        };
        let none = Keyring::default();
        let once_present = of(Rule::KeysOncePresent);
        assert!(matches!(
            once_present.may_add(&none, &user),
            Err(RequestError::OutOfRange { .. })
        ));
        assert_eq!(once_present.may_add(&none, &admin), Ok(()));
        // Another one was first.
        let one = keyring([key("first", Role::Admin, None)]);
        let late = once_present.may_add(&one, &admin);
        assert_eq!(late, Err(RequestError::MissingKey));
        let late = once_present.may_revoke(&one, one.keys().next());
        assert_eq!(late, Err(RequestError::MissingKey));
        for rule in [Rule::Open, Rule::OpenToAll] {
            assert_eq!(of(rule).may_add(&none, &user), Ok(()));
            assert_eq!(of(rule).may_add(&one, &user), Ok(()));
        }
    }
}
