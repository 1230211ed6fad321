//! Turns the measured facts about the vendor's ABI into tables of offsets. The fake must not know
//! a layout from rkllm-sys: the two would then be wrong together.

use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

const FACTS: &str = "../../../rkllm-sys/tests/data/abi-facts.json";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={FACTS}");
    let text = fs::read_to_string(FACTS).expect("the facts beside rkllm-sys");
    let facts: Value = serde_json::from_str(&text).expect("the facts are JSON");
    let mut code = String::new();
    for (family, facts) in object(&facts["families"]) {
        write_layout(&mut code, family, facts);
    }
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("layouts.rs"), code).expect("written");
}

fn write_layout(code: &mut String, family: &str, facts: &Value) {
    let callback = facts["callbacks"]["LLMResultCallback"]
        .as_str()
        .expect("a callback signature");
    let init = facts["functions"]["rkllm_init"]
        .as_str()
        .expect("a signature of rkllm_init");
    let param_bytes = &facts["structs"]["RKLLMParam"]["size"];
    writeln!(
        code,
        "pub const {}: Layout = Layout {{ family: \"{family}\", param_bytes: {param_bytes}, \
         callback_returns_int: {}, init_takes_callback_struct: {}, structs: &[",
        family.to_uppercase(),
        callback.contains("typedef int"),
        init.contains("RKLLMCallback*"),
    )
    .expect("a string takes all");
    for (name, facts) in object(&facts["structs"]) {
        let size = &facts["size"];
        write!(
            code,
            "Struct {{ name: \"{name}\", bytes: {size}, fields: &["
        )
        .expect("a string takes all");
        for (field, fact) in object(&facts["fields"]) {
            write!(code, "(\"{field}\", {}), ", fact[0]).expect("a string takes all");
        }
        writeln!(code, "] }},").expect("a string takes all");
    }
    writeln!(code, "] }};").expect("a string takes all");
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().expect("an object").iter()
}
