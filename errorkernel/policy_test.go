package errorkernel_test

import (
	"testing"

	"steward/errorkernel"
)

func TestDefaultPolicyActions(t *testing.T) {
	tests := []struct {
		class errorkernel.Class
		want  errorkernel.Action
	}{
		{errorkernel.ProcessFailed, errorkernel.Restart},
		{errorkernel.ProcessPanic, errorkernel.Restart},
		{errorkernel.ProcessStuck, errorkernel.Continue},
		{errorkernel.GivenUp, errorkernel.Continue},
		{errorkernel.MethodFailed, errorkernel.Continue},
		{errorkernel.Refused, errorkernel.Continue},
		{errorkernel.StoreFailed, errorkernel.Retry},
		{errorkernel.LinkFailed, errorkernel.Retry},
		{errorkernel.NameTaken, errorkernel.Continue},
		{errorkernel.Unproven, errorkernel.Continue},
		{errorkernel.Class(0), errorkernel.Continue},
		{errorkernel.Class(200), errorkernel.Continue},
	}
	for _, tt := range tests {
		if got := errorkernel.DefaultPolicy(errorkernel.Event{Class: tt.class, Failures: 99}); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.class, got, tt.want)
		}
	}
}

func TestNamesOfUnknownValuesAreReadable(t *testing.T) {
	if got := errorkernel.Class(200).String(); got != "class-200" {
		t.Errorf("class: %q", got)
	}
	if got := errorkernel.Action(0).String(); got != "action-0" {
		t.Errorf("action: %q", got)
	}
}
