//! The page tables of a stopped machine: read out of its memory, walked, and audited against what must hold.
//!
//! The walk is our own, over a dump of the machine's memory, so that it reaches the tables of every domain and not
//! only those that happen to be loaded; for the loaded ones the caller compares it with QEMU's. What must hold is
//! a function of [`Snapshot`] per rule, each with the list of what breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use killifish::qmp::{Qmp, QmpError};
use object::{Object as _, ObjectSymbol as _};
use serde_json::json;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// First address of the kernel's half.
const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;

/// Where every core's CPU driver lies.
const KERNEL_BASE: u64 = 0xffff_ffff_8020_0000;

/// Bytes of a core's instance of the CPU driver.
const BLOCK: u64 = 2 << 20;

/// Where every CPU driver has the pages of its links, one by one.
const LINK_AREA: Range<u64> = 0xffff_ffff_8040_0000..0xffff_ffff_8080_0000;

/// The entry of a root that leads to [`KERNEL_BASE`].
const KERNEL_SLOT: usize = 511;

/// Below this lies the root that a starting core borrows on its way to its own (`boot-entry`'s trampoline). It stays
/// there, with the kernel half of the core that was started last; no core may still have it loaded.
const TRAMPOLINE_LIMIT: u64 = 1 << 20;

/// The address in an entry (Intel SDM volume 3A, section 4.5).
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What a page may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// It can be written.
    pub writable: bool,
    /// Ring 3 can use it.
    pub user: bool,
    /// It can be executed.
    pub executable: bool,
}

/// A page that is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapping {
    /// Its virtual address.
    pub virt: u64,
    /// Its physical address.
    pub phys: u64,
    /// Its size in bytes.
    pub size: u64,
    /// What it may be used for.
    pub access: Access,
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Access { writable, user, executable } = self.access;
        let flag = |set, letter| if set { letter } else { '-' };
        write!(f, "{:#x} → {:#x} ({} KiB) ", self.virt, self.phys, self.size / 1024)?;
        write!(f, "r{}{}{}", flag(writable, 'w'), flag(executable, 'x'), flag(user, 'u'))
    }
}

impl Mapping {
    /// Whether it is the supervisor's and writable.
    fn is_kernel_writable(&self) -> bool {
        self.access.writable && !self.access.user
    }

    /// Whether it is a page of a link.
    fn is_link(&self) -> bool {
        LINK_AREA.contains(&self.virt)
    }

    /// The physical addresses.
    fn physical(&self) -> Range<u64> {
        self.phys..self.phys + self.size
    }

    /// The physical addresses of its small pages.
    fn pages(&self) -> impl Iterator<Item = u64> {
        self.physical().step_by(PAGE as usize)
    }
}

/// An address space: what a root page table leads to.
#[derive(Debug, Clone, Default)]
pub struct Space {
    /// Physical address of the root.
    pub root: u64,
    /// All pages mapped, by address.
    pub mappings: Vec<Mapping>,
    /// Physical addresses of all its tables.
    pub tables: BTreeSet<u64>,
}

/// The registers that decide what page tables mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Control {
    /// CR0.
    pub cr0: u64,
    /// Root of the page tables.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// The extended feature enable register.
    pub efer: u64,
}

/// A core of a stopped machine.
#[derive(Debug, Clone, Default)]
pub struct Core {
    /// Its control registers.
    pub control: Control,
    /// What QEMU says that the loaded tables map: virtual and physical addresses.
    pub loaded: BTreeSet<(u64, u64)>,
    /// All address spaces in memory that have this core's kernel half, the loaded one among them.
    pub spaces: Vec<Space>,
}

/// What the audit must know of the CPU driver's image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Code.
    pub text: Range<u64>,
    /// Where data begins, behind code and constants.
    pub data: u64,
    /// The pages that must not be mapped, by the name of their symbols.
    pub guards: BTreeMap<String, u64>,
}

