// Package methods holds what a node can be asked to do: one file req_<name>.go for each
// method, and the [Registry] that knows them all.
//
// A method is a [process.Spec]. It registers itself with
//
//	var _ = register(process.Spec{...})
//
// and everything else (subscribers, sender lists, the checks on incoming messages, the
// documents) is derived from the registry. A method neither acknowledges, retries nor
// reports: it gets a [process.Call], obeys its context and returns an outcome or an error;
// the rest is the executor's business, in package process.
//
// The list of specs is complete before main starts and is not changed after; [Builtin] makes
// a new registry of it each time. Registries and handlers may be used by many goroutines at
// once. Handlers start no goroutine of their own (packages os/exec and net/http start some, which
// have ended, or been told to, when the call returns) and keep nothing between calls but files
// in the data folder and the notes of a method that is Resume.
//
// Except for a tail, which reads any file of its node, all files are reached through the
// [os.Root] of the data folder: a path that leads out of it, through "..", an absolute name
// or a symbolic link, is refused by the operating system's own means and not by looking at
// names.
package methods
