package config_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"pgregory.net/rapid"

	"steward/config"
)

// FuzzFile feeds any bytes as config.toml, and then starts with two flags. Whatever is
// accepted must be found again in the written file: all values but those of the flags and
// the settings that were missing, and every line that did not hold a changed value.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"nodeName = \"x\"\n",
		"# a\r\nnodeName = 'x' # b\r\n\r\n[t]\r\na = [1,\r\n2]\r\n",
		"startSubREQPing = [ # a\n \"x\", # b\n]\nnodeName=\"\"\"\nx\"\"\"",
		"[t]\n[[u]]\nnodeNam = 1 # c",
		"\"nodeName\"=\"=\" #=\n# d\n  [ \"a b\" . c ] # [x]\n",
		"\n\n# x\n[a]",
		"maxParallel = +0b11_0",
		"#",
		"nodeName",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		write(t, dir, string(text))
		args := []string{"-nodeName=ship1", "-startSubREQPing=a,b"}
		c, err := config.Load(args, []string{"CONFIGFOLDER=" + dir}, methods)
		if err != nil {
			return
		}
		if w := c.Save(); w != nil {
			t.Fatal(w)
		}
		after := read(t, dir)

		was, is := decode(t, string(text)), decode(t, after)
		want := maps.Clone(was)
		want["nodeName"], want["startSubREQPing"] = "ship1", []any{"a", "b"}
		for name, v := range is {
			if _, ok := want[name]; !ok && isSetting(c, name) {
				want[name] = v
			}
		}
		if !same(want, is) {
			t.Errorf("%q became %q: want %v, got %v", text, after, want, is)
		}
		for _, v := range c.Values() {
			if _, ok := is[v.Name]; !ok && v.Name != "configFolder" {
				t.Errorf("%s is missing in %q", v.Name, after)
			}
		}
		// A comment is followed by what followed it.
		rest := after
		// In a file with these, what looks like a comment may be part of a value.
		longValues := strings.Contains(string(text), `"""`) || strings.Contains(string(text), "'''")
		for line := range strings.Lines(string(text)) {
			if longValues || !strings.HasPrefix(line, "#") {
				continue
			}
			_, tail, ok := strings.Cut(rest, strings.TrimRight(line, "\r\n"))
			if !ok {
				t.Fatalf("%q is lost or moved: %q became %q", line, text, after)
			}
			rest = tail
		}

		again := load(t, dir, nil)
		if again.NodeName != "ship1" || !reflect.DeepEqual(again.Subscribers["REQPing"], []string{"a", "b"}) {
			t.Errorf("next start: %q gives %v", after, again.Values())
		}
		if diff := different(c, again); diff != "" {
			t.Errorf("next start: %s", diff)
		}
	})
}

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	values := make(map[string]any)
	if err := toml.Unmarshal([]byte(text), &values); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return values
}

// same compares decoded files. It goes by text, for nan is not equal to itself.
func same(a, b map[string]any) bool {
	x, errX := toml.Marshal(a)
	y, errY := toml.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

func isSetting(c *config.Config, name string) bool {
	for _, v := range c.Values() {
		if v.Name == name {
			return true
		}
	}
	return false
}

// FuzzValue gives any text to any setting, by flag and by environment. What is accepted
// survives the file.
func FuzzValue(f *testing.F) {
	f.Add(uint8(0), "ship1")
	f.Add(uint8(3), "nats://a:b@[::1]:4222,c:1")
	f.Add(uint8(4), "a\"\\:0")
	f.Add(uint8(8), "æ\"\\")
	f.Add(uint8(36), "*, a")
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		dir := t.TempDir()
		values := load(t, dir, nil).Values()
		name := values[int(which)%len(values)].Name
		if name == "configFolder" {
			return
		}
		env := []string{"CONFIGFOLDER=" + dir}
		byEnv, errEnv := config.Load(nil, append(env, config.EnvName(name)+"="+text), methods)
		c, err := config.Load([]string{"-" + name, text}, env, methods)
		if (err == nil) != (errEnv == nil) {
			t.Fatalf("%s %q: %v, but by environment %v", name, text, err, errEnv)
		}
		if err != nil {
			return
		}
		if diff := different(c, byEnv); diff != "" {
			t.Errorf("by environment: %s", diff)
		}
		if w := c.Save(); w != nil {
			t.Fatal(w)
		}
		if diff := different(c, load(t, dir, nil)); diff != "" {
			t.Errorf("next start: %s", diff)
		}
	})
}

// Whatever starts with flags come one after the other, a start without flags has the
// values of the last start.
func TestTheNextStartHasTheValuesOfTheLast(t *testing.T) {
	flags := map[string]*rapid.Generator[string]{
		"nodeName":              rapid.StringMatching(`[a-z\p{Greek}]{1,8}(\.[a-z0-9"'#=]{1,8})?`),
		"centralNodeName":       rapid.StringMatching(`[a-z]{6,8}`),
		"brokerAddress":         rapid.StringMatching(`(nats://[a-z]{1,4}:[a-z!$]{0,3}[a-z]@)?[a-z]{1,9}:[1-9][0-9]{0,3}(, b:4222)?`),
		"socketFolder":          rapid.StringMatching(`[ -~]{1,20}`),
		"defaultMessageRetries": rapid.StringMatching(`[0-9]{1,5}`),
		"startPubREQHello":      rapid.StringMatching(`[1-9][0-9]{0,5}`),
		"promHostAndPort":       rapid.StringMatching(`([a-z.]{0,9}:[1-9][0-9]{0,3})?`),
		"startSubREQCliCommand": rapid.StringMatching(`RST|\*|[a-z]{1,4}(,[a-z]{1,4}|,<centralNodeName>){0,3}`),
		"startSubREQPing":       rapid.StringMatching(`RST|\*|[a-z]{1,4}(,[a-z]{1,4}){0,3}`),
	}
	names := slices.Sorted(maps.Keys(flags))
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		for range rapid.IntRange(1, 3).Draw(rt, "starts") {
			var args []string
			for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 5, rapid.ID).Draw(rt, "flags") {
				args = append(args, "-"+name+"="+flags[name].Draw(rt, name))
			}
			c, err := config.Load(args, []string{"CONFIGFOLDER=" + dir}, methods)
			if err != nil {
				rt.Fatalf("%q: %v", args, err)
			}
			if w := c.Save(); w != nil {
				rt.Fatal(w)
			}
			if diff := different(c, load(t, dir, nil)); diff != "" {
				rt.Fatalf("%q: %s", args, diff)
			}
		}
	})
}
