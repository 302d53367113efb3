package logattr_test

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"

	"steward/internal/logattr"
	"steward/message"
)

func TestAttributesHaveTheAgreedKeys(t *testing.T) {
	msg := &message.Message{ID: message.NewID(time.UnixMilli(1), 2, 3)}
	tests := []struct {
		attr slog.Attr
		want string
	}{
		{logattr.Node("ship1"), "node=ship1"},
		{logattr.Process("a/b"), "process=a/b"},
		{logattr.Subject("ship1.REQPing.EventACK"), "subject=ship1.REQPing.EventACK"},
		{logattr.Method("REQPing"), "method=REQPing"},
		{logattr.Msg(msg), "msg_id=" + msg.ID.String()},
		{logattr.ID(msg.ID), "msg_id=" + msg.ID.String()},
		{logattr.From("central"), "from=central"},
		{logattr.To("ship1"), "to=ship1"},
		{logattr.Attempt(2), "attempt=2"},
		{logattr.Err(errors.New("a\nb")), `err="a\nb"`},
		{logattr.Took(time.Second), "took=1s"},
	}
	for _, tt := range tests {
		if got := line(tt.attr); got != "msg=x "+tt.want+"\n" {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestErrAddsNothingWithoutAnError(t *testing.T) {
	if got := line(logattr.Err(nil)); got != "msg=x\n" {
		t.Errorf("got %q", got)
	}
}

// line is what one attribute looks like in the text format.
func line(a slog.Attr) string {
	var b bytes.Buffer
	h := slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})
	slog.New(h).Info("x", a)
	return b.String()
}
