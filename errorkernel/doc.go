// Package errorkernel decides what a failure means and tells the central node about it.
//
// Failures go up to it as an [Event], the decision comes back as an [Action] that the
// caller carries out; the kernel itself reaches into no process. What should be known
// centrally becomes a REQErrorLog message on the node's ring buffer.
package errorkernel
