"""Targets: trust families, residual families, presets, ranges and identities. Knows pydantic; torch only inside functions."""
