//! Links small assembly programs with the scripts, under every linker the toolchain has, and checks the layout
//! that the loaders rely on.

use std::path::{Path, PathBuf};
use std::process::Command;

use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{LittleEndian, Object as _, ObjectSymbol as _, read::elf::ElfFile64};

const LE: LittleEndian = LittleEndian;
const PAGE: u64 = 4096;

/// Something in each section; `.bss` is a page and a bit, so that rounding shows.
const CPUDRIVER: &str = r#"
    .section .boot.text, "ax"
    nop
    .globl pvh_entry
pvh_entry: ret
    .text
    .globl limine_entry
limine_entry: ret
    .section .rodata, "a"
    .quad pvh_entry
    .data
    .quad 1
    .bss
    .zero 5000
    .section .eh_frame, "a"
    .quad 0
    .section .note.GNU-stack, "", @progbits
"#;

/// Without initialised data: `.bss` must still not share a page with `.text`.
const DOMAIN: &str = r#"
    .text
    .globl _start
_start: ret
    .section .rodata, "a"
    .quad _start
    .bss
    .zero 5000
    .section .note.GNU-stack, "", @progbits
"#;

/// `-B` arguments that select a linker, with a name for messages.
fn linkers() -> Vec<(&'static str, Vec<String>)> {
    let mut found = vec![("default", Vec::new())];
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
    let sysroot = String::from_utf8(sysroot.stdout).expect("a path in UTF-8");
    let lld = Path::new(sysroot.trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld");
    if lld.is_dir() {
        found.push(("rust-lld", vec![format!("-B{}", lld.display()), "-fuse-ld=lld".to_owned()]));
    }
    found
}

fn link(source: &str, script: &str, args: &[String], dir: &Path) -> Result<PathBuf, String> {
    let (asm, out) = (dir.join("program.s"), dir.join("program"));
    std::fs::write(&asm, source).expect("the temporary directory can be written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let result = Command::new("cc")
        .args(boot_link::LINK_ARGS)
        .args(args)
        .arg(format!("-Wl,-T,{}", script.display()))
        .arg(&asm)
        .arg("-o")
        .arg(&out)
        .output()
        .expect("cc runs: a C linker is part of every Rust installation");
    if result.status.success() { Ok(out) } else { Err(String::from_utf8_lossy(&result.stderr).into_owned()) }
}

/// What a test looks at, taken out of the file.
struct Linked {
    entry: u64,
    segments: Vec<ProgramHeader64<LittleEndian>>,
    symbols: Vec<(String, u64)>,
    note: Vec<u8>,
}

impl Linked {
    fn read(path: &Path) -> Self {
        let data = std::fs::read(path).expect("the linker wrote its output");
        let file = ElfFile64::<LittleEndian>::parse(&*data).expect("a valid ELF64");
        let header: &FileHeader64<LittleEndian> = file.elf_header();
        assert_eq!(header.e_type(LE), elf::ET_EXEC);
        let segments = header.program_headers(LE, &*data).expect("program headers").to_vec();
        let note = segments
            .iter()
            .find(|s| s.p_type(LE) == elf::PT_NOTE)
            .map(|s| s.data(LE, &*data).expect("the note lies in the file").to_vec())
            .unwrap_or_default();
        let symbols =
            file.symbols().map(|s| (s.name().expect("a name in UTF-8").to_owned(), s.address())).collect();
        Self { entry: file.entry(), segments, symbols, note }
    }

    fn symbol(&self, name: &str) -> u64 {
        let found = self.symbols.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("no symbol {name}")).1
    }

    /// (address, end, flags) of each loaded segment, in the file's order.
    fn loads(&self) -> Vec<(u64, u64, elf::ProgramFlags)> {
        let loads = self.segments.iter().filter(|s| s.p_type(LE) == elf::PT_LOAD);
        loads.map(|s| (s.p_vaddr(LE), s.p_vaddr(LE) + s.p_memsz(LE), s.p_flags(LE))).collect()
    }

    /// Ascending, and no page in two segments.
    fn assert_page_separated(&self, linker: &str) {
        for pair in self.loads().windows(2) {
            let (end, next) = (pair[0].1.next_multiple_of(PAGE), pair[1].0 / PAGE * PAGE);
            assert!(end <= next, "{linker}: {pair:x?} share a page");
        }
    }

    /// No segment is writable and executable.
    fn assert_w_xor_x(&self, linker: &str) {
        let both = elf::PF_W | elf::PF_X;
        assert!(self.loads().iter().all(|s| s.2 & both != both), "{linker}: {:x?}", self.loads());
    }
}

#[test]
fn cpudriver_is_one_image_with_a_pvh_note() {
    for (linker, args) in linkers() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let linked = Linked::read(&link(CPUDRIVER, "cpudriver.ld", &args, dir.path()).expect(linker));
        linked.assert_page_separated(linker);
        linked.assert_w_xor_x(linker);

        let base = 0xffff_ffff_8020_0000;
        assert_eq!(linked.symbol("__image_start"), base);
        assert_eq!(linked.loads()[0].0, base);
        assert_eq!(linked.entry, linked.symbol("limine_entry"), "{linker}");
        for s in linked.segments.iter().filter(|s| s.p_type(LE) == elf::PT_LOAD) {
            assert_eq!(s.p_vaddr(LE) - s.p_paddr(LE), 0xffff_ffff_8000_0000, "{linker}: load address");
        }

        // Owner "Xen", type 18, the physical address in four bytes.
        let pvh = (linked.symbol("pvh_entry") - 0xffff_ffff_8000_0000) as u32;
        assert_eq!(pvh, 0x20_0001, "{linker}: .boot.text comes first");
        let words: Vec<u32> =
            linked.note.chunks(4).map(|w| u32::from_le_bytes(w.try_into().expect("whole words"))).collect();
        assert_eq!(words, [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), pvh], "{linker}");
    }
}

