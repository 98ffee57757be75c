"""The control plane: coroutines that own policy and never touch a visitor's bytes."""
