"""Every file that travels between stages or machines: its dataclass, schema id, reader, writer and fingerprint.

This room knows no stage and imports neither torch nor transformers.
"""
