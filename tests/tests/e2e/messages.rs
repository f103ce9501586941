//! The exact message for each problem. It names the subject, the value, the reason, and what is
//! allowed.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;

use e2e::{Launch, Persistence, Program, Rig};

/// Asserts exit code `code` and this last line, with no further warnings or errors.
#[track_caller]
pub(crate) fn says(launch: &Launch, code: i32, line: &str) {
    let mut service = launch.run();
    let log = service.log();
    assert_eq!(log.lines().last(), Some(line), "the whole log: {log}");
    assert_eq!(service.code(), Some(code), "{log}");
    assert!(line.len() <= 420, "{} characters: {line}", line.len());
    assert_eq!(log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).count(), 0, "{log}");
}

/// The words of a command line.
fn with(launch: Launch, words: &[&str]) -> Launch {
    words.iter().fold(launch, Launch::word)
}

/// Only the command line is checked.
#[test]
fn wrong_invocations() {
    let rig = Rig::new();
    let reader: &[(&[&str], &str)] = &[
        (&["app.log"], "app.log: no such command; for a file, write --input app.log (see reader --help)"),
        (&["--once", "app.log"], "app.log: no such command; for a file, write --input app.log (see reader --help)"),
        (&["chek"], "chek: no such command, did you mean check? (see reader --help)"),
        (&["--once", "check"], "--once: must come after check: reader check … (see reader --help)"),
        (&["--once", "--once"], "--once: given more than once; allowed: once"),
        (&["--streem", "x"], "--streem: no such flag, did you mean --stream? (see reader --help)"),
        (&["-x"], "-x: no such flag (see reader --help)"),
        (&["--stream"], "--stream: needs a value (see reader --help)"),
        (&["-stream", "x"], "-stream: no such flag, did you mean --stream? (see reader --help)"),
        (&["--STREAM", "x"], "--STREAM: no such flag, did you mean --stream? (see reader --help)"),
        (&["—stream", "x"], "—stream: flags begin with two hyphens: --stream (see reader --help)"),
        (&["--once", "true"], "--once \"true\": allowed: --once alone, without a value"),
        (&["CHECK"], "CHECK: no such command, did you mean check? (see reader --help)"),
        (
            &["check", "extra"],
            "extra: neither a flag nor a flag's value; for a file, write --input extra (see reader check --help)",
        ),
        (&["completions", "bash", "x"], "x: neither a flag nor a flag's value (see reader completions --help)"),
        (&["help", "extra"], "extra: no such command (see reader --help)"),
        (&["check", "--json=1"], "--json \"1\": allowed: --json alone, without a value"),
        (&["--help=foo"], "--help \"foo\": allowed: --help alone, without a value"),
        (&["-qv"], "--quiet: cannot be used with --verbose (see reader --help)"),
        (&["--json"], "--json: no such flag (see reader --help)"),
        (&["--once=yes"], "--once \"yes\": allowed: --once alone, without a value"),
        (&["--quiet", "--verbose"], "--quiet: cannot be used with --verbose (see reader --help)"),
        (&["--max-backlog", "-1"], "--max-backlog \"-1\": allowed: a whole number from 0"),
        (&["--max-backlog", "1e6"], "--max-backlog \"1e6\": allowed: a whole number from 0"),
        (&["--partitions", "-2"], "--partitions \"-2\": allowed: a whole number from 1 to 16384"),
        (
            &["--max-backlog", "99999999999999999999"],
            "--max-backlog \"99999999999999999999\": allowed: a whole number from 0 to 18446744073709551615",
        ),
        (&["--max-backlog", "10k"], "--max-backlog \"10k\": allowed: a whole number from 0"),
        (&["--max-backlog", ""], "--max-backlog \"\": allowed: a whole number from 0"),
        (&["--partitions", "0"], "--partitions \"0\": allowed: a whole number from 1 to 16384"),
        (
            &["--partitions", "4", "--partition", "3-1"],
            "--partition \"3-1\": allowed: whole numbers from 0, such as 0, 0,2 or 0-9, or a name that ends in one, such as writer-2",
        ),
        (&["--partitions", "4", "--partition", "0-99"], "--partition 99: --partitions is 4; allowed: 0 to 3"),
        (&["--source-metrics", "-1"], "--source-metrics \"-1\": allowed: a whole number, or all"),
        (&["--input", ""], "--input: needs a value (see reader --help)"),
        (&["--config", "/tmp"], "--config /tmp: Is a directory (os error 21); allowed: a TOML file"),
        (&["--config", "/dev/zero"], "--config /dev/zero: larger than 1 MiB; allowed: a TOML file"),
        (&["--stream", ""], "--stream \"\": allowed: a key of 1 to 200 bytes, without control characters"),
        (
            &["--redis-password-file", "/dev/zero"],
            "--redis-password-file /dev/zero: larger than 1 MiB; allowed: a readable file that contains the password",
        ),
        (&["--partition", "1"], "--partition 1: --partitions is 1; allowed: 0"),
        (&["--framing", "words"], "--framing \"words\": allowed: line, chunk"),
        (&["--from", "middle"], "--from \"middle\": allowed: beginning, end"),
        (&["--log-format", "xml"], "--log-format \"xml\": allowed: text, json"),
        (
            &["--http-addr", "8080"],
            "--http-addr \"8080\": allowed: HOST:PORT, such as 0.0.0.0:8080, localhost:0 or [::]:8080, or off",
        ),
        (
            &["--redis-url", "localhost:6379"],
            "--redis-url \"localhost:6379\": the URL has no scheme; allowed are redis://, redis-sentinel://, redis-cluster://, the same with rediss for TLS, and unix://",
        ),
        (
            &["--redis-url", "redis://h/x"],
            "--redis-url \"redis://h/x\": the URL's database is \"x\"; allowed: a number from 0",
        ),
        (
            &["--redis-url", "redis://h:0"],
            "--redis-url \"redis://h:0\": the URL's port is \"0\"; allowed: a number from 1 to 65535",
        ),
        (
            &["--redis-url", "redis-socket:///x"],
            "--redis-url \"redis-socket:///x\": unknown scheme \"redis-socket\"; allowed are redis://, redis-sentinel://, redis-cluster://, the same with rediss for TLS, and unix://",
        ),
        (
            &["--redis-url", "unix://relative"],
            "--redis-url \"unix://relative\": the URL has no socket path; it has the form unix:///path/to/socket[?db=N]",
        ),
        (
            &["--redis-url", "redis-sentinel://h"],
            "--redis-url \"redis-sentinel://h\": the URL names no master; it has the form redis-sentinel://[user:password@]host[:port],…/master[/database]",
        ),
        (
            &["--redis-url", "redis://h?ca=x"],
            "--redis-url \"redis://h?ca=x\": the URL has an unknown parameter \"ca\"; allowed are db, user, pass, protocol and client_name, with rediss:// ca, cert, key and server_name, and with redis-sentinel:// sentinel_user and sentinel_password",
        ),
        (
            &["--redis-url", "redis://u:%ZZ@h"],
            "--redis-url \"redis://***@h\": the URL's percent-encoding is not valid UTF-8; write a % in a password as %25",
        ),
        (
            &["--redis-url", "redis://h#x"],
            "--redis-url \"redis://h#x\": the URL has a fragment; encode # in a password as %23",
        ),
        (&["--input", "-"], "--input -: standard input cannot be read again after a fault; allowed: a file's path"),
        (&["--input", "/tmp"], "--input /tmp: a folder; allowed: a file's path, or a pattern such as '/tmp/*.log'"),
        (
            &["--input", "/etc/hostname/x"],
            "--input /etc/hostname/x: Not a directory (os error 20); correct the path: a component of it is not a folder",
        ),
        (
            &["--input", "/dev/null"],
            "--input /dev/null: a device, pipe or socket, which cannot be read again after a fault; allowed: a regular file",
        ),
        (
            &["--input", "/etc/hostname", "--input", "/dev/null"],
            "--input /dev/null: a device, pipe or socket, which cannot be read again after a fault; allowed: a regular file",
        ),
        (
            &["--input", "a.log", "--exclude", "*.gz"],
            "--exclude *.gz: --input a.log is one file, so there is nothing to leave out; allowed: with a pattern or several files in --input",
        ),
        (
            &["--input", "/tmp/*.log", "--exclude", ""],
            "--exclude \"\": it is empty; allowed: a pattern of * ? [a-z] {a,b} and **",
        ),
        (
            &["--redis-url", "redis://a b:1"],
            "--redis-url \"redis://a b:1\": the URL's host is not valid; put an IPv6 address in brackets, percent-encode special characters in a password, and name several hosts only with redis-sentinel:// or redis-cluster://",
        ),
        (
            &["--http-addr", "no-such-host.invalid:0"],
            "--http-addr no-such-host.invalid:0: failed to lookup address information: Name or service not known; allowed: an address or a name of this machine with a free port, or off",
        ),
        (
            &["--http-addr", "192.0.2.1:0"],
            "--http-addr 192.0.2.1:0: Cannot assign requested address (os error 99); allowed: an address of this machine, such as 0.0.0.0 or 127.0.0.1, or off",
        ),
    ];
    for (words, line) in reader {
        let launch = with(rig.command(Program::Reader), words);
        let launch =
            if words.contains(&"--http-addr") { launch } else { launch.env("LINE_STREAM_HTTP_ADDR", "127.0.0.1:0") };
        says(&launch.env("LINE_STREAM_STATE_DIR", "/tmp"), 2, &format!("reader: {line}"));
    }
    let writer: &[(&[&str], &str)] = &[
        (&["out.txt"], "out.txt: no such command; for a file, write --output out.txt (see writer --help)"),
        (&["verfy"], "verfy: no such command, did you mean verify? (see writer --help)"),
        (&["verify", "--output", "x"], "missing: --input <FILE> (see writer verify --help)"),
        (&["verify"], "missing: --input <FILE>, --output <FILE> (see writer verify --help)"),
        (
            &["verify", "in.txt", "out.txt"],
            "in.txt: neither a flag nor a flag's value; for a file, write --input in.txt or --output in.txt (see writer verify --help)",
        ),
        (
            &["verify", "--input", "/etc/hostname", "--output", "/nowhere"],
            "--output /nowhere: No such file or directory (os error 2); allowed: a file that a writer wrote, with its journal beside it",
        ),
        (
            &["verify", "--input", "/etc/hostname", "--folder", "/etc/hostname"],
            "--folder /etc/hostname: Not a directory (os error 20); allowed: a folder with outputs and their journals",
        ),
        (
            &["merge", "out.txt"],
            "out.txt: neither a flag nor a flag's value; for a file, write --output out.txt (see writer merge --help)",
        ),
        (
            &["merge", "--output", "/etc/hostname"],
            "--output /etc/hostname: there is no journal /etc/hostname.journal beside it; allowed: a file that a writer wrote",
        ),
        (&["rotate", "--output", "/tmp"], "--output /tmp: not a regular file; allowed: a writer's output"),
        (&["completions", "dosh"], "<SHELL> \"dosh\": allowed: bash, elvish, fish, powershell, zsh"),
        (&["--output", "a", "--output-dir", "b"], "--output: cannot be used with --output-dir (see writer --help)"),
        (&["--sources", "x"], "--sources: it selects sources of --output-dir; allowed: both, or neither"),
        (
            &["--consumer", "a\tb"],
            "--consumer \"a\\tb\": allowed: a name of at least one byte, without control characters",
        ),
        (&["--lease", "1h"], "--lease \"1h\": allowed: a time from 1s to 10m"),
        (&["--lock-wait", "off"], "--lock-wait \"off\": allowed: a time such as 500ms, 30s or 5m"),
        (
            &["--output", "/etc/hostname/x"],
            "--output /etc/hostname/x: a component of its path is not a folder; correct the path",
        ),
        (
            &["--redis-url", "rediss://h?ca=/nowhere", "--output", "OUT"],
            "--redis-url rediss://h:6379: TLS: /nowhere: No such file or directory (os error 2); allowed: certificates and a key that can be read, in ca=, cert= and key=",
        ),
        (
            &["verify", "--input", "/nowhere", "--output", "x"],
            "--input /nowhere: No such file or directory (os error 2); allowed: a file that a reader read",
        ),
        (
            &["verify", "--input", "/etc/hostname", "--output", "/etc/hostname"],
            "--output /etc/hostname: it is the input /etc/hostname itself; allowed: the file that a writer wrote",
        ),
        (&["--fsync", "sometimes"], "--fsync \"sometimes\": allowed: always, interval, never"),
        (
            &["--claim-idle", "soon"],
            "--claim-idle \"soon\": allowed: off, or a time of at least 1ms such as 500ms, 30s, 5m or 1h",
        ),
        (
            &["--claim-idle", "-5"],
            "--claim-idle \"-5\": allowed: off, or a time of at least 1ms such as 500ms, 30s, 5m or 1h",
        ),
        (
            &["--claim-idle", "-5s"],
            "--claim-idle \"-5s\": allowed: off, or a time of at least 1ms such as 500ms, 30s, 5m or 1h",
        ),
        (
            &["verify", "--input", "/etc/hostname", "--output", "/tmp"],
            "--output /tmp: a folder; allowed: a writer's file; for the folder of --output-dir, use that flag",
        ),
        (&["--group", ""], "--group \"\": allowed: a name of at least one byte, without control characters"),
        (
            &["--output", "-"],
            "--output -: standard output; allowed: a regular file, since what was written must be there after a restart",
        ),
        (
            &["--output", "/dev/null"],
            "--output /dev/null: it is a device; allowed: a regular file, since what was written must be there after a restart",
        ),
        (
            &["--output", "/nowhere/out"],
            "--output /nowhere/out: its folder does not exist; allowed: a file in an existing folder",
        ),
    ];
    let unused = rig.folder.join("unused").display().to_string();
    for (words, line) in writer {
        let words: Vec<&str> = words.iter().map(|word| if *word == "OUT" { &unused } else { *word }).collect();
        says(
            &with(rig.command(Program::Writer), &words).env("LINE_STREAM_HTTP_ADDR", "127.0.0.1:0"),
            2,
            &format!("writer: {line}"),
        );
    }
    assert!(!std::path::Path::new(&unused).exists(), "a wrong flag creates no output");
    let long = format!("/tmp/{}", "x".repeat(300));
    says(
        &rig.reader().set("--input", &long).set("--state-dir", "/tmp"),
        2,
        &format!("reader: --input {long}: File name too long (os error 36); allowed: a shorter path"),
    );
}

