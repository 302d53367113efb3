package natstransport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// advisor knows what people can do about a broker that refuses us.
type advisor struct {
	Options
	public string // half of our nkey; empty without
	// served says that a broker has let us in since the start.
	served atomic.Bool
}

// advice says what to do about err, which is why a broker could not be used. It begins with
// what joins it to the error; empty when there is nothing to say that err does not.
func (a *advisor) advice(err error) string {
	text := a.doAbout(err)
	if text == "" {
		return ""
	}
	return "; " + text
}

func (a *advisor) doAbout(err error) string {
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var remote *net.OpError
	switch {
	case errors.As(err, &authority):
		if a.RootCA == "" {
			return "give the file with the authority that signed the broker's certificate as -rootCAPath"
		}
		return "the authority that signed the broker's certificate is not in " + a.RootCA + " (-rootCAPath): put it there, unless this is not your broker"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if time.Now().Before(invalid.Cert.NotBefore) {
			return "set the clock of this machine, or wait until the broker's certificate is valid"
		}
		return "renew the certificate of the broker, or set the clock of this machine"
	case errors.As(err, &host):
		return "give the broker by a name that is in its certificate as -brokerAddress, or the broker a certificate for this name"
	case errors.As(err, &remote) && remote.Op == "remote error", errors.Is(err, nats.ErrTLS) && strings.Contains(err.Error(), "closed by remote"):
		return a.aboutClientCert()
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "turn TLS on at the broker, or leave out tls://, -rootCAPath and -clientCertFile when nobody else is on the way to it"
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAccountAuthExpired):
		return "get new credentials for -credsFile, or set the clock of this machine"
	case errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAuthorization):
		return a.aboutLogin()
	}
	return ""
}

// aboutClientCert is for a broker that ends the handshake.
func (a *advisor) aboutClientCert() string {
	if a.ClientCert == "" {
		return "the broker may ask for a certificate: give the node's as -clientCertFile and -clientKeyFile"
	}
	pair, err := tls.LoadX509KeyPair(a.ClientCert, a.ClientKey)
	now := time.Now()
	switch {
	case err != nil:
		return err.Error()
	case now.After(pair.Leaf.NotAfter):
		return fmt.Sprintf("renew %s (-clientCertFile), which has expired on %s, or set the clock of this machine", a.ClientCert, pair.Leaf.NotAfter.Format(time.RFC3339))
	case now.Before(pair.Leaf.NotBefore):
		return fmt.Sprintf("set the clock of this machine: %s (-clientCertFile) is not valid before %s", a.ClientCert, pair.Leaf.NotBefore.Format(time.RFC3339))
	}
	return "the broker does not take " + a.ClientCert + " (-clientCertFile): it has to be signed by the authority that the broker is given"
}

// aboutLogin is for a broker that does not know who we are.
func (a *advisor) aboutLogin() string {
	switch {
	case a.public != "" && a.served.Load():
		return "the broker let this node in before, so that its key was taken back since: by steward revoke on central, or out of the users of the broker; " +
			"ask who runs that, and for a new token if it was a mistake"
	case a.public != "":
		return "put this node's public key " + a.public + " into the users of the broker, if it is new there; where that is inside of a node, with steward keys trust. " +
			"One that was in the fleet before was taken out, by steward revoke on central: ask who runs that"
	case a.CredsFile != "":
		return "the broker does not take " + a.CredsFile + " (-credsFile): get new credentials, or the right broker"
	}
	return "give -nkeySeedFile or -credsFile, or mend user and password in -brokerAddress"
}

// without says what a node cannot do that is kept from a subject which delivery does not
// depend on; empty for other subjects.
func (a *advisor) without(subject string, subscribe bool) string {
	self, about := a.Name+".", ""
	switch {
	case subject == self+"NAME", strings.HasPrefix(subject, self+"NAME."):
		about = "this node cannot tell whether another one has its name"
	case subject == self+"HERE" && !subscribe:
		about = "others do not hear that this node is back: what waits for it there is sent at the next attempt, not at once"
	case strings.HasSuffix(subject, ".HERE") && subscribe:
		about = "this node does not hear when " + strings.TrimSuffix(subject, ".HERE") + " is back: what waits for it is sent at the next attempt, not at once"
	}
	return about
}
