"""The first stage: patches of photographs that lose much when they are shrunk and enlarged again."""
