//! What the engine reads wrong, or only finds while an answer is drawn.

use serde_json::{Map, Value};

use super::references::Places;

/// Whether the place that `reference` names leads back to itself without a value in between, so
/// that it says nothing and never ends.
pub fn is_circular(places: &Places<'_>, reference: &str) -> bool {
    let mut search = Search {
        places,
        path: Vec::new(),
        done: Vec::new(),
    };
    search.follows(reference)
}

struct Search<'p, 'v> {
    places: &'p Places<'v>,
    /// References that lead to here.
    path: Vec<&'v str>,
    /// Those that lead to no circle.
    done: Vec<&'v str>,
}

/// Keywords whose schemas speak of the same value.
const OF_ONE: [&str; 4] = ["if", "then", "else", "not"];
const OF_SEVERAL: [&str; 3] = ["allOf", "anyOf", "oneOf"];

impl<'v> Search<'_, 'v> {
    fn follows(&mut self, reference: &str) -> bool {
        let Some(target) = self.places.find(reference) else {
            // The engine says what it does not find.
            return false;
        };
        self.is_on_a_circle(target)
    }

    fn is_on_a_circle(&mut self, schema: &'v Value) -> bool {
        let Value::Object(keywords) = schema else {
            return false;
        };
        if let Some(Value::String(reference)) = keywords.get("$ref") {
            if self.path.contains(&&**reference) {
                return true;
            }
            if !self.done.contains(&&**reference) {
                self.path.push(reference);
                if self.follows(reference) {
                    return true;
                }
                self.path.pop();
                self.done.push(reference);
            }
        }
        let one = OF_ONE.iter().filter_map(|name| keywords.get(*name));
        let lists = OF_SEVERAL.iter().filter_map(|name| keywords.get(*name));
        let several = lists.filter_map(Value::as_array).flatten();
        let mut inner = one.chain(several);
        inner.any(|schema| self.is_on_a_circle(schema))
    }
}

/// The exclusive bound of a number that is an integer, where the other bound is less than 1 from it. The
/// engine allows that integer.
pub fn misread_bound(keywords: &Map<String, Value>) -> Option<&'static str> {
    if keywords.get("type").is_some_and(|kind| kind == "integer") {
        return None;
    }
    let bound = |name: &str| keywords.get(name).and_then(Value::as_f64);
    let tightest = |names: [&str; 2], pick: fn(f64, f64) -> f64| {
        names.into_iter().filter_map(bound).reduce(pick)
    };
    let is_integer = |it: &f64| it.fract() == 0.0;
    if let Some(low) = bound("exclusiveMinimum").filter(is_integer)
        && tightest(["maximum", "exclusiveMaximum"], f64::min).is_some_and(|high| high < low + 1.0)
    {
        return Some("exclusiveMinimum");
    }
    let high = bound("exclusiveMaximum").filter(is_integer)?;
    let low = tightest(["minimum", "exclusiveMinimum"], f64::max)?;
    (low > high - 1.0).then_some("exclusiveMaximum")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn circles_without_a_value_are_found() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"},
                "b": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}}}),
            json!({"$anchor": "a", "$ref": "#a"}),
            json!({"allOf": [{"$ref": "#b"}], "$defs": {"b": {"$anchor": "b", "not": {"$ref": "#"}}}}),
        ] {
            assert!(is_circular(&Places::of(&schema), "#"), "{schema}");
        }
        for schema in [
            json!({"properties": {"next": {"$ref": "#"}}}),
            json!({"anyOf": [{"type": "null"}, {"items": {"$ref": "#"}}]}),
            json!({"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {}}}),
            json!({"$ref": "#/nowhere"}),
            json!({"$ref": "#nowhere"}),
            json!({"$anchor": "a", "items": {"$ref": "#a"}}),
        ] {
            assert!(!is_circular(&Places::of(&schema), "#"), "{schema}");
        }
    }

    #[test]
    fn many_references_take_no_time() {
        let a = |n: usize| format!("#/$defs/a{n}");
        let defs: Map<_, _> = (0..200)
            .map(|n| {
                let both = json!([{"$ref": a(n + 1)}, {"$ref": a(n + 1)}]);
                (format!("a{n}"), json!({"allOf": both}))
            })
            .collect();
        let schema = json!({"$defs": defs});
        assert!(!is_circular(&Places::of(&schema), &a(0)));
    }

    #[test]
    fn bounds_that_the_engine_misreads_are_found() {
        let misread = |schema: Value| misread_bound(schema.as_object().expect("keywords"));
        for (schema, keyword) in [
            (
                json!({"exclusiveMinimum": 0, "maximum": 0.5}),
                Some("exclusiveMinimum"),
            ),
            (
                json!({"exclusiveMinimum": 5, "exclusiveMaximum": 5.5}),
                Some("exclusiveMinimum"),
            ),
            (
                json!({"minimum": -0.5, "exclusiveMaximum": 0}),
                Some("exclusiveMaximum"),
            ),
            (
                json!({"exclusiveMinimum": -1.5, "exclusiveMaximum": -1}),
                Some("exclusiveMaximum"),
            ),
            (json!({"exclusiveMinimum": 0, "maximum": 1}), None),
            (json!({"exclusiveMinimum": 0}), None),
            (json!({"exclusiveMinimum": 0.1, "maximum": 0.5}), None),
            (json!({"minimum": 0, "maximum": 0.5}), None),
            (
                json!({"type": "integer", "exclusiveMinimum": 0, "maximum": 0.5}),
                None,
            ),
        ] {
            assert_eq!(misread(schema.clone()), keyword, "{schema}");
        }
    }
}
