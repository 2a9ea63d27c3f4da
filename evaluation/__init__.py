"""Evaluation: problems, generation, answer verification and statistics. Knows transformers and math-verify."""
