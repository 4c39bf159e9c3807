//! What to send next in an upload, given what came back: no request is made here.

use reqwest::Url;

/// How often an upload may begin anew at zero.
const MOST_RESTARTS: u32 = 5;

/// How often in a row nothing may arrive before less is sent at once.
const PATIENCE: u32 = 2;

/// The first size of a chunk where a registry takes no blob in one piece, and the least that it is halved to.
const CHUNK: u64 = 64 << 20;
const LEAST_CHUNK: u64 = 1 << 20;

/// A request to make, or the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// `POST`: begin an upload, with a wish to mount the blob if there is where to.
    Start { mount: bool },
    /// `PUT` with the digest and all bytes.
    Whole { url: Url },
    /// `PATCH` with some bytes.
    Chunk { url: Url, offset: u64, length: u64 },
    /// `PUT` with the digest and no bytes.
    Close { url: Url },
    /// `GET` the session: how much has arrived?
    Ask { url: Url },
    /// `HEAD` the blob: is it there after all?
    Look,
    /// It is there.
    Done { mounted: bool },
    /// It will not be.
    Failed,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) kind: Kind,
    /// The session from now on, if it was named.
    pub(crate) location: Option<Url>,
    /// How many bytes the registry says it has.
    pub(crate) received: Option<u64>,
    /// The least size that it wants chunks to have.
    pub(crate) minimum: Option<u64>,
    /// Whether the answer names the blob, by its digest or as its location. Without that a success is only a status, which
    /// a web page has too.
    pub(crate) named: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An answer with a status that another attempt would not change.
    Status(u16),
    /// No answer, one that may pass, or a challenge that was met.
    #[default]
    Broken,
}

/// An upload under way.
#[derive(Debug)]
pub(crate) struct Upload {
    size: u64,
    step: Step,
    /// How many bytes the registry is known to have in this session.
    offset: u64,
    /// The most it ever had: only to get beyond that is to get on.
    furthest: u64,
    /// The session that is being asked about goes back to a process that died.
    recalled: bool,
    /// Whether a request with bytes for this session broke. What is left of it may arrive later than the answer to how much
    /// has arrived, and then be there twice.
    interrupted: bool,
    /// How the bytes are sent.
    mode: Mode,
    minimum: u64,
    failures: u32,
    restarts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// All at once, and after a failure what is left at once.
    Whole,
    /// In chunks of this size.
    Chunks(u64),
    /// All at once and never continued: the registry cannot.
    Again,
}

