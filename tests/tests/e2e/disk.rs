//! The disk returns errors.

use e2e::{Rig, Tamper, rig, text, wait};

const LINES: u64 = 2000;

/// The system calls that change the writer's files; sockets and logs use others.
const WRITES: &str = "pwrite64,ftruncate";

/// While `calls` of the writer fail with `error`, it acknowledges nothing, reports why, and keeps
/// running. It continues when the calls succeed again, also after it was killed meanwhile.
#[track_caller]
fn is_waited_for(calls: &str, error: &str, words: &str) {
    if !Tamper::is_possible() {
        return;
    }
    for killed in [false, true] {
        let rig = Rig::new();
        rig.write_input(text::numbered(0..LINES, 1));
        let mut reader = rig.reader().start();
        let mut writer = rig.writer().start();
        rig.wait_delivered();
        wait::until("all is acknowledged", || rig.pending() == 0);

        let tamper = Tamper::start(&writer, &rig.folder.join("logs"), calls, error);
        rig.append_input(text::numbered(LINES..2 * LINES, 1));
        let line = writer.wait_for_log(&["output.txt", words]);
        assert!(line.contains("file:"), "{line}");
        wait::until("it tries again", || writer.metrics().get("line_stream_errors_total") >= Some(3.0));
        let of_sync = writer.metric("writer_fsync_errors_total") > 0.0;
        assert_eq!(of_sync, calls.contains("fdatasync"), "failed syncs are distinguished");
        assert_eq!(writer.healthz().0, 200);
        let (status, reason) = writer.readyz();
        assert!(status == 503 && reason.contains(words), "{status} {reason}");
        reader.wait_for_metric("lines_read_total", |lines| lines == 2.0 * LINES as f64);
        let acknowledged =
            rig.redis.call(&["XINFO", "GROUPS", rig::STREAM]).list()[0].field("entries-read").int() - rig.pending();
        assert_eq!(acknowledged, LINES as i64, "acknowledged although it was not durable");

        if killed {
            writer.kill9();
        }
        drop(tamper);
        if killed {
            writer = rig.writer().start();
        }
        rig.wait_delivered();
        wait::until("all is acknowledged", || rig.pending() == 0);
        wait::until("ready", || writer.readyz().0 == 200);
        reader.stop();
        writer.stop();
        rig.assert_identical();
    }
}

#[test]
fn a_sync_that_fails_is_not_acknowledged() {
    is_waited_for("fdatasync,fsync", "EIO", "Input/output error");
}

#[test]
fn a_write_that_fails_is_waited_for() {
    is_waited_for(WRITES, "EIO", "Input/output error");
}

#[test]
fn a_quota_that_is_used_up_is_waited_for() {
    is_waited_for(WRITES, "EDQUOT", "Disk quota exceeded");
}

#[test]
fn a_file_system_that_became_read_only_is_waited_for() {
    is_waited_for(WRITES, "EROFS", "Read-only file system");
}
