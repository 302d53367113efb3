package enroll

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"steward/message"
	"steward/security"
	"steward/security/authority"
)

func newKey(t *testing.T) *security.Key {
	t.Helper()
	k, err := security.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newToken(t *testing.T, central *security.Key) *Token {
	t.Helper()
	a, err := authority.Ensure(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &Token{Node: "ship7", Brokers: []string{"tls://192.0.2.7:4222", "tls://[2001:db8::7]:4222"}, CA: a.PEM(),
		Central: "ww.central", CentralKey: central.Public(), Key: newKey(t)}
}

func TestTokenSurvivesItsWayAndNoErrorInIt(t *testing.T) {
	token := newToken(t, newKey(t))
	text, err := token.Text()
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(text, " \n\t'\"$\\") {
		t.Errorf("cannot be copied as one word: %s", text)
	}
	got, err := ParseToken("\n" + text + "\n")
	if err != nil || !reflect.DeepEqual(got, token) {
		t.Fatalf("got %+v, %v, want %+v", got, err, token)
	}
	for i := range text {
		wrong := text[:i] + "A" + text[i+1:]
		if wrong == text {
			continue
		}
		if _, err := ParseToken(wrong); !errors.Is(err, message.ErrInvalid) {
			t.Fatalf("another character at %d: got %v", i, err)
		} else if strings.Contains(err.Error(), text[60:100]) {
			t.Fatalf("the error repeats the secret: %v", err)
		}
		if _, err := ParseToken(text[:i]); !errors.Is(err, message.ErrInvalid) {
			t.Fatalf("cut off at %d: got %v", i, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(prefix)
	f.Add(prefix + "MIIB")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		text, err := token.Text()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseToken(text); err != nil || !reflect.DeepEqual(again, token) {
			t.Fatalf("got %+v, %v, want %+v", again, err, token)
		}
	})
}

// Whatever is changed on the way, by whoever has not both keys, is noticed.
func TestRequestIsOfWhoHasTokenAndKey(t *testing.T) {
	central, node, thief := newKey(t), newKey(t), newKey(t)
	token := newToken(t, central)
	r, data, err := NewRequest(token, node)
	if err != nil {
		t.Fatal(err)
	}
	read := func(data []byte, central message.Node, token *security.Key) error {
		_, _, err := ReadRequest(data, central, token.Public())
		return err
	}
	if got, key, err := ReadRequest(data, "ww.central", token.Key.Public()); err != nil || key != node.Public() || !reflect.DeepEqual(got, r) {
		t.Fatalf("got %+v, %v, %v", got, key, err)
	}
	if read(data, "other", token.Key) == nil || read(data, "ww.central", thief) == nil {
		t.Error("it counts for another central node, or another token")
	}
	forge := func(change func(*Request), byNodeKey, byTokenKey *security.Key) []byte {
		f := r
		change(&f)
		text, _ := json.Marshal(f)
		data, _ := json.Marshal(envelope{text, byNodeKey.Sign(byNode, text), byTokenKey.Sign(byToken, text)})
		return data
	}
	for what, data := range map[string][]byte{
		"key of another, who did not sign":   forge(func(r *Request) { r.Key = central.Public().String() }, thief, token.Key),
		"token of another, who did not sign": forge(func(*Request) {}, node, thief),
		"signatures exchanged":               forge(func(*Request) {}, token.Key, node),
		"no nonce":                           forge(func(r *Request) { r.Nonce = nil }, node, token.Key),
		"a name that is none":                forge(func(r *Request) { r.Node = "a b" }, node, token.Key),
		"nothing":                            nil,
		"no JSON":                            []byte("x"),
		"far too long":                       bytes.Repeat([]byte(" "), maxText+1),
	} {
		if err := read(data, "ww.central", token.Key); err == nil {
			t.Errorf("%s: is taken", what)
		}
	}
}

func TestAnswerIsOfCentralAndToThisRequest(t *testing.T) {
	central, node, thief := newKey(t), newKey(t), newKey(t)
	token := newToken(t, central)
	r, _, err := NewRequest(token, node)
	if err != nil {
		t.Fatal(err)
	}
	earlier, _, err := NewRequest(token, node)
	if err != nil {
		t.Fatal(err)
	}
	write := func(a Answer, r Request, k *security.Key) []byte {
		data, err := a.Write(r, k)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := write(Answer{Signatures: "require", Trust: "keys"}, r, central)
	if a, err := ReadAnswer(good, r, central.Public()); err != nil || a.Trust != "keys" || a.Signatures != "require" {
		t.Fatalf("got %+v, %v", a, err)
	}
	var e envelope
	if err := json.Unmarshal(good, &e); err != nil {
		t.Fatal(err)
	}
	e.Text = bytes.Replace(e.Text, []byte("require"), []byte("off"), 1)
	altered, _ := json.Marshal(e)
	for what, data := range map[string][]byte{
		"by somebody else":      write(Answer{Signatures: "require"}, r, thief),
		"altered":               altered,
		"to an earlier request": write(Answer{Signatures: "require"}, earlier, central),
		"no such setting":       write(Answer{Signatures: "maybe"}, r, central),
		"nothing":               nil,
	} {
		if _, err := ReadAnswer(data, r, central.Public()); err == nil {
			t.Errorf("%s: is believed", what)
		}
	}
}

func TestTokenCountsOnceHoweverManyComeAtOnce(t *testing.T) {
	f := Folder(filepath.Join(t.TempDir(), "tokens"))
	token := newKey(t).Public()
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	if _, err := f.Lookup(token); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	if err := f.Add(token, "ship7", expires); err != nil {
		t.Fatal(err)
	}
	if p, err := f.Lookup(token); err != nil || p.Node != "ship7" || !p.Expires.Equal(expires) || p.Used != nil {
		t.Fatalf("got %+v, %v", p, err)
	}
	keys := make([]security.PublicKey, 8)
	for i := range keys {
		keys[i] = newKey(t).Public()
	}
	won := make([]security.PublicKey, len(keys))
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() { won[i], errs[i] = f.Use(token, k) })
	}
	wg.Wait()
	for i := range keys {
		if errs[i] != nil || won[i] != won[0] {
			t.Fatalf("two have used it, or %v", errs[i])
		}
	}
	if by, err := f.Use(token, won[0]); err != nil || by != won[0] {
		t.Errorf("who has used it may not ask again: %v", err)
	}
	list, err := f.List()
	if err != nil || len(list) != 1 || list[0].Used == nil || *list[0].Used != won[0] {
		t.Fatalf("got %+v, %v", list, err)
	}
	if err := f.Remove(token); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(string(f)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestTokenThatOthersCanWriteCountsForNothing(t *testing.T) {
	f := Folder(filepath.Join(t.TempDir(), "tokens"))
	token := newKey(t).Public()
	if err := f.Add(token, "ship7", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(string(f), token.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lookup(token); err == nil || !strings.Contains(fmt.Sprint(err), "chmod 600") {
		t.Errorf("got %v", err)
	}
	if list, err := f.List(); err == nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
}

// FuzzExchange reads what anybody may send to central and to a new node, and what those who have the
// keys may write: nothing stops the reader, and what it takes is sound.
func FuzzExchange(f *testing.F) {
	seed := func(n byte) *security.Key {
		k, err := security.KeyOfSeed(bytes.Repeat([]byte{n}, 32))
		if err != nil {
			f.Fatal(err)
		}
		return k
	}
	central, node, secret := seed(1), seed(2), seed(3)
	request := Request{Node: "ship1", Central: "central", Key: node.Public().String(), Token: secret.Public().String(), Nonce: make([]byte, 16)}
	answer := Answer{Request: request.Nonce, Key: request.Key, Signatures: "require"}
	for _, v := range []any{request, answer, Answer{Request: request.Nonce, Key: request.Key, Refused: "expired"}, envelope{Text: []byte("{}")}} {
		text, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		signed, err := json.Marshal(envelope{Text: text, Sum: node.Sign(byNode, text), More: secret.Sign(byToken, text)})
		if err != nil {
			t.Fatal(err)
		}
		fromCentral, err := json.Marshal(envelope{Text: text, Sum: central.Sign(byCentral, text)})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReadRequest(text, "central", secret.Public()); err == nil {
			t.Error("a request is taken whose signatures were not known")
		}
		if _, err := ReadAnswer(text, request, central.Public()); err == nil {
			t.Error("an answer is taken whose signature was not known")
		}
		r, key, err := ReadRequest(signed, "central", secret.Public())
		if err == nil && (r.Node.Check() != nil || key != node.Public() || len(r.Nonce) < 16) {
			t.Errorf("taken: %+v, %v", r, key)
		}
		a, err := ReadAnswer(fromCentral, request, central.Public())
		if err == nil && (!bytes.Equal(a.Request, request.Nonce) || a.Refused == "" && a.Signatures == "") {
			t.Errorf("taken: %+v", a)
		}
	})
}
