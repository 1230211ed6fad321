use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_str(json);
    T::deserialize(Numbers(&mut json)).map_err(|error| error.to_string())
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    Unit,
    Newtype(u8),
    Tuple(i16, f32),
    Struct { number: u64 },
}

#[derive(Debug, PartialEq, Deserialize)]
struct Nested {
    list: Vec<Option<i32>>,
    pair: (u32, i64),
    shapes: Vec<Shape>,
}

#[test]
fn a_whole_number_is_an_integer_wherever_it_stands() {
    let nested = read::<Nested>(
        r#"{"list":[1.0,null,-2e2],"pair":[3.0,-4.0],
                "shapes":["unit",{"newtype":5.0},{"tuple":[6.0,7]},{"struct":{"number":8.0}}]}"#,
    );
    let expected = Nested {
        list: vec![Some(1), None, Some(-200)],
        pair: (3, -4),
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(5),
            Shape::Tuple(6, 7.0),
            Shape::Struct { number: 8 },
        ],
    };
    assert_eq!(nested, Ok(expected));
    assert_eq!(read::<i64>("-0.0"), Ok(0));
    assert_eq!(read::<u64>("18446744073709551615"), Ok(u64::MAX));
    assert_eq!(read::<i128>("18446744073709551615"), Ok(u64::MAX.into()));
    assert_eq!(read::<i128>("-16.0"), Ok(-16));
}

#[test]
fn what_is_no_integer_or_does_not_fit_is_refused() {
    for bad in ["1.5", "\"1\"", "true", "null", "[1]", "{}"] {
        assert!(read::<i32>(bad).is_err(), "{bad}");
    }
    assert!(read::<u32>("-1.0").is_err());
    assert!(read::<u8>("256.0").is_err());
    for bad in ["1e20", "-1e40", "18446744073709551616"] {
        let error = read::<i64>(bad).unwrap_err();
        assert!(error.contains("invalid value: integer"), "{bad}: {error}");
    }
}

#[test]
fn no_number_becomes_infinite() {
    assert_eq!(
        read::<Vec<f32>>("[1, -2.5, 3.4e38]"),
        Ok(vec![1.0, -2.5, 3.4e38])
    );
    for bad in ["1e39", "-1e300"] {
        let error = read::<f32>(bad).unwrap_err();
        assert!(error.contains("32-bit"), "{bad}: {error}");
    }
    assert!(read::<f64>("1e999").is_err());
}

#[test]
fn what_asks_for_no_type_gets_the_number_as_it_is() {
    let value = read::<serde_json::Value>(r#"{"a":[16.0,1]}"#).unwrap();
    assert_eq!(value.to_string(), r#"{"a":[16.0,1]}"#);
    let raw = read::<Box<RawValue>>("[16.0 ]").unwrap();
    assert_eq!(raw.get(), "[16.0 ]");
}
