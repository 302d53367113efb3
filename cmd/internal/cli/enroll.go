package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"steward/client"
	"steward/cmd/internal/node"
	"steward/config"
	"steward/errorkernel"
	"steward/internal/atomicfile"
	"steward/methods"
	"steward/process"
	"steward/process/transport/natstransport"
	"steward/security"
	"steward/security/acl"
	"steward/security/authority"
	"steward/security/enroll"
)

func enrollOperation() operation {
	return operation{
		name: "enroll", args: "TOKEN|-", least: 1, most: 1, configured: true,
		short: "make this machine a node of a fleet, with a token of its central node",
		about: `enroll makes this machine a node of a fleet. With the token, which steward token new prints on
central, it tells central the key of this node, which is made if there is none, and writes what the node
needs into its configuration. It may be run again with the same token until it has worked. With - it reads the token from
stdin: arguments are seen by all users of this machine.`,
		example: "steward enroll steward1-MIIB...\nsteward enroll - < token.txt",
		define: func(flags *flag.FlagSet) func(context.Context, *call) error {
			timeout := duration(flags, "timeout", 30*time.Second, "how long to wait for central, as a `TIME` such as 30s")
			return func(ctx context.Context, c *call) error { return runEnroll(ctx, c, *timeout) }
		},
	}
}

// askEvery is how often a new node asks again for an answer that does not come.
const askEvery = 2 * time.Second

func runEnroll(ctx context.Context, c *call, timeout time.Duration) error {
	text := c.args[0]
	if text == "-" {
		b, err := io.ReadAll(io.LimitReader(c.in, 64<<10))
		if err != nil {
			return err
		}
		text = string(b)
	}
	token, err := enroll.ParseToken(text)
	if err != nil {
		return usageError{hinted{err, "steward token new -node NAME, on central, prints one"}}
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	key, made, err := security.EnsureKey(cfg.NodeKeyFile)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer, err := ask(ctx, token, key)
	if err == nil && answer.Refused != "" {
		hint := "steward token new -node " + string(token.Node) + ", on " + string(token.Central) + ", makes another token"
		if answer.Revoked {
			hint = fmt.Sprintf("mv %s %s.old, then the same token again", cfg.NodeKeyFile, cfg.NodeKeyFile)
		}
		err = hinted{fmt.Errorf("%s refuses to enrol %s: %s", token.Central, token.Node, answer.Refused), hint}
	}
	rules := ""
	if err == nil {
		rules, err = settle(cfg, c.configFolder, token, &answer)
	}
	if err != nil {
		return err
	}
	word := "its key was there already"
	if made {
		word = "its key is new"
	}
	start := "steward"
	if c.configFolder != "" {
		start += " -configFolder=" + c.configFolder
	}
	start = "start the node: " + start
	if runs(ctx, cfg) {
		start = "a node runs here, and goes on with what it had: start it again"
	}
	_, err = fmt.Fprintf(c.out, "enrolled as %s at %s; %s: %s\n%s%s\n", token.Node, token.Central, word, key.Public(), rules, start)
	return err
}

// runs reports whether a node of that configuration runs.
func runs(ctx context.Context, cfg *config.Config) bool {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	local := client.New(cfg.SocketFolder)
	defer local.Close()
	_, err := local.Node(ctx)
	return err == nil
}

// trouble remembers why there is no answer.
type trouble struct {
	mu   sync.Mutex
	last error // guarded by mu
}

// Report is that of errorkernel.Reporter, for the link.
func (t *trouble) Report(e errorkernel.Event) errorkernel.Action {
	t.note(e.Err)
	return errorkernel.Continue
}

func (t *trouble) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = err
}

