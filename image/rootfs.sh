#!/bin/sh
# rootfs.sh ROOT BINARY...: everything that the image holds, into the empty folder ROOT: the binaries, the shared libraries they name,
# TLS roots, and a user.
set -eu
root=$1
shift
roots=/etc/ssl/certs/ca-certificates.crt
[ -s "$roots" ] || { echo "rootfs.sh: $roots: no TLS roots here; install ca-certificates" >&2; exit 1; }

mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/data" "$root/tmp"
chmod 1777 "$root/tmp"
chown 65532:65532 "$root/data"
for binary in "$@"; do
    cp "$binary" "$root/usr/local/bin/"
    ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
cp -L "$roots" "$root$roots"
echo 'nonroot:x:65532:65532:nonroot:/data:/sbin/nologin' >"$root/etc/passwd"
echo 'nonroot:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
