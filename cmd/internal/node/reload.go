package node

import (
	"context"
	"errors"
	"slices"
	"strings"

	"steward/config"
	"steward/message"
)

// subscriberPrefix begins the settings that are lists of who may use a method.
const subscriberPrefix = "startSub"

// reloadable are the settings that take effect while the node runs, besides those lists.
var reloadable = []string{
	"logLevel", "defaultMessageTimeout", "defaultMessageRetries", "defaultMethodTimeout", "errorMessageTimeout", "errorMessageRetries",
}

// Reload has the node go by the settings of cfg that can change while it runs, and logs which have; it names those
// that take a restart. also is called before that is logged, for what the node does not own: the log level. After an
// error nothing has changed. Only one goroutine may call Reload at a time, and not before the node is ready.
//
// A list that is the same as in the settings before stays as REQOpCommand may have left it.
func (n *Node) Reload(ctx context.Context, cfg *config.Config, also func()) error {
	if cfg.NodeName != n.cfg.NodeName || cfg.CentralNodeName != n.cfg.CentralNodeName {
		return errors.New("nodeName and centralNodeName take a restart, and the lists of startSub... go by them")
	}
	before := n.live.Load()
	lists := map[message.Method][]message.Node{}
	for m, names := range cfg.Subscribers {
		if !slices.Equal(names, before.Subscribers[m]) {
			lists[m] = listOf(names)
		}
	}
	if len(lists) > 0 {
		if err := n.operator.replace(ctx, lists); err != nil {
			return err
		}
	}
	n.live.Store(cfg)
	also()
	changed := 0
	started, were := n.cfg.Values(), before.Values()
	for i, v := range cfg.Values() {
		now := slices.Contains(reloadable, v.Name) || strings.HasPrefix(v.Name, subscriberPrefix)
		switch {
		case now && v.Value != were[i].Value:
			changed++
			n.log.Info("setting changed", "setting", v.Name, "value", v.Value, "before", were[i].Value)
		case !now && v.Value != started[i].Value:
			n.log.Warn("this setting takes a restart", "setting", v.Name, "value", v.Value, "running", started[i].Value)
		}
	}
	n.log.Info("settings were read again", "changed", changed)
	return nil
}
