package node

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"steward/config"
	"steward/errorkernel"
	"steward/process/transport/broker"
	"steward/security/authority"
)

// certificateEvery is how often is looked whether the certificate of the broker serves on.
const certificateEvery = time.Hour

// makesCertificate reports whether the certificate of the embedded broker is made by this program.
func makesCertificate(cfg *config.Config) bool {
	if cfg.EmbeddedBroker == "" || cfg.EmbeddedBrokerCertFile != "" {
		return false
	}
	return cfg.EmbeddedBrokerTLS == "yes" ||
		cfg.EmbeddedBrokerTLS == "auto" && cfg.EmbeddedBrokerInsecure != "yes" && !broker.Loopback(cfg.EmbeddedBroker)
}

// brokerNames returns at what names and addresses the embedded broker is reached: from other machines,
// and here.
func brokerNames(cfg *config.Config) (there, here []string) {
	there = slices.Clone(cfg.EmbeddedBrokerNames)
	host, _, _ := net.SplitHostPort(cfg.EmbeddedBroker) // checked by the configuration
	if ip := net.ParseIP(host); host != "" && !ip.IsUnspecified() {
		if len(there) == 0 {
			there = []string{host}
		}
		return there, []string{host}
	}
	here = []string{"localhost", "127.0.0.1", "::1"}
	if len(there) > 0 {
		return there, here
	}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				there = append(there, n.IP.String())
			}
		}
	}
	if name, err := os.Hostname(); err == nil {
		here = append(here, name)
	}
	if len(there) == 0 { // no network: whoever comes is on this machine
		there = here[1:2]
	}
	return there, here
}

// ensureCertificate makes the certificate of the embedded broker when it needs one, which the broker
// sees by itself.
func (n *Node) ensureCertificate() error {
	if !makesCertificate(n.cfg) {
		return nil
	}
	a, err := authority.Ensure(n.cfg.ConfigFolder, time.Now())
	if err != nil {
		return err
	}
	there, here := brokerNames(n.cfg)
	names := append(there, here...)
	path, made, err := a.Broker(names, time.Now())
	if err != nil {
		return err
	}
	if n.certificate = path; made {
		n.log.Info("a certificate for the broker is made", "file", path, "names", names)
	}
	return nil
}

// keepCertificate renews the certificate in time.
func (n *Node) keepCertificate(ctx context.Context) error {
	tick := time.NewTicker(certificateEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := n.ensureCertificate(); err != nil {
			n.kernel.Report(errorkernel.Event{Class: errorkernel.LinkFailed, Process: "broker certificate", Err: err})
		}
	}
}

// BrokerAddresses returns where new nodes find the broker of a central node, as brokerAddress has it.
func BrokerAddresses(cfg *config.Config) ([]string, error) {
	if cfg.EmbeddedBroker == "" {
		for _, b := range cfg.Brokers {
			if strings.Contains(b, "@") {
				return nil, errors.New("the address of the broker holds a password, which is for this node alone")
			}
		}
		return cfg.Brokers, nil
	}
	_, port, err := net.SplitHostPort(cfg.EmbeddedBroker)
	if err != nil || port == "0" {
		return nil, errors.New("the embedded broker has another port at each start")
	}
	scheme := "nats://"
	if tls, _ := BrokerDoor(cfg); tls {
		scheme = "tls://"
	}
	there, _ := brokerNames(cfg)
	for i, n := range there {
		there[i] = scheme + net.JoinHostPort(n, port)
	}
	return there, nil
}

// BrokerCA returns what the certificate of the broker of a central node is checked with, as PEM; nil:
// what the system of the other node trusts.
func BrokerCA(cfg *config.Config) ([]byte, error) {
	switch {
	case makesCertificate(cfg):
		a, err := authority.Ensure(cfg.ConfigFolder, time.Now())
		if err != nil {
			return nil, err
		}
		return a.PEM(), nil
	case cfg.RootCAPath != "":
		return os.ReadFile(cfg.RootCAPath)
	}
	return nil, nil
}
