"""From logits to probabilities of labels and nodes: what the losses share."""
