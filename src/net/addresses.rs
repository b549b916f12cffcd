//! A server's addresses, in the order in which they are tried. Pure.

use std::net::SocketAddr;

/// The number of addresses that ureq's look-up returns at most.
const MAX_ADDRESSES: usize = 16;

/// The addresses that look-ups have found, ordered by what has become of them since.
#[derive(Debug, Default)]
pub struct Addresses {
    /// The address that worked last is the first, the one that failed last is the last.
    known: Vec<SocketAddr>,
    /// The first has answered, and none has failed since.
    good: bool,
}

impl Addresses {
    /// Returns whether a connection can be tried without a look-up.
    pub fn are_good(&self) -> bool {
        self.good
    }

    pub fn in_order(&self) -> &[SocketAddr] {
        &self.known
    }

    /// Takes the result of a look-up, of which new addresses are tried first.
    pub fn found(&mut self, found: &[SocketAddr]) {
        let new = found.iter().filter(|address| !self.known.contains(address));
        let old = self.known.iter().filter(|address| found.contains(address));
        self.known = new.chain(old).copied().collect();
    }

    /// Moves an address to the front that has answered a request. A connection or a handshake is
    /// not enough.
    pub fn worked(&mut self, address: SocketAddr) {
        self.good = true;
        self.known.retain(|known| *known != address);
        self.known.insert(0, address);
        self.known.truncate(MAX_ADDRESSES);
    }

    /// Moves an address that has not answered to the end, and asks for a look-up.
    pub fn failed(&mut self, address: SocketAddr) {
        self.good = false;
        if let Some(at) = self.known.iter().position(|known| *known == address) {
            let failed = self.known.remove(at);
            self.known.push(failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> SocketAddr {
        ([10, 0, 0, number], 443).into()
    }

    fn found(addresses: &mut Addresses, numbers: &[u8]) {
        let all: Vec<SocketAddr> = numbers.iter().map(|number| address(*number)).collect();
        addresses.found(&all);
    }

    #[track_caller]
    fn check(addresses: &Addresses, good: bool, numbers: &[u8]) {
        let all: Vec<SocketAddr> = numbers.iter().map(|number| address(*number)).collect();
        assert_eq!(
            (addresses.are_good(), addresses.in_order()),
            (good, &all[..])
        );
    }

    #[test]
    fn what_worked_is_first_and_what_failed_last_over_look_ups() {
        let mut addresses = Addresses::default();
        check(&addresses, false, &[]);
        found(&mut addresses, &[1, 2, 3]);
        // What is found is not yet good.
        check(&addresses, false, &[1, 2, 3]);
        addresses.failed(address(1));
        addresses.worked(address(2));
        check(&addresses, true, &[2, 3, 1]);
        addresses.failed(address(2));
        found(&mut addresses, &[1, 2, 3]);
        check(&addresses, false, &[3, 1, 2]);
        // Each has its turn.
        addresses.failed(address(3));
        found(&mut addresses, &[1, 2, 3]);
        check(&addresses, false, &[1, 2, 3]);
        // New ones are the better ones, and what the name is not at any more is left.
        found(&mut addresses, &[3, 4, 2, 5]);
        check(&addresses, false, &[4, 5, 2, 3]);
        addresses.worked(address(3));
        check(&addresses, true, &[3, 4, 5, 2]);
    }

    #[test]
    fn where_all_fail_their_order_stays() {
        let mut addresses = Addresses::default();
        found(&mut addresses, &[1, 2, 3]);
        for number in [1, 2, 3] {
            addresses.failed(address(number));
        }
        check(&addresses, false, &[1, 2, 3]);
    }
}
