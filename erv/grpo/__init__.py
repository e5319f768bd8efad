"""Group relative policy optimisation: tensors in, tensors out."""
