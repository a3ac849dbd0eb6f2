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

/// The IPv4 address that packets to an IPv6 address end up at: IPv4-mapped (::ffff:0:0/96), IPv4-compatible (::/96),
/// IPv4-translated (::ffff:0:0:0/96), NAT64 (64:ff9b::/96), 6to4 (2002::/16) and ISATAP (interface identifiers
/// 0:5efe:V4 and 200:5efe:V4 in any network). Teredo hides one too, but no Teredo address is public, nor one of a
/// local-use NAT64 (64:ff9b:1::/48), of which nobody but its network knows where in it the IPv4 address stands.
fn embedded_ipv4(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let last = || Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last()),
        // :: and ::1 are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, ..] => Some(last()),
        [0x2002, high, low, ..] => Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        // Only in networks that are public themselves: in others it would make a refused address look like a public one.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, ..] if is_public_ipv6(s) => Some(last()),
        _ => None,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(a == 0                                  // "this network"
                || v4.is_private()                    // 10/8, 172.16/12, 192.168/16
                || (a == 100 && (64..128).contains(&b)) // shared, carrier NAT; a cloud's metadata at 100.100.100.200
                || v4.is_loopback()
                || v4.is_link_local()                 // 169.254/16, with the metadata services of clouds
                || v4.octets() == [168, 63, 129, 16]  // Azure's metadata, an address from public space
                || (a == 192 && b == 0 && c == 0)     // protocol assignments; a cloud's metadata at 192.0.0.192
                || v4.is_documentation()
                || (a == 192 && b == 88 && c == 99)   // 6to4 relays, deprecated
                || (a == 198 && (18..20).contains(&b)) // benchmarking
                || v4.is_multicast()
                || a >= 240) // reserved, and broadcast
        }
        IpAddr::V6(v6) => is_public_ipv6(v6.segments()),
    }
}

fn is_public_ipv6(s: [u16; 8]) -> bool {
    // Only 2000::/3 is handed out as global unicast; within it a few blocks are not.
    (s[0] & 0xe000) == 0x2000
        && !(s[0] == 0x2001 && s[1] < 0x200)   // protocol assignments: Teredo, ORCHID, benchmarking, …
        && !(s[0] == 0x2001 && s[1] == 0x0db8) // documentation
        && !(s[0] == 0x3fff && s[1] < 0x1000)  // documentation
        && s[0] != 0x3ffe // the 6bone's, given back
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(guard: &AddressGuard, text: &str) -> bool {
        guard.permits(text.parse().expect("an address"))
    }

    /// Every entry of the IANA special-purpose registries that is not global, by its first and last address and by the
    /// neighbours that are public, and what clouds put where. docs/safety.md shows this table.
    const REFUSED: &[(&str, &[&str])] = &[
        ("0.0.0.0/8 this network", &["0.0.0.0", "0.1.2.3", "0.255.255.255"]),
        ("10.0.0.0/8 private", &["10.0.0.0", "10.0.0.1", "10.255.255.255"]),
        ("100.64.0.0/10 shared", &["100.64.0.0", "100.100.100.200", "100.127.255.255"]),
        ("127.0.0.0/8 loopback", &["127.0.0.0", "127.0.0.1", "127.255.255.255"]),
        ("168.63.129.16 metadata", &["168.63.129.16"]),
        (
            "169.254.0.0/16 link-local, metadata",
            &["169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255"],
        ),
        ("172.16.0.0/12 private", &["172.16.0.0", "172.31.255.255"]),
        ("192.0.0.0/24 protocol assignments", &["192.0.0.0", "192.0.0.8", "192.0.0.170", "192.0.0.192", "192.0.0.255"]),
        ("192.0.2.0/24 documentation", &["192.0.2.0", "192.0.2.255"]),
        ("192.88.99.0/24 6to4 relays", &["192.88.99.0", "192.88.99.255"]),
        ("192.168.0.0/16 private", &["192.168.0.0", "192.168.255.255"]),
        ("198.18.0.0/15 benchmarking", &["198.18.0.0", "198.19.255.255"]),
        ("198.51.100.0/24 documentation", &["198.51.100.0", "198.51.100.255"]),
        ("203.0.113.0/24 documentation", &["203.0.113.0", "203.0.113.255"]),
        ("224.0.0.0/4 multicast", &["224.0.0.0", "239.255.255.255"]),
        ("240.0.0.0/4 reserved", &["240.0.0.0", "255.255.255.254"]),
        ("255.255.255.255 broadcast", &["255.255.255.255"]),
        (":: unspecified", &["::"]),
        ("::1 loopback", &["::1"]),
        ("::/96 IPv4-compatible", &["::127.0.0.1", "::10.0.0.1", "::2"]),
        ("::ffff:0:0/96 IPv4-mapped", &["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"]),
        ("::ffff:0:0:0/96 IPv4-translated", &["::ffff:0:127.0.0.1", "::ffff:0:10.0.0.1"]),
        ("64:ff9b::/96 NAT64", &["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1"]),
        ("64:ff9b:1::/48 local NAT64", &["64:ff9b:1::1", "64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"]),
        ("100::/64 discard", &["100::", "100::1", "100::ffff:ffff:ffff:ffff"]),
        ("100:0:0:1::/64 dummy", &["100:0:0:1::", "100:0:0:1::1"]),
        ("2001::/23 protocol assignments", &["2001::", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::1"]),
        ("2001::/32 Teredo", &["2001:0:4136:e378:8000:63bf:3fff:fdd2"]),
        ("2001:db8::/32 documentation", &["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ("2002::/16 6to4", &["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1", "2002:c0a8:1::1"]),
        ("3ffe::/16 given back", &["3ffe::1"]),
        ("3fff::/20 documentation", &["3fff::", "3fff:fff:ffff::1"]),
        (
            "4000::/2 and other space that nobody has",
            &["4000::1", "5f00::1", "8000::1", "e000::1", "200::1", "1000::1"],
        ),
        ("fc00::/7 unique-local, metadata", &["fc00::", "fd00:ec2::254", "fd20:ce::254", "fdff::1"]),
        ("fe80::/10 link-local", &["fe80::", "fe80::1", "febf::1"]),
        ("fec0::/10 site-local", &["fec0::1"]),
        ("ff00::/8 multicast", &["ff02::1", "ff0e::1"]),
        ("ISATAP", &["2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:127.0.0.1", "2001:db8::5efe:8.8.8.8"]),
    ];

    const PUBLIC: &[&str] = &[
        "1.0.0.0",
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "151.101.0.1",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2000::1",
        "2001:200::1",
        "2001:db7:ffff::1",
        "2001:db9::1",
        "2606:4700::1111",
        "2620:4f:8000::1",
        "3fff:1000::1",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
        "2002:101:101::1",
        "2606:4700::5efe:1.1.1.1",
    ];

    #[test]
    fn only_public_addresses_pass() {
        let guard = AddressGuard::default();
        for public in PUBLIC {
            assert!(permits(&guard, public), "{public}");
        }
        for (what, addresses) in REFUSED {
            for address in *addresses {
                assert!(!permits(&guard, address), "{what}: {address}");
            }
        }
    }

    #[test]
    fn what_was_allowed_passes_in_every_spelling() {
        let guard = AddressGuard::new(vec!["127.0.0.0/8".parse().expect("a network")]);
        assert!(permits(&guard, "127.0.0.1"));
        for spelling in
            ["::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::", "2606:4700::5efe:127.0.0.1"]
        {
            assert!(permits(&guard, spelling), "{spelling}");
        }
        assert!(!permits(&guard, "10.0.0.1"));
        assert!(!permits(&guard, "::1"));
    }
}
