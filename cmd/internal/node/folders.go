package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"steward/config"
)

// CheckFolders says which of a node's own files and folders are where other nodes may write files. Nobody may make
// messages, keys, rules or settings of this node by writing a file.
func CheckFolders(cfg *config.Config) error {
	data := resolved(cfg.SubscribersDataFolder)
	var problems []error
	look := func(setting, path, why string) bool {
		if path == "" || !reachable(path, data) {
			return false
		}
		problems = append(problems, fmt.Errorf("%s: %s is inside of subscribersDataFolder, %s, where other nodes write files: %s; give one of the two another place",
			setting, path, cfg.SubscribersDataFolder, why))
		return true
	}
	const messages, keys = "they could send messages as this node", "they could say whom this node trusts, and as whom it logs in"
	configured := look("configFolder", cfg.ConfigFolder, "they could change the settings, keys and rules of this node")
	look("socketFolder", cfg.SocketFolder, messages)
	look("databaseFolder", cfg.DatabaseFolder, "they could change the messages that wait on this node")
	for _, f := range []struct{ setting, path, why string }{
		{"readFolder", cfg.ReadFolder, messages},
		{"inFile", cfg.InFile, messages},
		{"startupFolder", startupFolder(cfg), messages},
		{"aclFile", cfg.ACLFile, "they could change what they may do here"},
		{"tokens of configFolder", string(Tokens(cfg)), "they could let nodes in"},
		{"trustedNodesFile", cfg.TrustedNodesFile, keys},
		{"nodeKeyFile", cfg.NodeKeyFile, keys},
		{"nkeySeedFile", cfg.NkeySeedFile, keys},
		{"credsFile", cfg.CredsFile, keys},
		{"rootCAPath", cfg.RootCAPath, keys},
		{"clientCertFile", cfg.ClientCertFile, keys},
		{"clientKeyFile", cfg.ClientKeyFile, keys},
		{"embeddedBrokerCertFile", cfg.EmbeddedBrokerCertFile, keys},
		{"embeddedBrokerKeyFile", cfg.EmbeddedBrokerKeyFile, keys},
		{"embeddedBrokerCAFile", cfg.EmbeddedBrokerCAFile, keys},
	} {
		if configured && filepath.Dir(f.path) == filepath.Clean(cfg.ConfigFolder) {
			continue // said with that of the folder
		}
		look(f.setting, f.path, f.why)
	}
	return errors.Join(problems...)
}

// reachable reports whether who may write below the folder data, which is resolved, decides what is at path:
// it is there, or a link on the way to it is.
func reachable(path, data string) bool {
	path, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	if within(resolved(path), data) {
		return true
	}
	for up := path; up != filepath.Dir(up); up = filepath.Dir(up) {
		if within(filepath.Join(resolved(filepath.Dir(up)), filepath.Base(up)), data) {
			return true
		}
	}
	return false
}

// within reports whether path, of which no part is a link, is folder or below it. A folder may have several
// names without links, where capital letters count for nothing.
func within(path, folder string) bool {
	if rel, err := filepath.Rel(folder, path); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return true
	}
	for ; path != filepath.Dir(path); path = filepath.Dir(path) {
		if sameFile(path, folder) {
			return true
		}
	}
	return false
}

// mostLinks bounds the links that lead from one path to the next.
const mostLinks = 40

// resolved follows the links of a path, of which the end need not be there yet.
func resolved(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	rest := ""
	for links := 0; ; {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Join(real, rest)
		}
		if to, err := os.Readlink(path); err == nil && links < mostLinks { // to where nothing is yet
			links++
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(path), to)
			}
			path = to
			continue
		}
		up := filepath.Dir(path)
		if up == path {
			return filepath.Join(path, rest)
		}
		path, rest = up, filepath.Join(filepath.Base(path), rest)
	}
}
