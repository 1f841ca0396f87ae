//! Places for machines: a few for all tests of the workspace, in however many threads and processes they run.
//!
//! A place is a lock on a file, so the kernel gives it back however its holder ends.

use std::fs::{File, TryLockError};
use std::time::Duration;

/// Machines that run at a time.
pub const PLACES: usize = 2;

/// How often to look for a free place.
const LOOK: Duration = Duration::from_millis(20);

/// Places that are held until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Places {
    _locks: Vec<File>,
}

/// The file of that place, beside the test binaries.
///
/// # Panics
/// If it cannot be opened: the directory that everything is built into cannot be written.
fn file(place: usize) -> File {
    let program = std::env::current_exe().expect("a test knows where it is");
    let path = program.with_file_name(format!("test-machine-{place}.lock"));
    let opened = File::options().create(true).append(true).open(&path);
    opened.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Waits for one place.
///
/// # Panics
/// If files cannot be locked.
pub fn one() -> Places {
    let mut files: Vec<File> = (0..PLACES).map(file).collect();
    loop {
        for index in 0..files.len() {
            match files[index].try_lock() {
                Ok(()) => return Places { _locks: vec![files.swap_remove(index)] },
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("locking a file: {error}"),
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Waits for all places, for a machine whose vCPUs have a thread each. Who waits so takes them in order and so
/// never waits for one who waits for it.
///
/// # Panics
/// If files cannot be locked.
pub fn all() -> Places {
    let files: Vec<File> = (0..PLACES).map(file).collect();
    for file in &files {
        file.lock().unwrap_or_else(|error| panic!("locking a file: {error}"));
    }
    Places { _locks: files }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_finds_no_place_waits() {
        let everything = all();
        let (sender, receiver) = channel();
        let waiter = std::thread::spawn(move || {
            let place = one();
            sender.send(()).expect("the test waits");
            drop(place);
        });
        assert!(receiver.recv_timeout(10 * LOOK).is_err(), "it did not wait");
        drop(everything);
        waiter.join().expect("it gets its place");
        assert!(receiver.try_recv().is_ok());
    }
}
