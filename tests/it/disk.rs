//! Full disks and failing ones under the running daemon: refuse, serve on, recover, lose nothing.

use crate::harness::Children as _;
use std::process::Command;

use crate::harness::{
    Beanstalk, Process, Server, Setup, Transport, eventually, namespaces, over_both,
};

const BODY_BYTES: usize = 10_000;

/// Puts until that is refused; returns the ids of what was confirmed, and how many puts have waited
/// for `commit_timeout`, so that their outcome is unknown.
fn fill(peer: &mut Beanstalk) -> (Vec<u64>, usize) {
    let body = "x".repeat(BODY_BYTES);
    let (mut ids, mut unknown) = (Vec::new(), 0);
    loop {
        let answer = peer.ask(&format!("put 0 0 60 {BODY_BYTES}\r\n{body}"));
        match answer.strip_prefix("INSERTED ") {
            Some(id) => ids.push(id.parse().unwrap()),
            None if answer == "INTERNAL_ERROR" => unknown += 1,
            None => {
                assert_eq!(answer, "OUT_OF_MEMORY");
                return (ids, unknown);
            }
        }
        assert!(ids.len() < 20_000, "it is never full");
    }
}

/// Whether a put is confirmed now.
fn takes_puts(server: &Server) -> bool {
    server.beanstalk().ask("put 0 0 60 1\r\nx").starts_with("INSERTED")
}

/// Every one of these is there, and nothing that was removed.
fn has_exactly(server: &Server, kept: &[u64], removed: &[u64]) {
    let mut peer = server.beanstalk();
    for id in kept {
        assert_eq!(peer.figure(&format!("stats-job {id}"), "state"), "ready", "{id}");
    }
    for id in removed {
        assert_eq!(peer.ask(&format!("stats-job {id}")), "NOT_FOUND", "{id} is back");
    }
}

over_both! {
    fn a_full_disk_refuses_puts_serves_consumers_and_loses_nothing(transport) {
        let mut server = Setup::on(transport)
            .storage("commit_timeout = \"500ms\"")
            .storage("min_free_disk = 0")
            .start();
        let mut console = server.console();
        server.process.limit_files(Some(1024 * 1024));
        let mut peer = server.beanstalk();
        let (mut ids, _) = fill(&mut peer);
        assert!(ids.len() > 20, "only {} of 10 kB fit into 1 MiB", ids.len());
        let mut peer = server.beanstalk();
        assert_eq!(peer.ask("put 0 0 60 1\r\nx"), "OUT_OF_MEMORY");
        assert!(console.figure("store").starts_with("degraded"));
        // Consumers are served.
        let (reserved, body) = peer.reserve();
        assert_eq!((reserved, body.len()), (ids[0], BODY_BYTES));
        assert_eq!(server.process.count_logged("the disk is full"), 1, "said once");
        // Room again: it goes on by itself.
        server.process.limit_files(None);
        eventually("it takes puts again", || takes_puts(&server));
        assert_eq!(console.figure("store"), "ok");
        assert_eq!(peer.ask(&format!("delete {reserved}")), "DELETED");
        ids.remove(0);
        server.kill();
        server.start_again();
        has_exactly(&server, &ids, &[reserved]);
    }
}

/// Removals need room in the log, of which there is none either: the daemon once stayed degraded
/// for ever after all was done.
#[test]
fn regression_4_a_file_that_can_not_grow_is_written_anew_when_it_is_mostly_done_with() {
    let mut server =
        Setup::new().storage("commit_timeout = \"500ms\"").storage("min_free_disk = 0").start();
    let mut console = server.console();
    server.process.limit_files(Some(1024 * 1024));
    let (ids, _) = fill(&mut server.beanstalk());
    let mut peer = server.beanstalk();
    assert_eq!(peer.ask("put 0 0 60 1\r\nx"), "OUT_OF_MEMORY");
    console.ask("flushall");
    eventually("it takes puts again", || takes_puts(&server));
    eventually("it says so", || console.figure("store") == "ok");
    let kept = server.beanstalk().put("after");
    server.kill();
    server.start_again();
    has_exactly(&server, &[kept], &ids);
}

#[test]
fn a_stop_with_a_full_disk_says_what_is_lost() {
    let mut server = Setup::new().durability("periodic").storage("min_free_disk = 0").start();
    let mut peer = server.beanstalk();
    let first = peer.put("kept");
    let mut console = server.console();
    eventually("it is on disk", || peer.server("binlog-records-written") > 0);
    server.process.limit_files(Some(8 * 1024));
    let body = "x".repeat(100_000);
    peer.put(&body);
    eventually("the disk is full", || console.figure("store").starts_with("degraded"));
    // Tried again until the stop's time is over.
    assert_eq!(server.stop().code(), Some(74), "{}", server.process.log());
    server.process.logged("only in memory");
    server.start_again();
    assert_eq!(server.beanstalk().figure(&format!("stats-job {first}"), "state"), "ready");
}

