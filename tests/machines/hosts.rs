//! Hosts as network namespaces, each with one link to the network of Redis and one to that of the origin, which can be cut.
//!
//! The networks are bridges in the namespace of the test itself, where Redis and the origin are.

use harness::{RawQueue, Worker};
use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the script sets once it is inside.
const INSIDE: &str = "IMGQ_TEST_INSIDE_NAMESPACES";

/// Whether this runs in namespaces of its own, where nobody else sees its networks and mounts.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// One of the two networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    Redis,
    Origin,
}

impl Net {
    const ALL: [Net; 2] = [Net::Redis, Net::Origin];

    /// The name of a host's end of its link.
    fn name(self) -> &'static str {
        match self {
            Net::Redis => "redis",
            Net::Origin => "origin",
        }
    }

    /// The first two numbers of its addresses.
    fn prefix(self) -> &'static str {
        match self {
            Net::Redis => "10.77",
            Net::Origin => "10.78",
        }
    }
}

/// The two networks of one test, with addresses of their own: tests run beside each other.
#[derive(Debug)]
pub(crate) struct Networks {
    number: usize,
    hosts: Cell<usize>,
}

impl Networks {
    /// # Panics
    /// When they cannot be made, or would be made on the machine itself.
    pub(crate) fn new() -> Networks {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        assert!(is_inside(), "run this with scripts/machines-test.sh");
        let networks = Networks { number: NUMBER.fetch_add(1, Ordering::Relaxed), hosts: Cell::new(0) };
        for net in Net::ALL {
            let bridge = networks.bridge(net);
            // With an address given: a bridge's own choice changes with its links, and hosts would look for the old one.
            ip(&["link", "add", "name", &bridge, "address", &networks.hardware(), "type", "bridge"]);
            ip(&["address", "add", &format!("{}/24", networks.address(net)), "dev", &bridge]);
            ip(&["link", "set", &bridge, "up"]);
        }
        networks
    }

    fn bridge(&self, net: Net) -> String {
        format!("{}-net-{}", net.name(), self.number)
    }

    fn hardware(&self) -> String {
        format!("02:00:00:00:{:02x}:01", self.number)
    }

    /// Where the outer side, which has Redis and the origin, is found.
    pub(crate) fn address(&self, net: Net) -> String {
        format!("{}.{}.1", net.prefix(), self.number)
    }

    /// A further host, with both links up.
    ///
    /// # Panics
    /// When it cannot be made.
    pub(crate) fn host(&self) -> Host {
        let hosts = self.hosts.get() + 1;
        self.hosts.set(hosts);
        let host = Host { number: self.number, host: hosts };
        let name = host.name();
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        for net in Net::ALL {
            let outer = host.link(net);
            ip(&["link", "add", "name", &outer, "type", "veth", "peer", "name", net.name(), "netns", &name]);
            ip(&["link", "set", &outer, "master", &self.bridge(net), "up"]);
            ip(&["-n", &name, "address", "add", &format!("{}/24", host.address(net)), "dev", net.name()]);
            ip(&["-n", &name, "link", "set", net.name(), "up"]);
            // Known for good: to look in vain for the other side of a cut would tell of it, as a far network does not.
            let (outer, hardware) = (self.address(net), self.hardware());
            ip(&["-n", &name, "neighbour", "add", &outer, "lladdr", &hardware, "nud", "permanent", "dev", net.name()]);
        }
        host
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for net in Net::ALL {
            let _ = Command::new("ip").args(["link", "delete", &self.bridge(net)]).status();
        }
    }
}

/// A host; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Host {
    /// Of its networks.
    number: usize,
    /// Its own, from 1.
    host: usize,
}

impl Host {
    fn name(&self) -> String {
        format!("host-{}-{}", self.number, self.host)
    }

    /// The outer end of one of its links.
    fn link(&self, net: Net) -> String {
        format!("{}-{}-{}", net.name(), self.number, self.host)
    }

    /// Its address in one of the networks.
    pub(crate) fn address(&self, net: Net) -> String {
        format!("{}.{}.{}", net.prefix(), self.number, 10 + self.host)
    }

    /// Cuts one of its links: packets vanish from now on, both ways and without a word.
    ///
    /// # Panics
    /// When it cannot be cut.
    pub(crate) fn cut(&self, net: Net) {
        ip(&["link", "set", &self.link(net), "down"]);
    }

    /// Mends a link that was cut.
    ///
    /// # Panics
    /// When it cannot be mended.
    pub(crate) fn heal(&self, net: Net) {
        ip(&["link", "set", &self.link(net), "up"]);
    }

    /// Starts a worker on it that may connect to the origin's network.
    ///
    /// # Panics
    /// When it does not start.
    pub(crate) fn start_worker(&self, queue: &RawQueue, storage: &Path, arguments: &[&str]) -> Worker {
        let allowed = format!("{}.{}.0/24", Net::Origin.prefix(), self.number);
        let arguments = [&["--allow-networks", &allowed], arguments].concat();
        Worker::start_through(&["ip", "netns", "exec", &self.name()], queue, storage, &arguments)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name()]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap_or_else(|error| panic!("ip: {error}"));
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}
