package methods

import (
	"errors"

	"steward/process"
)

// LookupUser is not to be had here.
func LookupUser(string) (*process.User, error) {
	return nil, errors.New("commands cannot be run as another user on Windows")
}