/// A flag or a command of one program is named as such by the other one.
#[test]
fn flags_of_the_other_program() {
    let rig = Rig::new();
    // The first word of a line of the help that is not a shell's prompt or an explanation.
    let words = |program: Program| -> BTreeSet<String> {
        let help = String::from_utf8(rig.command(program).word("--help").run().process().stdout()).unwrap();
        let indented = help.lines().filter_map(|line| line.strip_prefix("  "));
        let words = indented.filter_map(|line| match line.strip_prefix("    ") {
            Some(flag) => flag.starts_with("--").then_some(flag),
            None => line.starts_with(char::is_alphabetic).then_some(line),
        });
        let words = words.filter_map(|line| line.split_whitespace().next().map(str::to_owned));
        words.filter(|word| word != program.name() && !word.starts_with("REDIS_URL")).collect()
    };
    let (reader, writer) = (words(Program::Reader), words(Program::Writer));
    let only = [
        (Program::Reader, "reader", "writer", &writer - &reader),
        (Program::Writer, "writer", "reader", &reader - &writer),
    ];
    for (program, name, other, words) in only {
        assert!(words.len() >= 7, "{words:?}");
        for word in words {
            let kind = if word.starts_with("--") { "flag" } else { "command" };
            let line = format!("{name}: {word}: no such {kind} of {name}; it is one of {other} (see {name} --help)");
            says(&rig.command(program).word(&word), 2, &line);
        }
    }
}

