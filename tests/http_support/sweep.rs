//! Every field of a body with every kind of value.

use serde_json::{Value, json};

/// Neutral ones, empty ones, and ones of every type that a field may not have.
pub fn odd_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("\u{0}"),
        json!([]),
        json!([null]),
        json!([[]]),
        json!({}),
        json!({"x": null}),
    ]
}

/// Pointers of all values inside a value.
pub fn places(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, places: &mut Vec<String>) {
        let members: Vec<(String, &Value)> = match value {
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.clone(), value))
                .collect(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(i, value)| (i.to_string(), value))
                .collect(),
            _ => Vec::new(),
        };
        for (name, value) in members {
            let at = format!("{at}/{name}");
            walk(value, &at, places);
            places.push(at);
        }
    }
    let mut places = Vec::new();
    walk(value, "", &mut places);
    places
}

/// The same with another value at a place, or none.
pub fn with(whole: &Value, place: &str, value: Option<&Value>) -> Value {
    let mut whole = whole.clone();
    match value {
        Some(value) => *whole.pointer_mut(place).expect("a place") = value.clone(),
        None => {
            let (parent, name) = place.rsplit_once('/').expect("a pointer");
            match whole.pointer_mut(parent).expect("a place") {
                Value::Object(fields) => drop(fields.remove(name)),
                Value::Array(items) => drop(items.remove(name.parse().expect("an index"))),
                _ => unreachable!("it has members"),
            }
        }
    }
    whole
}
