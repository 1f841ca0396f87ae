//! What a failed guest was doing: every core's state and back-trace, read through QEMU's monitor.

use std::fmt;

use comfy_table::{Table, presets};

use crate::qmp::{Qmp, QmpError};
use crate::symbols::Symbols;

/// Lines of the console that a report shows.
pub const CONSOLE_LINES: usize = 30;

/// Frames of one back-trace at most: a broken chain must end.
const MAX_FRAMES: usize = 24;

/// Bytes of code that tell the images apart.
const CODE_BYTES: usize = 32;

/// What is known about a guest that failed. `Display` is the report.
#[derive(Debug, Default)]
pub struct Failure {
    /// The QEMU command that boots the same on a terminal.
    pub command: String,
    /// The last lines of the console.
    pub console: Vec<String>,
    /// The cores, where the machine could still be asked.
    pub cores: Vec<Core>,
    /// What QEMU wrote to its standard error.
    pub qemu_stderr: String,
}

/// One core's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// Its number in QEMU.
    pub index: u32,
    /// Its registers.
    pub registers: Registers,
    /// Its back-trace, innermost frame first, named where an image has the address. A frame has one line for each
    /// function that was inlined into it.
    pub trace: Vec<String>,
}

/// The registers that say what a core is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Frame pointer.
    pub rbp: u64,
    /// Flags.
    pub rflags: u64,
    /// Address of the last page fault.
    pub cr2: u64,
    /// Root of the page tables.
    pub cr3: u64,
    /// Privilege level.
    pub cpl: u8,
    /// Whether it waits in `hlt`, or for its start.
    pub halted: bool,
}

impl Registers {
    /// Whether an interrupt could wake it: the flag IF, bit 9.
    #[must_use]
    pub fn interrupts_on(&self) -> bool {
        self.rflags & (1 << 9) != 0
    }
}

/// The registers of all cores, from `info registers -a`.
#[must_use]
pub fn parse_registers(text: &str) -> Vec<(u32, Registers)> {
    let mut cores = Vec::new();
    for line in text.lines() {
        if let Some(index) = line.trim().strip_prefix("CPU#") {
            if let Ok(index) = index.parse() {
                cores.push((index, Registers::default()));
            }
            continue;
        }
        let Some((_, core)) = cores.last_mut() else { continue };
        for word in line.split_whitespace() {
            let Some((name, value)) = word.split_once('=') else { continue };
            let Ok(number) = u64::from_str_radix(value, 16) else { continue };
            match name {
                "RIP" | "EIP" => core.rip = number,
                "RSP" | "ESP" => core.rsp = number,
                "RBP" | "EBP" => core.rbp = number,
                "RFL" | "EFL" => core.rflags = number,
                "CR2" => core.cr2 = number,
                "CR3" => core.cr3 = number,
                "CPL" => core.cpl = number as u8,
                "HLT" => core.halted = number != 0,
                _ => {}
            }
        }
    }
    cores
}

/// The registers of all cores of a machine, running or stopped.
///
/// # Errors
/// The monitor fails.
pub fn registers(qmp: &mut Qmp) -> Result<Vec<(u32, Registers)>, QmpError> {
    Ok(parse_registers(&qmp.human("info registers -a", 0)?))
}

/// The state of every core of a stopped machine.
///
/// # Errors
/// The monitor fails.
pub fn capture(qmp: &mut Qmp, symbols: &mut Symbols) -> Result<Vec<Core>, QmpError> {
    let mut cores = Vec::new();
    for (index, registers) in registers(qmp)? {
        let trace = trace(&registers, symbols, |address, words| {
            let text = qmp.human(&format!("x/{words}gx {address:#x}"), index)?;
            Ok::<_, QmpError>(parse_words(&text))
        })?;
        cores.push(Core { index, registers, trace });
    }
    Ok(cores)
}

/// Words of memory, from `x/…gx`; none where the memory cannot be read.
fn parse_words(text: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(_, words)| words.split_whitespace())
        .map_while(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .collect()
}

