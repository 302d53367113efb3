#!/bin/sh
# Makes the root of the container image in the folder $1: the program, certificates of authorities, and the folder of the
# node. It is the build step of Containerfile, as root.
set -eu
cd "$(dirname "$0")/.."
mkdir -p "$1/usr/local/bin" "$1/etc/ssl/certs" "$1/var/lib/steward" "$1/tmp"
CGO_ENABLED=0 go build -tags nethttpomithttp2 -gcflags=google.golang.org/...=-l -trimpath -ldflags="-s -w" -o "$1/usr/local/bin/steward" ./cmd/steward
cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
chmod 1777 "$1/tmp"
chmod 0700 "$1/var/lib/steward"
chown 65532:65532 "$1/var/lib/steward"
