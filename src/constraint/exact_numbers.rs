//! The engine reads numbers as floats of 64 bits, which have not every integer beyond 2^53.

use serde_json::Value;

const EXACT: u64 = 1 << 53;

pub fn has_inexact_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let size = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            size.is_some_and(|size| size > EXACT)
        }
        Value::Array(values) => values.iter().any(has_inexact_number),
        Value::Object(members) => members.values().any(has_inexact_number),
        _ => false,
    }
}

/// A bound that is read exactly and allows nothing that `bound` forbids, such as for what all integers of 64 bits
/// are. `None`: it is read exactly, or there is none.
pub fn narrowed(keyword: &str, bound: &Value) -> Option<Value> {
    if !bound.is_number() || !has_inexact_number(bound) {
        return None;
    }
    let is_above = bound.as_f64().is_some_and(|bound| bound > 0.0);
    match keyword {
        "maximum" | "exclusiveMaximum" if is_above => Some(EXACT.into()),
        "minimum" | "exclusiveMinimum" if !is_above => Some((-EXACT.cast_signed()).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bounds_of_whole_types_become_exact_ones() {
        for (keyword, bound, expected) in [
            (
                "minimum",
                json!(i64::MIN),
                Some(json!(-9_007_199_254_740_992_i64)),
            ),
            (
                "maximum",
                json!(i64::MAX),
                Some(json!(9_007_199_254_740_992_i64)),
            ),
            (
                "exclusiveMaximum",
                json!(u64::MAX),
                Some(json!(9_007_199_254_740_992_i64)),
            ),
            ("maximum", json!(9_007_199_254_740_991_i64), None),
            ("maximum", json!(100), None),
            // Nothing exact is allowed by these.
            ("maximum", json!(i64::MIN), None),
            ("minimum", json!(u64::MAX), None),
            ("multipleOf", json!(u64::MAX), None),
            ("minimum", json!("1"), None),
        ] {
            assert_eq!(narrowed(keyword, &bound), expected, "{keyword} {bound}");
        }
    }
}
