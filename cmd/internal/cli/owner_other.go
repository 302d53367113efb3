//go:build !unix

package cli

import "io/fs"

// ownerOf names the user to whom a file belongs, which needs more here than it is worth.
func ownerOf(fs.FileInfo) string { return "somebody else" }
