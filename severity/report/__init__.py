"""The report of a study and its tables for a paper."""
