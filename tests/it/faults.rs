//! Everything that can go wrong on the way, one at a time, with the real program: identical bytes in the end or a clear
//! failure, never a tag that leads to something incomplete, and little sent twice.
//!
//! What a client has to do about each fault is tested beside it, in `ocikit-registry`. Here is what comes of it.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ocikit_server::{Action, Authentication, Fault, Point, Reply, Server, User};
use ocikit_spec::Digest;
use ocikit_tests::{Archive, Bench, Proxy, Registry, Trouble, Way, testdata, whole, write_archive};

use crate::bench;

/// How many bytes may pass that did not have to: the requests that are made again, and what was on its way.
const AGAIN: u64 = 256 << 10;

/// Does something for every number below `count`, several at the same time: most of the time is spent waiting to try
/// again.
pub(crate) fn for_each(count: usize, work: impl Fn(usize) + Sync) {
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

/// A number below `most` that looks random and is the same every time: splitmix64.
pub(crate) fn offset(seed: usize, most: u64) -> u64 {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state ^ (state >> 31)) % most
}

fn single() -> String {
    testdata("buildkit-single/image.tar").display().to_string()
}

/// An archive in the bench, of two layers of this size.
fn layers(bench: &Bench, size: u64) -> Digest {
    write_archive(&bench.path("a.tar"), Archive { layers: 2, size, honest: true })
}

#[test]
fn any_request_may_fail_once() {
    each_request_fails_once(Duration::ZERO);
}

/// A registry that is far away is asked in another way: several things at once.
#[test]
fn any_request_to_a_registry_far_away_may_fail_once() {
    each_request_fails_once(Duration::from_millis(50));
}

fn each_request_fails_once(delay: Duration) {
    let (bench, registry) = (bench(), Registry::start());
    if !delay.is_zero() {
        registry.faults().add(Fault::on("* /**", Action::Delay(delay)));
    }
    let digest = whole(&testdata("buildkit-single/image.tar"));
    let round = |number: usize| {
        let reference = format!("{}/case{number}:1", registry.name());
        bench.ok(&["push", "-q", &single(), &reference]);
        assert_eq!(registry.whole(&format!("case{number}"), "1"), Some(digest), "{number}");
        let pulled = format!("{number}.tar");
        bench.ok(&["pull", "-q", &reference, "-o", &pulled]);
        assert_eq!(whole(&bench.path(&pulled)), digest, "{number}");
        let beginning = format!("/v2/case{number}/");
        registry.requests().iter().filter(|request| request.path.starts_with(&beginning)).count()
    };
    let requests = round(0);
    let troubles = [
        Action::Answer(Reply::status(429)),
        Action::Answer(Reply::status(502)),
        Action::Cut(Point::Request),
        Action::Cut(Point::Answer),
    ];
    for_each(requests * troubles.len(), |number| {
        let (nth, trouble) = (number / troubles.len() + 1, &troubles[number % troubles.len()]);
        let case = number + 1;
        let kind = format!("* /v2/case{case}/**");
        let active = registry.faults().add(Fault::on(&kind, trouble.clone()).nth(nth as u64));
        let made = round(case);
        // How many requests are made depends on how long answers take, and so on what else this machine does.
        assert!(active.happened() == 1 || made < nth, "{case}: {trouble:?} at request {nth} of {made}");
        active.remove();
    });
}

#[test]
fn what_keeps_failing_leaves_no_tag() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = bench.ok(&["digest", &single()]);
    bench.ok(&["push", "-q", &single(), &format!("{}/case:1", registry.name())]);
    let requests = registry.requests().len();
    for_each(requests * 2, |number| {
        let (after, way) = (number / 2, number % 2);
        let action = if way == 0 { Action::Answer(Reply::status(500)) } else { Action::Cut(Point::Answer) };
        let active = registry.faults().add(Fault::on(&format!("* /v2/case{number}/**"), action).after(after as u64));
        let reference = format!("{}/case{number}:1", registry.name());
        let outcome = bench.ocikit(&["push", "-q", "--retries", "0", &single(), &reference]);
        // How many requests are made depends on how long answers take, and so on what else this machine does.
        let code = if active.happened() == 0 { 0 } else { 6 };
        assert_eq!(outcome.code, code, "{number}: {outcome}");
        if code != 0 {
            assert!(outcome.stderr.starts_with("error: "), "{outcome}");
        }
        active.remove();
        // The last request of all makes the tag: cut behind it, it is there, and whole.
        let tag = registry.whole(&format!("case{number}"), "1");
        let path = format!("/v2/case{number}/manifests/1");
        let tagged = registry.requests().iter().any(|made| made.method == "PUT" && made.path == path);
        let is_last = tagged && (way == 1 || code == 0);
        assert_eq!(tag.map(|tag| tag.to_string()), is_last.then(|| digest.clone()), "{number}");
        bench.ok(&["push", "-q", &single(), &reference]);
        assert!(registry.whole(&format!("case{number}"), "1").is_some());
    });
}

