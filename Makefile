.PHONY: build demo test script powercut lint check fuzz

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

# Fuzz each decoder of outside bytes for FOR (default 30s).
fuzz:
	@for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FOR),30s) $$p || exit 1; \
		done; \
	done
