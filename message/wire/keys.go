package wire

// Keys are the names of the keys of a message, of its operation, and of the arguments of that.
func Keys() (message, operation, arguments []string) {
	return names(draftKeys), names(operationKeys), names(operationArgKeys)
}

func names[T any](keys []key[T]) []string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.name
	}
	return list
}
