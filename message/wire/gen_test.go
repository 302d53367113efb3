package wire_test

import (
	"strings"
	"time"

	"pgregory.net/rapid"

	"steward/message"
	"steward/message/wire"
)

func anyNode() *rapid.Generator[message.Node] {
	part := rapid.StringMatching(`[a-zA-Z0-9_é-]{1,12}`)
	return rapid.Map(rapid.SliceOfN(part, 1, 3), func(p []string) message.Node { return message.Node(strings.Join(p, ".")) })
}

func anyMethod() *rapid.Generator[message.Method] {
	return rapid.Map(rapid.StringMatching(`REQ[a-zA-Z0-9]{1,20}`), func(s string) message.Method { return message.Method(s) })
}

func anyID() *rapid.Generator[message.ID] {
	return rapid.Custom(func(t *rapid.T) message.ID {
		return message.NewID(time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "ms")), rapid.Uint32Min(1).Draw(t, "count"), rapid.Uint64().Draw(t, "run"))
	})
}

// texts gives nil and not an empty list, which cannot be told apart on the wire.
func texts() *rapid.Generator[[]string] {
	return rapid.Map(rapid.SliceOfN(rapid.String(), 0, 5), func(s []string) []string {
		if len(s) == 0 {
			return nil
		}
		return s
	})
}

func anyBytes() *rapid.Generator[[]byte] {
	return rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 300), func(b []byte) []byte {
		if len(b) == 0 {
			return nil
		}
		return b
	})
}

func millis() *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(0, 1<<40), func(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond })
}

// anyMessage is a message with every field, as it looks after a way over the wire: without
// what the stream says.
func anyMessage() *rapid.Generator[message.Message] {
	return rapid.Custom(func(t *rapid.T) message.Message {
		m := message.Message{
			ID: anyID().Draw(t, "id"), Data: texts().Draw(t, "data"), Body: anyBytes().Draw(t, "body"),
			ReplyMethod: anyMethod().Draw(t, "reply method"), ReplyMethodArgs: texts().Draw(t, "args"),
			ACKTimeout: millis().Draw(t, "ack"), Retries: rapid.IntRange(0, 1<<30).Draw(t, "retries"), RetryWait: millis().Draw(t, "wait"),
			ReplyACKTimeout: millis().Draw(t, "reply ack"), ReplyRetries: rapid.IntRange(0, 1<<30).Draw(t, "reply retries"),
			MethodTimeout:      rapid.OneOf(millis(), rapid.Just(message.Forever)).Draw(t, "method"),
			ReplyMethodTimeout: rapid.OneOf(millis(), rapid.Just(message.Forever)).Draw(t, "reply method timeout"),
			MethodRetries:      rapid.IntRange(0, 99).Draw(t, "method retries"), TTL: millis().Draw(t, "ttl"),
			Directory: rapid.String().Draw(t, "dir"), FileName: rapid.String().Draw(t, "file"),
			Part: rapid.Uint32().Draw(t, "part"),
		}
		m.Accepted = m.ID.Time()
		if rapid.Bool().Draw(t, "is reply") {
			m.InReplyTo, m.RequestMethod = anyID().Draw(t, "in reply to"), anyMethod().Draw(t, "request method")
		}
		if rapid.Bool().Draw(t, "has result") {
			m.Result = &message.Result{Code: message.CodeFailed, Text: rapid.String().Draw(t, "text"), Exit: rapid.IntRange(-1, 255).Draw(t, "exit"),
				Signal: "SIGTERM", Stderr: anyBytes().Draw(t, "stderr"), StderrSize: rapid.Int64Min(0).Draw(t, "size"),
				Took: time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "took")) * time.Microsecond, Attempt: 2, Run: rapid.IntRange(0, 9).Draw(t, "run"), More: rapid.Bool().Draw(t, "more")}
			if ms := rapid.Int64Range(0, 1<<42).Draw(t, "started"); ms != 0 {
				m.Result.Started = time.UnixMilli(ms)
			}
		}
		if rapid.Bool().Draw(t, "has operation") {
			m.Operation = &message.Operation{Cmd: "startProc", Arg: message.OperationArg{Method: "REQHello", Kind: "subscriber",
				ReceivingNode: "ship1", ID: 7, MessageID: message.ID{1, 15: 2}, OlderThan: millis().Draw(t, "older"), AllowedNodes: rapid.SliceOfN(anyNode(), 1, 3).Draw(t, "nodes")}}
		}
		if rapid.Bool().Draw(t, "has schedule") {
			m.Schedule = &message.Schedule{Every: millis().Draw(t, "every"), For: rapid.OneOf(millis(), rapid.Just(message.Forever)).Draw(t, "for")}
		}
		if rapid.Bool().Draw(t, "has headers") {
			m.Headers = rapid.MapOfN(rapid.String(), rapid.String(), 1, 4).Draw(t, "headers")
		}
		return m
	})
}

func anyFrame() *rapid.Generator[wire.Frame] {
	return rapid.Custom(func(t *rapid.T) wire.Frame {
		f := wire.Frame{From: anyNode().Draw(t, "from"), To: anyNode().Draw(t, "to"), Method: anyMethod().Draw(t, "method"),
			Epoch: rapid.Uint64Range(1, 1<<62).Draw(t, "epoch"), Base: rapid.Uint64Range(1, 1<<60).Draw(t, "base"), Sent: rapid.Int64().Draw(t, "sent")}
		f.First = f.Base + rapid.Uint64Range(0, 10).Draw(t, "ahead")
		seq := f.First
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			seq += rapid.Uint64Range(0, 2).Draw(t, "given up")
			f.Entries = append(f.Entries, wire.Entry{Seq: seq, Message: rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "message")})
			seq++
		}
		f.End = seq + rapid.Uint64Range(0, 2).Draw(t, "given up at the end")
		return f
	})
}

func anyAck() *rapid.Generator[wire.Ack] {
	return rapid.Custom(func(t *rapid.T) wire.Ack {
		a := wire.Ack{By: anyNode().Draw(t, "by"), To: anyNode().Draw(t, "to"), Method: anyMethod().Draw(t, "method"), Epoch: rapid.Uint64().Draw(t, "epoch"), Newer: rapid.Uint64().Draw(t, "newer"),
			Next: rapid.Uint64().Draw(t, "next"), Gap: rapid.Bool().Draw(t, "gap"), Busy: rapid.Bool().Draw(t, "busy"),
			Code: message.CodeInvalid, Text: rapid.String().Draw(t, "text")}
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			a.Refused = append(a.Refused, wire.Refusal{Seq: rapid.Uint64().Draw(t, "seq"), Code: message.CodeDenied, Text: rapid.String().Draw(t, "why")})
		}
		return a
	})
}
