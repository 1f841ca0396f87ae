//! The results file: JSON lines, one header per run and then what the guest measured.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use results::host::{Header, Line};
use serde::Serialize;

use crate::error::Purpose;
use crate::{Error, Result};

/// The directory of results where no file is named, below the current one.
pub const DIRECTORY: &str = "results";

/// A moment in UTC, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    seconds: u64,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { seconds: since.as_secs() }
    }

    /// Year, month, day, hour, minute, second in the Gregorian calendar.
    fn civil(self) -> [u64; 6] {
        let (days, second) = (self.seconds / 86400, self.seconds % 86400);
        // Count years from a March, so that the leap day is a year's last.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let day = day - (153 * from_march + 2) / 5 + 1;
        [year, month, day, second / 3600, second / 60 % 60, second % 60]
    }

    /// As in RFC 3339: `2026-01-02T03:04:05Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let [year, month, day, hour, minute, second] = self.civil();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// For a file's name: `20260102T030405Z`.
    #[must_use]
    pub fn compact(self) -> String {
        self.rfc3339().replace(['-', ':'], "")
    }
}

/// A results file being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Whether a measurement was written.
    measured: bool,
    /// Whether we chose the file's name.
    ours: bool,
}

/// Creates `directory/name.jsonl`, or `name-2.jsonl` and so on where another run of the same second was first.
fn create_new(directory: &Path, name: &str) -> (PathBuf, io::Result<File>) {
    let mut number = 1u64;
    loop {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let path = directory.join(format!("{name}{suffix}.jsonl"));
        match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            file => return (path, file),
        }
    }
}

impl Journal {
    /// Creates the file: `path`, or one in [`DIRECTORY`] named after the moment and the seed. It is created before
    /// the run, so that a run whose results could not be kept does not begin.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(path: Option<&Path>, moment: Moment, seed: u64) -> Result<Self> {
        let ours = path.is_none();
        let (path, file) = match path {
            Some(path) => (path.to_owned(), File::create(path)),
            None => {
                let directory = Path::new(DIRECTORY);
                std::fs::create_dir_all(directory)
                    .map_err(|e| Error::write(Purpose::Results, directory, e))?;
                create_new(directory, &format!("{}-{seed}", moment.compact()))
            }
        };
        let file = file.map_err(|e| Error::write(Purpose::Results, &path, e))?;
        Ok(Self { path, file, measured: false, ours })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the header of a run.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn header(&mut self, header: &Header) -> Result<()> {
        self.write(header)
    }

    /// Writes a line of the guest: measurements are kept, events are not.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn line(&mut self, line: &Line) -> Result<()> {
        match line {
            Line::Result(_) => {
                self.measured = true;
                self.write(line)
            }
            Line::Event(_) => Ok(()),
        }
    }

    /// Takes a file of ours back in which there is no measurement, because the run failed before.
    pub fn discard_if_empty(self) {
        if self.ours && !self.measured {
            // Left behind it would only be a file with a header.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    fn write(&mut self, value: &impl Serialize) -> Result<()> {
        let written = serde_json::to_vec(value).map_err(std::io::Error::from).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.file.write_all(&bytes)
        });
        written.map_err(|source| Error::write(Purpose::Results, &self.path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_printed_in_the_gregorian_calendar() {
        // From `date --utc --date @N +%FT%TZ`.
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in table {
            assert_eq!(Moment { seconds }.rfc3339(), text);
        }
        assert_eq!(Moment { seconds: 951_782_399 }.compact(), "20000228T235959Z");
    }

    #[test]
    fn measurements_are_kept_and_events_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.jsonl");
        let mut journal = Journal::create(Some(&path), Moment { seconds: 0 }, 1).unwrap();
        let result = r#"{"type":"result","bench":"b","metric":"m","cores":1,"nodes":1,"accel":"icount","layer":"counts","unit":"instr","n":1,"min":1,"p50":1,"p90":1,"p99":1,"max":1,"counts":{},"seed":1}"#;
        journal.line(&Line::parse(result).unwrap()).unwrap();
        journal.line(&Line::parse(r#"{"type":"event","event":"done"}"#).unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{result}\n"));
    }

    #[test]
    fn runs_of_the_same_second_have_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let names = [(); 3].map(|()| {
            let (path, file) = create_new(dir.path(), "20260102T030405Z-1");
            file.unwrap();
            path.file_name().unwrap().to_str().unwrap().to_owned()
        });
        assert_eq!(
            names,
            ["20260102T030405Z-1.jsonl", "20260102T030405Z-1-2.jsonl", "20260102T030405Z-1-3.jsonl"]
        );
    }

    #[test]
    fn a_file_that_cannot_be_created_is_named() {
        let error =
            Journal::create(Some(Path::new("/proc/no/such.jsonl")), Moment { seconds: 0 }, 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot write /proc/no/such.jsonl: there is no directory /proc/no; create it first"
        );
        let mut full = Journal::create(Some(Path::new("/dev/full")), Moment { seconds: 0 }, 1).unwrap();
        let error = full.write(&1).unwrap_err().to_string();
        assert_eq!(error, "no room to write /dev/full: free some space on its file system");
    }
}
