"""What an option file may say: safe YAML, typed sections, and the one place that makes BasicSR's dictionary. Knows no BasicSR."""
