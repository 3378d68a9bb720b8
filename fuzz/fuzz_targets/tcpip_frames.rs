#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sockshim_tcpip::fuzzing::frames(bytes));
