//! The reader of executables, with any file.
#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| hostile::elf(file));
