package kvstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts its file: a page that makes no sense makes it panic, fault or run in circles,
// partly in goroutines of its own where nothing can be recovered. So the pages are checked
// before bbolt sees them. After a crash bbolt looks at every page too (to learn which are free),
// so this costs a second look then, not a different order of time.

// The layout of a bbolt file (format 2), in the byte order of the machine.
const (
	pageHeader  = 16 // id 8, flags 2, count 2, overflow 4
	elementSize = 16 // branch: pos 4, ksize 4, page 8; leaf: flags 4, pos 4, ksize 4, vsize 4
	bucketSize  = 16 // root 8, sequence 8; root 0: a page follows inline
	metaSize    = 64

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf element

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = 1<<64 - 1
	maxDepth    = 64
)

var ne = binary.NativeEndian

// meta is what a meta page says.
type meta struct {
	pageSize, root, freelist, pages, txid uint64
}

var errNoMeta = errors.New("no valid meta page")

func decodeMeta(b []byte) (meta, error) {
	if len(b) < pageHeader+metaSize {
		return meta{}, errNoMeta
	}
	b = b[pageHeader:]
	h := fnv.New64a()
	_, _ = h.Write(b[:56])
	if ne.Uint32(b) != metaMagic || ne.Uint64(b[56:]) != h.Sum64() {
		return meta{}, errNoMeta
	}
	if v := ne.Uint32(b[4:]); v != metaVersion {
		return meta{}, fmt.Errorf("bbolt format %d, known here is %d: %w", v, metaVersion, ErrVersion)
	}
	m := meta{pageSize: uint64(ne.Uint32(b[8:])), root: ne.Uint64(b[16:]), freelist: ne.Uint64(b[32:]), pages: ne.Uint64(b[40:]), txid: ne.Uint64(b[48:])}
	if m.pageSize < 1024 || m.pageSize > 1<<24 || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, errNoMeta
	}
	return m, nil
}

// metas reads both meta pages, the newer one first. The second error is that of the older.
func metas(f *os.File) (newest, older meta, err, olderErr error) {
	var buf [pageHeader + metaSize]byte
	at := func(off int64) (meta, error) {
		if _, err := f.ReadAt(buf[:], off); err != nil {
			if errors.Is(err, io.EOF) {
				return meta{}, errNoMeta
			}
			return meta{}, err
		}
		return decodeMeta(buf[:])
	}
	m0, err0 := at(0)
	var m1 meta
	err1 := errNoMeta
	if err0 == nil {
		m1, err1 = at(int64(m0.pageSize))
	} else {
		// Without the first meta page the page size has to be guessed.
		for size := int64(1 << 10); size <= 1<<24 && errors.Is(err1, errNoMeta); size *= 2 {
			if m1, err1 = at(size); err1 == nil && int64(m1.pageSize) != size {
				err1 = errNoMeta
			}
		}
	}
	if errors.Is(err0, ErrVersion) {
		return m0, m1, err0, err1
	}
	if err0 != nil || errors.Is(err1, ErrVersion) || err1 == nil && m1.txid > m0.txid {
		m0, err0, m1, err1 = m1, err1, m0, err0
	}
	return m0, m1, err0, err1
}

// checker walks the pages of a file.
type checker struct {
	f    *os.File
	meta meta
	seen []uint64 // one bit per page
	bufs [][]byte // one page for each level
}

// check says whether the file is one that bbolt can read without harm. A file of no bytes is.
// An error in reading is returned as it is; everything else is damage, or ErrVersion.
func check(f *os.File) error {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	m, _, err, _ := metas(f)
	switch {
	case errors.Is(err, errNoMeta):
		return &damage{fmt.Errorf("the file is damaged: %w", err)}
	case err != nil:
		return err
	case m.pages < 2 || m.pages > uint64(info.Size())/m.pageSize:
		return damaged("it has %d bytes, and should have %d pages of %d", info.Size(), m.pages, m.pageSize)
	}
	c := &checker{f: f, meta: m, seen: make([]uint64, m.pages/64+1)}
	c.seen[0] = 3 // the meta pages
	if err := c.tree(m.root, nil, nil, 0); err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return nil
	}
	return c.freelist(m.freelist)
}