/// A message names the origin of a value that is not from the command line.
#[test]
fn messages_name_the_origin_of_values() {
    let rig = Rig::new();
    let file = |text: &str| {
        let path = rig.folder.join("reader.toml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let reader = || rig.command(Program::Reader);
    says(
        &reader().env("LINE_STREAM_FRAMING", "words"),
        2,
        "reader: --framing \"words\" (from LINE_STREAM_FRAMING): allowed: line, chunk",
    );
    says(
        &reader().env("LINE_STREAM_ONCE", "maybe"),
        2,
        "reader: --once \"maybe\" (from LINE_STREAM_ONCE): allowed: true, false, 1, 0, yes, no, on, off",
    );
    says(
        &reader().env("REDIS_URL", "http://me:secret@h"),
        2,
        "reader: --redis-url \"http://***@h\" (from REDIS_URL): unknown scheme \"http\"; allowed are redis://, redis-sentinel://, redis-cluster://, the same with rediss for TLS, and unix://",
    );
    says(
        &reader().env("LINE_STREAM_CONFIG", "/nowhere"),
        2,
        "reader: --config /nowhere (from LINE_STREAM_CONFIG): No such file or directory (os error 2); allowed: a TOML file",
    );
    says(
        &reader().env("LINE_STREAM_QUIET", "1").word("-v"),
        2,
        "reader: --verbose: cannot be used with --quiet (from LINE_STREAM_QUIET) (see reader --help)",
    );
    says(
        &reader().env("LINE_STREAM_STREAM", std::ffi::OsStr::from_bytes(b"a\xff")),
        2,
        "reader: --stream \"a\u{fffd}\" (from LINE_STREAM_STREAM): not UTF-8; allowed: UTF-8 text",
    );
    says(
        &reader().word(std::ffi::OsStr::from_bytes(b"--stream=\xff")),
        2,
        "reader: --stream \"\u{fffd}\": not UTF-8; allowed: UTF-8 text",
    );
    says(
        &reader().set("--stream", "x".repeat(100_000)),
        2,
        &format!(
            "reader: --stream \"{}… (100000 bytes)\": allowed: a key of 1 to 200 bytes, without control characters",
            "x".repeat(160)
        ),
    );
    for (text, line) in [
        ("# one\nframing = \"words\"\n", "--framing \"words\" (from line 2 of FILE): allowed: line, chunk"),
        ("max-backlog = -1", "--max-backlog \"-1\" (from line 1 of FILE): allowed: a whole number from 0"),
        (
            "\nmax-backlog = 1.5",
            "--config FILE: line 2: max-backlog: a number with a fraction is not allowed here; allowed: a string or a whole number",
        ),
        (
            "stream = true",
            "--config FILE: line 1: stream: true or false is not allowed here; allowed: a string or a whole number",
        ),
        (
            "input = []",
            "--config FILE: line 1: input: the list is empty; allowed: at least one value, or leave out the key",
        ),
        ("once = \"maybe\"", "--config FILE: line 1: once \"maybe\": allowed: true, false"),
        ("max_backlog = 5", "--config FILE: line 1: max_backlog: no such key, did you mean max-backlog?"),
        ("steam = \"x\"", "--config FILE: line 1: steam: no such key, did you mean stream?"),
        ("fsync = \"always\"", "--config FILE: line 1: fsync: no such key of reader; it is one of writer"),
        (
            "stream = \"\"",
            "--stream \"\" (from line 1 of FILE): allowed: a key of 1 to 200 bytes, without control characters",
        ),
        (
            "stream = 2020-01-01",
            "--config FILE: line 1: stream: a date or time is not allowed here; allowed: a string or a whole number",
        ),
        ("input = [\"a\", []]", "--config FILE: line 1: input: allowed: a list of strings"),
        (
            "stream = \"a\"\nstream = \"b\"",
            "--config FILE: line 2: duplicate key; allowed: lines such as stream = \"lines\", each key once",
        ),
        (
            "stream: x",
            "--config FILE: line 1: key with no value, expected `=`; allowed: lines such as stream = \"lines\", each key once",
        ),
        (
            "stream = \"x",
            "--config FILE: line 1: invalid basic string, expected `\"`; allowed: lines such as stream = \"lines\", each key once",
        ),
    ] {
        let path = file(text);
        says(&reader().set("--config", &path), 2, &format!("reader: {}", line.replace("FILE", &path)));
    }
    // A variable without the prefix is ignored, with one warning.
    rig.write_input("one\n");
    let mut reader = rig.reader().once().env("STREAM", "other").env("GROUP", "users").run();
    assert_eq!(reader.code(), Some(0), "{}", reader.log());
    let warnings: Vec<String> = reader.log().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].ends_with(
            "environment: STREAM has no effect without the prefix; if meant for this service, set LINE_STREAM_STREAM"
        ),
        "{warnings:?}"
    );
    assert_eq!(rig.stream_len(), 1);
}

