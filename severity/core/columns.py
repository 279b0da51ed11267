"""Columns that the tables of several folders share."""

# What is known of an image beside its labels.
METADATA = ("id", "patient", "sex", "age", "view", "split")
