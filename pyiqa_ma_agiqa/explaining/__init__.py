"""An `Explanation` as a picture and as a page."""
