#!/usr/bin/env bash
# Installs the packages in a Debian of its own, under a systemd of its own, and looks what comes of it: user, folders and
# modes; that the unit is ready, is reloaded, and is started anew by the watchdog; its drop-ins; an upgrade, also by
# the node itself; and that remove and purge leave nothing that they should not. Then the same for the rpm, as far as Debian can.
#
# It needs root, and of Debian: git, mmdebstrap, systemd-container, rpm. MIRROR is where the new Debian comes from. It changes
# nothing on this machine but a folder below /tmp, which it removes.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

arch=$(go env GOARCH)
for version in 0.0.1 0.0.2 0.0.3; do
	ARCHES=$arch VERSION=$version deploy/packages.sh >"$dir/build.log" 2>&1 || { cat "$dir/build.log"; exit 1; }
	cp bin/packages/*.deb bin/packages/*.rpm "$dir/"
done
rm -rf bin/packages # nobody is to take one for real
echo "== a new Debian"
mmdebstrap --quiet --variant=minbase --include=systemd-sysv,dbus,netcat-openbsd bookworm "$dir/debian.tar" "${MIRROR:-http://deb.debian.org/debian}"
mkdir "$dir/root" "$dir/rpm"
tar -C "$dir/root" -xf "$dir/debian.tar"
tar -C "$dir/rpm" -xf "$dir/debian.tar"

mkdir "$dir/root/try"
cp "$dir"/*.deb "$dir/root/try/"
cat >"$dir/root/try/inside.sh" <<'END'
#!/bin/bash
set -euo pipefail
step() { echo "== $*"; }
fail() { echo "FAILED: $*"; systemctl status --no-pager steward.service || true; journalctl --no-pager -u steward.service | tail -n 40; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""; } # what, what it is, what it has to be
shown() { systemctl show -P "$1" steward.service; }
comes() { for _ in {1..600}; do if eval "$1" >/dev/null 2>&1; then return; fi; read -rt 0.1 <>"$pause" || true; done; fail "it does not come to: $1"; }
pause=/try/pause; mkfifo $pause
run() { steward run -configFolder=/etc/steward try -- "$@"; }

step "install"
dpkg -i /try/steward_0.0.1_*.deb
is "the owner of the folders" "$(stat -c '%U:%G %a' /etc/steward /var/lib/steward | sort -u)" "steward:steward 700"
is "the owner of the settings" "$(stat -c '%U:%G %a' /etc/steward/config.toml)" "steward:steward 600"
is "the account" "$(getent passwd steward | cut -d: -f6,7)" "/var/lib/steward:/usr/sbin/nologin"
is "the unit" "$(systemctl is-enabled steward.service) $(systemctl is-active steward.service)" "disabled inactive"
steward version
for f in /usr/share/bash-completion/completions/steward /usr/share/doc/steward/operating.md; do [ -s "$f" ] || fail "no $f"; done
[ -z "$(systemd-analyze verify steward.service 2>&1)" ] || fail "$(systemd-analyze verify steward.service 2>&1)"
systemd-analyze security --no-pager steward.service | tail -n 1

step "start, without a broker"
sed -i 's/^nodeName = .*/nodeName = "try"/; s/^centralNodeName = .*/centralNodeName = "try"/' /etc/steward/config.toml
systemctl enable --now steward.service # returns when the node is ready
is "the unit" "$(systemctl is-enabled steward.service) $(systemctl is-active steward.service)" "enabled active"
is "the type" "$(shown Type) $(shown WatchdogUSec)" "notify 5min"
comes 'shown StatusText | grep "^no link to the broker, "'
echo "status: $(shown StatusText)"
is "the owner of the sockets" "$(stat -c '%U:%G %a' /run/steward/*.sock | sort -u)" "steward:steward 600"
is "the owner of the socket folder" "$(stat -c '%U:%G %a' /run/steward)" "steward:steward 710"

step "a message through the socket"
printf '[{"toNode": "try", "method": "REQPing"}, {"toNode": "try", "method": "REQCliCommand", "data": ["id", "-un"], "directory": "try", "fileName": "id"}]' |
	runuser -u steward -- nc -N -U /run/steward/steward.sock
comes 'grep -x steward /var/lib/steward/var/try/try/id'
is "who runs commands" "$(run id -un)" steward
run touch /usr/bin/mark && fail "a command has left the sandbox"

step "reload"
pid=$(shown MainPID)
sed -i 's/^logLevel = .*/logLevel = "debug"/' /etc/steward/config.toml
systemctl reload steward.service
comes 'journalctl -u steward.service | grep "setting changed.*logLevel"'
comes 'systemctl is-active steward.service'
is "the process" "$(shown MainPID)" "$pid"

