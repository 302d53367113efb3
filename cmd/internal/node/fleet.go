package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"steward/config"
	"steward/errorkernel"
	"steward/internal/atomicfile"
	"steward/internal/logattr"
	"steward/message"
	"steward/process"
	"steward/process/transport/broker"
	"steward/security"
	"steward/security/enroll"
)

// Tokens is where the tokens of a central node are.
func Tokens(cfg *config.Config) enroll.Folder {
	return enroll.Folder(filepath.Join(cfg.ConfigFolder, "tokens"))
}

// FleetFile is where a node keeps what central has told it about keys.
func FleetFile(cfg *config.Config) string { return filepath.Join(cfg.ConfigFolder, "fleet_trust") }

// RevokedFile is where a central node keeps the keys that it has revoked.
func RevokedFile(cfg *config.Config) string { return filepath.Join(cfg.ConfigFolder, "revoked_nodes") }

// FleetRulesFile is where a central node has the rules that new nodes begin with, if it has any for them.
func FleetRulesFile(cfg *config.Config) string {
	return filepath.Join(cfg.ConfigFolder, "fleet_acl.toml")
}

func (n *Node) tokens() enroll.Folder { return Tokens(n.cfg) }

// fleetEvery is how often is looked whether tokens or lists have changed.
const fleetEvery = time.Second

// limits of the connections to the embedded broker. A token is for one question. A node has one connection, and those of a
// link that breaks often may be there for minutes after it; of the strangers at one address that the broker waits for none can
// keep out who comes from another one.
func (n *Node) limits() broker.Limits {
	return broker.Limits{Token: 4, TokenFor: 2 * time.Minute, Node: 64, Young: time.Second, Address: max(1, n.cfg.EmbeddedBrokerMaxConnections/4)}
}

// requestsWaiting bounds the requests of new nodes that wait; who gets no answer asks again. With one token that may be
// requestsAtOnce times in a row, and then once in requestEvery; who enrols a node asks every two seconds.
const (
	requestsWaiting = 16
	requestsAtOnce  = 30
	requestEvery    = time.Second
)

// fleetKeeper sees to what depends on the lists of keys: who may log in to the embedded broker, on central
// the enrolment of new nodes, and what all nodes are told. All is done by the goroutine of Serve.
type fleetKeeper struct {
	n        *Node
	central  bool
	requests chan process.Delivery
	door     process.Subscription                 // for requests; nil as long as there are no tokens
	tries    map[security.PublicKey]*rate.Limiter // with each token
	guesses  *rate.Limiter                        // with what is no token

	tokens, trusted, revoked watched
	begun                    bool
	told                     map[string]string // what was said last about what fails again and again
}

func newFleetKeeper(n *Node) *fleetKeeper {
	return &fleetKeeper{n: n, central: n.self == n.cfg.CentralNodeName, requests: make(chan process.Delivery, requestsWaiting), told: map[string]string{},
		tries: map[security.PublicKey]*rate.Limiter{}, guesses: requestLimit(),
		tokens: watched{path: string(n.tokens())}, trusted: watched{path: n.cfg.TrustedNodesFile}, revoked: watched{path: RevokedFile(n.cfg)}}
}

// Serve works until ctx ends.
func (f *fleetKeeper) Serve(ctx context.Context) error {
	tick := time.NewTicker(fleetEvery)
	defer tick.Stop()
	defer f.close()
	f.look(ctx)
	var refusals <-chan refusal // nil without logins
	if f.n.users != nil {
		refusals = f.n.users.refusals
	}
	for {
		select {
		case <-ctx.Done():
			for {
				select {
				case r := <-refusals:
					f.n.reportRefusal(r.line, r.what)
				default:
					return nil
				}
			}
		case <-tick.C:
			f.look(ctx)
		case d := <-f.requests:
			f.answer(ctx, d)
		case r := <-refusals:
			f.n.users.judge(r)
		}
	}
}

func (f *fleetKeeper) close() {
	if f.door != nil {
		f.door.Close()
		f.door = nil
	}
}

// look applies what has changed.
func (f *fleetKeeper) look(ctx context.Context) {
	if f.n.users != nil {
		f.n.users.follow()
		f.say("limit", f.n.broker.Limit(f.n.limits()))
	}
	if !f.central {
		return
	}
	if !f.begun || f.door != nil || f.tokens.changed() {
		f.tokens.look()
		f.say("attend", f.attend())
	}
	if f.n.key != nil && (!f.begun || f.trusted.changed() || f.revoked.changed()) {
		f.trusted.look()
		f.revoked.look()
		f.say("tell", f.tell(ctx))
	}
	f.begun = true
}

