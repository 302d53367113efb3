package cli

import (
	"steward/config"
	"steward/methods"
)

// configFrom loads the configuration of a node that is started with these flags.
func configFrom(args, env []string) (*config.Config, error) {
	registry, err := methods.Builtin()
	if err != nil {
		return nil, err
	}
	return config.Load(args, env, configMethods(registry))
}
