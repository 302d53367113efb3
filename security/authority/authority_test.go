package authority

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trusts reports what a client that trusts ca says of the certificate in a file, asking for name.
func trusts(t *testing.T, ca []byte, path, name string, at time.Time) error {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no certificate in the PEM of the authority")
	}
	_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, CurrentTime: at})
	return err
}

func ensure(t *testing.T, folder string, now time.Time) *Authority {
	t.Helper()
	a, err := Ensure(folder, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestBrokerIsTrustedByItsNamesAndNoOthers(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	a := ensure(t, dir, now)
	path, made, err := a.Broker([]string{"central.example", "192.0.2.7", "2001:db8::7"}, now)
	if err != nil || !made {
		t.Fatalf("made %v, %v", made, err)
	}
	for name, want := range map[string]bool{"central.example": true, "192.0.2.7": true, "2001:db8::7": true, "other.example": false, "192.0.2.8": false} {
		if err := trusts(t, a.PEM(), path, name, now); (err == nil) != want {
			t.Errorf("%s: got %v, want it trusted: %v", name, err, want)
		}
	}
	if other := ensure(t, t.TempDir(), now); trusts(t, other.PEM(), path, "central.example", now) == nil {
		t.Error("who trusts another authority trusts this broker")
	}
	for _, file := range []string{keyFile, BrokerFile} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, %v, want mode 0600", file, info, err)
		}
	}
}

func TestCertificateServesOnUntilItMustBeMadeAnew(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	names := []string{"central.example", "192.0.2.7"}
	first := ensure(t, dir, now)
	path, _, err := first.Broker(names, now)
	if err != nil {
		t.Fatal(err)
	}
	again := func(names []string, at time.Time) bool {
		t.Helper()
		_, made, err := ensure(t, dir, at).Broker(names, at)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	if again(names, now) || again(names[:1], now.Add(200*day)) {
		t.Error("made anew without need")
	}
	later := now.Add(brokerTerm - renewal + time.Hour)
	if !again(names, later) || again(names, later) {
		t.Error("not made anew, once, before it ends")
	}
	if err := trusts(t, first.PEM(), path, "192.0.2.7", later.Add(renewal)); err != nil {
		t.Errorf("who trusts the authority does not take the new one: %v", err)
	}
	if !again([]string{"moved.example"}, later) {
		t.Error("not made anew for another name")
	}
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !again(names, later) {
		t.Error("a damaged one is not made anew")
	}
}

func TestKeyThatOthersCanReadIsRefused(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	ensure(t, dir, now)
	if err := os.Chmod(filepath.Join(dir, keyFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(dir, now); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("got %v", err)
	}
}