#[test]
fn a_file_that_cannot_be_trusted_ends_the_daemon_where_that_is_wanted() {
    let mut server = Setup::on(Transport::Unix).storage("on_io_error = \"exit\"").start();
    server.beanstalk().put("x");
    let socket = server.path("console.sock");
    assert!(socket.exists());
    std::fs::remove_file(server.path("q.db-wal")).unwrap();
    // The next commit is followed by a look at the file.
    let mut peer = server.connect("beanstalk");
    peer.send("put 0 0 60 1\r\ny\r\n");
    assert_eq!(server.process.wait().code(), Some(74), "{}", server.process.log());
    server.process.logged("exiting, as storage.on_io_error says");
    assert!(!socket.exists(), "sockets are removed at every exit");
}

#[test]
fn a_disk_with_little_room_refuses_puts_until_there_is_more() {
    if !namespaces::can_be_made() {
        return;
    }
    let mut server = Setup::new()
        .storage("min_free_disk = \"12MiB\"")
        .storage("commit_timeout = \"60s\"")
        .on_disk_of("40m")
        .start();
    let mut peer = server.beanstalk();
    let (ids, unknown) = fill(&mut peer);
    assert_eq!(unknown, 0, "refused before it is full, so no outcome is unknown");
    assert!(ids.len() > 500, "{}", ids.len());
    // There is room for what removes messages.
    let (id, _) = peer.reserve();
    assert_eq!(peer.ask(&format!("delete {id}")), "DELETED");
    // A larger disk is noticed without anybody doing anything.
    let remount = ["mount", "-o", "remount,size=200m"];
    let status = Command::new("nsenter")
        .args(["--mount", "--target", &server.process.id().to_string()])
        .args(remount)
        .arg(server.path("disk"))
        .ended()
        .unwrap();
    assert!(status.success());
    eventually("it takes puts again", || takes_puts(&server));
    has_exactly(&server, &ids[1..], &[id]);
    assert_eq!(server.stop().code(), Some(0), "{}", server.process.log());
}

/// Has the system refuse some calls of the running daemon. `None` where that can not be done.
fn inject(server: &Server, calls: &str, how: &str) -> Option<Process> {
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-p", &server.process.id().to_string()]);
    command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}")]);
    if Command::new("strace").arg("--version").said().is_err() {
        println!("skipped: strace is not installed");
        return None;
    }
    let mut tracer = Process::start(&mut command);
    let mut attached = false;
    eventually("strace is attached or gives up", || {
        attached = tracer.count_logged("attached") > 0;
        attached || tracer.has_ended()
    });
    if !attached {
        println!("skipped: {}", tracer.log());
    }
    attached.then_some(tracer)
}

#[test]
fn a_failing_fsync_confirms_nothing_false_and_the_file_is_written_anew() {
    for when in ["1..1", "2..3", "1..6"] {
        let mut server =
            Setup::new().durability("sync").storage("commit_timeout = \"500ms\"").start();
        let mut peer = server.beanstalk();
        let mut confirmed: Vec<u64> = (0..20).map(|_| peer.put("before")).collect();
        let (removed, _) = peer.reserve();
        assert_eq!(peer.ask(&format!("delete {removed}")), "DELETED");
        confirmed.remove(0);
        let Some(mut tracer) =
            inject(&server, "fsync,fdatasync", &format!("error=EIO:when={when}"))
        else {
            return;
        };
        for _ in 0..20 {
            // A connection may be given up with its answer; then the outcome is unknown.
            let mut peer = server.beanstalk();
            if peer.stream.try_send("put 0 0 60 1\r\nx\r\n").is_ok()
                && let Some(answer) = peer.stream.try_line()
                && let Some(id) = answer.strip_prefix("INSERTED ")
            {
                confirmed.push(id.parse().unwrap());
            }
        }
        assert!(server.process.count_logged("crit") > 0, "{when}: nothing failed");
        tracer.signal(rustix::process::Signal::INT);
        tracer.wait();
        eventually("it takes puts again", || takes_puts(&server));
        server.kill();
        server.start_again();
        has_exactly(&server, &confirmed, &[removed]);
    }
}

#[test]
fn failing_writes_lose_nothing_confirmed() {
    for error in ["EIO", "ENOSPC"] {
        let mut server = Setup::new().storage("commit_timeout = \"500ms\"").start();
        let mut peer = server.beanstalk();
        let mut confirmed: Vec<u64> = (0..20).map(|_| peer.put("before")).collect();
        let Some(mut tracer) = inject(&server, "pwrite64", &format!("error={error}:when=5..12"))
        else {
            return;
        };
        for _ in 0..30 {
            let mut peer = server.beanstalk();
            if peer.stream.try_send("put 0 0 60 1\r\nx\r\n").is_ok()
                && let Some(answer) = peer.stream.try_line()
                && let Some(id) = answer.strip_prefix("INSERTED ")
            {
                confirmed.push(id.parse().unwrap());
            }
        }
        assert!(server.process.count_logged("crit") > 0, "{error}: nothing failed");
        tracer.signal(rustix::process::Signal::INT);
        tracer.wait();
        eventually("it takes puts again", || takes_puts(&server));
        server.kill();
        server.start_again();
        has_exactly(&server, &confirmed, &[]);
    }
}
