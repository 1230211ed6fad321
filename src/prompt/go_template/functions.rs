//! The functions of Go's templates, and those that Ollama adds, but for what writes HTML and URLs.

use std::cmp::Ordering;
use std::ops::Range;

use super::built::{Budget, Built};
use super::printf::printf;
use super::run::Fault;
use super::value::{Kind, List, Map, Value};

macro_rules! functions {
    ($($function:ident $name:literal),* $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Function {
            $($function),*
        }

        impl Function {
            const NAMES: &'static [(&'static str, Function)] = &[$(($name, Function::$function)),*];
        }
    };
}

functions! {
    And "and",
    Or "or",
    Not "not",
    Eq "eq",
    Ne "ne",
    Lt "lt",
    Le "le",
    Gt "gt",
    Ge "ge",
    Len "len",
    Index "index",
    Slice "slice",
    Print "print",
    Println "println",
    Printf "printf",
    Json "json",
    CurrentDate "currentDate",
    YesterdayDate "yesterdayDate",
    TypeScriptType "toTypeScriptType",
}

impl Function {
    pub fn named(name: &str) -> Option<Self> {
        let mut names = Self::NAMES.iter();
        names.find(|(known, _)| *known == name).map(|it| it.1)
    }

    /// All names, for who asks for another one.
    pub fn all() -> String {
        let names: Vec<String> = Self::NAMES.iter().map(|it| format!("`{}`", it.0)).collect();
        names.join(", ")
    }

    fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        names.find(|it| it.1 == self).map_or("", |it| it.0)
    }
}

/// Bytes that looking something up in it takes.
pub(super) fn looked_through(value: &Value) -> usize {
    match value {
        Value::Map(map) => size_of_val(map.members.as_slice()),
        Value::List(list) => size_of_val(list.items()),
        _ => 0,
    }
}

pub(super) fn call(
    function: Function,
    given: &[Value],
    budget: &mut Budget,
    today: jiff::civil::Date,
) -> Result<Value, Fault> {
    let wrong = || {
        let name = function.name();
        Fault::Problem(format!("`{name}` is given too few values, or too many"))
    };
    Ok(match (function, given) {
        (Function::And | Function::Or, [.., last]) => last.clone(),
        (Function::Not, [value]) => Value::Bool(!value.is_true()),
        (Function::Eq, [value, others @ ..]) if !others.is_empty() => {
            for other in others {
                if is_equal(value, other, budget)? {
                    return Ok(Value::Bool(true));
                }
            }
            Value::Bool(false)
        }
        (Function::Ne, [one, other]) => Value::Bool(!is_equal(one, other, budget)?),
        (Function::Lt, [one, other]) => Value::Bool(order(one, other, budget)?.is_lt()),
        (Function::Le, [one, other]) => Value::Bool(order(one, other, budget)?.is_le()),
        (Function::Gt, [one, other]) => Value::Bool(order(one, other, budget)?.is_gt()),
        (Function::Ge, [one, other]) => Value::Bool(order(one, other, budget)?.is_ge()),
        (Function::Len, [value]) => length(value)?,
        (Function::Index, [of, places @ ..]) => {
            let mut value = of.clone();
            for place in places {
                budget.step(looked_through(&value))?;
                value = index(&value, place)?;
            }
            value
        }
        (Function::Slice, [of, places @ ..]) if places.len() <= 3 => slice(of, places, budget)?,
        (Function::Print, values) => printed(values, false, budget)?,
        (Function::Println, values) => printed(values, true, budget)?,
        (Function::Printf, [Value::Text(form), values @ ..]) => printf(form, values, budget)?,
        (Function::Printf, [_, ..]) => {
            return Err(Fault::problem("what `printf` is given first is no text"));
        }
        (Function::Json, [value]) => {
            let mut built = Built::new(budget);
            value.json(&mut built)?;
            built.done()
        }
        (Function::CurrentDate, _) => Value::of_client(today.to_string()),
        (Function::YesterdayDate, _) => {
            Value::of_client(today.yesterday().unwrap_or(today).to_string())
        }
        (Function::TypeScriptType, [value]) => {
            let mut built = Built::new(budget);
            type_script(value, &mut built, 0)?;
            built.done()
        }
        _ => return Err(wrong()),
    })
}

/// A value as it is written.
pub(super) fn print(budget: &mut Budget, value: &Value) -> Result<Value, Fault> {
    let mut built = Built::new(budget);
    value.write(&mut built)?;
    Ok(built.done())
}

/// With a space between values, of which `print` has none beside a text.
fn printed(values: &[Value], is_line: bool, budget: &mut Budget) -> Result<Value, Fault> {
    let mut built = Built::new(budget);
    let mut before: Option<&Value> = None;
    for value in values {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        if before.is_some_and(|before| is_line || !(is_text(before) || is_text(value))) {
            built.plain(" ")?;
        }
        value.write(&mut built)?;
        before = Some(value);
    }
    if is_line {
        built.plain("\n")?;
    }
    Ok(built.done())
}

