#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sockshim::fuzzing::handoff_file(bytes));
