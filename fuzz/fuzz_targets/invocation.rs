//! The decoding of invocations, with any register words.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hostile::invocation(input));
