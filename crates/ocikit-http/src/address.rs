//! Classifies addresses, and decides which of them a server may redirect to.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::url::{Url, bare};

/// The network zone of an address, the most protected last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// The internet.
    Public,
    /// A private network.
    Private,
    /// This machine.
    Loopback,
    /// The local link. Clouds serve the machine's secrets there (metadata services).
    Link,
}

impl Zone {
    /// Returns the zone of an address.
    pub fn of(address: IpAddr) -> Zone {
        match address {
            IpAddr::V4(address) => Zone::of_v4(address),
            IpAddr::V6(address) => Zone::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Zone {
        let [a, b, c, _] = address.octets();
        if address.is_loopback() || address.is_unspecified() {
            Zone::Loopback
        } else if address.is_link_local() || address.is_multicast() || a >= 240 || METADATA_V4.contains(&address) {
            Zone::Link
        } else if address.is_private()
            || a == 0
            || (a == 100 && (64..128).contains(&b)) // RFC 6598, carrier-grade NAT
            || (a, b, c) == (192, 0, 0) // RFC 6890, protocol assignments
            || (a == 198 && (18..20).contains(&b))
        // RFC 2544, benchmarks
        {
            Zone::Private
        } else {
            Zone::Public
        }
    }

    fn of_v6(address: Ipv6Addr) -> Zone {
        if address.is_loopback() || address.is_unspecified() {
            return Zone::Loopback;
        }
        // An IPv4 address embedded in an IPv6 address decides.
        if let Some(embedded) = embedded(address) {
            return embedded;
        }
        let is_site_local = address.segments()[0] & 0xffc0 == 0xfec0; // RFC 3879
        if address.is_unicast_link_local() || address.is_multicast() || METADATA_V6.contains(&address) {
            Zone::Link
        } else if address.is_unique_local() || is_site_local {
            Zone::Private
        } else {
            Zone::Public
        }
    }
}

/// Addresses of metadata services that are not link-local: Azure, Alibaba Cloud, Oracle Cloud.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];

/// IPv6 addresses of metadata services: AWS, Google Cloud, Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Host names of metadata services, for requests through a proxy, which resolves names itself.
const METADATA_NAMES: [&str; 7] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
    "metadata.tencentyun.com",
];

/// Returns the zone of the IPv4 address embedded in an IPv6 address; `None` if there is none.
fn embedded(address: Ipv6Addr) -> Option<Zone> {
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        Zone::of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // IPv4-compatible and IPv4-mapped addresses (RFC 4291) and NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        // IPv4-translated addresses of stateless translators (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        // Local-use NAT64 (RFC 8215). The operator chooses the length of the prefix; 96 bits, with the address in the
        // last 32, are common.
        [0x64, 0xff9b, 1, 0, 0, 0, high, low] => Some(v4(high, low)),
        // Other lengths of the prefix: 48, 56, 64 and 96 bits, with bits 64 to 71 left out (RFC 6052, 2.2).
        [0x64, 0xff9b, 1, third, fourth, fifth, high, low] => {
            let word = |one: u16, other: u16| (one << 8) | (other >> 8);
            let candidates = [
                (third, word(fourth, fifth)),
                (word(third, fourth << 8), fifth),
                (word(fourth, fifth), word(fifth, high)),
                (high, low),
            ];
            // No server has an address that begins with a zero octet, so such a candidate is not the embedded address.
            let plausible = candidates.into_iter().filter(|(high, _)| *high > 0xff);
            plausible.map(|(high, low)| v4(high, low)).max().or(Some(Zone::Private))
        }
        // 6to4 (RFC 3056), and the client address of Teredo (RFC 4380), whose bits are inverted.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [0x2001, 0, .., high, low] => Some(v4(!high, !low)),
        _ => None,
    }
}

/// The addresses that a request may be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Any address: the user named the server.
    Anywhere,
    /// An address that a server in this zone may name.
    From(Zone),
}

impl Reach {
    /// Returns whether a zone may be contacted. A public server may name public addresses only; a private one may name
    /// neither this machine nor its link; a server on this machine may name private networks.
    pub(crate) fn permits(self, to: Zone) -> bool {
        let Reach::From(from) = self else { return true };
        match from {
            Zone::Public => to == Zone::Public,
            Zone::Private => matches!(to, Zone::Public | Zone::Private),
            Zone::Loopback => to != Zone::Link,
            Zone::Link => true,
        }
    }

