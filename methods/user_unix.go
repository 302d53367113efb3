//go:build unix

package methods

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"steward/message"
	"steward/process"
)

// LookupUser finds the user that commands are to run as, and says so when this program may not
// run anything as that one.
func LookupUser(name string) (*process.User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", message.Quote(name), err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user %s: %w", message.Quote(name), err)
	}
	found := &process.User{Name: u.Username, Home: u.HomeDir, Shell: shellOf(u.Username)}
	var errs []error
	number := func(text string) uint32 {
		n, err := strconv.ParseUint(text, 10, 32)
		errs = append(errs, err)
		return uint32(n)
	}
	found.UID, found.GID = number(u.Uid), number(u.Gid)
	for _, id := range ids {
		found.Groups = append(found.Groups, number(id))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("user %s: %w", message.Quote(name), err)
	}
	if int(found.UID) == os.Geteuid() {
		return found, nil
	}
	if err := mayBecome(); err != nil {
		return nil, fmt.Errorf("run commands as user %s: %w", message.Quote(name), err)
	}
	return found, nil
}

// shellOf returns the login shell of a user, which package user does not tell.
func shellOf(name string) string {
	const standard = "/bin/sh"
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return standard
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Split(lines.Text(), ":"); len(fields) == 7 && fields[0] == name && fields[6] != "" {
			return fields[6]
		}
	}
	return standard
}