// say reports what fails, once.
func (f *fleetKeeper) say(what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != f.told[what] {
		f.n.kernel.Report(errorkernel.Event{Class: errorkernel.StoreFailed, Process: "fleet", Err: err})
	}
	f.told[what] = text
}

// attend listens for requests as long as there are tokens, and forgets those that nobody needs any more.
func (f *fleetKeeper) attend() error {
	list, err := f.n.tokens().List()
	left := 0
	tries := make(map[security.PublicKey]*rate.Limiter, len(list))
	for _, t := range list {
		if time.Since(t.Expires) > enroll.Kept {
			err = errors.Join(err, f.n.tokens().Remove(t.Key))
			continue
		}
		left++
		if tries[t.Key] = f.tries[t.Key]; tries[t.Key] == nil {
			tries[t.Key] = requestLimit()
		}
	}
	f.tries = tries
	if left == 0 {
		f.close()
		return err
	}
	if f.door == nil {
		door, doorErr := f.n.transport.Subscribe(requestSubjects(f.n.self), func(d process.Delivery) {
			select {
			case f.requests <- d:
			default:
			}
		})
		if doorErr != nil {
			return errors.Join(err, doorErr)
		}
		f.door = door
	}
	return err
}

func requestLimit() *rate.Limiter { return rate.NewLimiter(rate.Every(requestEvery), requestsAtOnce) }

func requestSubjects(central message.Node) string { return string(central) + ".ENROLL.*" }

// answer enrols a node that may be, and says so or why not.
func (f *fleetKeeper) answer(ctx context.Context, d process.Delivery) {
	token, err := enroll.TokenOf(f.n.self, d.Subject)
	if err != nil {
		f.refuse(err)
		return
	}
	tries, what := f.tries[token], "the token "+token.String()
	if tries == nil {
		tries, what = f.guesses, "what is no token"
	}
	if !tries.Allow() {
		f.refuse(fmt.Errorf("%s asks too often", what))
		return
	}
	r, key, err := enroll.ReadRequest(d.Data, f.n.self, token)
	if err != nil { // it does not come from who has the token: no answer
		f.refuse(fmt.Errorf("a request with the token %s: %w", token, err))
		return
	}
	var a enroll.Answer
	if a.Rules, err = FleetRules(f.n.cfg, f.n.opts.Registry); err == nil { // before anything is done: a node is not to come in without them
		err = f.enrol(token, r, key)
	}
	if err != nil {
		f.refuse(fmt.Errorf("%s, with the token %s and the key %s: %w", r.Node, token, key, err))
		a = enroll.Answer{Refused: err.Error(), Revoked: errors.Is(err, errRevoked)}
	} else {
		if f.n.users != nil {
			f.n.users.follow()
		}
		f.look(ctx)
		f.n.log.Info("a node is enrolled", "enrolled", r.Node, "key", key, "token", token)
		if a.Signatures = "require"; f.n.cfg.Signatures == "off" { // what the other requires it could not give
			a.Signatures = "off"
		}
		if f.n.fleetKeys != nil {
			a.Trust = f.n.fleetKeys.Text()
		}
	}
	own, _, err := security.EnsureKey(f.n.cfg.NodeKeyFile)
	if err == nil {
		var data []byte
		if data, err = a.Write(r, own); err == nil {
			_, subject := enroll.Subjects(f.n.self, token)
			err = f.n.transport.Publish(subject, "", data)
		}
	}
	if err != nil { // it asks again
		f.n.log.Warn("the answer to a new node was not sent", logattr.Err(err))
	}
}

func (f *fleetKeeper) refuse(err error) {
	f.n.kernel.Report(errorkernel.Event{Class: errorkernel.Refused, Process: "fleet", Err: fmt.Errorf("enrolment refused: %w", err)})
}

// enrol trusts the key of a node, if its token says so. What it did is on disk when it returns, and
// the use of the token before the key is trusted: who asks again goes on from there.
func (f *fleetKeeper) enrol(token security.PublicKey, r enroll.Request, key security.PublicKey) error {
	t, err := f.n.tokens().Lookup(token)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such token")
	case err != nil:
		return err
	case r.Node != t.Node || r.Node == f.n.self:
		return fmt.Errorf("the token is for %s", t.Node)
	case time.Now().After(t.Expires):
		return fmt.Errorf("the token expired at %s, by the clock of %s", t.Expires.Format(time.RFC3339), f.n.self)
	}
	if err := f.fits(r.Node, key); err != nil {
		return err
	}
	by, err := f.n.tokens().Use(token, key)
	if err != nil {
		return err
	}
	if by != key {
		return fmt.Errorf("the token was used by who has the key %s", by)
	}
	if t.Through {
		trusted, err := security.ReadTrust(f.n.cfg.TrustedNodesFile)
		if err == nil && !slices.ContainsFunc(trusted, func(o security.Trusted) bool { return o.Node == r.Node && o.Key == key }) {
			err = errors.New("the key has come with this token before; it was taken off the list of trusted keys since, and needs another token")
		}
		return err
	}
	if _, err := security.Trust(f.n.cfg.TrustedNodesFile, r.Node, key); err != nil {
		return err
	}
	return f.n.tokens().Through(token, key)
}

