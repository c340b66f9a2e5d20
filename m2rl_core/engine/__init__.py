"""The embedded engine: continuous batching around a transformers model, on CPU and CUDA, without a server.

Read in this order: :mod:`.rows` (what is asked for and what is being drawn), :mod:`.sampler` (from logits to a token),
:mod:`.cache` (where keys and values lie), :mod:`.attention` (how a transformers model is made to use it),
:mod:`.decoder` (the steps), :mod:`.checkpoint` (weights in), :mod:`.selftest`, :mod:`.embedded` (the component).

What makes a sample's tokens independent of who shares its batch, bit for bit:

- its noise is a hash of (seed, sample, position);
- whatever it takes part in has a shape that depends on its own context alone, except for the number of rows;
- on a CPU with one thread the rows of a product do not depend on their number, if there are at least four of them, nor
  do those of an elementwise operation, if its vectorised loop has no remainder (:data:`.decoder.MULTIPLE`).

The last point is a property of BLAS and of torch, not a law: :mod:`.selftest` checks it whenever an engine starts.
"""
