#![no_main]
// The same comparison as in the tests of crates/tcpip.
#[allow(dead_code, reason = "the tests use its addresses too")]
#[path = "../../crates/tcpip/tests/common/oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oracle::all(bytes));