impl Image {
    /// Reads what is needed from the ELF file's symbols.
    ///
    /// # Panics
    /// If it is not the CPU driver's.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = object::File::parse(&*bytes).expect("the CPU driver is an ELF file");
        let symbols: BTreeMap<&str, u64> =
            file.symbols().filter_map(|symbol| Some((symbol.name().ok()?, symbol.address()))).collect();
        let at = |name: &str| *symbols.get(name).unwrap_or_else(|| panic!("the image has no symbol {name}"));
        let guards = symbols.iter().filter(|(name, _)| name.starts_with("__") && name.ends_with("_guard"));
        let guards: BTreeMap<String, u64> = guards.map(|(name, &at)| ((*name).to_owned(), at)).collect();
        Self { text: at("__text_start")..at("__text_end"), data: at("__data_start"), guards }
    }
}

/// All page tables of a stopped machine.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Its cores, by QEMU's number.
    pub cores: Vec<Core>,
    /// Bytes of RAM, which begins at physical address 0.
    pub ram: u64,
}

/// An entry of a table.
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

/// Physical memory.
struct Memory(Vec<u8>);

impl Memory {
    /// The bytes of the table at `table`.
    ///
    /// # Panics
    /// If it lies outside RAM: no table may.
    fn table(&self, table: u64) -> &[u8] {
        let bytes = usize::try_from(table).ok().and_then(|at| self.0.get(at..at + PAGE as usize));
        bytes.unwrap_or_else(|| panic!("a page table at {table:#x}, outside RAM"))
    }

    /// The physical address of what the kernel's entry of a root leads to, if it has one.
    fn kernel_of(&self, root: u64) -> Option<u64> {
        let entry = word(self.table(root).chunks_exact(8).nth(KERNEL_SLOT)?);
        (entry & 1 != 0).then_some(entry & ADDRESS)
    }

    /// Everything that the root at `root` maps.
    fn walk(&self, root: u64) -> Space {
        let mut space = Space { root, ..Space::default() };
        let access = Access { writable: true, user: true, executable: true };
        self.descend(&mut space, root, 4, 0, access);
        space
    }

    /// Adds what the table of that level maps from the address `base` on, reached with that access.
    fn descend(&self, space: &mut Space, table: u64, level: u32, base: u64, access: Access) {
        space.tables.insert(table);
        let span = PAGE << (9 * (level - 1));
        for (index, entry) in (0u64..).zip(self.table(table).chunks_exact(8).map(word)) {
            if entry & 1 == 0 {
                continue;
            }
            let low = base + index * span;
            // An address repeats its bit 47 above.
            let virt = ((low << 16) as i64 >> 16) as u64;
            let access = Access {
                writable: access.writable && entry & 1 << 1 != 0,
                user: access.user && entry & 1 << 2 != 0,
                executable: access.executable && entry & 1 << 63 == 0,
            };
            let large = level > 1 && entry & 1 << 7 != 0;
            if level == 1 || large {
                let phys = entry & ADDRESS & !(span - 1);
                space.mappings.push(Mapping { virt, phys, size: span, access });
            } else {
                self.descend(space, entry & ADDRESS, level - 1, low, access);
            }
        }
    }
}

/// The addresses in QEMU's `info tlb`: lines of virtual address, colon, physical address and flags.
fn parse_tlb(text: &str) -> BTreeSet<(u64, u64)> {
    let parse = |line: &str| {
        let (virt, rest) = line.split_once(": ")?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        Some((hex(virt.trim())?, hex(rest.split_whitespace().next()?)?))
    };
    text.lines().filter_map(parse).collect()
}

/// The control registers in QEMU's `info registers`.
fn parse_control(text: &str) -> Control {
    let value = |name: &str| {
        let words = text.split_whitespace().filter_map(|word| word.split_once('='));
        let mut found = words.filter(|(key, _)| *key == name).map(|(_, value)| value);
        found.next().and_then(|value| u64::from_str_radix(value, 16).ok()).unwrap_or(0)
    };
    Control { cr0: value("CR0"), cr3: value("CR3"), cr4: value("CR4"), efer: value("EFER") }
}

