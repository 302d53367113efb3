package security_test

import (
	"fmt"
	"testing"

	"steward/security"
)

// Each frame is signed once and verified once, however many messages it holds.
func BenchmarkSignature(b *testing.B) {
	k := newKey(b)
	path := b.TempDir() + "/trusted_nodes"
	if _, err := security.Trust(path, "ship1", k.Public()); err != nil {
		b.Fatal(err)
	}
	file, err := security.OpenTrustFile(path, nil)
	if err != nil {
		b.Fatal(err)
	}
	ring := security.NewKeyring("central", newKey(b).Public(), file)
	for _, size := range []int{300, 32 << 10, 256 << 10} {
		data := make([]byte, size)
		sig := k.Sign("test", data)
		b.Run(fmt.Sprintf("sign/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				k.Sign("test", data)
			}
		})
		b.Run(fmt.Sprintf("verify/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := ring.Verify("test", data, k.Public(), sig); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			ring.Known("ship1")
		}
	})
}
