package kvstore

import "runtime/debug"

// noteFree writes into the file which of its pages are free. Commits do not, since a list of many
// takes long to write; and without it bbolt has to look at every page when it opens the file,
// which maps all of it into memory. So only the opening after a crash does.
//
// Nothing else is changed, and the list is found again by looking: when it cannot be written, the
// file says the same as before. Nobody writes any more. It is called with dbMu held.
func (s *Store) noteFree() {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	s.db.NoFreelistSync = false
	btx, err := s.db.Begin(true)
	if err != nil {
		return
	}
	_ = guard(func() error { return s.commitTx(btx) })
	_ = btx.Rollback() // it is still open after a panic only
}
