"""Columns that the tables of several folders share."""

# What is known about an image besides its labels.
METADATA = ("id", "patient", "sex", "age", "view", "split")
