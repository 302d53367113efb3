#!/bin/sh
# After the files are gone. dpkg calls it with "purge" when what the node has made is to go, too; rpm has no such
# thing, and leaves it.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload
if [ "$1" = purge ]; then
	rm -rf /etc/steward /var/lib/steward /run/steward
	! getent passwd steward >/dev/null || userdel steward
	! getent group steward >/dev/null || groupdel steward
fi
