package node

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"steward/message"
	"steward/methods"
	"steward/process"
	"steward/process/ingress"
)

// findUsers looks up the users and groups that the settings name, before anything is opened.
func (n *Node) findUsers() error {
	n.commands = process.Commands{Environment: n.cfg.CommandEnvironment}
	if n.cfg.RunAsUser != "" {
		u, err := methods.LookupUser(n.cfg.RunAsUser)
		if err != nil {
			return fmt.Errorf("runAsUser: %w", err)
		}
		n.commands.User = u
	}
	n.door = ingress.Access{Mode: n.cfg.SocketMode}
	var errs [2]error
	n.door.Owner, errs[0] = idOf("socketOwner", "user", n.cfg.SocketOwner, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	n.door.Group, errs[1] = idOf("socketGroup", "group", n.cfg.SocketGroup, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	return errors.Join(errs[:]...)
}

// idOf returns the number of a user or group, which may be a number already; nil for an empty name.
func idOf(setting, what, name string, lookup func(string) (string, error)) (*int, error) {
	if name == "" {
		return nil, nil
	}
	text := name
	if _, err := strconv.ParseUint(name, 10, 31); err != nil {
		if text, err = lookup(name); err != nil {
			return nil, fmt.Errorf("%s: there is no %s %s here", setting, what, message.Quote(name))
		}
	}
	id, err := strconv.Atoi(text)
	if err != nil { // Windows has no numbers for them
		return nil, fmt.Errorf("%s: %s %s has no number on this system", setting, what, message.Quote(name))
	}
	return &id, nil
}
