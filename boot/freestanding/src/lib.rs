//! What a freestanding binary needs from its environment: the memory and string routines that the compiler and the
//! precompiled `core` call by name.
//!
//! Link it with `use boot_freestanding as _;`. The string instructions make each routine a few lines that no
//! optimiser can turn back into a call of itself, and they use no vector register, which the entry paths of the
//! CPU driver rely on. They move eight bytes at a time: under `-icount` a `rep` of n counts n + 1.
//!
//! The symbols exist only where there is no C library to collide with: test builds give the same code mangled
//! names and compare it with the standard library's.
#![cfg_attr(not(test), no_std)]

use core::arch::asm;
use core::ffi::{c_char, c_int, c_void};

/// Copies `n` bytes from `src` to `dest`, which must not overlap, and returns `dest`.
///
/// # Safety
/// `src` must be valid for reads and `dest` for writes of `n` bytes, and the two must not overlap; the direction
/// flag must be clear, as the ABI demands at every call.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(dest: *mut c_void, src: *const c_void, n: usize) -> *mut c_void {
    // SAFETY: the caller vouches for both ranges and for the direction flag.
    unsafe { copy_forward(dest, src, n) }
    dest
}

/// Copies `n` bytes from `src` to `dest`, which may overlap, and returns `dest`.
///
/// # Safety
/// `src` must be valid for reads and `dest` for writes of `n` bytes; the direction flag must be clear.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(dest: *mut c_void, src: *const c_void, n: usize) -> *mut c_void {
    // Forwards is wrong only where `dest` lies within `src..src + n`: a word would be overwritten before it is
    // read.
    if (dest as usize).wrapping_sub(src as usize) >= n {
        // SAFETY: the caller vouches for both ranges and for the direction flag.
        unsafe { copy_forward(dest, src, n) }
    } else {
        // SAFETY: the caller vouches for both ranges and for the direction flag.
        unsafe { copy_backward(dest, src, n) }
    }
    dest
}

/// Fills `n` bytes from `dest` with the low byte of `value`, and returns `dest`.
///
/// # Safety
/// `dest` must be valid for writes of `n` bytes; the direction flag must be clear.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memset(dest: *mut c_void, value: c_int, n: usize) -> *mut c_void {
    let pattern = u64::from(value as u8) * 0x0101_0101_0101_0101;
    // SAFETY: the caller vouches for `n` bytes: `n / 8` words, then `n % 8` bytes. The registers that the
    // instructions change are declared.
    unsafe {
        asm!("rep stosq", "mov ecx, {tail:e}", "rep stosb", tail = in(reg) n % 8,
            inout("rcx") n / 8 => _, inout("rdi") dest => _, in("rax") pattern,
            options(nostack, preserves_flags));
    }
    dest
}

/// Compares `n` bytes: negative, 0 or positive as the first that differ, taken as unsigned, order.
///
/// # Safety
/// `a` and `b` must be valid for reads of `n` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(a: *const c_void, b: *const c_void, n: usize) -> c_int {
    let mut i = 0;
    while i + 8 <= n {
        // SAFETY: `i + 8 <= n`, and the caller vouches for `n` bytes of both.
        let (x, y) = unsafe {
            (a.byte_add(i).cast::<u64>().read_unaligned(), b.byte_add(i).cast::<u64>().read_unaligned())
        };
        if x != y {
            // The first byte that differs is the most significant one in big-endian order.
            return if x.swap_bytes() < y.swap_bytes() { -1 } else { 1 };
        }
        i += 8;
    }
    while i < n {
        // SAFETY: `i < n`, and the caller vouches for `n` bytes of both.
        let (x, y) = unsafe { (a.byte_add(i).cast::<u8>().read(), b.byte_add(i).cast::<u8>().read()) };
        if x != y {
            return c_int::from(x) - c_int::from(y);
        }
        i += 1;
    }
    0
}

/// Compares `n` bytes: 0 where all are equal, else not 0.
///
/// # Safety
/// `a` and `b` must be valid for reads of `n` bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(a: *const c_void, b: *const c_void, n: usize) -> c_int {
    // SAFETY: the caller's contract is `memcmp`'s.
    unsafe { memcmp(a, b, n) }
}

/// Counts the bytes of a string before its terminating zero.
///
/// # Safety
/// `s` must be valid for reads up to and including a zero byte.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn strlen(s: *const c_char) -> usize {
    let mut n = 0;
    // SAFETY: every byte up to the zero is readable, as the caller vouches.
    while unsafe { s.add(n).read() } != 0 {
        n += 1;
    }
    n
}

