//! Signals: ends the program when it is interrupted, also while it waits for input that may never come.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::failure::{Code, Failure};
use crate::{output, waiting};

/// How often an interrupted program looks whether the command waits for input.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the failure of an interrupted command.
pub(crate) fn failure() -> Failure {
    Failure::new(Code::Interrupted, "interrupted")
}

/// Watches for SIGINT and SIGTERM. The task ends on the first one; its caller then drops the running command, which undoes
/// unfinished work. A command that waits for input cannot be dropped, so the program ends instead.
#[allow(clippy::exit, reason = "the main thread waits for input and cannot return")]
pub(crate) fn watch(json: bool) -> JoinHandle<()> {
    tokio::spawn(async move {
        signal().await;
        // Another task, since the command may begin to wait before it is dropped.
        tokio::spawn(async move {
            loop {
                if waiting::is_waiting() {
                    let failure = failure();
                    output::print_failure(&failure, None, json);
                    std::process::exit(failure.code as i32);
                }
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        });
    })
}

async fn signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut terminate) = terminate {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}

/// Makes a write beyond `ulimit -f` fail with "file too large". By default the signal SIGXFSZ kills the program, which then
/// leaves its temporary files behind.
pub(crate) fn ignore_file_size_signal() {
    #[cfg(target_os = "linux")]
    {
        /// The number of SIGXFSZ on Linux (signal(7)), except on MIPS.
        const SIGXFSZ: i32 = if cfg!(any(target_arch = "mips", target_arch = "mips64")) { 31 } else { 25 };
        // A handler remains installed after its listener is gone, and does nothing.
        drop(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ)));
    }
}
