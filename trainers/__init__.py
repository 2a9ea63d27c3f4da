"""Training: data, models, teacher cache, target loss and the fine-tuning loop. Knows torch, transformers, accelerate, datasets."""
