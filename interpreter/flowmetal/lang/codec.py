"""The lossless codec: values and machine states ↔ text (JSON), sharing kept.

A document is `[version, root, nodes]`. A scalar stands for itself; everything else is a node,
referred to as `[index]`, or `[index, k]` for the list that remains after k elements of list `index`.
A node is `[tag, parts…]`: `encoding` has a rule for each kind of value, `decoding` one for each tag. Nothing here recurses on Python's stack.

As a *value* (crossing from one flow to another) a promise becomes a reference that names its flow,
and a closure carries the definitions version that it is to see; as a *state* both stay as they are.
"""

from __future__ import annotations

from flowmetal.lang.decoding import CodeLoader, Damaged, decode
from flowmetal.lang.encoding import FORMAT, Encoder, encode_question, encode_state, encode_value

__all__ = ["FORMAT", "CodeLoader", "Damaged", "Encoder", "decode", "encode_question", "encode_state", "encode_value"]
