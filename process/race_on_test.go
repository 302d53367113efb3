//go:build race

package process_test

// seedsAnyway is how many random runs are made by every go test: fewer with the race detector,
// which makes them six times as slow.
const seedsAnyway = 50
