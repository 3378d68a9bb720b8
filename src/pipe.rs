//! One connection over shared memory.
