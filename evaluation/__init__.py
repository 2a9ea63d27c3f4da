"""Evaluation: problems, generation, answer verification and statistics. Knows transformers and math-verify."""

from .verification.verify import Verdict, verify

__all__ = ["Verdict", "verify"]
