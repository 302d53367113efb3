package cli

import (
	"errors"
	"flag"
	"strings"
	"time"
)

// durationValue is the value of a flag for a time. A number alone is seconds, as in the settings of a node.
type durationValue time.Duration

// duration declares a flag for a time that is not negative, as flag.Duration does for any.
func duration(flags *flag.FlagSet, name string, value time.Duration, usage string) *time.Duration {
	d := new(time.Duration)
	durationVar(flags, d, name, value, usage)
	return d
}

// durationVar is duration with a place for the value.
func durationVar(flags *flag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	flags.Var((*durationValue)(d), name, usage)
}

// Set is part of flag.Value, as is String.
func (d *durationValue) Set(text string) error {
	unit := ""
	if strings.Trim(text, "0123456789.") == "" {
		unit = "s"
	}
	value, err := time.ParseDuration(text + unit)
	if err != nil || value < 0 {
		return errors.New("it is no time: want 5s, 10m or 1h")
	}
	*d = durationValue(value)
	return nil
}

// String is 10m and not 10m0s; nothing for no time.
func (d *durationValue) String() string {
	if *d == 0 {
		return ""
	}
	text := time.Duration(*d).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}
