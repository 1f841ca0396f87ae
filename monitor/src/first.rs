//! [`First`]: what only the first core's monitor knows, because it alone speaks with the knowledge base: who is up,
//! whose channels are whose, who waits for a name.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use lmp::CPtr;
use lmp::objects::PAGE_SIZE;
use runtime::interface::TEXT_WORDS;
use runtime::interface::monitor::{Iref, MonitorError};

use crate::binding::Form;
use crate::channels::{Home, Layout, outbox_bytes};
use crate::mesh::Block;
use crate::port::{Copied, Placement, Port};
use crate::state::{FIRST_CORE, Monitor, limit};
use crate::wire::Intermon;

/// A channel: its frames, and who still uses it.
#[derive(Debug)]
struct Channel {
    /// Capability and address of the forward outbox, the backward outbox and the pieces.
    frames: Vec<(CPtr, u64)>,
    /// The cores of the client and the server, as long as they use it.
    ends: [Option<u32>; 2],
}

/// The state of the first core's monitor.
#[derive(Debug, Default)]
pub(crate) struct First {
    /// The other cores whose monitors answered.
    pub(crate) up: BTreeSet<u32>,
    /// Pairs of cores that were given a channel, the lower core first.
    pub(crate) pairs: BTreeSet<(u32, u32)>,
    /// Per node, where the next channel between monitors goes.
    pub(crate) blocks: BTreeMap<u16, Block>,
    channels: BTreeMap<u64, Channel>,
    /// Look-ups that wait, oldest first: core, request, name.
    lookups: Vec<(u32, u64, [u64; TEXT_WORDS])>,
    names: Vec<(Iref, [u64; TEXT_WORDS])>,
}

impl First {
    /// Whether there are no channels, names or look-ups.
    pub(crate) fn is_idle(&self) -> bool {
        self.channels.is_empty() && self.lookups.is_empty() && self.names.is_empty()
    }

    /// Whether the frame at `base` is a channel's, which only the ends of that channel get.
    pub(crate) fn is_of_a_channel(&self, base: u64) -> bool {
        self.channels.values().flat_map(|c| &c.frames).any(|(_, frame)| *frame == base)
    }

    /// The capabilities for the frames of a channel.
    pub(crate) fn frames_of(&self, channel: u64) -> Option<Vec<CPtr>> {
        self.channels.get(&channel).map(|c| c.frames.iter().map(|(cap, _)| *cap).collect())
    }
}

impl Monitor {
    /// Takes a message that only the first core's monitor gets.
    pub(crate) fn message_to_first<P: Port>(&mut self, port: &mut P, core: u32, message: Intermon) {
        use Intermon as M;
        if self.first.is_none() {
            self.ignored.unknown += 1;
            return;
        }
        match message {
            M::MeshAsk { peer } => self.make_mesh(port, core, peer),
            M::ChannelAsk { server, client_core, client, form, pool, seed } => {
                self.make_channel(port, (core, server), (client_core, client), form, pool, seed);
            }
            M::ChannelDone { channel, end } => self.channel_done(port, core, channel, end),
            M::Register { request, iref, name } => {
                let answer = match self.register(port, core, Iref(iref), name) {
                    Ok(()) => M::Done { request, value: 0 },
                    Err(error) => M::Failed { request, error: error as u64 },
                };
                self.tell(port, core, answer);
            }
            M::Lookup { request, name } => self.look_up(port, core, request, name),
            M::Forget { request } => {
                if let Some(first) = &mut self.first {
                    first.lookups.retain(|(c, r, _)| (*c, *r) != (core, request));
                }
            }
            M::Withdraw { iref } => self.withdraw(port, core, Iref(iref)),
            M::Core { request, core: about } => self.tell_about(port, core, request, about),
            M::Memory { request, node } => {
                let memory = u16::try_from(node).map_err(|_| MonitorError::NotFound);
                let answer = match memory.and_then(|node| port.memory(node)) {
                    Ok((free, all)) => M::MemoryIs { request, free, all },
                    Err(error) => M::Failed { request, error: error as u64 },
                };
                self.tell(port, core, answer);
            }
            _ => self.ignored.unknown += 1,
        }
    }

