//! How the heap treats what carriers free.
//!
//! A bulk flow allocates and frees its pieces all the time. glibc gives what is free at a heap's end back to the kernel
//! beyond 128 KiB, and the next piece pays for those pages again: a fifth of the agent's time (docs/performance.md).
#![expect(unsafe_code, reason = "no library in use sets glibc's thresholds")]

/// Allocations from this size on are mapped by themselves, and given back when freed, in bytes.
const MAPPED: i32 = 512 << 10;

/// Lets so many bytes at the end of each heap stay free: as many as wait in front of carriers and programs in full swing.
/// To be called once, before threads begin. Does nothing where the C library is not glibc.
pub fn keep_freed(bytes: i32) {
    // SAFETY: mallopt takes plain numbers, and is called before other threads are there (mallopt(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// Gives what is free back to the kernel, when it will not be needed soon. Takes some milliseconds.
pub fn give_back() {
    // SAFETY: malloc_trim takes its locks itself (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
