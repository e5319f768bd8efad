"""R_format, R_answer, R_E and their sum; pure functions of text and probabilities."""
