//! Schemas that are made at random. Each has room for so many bytes, which is about what its longest answers
//! take.

use fastrand::Rng;
use serde_json::{Map, Value, json};

const NAMES: [&str; 8] = ["id", "name", "kind", "é", "quote\"d", "x/y~z", "a b", "日"];
/// What a name takes with what stands around it.
const NAMED: usize = 16;
/// With less room there is one value, and no list or object.
const LEAST_ROOM: usize = 40;
/// A character may be written as `\u0000`.
const CHARACTER: usize = 8;
const LONGEST_TEXT: usize = 12;

/// A schema made at random, whose answers take at most about so many bytes; but for the decimals of numbers.
pub fn schema(random: &mut Rng, room: usize) -> Value {
    let it = value(random, room, 3);
    match random.u8(..6) {
        0 => json!({"$ref": "#/$defs/it", "$defs": {"it": it}}),
        1 => json!({"$ref": "#/definitions/it", "definitions": {"it": it}}),
        _ => it,
    }
}

fn value(random: &mut Rng, room: usize, depth: u32) -> Value {
    if depth == 0 || room < LEAST_ROOM {
        return scalar(random, room);
    }
    match random.u8(..8) {
        0..3 => object(random, room, depth),
        3 => {
            let most = random.usize(1..=3);
            let least = random.usize(..=most);
            let items = value(random, room / most, depth - 1);
            json!({"type": "array", "items": items, "minItems": least, "maxItems": most})
        }
        4 => {
            let [one, other] = [room / 2; 2].map(|room| value(random, room, depth - 1));
            let least = random.usize(..=2);
            json!({"type": "array", "prefixItems": [one, other], "items": false, "minItems": least})
        }
        5 => json!({"anyOf": [{"type": "null"}, value(random, room, depth - 1)]}),
        6 => json!({"oneOf": [integer(random), {"type": "boolean"}]}),
        _ => scalar(random, room),
    }
}

fn object(random: &mut Rng, room: usize, depth: u32) -> Value {
    let mut names = NAMES;
    random.shuffle(&mut names);
    let count = random.usize(1..=3);
    let each = (room / count).saturating_sub(NAMED);
    let properties: Map<String, Value> = names[..count]
        .iter()
        .map(|name| ((*name).to_owned(), value(random, each, depth - 1)))
        .collect();
    let required: Vec<&str> = names[..count]
        .iter()
        .copied()
        .filter(|_| random.u8(..4) > 0)
        .collect();
    let mut object = json!({"type": "object", "properties": properties, "required": required});
    if random.bool() {
        object["additionalProperties"] = json!(false);
    }
    object
}

fn integer(random: &mut Rng) -> Value {
    let least = random.i32(-1000..1000);
    json!({"type": "integer", "minimum": least, "maximum": least + random.i32(0..1000)})
}

fn scalar(random: &mut Rng, room: usize) -> Value {
    let values = [
        json!("red"),
        json!("a\nb"),
        json!("é"),
        json!("日本"),
        json!(7),
        json!(-1.5),
        json!(true),
        Value::Null,
    ];
    match random.u8(..9) {
        0 => json!({"type": ["boolean", "null"]}),
        1 => integer(random),
        2 => json!({"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 5}),
        3 => {
            let least = random.i32(-50..50);
            json!({"type": "number", "minimum": least, "maximum": least + random.i32(1..100)})
        }
        4 => {
            let most = random.usize(1..=(room / CHARACTER).clamp(1, LONGEST_TEXT));
            json!({"type": "string", "minLength": random.usize(..=most), "maxLength": most})
        }
        5 => {
            let patterns = [
                "^[A-Z]{2}-[0-9]{3}$",
                "^(on|off)$",
                "^[a-f0-9]{4}$",
                "^x?y{1,3}$",
            ];
            json!({"type": "string", "pattern": random.choice(patterns)})
        }
        6 => {
            let count = random.usize(1..=4);
            json!({"enum": random.choose_multiple(values, count)})
        }
        7 => json!({"const": random.choice(values)}),
        _ => {
            let format = if room < LEAST_ROOM { "ipv4" } else { "uuid" };
            json!({"type": "string", "format": format})
        }
    }
}
