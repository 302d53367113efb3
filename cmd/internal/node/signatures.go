package node

import (
	"steward/errorkernel"
	"steward/process"
	"steward/security"
)

// openSignatures makes the key of this node when there is none, and reads whom it trusts.
func (n *Node) openSignatures() error {
	if n.cfg.Signatures == "off" {
		return nil
	}
	key, made, err := security.EnsureKey(n.cfg.NodeKeyFile)
	if err != nil {
		return err
	}
	n.log.Info("what this node sends is signed", "key", key.Public(), "file", n.cfg.NodeKeyFile, "made", made)
	trusted, err := security.OpenTrustFile(n.cfg.TrustedNodesFile, func(err error) {
		if err == nil {
			n.log.Info("the list of trusted nodes can be read again", "file", n.cfg.TrustedNodesFile)
			return
		}
		n.kernel.Report(errorkernel.Event{Class: errorkernel.Unproven, Process: "signatures", Err: err})
	})
	if err != nil {
		return err
	}
	n.key = key
	if n.fleetKeys, err = security.OpenFleetFile(FleetFile(n.cfg), n.cfg.CentralNodeName, trusted); err != nil {
		return err
	}
	n.signatures, err = process.NewSignatures(process.SignaturesOptions{
		Self: n.self, Key: key, Trusted: security.NewKeyring(n.self, key.Public(), n.fleetKeys), Require: n.cfg.Signatures == "require",
		Report: n.kernel,
	})
	return err
}
