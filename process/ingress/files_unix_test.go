//go:build unix && !solaris && !aix

package ingress_test

import (
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
