//! Bytes arrive once, in order, whatever the sizes and the calls that move them.

use std::{mem, ptr, thread};

use crate::data::{Flow, Random};
use crate::harness::{Case, Environment, assert_on_pipe, case, dialogue, environment};
use crate::sys::{self, call, fails};

pub(crate) const CASES: &[Case] = &[dialogue(
    "sizes_from_1_byte_to_8_mb_echo",
    |end| {
        let (mut out, mut back) = (Flow::new(1), Flow::new(2));
        for size in SIZES {
            out.write(end.fd, size, size);
            back.read(end.fd, size, size);
        }
        assert_on_pipe(end.fd);
    },
    |end| {
        let (mut out, mut back) = (Flow::new(1), Flow::new(2));
        for size in SIZES {
            out.read(end.fd, size, size);
            back.write(end.fd, size, size);
        }
    },
)];

const SIZES: [usize; 16] =
    [1, 2, 3, 7, 63, 64, 65, 199, 200, 201, 1000, 4096, 65535, 65537, 1_000_003, 8 << 20];
