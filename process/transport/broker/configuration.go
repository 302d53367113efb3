package broker

import (
	"cmp"
	"fmt"
	"net"
	"strings"
)

// Where the certificate of a broker is put in a text that does not say.
const someCert, someKey = "/etc/nats/broker.crt", "/etc/nats/broker.key"

// Configuration returns the text of a nats-server configuration that lets in whom o.Access
// names, with the permissions and limits that a server of this package would have.
func Configuration(o Options) (string, error) {
	if o.Access == nil {
		return "", errNoAccess
	}
	o.Self = o.Access.Central // of no interest here
	if err := o.check(); err != nil {
		return "", err
	}
	if _, _, err := net.SplitHostPort(o.Addr); err != nil {
		return "", fmt.Errorf("address %q: want host:port", o.Addr)
	}
	grants, err := o.Access.Grants()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Made by steward broker-config; print it again when nodes or keys come or go.")
	line("listen: %q", o.Addr)
	line("")
	line("tls {")
	line("  cert_file: %q", cmp.Or(o.CertFile, someCert))
	line("  key_file: %q", cmp.Or(o.KeyFile, someKey))
	if o.CAFile != "" {
		line("  ca_file: %q", o.CAFile)
		line("  verify: true")
	}
	line("  timeout: %d", tlsTimeout)
	line("}")
	line("")
	line("max_payload: %d", o.maxPayload())
	line("max_connections: %d", cmp.Or(o.MaxConnections, defaultMaxConnections))
	line("max_control_line: %d", maxControlLine)
	line("max_subscriptions: %d", maxSubscriptions)
	line("max_pending: %d", maxPending)
	line("write_deadline: %q", writeDeadline)
	line("write_timeout: \"retry\"")
	line("")
	line("authorization {")
	line("  timeout: %d", authTimeout)
	line("  users = [")
	for _, g := range grants {
		var names []string
		for _, n := range g.Nodes {
			names = append(names, string(n))
		}
		line("    { # %s", cmp.Or(strings.Join(names, ", "), "a token"))
		line("      nkey: %s", g.Key)
		line("      permissions {")
		line("        publish { allow: %s }", subjectList(g.Publish))
		line("        subscribe { allow: %s }", subjectList(g.Subscribe))
		line("      }")
		line("    }")
	}
	line("  ]")
	line("}")
	return b.String(), nil
}

func subjectList(subjects []string) string {
	quoted := make([]string, len(subjects))
	for i, s := range subjects {
		quoted[i] = fmt.Sprintf("%q", s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
