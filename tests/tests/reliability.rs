//! `doc/reliability.md` names tests and checks that are there.

use std::collections::BTreeMap;

/// The names in a text of the form `` `FILE#NAME` ``.
fn named(text: &str) -> Vec<(&str, &str)> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.split_once('#')).filter(|(file, _)| file.ends_with(".rs")).collect()
}

#[test]
fn every_test_that_the_document_names_exists() {
    let root = killifish::images::workspace().unwrap();
    let text = std::fs::read_to_string(root.join("doc/reliability.md")).unwrap();
    let named = named(&text);
    assert!(named.len() > 50, "{named:?}");
    let mut files = BTreeMap::new();
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(file, name)| {
            let source = files.entry(*file).or_insert_with(|| std::fs::read_to_string(root.join(file)));
            !source.as_ref().is_ok_and(|source| source.contains(name))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_interface_row_has_a_test() {
    let root = killifish::images::workspace().unwrap();
    let text = std::fs::read_to_string(root.join("doc/reliability.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| interface"));
    for row in rows {
        assert!(!named(row).is_empty(), "{row}");
    }
}