/// Copies ascending: `n / 8` words, then `n % 8` bytes.
///
/// # Safety
/// `src` must be valid for reads and `dest` for writes of `n` bytes, `dest` must not lie within `src..src + n`,
/// and the direction flag must be clear.
#[inline(always)]
unsafe fn copy_forward(dest: *mut c_void, src: *const c_void, n: usize) {
    // SAFETY: the caller vouches for both ranges and the direction; the registers that the instructions change
    // are declared.
    unsafe {
        asm!("rep movsq", "mov ecx, {tail:e}", "rep movsb", tail = in(reg) n % 8,
            inout("rcx") n / 8 => _, inout("rdi") dest => _, inout("rsi") src => _,
            options(nostack, preserves_flags));
    }
}

/// Copies descending: `n % 8` bytes from the end, then `n / 8` words. `n` must not be 0.
///
/// # Safety
/// `src` must be valid for reads and `dest` for writes of `n` bytes, and `dest` must not lie within
/// `src - n..src`; the direction flag must be clear, and is again on return.
#[inline(always)]
unsafe fn copy_backward(dest: *mut c_void, src: *const c_void, n: usize) {
    // SAFETY: the caller vouches for both ranges and the direction. The byte copy starts at the last byte and
    // leaves the pointers one below the tail; seven less is the last word.
    unsafe {
        asm!("std", "rep movsb", "sub rsi, 7", "sub rdi, 7", "mov rcx, {words}", "rep movsq", "cld",
            words = in(reg) n / 8, inout("rcx") n % 8 => _,
            inout("rdi") dest.wrapping_byte_add(n - 1) => _, inout("rsi") src.wrapping_byte_add(n - 1) => _,
            options(nostack));
    }
}

#[cfg(test)]
mod tests {
    use super::{bcmp, memcmp, memcpy, memmove, memset, strlen};

    const LENGTHS: [usize; 12] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 200];

    fn sample(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 37 + 11) as u8).collect()
    }

    #[test]
    fn memcpy_copies_exactly_n_bytes() {
        for n in LENGTHS {
            for shift in 0..9 {
                let src = sample(n + shift);
                let mut dest = vec![0xee; n + 2 * shift];
                let start = dest[shift..].as_mut_ptr().cast();
                // SAFETY: both ranges are within their vectors, which are distinct.
                let back = unsafe { memcpy(start, src[shift..].as_ptr().cast(), n) };
                assert_eq!(back, start);
                assert_eq!(dest[shift..shift + n], src[shift..]);
                assert!(
                    dest[..shift].iter().chain(&dest[shift + n..]).all(|&b| b == 0xee),
                    "n {n} shift {shift}"
                );
            }
        }
    }

    #[test]
    fn memmove_equals_copy_within_for_every_overlap() {
        for n in LENGTHS {
            for (from, to) in
                [(0, 0), (0, 1), (1, 0), (0, 7), (7, 0), (3, 11), (11, 3), (0, 16), (16, 0), (0, 250)]
            {
                let mut expected = sample(500);
                let mut got = expected.clone();
                expected.copy_within(from..from + n, to);
                let base = got.as_mut_ptr();
                // SAFETY: `from`, `to` and `n` keep both ranges within the 500 bytes.
                unsafe { memmove(base.add(to).cast(), base.add(from).cast(), n) };
                assert_eq!(got, expected, "n {n} from {from} to {to}");
            }
        }
    }

    #[test]
    fn memset_fills_exactly_n_bytes_with_the_low_byte() {
        for n in LENGTHS {
            let mut got = vec![0xee_u8; n + 4];
            // SAFETY: `2 + n` is within the vector.
            unsafe { memset(got[2..].as_mut_ptr().cast(), 0x1_a5, n) };
            assert!(got[2..2 + n].iter().all(|&b| b == 0xa5));
            assert_eq!((&got[..2], &got[2 + n..]), (&[0xee; 2][..], &[0xee; 2][..]));
        }
    }

    #[test]
    fn strlen_stops_at_the_first_zero() {
        for (text, expected) in [(c"", 0), (c"a", 1), (c"limine", 6)] {
            // SAFETY: a C string ends with a zero.
            assert_eq!(unsafe { strlen(text.as_ptr()) }, expected);
        }
    }

    #[test]
    fn memcmp_orders_as_slices_do() {
        for n in LENGTHS {
            for at in 0..n {
                for (x, y) in [(0x00, 0xff), (0xff, 0x00), (0x7f, 0x80), (1, 1)] {
                    let (mut a, mut b) = (sample(n), sample(n));
                    (a[at], b[at]) = (x, y);
                    // A later difference must not count.
                    a[n - 1] ^= u8::from(at + 1 < n);
                    // SAFETY: both vectors are `n` bytes long.
                    let (order, differs) = unsafe {
                        (
                            memcmp(a.as_ptr().cast(), b.as_ptr().cast(), n),
                            bcmp(a.as_ptr().cast(), b.as_ptr().cast(), n),
                        )
                    };
                    assert_eq!(order.cmp(&0), a.cmp(&b), "n {n} at {at}");
                    assert_eq!(differs == 0, a == b);
                }
            }
        }
    }
}