step "the watchdog ends a node that hangs, and it comes back"
mkdir -p /etc/systemd/system/steward.service.d
printf '[Service]\nWatchdogSec=5\n' >/etc/systemd/system/steward.service.d/try.conf
systemctl daemon-reload
systemctl restart steward.service
pid=$(shown MainPID)
kill -STOP "$pid"
comes 'shown NRestarts | grep -x 1'
journalctl -u steward.service | grep "Watchdog timeout" >/dev/null || fail "it was not the watchdog"
comes 'systemctl is-active steward.service'
is "who runs commands" "$(run id -un)" steward
rm /etc/systemd/system/steward.service.d/try.conf

step "drop-in: commands as another user"
useradd --system -g operator operator
cp /usr/share/doc/steward/steward.service.d/runas.conf /etc/systemd/system/steward.service.d/
systemctl daemon-reload
systemctl restart steward.service
is "who runs commands" "$(run id -un)" operator
run ls /var/lib/steward && fail "the other user reads what is the node's"
rm /etc/systemd/system/steward.service.d/runas.conf

step "upgrade, as the shell does it"
systemctl daemon-reload
sed -i 's/^runAsUser = .*/runAsUser = ""/' /etc/steward/config.toml # the flag of the drop-in was written there
systemctl restart steward.service
pid=$(shown MainPID)
dpkg -i /try/steward_0.0.2_*.deb
comes 'systemctl is-active steward.service'
[ "$(shown MainPID)" != "$pid" ] || fail "the old version goes on"
is "who runs commands" "$(run id -un)" steward

step "drop-in: commands as root; the node upgrades itself"
cp /usr/share/doc/steward/steward.service.d/administer.conf /etc/systemd/system/steward.service.d/
systemctl daemon-reload
systemctl restart steward.service
is "who runs commands" "$(run id -un)" root
pid=$(shown MainPID)
run dpkg -i /try/steward_0.0.3_*.deb
is "the process" "$(shown MainPID)" "$pid"
is "the version of the package" "$(dpkg-query -W -f '${Version}' steward)" 0.0.3
run systemd-run --on-active=1 systemctl restart steward.service
comes '[ "$(shown MainPID)" != '"$pid"' ] && systemctl is-active steward.service'
rm -r /etc/systemd/system/steward.service.d
systemctl daemon-reload
chown -R steward: /var/lib/steward /etc/steward # what root has written

step "remove"
systemctl restart steward.service
dpkg -r steward
is "the unit" "$(systemctl is-active steward.service)" inactive
[ ! -e /usr/bin/steward ] || fail "the binary is there"
[ -s /etc/steward/config.toml ] && [ -s /var/lib/steward/lib/try.db ] || fail "the data is gone"

step "purge"
dpkg -P steward
! getent passwd steward || fail "the user is there"
left=$(find / -xdev -path /proc -prune -o -path /try -prune -o -name '*steward*' -print)
is "what is left" "$left" ""
echo "== all is well"
END
cat >"$dir/root/etc/systemd/system/try.service" <<'END'
[Unit]
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/bin/bash /try/inside.sh
StandardOutput=file:/try/log
StandardError=inherit
TimeoutStartSec=8min
[Install]
WantedBy=multi-user.target
END
ln -s ../try.service "$dir/root/etc/systemd/system/multi-user.target.wants/try.service"
echo "== boot"
timeout 540 systemd-nspawn --quiet --machine="steward-try-$$" --register=no --keep-unit --private-network --console=pipe -D "$dir/root" -b </dev/null >"$dir/boot.log" 2>&1 || { tail -n 5 "$dir/boot.log"; }
cat "$dir/root/try/log" || { cat "$dir/boot.log"; exit 1; }
[ "$(tail -n 1 "$dir/root/try/log")" = "== all is well" ]

echo "== the rpm"
rpm() { command rpm --root "$dir/rpm" --nodeps "$@"; }
rpm -i "$dir"/steward-0.0.1-*.rpm
[ "$(chroot "$dir/rpm" stat -c '%U:%G %a' /etc/steward /var/lib/steward | sort -u)" = "steward:steward 700" ]
[ "$(chroot "$dir/rpm" stat -c '%U:%G %a' /etc/steward/config.toml)" = "steward:steward 600" ]
chroot "$dir/rpm" steward version
rpm -U "$dir"/steward-0.0.2-*.rpm
chroot "$dir/rpm" steward version
rpm -e steward
[ ! -e "$dir/rpm/usr/bin/steward" ]
[ -s "$dir/rpm/etc/steward/config.toml" ]
echo "== all is well with both"
