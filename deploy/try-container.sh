#!/usr/bin/env bash
# Runs a node in nothing but what the container image holds, as its user and with its arguments, under chroot: no runtime
# for containers is needed. Hands it a message, asks it, and stops it.
# As root.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

deploy/container-root.sh "$dir/root"
binary=$dir/root/usr/local/bin/steward
if readelf -l "$binary" | grep -q INTERP; then echo "the program is not static" >&2; exit 1; fi

in_root() { exec chroot --userspec=65532:65532 "$dir/root" /usr/local/bin/steward "$@"; }
# chroot starts in /, which is not the node's.
folders=(-configFolder=/var/lib/steward/etc -socketFolder=/var/lib/steward/tmp -databaseFolder=/var/lib/steward/lib -subscribersDataFolder=/var/lib/steward/var)
in_root "${folders[@]}" -nodeName=box -centralNodeName=box -promHostAndPort= >"$dir/log" 2>&1 &
node=$!
trap 'kill $node 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
for _ in {1..300}; do grep -q "node is ready" "$dir/log" && break; read -rt 0.1 <> <(:) || true; done
printf '{"toNode": "box", "method": "REQToFile", "data": ["it works\\n"], "directory": "try", "fileName": "file"}' |
	in_root send -configFolder=/var/lib/steward/etc -wait - || { cat "$dir/log"; exit 1; }
cat "$dir"/root/var/lib/steward/var/try/box/file
(in_root ps -configFolder=/var/lib/steward/etc >/dev/null)
find "$dir/root" -path '*/proc' -prune -o -type f -print | sed "s#$dir/root##" | sort
kill $node
wait $node
echo "== the node ran in the root of the image, and stopped as it should"
