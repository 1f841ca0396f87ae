//! A results file: runs, each a header and what was measured.

use std::fmt;

use serde_json::Value as Json;

use super::{Header, Line, LineError, Record};

/// One run of the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What was run, and on what.
    pub header: Header,
    /// What was measured, in the order of the file.
    pub records: Vec<Record>,
}

/// Why a file is not one of results.
#[derive(Debug)]
pub enum FileError {
    /// There is nothing in it.
    Empty,
    /// The first line is not a header.
    NoHeader,
    /// The last line has no end, and is no whole JSON object: writing was cut off.
    CutOff {
        /// Its number, from 1.
        line: usize,
    },
    /// A line is wrong.
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        error: LineError,
    },
    /// A result that contradicts the header above it.
    Contradiction {
        /// Its line's number, from 1.
        line: usize,
        /// The field.
        field: &'static str,
        /// What the result says.
        result: String,
        /// What the header says.
        header: String,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the file is empty"),
            Self::NoHeader => f.write_str("line 1 is not the header of a run: is this a file of results?"),
            Self::CutOff { line } => write!(f, "line {line} is cut off: was the run interrupted?"),
            Self::Line { line, error } => write!(f, "line {line}: {error}"),
            Self::Contradiction { line, field, result, header } => {
                write!(f, "line {line}: field `{field}` is {result}, but {header} in the header above")
            }
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Line { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Reads the text of a results file: at least one run.
///
/// # Errors
/// Says which line is wrong, and how.
pub fn parse_runs(text: &str) -> Result<Vec<Run>, FileError> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, text) in text.split_inclusive('\n').enumerate() {
        let line = index + 1;
        let wrong = |error| FileError::Line { line, error };
        let is_header = match serde_json::from_str::<Json>(text) {
            Ok(value) => value["type"] == "header",
            Err(error) if error.is_eof() && text.starts_with('{') && !text.ends_with('\n') => {
                return Err(FileError::CutOff { line });
            }
            Err(_) => false,
        };
        if is_header {
            runs.push(Run { header: Header::parse(text).map_err(wrong)?, records: Vec::new() });
            continue;
        }
        // Anything at all may have been named as a file of results.
        let run = runs.last_mut().ok_or(FileError::NoHeader)?;
        match Line::parse(text).map_err(wrong)? {
            Line::Result(record) => {
                agree(&run.header, &record, line)?;
                run.records.push(*record);
            }
            Line::Event(_) => {}
        }
    }
    if runs.is_empty() { Err(FileError::Empty) } else { Ok(runs) }
}

/// Checks that a result is of the machine that the header describes.
fn agree(header: &Header, record: &Record, line: usize) -> Result<(), FileError> {
    let equal = |field, result: String, header: String| {
        if result == header { Ok(()) } else { Err(FileError::Contradiction { line, field, result, header }) }
    };
    equal("accel", record.accel.to_string(), header.accel.to_string())?;
    equal("cores", record.cores.to_string(), header.topology.cores.to_string())?;
    equal("seed", record.seed.to_string(), header.seed.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::header;
    use super::*;

    const RESULT: &str = r#"{"type":"result","bench":"b","metric":"m","cores":8,"nodes":2,"accel":"icount","layer":"counts","n":1,"counts":{},"seed":1}"#;

    fn head() -> String {
        serde_json::to_string(&header()).unwrap()
    }

    #[test]
    fn a_file_has_runs() {
        let head = head();
        let runs = parse_runs(&format!("{head}\n{RESULT}\n{RESULT}\n{head}\n{RESULT}")).unwrap();
        let lengths: Vec<usize> = runs.iter().map(|run| run.records.len()).collect();
        assert_eq!(lengths, [2, 1]);
        assert_eq!(runs[1].header, header());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        let head = head();
        let says = |text: &str| parse_runs(text).unwrap_err().to_string();
        assert_eq!(says(""), "the file is empty");
        assert_eq!(says("hello\n"), "line 1 is not the header of a run: is this a file of results?");
        assert_eq!(says("[1]\n"), "line 1 is not the header of a run: is this a file of results?");
        assert_eq!(
            says(&format!("{RESULT}\n{head}\n")),
            "line 1 is not the header of a run: is this a file of results?"
        );
        assert_eq!(says(&head[..40]), "line 1 is cut off: was the run interrupted?");
        let cut = &RESULT[..RESULT.len() - 9];
        assert_eq!(says(&format!("{head}\n{RESULT}\n{cut}")), "line 3 is cut off: was the run interrupted?");
        assert!(
            says(&format!("{head}\n{cut}\n{RESULT}\n")).starts_with("line 2: not a line of results: EOF")
        );
        assert_eq!(
            says(&head.replace(r#""schema":2"#, r#""schema":1"#)),
            "line 1: these results have schema version 1, this program reads 2"
        );
        let metric = RESULT.replace(r#""metric":"m","#, "");
        assert_eq!(
            says(&format!("{head}\n{metric}\n")),
            format!("line 2: not a line of results: field `metric` is missing: {metric:?}")
        );
        let other = RESULT.replace(r#""cores":8"#, r#""cores":4"#);
        assert_eq!(
            says(&format!("{head}\n{other}\n")),
            "line 2: field `cores` is 4, but 8 in the header above"
        );
    }
}
