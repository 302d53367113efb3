package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"steward/client"
	"steward/cmd/internal/node"
	"steward/process"
	"steward/process/transport/broker"
	"steward/process/transport/natstransport"
)

// linkFiles are the settings of the files without which no broker outside can be tried.
var linkFiles = []string{"nkeySeedFile", "credsFile", "rootCAPath", "clientCertFile", "clientKeyFile"}

// files looks whether what the settings name can be read. The rules, and the files that a node makes for itself, are
// looked at elsewhere.
func (x *examination) files() {
	cfg, seen := x.cfg, false
	for _, f := range []struct {
		setting, path string
		folder        bool
	}{
		{"nkeySeedFile", cfg.NkeySeedFile, false}, {"credsFile", cfg.CredsFile, false}, {"rootCAPath", cfg.RootCAPath, false},
		{"clientCertFile", cfg.ClientCertFile, false}, {"clientKeyFile", cfg.ClientKeyFile, false},
		{"embeddedBrokerCertFile", cfg.EmbeddedBrokerCertFile, false}, {"embeddedBrokerKeyFile", cfg.EmbeddedBrokerKeyFile, false},
		{"embeddedBrokerCAFile", cfg.EmbeddedBrokerCAFile, false},
		{"startupFolder", cfg.StartupFolder, true}, {"readFolder", cfg.ReadFolder, true},
	} {
		if f.path == "" {
			continue
		}
		seen = true
		err := readable(f.path, f.folder)
		state, hint := stateFail, "put it there, or mend "+f.setting
		switch {
		case err == nil:
			continue
		case !errors.Is(err, fs.ErrNotExist):
			hint = "let the user of the node read it, or run the command as that user"
		case f.setting == "readFolder": // the node makes it
			continue
		case f.folder:
			state, hint = stateWarn, "make it, or mend "+f.setting+": nothing is run at a start"
		}
		x.unfit[f.setting] = true
		x.say("files", state, hint, "%s: %v", f.setting, err)
	}
	if seen && len(x.unfit) == 0 {
		x.say("files", stateOK, "", "what the settings name is there, and can be read")
	}
}

func readable(path string, folder bool) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir() && !folder:
		return fmt.Errorf("%s is a folder", path)
	case !info.IsDir() && folder:
		return fmt.Errorf("%s is no folder", path)
	case !folder && !info.Mode().IsRegular(): // a pipe opens only when somebody writes
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// doors looks at who else is let in: by the broker in the node, and by TCP.
func (x *examination) doors() {
	cfg := x.cfg
	if addr := cfg.EmbeddedBroker; addr != "" {
		local, insecure := broker.Loopback(addr), cfg.EmbeddedBrokerInsecure == "yes"
		tls, login := node.BrokerDoor(cfg)
		switch {
		case !local && !insecure && !(tls && login):
			x.say("door", stateFail, "leave embeddedBrokerTLS and embeddedBrokerLogin at auto", "embeddedBroker: other machines reach %s, so that the node does not start without TLS and logins there", addr)
		case !local && !login:
			x.say("door", stateWarn, "set embeddedBrokerInsecure to no, and embeddedBrokerLogin to auto", "embeddedBroker: whoever reaches %s needs no login, and can %s", addr, x.deeds())
		case !local && !tls:
			x.say("door", stateWarn, "set embeddedBrokerInsecure to no", "embeddedBroker: there is no TLS on %s: whoever is on the way to it can %s", addr, x.deeds())
		case !login && cfg.EmbeddedBrokerLogin == "auto": // who says no for this machine alone knows
			x.say("door", stateWarn, "set embeddedBrokerLogin to yes, or to no if all of them may", "embeddedBroker: each user of this machine can %s at %s, without a login", x.deeds(), addr)
		case !login:
			x.say("door", stateOK, "", "embeddedBroker: %s is for the users of this machine", addr)
		default:
			x.say("door", stateOK, "", "embeddedBroker: %s lets in who logs in", addr)
		}
	}
	if addr := x.tcpListener(); addr != "" && !broker.Loopback(addr) {
		x.say("door", stateWarn, "give it 127.0.0.1 as host, or see to it that only those reach it who may", "tcpListener: whoever reaches %s can send any message as this node, without a login", addr)
	}
}

// deeds is what can be done at a broker by who should not be there.
func (x *examination) deeds() string {
	if x.cfg.Signatures == "require" {
		return "read all messages"
	}
	return "read all messages, and send any in the name of any node"
}

// outside is about the door of a broker on another machine.
func (x *examination) outside(p natstransport.Probed) {
	u, err := url.Parse(p.Server)
	if err != nil || p.TLS || p.Login || broker.Loopback(u.Host) {
		return
	}
	x.say("door", stateWarn, "give the broker users and TLS", "%s: it has neither logins nor TLS: whoever reaches it can %s", p.Server, x.deeds())
}

// tcpListener is the address with the host that it has when none is given.
func (x *examination) tcpListener() string {
	if strings.HasPrefix(x.cfg.TCPListener, ":") {
		return "127.0.0.1" + x.cfg.TCPListener
	}
	return x.cfg.TCPListener
}

// port is what a setting makes the node listen on, and the name of the process that does.
type port struct{ setting, addr, process string }

func (x *examination) ports() []port {
	all := []port{
		{"embeddedBroker", x.cfg.EmbeddedBroker, ""}, // without which there is no node
		{"promHostAndPort", x.cfg.PromHostAndPort, "metrics"},
		{"tcpListener", x.tcpListener(), "tcp listener"},
	}
	if x.cfg.ProfilingPort != "" {
		all = append(all, port{"profilingPort", net.JoinHostPort("127.0.0.1", x.cfg.ProfilingPort), "profiling"})
	}
	return slices.DeleteFunc(all, func(p port) bool { return p.addr == "" })
}

// freePorts tries to listen where the node will.
func (x *examination) freePorts() {
	bad := false
	for _, p := range x.ports() {
		l, err := net.Listen("tcp", p.addr)
		if err == nil {
			_ = l.Close()
			continue
		}
		bad = true
		if p.process == "" {
			x.say("ports", stateFail, "end the program that has it, or give another "+p.setting+": the node does not start", "%s: %v", p.setting, err)
		} else {
			x.closedPort(p, err.Error())
		}
	}
	if !bad && len(x.ports()) > 0 {
		x.say("ports", stateOK, "", "what a node would listen on is free")
	}
}

// upFor is how long a process has to have been up after a failure for that to be past: it fails anew at once.
const upFor = 5 * time.Second

// openPorts asks the node that runs whether it could listen.
func (x *examination) openPorts(ctx context.Context, local *client.Client) {
	ports := x.ports()
	if len(ports) == 0 {
		return
	}
	tree, err := local.Processes(ctx)
	if err != nil {
		x.say("ports", stateFail, "", "%v", err)
		return
	}
	bad := false
	var look func(client.Process)
	look = func(c client.Process) {
		failing := c.Error != "" && (c.State != string(process.Running) || time.Since(c.Since) < upFor)
		i := slices.IndexFunc(ports, func(p port) bool { return p.process == c.Name })
		if failing && i >= 0 {
			bad = true
			why, _, _ := strings.Cut(c.Error, "; ") // what to do follows here, too
			x.closedPort(ports[i], why)
		}
		for _, below := range c.Children {
			look(below)
		}
	}
	look(tree)
	if !bad {
		x.say("ports", stateOK, "", "the node has those that it listens on")
	}
}

func (x *examination) closedPort(p port, why string) {
	x.say("ports", stateWarn, "end the program that has it, or give another "+p.setting+": the node goes on without", "%s: %s", p.setting, why)
}
