//! Network faults and killed processes, one at a time, with the real program. The copy is identical or fails with an error, a tag
//! never names an incomplete image, and few bytes are sent twice.
//!
//! The requests after each fault are tested in `ocikit-registry`.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ocikit_server::{Action, Authentication, Fault, Point, Reply, Server, User};
use ocikit_spec::Digest;
use ocikit_tests::{
    Archive, Bench, Direction, Proxy, ProxyFault, Registry, single, testdata, verified_digest, write_archive,
};

use crate::bench;

/// The maximum of bytes sent twice: repeated requests, and bytes that were not yet received.
const MAX_RESENT_BYTES: u64 = 256 << 10;

/// Calls a function for every number below `count`, 16 calls in parallel, because most of the time is spent waiting for a retry.
pub(crate) fn for_each_parallel(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count) {
                    work(number);
                }
            });
        }
    });
}

/// Returns a pseudo-random number below `limit` that depends only on the seed (splitmix64).
pub(crate) fn pseudo_random(seed: usize, limit: u64) -> u64 {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state ^ (state >> 31)) % limit
}

/// Writes an archive with two layers of this size to `a.tar` and returns its digest.
fn layers(bench: &Bench, size: u64) -> Digest {
    write_archive(&bench.path("a.tar"), Archive { layers: 2, size, valid_digests: true })
}

#[test]
fn push_and_pull_survive_one_failure_of_any_request() {
    each_request_fails_once(Duration::ZERO);
}

/// With a high round-trip time, the client sends requests concurrently instead of one after the other.
#[test]
fn push_and_pull_survive_one_failure_of_any_request_at_50_ms() {
    each_request_fails_once(Duration::from_millis(50));
}

fn each_request_fails_once(delay: Duration) {
    let (bench, registry) = (bench(), Registry::start());
    if !delay.is_zero() {
        registry.faults().add(Fault::on("* /**", Action::Delay(delay)));
    }
    let digest = verified_digest(&testdata("buildkit-single/image.tar"));
    let round = |number: usize| {
        let reference = format!("{}/case{number}:1", registry.name());
        bench.ok(&["push", "-q", &single(), &reference]);
        assert_eq!(registry.verified_digest(&format!("case{number}"), "1"), Some(digest), "{number}");
        let pulled = format!("{number}.tar");
        bench.ok(&["pull", "-q", &reference, "-o", &pulled]);
        assert_eq!(verified_digest(&bench.path(&pulled)), digest, "{number}");
        let beginning = format!("/v2/case{number}/");
        registry.requests().iter().filter(|request| request.path.starts_with(&beginning)).count()
    };
    let requests = round(0);
    let actions = [
        Action::Answer(Reply::status(429)),
        Action::Answer(Reply::status(502)),
        Action::Cut(Point::Request),
        Action::Cut(Point::Answer),
    ];
    for_each_parallel(requests * actions.len(), |number| {
        let (nth, action) = (number / actions.len() + 1, &actions[number % actions.len()]);
        let case = number + 1;
        let kind = format!("* /v2/case{case}/**");
        let active = registry.faults().add(Fault::on(&kind, action.clone()).nth(nth as u64));
        let made = round(case);
        // The number of requests depends on the latency, and so on the load of this machine.
        assert!(active.happened() == 1 || made < nth, "{case}: {action:?} at request {nth} of {made}");
        active.remove();
    });
}

