//! What `init` found out about the machine, as results that the host command reads.

use core::fmt::Write as _;

use alloc::string::String;

use results::{Event, EventKind};
use runtime::output;
use skb::{Complaints, Topology};

/// Words in one event: each has up to 16 digits and a space, and a line of the console at most 4096 bytes.
const WORDS: usize = 200;

/// The topology, word by word as [`Topology::encode`] makes them, and what firmware's tables lacked.
pub(crate) fn topology(topology: &Topology, complaints: &Complaints) {
    let words = topology.encode();
    for (index, part) in words.chunks(WORDS).enumerate() {
        let mut detail = String::new();
        for (index, word) in part.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            // Writing to a string cannot fail.
            let _ = write!(detail, "{space}{word:x}");
        }
        let first = (index * WORDS) as u64;
        output::record(Event::new(EventKind::Topology).detail(&detail).value(first));
    }
    for complaint in complaints.as_slice() {
        let mut detail = String::new();
        let _ = write!(detail, "{complaint}");
        output::record(Event::new(EventKind::Complaint).detail(&detail));
    }
    if complaints.more() > 0 {
        output::record(Event::new(EventKind::Complaint).value(complaints.more() as u64));
    }
}
