//! The facts, read back, and the comparison of a family with them.

use super::described::Described;
use rkllm_sys::Family;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn facts(family: &str) -> Value {
    let text = include_str!("../../data/abi-facts.json");
    let mut facts: Value = serde_json::from_str(text).expect("the facts are JSON");
    facts["families"][family].take()
}

/// The facts' structs without the C names of the fields' types.
fn measured_structs(facts: &Value) -> BTreeMap<String, Value> {
    let structs = facts["structs"].as_object().expect("structs");
    structs
        .iter()
        .map(|(name, measured)| {
            let mut measured = measured.clone();
            for field in measured["fields"]
                .as_object_mut()
                .expect("fields")
                .values_mut()
            {
                *field = json!([field[0], field[1]]);
            }
            (name.clone(), measured)
        })
        .collect()
}

/// Parameters and result of a C declaration such as `int f(A a, B* b)`, or of a typedef of a
/// pointer to such a function.
pub fn measured_signature(declaration: &str) -> (usize, String) {
    let parameters = declaration
        .rsplit_once('(')
        .map(|(_, rest)| rest.trim_end_matches([';', ')']).trim())
        .expect("a parameter list");
    let count = if parameters.is_empty() {
        0
    } else {
        parameters.split(',').count()
    };
    let returns = declaration.trim_start_matches("typedef ");
    let end = returns.find([' ', '(']).expect("a result");
    (count, returns[..end].to_owned())
}

pub fn check(fact_name: &str, family: Family, described: &Described) {
    let facts = facts(fact_name);

    let versions: Vec<&str> = facts["versions"]
        .as_object()
        .expect("versions")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(versions, family.versions(), "{fact_name}");

    let measured = measured_structs(&facts);
    assert_eq!(
        described.structs.keys().collect::<Vec<_>>(),
        measured.keys().collect::<Vec<_>>(),
        "{fact_name}: the structs there are"
    );
    for (name, ours) in &described.structs {
        assert_eq!(ours, &measured[*name], "{fact_name}: {name}");
    }

    let enums = facts["enums"].as_object().expect("enums");
    assert_eq!(described.enums.len(), enums.len(), "{fact_name}");
    for (name, ours) in &described.enums {
        assert_eq!(ours, &enums[*name], "{fact_name}: {name}");
    }

    let functions = facts["functions"].as_object().expect("functions");
    let mut listed = family.functions().to_vec();
    let mut present: Vec<&str> = functions.keys().map(String::as_str).collect();
    listed.sort_unstable();
    present.sort_unstable();
    assert_eq!(listed, present, "{fact_name}: the functions there are");

    let callbacks = facts["callbacks"].as_object().expect("callbacks");
    assert_eq!(
        described.signatures.len(),
        functions.len() + callbacks.len(),
        "{fact_name}"
    );
    for (name, ours) in &described.signatures {
        let declaration = functions
            .get(*name)
            .or_else(|| callbacks.get(*name))
            .and_then(Value::as_str)
            .expect("a function or callback of the facts");
        let (parameters, returns) = measured_signature(declaration);
        assert_eq!(
            (ours.parameters, ours.returns),
            (parameters, returns.as_str()),
            "{fact_name}: {declaration}"
        );
    }
}
