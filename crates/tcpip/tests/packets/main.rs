//! What TCP does with each kind of segment, one at a time. docs/tcpip.md lists which of RFC 9293's rules each test shows.

mod as_linux;
mod closing;
mod data;
mod ecn;
mod forged;
mod interfaces;
mod listening;
mod losses;
mod memory;
mod opening;
mod options;
mod pushing;
mod shared;
mod timers;
mod urgent;
mod util;
mod windows;