    /// Returns whether a URL may be requested, as far as its text shows. Host names are checked when they are resolved.
    pub(crate) fn permits_url(self, url: &Url) -> bool {
        let host = bare(url.host());
        match host.parse::<IpAddr>() {
            Ok(address) => self.permits(Zone::of(address)),
            Err(_) => !host.is_empty() && self.permits(zone_of_name(host)),
        }
    }

    /// Returns what both permit.
    pub(crate) fn narrowed(self, other: Reach) -> Reach {
        match (self, other) {
            (Reach::Anywhere, reach) | (reach, Reach::Anywhere) => reach,
            // What a zone may name includes what a less protected zone may name.
            (Reach::From(one), Reach::From(other)) => Reach::From(one.min(other)),
        }
    }

    /// Returns whether a URL may be requested through a proxy, which resolves the name itself. The addresses that this
    /// machine resolves decide. A name that this machine cannot resolve is refused.
    ///
    /// # Errors
    ///
    /// [`OutOfReach`] if the request is not allowed.
    pub(crate) async fn permits_by_proxy(self, url: &Url, resolver: &dyn Resolver) -> Result<(), OutOfReach> {
        let host = bare(url.host());
        if self == Reach::Anywhere || host.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        let Ok(found) = resolver.resolve(host).await else {
            return Err(OutOfReach::Unknown(host.to_owned()));
        };
        // The proxy may choose any of them.
        match found.iter().all(|found| self.permits(Zone::of(*found))) && !found.is_empty() {
            true => Ok(()),
            false => Err(OutOfReach::Private(host.to_owned())),
        }
    }
}

/// Returns the zone that a host name states. Other names are resolved and count as public here.
fn zone_of_name(name: &str) -> Zone {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        Zone::Loopback
    } else if METADATA_NAMES.contains(&name.as_str()) {
        Zone::Link
    } else {
        Zone::Public
    }
}

/// Resolves host names. Which of the addresses may be contacted is decided afterwards.
pub trait Resolver: Debug + Send + Sync + 'static {
    /// Returns the addresses of a host, the preferred one first.
    fn resolve(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(found.map(|found| found.ip()).collect())
        })
    }
}

