"""A provider that calls no model: for demonstrations, tests and load. Its answers say that they are simulated.

Only `provider` and `settings` are loaded with the gateway; the server that is simulated is loaded for the first request to it.
"""
