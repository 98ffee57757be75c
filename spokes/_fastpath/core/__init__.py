"""An engine's threads: what they share, what each does, what they tell Python."""
