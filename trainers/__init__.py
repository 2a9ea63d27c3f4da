"""Training: data, models, teacher cache, target loss, the loop. Knows torch, transformers, accelerate, datasets."""