impl Snapshot {
    /// Reads all page tables of a stopped machine with so many cores and so much RAM, which must lie below the
    /// hole for devices.
    ///
    /// # Errors
    /// The monitor fails.
    ///
    /// # Panics
    /// If the memory cannot be kept in a temporary file, or page tables lead out of RAM.
    pub fn take(qmp: &mut Qmp, cores: u32, memory_mib: u64) -> Result<Self, QmpError> {
        let ram = memory_mib << 20;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("memory");
        qmp.execute("pmemsave", json!({ "val": 0, "size": ram, "filename": path }))?;
        let memory = Memory(std::fs::read(&path).expect("the dump that QEMU wrote"));
        assert_eq!(memory.0.len() as u64, ram);

        let mut snapshot = Self { cores: Vec::new(), ram };
        let mut by_kernel: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for page in (TRAMPOLINE_LIMIT..ram).step_by(PAGE as usize) {
            if let Some(kernel) = memory.kernel_of(page) {
                by_kernel.entry(kernel).or_default().push(page);
            }
        }
        for core in 0..cores {
            let control = parse_control(&qmp.human("info registers", core)?);
            let loaded = parse_tlb(&qmp.human("info tlb", core)?);
            let kernel = memory.kernel_of(control.cr3 & ADDRESS);
            let roots = kernel.and_then(|kernel| by_kernel.get(&kernel)).map_or(&[][..], Vec::as_slice);
            let spaces = roots.iter().map(|&root| memory.walk(root)).collect();
            snapshot.cores.push(Core { control, loaded, spaces });
        }
        Ok(snapshot)
    }

    /// All mappings with their cores, each once: a core's address spaces have its kernel half in common.
    fn mappings(&self) -> BTreeSet<(usize, Mapping)> {
        let cores = self.cores.iter().enumerate();
        let spaces = cores.flat_map(|(core, it)| it.spaces.iter().map(move |space| (core, space)));
        spaces.flat_map(|(core, space)| space.mappings.iter().map(move |&mapping| (core, mapping))).collect()
    }

    /// The mappings for which `wrong` holds.
    fn all(&self, wrong: impl Fn(&Mapping) -> bool) -> Vec<String> {
        let wrong = self.mappings().into_iter().filter(|(_, mapping)| wrong(mapping));
        wrong.map(|(core, mapping)| format!("core {core}: {mapping}")).collect()
    }

    /// Pages that can be written and executed, by whomever.
    pub fn writable_and_executable(&self) -> Vec<String> {
        self.all(|m| m.access.writable && m.access.executable)
    }

    /// Pages of the supervisor at user addresses, such as an identity map, and of the user at the kernel's.
    pub fn in_the_wrong_half(&self) -> Vec<String> {
        self.all(|m| m.access.user != (m.virt < KERNEL_HALF))
    }

    /// Pages of the supervisor that can be executed and are not code, and code that cannot be executed or can be
    /// written.
    pub fn not_code(&self, image: &Image) -> Vec<String> {
        self.all(|m| {
            let is_text = image.text.contains(&m.virt);
            let right = Access { writable: false, user: false, executable: true };
            (is_text && m.access != right) || (!is_text && !m.access.user && m.access.executable)
        })
    }

    /// Guard pages that are mapped, and stacks above them that are not.
    pub fn broken_guards(&self, image: &Image) -> Vec<String> {
        let mut wrong = Vec::new();
        for (core, it) in self.cores.iter().enumerate() {
            for space in &it.spaces {
                let maps =
                    |page: u64| space.mappings.iter().any(|m| (m.virt..m.virt + m.size).contains(&page));
                for (name, &guard) in &image.guards {
                    if maps(guard) {
                        wrong.push(format!("core {core}: {name} is mapped in {:#x}", space.root));
                    }
                    if !maps(guard + PAGE) {
                        wrong.push(format!("core {core}: no stack above {name} in {:#x}", space.root));
                    }
                }
            }
        }
        wrong
    }

    /// The pages of links, each with its core.
    pub fn link_pages(&self) -> Vec<(usize, Mapping)> {
        self.mappings().into_iter().filter(|(_, mapping)| mapping.is_link()).collect()
    }

