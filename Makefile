.PHONY: build demo test script lint check fuzz bench

# The binary, in bin/.
build:
	CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o bin/steward ./cmd/steward

# The main job on this machine: broker, two nodes, one command and its reply.
demo:
	go run ./cmd/steward demo

test:
	go test ./...

# The end-to-end scripts alone; one of them: make script RUN=Script/main
script:
	go test ./cmd/steward -run '$(or $(RUN),Script)'

lint:
	gofmt -l .
	go vet ./...
	go tool staticcheck ./...

# All that has to hold before a change lands.
check:
	bash .ci/run

# Fuzz each decoder of outside bytes for FOR (default 30s).
fuzz:
	@for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FOR),30s) $$p || exit 1; \
		done; \
	done

# Steward beside its peers, as one table. Some of it: BENCH=S2,S3 make bench; medians of so many
# runs: BENCH_RUNS=5; for programs: ARGS=-json; all there is to choose: ARGS=-help.
bench: build
	@go run ./bench $(ARGS)