/// The server is not what the URL says.
#[test]
fn wrong_servers() {
    let rig = Rig::with_redis(Persistence::None, &["--requirepass", "right"]);
    rig.write_input("one\n");
    let port = rig.redis.port();
    let url = |url: &str| url.replace("PORT", &port.to_string());
    for (given, shown, line) in [
        (
            "redis://127.0.0.1:PORT",
            "redis://127.0.0.1:PORT",
            "NOAUTH: this Redis requires a password; give it with --redis-password-file, or redis://[user]:password@host",
        ),
        (
            "redis://:wrong@127.0.0.1:PORT",
            "redis://:***@127.0.0.1:PORT",
            "WRONGPASS: this Redis does not know the user or the password; allowed: a user and password that it accepts; the password is from --redis-url",
        ),
        (
            "redis://:right@127.0.0.1:PORT/99",
            "redis://:***@127.0.0.1:PORT/99",
            "ERR DB index is out of range; allowed: 0 to 15, unless this Redis has another number of `databases`",
        ),
        (
            "redis-cluster://:right@127.0.0.1:PORT",
            "redis-cluster://:***@127.0.0.1:PORT",
            "node 127.0.0.1:PORT: CLUSTER SHARDS: ERR This instance has cluster support disabled; allowed: redis:// for a Redis that is not a cluster",
        ),
    ] {
        for launch in [rig.reader(), rig.writer()] {
            let launch = launch.set("--redis-url", url(given));
            let mut service = launch.run();
            let log = service.log();
            let last = log.lines().last().unwrap_or_default().to_owned();
            let (_, said) = last.split_once(": ").unwrap();
            assert_eq!(said, format!("--redis-url {}: {}", url(shown), url(line)), "{log}");
            assert_eq!(service.code(), Some(2));
        }
    }
    let password = rig.folder.join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let file = password.display();
    says(
        &rig.reader().set("--redis-password-file", &password),
        2,
        &format!(
            "reader: --redis-url redis://:***@127.0.0.1:{port}: WRONGPASS: this Redis does not know the user or the password; allowed: a user and password that it accepts; the password is from --redis-password-file {file}"
        ),
    );
    says(
        &rig.reader()
            .set("--redis-password-file", &password)
            .unset("--redis-url")
            .env("REDIS_URL", url("redis://:right@127.0.0.1:PORT")),
        2,
        &format!(
            "reader: --redis-password-file {file}: --redis-url (from REDIS_URL) has a password, too; allowed: one of the two"
        ),
    );
    // No password: a server that is not a Sentinel.
    let plain = Rig::new();
    plain.write_input("one\n");
    let port = plain.redis.port();
    says(
        &plain.reader().set("--redis-url", format!("redis-sentinel://127.0.0.1:{port}/mymaster")),
        2,
        &format!(
            "reader: --redis-url redis-sentinel://127.0.0.1:{port}/mymaster: Sentinel 127.0.0.1:{port}: SENTINEL GET-MASTER-ADDR-BY-NAME: ERR unknown command 'SENTINEL'; this is not a Sentinel; allowed: redis:// for a Redis, or the Sentinels' port (26379)"
        ),
    );
}

