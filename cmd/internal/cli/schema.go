package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"strings"

	"steward/message"
	"steward/methods"
)

func schemaOperation() operation {
	return operation{
		name:  "schema",
		short: "a JSON Schema of message files, for editors and checks",
		about: `schema prints a JSON Schema (2020-12) of what can be sent: a message, or an array of them, with all fields and
methods of this version. An editor that is given it completes and checks message files. The node goes by more than
a schema can say; steward send tells what is wrong with a file.`,
		example: "steward schema > message.schema.json",
		define: func(*flag.FlagSet) func(context.Context, *call) error {
			return func(_ context.Context, c *call) error {
				registry, err := methods.Builtin()
				if err != nil {
					return err
				}
				text, err := messageSchema(registry)
				if err == nil {
					_, err = c.out.Write(text)
				}
				return err
			}
		},
	}
}

// schema is a part of a JSON Schema.
type schema map[string]any

// mostSeconds is ten years: the longest time that a message can hold.
const mostSeconds = 10 * 365 * 24 * 60 * 60

// messageSchema returns the JSON Schema of what can be sent.
func messageSchema(r *methods.Registry) ([]byte, error) {
	method := func(about string, more ...schema) schema {
		return schema{"description": about, "oneOf": append(eachMethod(r), more...)}
	}
	old := []schema{
		{"const": "shellCommand", "description": "REQCliCommand, in the first version", "deprecated": true},
		{"const": "textLogging", "description": "REQToFileAppend, in the first version", "deprecated": true},
	}
	run := func(about string) schema {
		return schema{"description": about, "type": "integer", "maximum": mostSeconds, "anyOf": []schema{{"const": -1}, {"minimum": 1}}}
	}
	fields := map[string]schema{
		"toNode":             text("the receiver; the own name or local is this node, without the broker", 1),
		"toNodes":            list("the receivers; each gets a message of its own"),
		"method":             method("what to do there", old...),
		"data":               list("the arguments of the method"),
		"methodArgs":         list("the same as data"),
		"replyMethod":        method("what the sending node does with the result; without it the method's own", old...),
		"replyMethodArgs":    list("the arguments of replyMethod"),
		"ACKTimeout":         number("seconds that one attempt waits for its ACK; 0: none is wanted, the message is sent once and not kept", 0, mostSeconds),
		"retries":            number("attempts to deliver it; 0: until it is delivered", 0, math.MaxInt32),
		"retryWait":          number("seconds between a missed ACK and the next attempt", 0, mostSeconds),
		"replyACKTimeout":    number("ACKTimeout of the reply", 0, mostSeconds),
		"replyRetries":       number("retries of the reply", 0, math.MaxInt32),
		"methodTimeout":      run("seconds that the method may run; -1: as long as the node"),
		"replyMethodTimeout": run("seconds that replyMethod may run; -1: as long as the node"),
		"methodRetries":      number("how often a method that failed or was interrupted is run again", 0, math.MaxInt32),
		"ttl":                number("seconds after which it is not delivered and not run any more; 0: never", 0, mostSeconds),
		"schedule": {
			"description": "[every, for]: the receiver runs it again every so many seconds, for so many in all, -1 being for ever",
			"type":        "array", "items": schema{"type": "integer", "minimum": -1, "maximum": mostSeconds}, "minItems": 2, "maxItems": 2,
		},
		"directory": text("where a reply or a text is stored, below the data folder", 0),
		"fileName":  text("where a reply or a text is stored, in directory", 0),
		"operation": {
			"description": "for REQOpCommand: what to do with the node itself",
			"type":        "object", "additionalProperties": false, "required": []string{"opCmd"},
			"properties": schema{
				"opCmd": schema{"description": "what to do", "enum": []string{message.OpPs, message.OpStartProc, message.OpStopProc, message.OpClearQueue}},
				"opArg": schema{
					"description": "with what; which of them count depends on opCmd", "type": "object", "additionalProperties": false,
					"properties": properties(operationArguments(method("the method that is meant"))),
				},
			},
		},
		"fromNode":       text("filled in by the node; only a message to the node itself can have another one", 0),
		"commandOrEvent": {"description": "of the first version; the method says it", "enum": []string{"command", "event"}, "deprecated": true},
	}
	// The one other spelling that the first documents have.
	fields["MethodTimeout"] = schema{"$ref": "#/$defs/message/properties/methodTimeout", "deprecated": true}
	all := schema{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Steward messages",
		"description": "One message or an array of them. Keys are spelled here as in the documents; the node reads them without regard to case, " +
			"so that it takes some files that this schema does not. A message needs toNode or toNodes, unless it is in the startup folder.",
		"anyOf": []schema{{"$ref": "#/$defs/message"}, {"type": "array", "items": schema{"$ref": "#/$defs/message"}}},
		"$defs": schema{"message": schema{
			"type": "object", "additionalProperties": false, "required": []string{"method"},
			"properties": properties(fields), "allOf": conditions(r),
		}},
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	err := e.Encode(all)
	return b.Bytes(), err
}

func operationArguments(method schema) map[string]schema {
	return map[string]schema{
		"method":        method,
		"kind":          {"description": "the kind of process", "enum": []string{message.KindSubscriber, message.KindPublisher}},
		"receivingNode": text("the node to which a publisher sends, or for which messages wait", 0),
		"id":            number("of a process, as ps shows it", 0, math.MaxInt32),
		"allowedNodes":  list("the nodes that may use the method; * is all"),
		"messageID":     text("the id that was given at acceptance", 1),
		"olderThan":     number("seconds since the acceptance of a message", 1, mostSeconds),
	}
}

// eachMethod is a schema for each method.
func eachMethod(r *methods.Registry) []schema {
	var names []schema
	for _, s := range r.All() {
		about := fmt.Sprintf("%s. Kind: %s.", capital(s.Summary), s.Kind)
		if s.Args != "" {
			about += " Arguments, in data: " + s.Args
		}
		names = append(names, schema{"const": s.Name, "description": about})
	}
	return names
}

// conditions are what a method wants besides its name.
func conditions(r *methods.Registry) []schema {
	var all []schema
	when := func(m message.Method, then, otherwise schema) {
		c := schema{"if": schema{"properties": schema{"method": schema{"const": m}}, "required": []string{"method"}}, "then": then}
		if otherwise != nil {
			c["else"] = otherwise
		}
		all = append(all, c)
	}
	for _, s := range r.All() {
		if s.MinArgs == 0 {
			continue
		}
		var either []schema
		for _, key := range []string{"data", "methodArgs"} {
			either = append(either, schema{"required": []string{key}, "properties": schema{key: schema{"minItems": s.MinArgs}}})
		}
		when(s.Name, schema{"anyOf": either}, nil)
	}
	has := schema{"required": []string{"operation"}}
	when(message.MethodOpCommand, has, schema{"not": has})
	return all
}

func properties(fields map[string]schema) schema {
	p := schema{}
	for name, s := range fields {
		p[name] = s
	}
	return p
}

func text(about string, least int) schema {
	s := schema{"description": about, "type": "string"}
	if least > 0 {
		s["minLength"] = least
	}
	return s
}

func list(about string) schema {
	return schema{"description": about, "type": "array", "items": schema{"type": "string"}}
}

func number(about string, least, most int64) schema {
	return schema{"description": about, "type": "integer", "minimum": least, "maximum": most}
}

// capital makes a sentence of a summary.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
