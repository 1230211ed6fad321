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
    /// No schema.
    Value,
}

/// Keywords that the engine keeps, or needs to find others.
pub fn kept(keyword: &str) -> Option<Holds> {
    Some(match keyword {
        "additionalProperties" | "additionalItems" => Holds::Schema,
        "items" => Holds::SchemaOrList,
        "anyOf" | "oneOf" | "allOf" | "prefixItems" => Holds::List,
        "properties" | "patternProperties" | "$defs" | "definitions" => Holds::Named,
        "$ref" | "const" | "enum" | "type" | "minItems" | "maxItems" | "required"
        | "minProperties" | "maxProperties" | "minLength" | "maxLength" | "pattern" | "minimum"
        | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" | "$id"
        | "$anchor" | "$schema" => Holds::Value,
        _ => return None,
    })
}

/// Keywords that say something of an instance and that the engine does not keep. All others are
/// annotations, which say nothing of it.
pub const NOT_KEPT: &[&str] = &[
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
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