/// Follows the frame pointers, each above the last; `read` gives words of the core's memory, fewer where there
/// are none.
fn trace<E>(
    registers: &Registers,
    symbols: &mut Symbols,
    mut read: impl FnMut(u64, usize) -> Result<Vec<u64>, E>,
) -> Result<Vec<String>, E> {
    let code: Vec<u8> =
        read(registers.rip, CODE_BYTES / 8)?.iter().flat_map(|word| word.to_le_bytes()).collect();
    let image = symbols.image_at(registers.rip, &code);
    let kernel = symbols.kernel();
    let mut name = |address: u64, call: u64| {
        // A frame of the kernel below a domain's, or the other way round, would be another image's.
        let image = if address >= 1 << 63 { kernel } else { image };
        let names = image.map(|image| symbols.describe(image, call)).unwrap_or_default();
        let text = names.join("\n                   ");
        format!("{address:#018x} {text}").trim_end().to_owned()
    };
    let mut frames = vec![name(registers.rip, registers.rip)];
    let mut frame = registers.rbp;
    while frames.len() < MAX_FRAMES && frame != 0 && frame.is_multiple_of(8) {
        let [next, back] = read(frame, 2)?[..] else { break };
        if back == 0 {
            break;
        }
        // The call is the instruction before the return address, which may belong to the next function.
        frames.push(name(back, back - 1));
        if next <= frame {
            break;
        }
        frame = next;
    }
    Ok(frames)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "QEMU command (console on the terminal):\n  {}\n", self.command)?;
        if !self.qemu_stderr.trim().is_empty() {
            writeln!(f, "QEMU said:\n  {}\n", self.qemu_stderr.trim().replace('\n', "\n  "))?;
        }
        if self.console.is_empty() {
            writeln!(f, "The guest wrote nothing to its console.\n")?;
        } else {
            writeln!(f, "Last lines of the console:")?;
            for line in &self.console {
                writeln!(f, "  {line}")?;
            }
            writeln!(f)?;
        }
        if self.cores.is_empty() {
            return write!(f, "The cores' state is not known: the machine had ended.");
        }
        let groups = group(&self.cores);
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["core", "state", "rip", "rsp", "cr2", "cr3"]);
        for cores in &groups {
            let r = &cores[0].registers;
            let state = match (r.halted, r.interrupts_on()) {
                (true, true) => "halted, interrupts on",
                (true, false) => "halted, interrupts off",
                (false, _) if r.cpl == 3 => "in user space",
                (false, _) => "in the kernel",
            };
            let hex = |value: u64| format!("{value:#x}");
            table.add_row([numbers(cores), state.into(), hex(r.rip), hex(r.rsp), hex(r.cr2), hex(r.cr3)]);
        }
        writeln!(f, "Cores:\n{}\n\nBack-traces:", table.trim_fmt())?;
        for cores in &groups {
            writeln!(f, "  core {}", numbers(cores))?;
            for frame in cores[0].trace.iter().flat_map(|frame| frame.lines()) {
                writeln!(f, "    {frame}")?;
            }
        }
        Ok(())
    }
}

/// Halted cores with the same back-trace together: one line says it for all. Each other core by itself.
fn group(cores: &[Core]) -> Vec<Vec<&Core>> {
    let mut groups: Vec<Vec<&Core>> = Vec::new();
    for core in cores {
        let same = groups.iter_mut().find(|group| {
            let first = group[0];
            core.registers.halted && first.registers.halted && first.trace == core.trace
        });
        match same {
            Some(group) => group.push(core),
            None => groups.push(vec![core]),
        }
    }
    groups
}

