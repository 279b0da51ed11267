"""What all figures share: style, text that fits, writing them byte for byte the same."""
