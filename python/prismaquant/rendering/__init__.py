"""A unit and a format go in, the bytes that ship come out; no other code turns weights into bytes."""
