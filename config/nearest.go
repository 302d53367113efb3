package config

import (
	"strings"

	"github.com/agext/levenshtein"
)

// DidYouMean returns a question that names the candidate nearest to a misspelled word, or
// the hint given when none is near.
func DidYouMean(word string, candidates []string, hint string) string {
	// What is a typing error of a name is not much longer than a name; and the distance
	// of an input of any length costs time.
	const longest = 64
	best, least := "", longest
	for _, c := range candidates {
		if len(word) > longest {
			break
		}
		d := levenshtein.Distance(strings.ToLower(word), strings.ToLower(c), nil)
		if d < least && 2*d <= max(len(word), len(c)) {
			best, least = c, d
		}
	}
	if best == "" {
		return hint
	}
	return "did you mean " + best + "?"
}
