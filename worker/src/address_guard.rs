//! The address guard: which addresses may be connected to. Pure.
//!
//! It judges addresses, never names: the fetcher asks it about every address that a name resolved to, at the moment of
//! connecting, so a name that changes its mind between a check and a connection (rebinding) gains nothing.
//! Source: the IANA special-purpose address registries (RFC 6890 and its updates).

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Lets public addresses through, and those of networks that were allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct AddressGuard {
    allowed: Vec<IpNet>,
}

impl AddressGuard {
    pub(crate) fn new(allowed: Vec<IpNet>) -> AddressGuard {
        AddressGuard { allowed }
    }

    /// Whether `address` may be connected to.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6 clothes is that IPv4 address, for the rules and for the allowed networks.
        let bare = match address {
            IpAddr::V6(v6) => embedded_ipv4(v6).map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        self.allowed.iter().any(|network| network.contains(&address) || network.contains(&bare)) || is_public(bare)
    }
}

/// IPv4-mapped (::ffff:0:0/96), IPv4-compatible (::/96), NAT64 (64:ff9b::/96) and 6to4 (2002::/16) addresses carry an
/// IPv4 address that packets end up at.
fn embedded_ipv4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let last = || Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last()),
        // :: and ::1 are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, ..] => Some(last()),
        [0x2002, high, low, ..] => Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        _ => None,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(a == 0                                  // "this network"
                || v4.is_private()                    // 10/8, 172.16/12, 192.168/16
                || (a == 100 && (64..128).contains(&b)) // shared, carrier NAT
                || v4.is_loopback()
                || v4.is_link_local()                 // 169.254/16, with the metadata services of clouds
                || (a == 192 && b == 0 && c == 0)     // protocol assignments
                || v4.is_documentation()
                || (a == 192 && b == 88 && c == 99)   // 6to4 relays, deprecated
                || (a == 198 && (18..20).contains(&b)) // benchmarking
                || v4.is_multicast()
                || a >= 240) // reserved, and broadcast
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            // Only 2000::/3 is handed out as global unicast; within it a few blocks are not.
            (s[0] & 0xe000) == 0x2000
                && !(s[0] == 0x2001 && s[1] < 0x200)      // protocol assignments: Teredo, ORCHID, benchmarking, …
                && !(s[0] == 0x2001 && s[1] == 0x0db8)    // documentation
                && !(s[0] == 0x3fff && s[1] < 0x1000) // documentation
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(guard: &AddressGuard, text: &str) -> bool {
        guard.permits(text.parse().expect("an address"))
    }

    #[test]
    fn only_public_addresses_pass() {
        let guard = AddressGuard::default();
        for public in [
            "1.1.1.1",
            "151.101.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.32.0.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
        ] {
            assert!(permits(&guard, public), "{public}");
        }
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!permits(&guard, refused), "{refused}");
        }
    }

    #[test]
    fn what_was_allowed_passes_in_every_spelling() {
        let guard = AddressGuard::new(vec!["127.0.0.0/8".parse().expect("a network")]);
        assert!(permits(&guard, "127.0.0.1"));
        assert!(permits(&guard, "::ffff:127.0.0.1"));
        assert!(!permits(&guard, "10.0.0.1"));
        assert!(!permits(&guard, "::1"));
    }
}