#[allow(clippy::print_stdout, reason = "what it cost is shown to whoever asks with --nocapture")]
pub(crate) fn tell(text: &str) {
    println!("{text}");
}

/// Cuts the connection at 200 bytes of a transfer, and says how many bytes that cost at most and on average.
fn cut_everywhere(way: Way, transfer: impl Fn(&Proxy, usize) + Sync, registry: &Registry) {
    const CUTS: usize = 200;
    let proxy = Proxy::before(registry.address());
    transfer(&proxy, CUTS);
    let needed = proxy.passed(way);
    let (happened, most, all) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    for_each(CUTS, |number| {
        let proxy = Proxy::before(registry.address());
        let trouble = if number % 2 == 0 { Trouble::Cut } else { Trouble::CutAll };
        proxy.misbehave(way, offset(number, needed), trouble);
        transfer(&proxy, number);
        happened.fetch_add(usize::from(proxy.happened()), Ordering::Relaxed);
        let again = proxy.passed(way).saturating_sub(needed);
        // Bytes that the registry had not read when it was queried for the offset are lost. Their number depends on the
        // load of the machine.
        assert!(again < needed + AGAIN, "{number}: {again} bytes again");
        most.fetch_max(again as usize, Ordering::Relaxed);
        all.fetch_add(again as usize, Ordering::Relaxed);
    });
    // How long requests are differs by a few bytes from case to case.
    assert!(happened.into_inner() >= CUTS - 2);
    let (all, most) = (all.into_inner(), most.into_inner());
    // Without resuming, about a quarter of the bytes would be sent again.
    assert!(all < CUTS * needed as usize / 16, "{all} bytes again, at most {most}");
    tell(&format!("{CUTS} cuts, {needed} bytes each: at most {most} bytes again, {all} in all"));
}

#[test]
fn a_push_survives_a_cut_at_any_byte() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = layers(&bench, 1 << 20);
    let push = |proxy: &Proxy, number: usize| {
        bench.ok(&["push", "-q", "a.tar", &format!("{}/case{number}:1", proxy.name())]);
        assert_eq!(registry.whole(&format!("case{number}"), "1"), Some(digest), "{number}");
    };
    cut_everywhere(Way::Up, push, &registry);
}

#[test]
fn a_pull_survives_a_cut_at_any_byte() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = layers(&bench, 1 << 20);
    bench.ok(&["push", "-q", "a.tar", &format!("{}/app:1", registry.name())]);
    let pull = |proxy: &Proxy, number: usize| {
        // The two are written by different code.
        let output = if number % 4 < 2 { format!("{number}.tar") } else { format!("./layout{number}") };
        bench.ok(&["pull", "-q", &format!("{}/app:1", proxy.name()), "-o", &output]);
        assert_eq!(whole(&bench.path(&output)), digest, "{number}");
    };
    cut_everywhere(Way::Down, pull, &registry);
}

/// Kills a command when so many bytes have passed; `false` if it was done before.
fn kill_at(bench: &Bench, proxy: &Proxy, way: Way, after: u64, arguments: &[&str]) -> bool {
    proxy.misbehave(way, after, Trouble::Freeze);
    let mut child = bench.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !proxy.happened() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    let killed = child.wait().unwrap().code().is_none();
    proxy.release();
    killed
}

#[test]
fn a_push_that_was_killed_is_continued_by_the_next() {
    let (bench, registry) = (bench(), Registry::start());
    // Large enough to be written down.
    let digest = layers(&bench, 9 << 20);
    let proxy = Proxy::before(registry.address());
    bench.ok(&["push", "-q", "a.tar", &format!("{}/whole:1", proxy.name())]);
    let needed = proxy.passed(Way::Up);
    let (killed, again, all) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    for_each(100, |number| {
        let proxy = Proxy::before(registry.address());
        let (repository, reference) = (format!("case{number}"), format!("{}/case{number}:1", proxy.name()));
        let push = ["push", "-q", "a.tar", &reference];
        if kill_at(&bench, &proxy, Way::Up, offset(number, needed), &push) {
            killed.fetch_add(1, Ordering::Relaxed);
            registry.wait_until_quiet(&repository);
            assert!(registry.whole(&repository, "1").is_none_or(|found| found == digest), "{number}");
        }
        bench.ok(&push);
        assert_eq!(registry.whole(&repository, "1"), Some(digest), "{number}");
        let more = proxy.passed(Way::Up).saturating_sub(needed);
        // The registry may not have read all bytes of the dead process when it is queried, on a busy machine.
        assert!(more < needed / 2 + AGAIN, "{number}: {more} bytes again");
        again.fetch_max(more as usize, Ordering::Relaxed);
        all.fetch_add(more as usize, Ordering::Relaxed);
    });
    // Without resuming, about half of the bytes would be sent again.
    assert!(all.load(Ordering::Relaxed) < 100 * needed as usize / 32, "{all:?} bytes again, at most {again:?}");
    assert!(killed.load(Ordering::Relaxed) >= 98, "{killed:?}");
    tell(&format!("{killed:?} kills, {needed} bytes each: at most {again:?} bytes again"));
    let left = std::fs::read_dir(bench.path("home/.cache/ocikit/uploads")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "what is complete is not written down any more");
}

