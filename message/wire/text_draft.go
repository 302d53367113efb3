package wire

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"steward/message"
)

// Draft is one message as its author wrote it: complete in form, but with nothing filled
// in and no value checked. A nil field was left out, which is not the same as 0 or empty.
// Times are whole seconds.
type Draft struct {
	// Position is the message's place in its array, from 1; 0 when it never was in one.
	Position int

	ToNodes  []string // toNode and toNodes, in the order written
	FromNode *string
	Method   string
	Data     []string

	ReplyMethod     *string
	ReplyMethodArgs []string

	ACKTimeout, Retries, RetryWait                   *int64
	ReplyACKTimeout, ReplyRetries                    *int64
	MethodTimeout, ReplyMethodTimeout, MethodRetries *int64
	TTL                                              *int64

	Schedule            *[2]int64 // every, for
	Directory, FileName *string
	Operation           *DraftOperation
}

// DraftOperation is the operation of a REQOpCommand as written.
type DraftOperation struct {
	Cmd           string
	Method        string
	Kind          string
	ReceivingNode string
	ID            int64
	AllowedNodes  []string
	MessageID     *string
	OlderThan     *int64 // seconds
}

// builder makes drafts of tokens. Its methods return a *RefusedError for what is written
// well but not acceptable, and pass on the errors of the source.
type builder struct {
	src     source
	message int // position of the message at hand
	texts   []string
}

