"""HumanOmni: configuration, model, processor, prompts, checkpoints."""