#[test]
fn a_pull_that_was_killed_leaves_what_was_there() {
    let (bench, registry) = (bench(), Registry::start());
    let digest = layers(&bench, 1 << 20).to_string();
    let proxy = Proxy::before(registry.address());
    let reference = format!("{}/app:1", proxy.name());
    bench.ok(&["push", "-q", "a.tar", &reference]);
    proxy.misbehave(Way::Down, u64::MAX, Trouble::Cut);
    bench.ok(&["pull", "-q", &reference, "-o", "b.tar"]);
    let needed = proxy.passed(Way::Down);
    let old = std::fs::read(bench.path("b.tar")).unwrap();
    let mut killed = 0;
    for number in 0..100 {
        let output = ["b.tar", "oci:layout:1"][number % 2];
        let pull = ["pull", "-q", &reference, "-o", output];
        if kill_at(&bench, &proxy, Way::Down, offset(number, needed), &pull) {
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
    // What a layout has already is not pulled again, so some come to their end before.
    assert!(killed >= 80, "{killed}");
    assert_eq!(bench.names().iter().filter(|name| !["a.tar", "b.tar", "layout"].contains(&name.as_str())).count(), 0);
}

#[test]
fn bytes_that_are_wrong_are_noticed_and_nothing_is_written() {
    let (bench, registry) = (bench(), Registry::start());
    let reference = format!("{}/app:1", registry.name());
    bench.ok(&["push", "-q", &single(), &reference]);
    for (what, on, action, codes) in [
        ("another byte of a blob", "GET /v2/**/blobs/*", Action::Corrupt(3), &[5][..]),
        ("another byte of the manifest", "GET /v2/**/manifests/*", Action::Corrupt(3), &[5]),
        ("another digest of the manifest", "* /v2/**/manifests/*", Action::wrong_digest(), &[5]),
        ("a longer body promised", "GET /v2/**/blobs/*", Action::ContentLength(5), &[5, 6]),
        ("a shorter body", "GET /v2/**/blobs/*", Action::ContentLength(-5), &[5, 6]),
        ("a redirect in circles", "GET /v2/**/blobs/*", Action::redirect_loop(), &[6]),
        ("nothing but redirects", "GET /v2/**/manifests/*", Action::redirect_loop(), &[6]),
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
        assert!(codes.contains(&outcome.code), "{what}: {outcome}");
        assert_eq!(bench.names(), Vec::<String>::new(), "{what}");
    }
    bench.ok(&["pull", "-q", &reference, "-o", "pulled.tar"]);
}

#[test]
fn what_can_be_helped_is_helped() {
    let server = Server { authentication: Authentication::bearer([User::new("alice", "s3cret")]), ..Server::default() };
    let registry = Registry::of(server);
    let bench = bench().with("OCIKIT_USERNAME", "alice").with("OCIKIT_PASSWORD", "s3cret");
    let digest = layers(&bench, 1 << 20);
    for (number, (what, on, action)) in [
        ("tokens end before an upload begins", "POST /v2/**", Action::ExpireTokens),
        ("tokens end while bytes are sent", "PUT /v2/**/uploads/*", Action::ExpireTokens),
        ("tokens end before the tag", "PUT /v2/**/manifests/*", Action::ExpireTokens),
        ("the session is lost", "PUT /v2/**/uploads/*", Action::LoseUpload),
        ("bytes are lost", "PUT /v2/**/uploads/*", Action::Cut(Point::RequestBody(500_000))),
        ("the answer is lost", "PUT /v2/**/uploads/*", Action::Cut(Point::Answer)),
        ("the whole is refused", "PUT /v2/**/uploads/*", Action::Answer(Reply::status(408))),
        ("mounts are refused", "POST /v2/**", Action::RefuseMount),
    ]
    .into_iter()
    .enumerate()
    {
        let active = registry.faults().add(Fault::on(on, action).nth(1));
        let reference = format!("{}/case{number}:1", registry.name());
        let outcome = bench.ocikit(&["push", "a.tar", &reference]);
        assert_eq!(outcome.code, 0, "{what}: {outcome}");
        assert!(!format!("{outcome}").contains("s3cret"));
        assert_eq!(registry.whole(&format!("case{number}"), "1"), Some(digest), "{what}");
        assert_eq!(active.happened(), 1, "{what}");
        registry.faults().clear();
    }
}
