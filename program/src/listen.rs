//! Where a program listens, as people write it, and what to do when that cannot be had.

use rustix::io::Errno;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

/// Where to listen: `127.0.0.1:9100`, `[::1]:9100`, `localhost:9100`, or `:9100` for every address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// Empty for every address.
    host: String,
    port: u16,
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let bare = |host: &str| !host.contains([':', '/', '[', ']', '@']) && !host.contains(char::is_whitespace);
        match parts {
            Some((host, port)) if bare(host) => Ok(ListenAddress { host: host.to_owned(), port }),
            Some((host, port)) => match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
                Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => Ok(ListenAddress { host: v6.to_owned(), port }),
                _ => Err(advice(text)),
            },
            None => Err(advice(text)),
        }
    }
}

fn advice(text: &str) -> String {
    format!("\"{text}\" is no address to listen on: write 127.0.0.1:9100, [::1]:9100 or :9100; port 0 takes a free one")
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl ListenAddress {
    /// Takes the address.
    ///
    /// # Errors
    /// What the system says: somebody else has it, this machine has no such address, a port that only root may have.
    pub fn bind(&self) -> io::Result<TcpListener> {
        if self.host.is_empty() {
            // One listener for both families, where there are both.
            return TcpListener::bind((Ipv6Addr::UNSPECIFIED, self.port)).or_else(|error| {
                match Errno::from_io_error(&error) {
                    Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                        TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port))
                    }
                    _ => Err(error),
                }
            });
        }
        TcpListener::bind((self.host.as_str(), self.port))
    }

    /// What to do about an error of [`ListenAddress::bind`]; `setting` is the flag and the variable that it came from.
    pub fn hint(error: &io::Error, setting: &str) -> String {
        match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "another program has this port: give each on a machine its own with {setting}; port 0 takes a free one"
            ),
            io::ErrorKind::PermissionDenied => "ports below 1024 are for root: take a higher one, such as :9100".into(),
            _ => format!("name an address of this machine with {setting}, such as 127.0.0.1:9100 or :9100"),
        }
    }
}

/// An address that can be put into a browser.
pub fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<ListenAddress>().map(|address| (address.host, address.port));
        for (text, host, port) in [
            ("127.0.0.1:9100", "127.0.0.1", 9100),
            ("0.0.0.0:9100", "0.0.0.0", 9100),
            (":9100", "", 9100),
            (":0", "", 0),
            ("localhost:80", "localhost", 80),
            ("[::1]:9100", "::1", 9100),
        ] {
            assert_eq!(read(text), Ok((host.to_owned(), port)), "{text}");
            assert_eq!(text.parse::<ListenAddress>().map(|address| address.to_string()).as_deref(), Ok(text));
        }
        for bad in ["", "9100", "127.0.0.1", "127.0.0.1:", "h:99999", "::1:9100", "[x]:1", "http://h:1", "a b:1"] {
            assert!(read(bad).is_err_and(|why| why.contains(":9100")), "{bad}");
        }
    }

    #[test]
    fn an_address_that_somebody_has_is_told_with_a_remedy() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = ListenAddress { host: "127.0.0.1".into(), port: taken.local_addr().expect("bound").port() };
        let error = address.bind().expect_err("it is taken");
        assert!(ListenAddress::hint(&error, "--metrics").contains("its own with --metrics"), "{error}");
        assert!(ListenAddress { host: String::new(), port: 0 }.bind().is_ok());
    }
}
