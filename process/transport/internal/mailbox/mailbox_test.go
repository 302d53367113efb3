package mailbox

import (
	"strconv"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"steward/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBoxKeepsOrderAndCallsOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, next := 0, 0
		box := New(func(d process.Delivery) {
			if calls++; calls != 1 {
				t.Error("two calls at once")
			}
			if d.Subject != strconv.Itoa(next) {
				t.Errorf("got %s, want %d", d.Subject, next)
			}
			next++
			calls--
		})
		for i := range 1000 {
			if !box.Put(process.Delivery{Subject: strconv.Itoa(i)}) {
				t.Fatalf("no room for %d", i)
			}
			if i%100 == 0 {
				synctest.Wait() // now and then the box runs empty
			}
		}
		synctest.Wait()
		if next != 1000 {
			t.Errorf("got %d deliveries, want 1000", next)
		}
		box.Close()
		<-box.Ended()
	})
}

func TestBoxIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		want int
	}{
		{"in deliveries", 0, MaxDeliveries},
		{"in bytes", 1 << 20, MaxBytes >> 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				handled := 0
				box := New(func(process.Delivery) { <-release; handled++ })
				data := make([]byte, tt.size)
				box.Put(process.Delivery{Data: data}) // the call under way
				synctest.Wait()
				taken := 0
				for box.Put(process.Delivery{Data: data}) {
					taken++
				}
				if taken != tt.want {
					t.Errorf("took %d, want %d", taken, tt.want)
				}
				close(release)
				synctest.Wait()
				if handled != tt.want+1 {
					t.Errorf("handled %d, want %d", handled, tt.want+1)
				}
				if !box.Put(process.Delivery{Data: data}) {
					t.Error("no room after the queue was handled")
				}
				box.Close()
				<-box.Ended()
			})
		})
	}
}

func TestClosedBoxDropsItsQueueAndEndsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		handled := 0
		box := New(func(process.Delivery) { handled++; <-release })
		box.Put(process.Delivery{})
		box.Put(process.Delivery{})
		synctest.Wait()
		box.Close()
		box.Close()
		select {
		case <-box.Ended():
			t.Error("ended with a call under way")
		default:
		}
		if box.Put(process.Delivery{}) {
			t.Error("a closed box took a delivery")
		}
		close(release)
		<-box.Ended()
		if handled != 1 {
			t.Errorf("handled %d deliveries, want the one under way", handled)
		}
	})
}
