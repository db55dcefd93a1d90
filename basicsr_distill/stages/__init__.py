"""The stages of a distillation: each module offers ``run(options) -> Path`` and leaves a finished folder."""
