.PHONY: build agent demo test script lint check generate fuzz simulate storm torture soak powercut bench sbom packages try-packages try-container try-release

# The binary, in bin/. Without HTTP/2, which nothing here needs: metrics and REQHttpGet do with HTTP/1.1; and with
# nothing inlined in protobuf, which only metrics use: inlined code is larger.
build:
	CGO_ENABLED=0 go build -tags nethttpomithttp2 -gcflags=google.golang.org/...=-l -trimpath -ldflags="-s -w" -o bin/steward ./cmd/steward

# The binary without the embedded broker, for small machines, in bin/. Only the packages on a message's way have
# inlined code.
INLINED = steward/message/... steward/kvstore steward/process/... steward/methods steward/security/... \
	steward/cmd/internal/audit go.etcd.io/... github.com/fxamacker/... github.com/klauspost/... \
	runtime/... internal/... reflect sync/... bytes time unicode/... encoding/...
agent:
	CGO_ENABLED=0 go build -tags nobroker,nethttpomithttp2 -gcflags=all=-l $(INLINED:%=-gcflags=%=) -trimpath -ldflags="-s -w" -o bin/steward-agent ./cmd/steward

# The main job on this machine: broker, two nodes, one command and its reply.
demo:
	go run ./cmd/steward demo

test:
	go test ./...

# The end-to-end scripts alone; one of them: make script RUN=Script/main
script:
	go test ./cmd/steward -run '$(or $(RUN),Script)'

# Random runs of the delivery protocol under faults: SEEDS of them (default 10000), from the
# seed FIRST on. A failure prints the command that runs its seed again.
simulate:
	cd process && go test -run '^TestDeliveryUnderFaults$$' -timeout 0 -sim.tally -sim.seeds=$(or $(SEEDS),10000) -sim.first=$(or $(FIRST),1)

# NODES real nodes (default 1000) that lose their broker and get it back.
storm:
	cd cmd/internal/node && go test -run '^TestAllNodesComeBackAfterTheBroker$$' -timeout 10m -storm.nodes=$(or $(NODES),1000) -storm.tally

# Cut the power at every write of RUNS (default 20) long random runs, not of one short one.
powercut:
	STEWARD_POWERCUT=$(or $(RUNS),20) go test ./kvstore -run 'PowerCut' -count=1 -timeout 30m -v

lint:
	gofmt -l .
	go vet ./...
	go tool staticcheck ./...

# All that has to hold before a change lands.
check:
	bash .ci/run

# What is made from the code: doc/methods.md, doc/commands.md, doc/configuration.md, doc/steward.1 and doc/message.schema.json.
generate:
	go test ./cmd/internal/cli -run TestGeneratedDocumentsAreUpToDate -update

# Fuzz each decoder of outside bytes for FOR (default 30s).
fuzz:
	@for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FOR),30s) $$p || exit 1; \
		done; \
	done

# Kill nodes and broker and break their links, ROUNDS times (default 100), in streams of messages
# that must arrive once and in order. SEED repeats a run's choice of victims and points.
torture:
	STEWARD_TORTURE_ROUNDS=$(or $(ROUNDS),100) STEWARD_TORTURE_SEED=$(SEED) go test ./cmd/steward -run '^TestTorture$$' -count=1 -timeout=0 -v

# Fifty nodes under load and faults, FOR a time (default 10m); fails if a promise breaks or anything grows.
soak:
	STEWARD_SOAK=$(or $(FOR),10m) go test ./cmd/steward -run '^TestSoak$$' -count=1 -timeout=0 -v

# Steward beside its peers, as one table. Some of it: BENCH=S2,S3 make bench; medians of so many
# runs: BENCH_RUNS=5; for programs: ARGS=-json; all there is to choose: ARGS=-help.
bench: build agent
	@go run ./bench $(ARGS)

# What is linked into the binary, with versions and licences: bin/steward.cdx.json (CycloneDX), and a
# table. It fails on a licence that internal/sbom does not allow.
sbom:
	@mkdir -p bin
	go run ./internal/sbom > bin/steward.cdx.json

# deb and rpm in bin/packages, for ARCHES (default: amd64 arm64 arm), as VERSION (default: the tag of the commit).
packages:
	deploy/packages.sh

# The packages in a new Debian with a systemd of its own: installed, run, upgraded, purged. As root; see there for what it needs.
try-packages:
	deploy/try-deb.sh

# A node in nothing but what deploy/Containerfile puts into an image, under chroot. As root.
try-container:
	deploy/try-container.sh

# All that a release consists of, in bin/release: programs for all systems, packages, sums, and what is linked in. Nothing is published.
try-release:
	go run github.com/goreleaser/goreleaser/v2@v2.15.1 release --snapshot --clean
