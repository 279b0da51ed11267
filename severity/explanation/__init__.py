"""Single decisions explained: paths in the tree, Grad-CAM, feature maps."""
