"""Arithmetic on arrays of probabilities and sets of labels that training, decision rules and metrics share (numpy alone)."""
