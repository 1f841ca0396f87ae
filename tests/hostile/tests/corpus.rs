//! Every input that the fuzzer found worth keeping, through the same function again, without the fuzzer.

use hostile::TARGETS;
use std::path::Path;

/// Files and bytes that a corpus may have, so that this stays quick and a clone small.
const FILES_MAX: usize = 200;
const BYTES_MAX: usize = 200 << 10;

/// Names the file if the input breaks a promise.
struct Report<'a>(&'a Path);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with the input {}", self.0.display());
        }
    }
}

#[test]
fn the_kept_corpora_of_the_fuzz_targets_hold() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in TARGETS {
        let folder = corpora.join(target.name);
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: no corpus for {}: {e}", folder.display(), target.name));
        let (mut files, mut bytes) = (0, 0);
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            let input = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let _report = Report(&path);
            (target.run)(&input);
            (files, bytes) = (files + 1, bytes + input.len());
        }
        let name = target.name;
        assert!(files > 0, "the corpus of {name} is empty");
        assert!(files <= FILES_MAX && bytes <= BYTES_MAX, "{name}: {files} files of {bytes} bytes");
    }
}