impl Upload {
    /// Begins one; in a session that is remembered if there is one.
    pub(crate) fn new(size: u64, mount: bool, recalled: Option<Url>) -> Upload {
        let is_recalled = recalled.is_some();
        let step = recalled.map_or(Step::Start { mount }, |url| Step::Ask { url });
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

    /// What to do now.
    pub(crate) fn step(&self) -> &Step {
        &self.step
    }

    /// The session that bytes go to now.
    pub(crate) fn session(&self) -> Option<&Url> {
        match &self.step {
            Step::Whole { url } | Step::Chunk { url, .. } | Step::Close { url } | Step::Ask { url } => Some(url),
            Step::Start { .. } | Step::Look | Step::Done { .. } | Step::Failed => None,
        }
    }

    /// How many bytes the registry is known to have.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether a session that goes back to another process is being asked about.
    pub(crate) fn is_recalled(&self) -> bool {
        self.recalled
    }

    /// How often it has failed since it last got on.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes note of what came back and decides what is next. Says whether that was a failure, after which to wait.
    pub(crate) fn proceed(&mut self, outcome: Outcome) -> bool {
        let before = self.failures;
        self.minimum = outcome.minimum.unwrap_or(self.minimum);
        self.step = match self.step.clone() {
            Step::Start { mount } => self.started(mount, outcome),
            Step::Whole { url } => self.sent(url, outcome),
            Step::Chunk { url, offset, length } => self.chunk_sent(url, offset + length, outcome),
            Step::Close { url } => self.closed(url, outcome),
            Step::Ask { url } => self.told(url, outcome),
            Step::Look => self.looked(outcome),
            end @ (Step::Done { .. } | Step::Failed) => end,
        };
        self.failures > before
    }

    fn started(&mut self, mount: bool, outcome: Outcome) -> Step {
        match (outcome.kind, outcome.location) {
            (Kind::Status(201), _) if mount && outcome.named => Step::Done { mounted: true },
            (Kind::Status(201), None) if mount => Step::Look,
            (Kind::Status(200..300), Some(url)) => {
                (self.offset, self.interrupted) = (0, false);
                self.send(url)
            }
            // Where the blob is may be a secret, or the registry knows no mounts.
            (Kind::Status(_), _) if mount => Step::Start { mount: false },
            _ => Step::Failed,
        }
    }

    /// The next bytes to send in this session.
    fn send(&self, url: Url) -> Step {
        let left = self.size - self.offset;
        if left == 0 {
            return Step::Close { url };
        }
        let length = match self.mode {
            Mode::Chunks(size) => left.min(size.max(self.minimum)),
            Mode::Whole | Mode::Again if self.offset == 0 => return Step::Whole { url },
            Mode::Whole | Mode::Again => left,
        };
        Step::Chunk { url, offset: self.offset, length }
    }

    fn sent(&mut self, url: Url, outcome: Outcome) -> Step {
        match outcome.kind {
            // The specification has 201 and the location; anything else that claims success is looked for.
            Kind::Status(201 | 204) if outcome.named => Step::Done { mounted: false },
            Kind::Status(200..300) => Step::Look,
            Kind::Broken | Kind::Status(416) => {
                self.failures += 1;
                self.interrupted = true;
                if self.mode == Mode::Again { self.restart() } else { Step::Ask { url } }
            }
            Kind::Status(404) => self.lost(),
            Kind::Status(405 | 411 | 413 | 501) => self.shrink(),
            Kind::Status(400) if self.interrupted => self.restart(),
            Kind::Status(_) => Step::Failed,
        }
    }

    fn chunk_sent(&mut self, url: Url, end: u64, outcome: Outcome) -> Step {
        match outcome.kind {
            Kind::Status(200..300) => {
                let received = outcome.received.unwrap_or(end);
                let url = outcome.location.unwrap_or(url);
                // It was taken and is not there: nobody may go on like that for ever.
                self.failures += u32::from(received <= self.offset);
                self.arrived(received, url)
            }
            Kind::Broken | Kind::Status(416) => {
                self.failures += 1;
                self.interrupted = true;
                Step::Ask { url }
            }
            Kind::Status(404) => self.lost(),
            Kind::Status(413) => self.shrink(),
            // A session that was begun by a PUT cannot be continued by a PATCH here.
            Kind::Status(_) if self.mode == Mode::Whole => {
                self.mode = Mode::Again;
                self.restart()
            }
            Kind::Status(400) if self.interrupted => self.restart(),
            Kind::Status(_) => Step::Failed,
        }
    }

    fn closed(&mut self, url: Url, outcome: Outcome) -> Step {
        match outcome.kind {
            Kind::Status(201 | 204) if outcome.named => Step::Done { mounted: false },
            Kind::Status(200..300) => Step::Look,
            Kind::Broken | Kind::Status(416) => {
                self.failures += 1;
                Step::Ask { url }
            }
            Kind::Status(404) => self.lost(),
            Kind::Status(400) if self.size > 0 => self.restart(),
            Kind::Status(_) => Step::Failed,
        }
    }

    fn told(&mut self, url: Url, outcome: Outcome) -> Step {
        let url = outcome.location.unwrap_or(url);
        match (outcome.kind, outcome.received) {
            (Kind::Status(200..300), Some(received)) => {
                self.recalled = false;
                // Registries say `0-0` for nothing too, and a blob that lacks one byte at its beginning is refused.
                let received = if received == 1 && self.size > 1 { 0 } else { received };
                self.arrived(received, url)
            }
            // What a dead process left behind may be long gone: that is no failure.
            _ if self.recalled => {
                self.recalled = false;
                Step::Start { mount: false }
            }
            _ => self.lost(),
        }
    }

    /// Goes on behind what has arrived.
    fn arrived(&mut self, received: u64, url: Url) -> Step {
        if received > self.size {
            return self.restart();
        }
        self.offset = received;
        if received > self.furthest {
            self.furthest = received;
            self.failures = 0;
        } else if self.failures >= PATIENCE {
            // Something between us and the registry may cut long bodies off without a word.
            self.mode = match self.mode {
                Mode::Whole if self.size > CHUNK => Mode::Chunks(CHUNK),
                Mode::Chunks(size) if size > LEAST_CHUNK && size > self.minimum => Mode::Chunks(size / 2),
                mode => mode,
            };
        }
        self.send(url)
    }

    /// The session is gone; perhaps because the blob is complete.
    fn lost(&mut self) -> Step {
        self.failures += 1;
        Step::Look
    }

    fn looked(&mut self, outcome: Outcome) -> Step {
        match outcome.kind {
            Kind::Status(200..300) => Step::Done { mounted: false },
            _ => self.restart(),
        }
    }

    /// The blob, or a chunk of it, was too much in one piece.
    fn shrink(&mut self) -> Step {
        self.mode = match self.mode {
            Mode::Whole | Mode::Again => Mode::Chunks(CHUNK),
            Mode::Chunks(size) if size > LEAST_CHUNK && size > self.minimum => Mode::Chunks(size / 2),
            Mode::Chunks(_) => return Step::Failed,
        };
        // This may have spoiled the session, and to begin another costs little beside the chunks.
        self.offset = 0;
        Step::Start { mount: false }
    }

    fn restart(&mut self) -> Step {
        self.restarts += 1;
        self.offset = 0;
        if self.restarts > MOST_RESTARTS { Step::Failed } else { Step::Start { mount: false } }
    }
}

#[cfg(test)]
mod tests;
