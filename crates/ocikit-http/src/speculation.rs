//! What a client does before it knows that it is needed, because a round trip to the server takes long.
//!
//! `docs/decisions/transport.md` has the reasons for the thresholds.

use std::time::Duration;

/// A server is far enough for spare connections if its first connection takes at least this long; without TLS, if its
/// first answer does.
pub(crate) const SPARE_RTT: Duration = Duration::from_millis(10);

/// A server is far enough for speculative requests if even its fastest answer took at least this long. Then one
/// additional request is better than an additional round trip.
const FAR_RTT: Duration = Duration::from_millis(40);

/// The latency of a server, as far as it was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Latency {
    /// The fastest answer to a request without a body.
    pub(crate) fastest_answer: Option<Duration>,
    /// How long the first connection took; without TLS, how long there is no answer.
    pub(crate) first_connection: Option<Duration>,
    /// Whether the first connection carries concurrent requests (HTTP/2).
    pub(crate) is_multiplexed: bool,
}

/// What is done in advance for a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Speculation {
    /// Whether a request is sent although the answer to an earlier one may make it unnecessary. A registry client
    /// starts an upload, as a mount, while the check whether the blob exists is in progress, and requests referrers from
    /// the API and under the fallback tag at once.
    pub requests: bool,
    /// Number of connections to open before requests need them.
    pub connections: usize,
}

ocikit_spec::setters! {
    Speculation {
        requests: bool,
        connections: usize,
    }
}

impl Speculation {
    /// Decides by the latency of a server, and the number of concurrent requests that the caller announced.
    pub(crate) fn of(latency: &Latency, announced: usize) -> Speculation {
        let is_at_least = |time: Option<Duration>, limit| time.is_some_and(|time| time >= limit);
        // Over HTTP/2 all requests share one connection.
        let needs_connections = is_at_least(latency.first_connection, SPARE_RTT) && !latency.is_multiplexed;
        Speculation {
            requests: is_at_least(latency.fastest_answer, FAR_RTT),
            connections: if needs_connections { announced } else { 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_decides_what_is_done_in_advance() {
        let milliseconds = |time: Option<u64>| time.map(Duration::from_millis);
        for (fastest_answer, first_connection, is_multiplexed, announced, requests, connections) in [
            (None, None, false, 16, false, 0),
            (Some(0), Some(0), false, 16, false, 0),
            (Some(9), Some(9), false, 16, false, 0),
            (Some(10), Some(10), false, 16, false, 16),
            (Some(39), Some(39), false, 16, false, 16),
            (Some(40), Some(40), false, 16, true, 16),
            (Some(150), Some(450), false, 16, true, 16),
            (Some(150), Some(450), true, 16, true, 0),
            (Some(150), Some(450), false, 0, true, 0),
            // A slow first connection to a near server: a proxy, or a handshake on a busy machine.
            (Some(1), Some(100), false, 4, false, 4),
            (None, Some(100), false, 4, false, 4),
            (Some(100), None, false, 4, true, 0),
        ] {
            let (fastest_answer, first_connection) = (milliseconds(fastest_answer), milliseconds(first_connection));
            let latency = Latency { fastest_answer, first_connection, is_multiplexed };
            assert_eq!(Speculation::of(&latency, announced), Speculation { requests, connections }, "{latency:?}");
        }
    }
}
