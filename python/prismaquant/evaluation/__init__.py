"""What a written checkpoint costs: KL divergence, top-1 agreement and perplexity against its source.

The only room besides `streaming` and `calibration` that imports torch and transformers. It measures the folder that was
written, loaded by third-party code, and shares no number with the code that made it.
"""
