use std::collections::BTreeSet;

use super::*;

#[test]
fn a_wait_is_never_announced_shorter_than_it_is() {
    assert_eq!(whole_seconds(Duration::ZERO), 1);
    assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
    assert_eq!(whole_seconds(Duration::from_millis(3001)), 4);
}

#[test]
fn the_list_of_errors_has_every_kind_with_its_status() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
    let document = std::fs::read_to_string(document).expect("the list of errors");
    let mut listed = BTreeSet::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, statuses, code, when, _] = cells[..]
            && statuses.starts_with(char::is_numeric)
        {
            assert!(!when.is_empty(), "{line}");
            for status in statuses.split(", ") {
                let is_new = listed.insert((status.to_owned(), code.trim_matches('`')));
                assert!(is_new, "{line} is there twice");
            }
        }
    }
    let kinds: BTreeSet<_> = KINDS
        .iter()
        .map(|kind| (kind.status.as_str().to_owned(), kind.code))
        .collect();
    assert_eq!(listed, kinds);
}
