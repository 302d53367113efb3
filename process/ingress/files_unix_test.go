//go:build unix && !solaris && !aix

package ingress_test

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestOnlyCompleteRegularFilesAreRead(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.write("elsewhere/secret", say("secret"))
		for _, err := range []error{
			os.Symlink(w.path("elsewhere/secret"), w.path("link")),
			os.Symlink(w.path("elsewhere"), w.path("linked")),
			os.Mkdir(w.path("folder"), 0o700),
			syscall.Mkfifo(w.path("pipe"), 0o600),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		// A writer that is slow, but not silent for a second.
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			for i := range 10 {
				w.append("slow", say(fmt.Sprint(i)))
				<-time.After(700 * time.Millisecond)
			}
		}()
		w.wantRun(w.folder(), 20*time.Second)
		<-stop
		w.want("0,1,2,3,4,5,6,7,8,9")
		for _, name := range []string{"link", "linked", "folder", "pipe"} {
			if !w.exists(name) {
				t.Errorf("%s has gone", name)
			}
		}
	})
}

func TestAFolderHasOneReader(t *testing.T) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		first := make(chan error)
		go func() { first <- w.run(w.folder(), time.Minute) }()
		synctest.Wait()
		<-time.After(time.Second)
		if err := w.run(w.folder(), time.Second); err == nil {
			t.Error("no error for the second one")
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

// Who can write to the folder can send messages, and no more: links that he puts there lead nowhere.
func TestLinksInTheFolderLeadNothingOutOfIt(t *testing.T) {
	for _, name := range []string{"working", "done", "failed", "working/.note.new"} {
		t.Run(name, func(t *testing.T) { linkInFolder(t, name) })
	}
}

func linkInFolder(t *testing.T, name string) {
	outside := t.TempDir()
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		w.wantRun(w.folder(), time.Second)
		victim := outside
		if name == "working/.note.new" {
			victim = outside + "/file"
			if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.RemoveAll(w.path(name)), os.Symlink(victim, w.path(name))); err != nil {
			t.Fatal(err)
		}
		w.write("a", say("a"))
		w.write("b", "[")
		err := w.run(w.folder(), 10*time.Second)
		if victim != outside {
			if got, rerr := os.ReadFile(victim); err != nil || rerr != nil || string(got) != "mine" {
				t.Errorf("%s: %v; the file outside holds %q, %v", name, err, got, rerr)
			}
			return
		}
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
			t.Errorf("%s: outside are %v, %v", name, entries, err)
		}
	})
}

func TestLinksBesideTheInFileLeadNothingElsewhere(t *testing.T) {
	outside := t.TempDir()
	for _, suffix := range []string{".note", ".note.new", ".error"} {
		t.Run(suffix, func(t *testing.T) { linkBeside(t, outside, suffix) })
	}
}

func linkBeside(t *testing.T, outside, suffix string) {
	inFileWorld(t, func(t *testing.T, w *fileWorld) {
		victim := outside + "/file"
		if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(victim, w.path("inmsg.txt"+suffix)); err != nil {
			t.Fatal(err)
		}
		w.write("inmsg.txt", say("a")+"[}")
		if err := w.run(w.inFile(), 10*time.Second); err == nil && suffix == ".note" {
			t.Error("a note that is a link was believed")
		}
		if got, err := os.ReadFile(victim); err != nil || string(got) != "mine" {
			t.Errorf("%s: the file outside holds %q, %v", suffix, got, err)
		}
	})
}
