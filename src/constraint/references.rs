//! Where a `$ref` may lead: to a schema of the same document, by keywords that hold schemas. What stands
//! elsewhere, such as in a `const`, is a value: it is not read as a schema is, so the engine must not be led
//! there, where it would take what no client may ask for.

use super::keywords::{Holds, kept};

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
pub fn leads_to_a_schema(reference: &str) -> bool {
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
    fn what_is_no_escape_stays() {
        assert_eq!(fragment("#/a%2fb%").as_deref(), Some("/a/b%"));
        assert_eq!(fragment("#%+1%4").as_deref(), Some("%+1%4"));
        assert_eq!(fragment("a#"), None);
    }
}
