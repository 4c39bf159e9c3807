//! The limits of the agent and of its protocol.

use std::time::Duration;

/// The maximum size of `build.json` in bytes. It may contain a Dockerfile.
pub(super) const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The maximum number of secrets of a build.
pub(super) const MAX_SECRETS: usize = 64;

/// The maximum size of one message in bytes: all secrets of a build, or a result with its provenance.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The maximum size of a line of the log in bytes. The rest of a longer line is left out.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;

/// The maximum size of the log that is kept for a host that connects again, in bytes. The oldest lines are dropped.
pub(super) const MAX_LOG_BYTES: usize = 16 << 20;

/// The number of lines that are written to a connection before the log is looked at again.
pub(super) const LINES_PER_BATCH: usize = 256;

/// The maximum number of parallel connections to an agent.
pub(super) const MAX_CONNECTIONS: usize = 8;

/// Secrets shorter than this many bytes are not replaced in the log: they would hide ordinary text.
pub(super) const MIN_REDACTED_BYTES: usize = 6;

/// The maximum number of files and directories whose hash is computed.
pub(super) const MAX_SOURCE_ENTRIES: u64 = 2_000_000;

/// How long an agent waits for a host that closes its connection after it received the result.
pub(super) const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How often an agent tries to listen. The vsock module of a microVM may be loaded late.
pub(super) const LISTEN_ATTEMPTS: u32 = 10;

/// The pause between two attempts to listen.
pub(super) const LISTEN_INTERVAL: Duration = Duration::from_secs(1);