func damaged(format string, args ...any) error {
	return &damage{fmt.Errorf("the file is damaged: "+format, args...)}
}

// page is one page with its overflow: its first part in memory, the rest read on demand.
type page struct {
	c     *checker
	id    uint64
	flags uint16
	count uint64
	size  uint64
	head  []byte
}

// load reads the head of a page and marks all of it as seen.
func (c *checker) load(id uint64, depth int) (page, error) {
	if depth >= maxDepth {
		return page{}, damaged("the pages are nested %d deep", depth)
	}
	if id < 2 || id >= c.meta.pages {
		return page{}, damaged("a page with the number %d of %d", id, c.meta.pages)
	}
	for len(c.bufs) <= depth {
		c.bufs = append(c.bufs, make([]byte, c.meta.pageSize))
	}
	b := c.bufs[depth]
	if _, err := c.f.ReadAt(b, int64(id*c.meta.pageSize)); err != nil {
		return page{}, fmt.Errorf("read page %d: %w", id, err)
	}
	p := page{c: c, id: id, flags: ne.Uint16(b[8:]), count: uint64(ne.Uint16(b[10:])), head: b}
	overflow := uint64(ne.Uint32(b[12:]))
	if ne.Uint64(b) != id || overflow >= c.meta.pages-id {
		return page{}, damaged("page %d says that it is page %d with %d more", id, ne.Uint64(b), overflow)
	}
	p.size = (1 + overflow) * c.meta.pageSize
	for n := id; n <= id+overflow; n++ {
		if c.seen[n/64]&(1<<(n%64)) != 0 {
			return page{}, damaged("page %d is in use twice", n)
		}
		c.seen[n/64] |= 1 << (n % 64)
	}
	return p, nil
}

// bytes returns n bytes of the page from off on.
func (p *page) bytes(off, n uint64) ([]byte, error) {
	if off > p.size || n > p.size-off {
		return nil, damaged("page %d has an entry that ends behind it", p.id)
	}
	if off+n <= uint64(len(p.head)) {
		return p.head[off : off+n], nil
	}
	b := make([]byte, n)
	if _, err := p.c.f.ReadAt(b, int64(p.id*p.c.meta.pageSize+off)); err != nil {
		return nil, fmt.Errorf("read page %d: %w", p.id, err)
	}
	return b, nil
}

// tree checks the page and everything below it. Its keys are from low up to, not including, high.
func (c *checker) tree(id uint64, low, high []byte, depth int) error {
	p, err := c.load(id, depth)
	if err != nil {
		return err
	}
	if p.flags != flagLeaf && (p.flags != flagBranch || p.count == 0) {
		return damaged("page %d is of kind %#x with %d entries", id, p.flags, p.count)
	}
	elements, err := p.bytes(pageHeader, p.count*elementSize)
	if err != nil {
		return err
	}
	if p.flags == flagLeaf {
		return c.leaf(&p, elements, low, high, depth)
	}
	var key []byte
	for i := uint64(0); i < p.count; i++ {
		next := high
		if key == nil {
			if key, err = p.key(elements, i); err != nil {
				return err
			}
		}
		if i+1 < p.count {
			if next, err = p.key(elements, i+1); err != nil {
				return err
			}
		}
		if !ordered(low, key, high) || i+1 < p.count && bytes.Compare(key, next) >= 0 {
			return damaged("the keys of page %d are out of order", id)
		}
		if err := c.tree(ne.Uint64(elements[i*elementSize+8:]), key, next, depth+1); err != nil {
			return err
		}
		key = next
	}
	return nil
}

// key returns the key of an element of a branch.
func (p *page) key(elements []byte, i uint64) ([]byte, error) {
	e := elements[i*elementSize:]
	pos, size := uint64(ne.Uint32(e)), uint64(ne.Uint32(e[4:]))
	if size == 0 {
		return nil, damaged("page %d has an empty key", p.id)
	}
	key, err := p.bytes(pageHeader+i*elementSize+pos, size)
	return bytes.Clone(key), err
}

func ordered(low, key, high []byte) bool {
	return bytes.Compare(low, key) <= 0 && (high == nil || bytes.Compare(key, high) < 0)
}