    /// Pages of links that are mapped in another way than they may: one CPU driver writes a page, one reads it, and
    /// it is no memory of an instance and no page table.
    pub fn broken_links(&self) -> Vec<String> {
        let kernel = self.kernel_pages();
        let mut ends: BTreeSet<(u64, bool)> = BTreeSet::new();
        let mut wrong = Vec::new();
        for (core, mapping) in self.link_pages() {
            let Access { writable, user, executable } = mapping.access;
            if mapping.size != PAGE || user || executable {
                wrong.push(format!("core {core}: {mapping} is no page of a link"));
            }
            if !ends.insert((mapping.phys, writable)) {
                let end = if writable { "writer" } else { "reader" };
                wrong.push(format!("core {core}: {mapping} has another {end}"));
            }
            if let Some(what) = kernel.get(&mapping.phys) {
                wrong.push(format!("core {core}: {mapping} reaches {what}"));
            }
        }
        wrong
    }

    /// RAM that one core's CPU driver can write and another core's can reach at all, but for the pages of links.
    pub fn shared_kernel_memory(&self) -> Vec<String> {
        let mut writers: BTreeMap<u64, usize> = BTreeMap::new();
        let mut wrong = BTreeSet::new();
        let mappings = self.mappings();
        for &(core, ref mapping) in
            mappings.iter().filter(|(_, m)| m.is_kernel_writable() && m.phys < self.ram && !m.is_link())
        {
            for page in mapping.pages() {
                if *writers.entry(page).or_insert(core) != core {
                    wrong.insert(format!(
                        "{page:#x} is written by the CPU drivers of {} and {core}",
                        writers[&page]
                    ));
                }
            }
        }
        for (core, mapping) in mappings.iter().filter(|(_, m)| !m.access.user && !m.is_link()) {
            for page in mapping.pages() {
                if let Some(writer) = writers.get(&page).filter(|writer| *writer != core) {
                    wrong.insert(format!("{page:#x} is core {writer}'s, and core {core} has {mapping}"));
                }
            }
        }
        wrong.into_iter().collect()
    }

