#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sockshim::fuzzing::folder_entries(bytes));