func (c *checker) leaf(p *page, elements, low, high []byte, depth int) error {
	var last []byte
	for i := uint64(0); i < p.count; i++ {
		e := elements[i*elementSize:]
		flags, pos, ksize, vsize := ne.Uint32(e), uint64(ne.Uint32(e[4:])), uint64(ne.Uint32(e[8:])), uint64(ne.Uint32(e[12:]))
		off := pageHeader + i*elementSize + pos
		if ksize == 0 || off > p.size || ksize+vsize > p.size-off {
			return damaged("page %d has an entry that ends behind it", p.id)
		}
		key, err := p.bytes(off, ksize)
		if err != nil {
			return err
		}
		if !ordered(low, key, high) || i > 0 && bytes.Compare(last, key) >= 0 {
			return damaged("the keys of page %d are out of order", p.id)
		}
		last = append(last[:0], key...)
		if flags&flagBucket == 0 {
			continue
		}
		value, err := p.bytes(off+ksize, vsize)
		if err != nil {
			return err
		}
		if err := c.bucket(p, value, depth); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks a bucket from its entry in a leaf on.
func (c *checker) bucket(p *page, value []byte, depth int) error {
	if len(value) < bucketSize {
		return damaged("page %d has a bucket of %d bytes", p.id, len(value))
	}
	if root := ne.Uint64(value); root != 0 {
		return c.tree(root, nil, nil, depth+1)
	}
	b := value[bucketSize:]
	if len(b) < pageHeader || ne.Uint16(b[8:]) != flagLeaf {
		return damaged("page %d has an inline bucket that is no leaf", p.id)
	}
	inline := page{c: c, id: p.id, flags: flagLeaf, count: uint64(ne.Uint16(b[10:])), size: uint64(len(b)), head: b}
	elements, err := inline.bytes(pageHeader, inline.count*elementSize)
	if err != nil {
		return err
	}
	for i := range inline.count {
		if ne.Uint32(elements[i*elementSize:])&flagBucket != 0 {
			return damaged("page %d has a bucket in an inline bucket", p.id)
		}
	}
	return c.leaf(&inline, elements, nil, nil, depth)
}

// freelist checks that nothing in use is listed as free. Files written here have no such
// list after their first commit.
func (c *checker) freelist(id uint64) error {
	p, err := c.load(id, 0)
	if err != nil {
		return err
	}
	if p.flags != flagFreelist {
		return damaged("page %d is no list of free pages", id)
	}
	off, n := uint64(pageHeader), p.count
	if n == 0xFFFF {
		b, err := p.bytes(off, 8)
		if err != nil {
			return err
		}
		off, n = off+8, ne.Uint64(b)
	}
	if n > c.meta.pages {
		return damaged("page %d lists %d free pages of %d", id, n, c.meta.pages)
	}
	ids, err := p.bytes(off, 8*n)
	if err != nil {
		return err
	}
	for ; len(ids) > 0; ids = ids[8:] {
		free := ne.Uint64(ids)
		if free < 2 || free >= c.meta.pages || c.seen[free/64]&(1<<(free%64)) != 0 {
			return damaged("page %d is in use, and listed as free", free)
		}
		c.seen[free/64] |= 1 << (free % 64)
	}
	return nil
}

// takeBack makes the file what it was before the commit txid, of which it is not known whether
// it has reached the disk: the meta page that it wrote is overwritten with that of the commit
// before, which is known to be on disk. No page of that one was touched.
func takeBack(f *os.File, txid uint64) error {
	newest, older, err, olderErr := metas(f)
	if err != nil {
		return err
	}
	if newest.txid > txid {
		return nil // somebody went on from there
	}
	good := newest
	if newest.txid == txid {
		if olderErr != nil {
			return olderErr
		}
		good = older
	}
	if good.txid+1 != txid {
		return damaged("commits %d and %d, expected %d", newest.txid, older.txid, txid-1)
	}
	b := make([]byte, good.pageSize)
	if _, err := f.ReadAt(b, int64(good.txid%2*good.pageSize)); err != nil {
		return err
	}
	slot := txid % 2
	ne.PutUint64(b, slot) // its own page number
	if _, err := f.WriteAt(b, int64(slot*good.pageSize)); err != nil {
		return err
	}
	return f.Sync()
}
