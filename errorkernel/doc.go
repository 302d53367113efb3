// Package errorkernel decides what a failure means and tells the central node about it.
//
// Failures go up to it as an [Event], the decision comes back as an [Action] that the
// caller carries out; the kernel itself reaches into no process. What should be known
// centrally becomes a REQErrorLog message on the node's ring buffer.
//
// A [Kernel] takes events from its making on and sends while Serve runs; events before
// that wait, events after it are logged only. All is logged locally, with repetitions
// collapsed as they are for central. What must not get lost in a crash, the bad end of a
// message, is packed, stored by who reports it, and told by a [Teller]. Every method may be called by many goroutines at once.
package errorkernel
