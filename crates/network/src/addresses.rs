//! Which addresses of the node's range are in use.
//!
//! Pure. An address that became free is given out again as late as possible, so that a client with a stale address meets
//! nobody rather than a stranger.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

#[derive(Debug)]
pub struct Addresses {
    range: Ipv4Net,
    /// Those that no Pod may have: the gateway and what else the node answers on.
    reserved: BTreeSet<Ipv4Addr>,
    used: BTreeSet<Ipv4Addr>,
    last: Ipv4Addr,
}

impl Addresses {
    pub fn new(range: Ipv4Net, reserved: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        let reserved = reserved.into_iter().chain([range.network(), range.broadcast()]).collect();
        Self { range, reserved, used: BTreeSet::new(), last: range.network() }
    }

    /// Marks an address as used by something that exists; `false` where it lies outside or is taken.
    pub fn claim(&mut self, address: Ipv4Addr) -> bool {
        let fits = self.range.contains(&address) && !self.reserved.contains(&address) && self.used.insert(address);
        if fits {
            self.last = self.last.max(address);
        }
        fits
    }

    /// The next free address after the one given out last.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let (first, last) = (u32::from(self.range.network()), u32::from(self.range.broadcast()));
        let start = u32::from(self.last);
        let candidates = (start..=last).skip(1).chain(first..=start).map(Ipv4Addr::from);
        let free = candidates.into_iter().find(|a| !self.reserved.contains(a) && !self.used.contains(a))?;
        self.used.insert(free);
        self.last = free;
        Some(free)
    }

    pub fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }

    pub fn used(&self) -> usize {
        self.used.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(net: &str) -> Addresses {
        let net: Ipv4Net = net.parse().unwrap();
        let gateway = Ipv4Addr::from(u32::from(net.network()) + 1);
        Addresses::new(net, [gateway])
    }

    fn ip(last: u8) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::new(10, 244, 3, last))
    }

    #[test]
    fn a_freed_address_comes_last() {
        let mut addresses = range("10.244.3.0/29");
        assert_eq!([addresses.allocate(), addresses.allocate()], [ip(2), ip(3)]);
        addresses.release(ip(2).unwrap());
        assert_eq!([(); 4].map(|()| addresses.allocate()), [ip(4), ip(5), ip(6), ip(2)]);
        assert_eq!(addresses.allocate(), None);
        addresses.release(ip(5).unwrap());
        assert_eq!(addresses.allocate(), ip(5));
        assert_eq!(addresses.used(), 5);
    }

    #[test]
    fn what_exists_is_claimed_once() {
        let mut addresses = range("10.244.3.0/24");
        let mut claim = |last| addresses.claim(ip(last).unwrap());
        assert_eq!([claim(9), claim(9), claim(1), claim(0), claim(255)], [true, false, false, false, false]);
        assert!(!addresses.claim(Ipv4Addr::new(10, 244, 4, 9)));
        assert_eq!(addresses.allocate(), ip(10));
    }
}
