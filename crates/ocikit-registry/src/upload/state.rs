//! Decides what to send next in an upload, from the answers so far. Makes no requests.

use ocikit_http::Url;

/// Maximum number of times that an upload restarts from zero.
const MAX_RESTARTS: u32 = 5;

/// Number of consecutive failures without progress after which smaller chunks are sent.
const MAX_STALLED_ATTEMPTS: u32 = 2;

/// Initial size of a chunk if a registry refuses the blob in one piece, and minimum size after halving, in bytes.
const INITIAL_CHUNK_BYTES: u64 = 64 << 20;
const MIN_CHUNK_BYTES: u64 = 1 << 20;

/// The next request, or the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// `POST`: start an upload, optionally with a mount.
    Start { mount: bool },
    /// `PUT` with the digest and all bytes.
    Whole { url: Url },
    /// `PATCH` with some bytes.
    Chunk { url: Url, offset: u64, length: u64 },
    /// `PUT` with the digest and no bytes.
    Commit { url: Url },
    /// `GET` the session, to learn how many bytes have been received.
    QueryOffset { url: Url },
    /// `HEAD` the blob, to check whether it exists after all.
    HeadBlob,
    /// The blob exists.
    Done { mounted: bool },
    /// No attempt is left.
    Failed,
}

/// The answer to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// A status that a retry would not change; `None` without an answer, for a status that a retry may change, or for a
    /// challenge that has been answered.
    pub(crate) status: Option<u16>,
    /// The URL of the session for the next request, if the answer names it.
    pub(crate) location: Option<Url>,
    /// Number of bytes that the registry has received.
    pub(crate) received: Option<u64>,
    /// Minimum size of a chunk that the registry demands.
    pub(crate) minimum: Option<u64>,
    /// Whether the answer names the blob, by its digest or as its location. Without that a status proves nothing, since
    /// a web page has one too.
    pub(crate) named: bool,
}

/// The state of an upload.
#[derive(Debug)]
pub(crate) struct Upload {
    size: u64,
    pub(super) step: Step,
    /// Number of bytes that the registry has received in this session.
    pub(super) offset: u64,
    /// The maximum of `offset` over all sessions. Only more than that counts as progress.
    furthest: u64,
    /// Whether the session that is being queried was started by a process that died.
    pub(super) recalled: bool,
    /// Whether a request with bytes for this session broke off. Its remaining bytes may arrive after the query for the
    /// offset was answered, and are then in the session twice.
    interrupted: bool,
    /// How the bytes are sent.
    mode: Mode,
    minimum: u64,
    pub(super) failures: u32,
    restarts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// In one piece, and after a failure the rest in one piece.
    Whole,
    /// In chunks of this size, in bytes.
    Chunks(u64),
    /// In one piece, and after a failure from zero: the registry cannot resume.
    Again,
}

impl Upload {
    /// Starts an upload, in a recorded session if there is one.
    pub(crate) fn new(size: u64, mount: bool, recalled: Option<Url>) -> Upload {
        let is_recalled = recalled.is_some();
        let step = recalled.map_or(Step::Start { mount }, |url| Step::QueryOffset { url });
        Upload {
            size,
            step,
            offset: 0,
            furthest: 0,
            recalled: is_recalled,
            interrupted: is_recalled,
            mode: Mode::Whole,
            minimum: 0,
            failures: 0,
            restarts: 0,
        }
    }

    /// Returns the current session.
    pub(crate) fn session(&self) -> Option<&Url> {
        match &self.step {
            Step::Whole { url } | Step::Chunk { url, .. } | Step::Commit { url } | Step::QueryOffset { url } => {
                Some(url)
            }
            Step::Start { .. } | Step::HeadBlob | Step::Done { .. } | Step::Failed => None,
        }
    }

    /// Processes an answer and decides the next step. Returns whether it was a failure, after which the caller waits.
    pub(crate) fn proceed(&mut self, outcome: Outcome) -> bool {
        let before = self.failures;
        self.minimum = outcome.minimum.unwrap_or(self.minimum);
        self.step = match self.step.clone() {
            Step::Start { mount } => self.start_answered(mount, outcome),
            Step::Whole { url } => self.whole_answered(url, outcome),
            Step::Chunk { url, offset, length } => self.chunk_answered(url, offset + length, outcome),
            Step::Commit { url } => self.commit_answered(url, outcome),
            Step::QueryOffset { url } => self.offset_answered(url, outcome),
            Step::HeadBlob => self.head_answered(outcome),
            end @ (Step::Done { .. } | Step::Failed) => end,
        };
        self.failures > before
    }

    fn start_answered(&mut self, mount: bool, outcome: Outcome) -> Step {
        match (outcome.status, outcome.location) {
            (Some(201), _) if mount && outcome.named => Step::Done { mounted: true },
            (Some(201), None) if mount => Step::HeadBlob,
            (Some(200..300), Some(url)) => {
                (self.offset, self.interrupted) = (0, false);
                self.send(url)
            }
            // The registry may not support mounts, or the user may not read the source repository.
            (Some(_), _) if mount => Step::Start { mount: false },
            _ => Step::Failed,
        }
    }

