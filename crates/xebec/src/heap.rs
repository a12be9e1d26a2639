//! The allocator: mimalloc, with a sample of what is in use for heap profiles.
//!
//! The server makes and drops buffers of a list's pieces, frames and records on several threads; mimalloc hands the same
//! pages out again, where the C library's allocator gives them back to the kernel and faults them in anew.
//!
//! About one allocation in half a megabyte is remembered with the calls that led to it, until it is freed, as Go's runtime does
//! it. The others cost a subtraction, and a look into a small table when they are freed. Symbols are looked up only when
//! a profile is asked for.
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mimalloc::MiMalloc;
use xebec_apiserver::profile::{Frame, Profile, Sample};

/// So many bytes are allocated between two samples of a thread.
const INTERVAL: isize = 512 * 1024;
/// So many calls of a sample are kept.
const DEPTH: usize = 48;
/// Places in the table that tells at a glance whether an address may be sampled.
const PLACES: usize = 8192;

pub struct SamplingAllocator;

/// What is remembered of an allocation.
struct Remembered {
    size: usize,
    calls: Box<[usize]>,
}

static LIVE: Mutex<Option<HashMap<usize, Remembered>>> = Mutex::new(None);
/// How many remembered addresses fall into each place.
static TABLE: [AtomicU16; PLACES] = [const { AtomicU16::new(0) }; PLACES];

thread_local! {
    /// Bytes until the thread's next sample.
    static LEFT: Cell<isize> = const { Cell::new(INTERVAL) };
    /// The thread is remembering an allocation; those that it makes for that are not looked at.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every call is passed on to mimalloc with the arguments it came with, and its answer is returned as
// it is; what happens beside that neither reads nor writes the memory that is handed out.
unsafe impl GlobalAlloc for SamplingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        let address = unsafe { MiMalloc.alloc(layout) };
        allocated(address, layout.size());
        address
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        let address = unsafe { MiMalloc.alloc_zeroed(layout) };
        allocated(address, layout.size());
        address
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // Before it is freed: afterwards another thread may be given the same address.
        freed(address);
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { MiMalloc.dealloc(address, layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        freed(address);
        // SAFETY: the caller keeps the contract of `realloc`, which is the same.
        let address = unsafe { MiMalloc.realloc(address, layout, size) };
        allocated(address, size);
        address
    }
}

fn allocated(address: *mut u8, size: usize) {
    let left = LEFT.get() - size as isize;
    LEFT.set(left);
    if left < 0 {
        remember(address as usize, size);
    }
}

fn freed(address: *mut u8) {
    if TABLE[place(address as usize)].load(Ordering::Relaxed) != 0 {
        forget(address as usize);
    }
}

/// Allocations lie on multiples of sixteen.
fn place(address: usize) -> usize {
    (address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48 & (PLACES - 1)
}

#[cold]
fn remember(address: usize, size: usize) {
    LEFT.set(INTERVAL);
    if address == 0 || BUSY.replace(true) {
        return;
    }
    let mut calls = Vec::with_capacity(DEPTH);
    backtrace::trace(|frame| {
        calls.push(frame.ip() as usize);
        calls.len() < DEPTH
    });
    if let Ok(mut live) = LIVE.lock() {
        let known = live.get_or_insert_default().insert(address, Remembered { size, calls: calls.into() });
        if known.is_none() {
            TABLE[place(address)].fetch_add(1, Ordering::Relaxed);
        }
    }
    BUSY.set(false);
}

#[cold]
fn forget(address: usize) {
    // What is freed while something is remembered was allocated for that, and is not remembered itself.
    if BUSY.replace(true) {
        return;
    }
    let known = LIVE.lock().ok().and_then(|mut live| live.as_mut()?.remove(&address));
    if known.is_some() {
        TABLE[place(address)].fetch_sub(1, Ordering::Relaxed);
    }
    drop(known);
    BUSY.set(false);
}

/// What is in use, each sample standing for those like it that were not taken.
pub fn profile() -> Profile {
    BUSY.set(true);
    let live: Vec<(usize, Box<[usize]>)> = LIVE.lock().map_or_else(
        |_| Vec::new(),
        |live| live.iter().flatten().map(|(_, one)| (one.size, one.calls.clone())).collect(),
    );
    BUSY.set(false);
    let mut known: HashMap<usize, Vec<Frame>> = HashMap::new();
    let samples = live.iter().map(|(size, calls)| {
        let stack = calls.iter().flat_map(|address| known.entry(*address).or_insert_with(|| frames(*address)).clone());
        // The chance that an allocation of this size is taken.
        let chance = 1.0 - (-(*size as f64) / INTERVAL as f64).exp();
        let values = vec![(1.0 / chance).round() as i64, (*size as f64 / chance).round() as i64];
        Sample { stack: stack.collect(), values }
    });
    let samples = samples.collect();
    // The symbols of the whole program are several times its size; the next profile reads them again.
    backtrace::clear_symbol_cache();
    Profile {
        samples,
        kinds: vec![("inuse_objects", "count"), ("inuse_space", "bytes")],
        period: (("space", "bytes"), INTERVAL as i64),
        duration: Duration::ZERO,
    }
}

/// The functions at an address, the innermost of inlined ones first.
fn frames(address: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(address as *mut std::ffi::c_void, |symbol| {
        frames.push(Frame {
            address: address as u64,
            function: symbol.name().map_or_else(|| "unknown".to_owned(), |name| format!("{name:#}")),
            file: symbol.filename().map(|file| file.display().to_string()).unwrap_or_default(),
            line: symbol.lineno().map_or(0, i64::from),
        });
    });
    if frames.is_empty() {
        frames.push(Frame { address: address as u64, function: format!("{address:#x}"), ..Frame::default() });
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8 << 20;

    /// Called for its name.
    #[inline(never)]
    fn keep_a_lot(layout: Layout) -> *mut u8 {
        // SAFETY: the layout is not empty.
        let address = unsafe { SamplingAllocator.alloc(layout) };
        assert!(!address.is_null());
        address
    }

    #[test]
    fn what_is_in_use_is_found_until_it_is_freed() {
        let found = || {
            let profile = profile();
            let mine = |sample: &&Sample| sample.stack.iter().any(|frame| frame.function.contains("keep_a_lot"));
            profile.samples.iter().find(mine).map(|sample| sample.values[1])
        };
        let layout = Layout::from_size_align(SIZE, 16).unwrap();
        let kept = keep_a_lot(layout);
        // Much larger than the interval: taken almost for sure, and so standing for hardly more than itself.
        let bytes = found().expect("it is in the profile");
        assert!((SIZE as i64..SIZE as i64 + 64).contains(&bytes), "{bytes}");
        // SAFETY: it was allocated with this layout, and nobody uses it.
        unsafe { SamplingAllocator.dealloc(kept, layout) };
        assert_eq!(found(), None);
    }
}
