//! Properties and items that no part of a schema speaks of (`unevaluatedProperties`,
//! `unevaluatedItems`), by the parts that always hold: the schema's own, those of `allOf`, and what a
//! `$ref` points to; and of `anyOf` and `oneOf`, those of the part that holds.

use serde_json::{Map, Value, json};

use super::{Keywords, both};

/// The schema that references point into, as the client wrote it.
pub struct Root<'v>(pub &'v Value);

#[derive(Clone, Default)]
struct Evaluated {
    all: bool,
    names: Vec<String>,
    patterns: Vec<String>,
    items: usize,
    all_items: bool,
    /// References that were followed.
    followed: Vec<String>,
}

impl Evaluated {
    /// `is_inner`: its own word of what is not evaluated counts.
    fn add(&mut self, schema: &Value, root: &Root<'_>, is_inner: bool) {
        let Value::Object(keywords) = schema else {
            return;
        };
        let of = |keyword: &str| keywords.get(keyword).filter(|value| !value.is_null());
        let names = |keyword: &str| {
            let named = of(keyword).and_then(Value::as_object);
            named.into_iter().flat_map(Map::keys).cloned()
        };
        self.names.extend(names("properties"));
        self.patterns.extend(names("patternProperties"));
        self.all |= of("additionalProperties").is_some()
            || (is_inner && of("unevaluatedProperties").is_some());
        self.all_items |= of("items").is_some_and(|items| !items.is_array())
            || (is_inner && of("unevaluatedItems").is_some());
        let first = of("prefixItems")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        // Those that are contained come first.
        let contained = match (of("contains"), of("minContains")) {
            (None, _) => 0,
            (Some(_), None) => 1,
            (Some(_), Some(least)) => least.as_u64().unwrap_or(0) as usize,
        };
        self.items = self.items.max(first).max(contained);
        for part in of("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.add(part, root, true);
        }
        let reference = of("$ref").and_then(Value::as_str);
        let place = reference.and_then(|to| to.strip_prefix('#')).unwrap_or("/");
        if let Some(target) = root.0.pointer(place)
            && !self.followed.iter().any(|followed| followed == place)
        {
            self.followed.push(place.to_owned());
            self.add(target, root, true);
        }
    }

    fn with(&self, part: &Value, root: &Root<'_>) -> Self {
        let mut both = self.clone();
        both.add(part, root, true);
        both
    }

    /// What says of others that they are `others`; `None`: there are none.
    fn properties(&self, others: &Value) -> Option<Keywords> {
        if self.all {
            return None;
        }
        let named = |names: &[String]| -> Keywords {
            let names = names.iter().map(|name| (name.clone(), Value::Bool(true)));
            names.collect()
        };
        let mut keywords = Keywords::new();
        keywords.insert("properties".to_owned(), named(&self.names).into());
        if !self.patterns.is_empty() {
            keywords.insert("patternProperties".to_owned(), named(&self.patterns).into());
        }
        keywords.insert("additionalProperties".to_owned(), others.clone());
        Some(keywords)
    }

    fn items(&self, others: &Value) -> Option<Keywords> {
        if self.all_items {
            return None;
        }
        let mut keywords = Keywords::new();
        if self.items > 0 {
            let first = vec![Value::Bool(true); self.items];
            keywords.insert("prefixItems".to_owned(), first.into());
        }
        keywords.insert("items".to_owned(), others.clone());
        Some(keywords)
    }
}

pub fn properties(read: &mut Keywords, written: &Keywords, root: &Root<'_>) {
    unevaluated(
        read,
        written,
        root,
        "unevaluatedProperties",
        Evaluated::properties,
    );
}

pub fn items(read: &mut Keywords, written: &Keywords, root: &Root<'_>) {
    unevaluated(read, written, root, "unevaluatedItems", Evaluated::items);
}

fn unevaluated(
    read: &mut Keywords,
    written: &Keywords,
    root: &Root<'_>,
    keyword: &str,
    closed: fn(&Evaluated, &Value) -> Option<Keywords>,
) {
    let others = match read.remove(keyword) {
        None | Some(Value::Bool(true)) => return,
        Some(others) => others,
    };
    let mut evaluated = Evaluated::default();
    evaluated.add(&Value::Object(written.clone()), root, false);
    if closed(&evaluated, &others).is_none() {
        return;
    }
    let parts = |keyword: &str| {
        let written = written.get(keyword).and_then(Value::as_array);
        // Parts that exclude each other are said by `anyOf`.
        let read = read.get(keyword).or_else(|| read.get("anyOf"));
        written.zip(read.and_then(Value::as_array).cloned())
    };
    // What the part that holds speaks of counts.
    let said = match parts("anyOf").or(parts("oneOf")) {
        Some((written, parts)) => {
            let parts = written.iter().zip(parts).map(|(written, part)| {
                match closed(&evaluated.with(written, root), &others) {
                    Some(closed) => both(part, Value::Object(closed)),
                    None => part,
                }
            });
            json!({"anyOf": parts.collect::<Vec<Value>>()})
        }
        None => closed(&evaluated, &others).map_or(Value::Bool(true), Value::Object),
    };
    // Its parts are there again, with what is closed.
    read.remove("anyOf");
    let all = read.entry("allOf").or_insert_with(|| json!([]));
    if let Value::Array(all) = all {
        all.push(said);
    }
}
