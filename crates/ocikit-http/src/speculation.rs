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

/// Returns whether a request is sent although the answer to an earlier one may make it unnecessary, given the fastest
/// answer of the server to a request without a body.
pub(crate) fn allows_requests(fastest_answer: Option<Duration>) -> bool {
    fastest_answer.is_some_and(|time| time >= FAR_RTT)
}

/// Returns the number of connections to open before requests need them, given how long the first connection took
/// (without TLS, how long there is no answer), whether it carries concurrent requests (HTTP/2), and the number of
/// concurrent requests that the caller announced.
pub(crate) fn connections(first_connection: Option<Duration>, is_multiplexed: bool, announced: usize) -> usize {
    // Over HTTP/2 all requests share one connection.
    let is_needed = first_connection.is_some_and(|time| time >= SPARE_RTT) && !is_multiplexed;
    if is_needed { announced } else { 0 }
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
            let found = super::connections(first_connection, is_multiplexed, announced);
            let case = format!("{fastest_answer:?} {first_connection:?} {is_multiplexed} {announced}");
            assert_eq!((allows_requests(fastest_answer), found), (requests, connections), "{case}");
        }
    }
}