#[test]
fn permanent_failure_of_any_request_leaves_no_tag() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = bench.ok(&["digest", &single()]);
    bench.ok(&["push", "-q", &single(), &format!("{}/case:1", registry.name())]);
    let requests = registry.requests().len();
    for_each_parallel(requests * 2, |number| {
        let (after, kind) = (number / 2, number % 2);
        let action = if kind == 0 { Action::Answer(Reply::status(500)) } else { Action::Cut(Point::Answer) };
        let active = registry.faults().add(Fault::on(&format!("* /v2/case{number}/**"), action).after(after as u64));
        let reference = format!("{}/case{number}:1", registry.name());
        let outcome = bench.ocikit(&["push", "-q", "--retries", "0", &single(), &reference]);
        // The number of requests depends on the latency, and so on the load of this machine.
        let code = if active.happened() == 0 { 0 } else { 6 };
        assert_eq!(outcome.code, code, "{number}: {outcome}");
        if code != 0 {
            assert!(outcome.stderr.starts_with("error: "), "{outcome}");
        }
        active.remove();
        // The last request creates the tag. If only its response is lost, the tag names the complete image.
        let tag = registry.verified_digest(&format!("case{number}"), "1");
        let path = format!("/v2/case{number}/manifests/1");
        let tagged = registry.requests().iter().any(|made| made.method == "PUT" && made.path == path);
        let is_last = tagged && (kind == 1 || code == 0);
        assert_eq!(tag.map(|tag| tag.to_string()), is_last.then(|| digest.clone()), "{number}");
        bench.ok(&["push", "-q", &single(), &reference]);
        assert!(registry.verified_digest(&format!("case{number}"), "1").is_some());
    });
}

#[allow(clippy::print_stdout, reason = "--nocapture shows the measurements")]
pub(crate) fn print_measurement(text: &str) {
    println!("{text}");
}

/// Cuts the connection at 200 positions of a transfer, and checks how many bytes are sent again.
fn cut_everywhere(direction: Direction, transfer: impl Fn(&Proxy, usize) + Sync, registry: &Registry) {
    const CUTS: usize = 200;
    let proxy = Proxy::start(registry.address());
    transfer(&proxy, CUTS);
    let needed = proxy.forwarded_bytes(direction);
    let (happened, max, total) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    for_each_parallel(CUTS, |number| {
        let proxy = Proxy::start(registry.address());
        let fault = if number % 2 == 0 { ProxyFault::Close } else { ProxyFault::CloseAll };
        proxy.inject_after(direction, pseudo_random(number, needed), fault);
        transfer(&proxy, number);
        happened.fetch_add(usize::from(proxy.has_injected()), Ordering::Relaxed);
        let resent = proxy.forwarded_bytes(direction).saturating_sub(needed);
        // Bytes that the registry had not read when it was queried for the offset are lost. Their number depends on the
        // load of the machine.
        assert!(resent < needed + MAX_RESENT_BYTES, "{number}: {resent} bytes resent");
        max.fetch_max(resent as usize, Ordering::Relaxed);
        total.fetch_add(resent as usize, Ordering::Relaxed);
    });
    // The length of a request differs by a few bytes from case to case, so a cut near the end may not happen.
    assert!(happened.into_inner() >= CUTS - 2);
    let (total, max) = (total.into_inner(), max.into_inner());
    // Without resuming, about a quarter of the bytes would be sent again.
    assert!(total < CUTS * needed as usize / 16, "{total} bytes resent, at most {max} per transfer");
    print_measurement(&format!(
        "{CUTS} cuts, {needed} bytes each: at most {max} bytes resent per transfer, {total} in total"
    ));
}

#[test]
fn push_survives_a_cut_at_any_byte() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = layers(&bench, 1 << 20);
    let push = |proxy: &Proxy, number: usize| {
        bench.ok(&["push", "-q", "a.tar", &format!("{}/case{number}:1", proxy.name())]);
        assert_eq!(registry.verified_digest(&format!("case{number}"), "1"), Some(digest), "{number}");
    };
    cut_everywhere(Direction::ToRegistry, push, &registry);
}

#[test]
fn pull_survives_a_cut_at_any_byte() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = layers(&bench, 1 << 20);
    bench.ok(&["push", "-q", "a.tar", &format!("{}/app:1", registry.name())]);
    let pull = |proxy: &Proxy, number: usize| {
        // Archives and layouts are written by different code.
        let output = if number % 4 < 2 { format!("{number}.tar") } else { format!("./layout{number}") };
        bench.ok(&["pull", "-q", &format!("{}/app:1", proxy.name()), "-o", &output]);
        assert_eq!(verified_digest(&bench.path(&output)), digest, "{number}");
    };
    cut_everywhere(Direction::ToClient, pull, &registry);
}

