package process

import "context"

// Presence is a service that tells all who wait for this node that it is there, at each
// connect. It has to be started after the subscribers.
func (r *Router) Presence() Service {
	return ServiceFunc(func(ctx context.Context) error {
		if r.opts.Greet != nil {
			r.opts.Greet(hereSubject(r.opts.Self), []byte(r.token))
		}
		for {
			_, changed := r.opts.Transport.State()
			if r.here(r.opts.Self); r.opts.Greet == nil {
				r.announce()
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
		}
	})
}

// Announce tells all who wait for this node, and its own publishers to itself, that it is
// there. Without a link there is nobody to tell: the next connect does.
func (r *Router) Announce() {
	r.here(r.opts.Self)
	r.announce()
}

// announce need not wait until the broker has taken note of the subscriptions: it has before it passes
// this on.
func (r *Router) announce() {
	err := r.opts.Transport.Publish(hereSubject(r.opts.Self), "", []byte(r.token))
	r.opts.Log.Debug("presence announced", "err", err)
}
