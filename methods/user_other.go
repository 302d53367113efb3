//go:build unix && !linux

package methods

import (
	"errors"
	"os"
)

// mayBecome says whether this program may start and end commands of other users.
func mayBecome() error {
	if os.Geteuid() != 0 {
		return errors.New("that takes root")
	}
	return nil
}
