"""ERV: train multimodal language models to recognise emotions and give reasons that hold (arXiv 2510.23506)."""

__version__ = "0.1.0"
