"""The prediction file, from which everything after training is computed."""
