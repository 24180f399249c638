"""What `verify` holds a written folder to, one small function per rule.

``folder`` reads it, ``resolution`` finds the scheme of each Linear as the engines do, ``structure`` checks names and
groups, ``linears`` decodes and compares, ``rules`` checks tensors and files.
"""
