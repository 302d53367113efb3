package node

import (
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
	seriesUsed  = regexp.MustCompile(`\b(steward_\w+)(?:\{([^}]*)\})?`)
	labelPair   = regexp.MustCompile(`(\w+)(?:=|!=)"([^"]*)"`)
	labelsKept  = regexp.MustCompile(`\bby \(([^)]*)\)`)
	labelShown  = regexp.MustCompile(`\$labels\.(\w+)`)
	seriesGiven = regexp.MustCompile(`(?m)^(steward_\w+)(?:\{(.*)\})? \S+$`)
)

// The alerts ask for metrics, labels and values of labels that a node serves. Their expressions
// are not parsed, only searched.
func TestAlertsAskForWhatANodeServes(t *testing.T) {
	central := run(t, "-embeddedBroker=127.0.0.1:0", "-signatures=require")
	msg := message.Message{To: "central", Method: "REQCliCommand", Data: []string{"false"}, ReplyMethod: message.MethodNone,
		ACKTimeout: 5 * time.Second, MethodTimeout: 5 * time.Second}
	patient := msg
	patient.To = "ship8"
	if _, err := central.router.Accept(t.Context(), []message.Message{msg, patient}); err != nil {
		t.Fatal(err)
	}
	served := map[string]map[string][]string{} // series, label, values
	for _, m := range seriesGiven.FindAllStringSubmatch(central.want(t,
		`steward_method_runs_total{method="REQCliCommand",result="failed"} 1`,
		`steward_ring_buffer_node_oldest_age_seconds{to_node="ship8"} .*`,
	), -1) {
		if served[m[1]] == nil {
			served[m[1]] = map[string][]string{}
		}
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			served[m[1]][l[1]] = append(served[m[1]][l[1]], l[2])
		}
	}

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
			used := seriesUsed.FindAllStringSubmatch(rule.Expr, -1)
			if rule.Alert == "" || len(used) == 0 || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" {
				t.Errorf("%+v lacks something", rule)
			}
			known := []string{"instance"} // Prometheus adds it
			for _, u := range used {
				labels, ok := served[u[1]]
				if !ok {
					t.Errorf("%s: no node serves %s", rule.Alert, u[1])
				}
				known = slices.AppendSeq(known, maps.Keys(labels))
				for _, l := range labelPair.FindAllStringSubmatch(u[2], -1) {
					if !slices.Contains(labels[l[1]], l[2]) {
						t.Errorf("%s: no %s has %s", rule.Alert, u[1], l[0])
					}
				}
			}
			kept := known
			if by := labelsKept.FindStringSubmatch(rule.Expr); by != nil {
				kept = strings.Split(strings.ReplaceAll(by[1], " ", ""), ",")
			}
			for _, l := range kept {
				if !slices.Contains(known, l) {
					t.Errorf("%s: no label %s to sum by", rule.Alert, l)
				}
			}
			for _, text := range rule.Annotations {
				for _, l := range labelShown.FindAllStringSubmatch(text, -1) {
					if !slices.Contains(kept, l[1]) {
						t.Errorf("%s: no label %s to show", rule.Alert, l[1])
					}
				}
			}
		}
	}
}
