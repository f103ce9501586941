//! The Debian package, installed and run under a systemd of its own: in namespaces, over a copy of
//! this machine's files that is thrown away.

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Program, Rig, redis};

/// What an administrator types, from the package to its removal.
const TRIAL: &str = r#"
exec >/made/log 2>&1
REDIS --port 6379 --save '' --daemonize yes --dir /tmp >/dev/null
dpkg --install --no-triggers /made/line-stream_*.deb
id line-stream
mkdir -p /var/log/app
seq 1 1000 >/var/log/app/app.log
cp /usr/share/doc/line-stream/examples/*.toml /etc/line-stream/
for name in reader writer; do test -s /usr/share/man/man1/line-stream-$name.1.gz; done
systemctl enable --now line-stream-reader@app line-stream-writer@app
verify="line-stream-writer verify --input /var/log/app/app.log --output /var/lib/line-stream/writer-app/app.out"
timeout 30 sh -c "until $verify; do sleep 0.1; done"
test "$(stat -c %U /var/lib/line-stream/writer-app/app.out)" = line-stream
before=$(systemctl show --property MainPID line-stream-reader@app)
echo == again, as an upgrade does
dpkg --install --no-triggers /made/line-stream_*.deb
systemctl is-active line-stream-reader@app line-stream-writer@app
test "$before" != "$(systemctl show --property MainPID line-stream-reader@app)"
seq 1001 2000 >>/var/log/app/app.log
timeout 30 sh -c "until $verify; do sleep 0.1; done"
echo == removal
dpkg --remove --no-triggers line-stream
if systemctl is-active line-stream-reader@app line-stream-writer@app; then exit 1; fi
test ! -e /usr/bin/line-stream-reader
seq 1 2000 | cmp - /var/lib/line-stream/writer-app/app.out
dpkg --purge --no-triggers line-stream
test ! -e /etc/systemd/system/multi-user.target.wants/line-stream-reader@app.service
touch /made/done
"#;

/// Makes the copy, and becomes its process 1.
const BOOT: &str = r#"
set -e
mount -t tmpfs tmpfs "$ROOM"
mkdir "$ROOM/upper" "$ROOM/work" "$ROOM/root"
root=$ROOM/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$ROOM/upper,workdir=$ROOM/work" "$root"
mkdir "$root/made"
mount --bind "$MADE" "$root/made"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mkdir -p "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for folder in run tmp dev; do mount -t tmpfs tmpfs "$root/$folder"; done
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
ln -s pts/ptmx "$root/dev/ptmx"
cp "$MADE/trial.service" "$root/etc/systemd/system/"
mkdir "$root/old"
cd "$root"
pivot_root . old
umount --lazy /old
exec env --ignore-environment container=trial /usr/lib/systemd/systemd --unit=trial.service
"#;

/// When the trial ends, so does its systemd.
const UNIT: &str = "[Unit]\nSuccessAction=exit-force\nFailureAction=exit-force\nAfter=basic.target\nRequires=basic.target\n\
                    [Service]\nType=oneshot\nTimeoutStartSec=120\nExecStart=/bin/sh -eux /made/trial.sh\n";

#[test]
fn the_debian_package_installs_runs_and_goes() {
    let skip = |why: &str| eprintln!("SKIPPED: the Debian package under systemd: {why}");
    if !rustix::process::geteuid().is_root() {
        return skip("this needs root");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |name: &str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    for name in ["dpkg-deb", "objcopy", "objdump", "unshare", "systemctl"] {
        if !is_there(name) {
            return skip(&format!("no {name} on this machine"));
        }
    }
    let rig = Rig::new();
    let (made, room) = (rig.folder.join("made"), rig.folder.join("room"));
    fs::create_dir(&room).unwrap();
    let programs = Program::Reader.path();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut package = Command::new(cargo);
    package.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    package.args(["run", "--quiet", "--package", "xtask", "--", "package", "--from"]);
    let output = package.arg(programs.parent().unwrap()).arg("--to").arg(&made).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    fs::write(made.join("trial.sh"), TRIAL.replace("REDIS", &redis::program().display().to_string())).unwrap();
    fs::write(made.join("trial.service"), UNIT).unwrap();
    let namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "--cgroup"];
    let mut systemd = Command::new("unshare");
    systemd.args(namespaces).args(["sh", "-c", BOOT]).env("MADE", &made).env("ROOM", &room);
    let output = systemd.output().unwrap();
    let log = fs::read_to_string(made.join("log"));
    let Ok(log) = log else {
        return skip(&format!("no systemd of its own here: {}", String::from_utf8_lossy(&output.stderr).trim()));
    };
    assert!(made.join("done").exists(), "{log}");
}
