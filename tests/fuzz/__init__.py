"""Properties of everything that reads bytes from outside, with the seeds that once broke it.

`HYPOTHESIS_PROFILE=thorough` looks for more.
"""
