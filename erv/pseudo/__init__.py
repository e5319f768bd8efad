"""Training text for the verifier that a language model labels or writes."""
