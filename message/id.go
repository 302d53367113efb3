package message

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ID names one message in the whole fleet, for ever. The first six bytes are the
// milliseconds since 1970 at which it was accepted, so ids sort by time; the rest
// tells apart messages of one millisecond, and nodes from each other.
//
// Its text is 26 characters of Crockford's base 32 in lower case, which sorts like
// the bytes (https://www.crockford.com/base32.html).
type ID [16]byte

var idText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// What a text gets that is no id, or no beginning of one.
var (
	errID     = errors.New("not a message id: want 26 characters as printed at acceptance")
	errPrefix = errors.New("no message id begins so: want 26 characters as printed at acceptance, or the first of them")
)

// NewID builds an id from the time of acceptance, a number that counts up within one
// run of one node, and a number drawn at random for that run. Only the low 48 bits of
// run count.
func NewID(at time.Time, count uint32, run uint64) ID {
	var id ID
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(max(0, at.UnixMilli())))
	copy(id[:6], b[2:])
	binary.BigEndian.PutUint32(id[6:10], count)
	binary.BigEndian.PutUint64(b[:], run)
	copy(id[10:], b[2:])
	return id
}

// ParseID reads what [ID.String] wrote.
func ParseID(s string) (ID, error) {
	var id ID
	b, err := idText.DecodeString(s)
	copy(id[:], b)
	// The decoder passes over line ends and the two bits that 26 characters have too many:
	// one id must not have several texts.
	if err != nil || len(b) != len(id) || id.String() != s {
		return ID{}, fmt.Errorf("%w %s: %w", ErrInvalid, Quote(s), errID)
	}
	return id, nil
}

// FirstID returns the lowest id whose text begins with prefix.
func FirstID(prefix string) (ID, error) {
	if n := idText.EncodedLen(len(ID{})) - len(prefix); prefix != "" && n > 0 {
		var id ID
		b, err := idText.DecodeString(prefix + strings.Repeat("0", n))
		if copy(id[:], b); err != nil || !strings.HasPrefix(id.String(), prefix) {
			return ID{}, fmt.Errorf("%w %s: %w", ErrInvalid, Quote(prefix), errPrefix)
		}
		return id, nil
	}
	return ParseID(prefix)
}

// String returns the id as 26 characters.
func (id ID) String() string { return idText.EncodeToString(id[:]) }

// IsZero reports whether the id is unset.
func (id ID) IsZero() bool { return id == ID{} }

// Time returns the millisecond at which the message was accepted, by the clock of
// the node that accepted it.
func (id ID) Time() time.Time {
	var b [8]byte
	copy(b[2:], id[:6])
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b[:])))
}

// MarshalText makes an id a JSON string.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads an id from a JSON string.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	if err == nil {
		*id = v
	}
	return err
}
