package methods

import (
	"context"
	"errors"

	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    message.MethodTrustUpdate,
	Summary: "tell the node which keys of the fleet are trusted, and which are revoked",
	Details: "The argument is a list that central has signed with its key, whoever carries it. Its version has to be higher than that in force; " +
		"the same list again is done without a change. Central sends it by itself after an enrolment or `steward revoke` ([enrolment.md](enrolment.md)). " +
		"No `startProc` changes who may use this method.",
	Args:    "LIST",
	MinArgs: 1,
	Kind:    message.CommandACK,
	Access:  process.AccessCentral,
	Ordered: true,
	// Repeat: the same version again changes nothing.
	Crash: process.Repeat,
	Reply: message.MethodToFileAppend,
	Run:   trustUpdate,
})

func trustUpdate(_ context.Context, c *process.Call) (process.Outcome, error) {
	out := process.Outcome{Exit: -1}
	switch {
	case !c.Message.Last():
		return out, nil // as a reply method, it is run at the end of the reply
	case c.Fleet == nil:
		return out, errors.New("this node has no list of keys")
	case len(c.Message.Data) != 1:
		return out, errors.New("want one list in data")
	}
	text, err := c.Fleet.ReplaceKeys(c.Message.Data[0])
	out.Body = []byte(text)
	return out, err
}
