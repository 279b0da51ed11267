"""Severity: how far off a classifier is in the label tree, not only how often."""
