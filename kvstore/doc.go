// Package kvstore is the bbolt file of a node: the ring buffer of messages that wait for
// their receivers, the inbox of messages that wait for their method, the positions of all
// streams, the dead letters, the bad ends that have to be told, the requests that have no reply yet, and
// the history of every message.
//
// One goroutine writes. What callers hand in while a commit is being synced shares the
// next commit, so a busy store pays one sync for many operations and an idle one pays no
// delay. Every write method returns after its commit is on disk, or with an error that
// means that nothing of it was done. The sync is never switched off.
//
// The pages of a file are checked before it is used; a damaged one is set aside, never deleted.
// A commit of which it is not known whether it has reached the disk (the last sync of it went
// wrong) is taken back before anything else is read or written; as long as that does not work
// either, every operation fails and says why, and it is tried again each second. Readers see only what is on disk.
//
// A file of which most is free again is made smaller, at Open or when nobody writes.
//
// The package knows messages and bytes; it delivers nothing, logs nothing and retries
// nothing. All methods of a [Store] may be called by many goroutines at once. [Open]
// acquires the file, [Store.Close] finishes the commits under way and gives it back.
package kvstore
