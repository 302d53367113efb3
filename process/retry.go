package process

import (
	"context"
	"fmt"

	"steward/internal/logattr"
	"steward/kvstore"
	"steward/message"
)

// Retry accepts messages that were given up anew, in the order of ids, and says under which ids.
// After an error, or the end of ctx, what is returned is accepted all the same.
func (r *Router) Retry(ctx context.Context, ids []message.ID) ([]kvstore.Retried, error) {
	var all []kvstore.Retried
	for len(ids) > 0 {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		done, rest, err := r.opts.Store.Retry(ids)
		if err != nil {
			return all, fmt.Errorf("accept %d messages anew: %w", len(ids), err)
		}
		ids = rest
		for _, d := range done {
			r.opts.Log.Info("message that was given up is sent again", logattr.ID(d.Old), logattr.To(d.Peer), logattr.Method(d.Method), "as", d.New.String())
			r.opts.Progress.step(Step{ID: d.New, What: StepAccepted, Peer: d.Peer, Method: d.Method})
			r.Wake(d.Stream)
		}
		all = append(all, done...)
	}
	return all, nil
}
