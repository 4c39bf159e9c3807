//! Recovery from transient faults with the default number of retries, slow connections, and redirects to other hosts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ocikit_server::{Action, Authentication, Fault, Location, Point, Reply, Server, User};
use ocikit_tests::{Archive, Direction, Proxy, ProxyFault, Registry, testdata, verified_digest, write_archive};

use crate::bench;
use crate::faults::{for_each_parallel, print_measurement, pseudo_random};

/// The fault of one push and the pull that follows it.
enum Trial {
    /// A fault of the request with this number, counted from 1.
    Request(u64, Action),
    /// Status 503 for each request with this probability and seed.
    Sometimes(f64, u64),
    /// A cut connection at a pseudo-random byte in this direction, with a seed.
    Connection(Direction, usize),
}

/// Returns faults of every kind from which the client can recover by a retry or a redirect.
fn trials(requests: u64, elsewhere: &str) -> Vec<Trial> {
    let mut trials = Vec::new();
    let statuses = [408, 425, 429, 500, 502, 503, 504];
    for nth in 1..=requests {
        let status = |which: u64| Action::Answer(Reply::status(statuses[which as usize % statuses.len()]));
        let body = Action::Cut(Point::AnswerBody(pseudo_random(nth as usize, 300)));
        let redirect = Action::Redirect(format!("{elsewhere}{{path}}"));
        let actions = [status(nth), status(nth * 3 + 1), Action::Cut(Point::Answer), body, redirect];
        trials.extend(actions.map(|action| Trial::Request(nth, action)));
    }
    trials.extend((0..10).map(|seed| Trial::Sometimes(0.05, seed)));
    trials.extend((0..10).map(|seed| Trial::Sometimes(0.2, seed)));
    trials.extend((0..50).flat_map(|seed| {
        [Trial::Connection(Direction::ToRegistry, seed), Trial::Connection(Direction::ToClient, seed)]
    }));
    trials
}

