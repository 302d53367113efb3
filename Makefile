.PHONY: build demo test script lint check fuzz simulate storm

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

# Random runs of the delivery protocol under faults: SEEDS of them (default 10000), from the
# seed FIRST on. A failure prints the command that runs its seed again.
simulate:
	cd process && go test -run '^TestDeliveryUnderFaults$$' -timeout 0 -sim.tally -sim.seeds=$(or $(SEEDS),10000) -sim.first=$(or $(FIRST),1)

# NODES real nodes (default 1000) that lose their broker and get it back.
storm:
	cd cmd/internal/node && go test -run '^TestAllNodesComeBackAfterTheBroker$$' -timeout 10m -storm.nodes=$(or $(NODES),1000) -storm.tally

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
