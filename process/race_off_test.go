//go:build !race

package process_test

// seedsAnyway is how many random runs are made by every go test.
const seedsAnyway = 400
