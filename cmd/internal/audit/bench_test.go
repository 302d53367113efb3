package audit_test

import (
	"path/filepath"
	"testing"

	"steward/kvstore"
)

// BenchmarkLeft writes lines for messages of 100 bytes, as many at a time as share a commit under
// load; the time is that of one.
func BenchmarkLeft(b *testing.B) {
	l, reported := open(b, filepath.Join(b.TempDir(), "audit.log"), 64<<20, 2)
	batch := make([]kvstore.Left, 256)
	for i := range batch {
		batch[i] = left(b, i, 100)
		batch[i].Origin = "socket uid=1000 pid=4242"
	}
	for n := 0; b.Loop(); n++ {
		if n%len(batch) == 0 {
			l.Left(batch)
		}
	}
	if len(*reported) > 0 {
		b.Fatal(*reported)
	}
}
