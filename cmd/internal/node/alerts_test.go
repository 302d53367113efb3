package node

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"steward/message"
)

var (
	seriesUsed  = regexp.MustCompile(`\b((?:steward|process|go)_\w+)(?:\{([^}]*)\})?`)
	labelPair   = regexp.MustCompile(`(\w+)(?:=|!=)"([^"]*)"`)
	labelsKept  = regexp.MustCompile(`\bby \(([^)]*)\)`)
	labelShown  = regexp.MustCompile(`\$labels\.(\w+)`)
	labelDrawn  = regexp.MustCompile(`\{\{(\w+)\}\}`)
	seriesGiven = regexp.MustCompile(`(?m)^((?:steward|process|go)_\w+)(?:\{(.*)\})? \S+$`)
)

// series are what a node serves: by name, and the values of each label.
type series map[string]map[string][]string

// served returns all series that the alerts and the dashboard may ask for.
func served(t *testing.T) series {
	t.Helper()
	central := run(t, "-embeddedBroker=127.0.0.1:0", "-signatures=require", "-startPubREQHello=1")
	msg := message.Message{To: "central", Method: "REQCliCommand", Data: []string{"false"}, ReplyMethod: message.MethodNone,
		ACKTimeout: 5 * time.Second, MethodTimeout: 5 * time.Second}
	patient := msg
	patient.To = "ship8"
	if _, err := central.router.Accept(t.Context(), []message.Message{msg, patient}); err != nil {
		t.Fatal(err)
	}
	all := series{}
	for _, m := range seriesGiven.FindAllStringSubmatch(central.want(t,
		`steward_method_runs_total{method="REQCliCommand",result="failed"} 1`,
		`steward_ring_buffer_node_oldest_age_seconds{to_node="ship8"} .*`,
		`steward_hello_last_contact_timestamp_seconds{from_node="central"} .*`,
	), -1) {
		if all[m[1]] == nil {
			all[m[1]] = map[string][]string{}
		}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			all[m[1]][l[1]] = append(all[m[1]][l[1]], l[2])
		}
	}
	return all
}

// check looks whether an expression asks for series, labels and values of labels that there are, and returns the
// labels that its result has. The expression is not parsed, only searched.
func (s series) check(t *testing.T, where, expr string) (kept []string) {
	t.Helper()
	used := seriesUsed.FindAllStringSubmatch(expr, -1)
	if len(used) == 0 {
		t.Errorf("%s: %q asks for nothing", where, expr)
	}
	known := []string{"instance"} // Prometheus adds it
	for _, u := range used {
		labels, ok := s[u[1]]
		if !ok {
			t.Errorf("%s: no node serves %s", where, u[1])
		}
		known = slices.AppendSeq(known, maps.Keys(labels))
		for _, l := range labelPair.FindAllStringSubmatch(u[2], -1) {
			if !slices.Contains(labels[l[1]], l[2]) {
				t.Errorf("%s: no %s has %s", where, u[1], l[0])
			}
		}
	}
	kept = known
	if by := labelsKept.FindStringSubmatch(expr); by != nil {
		kept = strings.Split(strings.ReplaceAll(by[1], " ", ""), ",")
	}
	for _, l := range kept {
		if !slices.Contains(known, l) {
			t.Errorf("%s: no label %s to sum by", where, l)
		}
	}
	return kept
}

// shows looks whether a text shows labels that there are.
func shows(t *testing.T, where, text string, label *regexp.Regexp, kept []string) {
	t.Helper()
	for _, l := range label.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(kept, l[1]) {
			t.Errorf("%s: no label %s to show", where, l[1])
		}
	}
}

func TestAlertsAndDashboardAskForWhatANodeServes(t *testing.T) {
	all := served(t)
	t.Run("alerts", func(t *testing.T) { checkAlerts(t, all) })
	t.Run("dashboard", func(t *testing.T) { checkDashboard(t, all) })
}

func checkAlerts(t *testing.T, all series) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "prometheus", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr         string
				For                 time.Duration
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(b)))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) == 0 {
		t.Fatal("no rules")
	}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if rule.Alert == "" || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" {
				t.Errorf("%+v lacks something", rule)
			}
			kept := all.check(t, rule.Alert, rule.Expr)
			for _, text := range rule.Annotations {
				shows(t, rule.Alert, text, labelShown, kept)
			}
		}
	}
}

func checkDashboard(t *testing.T, all series) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "grafana", "steward.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Title, UID string
		Panels     []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Datasource  struct{ UID string }
			Targets     []struct {
				RefID, Expr, LegendFormat string
				Datasource                struct{ UID string }
			}
		}
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, v := range file.Templating.List {
		variables = append(variables, v.Name)
		if v.Type == "query" {
			all.check(t, v.Name, v.Definition)
		}
	}
	if !slices.Equal(variables, []string{"datasource", "instance"}) {
		t.Errorf("the variables are %q", variables)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range file.Panels {
		if ids[p.ID] {
			t.Errorf("%s: id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				place := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[place]; other != "" || place[0] >= 24 {
					t.Fatalf("%s: no room at %v, where %q is", p.Title, place, other)
				}
				taken[place] = p.Title
			}
		}
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%s: %d targets", p.Title, len(p.Targets))
		}
		for _, target := range p.Targets {
			if p.Datasource.UID != "${datasource}" || target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: its data source cannot be chosen", p.Title)
			}
			if strings.Count(target.Expr, `instance=~"$instance"`) != len(seriesUsed.FindAllString(target.Expr, -1)) {
				t.Errorf("%s: %s does not go by the nodes that are chosen", p.Title, target.Expr)
			}
			shows(t, p.Title, target.LegendFormat, labelDrawn, all.check(t, p.Title, target.Expr))
		}
	}
	if file.Title == "" || file.UID == "" || len(ids) < 10 {
		t.Errorf("%q, %q, %d panels", file.Title, file.UID, len(ids))
	}
}
