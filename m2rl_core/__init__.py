"""m2rl: mix, merge or distil? Multi-domain reinforcement learning from verifiable rewards, answered by experiment."""

__version__ = "0.1.0"