fn unlike(one: &Value, other: &Value) -> Fault {
    Fault::Problem(format!(
        "{} is not compared with {}",
        one.kind(),
        other.kind()
    ))
}

fn is_equal(one: &Value, other: &Value, budget: &mut Budget) -> Result<bool, Fault> {
    match (one, other) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        (Value::Bool(one), Value::Bool(other)) => Ok(one == other),
        _ => order(one, other, budget).map(Ordering::is_eq),
    }
}

fn order(one: &Value, other: &Value, budget: &mut Budget) -> Result<Ordering, Fault> {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => Ok(one.cmp(other)),
        (Value::Float(one), Value::Float(other)) => Ok(one.total_cmp(other)),
        (Value::Text(one), Value::Text(other)) => {
            budget.step(one.text.len().min(other.text.len()))?;
            Ok(one.text.cmp(&other.text))
        }
        _ => Err(unlike(one, other)),
    }
}

fn length(value: &Value) -> Result<Value, Fault> {
    let length = match value {
        Value::Text(text) => text.text.len(),
        Value::List(list) => list.range.len(),
        Value::Map(map) if map.kind == Kind::Map => map.members.len(),
        other => {
            let problem = format!("{} has no length", other.kind());
            return Err(Fault::Problem(problem));
        }
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(of: &Value, place: &Value) -> Result<Value, Fault> {
    let nth = |length: usize| {
        let nth = match place {
            Value::Int(nth) => usize::try_from(*nth).ok(),
            _ => None,
        };
        nth.filter(|nth| *nth < length)
            .ok_or_else(|| Fault::problem("what `index` is asked for lies outside"))
    };
    match (of, place) {
        (Value::List(list), _) => Ok(list.items()[nth(list.range.len())?].clone()),
        (Value::Text(text), _) => {
            let byte = text.text.as_bytes()[nth(text.text.len())?];
            Ok(Value::Int(i64::from(byte)))
        }
        (Value::Map(map), Value::Text(key)) if map.kind == Kind::Map => {
            Ok(map.get(&key.text).cloned().unwrap_or(Value::Nil))
        }
        (of, _) => Err(Fault::Problem(format!(
            "`index` finds nothing by {} in {}",
            place.kind(),
            of.kind()
        ))),
    }
}

fn slice(of: &Value, places: &[Value], budget: &mut Budget) -> Result<Value, Fault> {
    let within = |length: usize| -> Result<Range<usize>, Fault> {
        let mut ends = [0, length, length];
        for (end, place) in ends.iter_mut().zip(places) {
            let place = match place {
                Value::Int(place) => usize::try_from(*place).ok(),
                _ => None,
            };
            *end = place.unwrap_or(usize::MAX);
        }
        let [start, end, most] = ends;
        match start <= end && end <= most && most <= length {
            true => Ok(start..end),
            false => Err(Fault::problem("what `slice` is asked for lies outside")),
        }
    };
    match of {
        Value::List(list) => {
            let part = within(list.range.len())?;
            let start = list.range.start;
            Ok(Value::List(List {
                range: start + part.start..start + part.end,
                ..list.clone()
            }))
        }
        Value::Text(text) if places.len() < 3 => {
            let part = within(text.text.len())?;
            let taken = part.len().saturating_add(size_of_val(&*text.own));
            budget.make(taken)?;
            budget.step(taken)?;
            let part = text.part(part);
            let part = part.ok_or_else(|| Fault::problem("`slice` cuts through a character"))?;
            Ok(Value::Text(part))
        }
        other => Err(Fault::Problem(format!(
            "`slice` does not cut {}",
            other.kind()
        ))),
    }
}

/// What a value that a schema describes is in TypeScript.
fn type_script(of: &Value, to: &mut Built<'_>, depth: usize) -> Result<(), Fault> {
    let Value::Map(map) = of else {
        return to.plain("any");
    };
    let listed = |name: &str| match map.get(name) {
        Some(Value::List(list)) => list.items().to_vec(),
        Some(value @ Value::Text(_)) => vec![value.clone()],
        _ => Vec::new(),
    };
    let any_of = listed(if is_schema(map) { "AnyOf" } else { "anyOf" });
    let types = listed(if is_schema(map) { "Type" } else { "type" });
    to.budget.step(looked_through(of))?;
    if !any_of.is_empty() && depth < 100 {
        for (nth, one) in any_of.iter().enumerate() {
            to.plain(if nth > 0 { " | " } else { "" })?;
            type_script(one, to, depth + 1)?;
        }
        return Ok(());
    }
    if types.is_empty() {
        return to.plain("any");
    }
    for (nth, one) in types.iter().enumerate() {
        to.plain(if nth > 0 { " | " } else { "" })?;
        let name = match one {
            Value::Text(name) => &*name.text,
            _ => "",
        };
        to.plain(match name {
            "string" => "string",
            "number" | "integer" => "number",
            "boolean" => "boolean",
            "array" => "any[]",
            "object" => "Record<string, any>",
            "null" => "null",
            _ => "any",
        })?;
    }
    Ok(())
}

fn is_schema(map: &Map) -> bool {
    map.kind == Kind::Record
}
