package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"steward/message"
)

// anything accepts every text.
func anything(string) error { return nil }

// notEmpty refuses the empty text.
func notEmpty(s string) error {
	if s == "" {
		return errors.New("it is empty")
	}
	return nil
}

// oneOf accepts the words given.
func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(words, s) {
			return nil
		}
		return fmt.Errorf("%s is none of %s", message.Quote(s), strings.Join(words, ", "))
	}
}

// checkNode accepts what a node can be called. The words with a meaning of their own are
// no names: a list with one of them would not do what it says.
func checkNode(s string) error {
	if s == string(message.Local) || s == Off {
		return fmt.Errorf("%q has a meaning of its own and cannot be the name of a node", s)
	}
	return message.Node(s).Check()
}

// listenAddress accepts host:port to listen on, or nothing for off. The host may be left
// out for all interfaces; port 0 is any free one.
func listenAddress(s string) error {
	if s == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || strings.ContainsAny(host, "/@ ") {
		return fmt.Errorf("%s is not host:port, such as localhost:2112 or :2112", message.Quote(s))
	}
	return checkPort(port, 0)
}

// portOrNothing accepts a port number, or nothing for off.
func portOrNothing(s string) error {
	if s == "" {
		return nil
	}
	return checkPort(s, 0)
}

func checkPort(s string, least uint64) error {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n < least {
		return fmt.Errorf("%s is not a port number from %d to 65535", message.Quote(s), least)
	}
	return nil
}

// socketMode is a setting that is the mode of a file, as chmod takes it.
func socketMode(name, def, help string) option {
	return option{name: name, unit: "string", help: help, kind: textKind, def: def, store: func(c *Config, v any) error {
		n, err := strconv.ParseUint(v.(string), 8, 16)
		if err != nil || n > 0o777 || n&0o600 != 0o600 {
			return fmt.Errorf("%s is not a mode from 0600 to 0777 with which its owner can read and write", message.Quote(v.(string)))
		}
		c.SocketMode = fs.FileMode(n)
		return nil
	}}
}

// variables is the setting commandEnvironment. The settings of the node are no variables for
// commands, which have their own of that kind.
func variables(name, def, help string) option {
	return option{name: name, unit: "string", help: help, kind: textKind, def: def, store: func(c *Config, v any) error {
		c.CommandEnvironment = nil
		if strings.TrimSpace(v.(string)) == "" {
			return nil
		}
		for name := range strings.SplitSeq(v.(string), ",") {
			name = strings.TrimSpace(name)
			switch {
			case name == "" || strings.ContainsAny(name, "= \x00"):
				return fmt.Errorf("%s is not the name of a variable", message.Quote(name))
			case strings.HasPrefix(name, "STEWARD_"):
				return fmt.Errorf("%s is a setting of the node or of a message, and not passed on", message.Quote(name))
			}
			c.CommandEnvironment = append(c.CommandEnvironment, name)
		}
		return nil
	}}
}

// hosts is a setting that is a list of names and addresses, without ports.
func hosts(name, def, help string) option {
	return option{name: name, unit: "string", help: help, kind: textKind, def: def, store: func(c *Config, v any) error {
		c.EmbeddedBrokerNames = nil
		if strings.TrimSpace(v.(string)) == "" {
			return nil
		}
		for host := range strings.SplitSeq(v.(string), ",") {
			host = strings.Trim(strings.TrimSpace(host), "[]")
			if net.ParseIP(host) == nil && (host == "" || strings.ContainsAny(host, ":/@* \t")) {
				return fmt.Errorf("%s is not the name or address of a machine; leave out the port", message.Quote(host))
			}
			c.EmbeddedBrokerNames = append(c.EmbeddedBrokerNames, host)
		}
		return nil
	}}
}

// brokers is the setting brokerAddress: a text that is a list, as in -brokerAddress.
func brokers(name, def, help string) option {
	return option{name: name, unit: "string", help: help, kind: textKind, def: def, mask: maskBrokers, store: func(c *Config, v any) error {
		list, err := parseBrokers(v.(string))
		c.Brokers = list
		return err
	}}
}

// parseBrokers splits and checks the addresses of brokers. Its errors do not show an
// address that may hold a password.
func parseBrokers(s string) ([]string, error) {
	list := strings.Split(s, ",")
	web := 0
	for i, text := range list {
		text = strings.TrimSpace(text)
		list[i] = text
		scheme, err := checkBroker(text)
		if err != nil {
			shown := message.Quote(text)
			if strings.Contains(s, "@") {
				shown = fmt.Sprintf("address %d", i+1)
			}
			return nil, fmt.Errorf("%s: %w", shown, err)
		}
		if scheme == "ws" || scheme == "wss" {
			web++
		}
	}
	if web != 0 && web != len(list) {
		return nil, errors.New("ws:// and wss:// cannot be mixed with other addresses; give one sort only")
	}
	return list, nil
}

func checkBroker(s string) (scheme string, err error) {
	if s == "" {
		return "", errors.New("it is empty; give host:port, such as 127.0.0.1:4222")
	}
	if !strings.Contains(s, "://") {
		s = "nats://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		// What url says quotes the address, and so the password.
		return "", errors.New("not host:port, with or without nats://, tls://, ws:// or wss:// before it")
	}
	switch {
	case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
		return "", fmt.Errorf("%s:// is not known here; use nats://, tls://, ws:// or wss://", u.Scheme)
	case u.Hostname() == "":
		return "", errors.New("the host is missing; give host:port, such as 127.0.0.1:4222")
	case u.Port() == "":
		return "", errors.New("the port is missing; a broker mostly has 4222")
	case strings.Trim(u.Path, "/") != "" && u.Scheme[0] != 'w', u.RawQuery != "", u.Fragment != "":
		return "", errors.New("nothing may follow the port")
	}
	return u.Scheme, checkPort(u.Port(), 1)
}

// maskBrokers hides passwords and tokens in a valid list of addresses.
func maskBrokers(s string) string {
	list := strings.Split(s, ",")
	for i, text := range list {
		scheme, rest, ok := strings.Cut(text, "://")
		if !ok {
			scheme, rest = "", text
		} else {
			scheme += "://"
		}
		at := strings.LastIndexByte(rest, '@')
		if at < 0 {
			continue
		}
		user, _, ok := strings.Cut(rest[:at], ":")
		if ok {
			user += ":"
		} else {
			user = "" // a token
		}
		list[i] = scheme + user + "•••" + rest[at:]
	}
	return strings.Join(list, ",")
}
