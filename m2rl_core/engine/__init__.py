"""The embedded engine: continuous batching around a transformers model, on CPU and CUDA, without a server.

Read in this order: :mod:`.rows` (what is asked for and what is being drawn), :mod:`.sampler` (from logits to a token),
:mod:`.cache` (where keys and values lie), :mod:`.attention` (how a transformers model is made to use it),
:mod:`.decoder` (the steps), :mod:`.checkpoint` (weights in), :mod:`.selftest`, :mod:`.embedded` (the component).

What makes a sample's tokens independent of who shares its batch:

- its noise is a hash of (seed, sample, position);
- every matrix that it takes part in has a shape that depends on nothing but its own context, except for the number of
  rows; and the rows of a product are independent of each other on the CPU where there are at least four of them.
"""
