"""What an option file may say: safe YAML, typed sections, and BasicSR's dictionary made from them. Knows no BasicSR."""

# The stages of a recipe in the order of the method; finetune is what BasicSR's root keys say.
STAGE_ORDER = ('extract', 'cluster', 'select', 'finetune', 'sample')
# Kinds of option files that have a JSON schema.
SCHEMA_KINDS = ('recipe', 'experiment', 'benchmark')