    /// Returns the step that sends the next bytes in this session.
    fn send(&self, url: Url) -> Step {
        let left = self.size - self.offset;
        if left == 0 {
            return Step::Commit { url };
        }
        let length = match self.mode {
            Mode::Chunks(size) => left.min(size.max(self.minimum)),
            Mode::Whole | Mode::Again if self.offset == 0 => return Step::Whole { url },
            Mode::Whole | Mode::Again => left,
        };
        Step::Chunk { url, offset: self.offset, length }
    }

    fn whole_answered(&mut self, url: Url, outcome: Outcome) -> Step {
        match outcome.status {
            // The specification requires 201 and the location. Any other success is checked with `HEAD`.
            Some(201 | 204) if outcome.named => Step::Done { mounted: false },
            Some(200..300) => Step::HeadBlob,
            None | Some(416) => {
                self.failures += 1;
                self.interrupted = true;
                if self.mode == Mode::Again { self.restart() } else { Step::QueryOffset { url } }
            }
            Some(404) => self.lost(),
            Some(405 | 411 | 413 | 501) => self.shrink(),
            Some(400) if self.interrupted => self.restart(),
            Some(_) => Step::Failed,
        }
    }

    fn chunk_answered(&mut self, url: Url, end: u64, outcome: Outcome) -> Step {
        match outcome.status {
            Some(200..300) => {
                let received = outcome.received.unwrap_or(end);
                let url = outcome.location.unwrap_or(url);
                // The chunk was accepted and not stored. Counting it as a failure ends a loop without progress.
                self.failures += u32::from(received <= self.offset);
                self.arrived(received, url)
            }
            None | Some(416) => {
                self.failures += 1;
                self.interrupted = true;
                Step::QueryOffset { url }
            }
            Some(404) => self.lost(),
            Some(413) => self.shrink(),
            // This registry does not accept a `PATCH` in a session with an interrupted `PUT`.
            Some(_) if self.mode == Mode::Whole => {
                self.mode = Mode::Again;
                self.restart()
            }
            Some(400) if self.interrupted => self.restart(),
            Some(_) => Step::Failed,
        }
    }

    fn commit_answered(&mut self, url: Url, outcome: Outcome) -> Step {
        match outcome.status {
            Some(201 | 204) if outcome.named => Step::Done { mounted: false },
            Some(200..300) => Step::HeadBlob,
            None | Some(416) => {
                self.failures += 1;
                Step::QueryOffset { url }
            }
            Some(404) => self.lost(),
            Some(400) if self.size > 0 => self.restart(),
            Some(_) => Step::Failed,
        }
    }

    fn offset_answered(&mut self, url: Url, outcome: Outcome) -> Step {
        let url = outcome.location.unwrap_or(url);
        match (outcome.status, outcome.received) {
            (Some(200..300), Some(received)) => {
                self.recalled = false;
                // `0-0` also stands for an empty session (distribution/distribution#2363). If there is one byte after
                // all, the registry refuses the result, and the upload restarts.
                let received = if received == 1 && self.size > 1 { 0 } else { received };
                self.arrived(received, url)
            }
            // The dead process may have sent the last byte, and the registry may have completed the blob since.
            (Some(404), _) if self.recalled => {
                self.recalled = false;
                Step::HeadBlob
            }
            // The session of a dead process is optional, so this is no failure.
            _ if self.recalled => {
                self.recalled = false;
                Step::Start { mount: false }
            }
            _ => self.lost(),
        }
    }

    /// Continues after the bytes that have been received.
    fn arrived(&mut self, received: u64, url: Url) -> Step {
        if received > self.size {
            return self.restart();
        }
        self.offset = received;
        if received > self.furthest {
            self.furthest = received;
            self.failures = 0;
        } else if self.failures >= MAX_STALLED_ATTEMPTS {
            // A proxy between the client and the registry may cut off long bodies.
            self.mode = match self.mode {
                Mode::Whole if self.size > INITIAL_CHUNK_BYTES => Mode::Chunks(INITIAL_CHUNK_BYTES),
                Mode::Chunks(size) if size > MIN_CHUNK_BYTES && size > self.minimum => Mode::Chunks(size / 2),
                mode => mode,
            };
        }
        self.send(url)
    }

    /// The session does not exist any more; the blob may be complete.
    fn lost(&mut self) -> Step {
        self.failures += 1;
        Step::HeadBlob
    }

    fn head_answered(&mut self, outcome: Outcome) -> Step {
        match outcome.status {
            Some(200..300) => Step::Done { mounted: false },
            _ => self.restart(),
        }
    }

    /// Sends smaller chunks, after the blob or a chunk was too large.
    fn shrink(&mut self) -> Step {
        self.mode = match self.mode {
            Mode::Whole | Mode::Again => Mode::Chunks(INITIAL_CHUNK_BYTES),
            Mode::Chunks(size) if size > MIN_CHUNK_BYTES && size > self.minimum => Mode::Chunks(size / 2),
            Mode::Chunks(_) => return Step::Failed,
        };
        // The refused request may have damaged the session. A new one costs little compared to the chunks.
        self.offset = 0;
        Step::Start { mount: false }
    }

    fn restart(&mut self) -> Step {
        self.restarts += 1;
        self.offset = 0;
        if self.restarts > MAX_RESTARTS { Step::Failed } else { Step::Start { mount: false } }
    }
}

#[cfg(test)]
mod tests;
