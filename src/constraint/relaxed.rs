//! What is left of a part of a schema that the engine does not take, where all of it need not be kept: the part
//! without one keyword. One inside the schema becomes anything where that does not help; the whole does not.

use serde_json::{Map, Value};

use super::grammar::alone;
use super::rewrite::Moved;
use super::schema::Fault;

/// What the whole of a schema may be without; the first that helps.
const DISPENSABLE: [&str; 8] = [
    "oneOf",
    "patternProperties",
    "minProperties",
    "maxProperties",
    "required",
    "additionalProperties",
    "anyOf",
    "allOf",
];

/// A part that is kept but for a keyword.
pub(super) struct Relaxed {
    part: Value,
    keyword: &'static str,
    /// The parts of its `oneOf` are said by `anyOf`.
    is_moved: bool,
}

impl Relaxed {
    /// Of the part at `fault`, as `takes` takes it by itself.
    pub fn of(
        schema: &Value,
        fault: &Fault,
        takes: &dyn Fn(&Value) -> Result<(), String>,
    ) -> Option<Self> {
        let several = Self::of_several(schema, fault, takes);
        if several.is_some() || !fault.pointer.is_empty() {
            return several;
        }
        let written = schema.as_object()?;
        DISPENSABLE.into_iter().find_map(|keyword| {
            let part = without(written, keyword)?;
            takes(&part).is_ok().then_some(Self {
                part,
                keyword,
                is_moved: false,
            })
        })
    }

    /// Likewise, where several parts of it may hold at once: it is not kept that one alone does.
    pub fn of_several(
        schema: &Value,
        fault: &Fault,
        takes: &dyn Fn(&Value) -> Result<(), String>,
    ) -> Option<Self> {
        let written = schema.pointer(&fault.pointer)?.as_object()?;
        let part = any_of_several(written)?;
        takes(&alone(&part, schema)).is_ok().then_some(Self {
            part,
            keyword: "oneOf",
            is_moved: true,
        })
    }

    /// The part, of which `fault` tells the keyword then.
    pub fn told(self, fault: &mut Fault, moved: &mut Moved) -> Value {
        if self.is_moved {
            moved.add(&fault.pointer);
        }
        fault.pointer.push('/');
        fault.pointer.push_str(self.keyword);
        self.part
    }
}

fn any_of_several(written: &Map<String, Value>) -> Option<Value> {
    let mut keywords = written.clone();
    let parts = keywords.shift_remove("oneOf")?;
    let is_free = keywords.insert("anyOf".to_owned(), parts).is_none();
    is_free.then_some(Value::Object(keywords))
}

/// `None`: there is none, or nothing is left that says anything.
fn without(written: &Map<String, Value>, keyword: &str) -> Option<Value> {
    let mut keywords = written.clone();
    keywords.shift_remove(keyword)?;
    let is_rule = |name: &String| !name.starts_with('$') && name != "definitions";
    let says_something = keywords.keys().any(is_rule);
    says_something.then_some(Value::Object(keywords))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Of a schema that the engine takes where it lacks `hard`.
    fn relaxed(schema: &Value, pointer: &str, hard: &str) -> Option<(Value, String, String)> {
        let takes = |schema: &Value| match schema.to_string().contains(hard) {
            true => Err("it is hard".to_owned()),
            false => Ok(()),
        };
        let (mut fault, mut moved) = (Fault::new(pointer, "it is hard"), Moved::default());
        let relaxed = Relaxed::of(schema, &fault, &takes)?;
        let part = relaxed.told(&mut fault, &mut moved);
        Some((
            part,
            fault.pointer,
            moved.written(&format!("{pointer}/anyOf/0")),
        ))
    }

    #[test]
    fn one_of_several_becomes_any_of_them() {
        let schema = json!({"properties": {"a": {"oneOf": [true], "title": "x"}}});
        let (part, told, written) =
            relaxed(&schema, "/properties/a", "oneOf").expect("that is no keyword of it then");
        assert_eq!(part, json!({"title": "x", "anyOf": [true]}));
        assert_eq!(told, "/properties/a/oneOf");
        assert_eq!(written, "/properties/a/oneOf/0");
        let both = json!({"properties": {"a": {"oneOf": [true], "anyOf": [true]}}});
        assert!(relaxed(&both, "/properties/a", "oneOf").is_none());
    }

    #[test]
    fn the_whole_goes_without_a_keyword_and_is_not_given_up() {
        let schema = json!({"type": "object", "required": ["hard"], "minProperties": 1});
        let (part, told, written) = relaxed(&schema, "", "hard").expect("others say something");
        assert_eq!(part, json!({"type": "object", "minProperties": 1}));
        assert_eq!((told.as_str(), written.as_str()), ("/required", "/anyOf/0"));
        for schema in [
            json!({"required": ["hard"], "$defs": {"a": true}}),
            json!({"type": "hard", "required": ["a"]}),
        ] {
            assert!(relaxed(&schema, "", "hard").is_none(), "{schema}");
        }
        let inside = json!({"items": {"type": "object", "required": ["hard"]}});
        assert!(relaxed(&inside, "/items", "hard").is_none());
    }
}