#[test]
fn push_and_pull_survive_99_percent_of_transient_faults() {
    let (bench, registry) = (bench(), Registry::start());
    let archive = testdata("buildkit-multi/image.tar");
    let digest = verified_digest(&archive);
    let round = |number: usize, address: &str| -> Result<(), String> {
        let (reference, pulled) = (format!("{address}/case{number}:1"), format!("{number}.tar"));
        let archive = archive.display().to_string();
        for line in [&["push", "-q", &archive, &reference][..], &["pull", "-q", &reference, "-o", &pulled]] {
            let outcome = bench.ocikit(line);
            if outcome.code != 0 {
                // A failed command reports an error and leaves no tag of an incomplete image, which panics here.
                assert!(outcome.stderr.starts_with("error: "), "{outcome}");
                registry.verified_digest(&format!("case{number}"), "1");
                return Err(format!("{}: {outcome}", line[0]));
            }
        }
        assert_eq!(registry.verified_digest(&format!("case{number}"), "1"), Some(digest), "{number}");
        assert_eq!(verified_digest(&bench.path(&pulled)), digest, "{number}");
        Ok(())
    };
    let proxy = Proxy::start(registry.address());
    registry.clear_requests();
    round(0, &proxy.name()).unwrap();
    let (requests, up, down) = (
        registry.requests().len(),
        proxy.forwarded_bytes(Direction::ToRegistry),
        proxy.forwarded_bytes(Direction::ToClient),
    );
    // The same registry under another host name.
    let elsewhere = format!("http://127.0.0.1:{}", registry.address().port());
    let trials = trials(requests as u64, &elsewhere);
    let (happened, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    for_each_parallel(trials.len(), |number| {
        let case = number + 1;
        let kind = format!("* /v2/case{case}/**");
        let proxy = Proxy::start(registry.address());
        let active = match &trials[number] {
            Trial::Request(nth, action) => Some(registry.faults().add(Fault::on(&kind, action.clone()).nth(*nth))),
            Trial::Sometimes(probability, seed) => {
                let fault = Fault::on(&kind, Action::Answer(Reply::status(503))).sometimes(*probability, *seed);
                Some(registry.faults().add(fault))
            }
            Trial::Connection(direction, seed) => {
                let bytes = if *direction == Direction::ToRegistry { up } else { down };
                proxy.inject_after(*direction, pseudo_random(*seed, bytes), ProxyFault::Close);
                None
            }
        };
        if let Err(failure) = round(case, &proxy.name()) {
            failed.lock().unwrap().push(failure);
        }
        let was_injected = active.as_ref().map_or(proxy.has_injected(), |active| active.happened() > 0);
        happened.fetch_add(usize::from(was_injected), Ordering::Relaxed);
        if let Some(active) = active {
            active.remove();
        }
    });
    let (happened, failed) = (happened.into_inner(), failed.into_inner().unwrap());
    print_measurement(&format!(
        "{happened} of {} faults were injected, {} commands failed: {failed:#?}",
        trials.len(),
        failed.len()
    ));
    // Some faults cannot be injected: a response without a body cannot be cut in its body.
    assert!(happened * 10 >= trials.len() * 9, "{happened} of {}", trials.len());
    assert!(failed.len() * 100 <= happened, "{failed:#?}");
}

#[test]
fn slow_transfer_is_not_a_timeout() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = write_archive(&bench.path("a.tar"), Archive { layers: 2, size: 100 << 10, valid_digests: true });
    let proxy = Proxy::start(registry.address());
    let reference = format!("{}/app:1", proxy.name());
    let begun = Instant::now();
    // 512 bytes every 5 ms, and a timeout of one second without data.
    for (direction, line) in [
        (Direction::ToRegistry, ["push", "-q", "--timeout", "1", "a.tar", &reference, "--no-referrers"]),
        (Direction::ToClient, ["pull", "-q", "--timeout", "1", &reference, "-o", "b.tar"]),
    ] {
        proxy.inject_after(direction, 1000, ProxyFault::Throttle);
        bench.ok(&line);
        assert!(proxy.has_injected());
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "the timeout must not limit the total time");
    assert_eq!(registry.verified_digest("app", "1"), Some(digest));
    assert_eq!(verified_digest(&bench.path("b.tar")), digest);
}

#[test]
fn credentials_are_not_sent_to_other_hosts() {
    let guarded = || Authentication::basic([User::new("alice", "s3cret")]);
    let registry = Registry::start_with(Server::default().authentication(guarded()));
    let other = Registry::start();
    let bench = bench().with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "s3cret");
    let digest = write_archive(&bench.path("a.tar"), Archive { layers: 2, size: 100 << 10, valid_digests: true });
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "-q", "a.tar", &reference]);
    // The other host has the blobs, like the object storage of a registry.
    bench.ok(&["push", "-q", "a.tar", &format!("{}/app:1", other.name())]);
    other.clear_requests();
    let elsewhere = format!("http://127.0.0.1:{}", other.address().port());
    registry.faults().add(Fault::on("GET /v2/**/blobs/*", Action::Redirect(format!("{elsewhere}{{path}}"))));
    bench.ok(&["pull", "-q", &reference, "-o", "b.tar"]);
    assert_eq!(verified_digest(&bench.path("b.tar")), digest);
    let reads = other.requests();
    assert!(reads.len() >= 3, "{}", reads.len());
    // The location of an upload on another host gets no credentials either. Here that host does not know the session.
    registry.faults().add(Fault::on("POST /v2/**", Action::Location(Location::Elsewhere(elsewhere))));
    let outcome = bench.ocikit(&["push", "-q", "--retries", "1", "a.tar", &format!("{}/new:1", registry.name())]);
    assert_ne!(outcome.code, 0);
    assert_eq!(registry.verified_digest("new", "1"), None);
    let requests = [reads, other.requests()].concat();
    assert!(requests.iter().any(|request| request.method == "PUT"));
    assert!(requests.iter().all(|request| request.header("authorization").is_none()));
    assert!(!format!("{outcome}").contains("s3cret"));
}
