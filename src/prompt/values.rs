//! Values of templates as they read, without twins.

use std::borrow::Cow;

use minijinja::value::{Value, ValueKind};

use super::twins::Twins;

/// What is compared: a string, or the strings of a list, as they read.
pub(super) fn without_twins(twins: &Twins, value: &Value) -> Value {
    if let Some(text) = value.as_str() {
        return match twins.plain(text) {
            Cow::Borrowed(_) => value.clone(),
            Cow::Owned(text) => Value::from(text),
        };
    }
    let holds_some = |value: &Value| value.as_str().is_some_and(|text| twins.holds_twins(text));
    match value.kind() {
        ValueKind::Seq
            if value
                .try_iter()
                .is_ok_and(|mut items| items.any(|v| holds_some(&v))) =>
        {
            match value.try_iter() {
                Ok(items) => items.map(|item| without_twins(twins, &item)).collect(),
                Err(_) => value.clone(),
            }
        }
        _ => value.clone(),
    }
}