func (t *trouble) why() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// ask sends the request again and again until central answers. What is not signed by central, or
// answers something else, does not count, whoever sends it.
func ask(ctx context.Context, token *enroll.Token, key *security.Key) (a enroll.Answer, err error) {
	request, data, err := enroll.NewRequest(token, key)
	if err != nil {
		return a, err
	}
	var trouble trouble
	link, err := natstransport.Open(natstransport.Options{
		Servers: token.Brokers, Roots: token.CA, Name: string(token.Node), Key: token.Key.Login(),
		ReconnectWait: time.Second, Report: &trouble,
	})
	if err != nil {
		return a, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, link.Close(closing))
	}()
	subject, back := enroll.Subjects(token.Central, token.Key.Public())
	answers := make(chan enroll.Answer, 1)
	sub, err := link.Subscribe(back, func(d process.Delivery) {
		a, err := enroll.ReadAnswer(d.Data, request, token.CentralKey)
		if err != nil {
			trouble.note(fmt.Errorf("what came is not from %s: %w", token.Central, err))
			return
		}
		select {
		case answers <- a:
		default:
		}
	})
	if err != nil {
		return a, err
	}
	defer sub.Close()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		up, changed := link.State()
		if up {
			if err := link.Publish(subject, "", data); err != nil && !errors.Is(err, process.ErrOffline) {
				return a, err
			}
		}
		select {
		case a := <-answers:
			return a, nil
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return a, ctx.Err()
			}
			why := fmt.Errorf("%s does not answer at %s", token.Central, strings.Join(token.Brokers, ", "))
			if last := trouble.why(); last != nil {
				why = fmt.Errorf("%w: %w", why, last)
			}
			return a, hinted{why, "is the node of central running, and the broker in reach? The same token may be used again"}
		}
	}
}

// settle writes what the answer says, the configuration last: a node with half of it is enrolled
// again with the same token. rules is what to print about those of the node.
func settle(cfg *config.Config, folder string, token *enroll.Token, a *enroll.Answer) (rules string, err error) {
	if _, err := security.Trust(cfg.TrustedNodesFile, token.Central, token.CentralKey); err != nil {
		return "", err
	}
	if a.Trust != "" {
		trusted, err := security.OpenTrustFile(cfg.TrustedNodesFile, nil)
		if err != nil {
			return "", err
		}
		fleet, err := security.OpenFleetFile(node.FleetFile(cfg), token.Central, trusted)
		if err != nil {
			return "", err
		}
		if _, _, err := fleet.Replace(a.Trust); err != nil {
			return "", err
		}
	}
	registry, err := methods.Builtin()
	if err != nil {
		return "", err
	}
	if a.Rules != "" {
		if rules, err = begin(cfg, registry, a.Rules); err != nil {
			return "", fmt.Errorf("the rules that %s has sent: %w", token.Central, err)
		}
	}
	keyFile, err := filepath.Abs(cfg.NodeKeyFile) // whatever folder the node is started in
	if err != nil {
		return "", err
	}
	args := []string{
		"-nodeName=" + string(token.Node), "-centralNodeName=" + string(token.Central), "-brokerAddress=" + strings.Join(token.Brokers, ","),
		"-nkeySeedFile=" + keyFile, "-credsFile=", "-signatures=" + a.Signatures,
	}
	if folder != "" {
		args = append(args, "-configFolder="+folder)
	}
	ca := ""
	if token.CA != nil {
		if ca, err = filepath.Abs(filepath.Join(cfg.ConfigFolder, authority.CAFile)); err != nil {
			return "", err
		}
		if old, err := os.ReadFile(ca); err != nil || !bytes.Equal(old, token.CA) {
			if err := atomicfile.Replace(ca, token.CA); err != nil {
				return "", err
			}
		}
	}
	args = append(args, "-rootCAPath="+ca)
	var env []string // what is in it now need not be there when the node is started
	if folder == "" {
		env = []string{"CONFIGFOLDER=" + cfg.ConfigFolder}
	}
	next, err := config.Load(args, env, configMethods(registry))
	if err != nil {
		return "", err
	}
	var problems []error
	for _, w := range next.Save() {
		problems = append(problems, errors.New(w))
	}
	return rules, errors.Join(problems...)
}

// begin puts rules in force before a node runs for the first time. Those of a node that was here before stay when they are as new.
func begin(cfg *config.Config, registry *methods.Registry, text string) (string, error) {
	next, err := acl.Parse("acl.toml", text, registry.Names())
	if err != nil {
		return "", err
	}
	file, err := acl.Open(acl.FileOptions{Path: node.RulesFile(cfg), Methods: registry.Names(), Report: func(error) {}})
	if err != nil {
		return "", err
	}
	if now := file.Now(); now != nil && now.Version >= next.Version {
		return fmt.Sprintf("its rules stay, version %d\n", now.Version), nil
	}
	if _, _, err := file.Update(text, func(*acl.Rules) error { return nil }); err != nil {
		return "", err
	}
	return fmt.Sprintf("its rules are those of central, version %d\n", next.Version), nil
}
