//! No descriptors left, nothing to do, everybody gone again.

use crate::harness::Children as _;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Server, Setup, Stream, eventually, now, over_both};

over_both! {
    fn an_idle_daemon_does_not_wake_up(transport) {
        let server = Server::on(transport);
        // Peers that wait in every way there is.
        let _consumer = server.phpmq(1).consuming(&server, "q", 5);
        let mut worker = server.connect("beanstalk");
        worker.send("reserve\r\n");
        let mut observer = server.beanstalk();
        observer.ask("use other");
        observer.put("x");
        let _console = server.console();
        eventually("it waits", || observer.server("current-waiting") == 1);
        // The tick after the last change is still to come; then nothing is.
        let mut waits = server.process.waits();
        let mut since = now();
        eventually("there are three seconds without a wake-up", || {
            let before = std::mem::replace(&mut waits, server.process.waits());
            if before != waits {
                since = now();
            }
            since.elapsed() > Duration::from_secs(3)
        });
    }

    fn who_comes_and_goes_leaves_nothing_behind(transport) {
        let server = Server::on(transport);
        let mut observer = server.beanstalk();
        observer.put("x");
        eventually("it has settled", || observer.server("current-connections") == 1);
        let (threads, descriptors) =
            (server.process.threads().len(), server.process.descriptors());
        for round in 0..5 {
            let mut peers: Vec<Stream> = Vec::new();
            for protocol in ["phpmq", "console", "beanstalk"] {
                for _ in 0..10 {
                    let mut peer = server.connect(protocol);
                    // Each in another state when it goes.
                    match round {
                        0 => {}
                        1 => peer.send("H01"),
                        2 => peer.send("reserve\r\nplain\n"),
                        3 => peer.half_close(),
                        _ => {
                            let _ = peer.try_send("nonsense nonsense\r\n");
                        }
                    }
                    peers.push(peer);
                }
            }
            for (place, peer) in peers.into_iter().enumerate() {
                if place % 2 == 0 { drop(peer) } else { peer.reset() }
            }
        }
        eventually("all are gone", || observer.server("current-connections") == 1);
        eventually("so are threads and descriptors", || {
            (server.process.threads().len(), server.process.descriptors()) == (threads, descriptors)
        });
    }
}

#[test]
fn without_descriptors_it_goes_on_and_recovers() {
    let server = Setup::new()
        .prefix(&["bash", "-c", "ulimit -n 64; exec \"$@\"", "-"])
        .limits("max_connections = 1000")
        .start();
    let mut existing = server.beanstalk();
    existing.put("x");
    let lines = server.process.lines();
    let address = server.address("beanstalk").to_owned();
    let mut peers: Vec<Stream> =
        (0..120).filter_map(|_| Stream::try_connect(&address).ok()).collect();
    server.process.logged_from(lines, "out of file descriptors");
    // Those that find no room are told, or wait to be accepted; either way nobody spins.
    let ticks = server.process.processor_ticks();
    let began = now();
    for _ in 0..200 {
        assert_eq!(existing.ask("list-tube-used"), "USING default");
    }
    eventually("a second and a half pass", || began.elapsed() > Duration::from_millis(1_500));
    let spent = server.process.processor_ticks() - ticks;
    assert!(spent < 60, "{spent} ticks of the processor's time in 1.5 s");
    let warnings = server.process.count_logged("out of file descriptors");
    assert!(warnings <= 3, "{warnings} lines about it");
    peers.truncate(1);
    eventually("it accepts again", || {
        let Ok(mut peer) = Stream::try_connect(&address) else { return false };
        peer.try_send("list-tube-used\r\n").is_ok()
            && peer.try_line().is_some_and(|line| line == "USING default")
    });
    assert_eq!(existing.ask("list-tube-used"), "USING default");
}

#[test]
fn without_threads_it_goes_on_and_recovers() {
    let knows_setpriv = Command::new("setpriv").arg("--version").said().is_ok();
    if !rustix::process::geteuid().is_root() || !knows_setpriv {
        println!("skipped: only root can make the daemon somebody with few threads");
        return;
    }
    // A user that nobody else is, since threads are counted by user.
    let user = 60_000 + std::process::id() % 5_000;
    let server = Setup::new()
        .without_database()
        .prefix(&["setpriv", &format!("--reuid={user}"), "--clear-groups"])
        .start();
    let mut existing = server.beanstalk();
    existing.put("x");
    let threads = server.process.threads().len();
    let hard_limit = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum;
    let hard_limit = hard_limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    // The user itself sets it: another one, even root, may lack the right.
    let limit_threads = |limit: &str| {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), "--clear-groups", "prlimit"]);
        command.args(["--pid", &server.process.id().to_string(), &format!("--nproc={limit}:")]);
        assert!(command.ended().unwrap().success());
    };
    limit_threads(&(threads + 3).to_string());
    let lines = server.process.lines();
    let mut peers: Vec<Stream> = (0..20).map(|_| server.connect("beanstalk")).collect();
    server.process.logged_from(lines, " warn ");
    let mut served = 0;
    for peer in &mut peers {
        let asked = peer.try_send("list-tube-used\r\n").is_ok();
        served +=
            usize::from(asked && peer.try_line().is_some_and(|line| line.starts_with("USING")));
    }
    assert!((1..=3).contains(&served), "{served} of 20 found a thread");
    let (mut ticks, began) = (server.process.processor_ticks(), now());
    eventually("a second passes", || began.elapsed() > Duration::from_secs(1));
    ticks = server.process.processor_ticks() - ticks;
    assert!(ticks < 40, "{ticks} ticks of the processor's time in a second");
    assert!(server.process.count_logged(" warn ") <= 3, "{}", server.process.log());
    assert_eq!(existing.ask("list-tube-used"), "USING default");
    limit_threads(&hard_limit);
    eventually("it serves newcomers again", || {
        let mut peer = server.connect("beanstalk");
        peer.try_send("list-tube-used\r\n").is_ok() && peer.try_line().is_some()
    });
    drop(peers);
    eventually("nothing is left behind", || existing.server("current-connections") == 1);
}
