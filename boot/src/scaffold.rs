//! `new-bench` and `new-policy`: what a first experiment needs, put into the source tree from a template.
//!
//! Each adds one file and the lines that make it known. The lines go to places that are found by what stands there,
//! so whoever moves them changes this module; a test of the whole does both tutorials.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The longest name: with `bench_` before it, it is a domain's.
const LONGEST: usize = 24;

/// Why nothing was added.
#[derive(Debug, Error)]
pub enum ScaffoldError {
    /// A name that cannot be one of a module.
    #[error(
        "{name:?} is no name for it: use up to {LONGEST} lower-case letters, digits and {separator:?}, a letter \
         first"
    )]
    Name {
        /// As given.
        name: String,
        /// What may stand between words.
        separator: char,
    },
    /// There is one of that name.
    #[error("{} is there already: choose another name", path.display())]
    Exists {
        /// Its file.
        path: PathBuf,
    },
    /// The sources are not as they were.
    #[error("{} has no {marker:?} after which the new line would go: add it by hand", path.display())]
    Marker {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        marker: &'static str,
    },
}

/// What is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experiment {
    /// A benchmark domain.
    Bench,
    /// A placement policy.
    Policy,
}

/// A line that makes the new file known.
struct Line {
    /// The file it goes to.
    path: &'static str,
    /// What stands before it.
    marker: &'static str,
    /// Where it goes, as seen from there.
    place: Place,
    /// The line or lines, each with its end.
    text: String,
}

/// Where a line goes.
#[derive(Clone, Copy)]
enum Place {
    /// Right behind the marker.
    Behind,
    /// Before the marker.
    Before,
    /// Before the next line that begins with this.
    BeforeNext(&'static str),
}

impl Experiment {
    /// What stands between the words of a name.
    const fn separator(self) -> char {
        match self {
            Self::Bench => '_',
            Self::Policy => '-',
        }
    }

    const fn template(self) -> &'static str {
        match self {
            Self::Bench => "templates/benchmark.rs",
            Self::Policy => "templates/policy.rs",
        }
    }

    /// The new file.
    fn file(self, name: &str) -> String {
        match self {
            Self::Bench => format!("services/bench/src/bin/{name}.rs"),
            Self::Policy => format!("skb/src/{}.rs", name.replace('-', "_")),
        }
    }

    fn lines(self, name: &str) -> Vec<Line> {
        match self {
            Self::Bench => vec![
                Line {
                    path: "services/bench/Cargo.toml",
                    marker: "\n[dependencies]\n",
                    place: Place::Before,
                    text: format!(
                        "\n[[bin]]\nname = \"bench_{name}\"\npath = \"src/bin/{name}.rs\"\ntest = false\nbench = false\n\
                         doc = false\n"
                    ),
                },
                Line {
                    path: "boot/results/src/anchors.rs",
                    marker: "pub const BENCHES: &[Bench] = &[\n",
                    place: Place::BeforeNext("];"),
                    text: format!("    Bench {{ name: \"{name}\", about: \"an experiment\", cores: 1 }},\n"),
                },
            ],
            Self::Policy => {
                let module = name.replace('-', "_");
                let variant = variant(name);
                vec![
                    Line {
                        path: "boot/info/src/command_line.rs",
                        marker: "pub const POLICIES: &[&str] = &[\n",
                        place: Place::BeforeNext("];"),
                        text: format!("    \"{name}\",\n"),
                    },
                    Line {
                        path: "skb/src/policy.rs",
                        marker: "\npolicies! {\n",
                        place: Place::BeforeNext("}"),
                        text: format!("    /// An experiment.\n    {variant} = CODE, \"{name}\";\n"),
                    },
                    Line {
                        path: "skb/src/lib.rs",
                        marker: "mod policy;\n",
                        place: Place::Before,
                        text: format!("mod {module};\n"),
                    },
                    Line {
                        path: "skb/src/place.rs",
                        marker: "Ok(match policy {\n",
                        place: Place::Behind,
                        text: format!(
                            "            Policy::{variant} => self.added(crate::{module}::place)?,\n"
                        ),
                    },
                ]
            }
        }
    }
}

/// `near-far` as a variant: `NearFar`.
fn variant(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    };
    name.split('-').map(word).collect()
}

