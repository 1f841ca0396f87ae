//! What the test domains share: reporting checks, starting victims, random numbers.
//!
//! Each scenario is a binary in `src/bin`, started by `init` for `scenario=NAME`. It starts victims, domains of
//! the module `test_child` whose argument `mode=…` says what they do, and checks what becomes of them, of
//! itself and of a bystander that only counts.
#![no_std]

extern crate alloc;

pub mod chatter;
pub mod connecting;
pub mod exchange;
pub mod exhausting;
pub mod fuzzing;
pub mod idling;
pub mod mesh;
pub mod peer;
pub mod racing;
pub mod victim;

use alloc::format;
use alloc::string::String;
use core::fmt::Display;

use boot_archive::Archive;
use lmp::invocation::MapFlags;
use lmp::objects::PAGE_SIZE;
use lmp::{CPtr, ObjType};
use results::{Event, EventKind};
use runtime::memory::Mapped;
use runtime::spawn::{Child, DomainBuilder};
use runtime::{Env, memory, output, println};

/// The module that victims run.
pub const CHILD: &str = "test_child";

/// RAM of a victim for its own use, in bytes.
pub const CHILD_RAM: u64 = 256 << 10;

/// Task slot in which a victim finds the page it shares with the test.
pub const SHARED: CPtr = CPtr::new(0, 40);

/// A test under way: counts what held and what did not.
pub struct Test {
    env: Env,
    failed: u64,
}

impl Test {
    /// A test in this domain.
    pub fn new(env: &Env) -> Test {
        Test { env: *env, failed: 0 }
    }

    /// The arguments and start information.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.env.number("seed", 1)
    }

    /// Reports the check `name`.
    pub fn check<E: Display>(&mut self, name: &str, result: Result<(), E>) {
        match result {
            Ok(()) => {
                println!("PASS {name}");
                output::record(Event::new(EventKind::CheckPassed).name(name));
            }
            Err(why) => {
                self.failed += 1;
                println!("FAIL {name}: {why}");
                output::record(Event::new(EventKind::CheckFailed).name(name).detail(&format!("{why}")));
            }
        }
    }

    /// The exit code: 0 if all checks held.
    pub fn finish(self) -> u64 {
        u64::from(self.failed > 0)
    }

    /// The file of the module [`CHILD`].
    ///
    /// # Errors
    /// If it is not there.
    pub fn module(&self) -> Result<&'static [u8], String> {
        let archive = self.env.archive().and_then(|bytes| Archive::parse_table(bytes).ok());
        let file = archive.and_then(|archive| archive.get(CHILD));
        file.map(|f| f.bytes).ok_or_else(|| format!("module {CHILD} is not in the boot archive"))
    }

    /// A victim with the arguments `args` and a page shared with it. It does not run yet.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn victim(&self, args: &str, shared: &Shared) -> Result<Child, String> {
        DomainBuilder::new(CHILD, self.module()?)
            .args(args)
            .memory(CHILD_RAM)
            .grant(SHARED, shared.frame)
            .build()
            .map_err(|e| format!("{e}"))
    }
}

/// A page of words shared by a test and its victim.
pub struct Shared {
    frame: CPtr,
    mapped: Mapped,
    words: *mut u64,
}

impl Shared {
    /// A new page, zeroed.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn new() -> Result<Shared, String> {
        let frame = memory::allocate(ObjType::Frame, PAGE_SIZE).map_err(|e| format!("{e}"))?.cap;
        Shared::of(frame)
    }

    /// The page in `frame`.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn of(frame: CPtr) -> Result<Shared, String> {
        let flags = MapFlags::READ | MapFlags::WRITE;
        let mapped = memory::map(frame, 0, PAGE_SIZE, flags).map_err(|e| format!("{e}"))?;
        Ok(Shared { frame, words: mapped.as_ptr(), mapped })
    }

    /// Takes it out of this domain's memory.
    pub fn unmap(self) {
        // SAFETY: nothing refers to the page any more.
        unsafe { memory::unmap(self.mapped) };
    }

    /// Word `index`.
    pub fn get(&self, index: usize) -> u64 {
        assert!(index < 512);
        // SAFETY: the page is mapped for good, and the index is within it; volatile, since another domain
        // writes it.
        unsafe { self.words.add(index).read_volatile() }
    }

    /// Sets word `index`.
    pub fn set(&self, index: usize, value: u64) {
        assert!(index < 512);
        // SAFETY: as in `get`.
        unsafe { self.words.add(index).write_volatile(value) }
    }
}

/// A domain that only counts, to see that it goes on.
pub struct Bystander {
    child: Child,
    shared: Shared,
}

impl Bystander {
    /// Starts one.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn start(test: &Test) -> Result<Bystander, String> {
        let shared = Shared::new()?;
        let child = test.victim("mode=count", &shared)?;
        child.start().map_err(|e| format!("{e}"))?;
        Ok(Bystander { child, shared })
    }

    /// Whether it goes on: that it counts further while this domain yields.
    ///
    /// # Errors
    /// What has become of it.
    pub fn check(&self) -> Result<(), String> {
        let before = self.shared.get(0);
        for _ in 0..1000 {
            let _ = lmp::syscall::yield_core();
            if self.shared.get(0) != before {
                return Ok(());
            }
        }
        Err(match self.child.end() {
            Some(end) => format!("the bystander ended: {end}"),
            None => String::from("the bystander does not go on"),
        })
    }

    /// Takes it down.
    ///
    /// # Errors
    /// Why that did not work.
    pub fn stop(self) -> Result<(), String> {
        self.child.destroy().map_err(|e| format!("{e}"))
    }
}

/// Pseudo-random numbers from a seed: xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators, scrambled", 2016).
pub struct Random(u64);

impl Random {
    /// A sequence of its own for every seed.
    pub const fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next_u64() % limit.max(1)
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A number that is more likely than others to be at a border.
    pub fn awkward(&mut self) -> u64 {
        const BORDERS: [u64; 14] = [
            0,
            1,
            u64::MAX,
            1 << 63,
            (1 << 63) - 1,
            1 << 47,
            (1 << 47) - 1,
            0xffff_8000_0000_0000,
            0xffff_ffff_8020_0000,
            lmp::layout::USER_TOP,
            lmp::layout::IMAGE_BASE,
            4096,
            4095,
            1 << 32,
        ];
        match self.below(4) {
            0 => self.pick(&BORDERS),
            1 => self.below(64),
            2 => self.below(1 << 16),
            _ => self.next_u64(),
        }
    }
}