/// Kills a command after this many bytes. Returns `false` if the command ended before.
pub(crate) fn kill_at(bench: &Bench, proxy: &Proxy, direction: Direction, after: u64, arguments: &[&str]) -> bool {
    proxy.inject_after(direction, after, ProxyFault::Freeze);
    let mut child = bench.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !proxy.has_injected() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    let killed = child.wait().unwrap().code().is_none();
    proxy.release();
    killed
}

#[test]
fn next_push_resumes_the_uploads_of_a_killed_push() {
    let (bench, registry) = (bench(), Registry::start());
    // Only uploads of a minimum size are recorded in the journal.
    let digest = layers(&bench, 9 << 20);
    let proxy = Proxy::start(registry.address());
    bench.ok(&["push", "-q", "a.tar", &format!("{}/whole:1", proxy.name())]);
    let needed = proxy.forwarded_bytes(Direction::ToRegistry);
    let (killed, max, total) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    for_each_parallel(100, |number| {
        let proxy = Proxy::start(registry.address());
        let (repository, reference) = (format!("case{number}"), format!("{}/case{number}:1", proxy.name()));
        let push = ["push", "-q", "a.tar", &reference];
        if kill_at(&bench, &proxy, Direction::ToRegistry, pseudo_random(number, needed), &push) {
            killed.fetch_add(1, Ordering::Relaxed);
            registry.wait_until_quiet(&repository);
            assert!(registry.verified_digest(&repository, "1").is_none_or(|found| found == digest), "{number}");
        }
        bench.ok(&push);
        assert_eq!(registry.verified_digest(&repository, "1"), Some(digest), "{number}");
        let resent = proxy.forwarded_bytes(Direction::ToRegistry).saturating_sub(needed);
        // On a busy machine, the registry may not have read all bytes of the killed process when it is queried.
        assert!(resent < needed / 2 + MAX_RESENT_BYTES, "{number}: {resent} bytes resent");
        max.fetch_max(resent as usize, Ordering::Relaxed);
        total.fetch_add(resent as usize, Ordering::Relaxed);
    });
    // Without resuming, about half of the bytes would be sent again.
    assert!(
        total.load(Ordering::Relaxed) < 100 * needed as usize / 32,
        "{total:?} bytes resent, at most {max:?} per push"
    );
    assert!(killed.load(Ordering::Relaxed) >= 98, "{killed:?}");
    print_measurement(&format!("{killed:?} kills, {needed} bytes each: at most {max:?} bytes resent per push"));
    let left = std::fs::read_dir(bench.path("home/.cache/ocikit/uploads")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the journal has no entry of a completed upload");
}

#[test]
fn killed_pull_leaves_the_existing_archive_and_layout() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = layers(&bench, 1 << 20).to_string();
    let proxy = Proxy::start(registry.address());
    let reference = format!("{}/app:1", proxy.name());
    bench.ok(&["push", "-q", "a.tar", &reference]);
    proxy.inject_after(Direction::ToClient, u64::MAX, ProxyFault::Close);
    bench.ok(&["pull", "-q", &reference, "-o", "b.tar"]);
    let needed = proxy.forwarded_bytes(Direction::ToClient);
    let old = std::fs::read(bench.path("b.tar")).unwrap();
    let mut killed = 0;
    for number in 0..100 {
        let output = ["b.tar", "oci:layout:1"][number % 2];
        let pull = ["pull", "-q", &reference, "-o", output];
        if kill_at(&bench, &proxy, Direction::ToClient, pseudo_random(number, needed), &pull) {
            killed += 1;
            assert!(std::fs::read(bench.path("b.tar")).unwrap() == old, "{number}");
            let unfinished = bench.ocikit(&["digest", "oci:layout:1"]);
            assert!(unfinished.code == 3 || unfinished.stdout.trim_end() == digest, "{unfinished}");
        }
        if number % 10 == 9 {
            bench.ok(&["pull", "-q", &reference, "-o", output]);
            assert_eq!(bench.ok(&["digest", output]), digest);
            let _ = std::fs::remove_dir_all(bench.path("layout"));
        }
    }
    // A layout skips blobs that it has, so some pulls end before they are killed.
    assert!(killed >= 80, "{killed}");
    assert_eq!(bench.names().iter().filter(|name| !["a.tar", "b.tar", "layout"].contains(&name.as_str())).count(), 0);
}

