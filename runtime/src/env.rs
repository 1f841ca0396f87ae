//! [`Env`]: what the domain's parent told it.

use lmp::layout;
use lmp::start::StartInfo;

/// The start information and the argument string of this domain.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    info: &'static StartInfo,
}

impl Env {
    pub(crate) const fn new(info: &'static StartInfo) -> Env {
        Env { info }
    }

    /// The start information page.
    pub fn info(&self) -> &'static StartInfo {
        self.info
    }

    /// The words of the argument string.
    pub fn args(&self) -> impl Iterator<Item = &'static str> {
        self.info.args().split_ascii_whitespace()
    }

    /// The value of the first argument `key=value`.
    pub fn value(&self, key: &str) -> Option<&'static str> {
        value(self.info.args(), key)
    }

    /// The value of the first argument `key=value` as a number; `default` if it is missing or no number.
    pub fn number(&self, key: &str, default: u64) -> u64 {
        self.value(key).and_then(|v| v.parse().ok()).unwrap_or(default)
    }

    /// Whether the argument `word` is there.
    pub fn flag(&self, word: &str) -> bool {
        self.args().any(|w| w == word)
    }

    /// The boot archive, if this domain has it mapped.
    pub fn archive(&self) -> Option<&'static [u8]> {
        if self.info.archive_len == 0 {
            return None;
        }
        let start = layout::ARCHIVE + self.info.archive_base % lmp::objects::PAGE_SIZE;
        // SAFETY: the parent mapped the archive there, read-only and for the life of the domain (`StartInfo`).
        Some(unsafe { core::slice::from_raw_parts(start as *const u8, self.info.archive_len as usize) })
    }
}

/// The value of the first word `key=value` of `line`.
pub fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split_ascii_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_value_belongs_to_the_whole_key_only() {
        let line = "cpus=8 bench=syscall,yield empty= bench=late";
        assert_eq!(value(line, "bench"), Some("syscall,yield"));
        assert_eq!(value(line, "cpus"), Some("8"));
        assert_eq!(value(line, "cpu"), None);
        assert_eq!(value(line, "empty"), Some(""));
        assert_eq!(value(line, "exit"), None);
    }
}
