//! A domain that executes message forms as the test tells it, through a shared page.
//!
//! It yields until there is a command, executes it, and says so. While a form waits, its dispatcher is blocked,
//! which the test can see.

use alloc::format;
use alloc::string::String;

use lmp::frame::FRAME_SIZE;
use lmp::invocation::{DispatcherState, Op};
use lmp::{CPtr, ObjType, Rights, layout, message, syscall};
use runtime::memory::{self, Object};
use runtime::spawn::{Child, DomainBuilder, End};

use crate::exchange::{REGISTERS, Registers};
use crate::{SHARED, Shared, Test};

/// Slots of a peer: its own endpoints.
pub const OWN: [CPtr; 2] = [CPtr::new(0, 48), CPtr::new(0, 49)];
/// Slots of a peer: where the test put what it granted.
pub const GRANTS: u32 = 50;
/// Slots of a peer that are empty at start: this one and those up to 127.
pub const EMPTY: CPtr = CPtr::new(0, 80);
/// Events of a peer's endpoints.
pub const EVENTS: [u64; 2] = [3, 4];
/// Labels of a peer's endpoints.
pub const LABELS: [u32; 2] = [0xfeed_0001, 0xfeed_0002];
/// Messages that fit into the buffer of each of a peer's endpoints.
pub const ROOM: u64 = 2;
/// Offsets of those buffers in the dispatcher frame.
pub const BUFFERS: [u64; 2] = [FRAME_SIZE, FRAME_SIZE + 1024];

/// Yields after which a peer that neither finished nor blocked counts as stuck.
const PATIENCE: u32 = 200;

/// RAM of a peer for its own use, in bytes.
const RAM: u64 = 16 << 10;

// Words of the shared page.
const COMMAND: usize = 0;
const DONE: usize = 1;
const KIND: usize = 2;
const ARGUMENT: usize = 3;
const REGISTER: usize = 8;

/// What a peer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Kind {
    Exchange = 1,
    Deadline = 2,
    TakeEvents = 3,
    Exit = 4,
    Fault = 5,
    Disabled = 6,
    TakeMessage = 7,
}

/// A peer, as the test sees it.
pub struct Peer {
    child: Child,
    page: Object,
    shared: Shared,
    commands: u64,
    /// Its endpoints.
    pub endpoints: [Object; 2],
    freed: [bool; 2],
    /// The pattern in its registers wherever nothing is sent.
    pub pattern: u64,
}

fn text(what: &str) -> impl Fn(lmp::SysError) -> String {
    move |e| format!("{what}: {e}")
}

