// Command steward is the node of a Steward network, and the operator's way to it.
package main

import (
	"context"
	"os"

	"steward/cmd/internal/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