/// A resolver that removes addresses out of reach.
#[derive(Debug)]
pub(crate) struct GuardedResolver {
    pub(crate) reach: Reach,
    pub(crate) resolver: Arc<dyn Resolver>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, resolving) = (self.reach, self.resolver.resolve(name.as_str()));
        Box::pin(async move {
            let found = resolving.await.map_err(|problem| Unresolved { host: name.as_str().to_owned(), problem })?;
            let any = !found.is_empty();
            let reachable: Vec<_> = found.into_iter().filter(|found| reach.permits(Zone::of(*found))).collect();
            if any && reachable.is_empty() {
                return Err(Box::<dyn std::error::Error + Send + Sync>::from(OutOfReach::Private(
                    name.as_str().to_owned(),
                )));
            }
            // The client sets the port.
            Ok(Box::new(reachable.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// Name resolution failed.
#[derive(Debug, thiserror::Error)]
#[error("name resolution of `{host}` failed: {}", short(.problem))]
pub(crate) struct Unresolved {
    host: String,
    problem: io::Error,
}

/// Returns a problem without the beginning that says no more than that it is about name resolution.
fn short(problem: &io::Error) -> String {
    let problem = problem.to_string();
    problem.strip_prefix("failed to lookup address information: ").unwrap_or(&problem).to_owned()
}

/// A server named another one in a zone that it may not name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutOfReach {
    /// The host has an address of a private network or of this machine.
    #[error("a public server names `{0}`, an address of a private network or of this machine")]
    Private(String),
    /// This machine cannot resolve the host, and a proxy might.
    #[error(
        "a server names `{0}`, which this machine cannot resolve to see whether the proxy would reach a private \
         network there"
    )]
    Unknown(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_addresses() {
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
            ("64:ff9b::a00:1", Zone::Private),
            ("64:ff9b:1::7f00:1", Zone::Loopback),
            ("64:ff9b:1::a9fe:a9fe", Zone::Link),
            ("64:ff9b:1::808:808", Zone::Public),
            ("64:ff9b:1:a00:0:100::", Zone::Private),
            ("64:ff9b:1:a9fe:a9:fe00::", Zone::Link),
            ("2002:7f00:1::", Zone::Loopback),
            ("2002:808:808::", Zone::Public),
            ("2001::80ff:fffe", Zone::Loopback),
            ("::127.0.0.1", Zone::Loopback),
            ("::ffff:0:10.0.0.1", Zone::Private),
            ("::ffff:0:127.0.0.1", Zone::Loopback),
            ("::ffff:0:169.254.169.254", Zone::Link),
            ("::ffff:0:8.8.8.8", Zone::Public),
            ("fec0::1", Zone::Private),
            ("feff::1", Zone::Private),
            ("168.63.129.16", Zone::Link),
            ("100.100.100.200", Zone::Link),
            ("192.0.0.192", Zone::Link),
            ("192.0.0.1", Zone::Private),
            ("198.18.0.1", Zone::Private),
            ("240.0.0.1", Zone::Link),
            ("255.255.255.255", Zone::Link),
            ("fd00:ec2::254", Zone::Link),
            ("fd20:ce::254", Zone::Link),
            ("fd00:ec2::255", Zone::Private),
            ("::ffff:168.63.129.16", Zone::Link),
        ] {
            assert_eq!(Zone::of(address.parse().unwrap()), zone, "{address}");
        }
    }

    #[test]
    fn public_servers_cannot_redirect_into_private_zones() {
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
    fn narrowed_reach_permits_what_both_permit() {
        let zones = [Zone::Public, Zone::Private, Zone::Loopback, Zone::Link];
        let reaches: Vec<_> = zones.map(Reach::From).into_iter().chain([Reach::Anywhere]).collect();
        for one in &reaches {
            for other in &reaches {
                for zone in zones {
                    let both = one.permits(zone) && other.permits(zone);
                    assert_eq!(one.narrowed(*other).permits(zone), both, "{one:?} {other:?} {zone:?}");
                }
            }
        }
    }

    #[test]
    fn literal_addresses_in_urls_are_checked() {
        for (url, permitted) in [
            ("https://example.com/", true),
            ("https://8.8.8.8/", true),
            ("https://127.0.0.1/", false),
            ("https://[::1]/", false),
            ("https://[::ffff:10.0.0.1]/", false),
            ("https://2130706433/", false), // URL parsers read this as 127.0.0.1
            ("https://0x7f.1/", false),
            ("https://localhost/", false),
            ("https://LOCALHOST./", false),
            ("https://a.localhost/", false),
            ("http://169.254.169.254/latest", false),
            ("http://metadata.google.internal/", false),
            ("http://METADATA.google.internal./", false),
            ("http://metadata/", false),
            ("http://instance-data/latest", false),
            ("http://[64:ff9b::7f00:1]/", false),
            ("http://[fec0::1]/", false),
        ] {
            assert_eq!(Reach::From(Zone::Public).permits_url(&url.parse().unwrap()), permitted, "{url}");
        }
    }

    #[tokio::test]
    async fn resolved_addresses_are_checked() {
        let ask = |reach| {
            let guarded = GuardedResolver { reach, resolver: Arc::new(SystemResolver) };
            guarded.resolve("localhost".parse().unwrap())
        };
        assert!(ask(Reach::Anywhere).await.unwrap().next().is_some());
        assert!(ask(Reach::From(Zone::Public)).await.is_err());
        let by_proxy = |reach: Reach, url: &str| {
            let url: Url = url.parse().unwrap();
            async move { reach.permits_by_proxy(&url, &SystemResolver).await.is_ok() }
        };
        assert!(by_proxy(Reach::Anywhere, "http://registry.invalid/").await);
        // `localhost` resolves to a loopback address.
        assert!(!by_proxy(Reach::From(Zone::Public), "http://localhost/").await);
        assert!(by_proxy(Reach::From(Zone::Loopback), "http://localhost/").await);
        assert!(!by_proxy(Reach::From(Zone::Public), "http://registry.invalid/").await);
        // Literal addresses are checked by `permits_url`.
        assert!(by_proxy(Reach::From(Zone::Public), "http://8.8.8.8/").await);
    }
}
