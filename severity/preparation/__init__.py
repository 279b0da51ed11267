"""From a collection to the split and the target of every label."""