#[test]
fn cpudriver_symbols_bound_the_segments_and_stacks() {
    for (linker, args) in linkers() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let linked = Linked::read(&link(CPUDRIVER, "cpudriver.ld", &args, dir.path()).expect(linker));
        let bounds = [
            ("__text_start", "__text_end"),
            ("__rodata_start", "__rodata_end"),
            ("__data_start", "__data_end"),
            ("__bss_start", "__bss_end"),
        ];
        for ((start, end), load) in bounds.iter().zip(linked.loads()) {
            assert_eq!(linked.symbol(start), load.0, "{linker}: {start}");
            assert_eq!(linked.symbol(end), load.1.next_multiple_of(PAGE), "{linker}: {end}");
        }
        assert_eq!(linked.symbol("__bss_end"), linked.symbol("__image_end"));

        let mut below = linked.symbol("__bss_start") + 5000;
        for (stack, size) in [
            ("__stack", 0x8000),
            ("__ist1", 0x2000),
            ("__ist2", 0x2000),
            ("__ist3", 0x2000),
            ("__ist4", 0x2000),
        ] {
            let part = |part: &str| linked.symbol(&format!("{stack}_{part}"));
            assert!(part("guard") >= below && part("guard").is_multiple_of(PAGE), "{linker}: {stack}");
            assert_eq!(part("bottom") - part("guard"), PAGE, "{linker}: {stack}");
            assert_eq!(part("top") - part("bottom"), size, "{linker}: {stack}");
            below = part("top");
        }
        assert_eq!(below, linked.symbol("__image_end"));
    }
}

#[test]
fn domain_without_data_still_has_separate_pages() {
    for (linker, args) in linkers() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let linked = Linked::read(&link(DOMAIN, "domain.ld", &args, dir.path()).expect(linker));
        linked.assert_page_separated(linker);
        linked.assert_w_xor_x(linker);
        let flags: Vec<elf::ProgramFlags> = linked.loads().iter().map(|s| s.2).collect();
        assert_eq!(flags, [elf::PF_R, elf::PF_R | elf::PF_X, elf::PF_R | elf::PF_W], "{linker}");
        assert_eq!(linked.loads()[0].0, 0x20_0000, "{linker}");
        assert_eq!(linked.entry, linked.symbol("_start"), "{linker}");
    }
}

#[test]
fn what_nothing_would_fill_in_at_run_time_is_refused() {
    let constructor = format!("{DOMAIN}\n    .section .init_array, \"aw\"\n    .quad _start\n");
    let thread_local = format!("{DOMAIN}\n    .section .tdata, \"awT\", @progbits\n    .quad 1\n");
    for (linker, args) in linkers() {
        for source in [&constructor, &thread_local] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let refusal = link(source, "domain.ld", &args, dir.path()).expect_err(linker);
            let reason = "domain: thread-local data and constructors are not supported";
            assert!(refusal.contains(reason), "{linker}: {refusal}");
        }
    }
}

#[test]
fn an_image_over_one_mebibyte_is_refused() {
    let big = CPUDRIVER.replace(".zero 5000", ".zero 1048576");
    for (linker, args) in linkers() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let refusal = link(&big, "cpudriver.ld", &args, dir.path()).expect_err(linker);
        assert!(refusal.contains("cpudriver: the image is larger than 1 MiB"), "{linker}: {refusal}");
    }
}
