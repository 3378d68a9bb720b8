use super::{MOST, MOST_PIECES, Rest, USER_END, gather, good, is_known, remember, scatter, total};
use crate::error::Errno;
use libc::iovec;
use proptest::prelude::*;
use sockshim_ring::ring::Span;

fn describe(buffers: &mut [Vec<u8>]) -> Vec<iovec> {
    buffers
        .iter_mut()
        .map(|buffer| iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect()
}

fn at(address: usize, length: usize) -> iovec {
    iovec { iov_base: address as *mut _, iov_len: length }
}

/// Buffers with different bytes everywhere, and empty ones among them.
fn buffers() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)
}

proptest! {
    #[test]
    fn gather_then_scatter_moves_every_byte(
        mut from in buffers(),
        mut to in buffers(),
        shift in 0..9u32,
        position in any::<u64>(),
        skips in (0..50usize, 0..50usize),
        count in 0..300usize,
        past in any::<bool>(),
    ) {
        let capacity = 1u32 << shift;
        let span = Span { position, length: capacity as usize, capacity };
        let (sent, room) = (from.concat(), to.concat());
        let (skip_from, skip_to) = (skips.0.min(sent.len()), skips.1.min(room.len()));
        let count = count.min(span.length).min(sent.len() - skip_from).min(room.len() - skip_to);
        let mut ring = vec![0; capacity as usize];

        // SAFETY: the ring has `capacity` bytes, the buffers live.
        unsafe { gather(ring.as_mut_ptr(), span, &describe(&mut from), skip_from, count, past) };
        for (index, byte) in sent[skip_from..][..count].iter().enumerate() {
            let offset = position.wrapping_add(index as u64) % u64::from(capacity);
            prop_assert_eq!(ring[offset as usize], *byte);
        }

        // SAFETY: the pieces are this test's own.
        unsafe { scatter(ring.as_ptr(), span, &describe(&mut to), skip_to, count) };
        let mut expected = room;
        expected[skip_to..][..count].copy_from_slice(&sent[skip_from..][..count]);
        prop_assert_eq!(to.concat(), expected);
        prop_assert_eq!(from.concat(), sent);
    }

    #[test]
    fn the_rest_is_what_was_not_moved(mut buffers in buffers(), skip in 0..300usize, limit in 0..300usize) {
        let all = buffers.concat();
        let described = describe(&mut buffers);
        let mut rest = Rest::after(&described, skip, limit);
        let left = all.get(skip..).unwrap_or_default();
        prop_assert_eq!(rest.length(), left.len().min(limit));
        let message = rest.message();
        let mut seen = Vec::new();
        for index in 0..message.msg_iovlen {
            // SAFETY: the message's pieces live in `rest`.
            let piece = unsafe { *message.msg_iov.wrapping_add(index) };
            // SAFETY: they point into `buffers`.
            seen.extend_from_slice(unsafe { std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len) });
        }
        prop_assert_eq!(&seen[..], &left[..left.len().min(limit)]);
    }

    #[test]
    fn any_lengths_and_addresses_give_a_total_or_an_error(list in prop::collection::vec((any::<usize>(), any::<usize>()), 0..4)) {
        let list: Vec<_> = list.into_iter().map(|(address, length)| at(address, length)).collect();
        match total(&list) {
            Ok(sum) => prop_assert!(sum <= MOST),
            Err(error) => prop_assert!(matches!(error, Errno(libc::EINVAL | libc::EFAULT))),
        }
    }
}

#[test]
fn addresses_that_no_program_owns_are_refused() {
    // Null and its neighbours are told by `good`.
    assert_eq!(good(&[at(0, 1)], 0, 1, false), 0);
    assert_eq!(good(&[at(4095, 1)], 0, 1, true), 0);
    assert_eq!(total(&[at(USER_END, 1)]), Err(Errno(libc::EFAULT)));
    assert_eq!(total(&[at(USER_END - 1, 2)]), Err(Errno(libc::EFAULT)));
    assert_eq!(total(&[at(usize::MAX, 1)]), Err(Errno(libc::EFAULT)));
    assert_eq!(total(&[at(USER_END - 1, 1)]), Ok(1));
    // Nobody looks at the address of an empty buffer.
    assert_eq!(total(&[at(0, 0), at(4096, 5)]), Ok(5));
}

#[test]
fn lengths_beyond_the_address_space_are_refused_as_by_the_kernel() {
    let most = isize::MAX as usize;
    assert_eq!(total(&[at(4096, most), at(4096, 1)]), Err(Errno(libc::EFAULT)));
    assert_eq!(total(&[at(4096, usize::MAX), at(4096, 2)]), Err(Errno(libc::EINVAL)));
    // The kernel moves no more than this at once, and looks no further.
    assert_eq!(total(&[at(4096, MOST + 1)]), Ok(MOST));
    assert_eq!(total(&[]), Ok(0));
}

#[test]
fn more_pieces_than_fit_make_a_short_transfer() {
    let mut buffers = vec![vec![1u8]; MOST_PIECES + 10];
    let described = describe(&mut buffers);
    assert_eq!(Rest::after(&described, 1, usize::MAX).length(), MOST_PIECES);
    // Unless all is left: then the program's own array is passed on.
    assert_eq!(Rest::after(&described, 0, usize::MAX).length(), MOST_PIECES + 10);
}

#[test]
fn pages_of_many_threads_are_remembered_side_by_side() {
    // As stacks (8 MB each) and heaps (64 MB each) lie, in addresses that nobody has.
    for (first, distance) in [(0x6000_0000_0000usize, 8 << 20), (0x6800_0000_0000, 64 << 20)] {
        let pages: Vec<usize> = (0..64).map(|thread| (first + thread * distance) >> 12).collect();
        pages.iter().for_each(|page| remember(*page, true));
        assert!(pages.iter().all(|page| is_known(*page, true)));
    }
}
