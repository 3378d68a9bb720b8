#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sockshim_ring::fuzzing::direction_words(bytes));
