package config_test

import (
	"fmt"
	"reflect"

	"steward/config"
)

// different names the first exported field in which two configurations differ, "" for none.
func different(want, got *config.Config) string {
	w, g := reflect.ValueOf(*want), reflect.ValueOf(*got)
	for i := range w.NumField() {
		f := w.Type().Field(i)
		if !f.IsExported() || f.Name == "Warnings" {
			continue
		}
		if a, b := w.Field(i).Interface(), g.Field(i).Interface(); !reflect.DeepEqual(a, b) {
			return fmt.Sprintf("%s: want %v, got %v", f.Name, a, b)
		}
	}
	return ""
}
