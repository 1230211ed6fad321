//! The keywords of JSON Schema, by what becomes of them.

/// What stands behind a keyword that holds schemas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Schema,
    /// One or several.
    SchemaOrList,
    List,
    /// By names that are no keywords.
    Named,
    /// The same, or names.
    NamedOrNames,
    /// No schema.
    Value,
}

/// Keywords that are kept, or needed to find others: by the engine, or said otherwise for it (`rewrite`).
pub fn kept(keyword: &str) -> Option<Holds> {
    Some(match keyword {
        "additionalProperties"
        | "additionalItems"
        | "contains"
        | "else"
        | "if"
        | "not"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Holds::Schema,
        "items" => Holds::SchemaOrList,
        "anyOf" | "oneOf" | "allOf" | "prefixItems" => Holds::List,
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
            Holds::Named
        }
        "dependencies" => Holds::NamedOrNames,
        "$ref" | "const" | "enum" | "type" | "minItems" | "maxItems" | "required"
        | "minProperties" | "maxProperties" | "minLength" | "maxLength" | "pattern" | "minimum"
        | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" | "$id"
        | "$anchor" | "$schema" | "dependentRequired" | "maxContains" | "minContains" => {
            Holds::Value
        }
        _ => return None,
    })
}

/// Keywords that say something of an instance and that are not kept. All others are
/// annotations, which say nothing of it.
pub const NOT_KEPT: &[&str] = &["$dynamicRef", "$recursiveRef", "uniqueItems"];

/// Keywords that count.
pub const COUNTS: &[&str] = &[
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
];

/// Formats that the engine keeps; all others are annotations.
pub const FORMATS: &[&str] = &[
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uri",
    "uuid",
];
