#!/bin/sh
# After the files are in place: dpkg calls it with "configure" and the version that was there before, if any; rpm
# with the number of versions that are there now.
set -e

getent group steward >/dev/null || groupadd --system steward
getent passwd steward >/dev/null || useradd --system --gid steward --home-dir /var/lib/steward --no-create-home \
	--shell /usr/sbin/nologin --comment "Steward node" steward

# What is there stays as it is: somebody may have changed it.
[ -d /var/lib/steward ] || install -d -m 0700 -o steward -g steward /var/lib/steward
if ! [ -d /etc/steward ]; then
	install -d -m 0700 -o steward -g steward /etc/steward
	# No conffile: the node writes there what it was given by flag.
	install -m 0600 -o steward -g steward /usr/share/steward/config.toml /etc/steward/config.toml
fi

if [ "$1" = configure ] && [ -z "$2" ] || [ "$1" = 1 ]; then
	echo "steward: name the node and its broker in /etc/steward/config.toml, or enrol it as /usr/share/doc/steward/operating.md says;"
	echo "steward: then: systemctl enable --now steward"
fi
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
if grep -q steward.service /proc/self/cgroup; then
	# A new start would end the very command that installs this.
	echo "steward: installed by the node itself, which goes on as the old version; to change over: systemd-run --on-active=1min systemctl restart steward"
else
	systemctl try-restart steward.service
fi
