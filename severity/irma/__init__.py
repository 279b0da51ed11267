"""The IRMA code: what its characters mean, the tree of its codes, the facts a collection needs to score them."""
