#!/usr/bin/env bash
# Makes the packages in bin/packages: deb and rpm, for ARCHES (default: amd64 arm64 arm). Run again on the same commit it
# makes the same bytes. VERSION is that of the packages; without one it is the tag of the commit, or, where there is none,
# 0.0.0 with time and hash of the commit. Needs git and go.
set -euo pipefail
cd "$(dirname "$0")/.."

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
if [ -z "${VERSION:-}" ]; then
	VERSION=$(git describe --tags --exact-match --match 'v*' 2>/dev/null) ||
		VERSION=0.0.0~$(TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format=%cd.%h)
fi
VERSION=${VERSION#v}
STAGE=bin/packages/stage
export SOURCE_DATE_EPOCH VERSION CGO_ENABLED=0

rm -rf bin/packages
mkdir -p $STAGE/completion $STAGE/doc/steward.service.d $STAGE/doc/examples
go build -C deploy/tools -o "$PWD/bin/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
go build -o bin/packages/steward ./cmd/steward
for shell in bash zsh fish; do bin/packages/steward completion $shell >$STAGE/completion/$shell; done
bin/packages/steward config default >$STAGE/config.toml
gzip -9n <doc/steward.1 >$STAGE/steward.1.gz
cp deploy/steward.service $STAGE/
cp LICENSE $STAGE/copyright
cp doc/*.md doc/nats-server.conf doc/message.schema.json deploy/prometheus/alerts.yml $STAGE/doc/
cp deploy/steward.service.d/*.conf $STAGE/doc/steward.service.d/
cp example/* $STAGE/doc/examples/

for arch in ${ARCHES:-amd64 arm64 arm}; do
	PACKAGE_ARCH=$arch
	[ "$arch" != arm ] || PACKAGE_ARCH=arm7
	export PACKAGE_ARCH
	GOOS=linux GOARCH=$arch GOARM=7 go build -tags nethttpomithttp2 -gcflags=google.golang.org/...=-l -buildvcs=true -trimpath -ldflags="-s -w" -o $STAGE/steward ./cmd/steward
	find $STAGE -type f -exec chmod 0644 {} +
	find $STAGE -type d -exec chmod 0755 {} +
	chmod 0755 $STAGE/steward
	find $STAGE -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
	for packager in deb rpm; do
		bin/nfpm package -f deploy/nfpm.yaml -p $packager -t bin/packages/
	done
done
rm -rf $STAGE bin/packages/steward
(cd bin/packages && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)
