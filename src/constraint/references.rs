//! Where a `$ref` may lead: to a schema of the same document, by keywords that hold schemas. What stands
//! elsewhere, such as in a `const`, is a value: it is not read as a schema is, so the engine must not be led
//! there, where it would take what no client may ask for.

use std::collections::HashMap;

use serde_json::Value;

use super::beyond_engine::is_circular;
use super::keywords::{Holds, kept};

/// The places of a document that references lead to.
pub struct Places<'v> {
    root: &'v Value,
    /// Schemas with a name.
    anchors: HashMap<&'v str, &'v Value>,
}

impl<'v> Places<'v> {
    pub fn of(root: &'v Value) -> Self {
        let mut anchors = HashMap::new();
        name(root, &mut anchors);
        Self { root, anchors }
    }

    /// What a reference into the document leads to, if it is there.
    pub fn find(&self, reference: &str) -> Option<&'v Value> {
        let place = fragment(reference)?;
        match place.is_empty() || place.starts_with('/') {
            true => self.root.pointer(&place),
            false => self.anchors.get(&*place).copied(),
        }
    }

    /// Why a reference is not followed; `None`: it is.
    pub fn fault(&self, reference: &Value) -> Option<&'static str> {
        let inside = reference.as_str().filter(|to| to.starts_with('#'));
        let Some(to) = inside else {
            return Some("must refer to a place in the same schema");
        };
        if !leads_to_a_schema(to) {
            return Some("must lead to a schema, by keywords that hold schemas");
        }
        is_circular(self, to).then_some("leads back to itself without a value in between")
    }
}

/// What a reference into `root` leads to, where few are looked up.
pub fn found<'v>(root: &'v Value, reference: &str) -> Option<&'v Value> {
    let place = fragment(reference)?;
    match place.starts_with('/') {
        true => root.pointer(&place),
        false => Places::of(root).find(reference),
    }
}

/// The schema's anchor, and those of the schemas in it. The first of a name counts.
fn name<'v>(schema: &'v Value, anchors: &mut HashMap<&'v str, &'v Value>) {
    let Value::Object(keywords) = schema else {
        return;
    };
    if let Some(Value::String(anchor)) = keywords.get("$anchor") {
        anchors.entry(anchor).or_insert(schema);
    }
    for (keyword, value) in keywords {
        match (kept(keyword), value) {
            (None | Some(Holds::Value), _) => {}
            (Some(Holds::Named | Holds::NamedOrNames), Value::Object(schemas)) => {
                schemas.values().for_each(|schema| name(schema, anchors));
            }
            (Some(_), Value::Array(schemas)) => {
                schemas.iter().for_each(|schema| name(schema, anchors));
            }
            (Some(_), _) => name(value, anchors),
        }
    }
}

/// What a part of a pointer is looked up in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Schema,
    SchemaOrList,
    List,
    Names,
}

/// Whether a reference into the same document can name nothing but a schema, if anything is there. An anchor
/// is the engine's to find, which looks for them in schemas.
fn leads_to_a_schema(reference: &str) -> bool {
    let Some(fragment) = fragment(reference) else {
        return false;
    };
    let Some(pointer) = fragment.strip_prefix('/') else {
        return true;
    };
    let mut at = At::Schema;
    for part in pointer.split('/') {
        let part = part.replace("~1", "/").replace("~0", "~");
        let is_index = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        at = match (at, kept(&part)) {
            (At::Names, _) => At::Schema,
            (At::List | At::SchemaOrList, _) if is_index => At::Schema,
            (At::List, _) | (_, Some(Holds::Value) | None) => return false,
            (_, Some(Holds::Schema)) => At::Schema,
            (_, Some(Holds::SchemaOrList)) => At::SchemaOrList,
            (_, Some(Holds::List)) => At::List,
            (_, Some(Holds::Named | Holds::NamedOrNames)) => At::Names,
        };
    }
    matches!(at, At::Schema | At::SchemaOrList)
}

/// What stands behind the `#` of a reference into the same document, decoded.
pub fn fragment(reference: &str) -> Option<String> {
    let mut rest = reference.strip_prefix('#')?.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        match escaped(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// The byte that `%` and two digits stand for.
fn escaped(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    let are_digits = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| are_digits)?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_found_by_keywords_that_hold_schemas_only() {
        for reference in [
            "#",
            "#anchor",
            "#/$defs/a",
            "#/%24defs/a%20b",
            "#/definitions/const",
            "#/properties/a~1b/items",
            "#/properties/const/items/0",
            "#/anyOf/1/not",
            "#/dependencies/a",
            "#/items/properties/a",
        ] {
            assert!(leads_to_a_schema(reference), "{reference}");
        }
        for reference in [
            "#/const",
            "#/%63onst",
            "#%2Fconst",
            "#/properties/a/const",
            "#/properties/a/enum/0",
            "#/const/properties/a",
            "#/default",
            "#/own/x",
            "#/x-guidance",
            "#/properties",
            "#/$defs",
            "#/anyOf",
            "#/anyOf/a",
            "#/required/0",
            "#/",
            "#/%ff",
        ] {
            assert!(!leads_to_a_schema(reference), "{reference}");
        }
    }

    #[test]
    fn a_reference_leads_to_a_pointer_or_a_name() {
        let schema = serde_json::json!({"$defs": {"a/b~c": {"$anchor": "x", "type": "null"},
            "v": {"const": {"$anchor": "y"}}, "l": {"anyOf": [true, {"$anchor": "z"}]}}});
        let places = Places::of(&schema);
        for (reference, expected) in [
            ("#", Some("")),
            ("#/$defs/a~1b~0c", Some("/$defs/a~1b~0c")),
            ("#/%24defs/a%7E1b~0c", Some("/$defs/a~1b~0c")),
            ("#x", Some("/$defs/a~1b~0c")),
            ("#z", Some("/$defs/l/anyOf/1")),
            ("#y", None),
            ("#/$defs/b", None),
            ("x", None),
        ] {
            let place = expected.and_then(|place| schema.pointer(place));
            assert_eq!(places.find(reference), place, "{reference}");
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(fragment("#/a%2fb%").as_deref(), Some("/a/b%"));
        assert_eq!(fragment("#%+1%4").as_deref(), Some("%+1%4"));
        assert_eq!(fragment("a#"), None);
    }
}
