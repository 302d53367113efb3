package cli

import (
	"steward/config"
	"steward/methods"
)

// configOf loads the configuration of the node that runs here. given are names of settings and values,
// of which the empty ones are not given.
func configOf(env []string, given ...string) (*config.Config, error) {
	var args []string
	for i := 0; i < len(given); i += 2 {
		if given[i+1] != "" {
			args = append(args, "-"+given[i]+"="+given[i+1])
		}
	}
	return configFrom(args, env)
}

// configFrom loads the configuration of a node that is started with these flags.
func configFrom(args, env []string) (*config.Config, error) {
	registry, err := methods.Builtin()
	if err != nil {
		return nil, err
	}
	return config.Load(args, env, configMethods(registry))
}
