"""Compressed-tensors folders: written, published by one rename, and checked.

Import from the modules: ``run.export`` writes, ``verify.verify`` reads back, ``schemes`` is the table both stand on.
"""
