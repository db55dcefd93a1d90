"""Pure choices on scores and features: thresholds, clusters, core-sets, duplicates, scenes. Knows no BasicSR."""
