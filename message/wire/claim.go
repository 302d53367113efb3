package wire

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"steward/message"
)

const (
	// maxClaim bounds a claim in bytes: it holds names for people, and is never compressed.
	maxClaim = 512
	maxToken = 64
	maxHost  = 128
	// maxHeld keeps differences of two times from overflowing.
	maxHeld = 1 << 53
)

// Claim says who has a node's name, or who would like to know whether it is free.
type Claim struct {
	_ struct{} `cbor:",toarray"`
	// Token is random, and another one at each start of a node.
	Token string
	// Held is for how many milliseconds the sender has had the name; 0: it has it not.
	Held int64
	// Host and PID tell people where the sender runs.
	Host string
	PID  int64
}

// EncodeClaim returns c as bytes, with a host name of bounded length that can be printed.
// The error wraps [message.ErrInvalid].
func EncodeClaim(c *Claim) ([]byte, error) {
	plain := *c
	plain.Host = strings.ToValidUTF8(plain.Host[:min(len(plain.Host), maxHost)], "")
	plain.Host = strings.Map(func(r rune) rune {
		if unreadable(r) {
			return '?'
		}
		return r
	}, plain.Host)
	if err := plain.check(); err != nil {
		return nil, fmt.Errorf("%w claim: %w", message.ErrInvalid, err)
	}
	body, err := encMode.Marshal(&plain)
	if err != nil {
		return nil, fmt.Errorf("encode claim: %w", err)
	}
	return append([]byte{magic, version, 0}, body...), nil
}

// DecodeClaim reads what [EncodeClaim] wrote. The error wraps [message.ErrInvalid] or is
// [ErrVersion].
func DecodeClaim(b []byte) (*Claim, error) {
	if len(b) > maxClaim {
		return nil, fmt.Errorf("%w claim: %d bytes, want at most %d", message.ErrInvalid, len(b), maxClaim)
	}
	flags, body, err := envelope("claim", b)
	if err != nil {
		return nil, err
	}
	if flags&flagZstd != 0 {
		return nil, fmt.Errorf("%w claim: it is compressed", message.ErrInvalid)
	}
	c := new(Claim)
	err = decMode.Unmarshal(body, c)
	if err == nil {
		err = c.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w claim: %w", message.ErrInvalid, err)
	}
	return c, nil
}

func (c *Claim) check() error {
	switch {
	case c.Token == "" || len(c.Token) > maxToken || !utf8.ValidString(c.Token):
		return errors.New("no usable token")
	case c.Held < 0 || c.Held > maxHeld:
		return fmt.Errorf("held for %d ms", c.Held)
	case len(c.Host) > maxHost || strings.ContainsFunc(c.Host, unreadable):
		return errors.New("no usable host name")
	}
	return nil
}

// unreadable says that r has no place in the name of a host, which ends in texts for people.
func unreadable(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