#[test]
fn wrong_bytes_and_redirect_loops_leave_no_file() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "-q", &single(), &reference]);
    for (fault, on, action, codes) in [
        ("a changed byte of a blob", "GET /v2/**/blobs/*", Action::Corrupt(3), &[5][..]),
        ("a changed byte of the manifest", "GET /v2/**/manifests/*", Action::Corrupt(3), &[5]),
        ("a wrong digest header of the manifest", "* /v2/**/manifests/*", Action::wrong_digest(), &[5]),
        ("a content length that is too large", "GET /v2/**/blobs/*", Action::ContentLength(5), &[5, 6]),
        ("a content length that is too small", "GET /v2/**/blobs/*", Action::ContentLength(-5), &[5, 6]),
        ("a redirect loop for blobs", "GET /v2/**/blobs/*", Action::redirect_loop(), &[6]),
        ("a redirect loop for manifests", "GET /v2/**/manifests/*", Action::redirect_loop(), &[6]),
        (
            "a redirect to a link-local address",
            "GET /v2/**/blobs/*",
            Action::Redirect("http://169.254.169.254/".into()),
            &[6],
        ),
    ] {
        registry.faults().add(Fault::on(on, action));
        let outcome = bench.ocikit(&["pull", "-q", "--retries", "1", &reference, "-o", "pulled.tar"]);
        registry.faults().clear();
        assert!(codes.contains(&outcome.code), "{fault}: {outcome}");
        assert_eq!(bench.names(), Vec::<String>::new(), "{fault}");
    }
    bench.ok(&["pull", "-q", &reference, "-o", "pulled.tar"]);
}

#[test]
fn push_recovers_from_expired_tokens_and_lost_uploads() {
    let server = Server::default().authentication(Authentication::bearer([User::new("alice", "s3cret")]));
    let registry = Registry::start_with(server);
    let bench = bench().with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "s3cret");
    let digest = layers(&bench, 1 << 20);
    for (number, (fault, on, action)) in [
        ("tokens expire before an upload starts", "POST /v2/**", Action::ExpireTokens),
        ("tokens expire during an upload", "PUT /v2/**/uploads/*", Action::ExpireTokens),
        ("tokens expire before the tag is created", "PUT /v2/**/manifests/*", Action::ExpireTokens),
        ("the upload session is lost", "PUT /v2/**/uploads/*", Action::LoseUpload),
        ("the connection is cut during an upload", "PUT /v2/**/uploads/*", Action::Cut(Point::RequestBody(500_000))),
        ("the response is lost", "PUT /v2/**/uploads/*", Action::Cut(Point::Answer)),
        ("the upload times out (408)", "PUT /v2/**/uploads/*", Action::Answer(Reply::status(408))),
        ("mounts are refused", "POST /v2/**", Action::RefuseMount),
    ]
    .into_iter()
    .enumerate()
    {
        let active = registry.faults().add(Fault::on(on, action).nth(1));
        let reference = format!("{}/case{number}:1", registry.name());
        let outcome = bench.ocikit(&["push", "a.tar", &reference]);
        assert_eq!(outcome.code, 0, "{fault}: {outcome}");
        assert!(!format!("{outcome}").contains("s3cret"));
        assert_eq!(registry.verified_digest(&format!("case{number}"), "1"), Some(digest), "{fault}");
        assert_eq!(active.happened(), 1, "{fault}");
        registry.faults().clear();
    }
}
