"""What a mutation must be before it is stored, whoever asks for it: the one door in front of the store."""