impl Peer {
    /// Starts one that has the capabilities `grants` in slots from [`GRANTS`] on, with rights and badge.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub fn start(test: &Test, pattern: u64, grants: &[(CPtr, Rights, u64)]) -> Result<Peer, String> {
        let page = memory::allocate(ObjType::Frame, lmp::objects::PAGE_SIZE).map_err(|e| format!("{e}"))?;
        let shared = Shared::of(page.cap)?;
        let mut endpoints = [page; 2];
        for e in &mut endpoints {
            *e = memory::allocate(ObjType::Endpoint, 0).map_err(|e| format!("{e}"))?;
        }
        let mut builder = DomainBuilder::new("peer", test.module()?)
            .args(&format!("mode=peer pattern={pattern}"))
            .memory(RAM)
            .grant(SHARED, page.cap);
        for (slot, e) in OWN.into_iter().zip(endpoints) {
            builder = builder.grant(slot, e.cap);
        }
        for (n, (cap, rights, badge)) in grants.iter().enumerate() {
            builder = builder.grant_less(CPtr::new(0, GRANTS + n as u32), *cap, *rights, *badge);
        }
        let child = builder.build().map_err(|e| format!("{e}"))?;
        for n in 0..2 {
            let (e, offset) = (endpoints[n].cap, BUFFERS[n]);
            syscall::endpoint_bind(e, child.dispatcher(), offset, ROOM, EVENTS[n], LABELS[n])
                .map_err(text("binding"))?;
        }
        child.start().map_err(|e| format!("{e}"))?;
        Ok(Peer { child, page, shared, commands: 0, endpoints, freed: [false; 2], pattern })
    }

    fn command(&mut self, kind: Kind, argument: u64) {
        self.commands += 1;
        self.shared.set(KIND, kind as u64);
        self.shared.set(ARGUMENT, argument);
        self.shared.set(COMMAND, self.commands);
    }

    fn is_done(&self) -> bool {
        self.shared.get(DONE) == self.commands
    }

    /// Where its dispatcher stands.
    pub fn state(&self) -> DispatcherState {
        self.child.status().map_or(DispatcherState::Ended, |s| s.state)
    }

    /// Tells it to execute a form; it does when it gets the core.
    pub fn tell(&mut self, registers: Registers) {
        for (n, value) in registers.to_array().into_iter().enumerate() {
            self.shared.set(REGISTER + n, value);
        }
        self.command(Kind::Exchange, 0);
    }

    /// The same with the registers made here.
    pub fn tell_to(&mut self, op: Op, cap: CPtr, words: &[u64]) {
        self.tell(Registers::new(op, cap, words, 0, self.pattern));
    }

    /// Gives the core away until it has done as told.
    ///
    /// # Errors
    /// If it does not.
    pub fn result(&mut self) -> Result<Registers, String> {
        for _ in 0..PATIENCE {
            if self.is_done() {
                let mut registers = [0; REGISTERS];
                for (n, value) in registers.iter_mut().enumerate() {
                    *value = self.shared.get(REGISTER + n);
                }
                return Ok(Registers::from_array(registers));
            }
            let _ = syscall::yield_core();
        }
        Err(format!("the peer does not come back: it is {}", self.state().text()))
    }

    /// Gives the core away until it waits in the form that it was told.
    ///
    /// # Errors
    /// If it does not.
    pub fn waits(&self) -> Result<(), String> {
        for _ in 0..PATIENCE {
            if self.state() == DispatcherState::Blocked {
                return Ok(());
            }
            let _ = syscall::yield_core();
        }
        Err(format!("the peer does not wait: it is {}", self.state().text()))
    }

    /// Tells it to execute a form in which it then waits.
    ///
    /// # Errors
    /// If it does not wait.
    pub fn wait_in(&mut self, op: Op, cap: CPtr, words: &[u64]) -> Result<(), String> {
        self.tell_to(op, cap, words);
        self.waits()
    }

    /// Executes a form to its end.
    ///
    /// # Errors
    /// If it has none.
    pub fn run(&mut self, op: Op, cap: CPtr, words: &[u64]) -> Result<Registers, String> {
        self.tell_to(op, cap, words);
        self.result()
    }

    /// Executes a form with flags and slots to its end.
    ///
    /// # Errors
    /// If it has none.
    pub fn run_with(
        &mut self,
        op: Op,
        cap: CPtr,
        flags: u16,
        (send, landing): (CPtr, CPtr),
    ) -> Result<Registers, String> {
        self.tell(Registers::new(op, cap, &[], flags, self.pattern).slots(send, landing));
        self.result()
    }

    /// Sets the deadline of its receives.
    ///
    /// # Errors
    /// If it does not do so.
    pub fn set_deadline(&mut self, tsc: u64) -> Result<(), String> {
        self.command(Kind::Deadline, tsc);
        self.result().map(|_| ())
    }

    /// Fetches and clears its events.
    ///
    /// # Errors
    /// If it does not do so.
    pub fn take_events(&mut self) -> Result<u64, String> {
        self.command(Kind::TakeEvents, 0);
        self.result()?;
        Ok(self.shared.get(ARGUMENT))
    }

    /// Makes it disable upcalls, or enable them again, for good.
    ///
    /// # Errors
    /// If it does not do so.
    pub fn set_disabled(&mut self, disabled: u64) -> Result<(), String> {
        self.command(Kind::Disabled, disabled);
        self.result().map(|_| ())
    }

    /// Has it end itself with an exit code.
    ///
    /// # Errors
    /// If it does not end.
    pub fn exit(&mut self) -> Result<End, String> {
        self.command(Kind::Exit, 7);
        self.ends()
    }

    /// Has it raise a fault that ends it.
    ///
    /// # Errors
    /// If it does not end.
    pub fn fault(&mut self) -> Result<End, String> {
        self.command(Kind::Fault, 0);
        self.ends()
    }

    fn ends(&self) -> Result<End, String> {
        for _ in 0..PATIENCE {
            if let Some(end) = self.child.end() {
                return Ok(end);
            }
            let _ = syscall::yield_core();
        }
        Err(String::from("the peer does not end"))
    }

    /// The next message in the buffer of its endpoint `n`: whether there is one, badge, info, first word, where its
    /// capability went.
    ///
    /// # Errors
    /// If it does not look.
    pub fn take_message(&mut self, n: usize) -> Result<Option<[u64; 4]>, String> {
        self.command(Kind::TakeMessage, n as u64);
        self.result()?;
        let found = core::array::from_fn(|i| self.shared.get(ARGUMENT + 1 + i));
        Ok((self.shared.get(ARGUMENT) == 1).then_some(found))
    }

    /// Its domain.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Deletes its endpoint `n`.
    ///
    /// # Errors
    /// If that is refused.
    pub fn free_endpoint(&mut self, n: usize) -> Result<(), String> {
        self.freed[n] = true;
        memory::free(self.endpoints[n]).map_err(|e| format!("{e}"))
    }

    /// Takes it down, whatever it is doing, and gives everything back.
    ///
    /// # Errors
    /// Why that did not work.
    pub fn stop(self) -> Result<(), String> {
        let text = |e: memory::MemoryError| format!("{e}");
        self.child.destroy().map_err(|e| format!("{e}"))?;
        for (e, freed) in self.endpoints.into_iter().zip(self.freed) {
            if !freed {
                memory::free(e).map_err(text)?;
            }
        }
        self.shared.unmap();
        memory::free(self.page).map_err(text)
    }
}

