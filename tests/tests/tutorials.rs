//! The tutorials, done as a newcomer does them, in a copy of the sources: the templates build, run, and give results.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use killifish::images;
use killifish::scaffold::{self, Experiment};
use results::host::{Record, parse_runs};
use tests::places;

/// What is not copied: what was built or measured, and the history.
const LEFT_OUT: [&str; 4] = ["target", "results", ".git", "shared"];

/// The files below `directory`, as seen from it.
fn files(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(inside) = open.pop() {
        for entry in fs::read_dir(directory.join(&inside)).unwrap().map(Result::unwrap) {
            let path = inside.join(entry.file_name());
            match entry.file_type().unwrap() {
                kind if kind.is_dir() && LEFT_OUT.iter().any(|name| path == Path::new(name)) => {}
                kind if kind.is_dir() => open.push(path),
                kind if kind.is_file() => drop(found.insert(path)),
                // A link leads to what is no part of the sources.
                _ => {}
            }
        }
    }
    found
}

/// Makes `copy` the same as the sources. What is the same already is left alone, so that it is not built again.
fn copy_sources(sources: &Path, copy: &Path) {
    fs::create_dir_all(copy).unwrap();
    let wanted = files(sources);
    for file in files(copy).difference(&wanted) {
        fs::remove_file(copy.join(file)).unwrap();
    }
    for file in wanted {
        let (from, to) = (sources.join(&file), copy.join(&file));
        let bytes = fs::read(&from).unwrap();
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&from, &to).unwrap();
    }
}

/// Runs cargo there; what it printed.
fn cargo(tree: &Path, arguments: &str) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments.split_whitespace())
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", tree.with_file_name("build"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "cargo {arguments}: {text}\n{errors}");
    text.into_owned()
}

#[test]
fn a_newcomer_adds_a_benchmark_and_a_policy() {
    let sources = images::workspace().unwrap();
    let tree = sources.join("target/tutorials/tree");
    copy_sources(&sources, &tree);

    // What `new-bench` and `new-policy` do; by themselves they would be built three times.
    let added = scaffold::add(&tree, Experiment::Bench, "mine").unwrap();
    assert_eq!(added[0], Path::new("services/bench/src/bin/mine.rs"));
    let template = fs::read_to_string(tree.join(&added[0])).unwrap();
    assert!(template.lines().count() <= 40, "the tutorial promises about 30 lines");
    let added = scaffold::add(&tree, Experiment::Policy, "my-own").unwrap();
    assert_eq!(added[0], Path::new("skb/src/my_own.rs"));

    let tested = cargo(&tree, "test --quiet -p skb --lib my_own");
    assert!(tested.contains("1 passed"), "{tested}");

    let _place = places::one();
    let command = "run --quiet -- bench mine ump_pingpong --cpus 3 --numa 3 --policy my-own --samples 10";
    let text = cargo(&tree, &format!("{command} --quiet --json mine.jsonl"));
    for row in [" mine ", " signal ", " round_trip ", " my-own "] {
        assert!(text.contains(row), "no {row:?} in:\n{text}");
    }
    let runs = parse_runs(&fs::read_to_string(tree.join("mine.jsonl")).unwrap()).unwrap();
    let of = |bench: &str| -> Vec<&Record> { runs[0].records.iter().filter(|r| r.bench == bench).collect() };
    let metrics: Vec<&str> = of("mine").iter().map(|record| record.metric.as_str()).collect();
    assert_eq!(metrics, ["signal", "round_trip"]);
    assert!(of("mine").iter().all(|record| record.n == 10 && record.counts["kernel_entries"] >= 1));

    // All nodes are equally far, so one of the two sides is as near to both as can be, and the first is taken.
    let pairs = of("ump_pingpong");
    assert_eq!(pairs.len(), 3 * 2 * 3, "three metrics of six pairs");
    for record in pairs {
        let (src, dst) = (record.src_node.unwrap(), record.dst_node.unwrap());
        let homes = record.homes.as_ref().unwrap();
        assert_eq!(record.policy.as_deref(), Some("my-own"));
        assert_eq!([homes.forward.node, homes.backward.node], [src.min(dst); 2], "{record:?}");
    }
}