// run reads one array of messages, or one message alone. After a refusal it goes on to
// the end of the value, so that the next one can be read.
func (b *builder) run(src source, most int) ([]Draft, error) {
	b.src, b.message = src, 0
	defer func() { b.src = nil }()
	drafts, err := b.array(most)
	if _, refused := err.(*RefusedError); refused {
		src.discard()
		for src.depth() > 0 {
			if _, err := src.next(); err != nil {
				if _, again := err.(*RefusedError); !again {
					return nil, err
				}
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return drafts, nil
}

func (b *builder) array(most int) ([]Draft, error) {
	t, err := b.src.next()
	if err != nil {
		return nil, err
	}
	if t.kind == tokObject {
		drafts := make([]Draft, 1)
		b.message = 1
		return drafts, b.draft(&drafts[0])
	}
	if t.kind != tokArray {
		return nil, b.wrong("", t, "a message or an array of messages")
	}
	var drafts []Draft
	for {
		t, err := b.src.next()
		if err != nil {
			return nil, err
		}
		if t.kind == tokEndArray {
			return drafts, nil
		}
		b.message++
		if b.message > most {
			b.message = 0
			return nil, b.refuse("", "more than %d messages in one array; send it in parts", most)
		}
		if t.kind != tokObject {
			return nil, b.wrong("", t, "an object")
		}
		drafts = append(drafts, Draft{})
		if err := b.draft(&drafts[len(drafts)-1]); err != nil {
			return nil, err
		}
	}
}

// key is one key of an object of type T.
type key[T any] struct {
	name string
	// slot is the same for keys that mean the same field.
	slot uint8
	read func(b *builder, name string, v *T) error
}

// draftKeys is the table of fields of a message.
var draftKeys = []key[Draft]{
	{"toNode", 0, func(b *builder, name string, d *Draft) error {
		s, err := b.text(name)
		d.ToNodes = append(d.ToNodes, s)
		return err
	}},
	{"toNodes", 1, func(b *builder, name string, d *Draft) error {
		list, err := b.list(name)
		d.ToNodes = append(d.ToNodes, list...)
		return err
	}},
	{"method", 2, textKey(func(d *Draft) *string { return &d.Method })},
	{"data", 3, listKey(func(d *Draft) *[]string { return &d.Data })},
	{"methodArgs", 3, listKey(func(d *Draft) *[]string { return &d.Data })},
	{"replyMethod", 4, optionalTextKey(func(d *Draft) **string { return &d.ReplyMethod })},
	{"replyMethodArgs", 5, listKey(func(d *Draft) *[]string { return &d.ReplyMethodArgs })},
	{"ACKTimeout", 6, wholeKey(func(d *Draft) **int64 { return &d.ACKTimeout })},
	{"retries", 7, wholeKey(func(d *Draft) **int64 { return &d.Retries })},
	{"retryWait", 8, wholeKey(func(d *Draft) **int64 { return &d.RetryWait })},
	{"replyACKTimeout", 9, wholeKey(func(d *Draft) **int64 { return &d.ReplyACKTimeout })},
	{"replyRetries", 10, wholeKey(func(d *Draft) **int64 { return &d.ReplyRetries })},
	{"methodTimeout", 11, wholeKey(func(d *Draft) **int64 { return &d.MethodTimeout })},
	{"replyMethodTimeout", 12, wholeKey(func(d *Draft) **int64 { return &d.ReplyMethodTimeout })},
	{"methodRetries", 13, wholeKey(func(d *Draft) **int64 { return &d.MethodRetries })},
	{"ttl", 14, wholeKey(func(d *Draft) **int64 { return &d.TTL })},
	{"schedule", 15, func(b *builder, name string, d *Draft) (err error) {
		d.Schedule, err = b.pair(name)
		return err
	}},
	{"directory", 16, optionalTextKey(func(d *Draft) **string { return &d.Directory })},
	{"fileName", 17, optionalTextKey(func(d *Draft) **string { return &d.FileName })},
	{"operation", 18, func(b *builder, name string, d *Draft) error {
		d.Operation = &DraftOperation{}
		return object(b, name, name+".", operationKeys, d.Operation)
	}},
	{"fromNode", 19, optionalTextKey(func(d *Draft) **string { return &d.FromNode })},
	{"commandOrEvent", 20, func(b *builder, name string, _ *Draft) error {
		s, err := b.text(name)
		if err == nil && s != "command" && s != "event" {
			return b.refuse(name, `found %s, want "command" or "event"`, message.Quote(s))
		}
		return err
	}},
}

var operationKeys = []key[DraftOperation]{
	{"opCmd", 0, textKey(func(o *DraftOperation) *string { return &o.Cmd })},
	{"opArg", 1, func(b *builder, name string, o *DraftOperation) error {
		return object(b, name, name+".", operationArgKeys, o)
	}},
}

var operationArgKeys = []key[DraftOperation]{
	{"method", 0, textKey(func(o *DraftOperation) *string { return &o.Method })},
	{"kind", 1, textKey(func(o *DraftOperation) *string { return &o.Kind })},
	{"receivingNode", 2, textKey(func(o *DraftOperation) *string { return &o.ReceivingNode })},
	{"id", 3, func(b *builder, name string, o *DraftOperation) (err error) {
		o.ID, err = b.whole(name)
		return err
	}},
	{"allowedNodes", 4, listKey(func(o *DraftOperation) *[]string { return &o.AllowedNodes })},
	{"messageID", 5, optionalTextKey(func(o *DraftOperation) **string { return &o.MessageID })},
	{"olderThan", 6, func(b *builder, name string, o *DraftOperation) error {
		n, err := b.whole(name)
		o.OlderThan = &n
		return err
	}},
}

func textKey[T any](field func(*T) *string) func(*builder, string, *T) error {
	return func(b *builder, name string, v *T) (err error) {
		*field(v), err = b.text(name)
		return err
	}
}

func optionalTextKey[T any](field func(*T) **string) func(*builder, string, *T) error {
	return func(b *builder, name string, v *T) error {
		s, err := b.text(name)
		*field(v) = &s
		return err
	}
}

func listKey[T any](field func(*T) *[]string) func(*builder, string, *T) error {
	return func(b *builder, name string, v *T) (err error) {
		*field(v), err = b.list(name)
		return err
	}
}

func wholeKey[T any](field func(*T) **int64) func(*builder, string, *T) error {
	return func(b *builder, name string, v *T) error {
		n, err := b.whole(name)
		*field(v) = &n
		return err
	}
}

func (b *builder) draft(d *Draft) error {
	d.Position = b.message
	return members(b, "", draftKeys, d)
}

// object reads a whole object; members what stands behind its "{". path goes before the
// names of its keys in errors.
func object[T any](b *builder, name, path string, keys []key[T], v *T) error {
	t, err := b.src.next()
	if err != nil {
		return err
	}
	if t.kind != tokObject {
		return b.wrong(name, t, "an object")
	}
	return members(b, path, keys, v)
}

func members[T any](b *builder, path string, keys []key[T], v *T) error {
	var seen [32]*key[T]
	for {
		t, err := b.src.next()
		if err != nil {
			return err
		}
		if t.kind == tokEndObject {
			return nil
		}
		i := slices.IndexFunc(keys, func(k key[T]) bool { return sameKey(t.text, k.name) })
		if i < 0 {
			return b.refuse("", "unknown key %s%s", message.Quote(path+string(t.text)), DidYouMean(string(t.text), names(keys)))
		}
		k := &keys[i]
		switch before := seen[k.slot]; before {
		case nil:
		case k:
			return b.refuse(path+k.name, "given twice")
		default:
			return b.refuse(path+k.name, "given beside %q, which means the same", path+before.name)
		}
		seen[k.slot] = k
		name := k.name
		if path != "" {
			name = path + name
		}
		if err := k.read(b, name, v); err != nil {
			return err
		}
	}
}

// sameKey compares without regard to case. The names are ASCII.
func sameKey(text []byte, name string) bool {
	if len(text) != len(name) {
		return false
	}
	for i := range len(name) {
		a, c := text[i], name[i]
		if a != c && (a|0x20 != c|0x20 || a|0x20 < 'a' || a|0x20 > 'z') {
			return false
		}
	}
	return true
}

func (b *builder) text(name string) (string, error) {
	t, err := b.src.next()
	if err != nil {
		return "", err
	}
	if t.kind != tokString {
		return "", b.wrong(name, t, "a text")
	}
	return string(t.text), nil
}

func (b *builder) whole(name string) (int64, error) {
	t, err := b.src.next()
	if err != nil {
		return 0, err
	}
	return b.wholeToken(name, t)
}

func (b *builder) wholeToken(name string, t token) (int64, error) {
	if t.kind != tokNumber || !isNumber(t.text) || bytes.ContainsAny(t.text, ".eE") {
		return 0, b.wrong(name, t, "a whole number")
	}
	n, err := strconv.ParseInt(string(t.text), 10, 64)
	if err != nil {
		return 0, b.wrong(name, t, "a smaller one")
	}
	return n, nil
}

func (b *builder) list(name string) ([]string, error) {
	t, err := b.src.next()
	if err != nil {
		return nil, err
	}
	if t.kind != tokArray {
		return nil, b.wrong(name, t, "an array of texts")
	}
	list := b.texts[:0]
	for {
		t, err := b.src.next()
		if err != nil {
			return nil, err
		}
		if t.kind == tokEndArray {
			break
		}
		if t.kind != tokString {
			return nil, b.wrong(fmt.Sprintf("%s: element %d", name, len(list)+1), t, "a text in quotes")
		}
		list = append(list, string(t.text))
	}
	result := append(make([]string, 0, len(list)), list...)
	clear(list)
	if cap(list) <= 1024 {
		b.texts = list
	}
	return result, nil
}

func (b *builder) pair(name string) (*[2]int64, error) {
	const want = "an array of two whole numbers: every, for (seconds)"
	t, err := b.src.next()
	if err != nil {
		return nil, err
	}
	if t.kind != tokArray {
		return nil, b.wrong(name, t, want)
	}
	var pair [2]int64
	for i := 0; ; i++ {
		t, err := b.src.next()
		switch {
		case err != nil:
			return nil, err
		case t.kind == tokEndArray && i == len(pair):
			return &pair, nil
		case t.kind == tokEndArray || i == len(pair):
			return nil, b.refuse(name, "want "+want)
		}
		if pair[i], err = b.wholeToken(fmt.Sprintf("%s: element %d", name, i+1), t); err != nil {
			return nil, err
		}
	}
}

func (b *builder) refuse(field, format string, args ...any) error {
	return &RefusedError{Message: b.message, Field: field, Err: fmt.Errorf(format, args...)}
}

func (b *builder) wrong(field string, t token, want string) error {
	return b.refuse(field, "found %s, want %s", t, want)
}

// String describes a token for an error text.
func (t token) String() string {
	switch t.kind {
	case tokObject:
		return "an object"
	case tokArray:
		return "an array"
	case tokString:
		return "the text " + quoted(t.text)
	case tokNumber:
		return "the number " + cut(string(t.text))
	case tokTrue:
		return "true"
	case tokFalse:
		return "false"
	case tokNull:
		return "null"
	}
	return "something else"
}

func quoted(b []byte) string { return message.Quote(string(b)) }

// cut bounds a text that is printable, or quotes it.
func cut(s string) string {
	const most = 200
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7F {
			return message.Quote(s)
		}
	}
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