/// The peer's side: does what it is told, for ever.
pub fn run(shared: &Shared) -> u64 {
    let control = layout::DISPATCHER_FRAME as *mut lmp::frame::Control;
    // SAFETY: the buffers are in this domain's frame, bound to its endpoints before it started, and used by
    // nothing else.
    let mut inboxes = BUFFERS.map(|offset| unsafe {
        message::Inbox::new((layout::DISPATCHER_FRAME + offset) as *mut _, ROOM as u32)
    });
    loop {
        let command = shared.get(COMMAND);
        if command == shared.get(DONE) {
            let _ = syscall::yield_core();
            continue;
        }
        match shared.get(KIND) {
            k if k == Kind::Exchange as u64 => {
                let given = core::array::from_fn(|n| shared.get(REGISTER + n));
                let found = Registers::from_array(given).execute();
                for (n, value) in found.to_array().into_iter().enumerate() {
                    shared.set(REGISTER + n, value);
                }
            }
            k if k == Kind::Deadline as u64 => {
                // SAFETY: the frame is mapped; the CPU driver reads the word at the next receive.
                unsafe { (&raw mut (*control).receive_deadline).write_volatile(shared.get(ARGUMENT)) };
            }
            k if k == Kind::TakeEvents as u64 => shared.set(ARGUMENT, runtime::events::take(u64::MAX)),
            k if k == Kind::Disabled as u64 => {
                // SAFETY: the frame is mapped; the CPU driver reads the word at the next entry.
                unsafe { (&raw mut (*control).disabled).write_volatile(shared.get(ARGUMENT)) };
            }
            k if k == Kind::TakeMessage as u64 => {
                let inbox = &mut inboxes[shared.get(ARGUMENT) as usize & 1];
                let found = inbox.take();
                shared.set(ARGUMENT, found.is_some().into());
                if let Some(m) = found {
                    let told = [m.badge, m.info.0, m.words[0], m.landed];
                    for (n, value) in told.into_iter().enumerate() {
                        shared.set(ARGUMENT + 1 + n, value);
                    }
                }
            }
            k if k == Kind::Exit as u64 => return shared.get(ARGUMENT),
            k if k == Kind::Fault as u64 => {
                // SAFETY: not safe at all: the domain is told to end so.
                unsafe { core::arch::asm!("ud2") }
            }
            _ => return 1,
        }
        shared.set(DONE, command);
    }
}