/// The cores' numbers, ranges drawn together: `0-3,7`.
fn numbers(cores: &[&Core]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core.index => *last = core.index,
            _ => ranges.push((core.index, core.index)),
        }
    }
    let text = |&(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;

    const REGISTERS: &str = "\r\nCPU#0\r\nRAX=0000000000000010 RBX=00 RCX=0 RDX=00000000000000f4\r\n\
        RSI=0 RDI=0 RBP=ffffffff80224fd0 RSP=ffffffff80224fb0\r\n\
        RIP=ffffffff80201234 RFL=00000202 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
        CS =0008 0000000000000000 ffffffff 00af9a00\r\n\
        CR0=80010033 CR2=0000000000001000 CR3=0000000000300000 CR4=00000020\r\n\
        \r\nCPU#1\r\nEAX=0 EBX=0\r\nEIP=0000fff0 EFL=00000002 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0\r\n";

    #[test]
    fn registers_of_every_core_are_read() {
        let cores = parse_registers(REGISTERS);
        let first = Registers {
            rip: 0xffff_ffff_8020_1234,
            rsp: 0xffff_ffff_8022_4fb0,
            rbp: 0xffff_ffff_8022_4fd0,
            rflags: 0x202,
            cr2: 0x1000,
            cr3: 0x30_0000,
            cpl: 0,
            halted: true,
        };
        let second = Registers { rip: 0xfff0, rflags: 2, cpl: 3, ..Registers::default() };
        assert_eq!(cores, [(0, first), (1, second)]);
        assert!(first.interrupts_on() && !second.interrupts_on());
        assert_eq!(parse_registers("unknown command: 'info'"), []);
    }

    #[test]
    fn words_of_memory_are_read() {
        let text = "ffffffff80224fd0: 0xffffffff80224ff0 0xffffffff80201300\r\n";
        assert_eq!(parse_words(text), [0xffff_ffff_8022_4ff0, 0xffff_ffff_8020_1300]);
        assert!(parse_words("0000000000000000: Cannot access memory\r\n").is_empty());
    }

    #[test]
    fn frames_are_followed_upwards_only() {
        let memory = BTreeMap::from([
            (0x1000, vec![0x1020, 0x5000]),
            (0x1020, vec![0x1010, 0x6000]),
            (0x1010, vec![0x1020, 0x7000]),
        ]);
        let registers = Registers { rip: 0x4000, rbp: 0x1000, ..Registers::default() };
        let read = |address, _| Ok::<_, Infallible>(memory.get(&address).cloned().unwrap_or_default());
        let frames = trace(&registers, &mut Symbols::default(), read).unwrap();
        assert_eq!(frames, ["0x0000000000004000", "0x0000000000005000", "0x0000000000006000"]);
        let wild = Registers { rbp: 0x1001, ..registers };
        let read = |address, _| Ok::<_, Infallible>(memory.get(&address).cloned().unwrap_or_default());
        assert_eq!(trace(&wild, &mut Symbols::default(), read).unwrap().len(), 1);
    }

    fn core(index: u32, halted: bool, trace: &str) -> Core {
        let registers = Registers { halted, rflags: 0x202, ..Registers::default() };
        Core { index, registers, trace: vec![trace.to_owned()] }
    }

    #[test]
    fn the_report_has_everything_and_draws_idle_cores_together() {
        let mut cores: Vec<Core> = [1, 2, 3, 5].map(|i| core(i, true, "idle")).to_vec();
        cores.insert(0, core(0, false, "busy"));
        let failure = Failure {
            command: "qemu-system-x86_64 -m 512M".into(),
            console: vec!["one".into(), "two".into()],
            cores,
            qemu_stderr: String::new(),
        };
        assert_eq!(
            failure.to_string(),
            "QEMU command (console on the terminal):\n  qemu-system-x86_64 -m 512M\n\n\
             Last lines of the console:\n  one\n  two\n\n\
             Cores:\n core   state                  rip  rsp  cr2  cr3\n 0      in the kernel          0x0  0x0  0x0  0x0\n \
             1-3,5  halted, interrupts on  0x0  0x0  0x0  0x0\n\n\
             Back-traces:\n  core 0\n    busy\n  core 1-3,5\n    idle\n"
        );
    }

    #[test]
    fn a_machine_that_has_ended_is_said_to_have() {
        let failure = Failure { qemu_stderr: "bad\nworse\n".into(), ..Failure::default() };
        assert_eq!(
            failure.to_string(),
            "QEMU command (console on the terminal):\n  \n\nQEMU said:\n  bad\n  worse\n\n\
             The guest wrote nothing to its console.\n\nThe cores' state is not known: the machine had ended."
        );
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_monitor_says_is_read(text in "(CPU#|RIP=|HLT=|0x|[0-9a-f]|:| |=|\r\n|\\PC){0,60}") {
            for (_, registers) in parse_registers(&text) {
                let read = |_, _| Ok::<_, Infallible>(parse_words(&text));
                let frames = trace(&registers, &mut Symbols::default(), read).unwrap();
                proptest::prop_assert!(frames.len() <= MAX_FRAMES);
            }
        }
    }
}