/// The server is not Redis, or uses TLS unexpectedly, or does not.
#[test]
fn no_redis() {
    let rig = Rig::new();
    rig.write_input("one\n");
    for (scheme, answer, line) in [
        (
            "redis",
            &b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..],
            "an SSH server answers there, not Redis; allowed: the address of a Redis",
        ),
        (
            "redis",
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            "a web server answers there, not Redis; allowed: the address of a Redis",
        ),
        ("redis", b"220 mail ESMTP\r\n", "the server there is not Redis; allowed: the address of a Redis"),
        // The alert `protocol version` of TLS 1.2.
        ("redis", b"\x15\x03\x03\x00\x02\x02\x46", "this port speaks TLS; allowed: rediss:// for TLS"),
        (
            "rediss",
            b"-ERR unknown command\r\n",
            "this port does not speak TLS; allowed: redis:// for a port without TLS",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // The reader opens several connections. The threads end with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let mut stream = stream?;
                    let _ = stream.read(&mut [0; 4096])?;
                    stream.write_all(answer)?;
                    // Closing with unread bytes would discard the response.
                    std::io::copy(&mut stream, &mut std::io::sink())
                });
            }
        });
        says(
            &rig.reader().set("--redis-url", format!("{scheme}://{addr}")),
            2,
            &format!("reader: --redis-url {scheme}://{addr}: {line}"),
        );
    }
}

