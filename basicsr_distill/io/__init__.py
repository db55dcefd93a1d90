"""Files: atomic writes and locks, images, the manifest, weights, figures. Knows no BasicSR."""
