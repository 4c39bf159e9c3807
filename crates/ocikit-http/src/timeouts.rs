use std::time::Duration;

/// Time limits. None of them ends a transfer that makes progress, however slow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Timeouts {
    /// For opening a connection.
    pub connect: Duration,
    /// For the start of an answer. After an upload, one second more for every 16 MiB, since registries read the bytes
    /// again or move them.
    pub answer: Duration,
    /// For a transfer without progress, in either direction; ten times as long if an upload waits for its source.
    pub silence: Duration,
    /// The maximum time of a small document, from the request to the end of the body: a manifest, a config, a signature, a
    /// token, a page of a list, an error. One second more for every 64 KiB received.
    pub document: Duration,
}

ocikit_spec::setters! {
    Timeouts {
        connect: Duration,
        answer: Duration,
        silence: Duration,
        document: Duration,
    }
}

impl Default for Timeouts {
    /// Returns 15 s to connect and 60 s for everything else.
    fn default() -> Timeouts {
        let minute = Duration::from_secs(60);
        Timeouts { connect: minute / 4, answer: minute, silence: minute, document: minute }
    }
}

/// The limit on the total time of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    /// None while bytes arrive.
    None,
    /// That of a small document, [`Timeouts::document`], from the request to the end of the body.
    Document,
}
