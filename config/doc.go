// Package config owns the settings of a node: which there are, where each value came
// from, whether it makes sense, and how values given by flag get back into the file.
//
// Values are taken from the built-in defaults, config.toml, the environment and the
// flags, the later ones winning. [Load] reads, merges and checks, and changes nothing
// on disk; [Config.Save] writes config.toml on the first start, and later whatever a flag
// changed. A person's comments, order and layout survive that.
//
// A new setting is one entry in the table in options.go: from it come flag, environment
// variable, line in the file with its comment, help text, check and line in
// doc/configuration.md.
//
// What a setting means is left to the packages that it is handed to; so is the question
// whether a folder or key file exists. The methods of the node are handed in, too. A
// [Config] is plain data once loaded: it may be read by many goroutines, while Save is
// for one.
package config
