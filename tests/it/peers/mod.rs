//! Tests with programs of other projects: each reads what the other writes.

#[cfg(unix)]
mod agent;
mod artifacts;
mod build;
#[cfg(unix)]
mod build_ends;
mod build_outputs;
mod build_results;
mod build_signatures;
mod builder_image;
mod buildkit;
mod contexts;
mod edit;
mod envelopes;
mod fastpull;
mod files;
mod from_crane;
mod from_oras;
mod from_regctl;
#[cfg(unix)]
mod from_umoci;
mod index;
mod inputs;
mod keyless;
mod layers;
mod layouts;
#[cfg(unix)]
mod lazy;
mod notation;
#[cfg(target_os = "linux")]
mod nydus;
mod old_log;
mod pages;
#[cfg(unix)]
mod plugin_images;
mod project;
mod publish;
mod registries;
mod rest;
mod rows;
#[cfg(unix)]
mod runtimes;
mod services;
mod sign;
mod suite;
#[cfg(unix)]
mod unpack;

use ocikit_tests::{Daemon, Peers};

/// Starts a Docker engine; its address is a socket.
fn engine(peers: &Peers) -> Daemon {
    let socket = format!("unix://{}", peers.path("d.sock").display());
    let mut command = peers.command("dockerd");
    command.args(["--iptables=false", "--bridge=none", "-H", &socket]);
    if let Some(runtime) = runtime_with_fewer_capabilities(peers) {
        command.arg("--add-runtime").arg(format!("fewer={runtime}")).arg("--default-runtime=fewer");
    }
    for (option, name) in [("--data-root", "docker-data"), ("--exec-root", "docker-exec"), ("-p", "docker.pid")] {
        command.arg(option).arg(peers.path(name));
    }
    let mut daemon = Daemon::start(command, &peers.path("dockerd.log"));
    daemon.wait(|| peers.run(&format!("docker -H {socket} version")).code == 0);
    daemon.address = socket;
    daemon
}

/// Returns a runtime for a machine whose root lacks capabilities, as in a container: `--privileged` asks for all of them, and `runc`
/// then fails. It leaves out those that are missing. Returns `None` if there are none.
fn runtime_with_fewer_capabilities(peers: &Peers) -> Option<String> {
    const NAMES: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    let bounding = u64::from_str_radix(bounding.trim(), 16).ok()?;
    let missing: Vec<_> =
        NAMES.iter().zip(0..).filter(|(_, bit)| bounding & (1 << bit) == 0).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return None;
    }
    let path = peers.path("runc-with-fewer-capabilities");
    let script = format!(
        "#!/bin/sh\nfor word; do\n  [ \"$before\" != --bundle ] || config=$word/config.json\n  before=$word\ndone\n\
         [ -z \"$config\" ] || sed -i -E 's/\"CAP_({})\",?//g; s/,]/]/g' \"$config\"\nexec runc \"$@\"\n",
        missing.join("|")
    );
    std::fs::write(&path, script).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Some(path.display().to_string())
}