/// Checks a name: of a module, of a domain, and of a word on the command line.
fn check(experiment: Experiment, name: &str) -> Result<(), ScaffoldError> {
    let separator = experiment.separator();
    let of_words = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == separator;
    let words = name.split(separator).all(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
    if words && name.len() <= LONGEST && name.chars().all(of_words) {
        Ok(())
    } else {
        Err(ScaffoldError::Name { name: name.to_owned(), separator })
    }
}

impl Line {
    /// The text of the file with the line in it.
    fn insert(&self, text: &str) -> Result<String, ScaffoldError> {
        let missing = || ScaffoldError::Marker { path: PathBuf::from(self.path), marker: self.marker };
        let marker = text.find(self.marker).ok_or_else(missing)?;
        let behind = marker + self.marker.len();
        let at = match self.place {
            Place::Behind => behind,
            Place::Before => marker,
            Place::BeforeNext(start) => {
                let next = text[behind..].find(&format!("\n{start}")).ok_or_else(missing)?;
                behind + next + 1
            }
        };
        let (before, after) = text.split_at(at);
        // A new policy's number is one above those of all others.
        let code = before[behind.min(before.len())..].matches(" = ").count();
        Ok(format!("{before}{}{after}", self.text.replace("CODE", &code.to_string())))
    }
}

/// Adds an experiment called `name` to the source tree at `workspace`; the files that were written, the new one
/// first.
///
/// # Errors
/// The name is taken or cannot be one, or a file cannot be read or written.
pub fn add(workspace: &Path, experiment: Experiment, name: &str) -> crate::Result<Vec<PathBuf>> {
    check(experiment, name)?;
    let read = |path: &Path| {
        let whole = workspace.join(path);
        fs::read_to_string(&whole).map_err(|source| crate::Error::read(&whole, source))
    };
    let file = PathBuf::from(experiment.file(name));
    if workspace.join(&file).exists() {
        return Err(ScaffoldError::Exists { path: file }.into());
    }
    let template = read(Path::new(experiment.template()))?;
    let mut files = vec![(file, template.replace("NAME", name))];
    for line in experiment.lines(name) {
        let path = PathBuf::from(line.path);
        let text = line.insert(&read(&path)?)?;
        files.push((path, text));
    }
    // Everything was found: now write.
    for (path, text) in &files {
        let whole = workspace.join(path);
        fs::write(&whole, text).map_err(|e| crate::Error::write(crate::error::Purpose::Build, &whole, e))?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_modules_and_words() {
        for name in ["mine", "near_far", "a1_b2"] {
            assert!(check(Experiment::Bench, name).is_ok(), "{name}");
        }
        assert!(check(Experiment::Policy, "near-far").is_ok());
        for name in
            ["", "Mine", "1st", "a b", "near-far", "_x", "x_", "a__b", "../x", "abcdefghijklmnopqrstuvwxy"]
        {
            assert!(check(Experiment::Bench, name).is_err(), "{name}");
        }
        assert_eq!(
            check(Experiment::Policy, "near_far").unwrap_err().to_string(),
            "\"near_far\" is no name for it: use up to 24 lower-case letters, digits and '-', a letter first"
        );
        assert_eq!(variant("near-far"), "NearFar");
    }

    #[test]
    fn lines_go_where_the_others_are() {
        let line = |place, marker| Line { path: "f", marker, place, text: "    C = CODE;\n".into() };
        let text = "list {\n    A = 0;\n    B = 1;\n}\nlist {\n}\n";
        assert_eq!(
            line(Place::BeforeNext("}"), "list {\n").insert(text).unwrap(),
            "list {\n    A = 0;\n    B = 1;\n    C = 2;\n}\nlist {\n}\n"
        );
        assert!(
            line(Place::Behind, "list {\n").insert(text).unwrap().starts_with("list {\n    C = 0;\n    A")
        );
        assert!(line(Place::Before, "list {\n").insert(text).unwrap().starts_with("    C = 0;\nlist {\n"));
        assert_eq!(
            line(Place::Behind, "nothing").insert(text).unwrap_err().to_string(),
            "f has no \"nothing\" after which the new line would go: add it by hand"
        );
    }

    #[test]
    fn nothing_is_written_where_something_is_in_the_way() {
        let workspace = crate::images::workspace().unwrap();
        let error = add(&workspace, Experiment::Bench, "syscall").unwrap_err();
        assert_eq!(
            error.to_string(),
            "services/bench/src/bin/syscall.rs is there already: choose another name"
        );
        assert_eq!(error.exit(), results::HostExit::Usage);
    }

    /// The places are there in the sources as they are.
    #[test]
    fn every_line_has_its_place() {
        let workspace = crate::images::workspace().unwrap();
        for experiment in [Experiment::Bench, Experiment::Policy] {
            assert!(workspace.join(experiment.template()).is_file());
            for line in experiment.lines("mine") {
                let text = fs::read_to_string(workspace.join(line.path)).unwrap();
                assert!(line.insert(&text).is_ok_and(|new| new.len() > text.len()), "{}", line.path);
            }
        }
    }
}
