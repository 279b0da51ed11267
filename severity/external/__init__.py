"""External predictions: from a file made by another program to a prediction file."""
