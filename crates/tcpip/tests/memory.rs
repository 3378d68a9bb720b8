//! What a connection takes of memory when nothing happens on it, counted at the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::stack::Stack;

#[path = "../benches/net/mod.rs"]
mod net;

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: each call is the system's, with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As many as fill tables that double: what stands empty in them for growth is counted as well.
const CONNECTIONS: usize = 4096;

/// What `docs/tcpip.md` promises.
const MOST: usize = 766;

#[test]
fn an_idle_connection_has_no_memory_for_what_is_in_flight() {
    let mut net = net::Net::new(0);
    let before = HELD.load(Relaxed);
    let pairs: Vec<_> = (0..CONNECTIONS).map(|number| net.open(number)).collect();
    for &pair in &pairs {
        net.send(pair, 10 * net::MSS);
    }
    // Delayed acknowledgements, and the timers that find nothing to do.
    while net.sleep() {
        net.pump();
    }
    drop(pairs);
    let each = (HELD.load(Relaxed) - before) / (2 * CONNECTIONS);
    let struct_size = Stack::<VecMemory>::connection_size();
    println!("{each} bytes for each end, of which {struct_size} are its structure");
    assert!(each <= MOST, "{each} bytes");
    assert!(each > struct_size, "the count is of all connections");
}
