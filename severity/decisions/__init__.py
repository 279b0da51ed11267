"""Decision rules: from probabilities to classes, nodes or sets of labels."""
