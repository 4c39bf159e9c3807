//! Tests with programs of other projects: each reads what the other writes.

#[cfg(unix)]
mod agent;
mod artifacts;
mod build;
mod build_outputs;
mod builder_image;
mod buildkit;
mod contexts;
mod edit;
mod envelopes;
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
mod old_log;
mod pages;
mod project;
mod publish;
mod registries;
mod rest;
mod rows;
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
    for (option, name) in [("--data-root", "docker-data"), ("--exec-root", "docker-exec"), ("-p", "docker.pid")] {
        command.arg(option).arg(peers.path(name));
    }
    let mut daemon = Daemon::start(command, &peers.path("dockerd.log"));
    daemon.wait(|| peers.run(&format!("docker -H {socket} version")).code == 0);
    daemon.address = socket;
    daemon
}
