//! The memory of flows: two buffers each, mapped, of which only pages that were touched are resident.
//!
//! Allocated memory would not do: an allocator may hand out used memory and would have to clear, so touch, all of it.

use std::cell::RefCell;
use std::io;

use memmap2::{Advice, MmapMut};

/// What a flow of few bytes leaves behind is kept for the next, so many of them for each thread. Mapping, page faults and
/// unmapping are a twentieth of what such a flow costs.
const KEPT: usize = 16;
/// Most bytes that such a flow moved both ways together: what it touched stays resident.
const FEW: usize = 16 * 1024;

thread_local! {
    static MAPS: RefCell<Vec<MmapMut>> = const { RefCell::new(Vec::new()) };
}

/// `length` bytes: clear, or with what a flow before moved in them, which the next one writes over before it reads.
pub(super) fn take(length: usize) -> io::Result<MmapMut> {
    if let Some(map) = MAPS.with_borrow_mut(|maps| maps.pop_if(|map| map.len() == length)) {
        return Ok(map);
    }
    let map = MmapMut::map_anon(length)?;
    // With huge pages the first byte would cost 2 MiB.
    map.advise(Advice::NoHugePage).ok();
    Ok(map)
}

/// Keeps it for the next flow, if this one `moved` few bytes.
pub(super) fn give_back(map: MmapMut, moved: usize) {
    MAPS.with_borrow_mut(|maps| {
        if moved <= FEW && maps.len() < KEPT {
            maps.push(map);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_little_is_used_again_and_else_not() {
        let mut map = take(1 << 16).expect("mapped");
        map[0] = 7;
        let place = map.as_ptr();
        give_back(map, FEW);
        let mut map = take(1 << 16).expect("mapped");
        assert_eq!((map.as_ptr(), map[0]), (place, 7));
        map[0] = 8;
        give_back(map, FEW + 1);
        assert_eq!(take(1 << 16).expect("mapped")[0], 0);
    }

    #[test]
    fn few_are_kept() {
        let maps: Vec<MmapMut> = (0..KEPT + 5).map(|_| take(4096).expect("mapped")).collect();
        maps.into_iter().for_each(|map| give_back(map, 0));
        assert_eq!(MAPS.with_borrow(Vec::len), KEPT);
    }
}
