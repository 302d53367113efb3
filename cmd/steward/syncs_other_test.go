//go:build !linux

package main

// systemPrograms are further programs of the test binary.
var systemPrograms map[string]func()
