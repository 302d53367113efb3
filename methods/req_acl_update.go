package methods

import (
	"context"
	"errors"
	"fmt"

	"steward/message"
	"steward/process"
)

var _ = register(process.Spec{
	Name:    message.MethodACLUpdate,
	Summary: "replace the rules of who may do what on the node; the reply says which version is in force",
	Details: "The argument is the text of an `acl.toml`, as [acl.md](acl.md) describes it. Its version has to be higher than that in force; " +
		"the same text again is done without a change. Rules after which the sender, or central, could send no others are refused " +
		"unless `force` stands behind the text. `steward acl push` sends a file. No `startProc` changes who may use this method.",
	Args:    "TEXT [force]",
	MinArgs: 1,
	Kind:    message.CommandACK,
	Access:  process.AccessCentral,
	Ordered: true,
	// Repeat: the same version again changes nothing.
	Crash: process.Repeat,
	Reply: message.MethodToFileAppend,
	Run:   aclUpdate,
})

func aclUpdate(_ context.Context, c *process.Call) (process.Outcome, error) {
	out := process.Outcome{Exit: -1}
	data := c.Message.Data
	switch {
	case !c.Message.Last():
		return out, nil // as a reply method, it is run at the end of the reply
	case c.Rules == nil:
		return out, errors.New("this node has no rules")
	case len(data) == 0:
		return out, errors.New("no rules: data is empty")
	case len(data) > 2 || len(data) == 2 && data[1] != "force":
		return out, fmt.Errorf(`%w data: want the text of the rules and nothing, or "force", behind it`, message.ErrInvalid)
	}
	text, err := c.Rules.Replace(data[0], c.Message.From, len(data) == 2)
	out.Body = []byte(text)
	return out, err
}