    fn is_up(&self, core: u32) -> bool {
        core == FIRST_CORE || self.first.as_ref().is_some_and(|first| first.up.contains(&core))
    }

    fn make_channel<P: Port>(
        &mut self,
        port: &mut P,
        server: (u32, u64),
        client: (u64, u64),
        form: u64,
        pool: u64,
        seed: u64,
    ) {
        let client_core = u32::try_from(client.0).ok().filter(|core| self.is_up(*core));
        let Some(client_core) = client_core else {
            let refusal = Intermon::GrantRefused { to: server.1, error: MonitorError::NoCore as u64 };
            self.tell(port, server.0, refusal);
            return;
        };
        let client = (client_core, client.1);
        match self.allocate_channel(port, server.0, client.0, form, pool, seed) {
            Ok((channel, layout, piece, homes)) => {
                for (end, (to, peer)) in [(client, server), (server, client)].into_iter().enumerate() {
                    self.tell_grant(
                        port,
                        to,
                        peer.1,
                        channel,
                        Layout { end: end as u8, ..layout },
                        piece,
                        &homes,
                    );
                }
            }
            Err(error) => {
                for (core, to) in [client, server] {
                    self.tell(port, core, Intermon::GrantRefused { to, error: error as u64 });
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of two messages")]
    fn tell_grant<P: Port>(
        &mut self,
        port: &mut P,
        (core, to): (u32, u64),
        peer: u64,
        channel: u64,
        layout: Layout,
        piece: u64,
        homes: &[Home],
    ) {
        let [forward, backward, pieces @ ..] = homes else { return };
        let (forward, backward, layout) = (forward.0, backward.0, layout.encode());
        self.tell(port, core, Intermon::Grant { to, peer, channel, layout, piece, forward, backward });
        const AT_ONCE: usize = 4;
        for (i, some) in pieces.chunks(AT_ONCE).enumerate() {
            let mut homes = [0; AT_ONCE];
            for (home, piece) in homes.iter_mut().zip(some) {
                *home = piece.0;
            }
            self.tell(port, core, Intermon::Pieces { to, channel, first: (i * AT_ONCE) as u64, homes });
        }
    }

    /// Memory for a channel: its number, layout, bytes of a piece, and where the frames are.
    fn allocate_channel<P: Port>(
        &mut self,
        port: &mut P,
        server: u32,
        client: u32,
        form: u64,
        pool: u64,
        seed: u64,
    ) -> Result<(u64, Layout, u64, Vec<Home>), MonitorError> {
        let form = Form::decode(form).ok_or(MonitorError::BadArgument)?;
        let outbox = outbox_bytes(form.lines).ok_or(MonitorError::BadArgument)?;
        if self.first.as_ref().is_none_or(|first| first.channels.len() >= limit::CHANNELS) {
            return Err(MonitorError::Exhausted);
        }
        let (producer, consumer) = if form.client_consumes { (server, client) } else { (client, server) };
        let placement = Placement { policy: form.policy, producer, consumer, seed, pool };
        let places = port.place(placement)?;
        let pieces = if pool == 0 { 0 } else { places.pieces };
        let nodes = places.nodes.get(..pieces).filter(|_| pool == 0 || pieces > 0);
        let nodes = nodes.ok_or(MonitorError::BadArgument)?;
        let piece = match pieces as u64 {
            0 => 0,
            n => pool.div_ceil(n).checked_next_multiple_of(PAGE_SIZE).ok_or(MonitorError::BadArgument)?,
        };
        let [data_node, forward, backward] = places.homes;
        let wanted =
            [(forward, outbox), (backward, outbox)].into_iter().chain(nodes.iter().map(|n| (*n, piece)));
        let mut frames = Vec::with_capacity(2 + pieces);
        let mut homes = Vec::with_capacity(2 + pieces);
        for (node, bytes) in wanted {
            match port.allocate(node, bytes) {
                Ok((cap, base)) => {
                    // Whoever holds a copy here could take all other copies down, were there none elsewhere.
                    port.set_copied(cap, Copied::Yes);
                    frames.push((cap, base));
                    homes.push(Home::new(base, node));
                }
                Err(error) => {
                    give_back(port, frames);
                    return Err(error);
                }
            }
        }
        let number = self.fresh();
        let Some(first) = &mut self.first else { return Err(MonitorError::WrongState) };
        first.channels.insert(number, Channel { frames, ends: [Some(client), Some(server)] });
        let layout = Layout { pieces: pieces as u8, end: 0, data_node };
        Ok((number, layout, piece, homes))
    }

    fn channel_done<P: Port>(&mut self, port: &mut P, core: u32, channel: u64, end: u64) {
        let Some(first) = &mut self.first else { return };
        let known = first.channels.get_mut(&channel);
        let end =
            known.and_then(|c| c.ends.get_mut(usize::try_from(end).ok()?)).filter(|e| **e == Some(core));
        let Some(end) = end else {
            self.ignored.stale += 1;
            return;
        };
        *end = None;
        if first.channels.get(&channel).is_some_and(|c| c.ends == [None, None])
            && let Some(done) = first.channels.remove(&channel)
        {
            give_back(port, done.frames);
        }
    }

    fn register<P: Port>(
        &mut self,
        port: &mut P,
        core: u32,
        iref: Iref,
        name: [u64; TEXT_WORDS],
    ) -> Result<(), MonitorError> {
        let Some(first) = &mut self.first else { return Err(MonitorError::WrongState) };
        if iref.core() != core {
            return Err(MonitorError::NotFound);
        }
        let others = first.names.iter().filter(|(_, n)| *n != name).count();
        if others >= limit::NAMES {
            return Err(MonitorError::Exhausted);
        }
        port.register(name, iref)?;
        first.names.retain(|(_, n)| *n != name);
        first.names.push((iref, name));
        let (found, rest) = core::mem::take(&mut first.lookups).into_iter().partition(|(_, _, n)| *n == name);
        first.lookups = rest;
        let found: Vec<_> = found;
        for (core, request, _) in found {
            self.tell(port, core, Intermon::Done { request, value: iref.0 });
        }
        Ok(())
    }

    fn look_up<P: Port>(&mut self, port: &mut P, core: u32, request: u64, name: [u64; TEXT_WORDS]) {
        let answer = match port.lookup(name) {
            Some(iref) => Intermon::Done { request, value: iref.0 },
            None => {
                let Some(first) = &mut self.first else { return };
                if first.lookups.len() < limit::LOOKUPS {
                    first.lookups.push((core, request, name));
                    return;
                }
                Intermon::Failed { request, error: MonitorError::Exhausted as u64 }
            }
        };
        self.tell(port, core, answer);
    }

    fn withdraw<P: Port>(&mut self, port: &mut P, core: u32, iref: Iref) {
        let Some(first) = &mut self.first else { return };
        if iref.core() != core {
            self.ignored.unknown += 1;
            return;
        }
        first.names.retain(|(named, name)| {
            if *named != iref {
                return true;
            }
            // The name had room there, so taking it away has, too.
            let _ = port.register(*name, Iref(0));
            false
        });
    }

    fn tell_about<P: Port>(&mut self, port: &mut P, core: u32, request: u64, about: u64) {
        let facts = u32::try_from(about).map_err(|_| MonitorError::NoCore).and_then(|about| port.core(about));
        let up = 1 + self.first.as_ref().map_or(0, |first| first.up.len()) as u64;
        let answer = match facts {
            Ok(facts) => Intermon::CoreIs {
                request,
                up,
                core: u64::from(facts.core),
                node: u64::from(facts.node),
                apic: u64::from(facts.apic),
                nodes: u64::from(facts.nodes),
            },
            Err(error) => Intermon::Failed { request, error: error as u64 },
        };
        self.tell(port, core, answer);
    }
}

/// Gives frames back to the knowledge base.
fn give_back<P: Port>(port: &mut P, frames: Vec<(CPtr, u64)>) {
    for (cap, base) in frames {
        port.set_copied(cap, Copied::No);
        port.free(cap, base);
    }
}
