"""HumanOmni, R1-Omni and ERV: SigLIP and Whisper towers, a BERT gate, projectors and a Qwen2 decoder.

config      sizes
model       the model, its projector in projector
prompts     what is written around the media, by stage
processor   decoded clips -> tower inputs, prompts, batches
batch       a collated batch
tokenizer   tokenizers for a model without public weights
family      making, reading and writing a policy of this family
checkpoint  our names of weights and the public ones, building a model from weights
convert     public checkpoints, in both directions
backbones   sizes and hub ids of the public models it is made of
"""
