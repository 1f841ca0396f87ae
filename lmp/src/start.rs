//! What a new domain finds in memory when it starts, and the layout of the per-core share frame.
//!
//! A domain is entered *disabled* with `rdi` = address of its dispatcher frame, `rsi` = address of its
//! [`StartInfo`], `rsp` = [`STACK_TOP`](crate::layout::STACK_TOP) − 8, at the entry of its ELF file.

/// Bytes of the argument string at most.
pub const ARGS_MAX: usize = 1024;
/// Bytes of a domain's name at most.
pub const NAME_MAX: usize = 32;

/// The page that tells a new domain where it is. Read-only for the domain.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4096))]
pub struct StartInfo {
    /// [`StartInfo::MAGIC`].
    pub magic: u64,
    /// [`StartInfo::VERSION`].
    pub version: u64,
    /// Dense index of the core the domain runs on.
    pub core: u32,
    /// The core's local APIC identifier.
    pub apic_id: u32,
    /// The core's NUMA node, if known; else 0.
    pub node: u32,
    /// 1 on the first core of the machine, else 0.
    pub first_core: u32,
    /// `init`: RAM capabilities in L1 slot [`RAM`](crate::cptr::init_l1::RAM).
    pub ram_caps: u32,
    /// `init`: device frames in L1 slot [`DEVICES`](crate::cptr::init_l1::DEVICES).
    pub device_caps: u32,
    /// Physical address of the boot archive.
    pub archive_base: u64,
    /// Bytes of the boot archive; 0 if the domain has no archive capability. It is mapped at
    /// [`ARCHIVE`](crate::layout::ARCHIVE) plus `archive_base` modulo the page size if it has.
    pub archive_len: u64,
    /// Local APIC timer ticks per millisecond; 0 if unknown.
    pub timer_ticks_per_ms: u64,
    /// TSC ticks per millisecond; 0 if unknown.
    pub tsc_ticks_per_ms: u64,
    /// First address of the domain's image in its address space.
    pub image_base: u64,
    /// Bytes of the domain's image, zeroed part included.
    pub image_len: u64,
    /// Number of this domain's console stream among the streams of its core; `u32::MAX` if none.
    pub stream: u32,
    /// The doorbell of the console: `apic_id << 8 | vector`, the argument of `Ipi::Send`.
    pub console_doorbell: u32,
    /// Words between parent and child, free for their use (counts of capabilities handed over, say).
    pub words: [u64; 16],
    /// Bytes used in `name`.
    pub name_len: u32,
    /// Bytes used in `args`.
    pub args_len: u32,
    /// The domain's name, UTF-8.
    pub name: [u8; NAME_MAX],
    /// The argument string, UTF-8, words separated by spaces.
    pub args: [u8; ARGS_MAX],
}

const _: () = assert!(core::mem::size_of::<StartInfo>() == 4096);

impl StartInfo {
    /// "KILLIFSH".
    pub const MAGIC: u64 = u64::from_le_bytes(*b"KILLIFSH");
    /// Version of this layout.
    pub const VERSION: u64 = 1;
    /// The value of [`StartInfo::stream`] of a domain that has no console stream.
    pub const NO_STREAM: u32 = u32::MAX;

    /// A page with nothing in it but magic and version.
    pub const fn new() -> StartInfo {
        StartInfo {
            magic: Self::MAGIC,
            version: Self::VERSION,
            core: 0,
            apic_id: 0,
            node: 0,
            first_core: 0,
            ram_caps: 0,
            device_caps: 0,
            archive_base: 0,
            archive_len: 0,
            timer_ticks_per_ms: 0,
            tsc_ticks_per_ms: 0,
            image_base: 0,
            image_len: 0,
            stream: Self::NO_STREAM,
            console_doorbell: 0,
            words: [0; 16],
            name_len: 0,
            args_len: 0,
            name: [0; NAME_MAX],
            args: [0; ARGS_MAX],
        }
    }

    /// The domain's name; empty if it is not UTF-8.
    pub fn name(&self) -> &str {
        text(&self.name, self.name_len)
    }

    /// The argument string; empty if it is not UTF-8.
    pub fn args(&self) -> &str {
        text(&self.args, self.args_len)
    }

    /// Set the name, cut at a character boundary to [`NAME_MAX`] bytes.
    pub fn set_name(&mut self, name: &str) {
        self.name_len = fill(&mut self.name, name);
    }

    /// Set the argument string, cut at a character boundary to [`ARGS_MAX`] bytes.
    pub fn set_args(&mut self, args: &str) {
        self.args_len = fill(&mut self.args, args);
    }
}

impl Default for StartInfo {
    fn default() -> Self {
        Self::new()
    }
}

fn text(bytes: &[u8], len: u32) -> &str {
    bytes.get(..len as usize).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
}

fn fill(dst: &mut [u8], src: &str) -> u32 {
    let mut n = src.len().min(dst.len());
    while !src.is_char_boundary(n) {
        n -= 1;
    }
    dst[..n].copy_from_slice(&src.as_bytes()[..n]);
    n as u32
}

/// The per-core share frame: memory through which a core talks to the first core's monitor and to the console.
/// One frame of [`share::SIZE`] bytes per core, on the core's own node if that has room.
pub mod share {
    /// Bytes of the share frame.
    pub const SIZE: u64 = super::super::objects::HANDOVER_GRANULARITY;
    /// The CPU driver's log ring.
    pub const LOG_OFFSET: u64 = 0;
    /// Bytes of the log ring.
    pub const LOG_SIZE: u64 = 0x1_0000;
    /// The channel between this core's monitor and the first core's.
    pub const MONITOR_OFFSET: u64 = 0x1_0000;
    /// Bytes set aside for that channel.
    pub const MONITOR_SIZE: u64 = 0x1_0000;
    /// The directory page: which streams are in use, and by whom. Written by the core's `init` and by the
    /// console; its layout is theirs (`runtime::directory`).
    pub const DIRECTORY_OFFSET: u64 = 0x2_0000;
    /// First console stream.
    pub const STREAMS_OFFSET: u64 = 0x3_0000;
    /// Bytes of one console stream (a UMP channel).
    pub const STREAM_SIZE: u64 = 0x4000;
    /// Console streams of a core.
    pub const STREAMS: u32 = ((SIZE - STREAMS_OFFSET) / STREAM_SIZE) as u32;

    /// Byte offset of console stream `i` in the share frame.
    pub const fn stream_offset(i: u32) -> u64 {
        STREAMS_OFFSET + i as u64 * STREAM_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_arguments_are_cut_at_character_boundaries() {
        let mut info = StartInfo::new();
        info.set_name("bench_syscall");
        assert_eq!(info.name(), "bench_syscall");
        info.set_name("é");
        assert_eq!(info.name(), "é");
        let long: std::string::String = "ab€".repeat(20);
        info.set_name(&long);
        assert!(long.starts_with(info.name()) && info.name().len() > NAME_MAX - 4);
    }

    #[test]
    fn a_hostile_length_gives_an_empty_string() {
        let mut info = StartInfo::new();
        info.name_len = u32::MAX;
        info.args_len = u32::MAX;
        assert_eq!((info.name(), info.args()), ("", ""));
    }
}
