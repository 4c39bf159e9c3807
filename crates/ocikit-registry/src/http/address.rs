//! Which addresses a registry may send us to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Where an address can be reached from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Zone {
    /// Everywhere.
    Public,
    /// The networks of an organization.
    Private,
    /// This machine.
    Loopback,
    /// This link; clouds answer there with the secrets of the machine.
    Link,
}

impl Zone {
    pub(crate) fn of(address: IpAddr) -> Zone {
        match address {
            IpAddr::V4(address) => Zone::of_v4(address),
            IpAddr::V6(address) => Zone::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Zone {
        let [a, b, ..] = address.octets();
        if address.is_loopback() || address.is_unspecified() {
            Zone::Loopback
        } else if address.is_link_local() || address.is_multicast() || address.is_broadcast() {
            Zone::Link
        } else if address.is_private() || a == 0 || (a == 100 && (64..128).contains(&b)) {
            Zone::Private
        } else {
            Zone::Public
        }
    }

    fn of_v6(address: Ipv6Addr) -> Zone {
        // An IPv4 address in any of its disguises is what it is: mapped, translated by NAT64, or tunneled by 6to4.
        let segments = address.segments();
        let embedded = match segments {
            [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some([segments[6], segments[7]]),
            [0x2002, high, low, ..] => Some([high, low]),
            _ => None,
        };
        if let Some([high, low]) = embedded {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            return Zone::of_v4(Ipv4Addr::new(a, b, c, d));
        }
        if address.is_loopback() || address.is_unspecified() {
            Zone::Loopback
        } else if address.is_unicast_link_local() || address.is_multicast() {
            Zone::Link
        } else if address.is_unique_local() {
            Zone::Private
        } else {
            Zone::Public
        }
    }
}

/// How far a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// To wherever the user said.
    Anywhere,
    /// To where a server said that is itself in this zone.
    From(Zone),
}

impl Reach {
    /// A public server has no business with this machine, its network or its link, a private one none with this
    /// machine or its link. Who is on this machine may point into its network.
    pub(crate) fn permits(self, to: Zone) -> bool {
        let Reach::From(from) = self else { return true };
        match from {
            Zone::Public => to == Zone::Public,
            Zone::Private => matches!(to, Zone::Public | Zone::Private),
            Zone::Loopback => to != Zone::Link,
            Zone::Link => true,
        }
    }

    /// Whether a URL may be asked for, as far as its text tells; names are looked up later.
    pub(crate) fn permits_url(self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => self.permits(Zone::of(address)),
            Err(_) if is_loopback_name(bare) => self.permits(Zone::Loopback),
            Err(_) => true,
        }
    }
}

fn is_loopback_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Looks names up and leaves out the addresses that are out of reach.
#[derive(Debug)]
pub(crate) struct Resolver(pub(crate) Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let any = !found.is_empty();
            let reachable: Vec<_> = found.into_iter().filter(|found| reach.permits(Zone::of(found.ip()))).collect();
            if any && reachable.is_empty() {
                return Err(Box::<dyn std::error::Error + Send + Sync>::from(OutOfReach(name.as_str().to_owned())));
            }
            Ok(Box::new(reachable.into_iter()) as Addrs)
        })
    }
}

/// A name that leads to addresses where the server that gave it has no business.
#[derive(Debug)]
pub(crate) struct OutOfReach(pub(crate) String);

impl std::fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is an address of a private network or of this machine, which a server out there named", self.0)
    }
}

impl std::error::Error for OutOfReach {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_addresses() {
        for (address, zone) in [
            ("8.8.8.8", Zone::Public),
            ("2606:4700::1", Zone::Public),
            ("10.1.2.3", Zone::Private),
            ("172.16.0.1", Zone::Private),
            ("172.32.0.1", Zone::Public),
            ("192.168.1.1", Zone::Private),
            ("100.64.0.1", Zone::Private),
            ("fd00::1", Zone::Private),
            ("127.0.0.1", Zone::Loopback),
            ("127.9.9.9", Zone::Loopback),
            ("0.0.0.0", Zone::Loopback),
            ("::1", Zone::Loopback),
            ("::", Zone::Loopback),
            ("169.254.169.254", Zone::Link),
            ("fe80::1", Zone::Link),
            ("224.0.0.1", Zone::Link),
            ("::ffff:127.0.0.1", Zone::Loopback),
            ("::ffff:169.254.169.254", Zone::Link),
            ("64:ff9b::a9fe:a9fe", Zone::Link),
            ("64:ff9b::808:808", Zone::Public),
            ("2002:7f00:1::", Zone::Loopback),
        ] {
            assert_eq!(Zone::of(address.parse().unwrap()), zone, "{address}");
        }
    }

    #[test]
    fn nobody_out_there_sends_us_inside() {
        use Zone::{Link, Loopback, Private, Public};
        for (from, to) in [
            (Public, &[Public][..]),
            (Private, &[Public, Private]),
            (Loopback, &[Public, Private, Loopback]),
            (Link, &[Public, Private, Loopback, Link]),
        ] {
            for zone in [Public, Private, Loopback, Link] {
                assert_eq!(Reach::From(from).permits(zone), to.contains(&zone), "{from:?} to {zone:?}");
                assert!(Reach::Anywhere.permits(zone));
            }
        }
    }

    #[test]
    fn literal_addresses_are_seen_in_a_url() {
        for (url, permitted) in [
            ("https://example.com/", true),
            ("https://8.8.8.8/", true),
            ("https://127.0.0.1/", false),
            ("https://[::1]/", false),
            ("https://[::ffff:10.0.0.1]/", false),
            ("https://2130706433/", false), // which is 127.0.0.1 to those who parse URLs
            ("https://0x7f.1/", false),
            ("https://localhost/", false),
            ("https://LOCALHOST./", false),
            ("https://a.localhost/", false),
            ("http://169.254.169.254/latest", false),
        ] {
            assert_eq!(Reach::From(Zone::Public).permits_url(&url.parse().unwrap()), permitted, "{url}");
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_and_sorted() {
        let ask = |reach| Resolver(reach).resolve("localhost".parse().unwrap());
        assert!(ask(Reach::Anywhere).await.unwrap().next().is_some());
        assert!(ask(Reach::From(Zone::Public)).await.is_err());
    }
}