var errRevoked = errors.New("the key was revoked, and the node needs a new one")

// fits says whether a key may become one of a node: it is neither revoked nor that of another node.
func (f *fleetKeeper) fits(n message.Node, key security.PublicKey) error {
	if f.n.key != nil && key == f.n.key.Public() {
		return fmt.Errorf("the key is that of %s", f.n.self)
	}
	trusted, err := security.ReadTrust(f.n.cfg.TrustedNodesFile)
	if err != nil {
		return err
	}
	for _, t := range trusted {
		if t.Key == key && t.Node != n {
			return fmt.Errorf("the key is that of %s", t.Node)
		}
	}
	revoked, err := security.ReadTrust(RevokedFile(f.n.cfg))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(revoked, func(t security.Trusted) bool { return t.Key == key }) {
		return errRevoked
	}
	return nil
}

// tell signs what there is to say about keys when it has changed, and sends it to all trusted nodes.
func (f *fleetKeeper) tell(ctx context.Context) error {
	trusted, err := security.ReadTrust(f.n.cfg.TrustedNodesFile)
	if err != nil {
		return err
	}
	revoked, err := security.ReadTrust(RevokedFile(f.n.cfg))
	if err != nil {
		return err
	}
	next := &security.Fleet{Central: f.n.self}
	var nodes []message.Node
	for _, t := range trusted {
		t.Comment = ""
		if t.Node != f.n.self && !slices.Contains(nodes, t.Node) {
			nodes = append(nodes, t.Node)
		}
		// Nodes that hear from central alone need no other keys.
		if f.n.cfg.EmbeddedBrokerReach == "all" {
			next.Trusted = append(next.Trusted, t)
		}
	}
	for _, t := range revoked {
		t.Comment = ""
		if !slices.ContainsFunc(trusted, func(o security.Trusted) bool { return o.Key == t.Key }) { // trusted again, by hand
			next.Revoked = append(next.Revoked, t)
		}
	}
	now, text := f.n.fleetKeys.Now(), f.n.fleetKeys.Text()
	switch {
	case now == nil && next.Trusted == nil && next.Revoked == nil:
		return nil
	case now != nil && now.Same(next):
		next = now
	default:
		// Higher than any before, even if those are lost.
		if next.Version = time.Now().Unix(); now != nil {
			next.Version = max(next.Version, now.Version+1)
		}
		if text, err = f.n.fleetKeys.Publish(next, f.n.key); err != nil {
			return err
		}
	}
	sent := FleetFile(f.n.cfg) + ".sent"
	mark := strconv.FormatInt(next.Version, 10) + "\n"
	if was, err := os.ReadFile(sent); err == nil && string(was) == mark {
		return nil
	}
	msgs := make([]message.Message, len(nodes))
	for i, to := range nodes {
		msgs[i] = message.Message{
			To: to, Method: message.MethodTrustUpdate, Data: []string{text}, ReplyMethod: message.MethodNone,
			ACKTimeout: f.n.cfg.DefaultMessageTimeout, Retries: 0, MethodTimeout: f.n.cfg.DefaultMethodTimeout,
		}
	}
	if len(msgs) > 0 {
		if _, err := f.n.router.AcceptOwn(ctx, msgs); err != nil {
			return fmt.Errorf("tell the nodes about keys: %w", err)
		}
		f.n.log.Info("the nodes are told about keys", "version", next.Version, "nodes", len(nodes), "revoked", len(next.Revoked))
	}
	return atomicfile.Replace(sent, []byte(mark))
}

// ReplaceKeys is part of process.Fleet.
func (o *operator) ReplaceKeys(text string) (string, error) {
	if o.n.fleetKeys == nil {
		return "", errors.New("signatures are off on this node, so that keys mean nothing here")
	}
	next, before, err := o.n.fleetKeys.Replace(text)
	switch {
	case err != nil:
		return "", err
	case next.Version == before:
		return fmt.Sprintf("version %d of the fleet's keys was in force already\n", before), nil
	}
	o.n.log.Info("the fleet's keys are replaced", "version", next.Version, "before", before, "trusted", len(next.Trusted), "revoked", len(next.Revoked))
	return fmt.Sprintf("version %d of the fleet's keys is in force; before it was version %d\n", next.Version, before), nil
}
