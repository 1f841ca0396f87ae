//! The capability database, with invocations from any register words.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::database(input));
