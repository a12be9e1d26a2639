//! How many seats a request takes: one, but for those that may read many objects. Pure.
//!
//! Behaviour: upstream's estimate by size. What is read from the cache is written in pieces, so its cost is bounded
//! whatever the number of objects. Writes take one seat: the work that each watcher of an object costs upstream is done here
//! once for all of them.

use crate::cache::ResourceCache;
use crate::options::Options;
use crate::request_info::RequestInfo;

/// A seat is good for so many bytes in memory at a time.
const BYTES_PER_SEAT: usize = 100_000;
/// No more than so many are in memory at a time when a list is read from the cache.
const MOST_BYTES: usize = 1_000_000;
/// No request takes more seats, however wide its level.
const MOST_SEATS: usize = 100;

/// The seats of a request; `widest` is what its level gives to one request at most.
pub fn seats(info: &RequestInfo<'_>, options: &Options, cache: Option<&ResourceCache>, widest: usize) -> usize {
    let reads = match info.verb {
        "list" => true,
        "watch" => begins_with_objects(options),
        _ => false,
    };
    let Some(cache) = cache.filter(|_| reads) else { return 1 };
    let mut objects = cache.len();
    if options.limit > 0 {
        objects = objects.min(options.limit);
    }
    if !info.name.is_empty() {
        objects = 1;
    }
    let bytes = (objects * cache.typical_size()).min(MOST_BYTES);
    bytes.div_ceil(BYTES_PER_SEAT).clamp(1, widest.clamp(1, MOST_SEATS))
}

/// Whether a watch first tells what there is.
pub fn begins_with_objects(options: &Options) -> bool {
    options.send_initial_events == Some(true) || matches!(options.resource_version.as_str(), "" | "0")
}
