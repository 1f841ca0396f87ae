//! What every core's page tables and control registers must look like, read out of a machine that was stopped:
//! no writable memory shared by two CPU drivers, nothing writable and executable, nothing of the kernel's in reach
//! of a domain.

use std::time::Duration;

use killifish::diagnose;
use results::{Accel, EventKind};
use serde_json::json;
use tests::tables::{Image, Snapshot};
use tests::{Boot, Cpu, Nodes, SHORT, images};

const CORES: u32 = 4;
const NODES: u32 = 2;
const MEMORY_MIB: u64 = 256;

/// A machine that stays up.
fn boot(words: &'static str) -> Boot {
    let (cores, nodes, memory_mib) = (CORES, NODES, MEMORY_MIB);
    Boot {
        cores,
        nodes: Nodes::Even(nodes),
        memory_mib,
        accel: Accel::Icount,
        cpu: Cpu::Usual,
        words,
        limit: SHORT,
    }
}

/// Stops a machine that has nothing to do when it is up, and reads its tables.
fn snapshot() -> Snapshot {
    boot("").stop_at(EventKind::Done, |qmp| Snapshot::take(qmp, CORES, MEMORY_MIB))
}

/// What must hold whatever the machine is doing.
fn audit(snapshot: &Snapshot) {
    let none: [String; 0] = [];
    let image = Image::read(&images().kernel);
    let names: Vec<&str> = image.guards.keys().map(String::as_str).collect();
    let guards = ["__ist1_guard", "__ist2_guard", "__ist3_guard", "__ist4_guard", "__stack_guard"];
    assert_eq!(names, guards);
    assert_eq!(snapshot.cores.len(), CORES as usize);

    assert_eq!(snapshot.writable_and_executable(), none);
    assert_eq!(snapshot.in_the_wrong_half(), none);
    assert_eq!(snapshot.not_code(&image), none);
    assert_eq!(snapshot.broken_guards(&image), none);
    assert_eq!(snapshot.shared_kernel_memory(), none);
    assert_eq!(snapshot.kernel_memory_of_users(), none);
    assert_eq!(snapshot.writable_aliases_of_code(&image), none);
    assert_eq!(snapshot.broken_links(), none);

    for (index, core) in snapshot.cores.iter().enumerate() {
        // The walk finds what QEMU finds, so what it says of the other address spaces can be believed.
        let loaded = core.spaces.iter().find(|space| space.root == core.control.cr3 & !0xfff);
        let loaded =
            loaded.unwrap_or_else(|| panic!("core {index}: {:x?} is none of its roots", core.control));
        let walked = loaded.mappings.iter().map(|m| (m.virt, m.phys)).collect();
        assert_eq!(core.loaded, walked, "core {index}");
        assert!(core.loaded.len() > 256, "core {index} has hardly any mappings");
    }
}

/// Control bits, from the Intel SDM, volume 3A, sections 2.5 and 2.2.1.
const CR0_BITS: [(&str, u32); 3] = [("PE", 0), ("WP", 16), ("PG", 31)];
const CR4_BITS: [(&str, u32); 6] =
    [("PAE", 5), ("UMIP", 11), ("FSGSBASE", 16), ("OSXSAVE", 18), ("SMEP", 20), ("SMAP", 21)];
const EFER_BITS: [(&str, u32); 4] = [("SCE", 0), ("LME", 8), ("LMA", 10), ("NXE", 11)];

#[test]
fn a_machine_that_is_up_keeps_its_cores_and_domains_apart() {
    let snapshot = snapshot();
    audit(&snapshot);

    for (index, core) in snapshot.cores.iter().enumerate() {
        let control = core.control;
        for (register, bits) in
            [(control.cr0, &CR0_BITS[..]), (control.cr4, &CR4_BITS[..]), (control.efer, &EFER_BITS[..])]
        {
            for (name, bit) in bits {
                let expected = *name != "SMAP" || tests::smap_is_on();
                assert_eq!(register & 1 << bit != 0, expected, "core {index}: {name} in {register:#x}");
            }
        }
        // `init` and a monitor on each core, each with an address space of its own.
        assert!(core.spaces.len() >= 3, "core {index}: {} address spaces", core.spaces.len());
    }
}

#[test]
fn a_cpu_driver_has_memory_of_its_node() {
    let snapshot = snapshot();
    let (cores, memory) = (CORES / NODES, (MEMORY_MIB << 20) / u64::from(NODES));
    // The first core has what the others were not given, on whatever node.
    for core in 1..CORES {
        let node = u64::from(core / cores);
        let own = node * memory..(node + 1) * memory;
        let ram = snapshot.kernel_ram(core as usize);
        assert!(!ram.is_empty());
        for range in ram {
            assert!(
                own.contains(&range.start) && range.end <= own.end,
                "core {core}: {range:x?} is not in {own:x?}"
            );
        }
    }
}

/// Times that a machine is stopped.
const TIMES: usize = 8;

/// Audits a machine with those words from an event on, whenever it then happens to be stopped.
fn audit_repeatedly(words: &'static str, from: EventKind) -> Vec<Snapshot> {
    let (snapshots, registers) = boot(words).stop_at(from, |qmp| {
        let mut snapshots = vec![Snapshot::take(qmp, CORES, MEMORY_MIB)?];
        let mut registers = vec![diagnose::registers(qmp)?];
        while snapshots.len() < TIMES {
            qmp.execute("cont", json!({}))?;
            std::thread::sleep(Duration::from_millis(50));
            qmp.stop()?;
            snapshots.push(Snapshot::take(qmp, CORES, MEMORY_MIB)?);
            registers.push(diagnose::registers(qmp)?);
        }
        Ok((snapshots, registers))
    });
    snapshots.iter().for_each(audit);
    assert!(registers.iter().any(|cores| *cores != registers[0]), "nothing happened: {registers:x?}");
    snapshots
}

/// Domains are started and ended, their memory used again and again.
#[test]
fn domains_that_come_and_go_change_nothing_about_it() {
    audit_repeatedly("bench=spawn samples=100000", EventKind::BenchStarted);
}

/// Domains fault, are upcalled and ended, each beside others.
#[test]
fn domains_that_fault_change_nothing_about_it() {
    audit_repeatedly("scenario=exceptions", EventKind::CheckPassed);
}

/// Links come and go, and the CPU driver reaches no more of their frames than a page.
#[test]
fn links_that_come_and_go_change_nothing_about_it() {
    let snapshots = audit_repeatedly("scenario=links", EventKind::CheckPassed);
    let links = snapshots.iter().map(|snapshot| snapshot.link_pages().len()).max();
    assert!(links >= Some(2), "no link was seen");
}