/// Actions that the service's user is not permitted.
#[test]
fn rights() {
    let rig = Rig::new();
    rig.write_input("one\n");
    let nobody = |launch: Launch| launch.under(&["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let low = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let secret = rig.folder.join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("input.txt"), "one\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let input = secret.join("input.txt");
    says(
        &nobody(rig.reader().set("--input", &input)),
        2,
        &format!(
            "reader: --input {}: Permission denied (os error 13); allowed: a file in a folder that the service's user can enter and read",
            input.display()
        ),
    );
    let open = rig.input.parent().unwrap();
    says(
        &nobody(rig.reader()),
        2,
        &format!(
            "reader: --state-dir {} (the input's folder): Permission denied (os error 13); allowed: a folder that can be written to",
            open.display()
        ),
    );
    if low.trim().parse::<u16>().is_ok_and(|low| low > 80) {
        says(
            &nobody(rig.reader().set("--http-addr", "127.0.0.1:80")),
            2,
            "reader: --http-addr 127.0.0.1:80: Permission denied (os error 13); allowed: a port from 1024, or the right to a smaller one, or off",
        );
    }
}

#[test]
fn once_without_an_input_fails() {
    let rig = Rig::new();
    let input = rig.input.display();
    says(
        &rig.reader().once(),
        1,
        &format!(
            "reader: --input {input}: No such file or directory (os error 2); --once sends what there is and does not wait for a file; create it, or correct the path"
        ),
    );
    assert_eq!(rig.redis.call(&["EXISTS", e2e::rig::STREAM]).int(), 0);
}

#[test]
fn once_with_an_input_that_cannot_be_read_fails() {
    let rig = Rig::new();
    let input = rig.input.display();
    std::os::unix::fs::symlink(&rig.input, &rig.input).unwrap();
    says(
        &rig.reader().once(),
        1,
        &format!(
            "reader: --input {input}: Too many levels of symbolic links (os error 40); --once sends what there is and does not wait for a file; correct the path: a symbolic link in it leads back to itself"
        ),
    );
}

/// Appended bytes would damage it.
#[test]
fn the_journal_of_another_output_is_no_output() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.reader().once().run_ok();
    rig.writer().once().run_ok();
    let journal = format!("{}.journal", rig.output.display());
    let before = std::fs::read(&journal).unwrap();
    says(
        &rig.writer().set("--output", &journal).set("--group", "other"),
        2,
        &format!("writer: --output {journal}: it is the commit journal of another output; allowed: another file"),
    );
    assert_eq!(std::fs::read(&journal).unwrap(), before);
}

/// A service ends where `check` finds that it cannot work.
#[test]
fn a_user_without_rights() {
    let rig = Rig::new();
    rig.write_input("one\n");
    rig.redis.cli("ACL SETUSER eve on >pw ~* +@all -xadd -xlen -xack");
    let url = format!("redis://eve:pw@127.0.0.1:{}", rig.redis.port());
    for (launch, lacks, needs) in
        [(rig.reader(), "XADD, XLEN", "+xadd +xlen"), (rig.writer(), "XACK, XLEN", "+xack +xlen")]
    {
        let name = if lacks.contains("XADD") { "reader" } else { "writer" };
        let first = lacks.split(',').next().unwrap_or_default().to_lowercase();
        let line = format!(
            "{name}: redis: the user lacks permission for {lacks}: NOPERM this user has no permissions to run the '{first}' command; ACL SETUSER its-name {needs}, and ~ the keys of the stream and its record"
        );
        says(&launch.clone().set("--redis-url", &url), 2, &line);
        says(&launch.set("--redis-url", &url).once(), 2, &line);
    }
    assert_eq!(rig.redis.cli("DBSIZE").int(), 0, "nothing was made in Redis");
}

#[test]
fn the_http_endpoint_can_be_off() {
    let rig = Rig::new();
    rig.write_input("one\n");
    for launch in [rig.reader(), rig.writer()] {
        let mut service = launch.set("--http-addr", "off").start();
        service.wait_for_log(&["http: off"]);
        e2e::wait::until("the work to begin", || service.find_log(&["redis: ready"]).is_some());
        service.sigterm();
        service.wait_exit(e2e::wait::SOON);
        assert_eq!(service.code(), Some(0), "{}", service.log());
    }
    let mut named = rig.reader().set("--http-addr", "localhost:0").start();
    assert_eq!(named.healthz().0, 200);
    named.stop();
}

/// Two writers on a host without a name share the stream.
#[test]
fn writers_without_a_name_do_not_collide() {
    let rig = Rig::new();
    let other = rig.folder.join("out/other.txt");
    let mut one = rig.writer().unset("--consumer").start();
    let mut two = rig.writer().unset("--consumer").set("--output", &other).start();
    for writer in [&mut one, &mut two] {
        e2e::wait::until("ready", || writer.readyz().1.contains("ok") || writer.readyz().0 == 200);
    }
    rig.write_input("one\ntwo\nthree\n");
    rig.reader().once().run_ok();
    let written = || rig.output_bytes().len() + std::fs::read(&other).unwrap_or_default().len();
    e2e::wait::until("all is written", || written() == "one\ntwo\nthree\n".len());
    assert_eq!(rig.redis.call(&["XINFO", "CONSUMERS", e2e::rig::STREAM, "writers"]).list().len(), 2);
    one.stop();
    two.stop();
}
