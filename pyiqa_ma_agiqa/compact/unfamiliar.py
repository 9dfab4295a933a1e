"""When an image is called a stranger; apart from the network, so that it loads at once."""

UNFAMILIAR = 0.05
"""Below it an image is unlike the training images: fewer than one known image in twenty is stranger."""
