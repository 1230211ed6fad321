//! What cargo-deny lets into the program is what the package's copyright file tells of it.

use std::fs;
use std::path::Path;

#[test]
fn every_licence_that_may_be_linked_is_in_the_copyright_file() {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
    let rules: toml::Table = read("deny.toml").unwrap().parse().unwrap();
    let rules = &rules["licenses"];
    let exceptions = rules["exceptions"].as_array().unwrap();
    let lists = exceptions.iter().chain([rules]);
    let allowed: Vec<&str> = lists
        .flat_map(|rule| rule["allow"].as_array().unwrap())
        .filter_map(toml::Value::as_str)
        .collect();
    assert!(allowed.len() >= 8, "{allowed:?}");
    let copyright = read("packaging/deb/rkllmd.copyright").unwrap();
    let text = copyright.split_whitespace().collect::<Vec<_>>().join(" ");
    for licence in allowed {
        assert!(text.contains(licence), "no {licence} in it");
    }
    for exception in exceptions {
        let of_whom = exception["crate"].as_str().unwrap();
        assert!(text.contains(of_whom), "no {of_whom} in it");
    }
}