    /// The pages of instances and page tables, of whatever core.
    fn kernel_pages(&self) -> BTreeMap<u64, &'static str> {
        let image = KERNEL_BASE..KERNEL_BASE + BLOCK;
        let mut kernel: BTreeMap<u64, &str> = BTreeMap::new();
        for (_, mapping) in self.mappings().iter().filter(|(_, m)| image.contains(&m.virt)) {
            kernel.extend(mapping.pages().map(|page| (page, "an instance")));
        }
        for space in self.cores.iter().flat_map(|core| &core.spaces) {
            kernel.extend(space.tables.iter().map(|&table| (table, "a page table")));
        }
        kernel
    }

    /// Memory of an instance or of a page table, of whatever core, that some domain can reach.
    pub fn kernel_memory_of_users(&self) -> Vec<String> {
        let (kernel, mappings) = (self.kernel_pages(), self.mappings());
        let mut wrong = BTreeSet::new();
        for (core, mapping) in mappings.iter().filter(|(_, m)| m.access.user) {
            for page in mapping.pages() {
                if let Some(what) = kernel.get(&page) {
                    wrong.insert(format!("core {core}: {mapping} reaches {what} at {page:#x}"));
                }
            }
        }
        wrong.into_iter().collect()
    }

    /// Code and constants of an instance that some CPU driver can write through another mapping.
    pub fn writable_aliases_of_code(&self, image: &Image) -> Vec<String> {
        let constant = image.text.start..image.data;
        let constants: BTreeSet<u64> = self
            .mappings()
            .into_iter()
            .filter(|(_, m)| constant.contains(&m.virt))
            .flat_map(|(_, m)| m.physical().step_by(PAGE as usize))
            .collect();
        self.all(|m| m.access.writable && m.pages().any(|page| constants.contains(&page)))
    }

    /// RAM of the CPU driver of that core, by physical address: what it can write, but for the pages of links.
    pub fn kernel_ram(&self, core: usize) -> Vec<Range<u64>> {
        let owned = self.cores[core].spaces.iter().flat_map(|space| &space.mappings);
        let ranges: BTreeSet<(u64, u64)> = owned
            .filter(|m| m.is_kernel_writable() && m.phys < self.ram && !m.is_link())
            .map(|m| (m.phys, m.phys + m.size))
            .collect();
        ranges.into_iter().map(|(start, end)| start..end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Access = Access { writable: true, user: true, executable: false };
    const DATA: Access = Access { writable: true, user: false, executable: false };
    const CODE: Access = Access { writable: false, user: false, executable: true };

    fn page(virt: u64, phys: u64, access: Access) -> Mapping {
        Mapping { virt, phys, size: PAGE, access }
    }

    fn image() -> Image {
        let guard = KERNEL_BASE + 0x3000;
        Image {
            text: KERNEL_BASE..KERNEL_BASE + PAGE,
            data: KERNEL_BASE + PAGE,
            guards: BTreeMap::from([("__stack_guard".to_owned(), guard)]),
        }
    }

    /// Two cores with nothing wrong: code shared, data and stacks each its own, a page of a domain.
    fn healthy() -> Snapshot {
        let core = |first: u64| {
            let mappings = vec![
                page(0x20_0000, first + 0x4000, USER),
                page(KERNEL_BASE, 0x1000, CODE),
                page(KERNEL_BASE + 0x2000, first, DATA),
                page(KERNEL_BASE + 0x4000, first + 0x1000, DATA),
            ];
            let space = Space { root: first + 0x2000, mappings, tables: BTreeSet::from([first + 0x2000]) };
            Core { spaces: vec![space], ..Core::default() }
        };
        Snapshot { cores: vec![core(0x10_0000), core(0x20_0000)], ram: 1 << 20 << 4 }
    }

    fn complaints(snapshot: &Snapshot) -> Vec<Vec<String>> {
        let image = image();
        vec![
            snapshot.writable_and_executable(),
            snapshot.in_the_wrong_half(),
            snapshot.not_code(&image),
            snapshot.broken_guards(&image),
            snapshot.shared_kernel_memory(),
            snapshot.kernel_memory_of_users(),
            snapshot.writable_aliases_of_code(&image),
            snapshot.broken_links(),
        ]
    }

    /// Which rules the healthy machine breaks with one more mapping on its second core.
    fn broken_by(mapping: Mapping) -> Vec<usize> {
        let mut snapshot = healthy();
        snapshot.cores[1].spaces[0].mappings.push(mapping);
        (0..)
            .zip(complaints(&snapshot))
            .filter(|(_, wrong)| !wrong.is_empty())
            .map(|(rule, _)| rule)
            .collect()
    }

    #[test]
    fn a_healthy_machine_breaks_no_rule() {
        assert_eq!(complaints(&healthy()).concat(), <[String; 0]>::default());
        assert_eq!(healthy().kernel_ram(1), [0x20_0000..0x20_1000, 0x20_1000..0x20_2000]);
    }

    #[test]
    fn each_rule_is_broken_by_what_it_forbids() {
        let window = KERNEL_HALF;
        let free = 0x30_0000;
        let everything = Access { writable: true, user: true, executable: true };
        assert_eq!(broken_by(page(0x1000, free, everything)), [0], "writable and executable");
        assert_eq!(broken_by(page(0x1000, free, DATA)), [1], "the supervisor's at a user address");
        assert_eq!(broken_by(page(window + free, free, USER)), [1], "the user's in the kernel's half");
        assert_eq!(broken_by(page(window + free, free, CODE)), [2], "code outside the image's");
        assert_eq!(broken_by(page(KERNEL_BASE, free, DATA)), [2, 6], "code that can be written");
        assert_eq!(broken_by(page(KERNEL_BASE + 0x3000, free, DATA)), [3], "a guard page");
        assert_eq!(broken_by(page(window, 0x10_0000, DATA)), [4], "the other core's data");
        let read = Access { writable: false, ..DATA };
        assert_eq!(broken_by(page(window, 0x10_0000, read)), [4], "the other core's data, to read");
        assert_eq!(broken_by(page(0x1000, 0x10_0000, USER)), [5], "the other core's data, for a domain");
        assert_eq!(broken_by(page(0x1000, 0x10_2000, USER)), [5], "a page table, for a domain");
        assert_eq!(broken_by(page(window, 0x1000, DATA)), [4, 6], "code through the window");
    }

    /// Which rules a machine with a link breaks: its first core writes `frame`, its second reads it, and the second
    /// has one more mapping.
    fn broken_with_link(frame: u64, more: Option<Mapping>) -> Vec<usize> {
        let read = Access { writable: false, ..DATA };
        let mut snapshot = healthy();
        snapshot.cores[0].spaces[0].mappings.push(page(LINK_AREA.start, frame, DATA));
        let reader = &mut snapshot.cores[1].spaces[0].mappings;
        reader.push(page(LINK_AREA.start + PAGE, frame, read));
        reader.extend(more);
        let rules = (0..).zip(complaints(&snapshot));
        rules.filter(|(_, wrong)| !wrong.is_empty()).map(|(rule, _)| rule).collect()
    }

    #[test]
    fn a_page_of_a_link_has_one_writer_and_one_reader() {
        let read = Access { writable: false, ..DATA };
        let (frame, window) = (0x30_0000, KERNEL_HALF);
        let link = |access| Some(page(LINK_AREA.start + 2 * PAGE, frame, access));
        assert_eq!(broken_with_link(frame, None), <[usize; 0]>::default());
        let owner = Some(page(window + frame, frame, DATA));
        assert_eq!(broken_with_link(frame, owner), <[usize; 0]>::default(), "in its owner's window too");
        let user = Some(page(0x1000, frame, USER));
        assert_eq!(broken_with_link(frame, user), <[usize; 0]>::default(), "in its monitor's too");
        assert_eq!(broken_with_link(frame, link(DATA)), [7], "two writers");
        assert_eq!(broken_with_link(frame, link(read)), [7], "two readers");
        assert_eq!(broken_with_link(frame, link(USER)), [1, 7], "a page of the user's");
        assert_eq!(broken_with_link(0x20_0000, None), [7], "memory of an instance");
        assert_eq!(broken_with_link(0x20_2000, None), [7], "a page table");
        let large = Mapping { virt: LINK_AREA.end - BLOCK, phys: 0x40_0000, size: BLOCK, access: DATA };
        assert_eq!(broken_with_link(frame, Some(large)), [7], "more than a page");
    }

    #[test]
    fn tables_are_walked_with_the_access_of_all_levels() {
        let mut memory = Memory(vec![0; 0x5000]);
        let mut put = |table: u64, index: u64, entry: u64| {
            let at = (table + 8 * index) as usize;
            memory.0[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        };
        const NX: u64 = 1 << 63;
        put(0, KERNEL_SLOT as u64, 0x1000 | 0b011);
        put(0x1000, 510, 0x2000 | 0b111);
        put(0x2000, 1, 0x3000 | 0b101 | NX);
        put(0x2000, 2, 0x60_0000 | 1 << 7 | 0b011);
        put(0x3000, 3, 0x4000 | 0b111);
        put(0x3000, 4, 0x4000 | 0b110);
        let space = memory.walk(0);
        let none = Access { writable: false, user: false, executable: false };
        let large = Access { writable: true, user: false, executable: true };
        assert_eq!(
            space.mappings,
            [
                page(KERNEL_BASE + 0x3000, 0x4000, none),
                Mapping { virt: KERNEL_BASE + BLOCK, phys: 0x60_0000, size: BLOCK, access: large },
            ]
        );
        assert_eq!(space.tables, BTreeSet::from([0, 0x1000, 0x2000, 0x3000]));
        assert_eq!(memory.kernel_of(0), Some(0x1000));
        assert_eq!(memory.kernel_of(0x4000), None);
    }

    #[test]
    fn qemus_answers_are_read() {
        let tlb = "0000000000200000: 0000000010a3c000 X---A--U-\r\nffffffff80200000: 0000000000a00000 -G-DA----\r\n";
        assert_eq!(parse_tlb(tlb), BTreeSet::from([(0x20_0000, 0x10a3_c000), (KERNEL_BASE, 0xa0_0000)]));
        let registers = "CR0=80050033 CR2=0000000000001000 CR3=00000000118a0000 CR4=00350e20\r\nEFER=0000000000000d01\r\n";
        let control = Control { cr0: 0x8005_0033, cr3: 0x118a_0000, cr4: 0x35_0e20, efer: 0xd01 };
        assert_eq!(parse_control(registers), control);
    }
}
